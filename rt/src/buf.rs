//! Aligned buffers for direct I/O, and their way into `Bytes` without a copy.
//!
//! The same plain memory on both backends: it may be read, frozen and freed on any shard or
//! thread, so a batch that another shard still sends keeps its frame's buffer alive by itself.

use std::alloc::{alloc, dealloc, handle_alloc_error, Layout};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytes::Bytes;

/// Alignment of memory, positions and lengths in direct I/O.
pub const BLOCK_BYTES: usize = 4096;

/// A buffer of fixed capacity, aligned to 4096 bytes.
pub struct Buf {
    memory: Aligned,
    len: usize,
    /// `len <= initialised <= capacity`; bytes between were written before a `set_len`.
    initialised: usize,
}

impl Buf {
    /// An empty buffer; the capacity is rounded up to whole blocks, at least one.
    pub(crate) fn allocate(capacity: usize) -> Buf {
        let capacity = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        Buf { memory: Aligned::new(capacity), len: 0, initialised: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn capacity(&self) -> usize {
        self.memory.layout.size()
    }

    /// Sets the length; bytes that become visible keep whatever was written there before, and are
    /// zero if nothing was.
    ///
    /// # Panics
    /// Beyond the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "length beyond the capacity");
        if len > self.initialised {
            let start = self.initialised;
            // SAFETY: start < len <= capacity, within our own allocation.
            unsafe { self.memory.data.as_ptr().add(start).write_bytes(0, len - start) };
            self.initialised = len;
        }
        self.len = len;
    }

    /// # Panics
    /// Beyond the capacity: a `Buf` never reallocates.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        assert!(end <= self.capacity(), "length beyond the capacity");
        // SAFETY: the range lies within our own allocation, which `bytes` cannot overlap since
        // it is borrowed mutably.
        unsafe {
            let target = self.memory.data.as_ptr().add(self.len);
            target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.len = end;
        self.initialised = self.initialised.max(end);
    }

    /// Sets the length; bytes that become visible are zero.
    ///
    /// # Panics
    /// Beyond the capacity.
    pub fn resize_zeroed(&mut self, len: usize) {
        // What lies beyond the length counts as never written.
        self.initialised = self.len;
        self.set_len(len);
    }

    /// The content as `Bytes`, without a copy. They may be dropped on any shard or thread.
    pub fn freeze(self) -> Bytes {
        if self.is_empty() {
            return Bytes::new();
        }
        Bytes::from_owner(Frozen(self))
    }

    /// Where the kernel writes what it reads: behind the length, up to the capacity.
    pub(crate) fn end(&mut self) -> *mut u8 {
        // SAFETY: the length is at most the capacity.
        unsafe { self.memory.data.as_ptr().add(self.len) }
    }

    /// Moves the length behind what was written at the end.
    ///
    /// # Safety
    /// `count` bytes were written through [`Buf::end`].
    pub(crate) unsafe fn assume_appended(&mut self, count: usize) {
        let len = self.len + count;
        assert!(len <= self.capacity(), "more was read than there was room for");
        self.len = len;
        self.initialised = self.initialised.max(len);
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len <= initialised`, and the memory is owned by us.
        unsafe { std::slice::from_raw_parts(self.memory.data.as_ptr(), self.len) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; a buffer that is being written is owned by its operation.
        unsafe { std::slice::from_raw_parts_mut(self.memory.data.as_ptr(), self.len) }
    }
}

impl std::fmt::Debug for Buf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buf {{ len: {}, capacity: {} }}", self.len, self.capacity())
    }
}

struct Frozen(Buf);

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Heap memory aligned to 4096 bytes; what is in it is not known.
struct Aligned {
    data: NonNull<u8>,
    layout: Layout,
}

impl Aligned {
    fn new(size: usize) -> Aligned {
        let layout = match Layout::from_size_align(size, BLOCK_BYTES) {
            Ok(layout) if size > 0 => layout,
            _ => unreachable!("a buffer has a sane, non-zero size"),
        };
        // SAFETY: the layout has a non-zero size.
        let data = unsafe { alloc(layout) };
        match NonNull::new(data) {
            Some(data) => Aligned { data, layout },
            None => handle_alloc_error(layout),
        }
    }
}

// SAFETY: uniquely owned plain memory.
unsafe impl Send for Aligned {}
// SAFETY: shared access only reads.
unsafe impl Sync for Aligned {}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.data.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_written_reads_as_zero() {
        let mut buf = Buf::allocate(1);
        assert_eq!((buf.capacity(), buf.len()), (BLOCK_BYTES, 0));
        buf.extend_from_slice(b"abcd");
        buf.set_len(2);
        buf.set_len(6);
        assert_eq!(&buf[..], b"abcd\0\0");
        buf.set_len(1);
        buf.resize_zeroed(4);
        assert_eq!(&buf[..], b"a\0\0\0");
    }

    #[test]
    fn frozen_bytes_outlive_everything_on_any_thread() {
        let mut buf = Buf::allocate(BLOCK_BYTES);
        buf.extend_from_slice(b"payload");
        let bytes = buf.freeze().slice(3..);
        let length = std::thread::spawn(move || bytes.len()).join();
        assert_eq!(length.ok(), Some(4));
    }
}
