//! Scans of logs made in memory: what is a torn tail, what is corruption, what is void.

use bytes::Bytes;

use super::*;
use crate::format::tests::{frame, sample_header};
use crate::format::{FILE_HEADER_BYTES, RECORD_HEADER_BYTES};

const FILE_BYTES: u64 = 16 * BLOCK_BYTES;

/// A file in memory: its header, and its bytes.
struct Disk {
    files: Vec<(FileHeader, Vec<u8>)>,
}

impl Disk {
    fn new() -> Disk {
        Disk { files: Vec::new() }
    }

    fn file(mut self, sequence: u64, base: Option<u64>) -> Disk {
        let header = FileHeader {
            sequence: FileSequence(sequence),
            salt: sequence * 77,
            file_bytes: FILE_BYTES,
            base: base.map(FrameNumber),
            ..sample_header()
        };
        let mut bytes = vec![0; FILE_BYTES as usize];
        bytes[..FILE_HEADER_BYTES].copy_from_slice(&header.encode()[..FILE_HEADER_BYTES]);
        self.files.push((header, bytes));
        self
    }

    /// A frame of one block in the newest file.
    fn put(mut self, block: u64, number: u64) -> Disk {
        let (header, bytes) = self.files.last_mut().expect("a file");
        let position = block * BLOCK_BYTES;
        let frame = frame(header, position, number, &[&number.to_le_bytes()]);
        bytes[position as usize..][..frame.len()].copy_from_slice(&frame);
        self
    }

    fn spoil(mut self, file: usize, block: u64) -> Disk {
        let at = (block * BLOCK_BYTES) as usize + 64 + RECORD_HEADER_BYTES;
        self.files[file].1[at] ^= 1;
        self
    }

    fn scan(&self) -> (Vec<u64>, Verdict) {
        let headers = self.files.iter().map(|(header, _)| *header).collect();
        let mut scan = Scan::new(headers, Laxness::default());
        let mut numbers = Vec::new();
        loop {
            match scan.step() {
                Step::Read { file, position, length } => {
                    let bytes = &self.files[file].1;
                    let end = (position + length).min(bytes.len() as u64);
                    let read = bytes.get(position as usize..end as usize).unwrap_or_default();
                    scan.supply(file, position, Bytes::copy_from_slice(read));
                }
                Step::Frame(frame) => numbers.push(frame.header.number.0),
                Step::Finished(verdict) => return (numbers, verdict),
            }
        }
    }
}

fn corrupt(frame: u64, file: u64, block: u64) -> Damage {
    Damage::CorruptFrame {
        frame: FrameNumber(frame),
        file: FileSequence(file),
        position: block * BLOCK_BYTES,
    }
}

#[test]
fn an_empty_folder_and_an_empty_file_hold_nothing() {
    let (numbers, verdict) = Disk::new().scan();
    assert_eq!((numbers.len(), verdict.last), (0, FrameNumber(0)));
    let (numbers, verdict) = Disk::new().file(1, Some(0)).scan();
    assert_eq!((numbers.len(), verdict.last), (0, FrameNumber(0)));
    assert_eq!((verdict.damage, verdict.torn), (vec![], None));
}

#[test]
fn frames_go_on_in_the_next_file() {
    let disk = Disk::new().file(7, Some(4)).put(1, 5).put(2, 6).file(8, None).put(1, 7);
    let (numbers, verdict) = disk.file(9, None).scan();
    assert_eq!(numbers, [5, 6, 7]);
    assert_eq!(verdict.last, FrameNumber(7));
    assert_eq!((verdict.frames, verdict.end), (vec![2, 1, 0], (1, 2 * BLOCK_BYTES)));
    assert_eq!((verdict.damage, verdict.torn), (vec![], None));
}

#[test]
fn a_bad_last_frame_is_a_torn_tail() {
    let disk = Disk::new().file(7, Some(0)).put(1, 1).put(2, 2).spoil(0, 2);
    let (numbers, verdict) = disk.scan();
    assert_eq!((numbers, verdict.last), (vec![1], FrameNumber(1)));
    assert_eq!((verdict.damage, verdict.torn), (vec![], Some(BadFrame::Checksum)));
}

#[test]
fn a_bad_first_frame_of_the_last_file_is_a_torn_tail() {
    let disk = Disk::new().file(7, Some(0)).put(1, 1).file(8, None).put(1, 2).spoil(1, 1);
    let (numbers, verdict) = disk.file(9, None).scan();
    assert_eq!((numbers, verdict.last), (vec![1], FrameNumber(1)));
    assert_eq!(verdict.damage, vec![]);
}

