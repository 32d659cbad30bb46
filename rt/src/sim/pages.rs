//! The bytes of a simulated file, in shared pages of 4 KiB.
//!
//! What the process sees and what is durable are two such maps that share equal pages. Pages of
//! zeros are all the same page, so that zero-filled files cost nothing. Pure.

use std::collections::BTreeMap;
use std::rc::Rc;

pub(super) const PAGE_BYTES: u64 = 4096;

type Page = [u8; PAGE_BYTES as usize];

/// Sparse bytes with a length; what was never written reads as zero.
#[derive(Clone)]
pub(super) struct Pages {
    len: u64,
    pages: BTreeMap<u64, Rc<Page>>,
    zero: Rc<Page>,
}

impl Pages {
    pub(super) fn new() -> Pages {
        Pages { len: 0, pages: BTreeMap::new(), zero: Rc::new([0; PAGE_BYTES as usize]) }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Pages that take up room on the disk.
    pub(super) fn allocated(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Pages that a write would have to allocate.
    pub(super) fn missing(&self, position: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let (first, last) = (position / PAGE_BYTES, (position + len - 1) / PAGE_BYTES);
        let present = self.pages.range(first..=last).count() as u64;
        last - first + 1 - present
    }

    pub(super) fn read(&self, position: u64, len: usize) -> Vec<u8> {
        let end = self.len.min(position.saturating_add(len as u64));
        let mut out = vec![0; end.saturating_sub(position) as usize];
        let mut at = position;
        while at < end {
            let (page, within) = (at / PAGE_BYTES, (at % PAGE_BYTES) as usize);
            let take = (PAGE_BYTES as usize - within).min((end - at) as usize);
            if let Some(bytes) = self.pages.get(&page) {
                let start = (at - position) as usize;
                out[start..start + take].copy_from_slice(&bytes[within..within + take]);
            }
            at += take as u64;
        }
        out
    }

    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = position + done as u64;
            let (page, within) = (at / PAGE_BYTES, (at % PAGE_BYTES) as usize);
            let take = (PAGE_BYTES as usize - within).min(bytes.len() - done);
            let part = &bytes[done..done + take];
            let zero = &self.zero;
            if take == PAGE_BYTES as usize && part.iter().all(|byte| *byte == 0) {
                self.pages.insert(page, Rc::clone(zero));
            } else {
                let slot = self.pages.entry(page).or_insert_with(|| Rc::clone(zero));
                Rc::make_mut(slot)[within..within + take].copy_from_slice(part);
            }
            done += take;
        }
        self.len = self.len.max(position + bytes.len() as u64);
    }

    /// Takes up room for the first `len` bytes; what was not there reads as zero.
    pub(super) fn allocate(&mut self, len: u64) {
        for page in 0..len.div_ceil(PAGE_BYTES) {
            self.pages.entry(page).or_insert_with(|| Rc::clone(&self.zero));
        }
        self.len = self.len.max(len);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE_BYTES));
            let within = (len % PAGE_BYTES) as usize;
            if within > 0 {
                if let Some(page) = self.pages.get_mut(&(len / PAGE_BYTES)) {
                    Rc::make_mut(page)[within..].fill(0);
                }
            }
        }
        self.len = len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written_across_pages() {
        let mut pages = Pages::new();
        pages.write(4090, b"hello world");
        assert_eq!(pages.len(), 4101);
        assert_eq!(pages.read(4090, 100), b"hello world");
        assert_eq!(pages.read(0, 2), [0, 0]);
        assert_eq!(pages.read(5000, 2), b"");
        assert_eq!(pages.allocated(), 2);
        assert_eq!(pages.missing(8192, 4097), 2);
    }

    #[test]
    fn a_cut_and_extended_file_reads_zeros() {
        let mut pages = Pages::new();
        pages.write(0, &[7; 10_000]);
        pages.set_len(5000);
        pages.set_len(9000);
        assert_eq!(pages.read(4999, 3), [7, 0, 0]);
        assert_eq!(pages.read(8998, 10), [0, 0]);
    }

    #[test]
    fn a_clone_does_not_see_later_writes() {
        let mut pages = Pages::new();
        pages.write(0, &[1; 8192]);
        let before = pages.clone();
        pages.write(4096, &[2; 4096]);
        assert_eq!(before.read(4096, 1), [1]);
        assert_eq!(pages.read(4096, 1), [2]);
    }
}