#[test]
fn a_bad_frame_before_a_good_one_is_corruption() {
    let disk = Disk::new().file(7, Some(0)).put(1, 1).put(2, 2).put(3, 3).spoil(0, 2);
    let (numbers, verdict) = disk.scan();
    assert_eq!((numbers, verdict.last), (vec![1, 3], FrameNumber(3)));
    assert_eq!((verdict.damage, verdict.torn), (vec![corrupt(2, 7, 2)], None));
}

#[test]
fn corruption_is_found_across_files_and_bad_headers() {
    // The whole of frame 2 is gone, and its length with it.
    let disk = Disk::new().file(7, Some(0)).put(1, 1).file(8, None).put(1, 3);
    let (numbers, verdict) = disk.scan();
    assert_eq!((numbers, verdict.damage), (vec![1, 3], vec![corrupt(2, 7, 2)]));
    let disk = Disk::new().file(7, Some(0)).put(1, 1).put(2, 2).file(8, None).put(1, 3).put(2, 4);
    let (numbers, verdict) = disk.spoil(1, 1).scan();
    assert_eq!((numbers, verdict.last), (vec![1, 2, 4], FrameNumber(4)));
    assert_eq!(verdict.damage, vec![corrupt(3, 7, 3)]);
}

#[test]
fn the_first_frame_of_all_can_be_missed() {
    let disk = Disk::new().file(7, None).put(1, 5).put(2, 6).spoil(0, 1);
    let (numbers, verdict) = disk.scan();
    assert_eq!((numbers, verdict.damage.len()), (vec![6], 1));
    let disk = Disk::new().file(7, None).put(1, 5).spoil(0, 1).file(8, Some(5)).put(1, 6);
    let (numbers, verdict) = disk.scan();
    assert_eq!((numbers, verdict.damage.len()), (vec![6], 1));
}

#[test]
fn a_frame_that_recovery_did_not_see_is_void() {
    // Frame 2 came to the disk after a recovery had judged that the log ends with frame 1.
    let disk = Disk::new().file(7, Some(0)).put(1, 1).put(2, 2).file(8, Some(1));
    let (numbers, verdict) = disk.scan();
    assert_eq!((numbers, verdict.last), (vec![1], FrameNumber(1)));
    assert_eq!(verdict.damage, vec![]);
    let disk = Disk::new().file(7, Some(0)).put(1, 1).put(2, 2).file(8, Some(1)).put(1, 2);
    let (numbers, verdict) = disk.file(9, None).put(1, 3).scan();
    assert_eq!((numbers, verdict.damage), (vec![1, 2, 3], vec![]));
}

#[test]
fn a_base_declares_durable_what_recovery_replayed() {
    let disk = Disk::new().file(7, Some(0)).put(1, 1).put(2, 2).spoil(0, 2).file(8, Some(2));
    let (numbers, verdict) = disk.scan();
    assert_eq!((numbers, verdict.last), (vec![1], FrameNumber(2)));
    assert_eq!(verdict.damage, vec![corrupt(2, 7, 2)]);
}

#[test]
fn a_missing_file_is_named() {
    let disk = Disk::new().file(7, Some(0)).put(1, 1).file(9, None).put(1, 3);
    let (numbers, verdict) = disk.scan();
    assert_eq!(numbers, [1, 3]);
    assert_eq!(verdict.damage, [Damage::MissingFile { file: FileSequence(8) }]);
    // Frames say that file 7 is needed.
    let disk = Disk::new().file(8, None).put(1, 2);
    let (_, verdict) = disk.scan();
    assert_eq!(verdict.damage, [Damage::MissingFile { file: FileSequence(7) }]);
}

#[test]
fn a_file_cut_short_is_not_read_for_ever() {
    let mut disk = Disk::new().file(7, Some(0)).put(1, 1).put(2, 2);
    disk.files[0].1.truncate(2 * BLOCK_BYTES as usize + 100);
    let (numbers, verdict) = disk.scan();
    assert_eq!((numbers, verdict.last), (vec![1], FrameNumber(1)));
}

#[test]
fn every_spoilt_block_is_either_harmless_or_seen() {
    for spoilt in 1..8 {
        let mut disk = Disk::new().file(7, Some(0));
        for number in 1..8 {
            disk = disk.put(number, number);
        }
        let (numbers, verdict) = disk.spoil(0, spoilt).scan();
        assert_eq!(numbers.len(), 6);
        assert_eq!(verdict.damage.len(), usize::from(spoilt < 7), "block {spoilt}");
    }
}
