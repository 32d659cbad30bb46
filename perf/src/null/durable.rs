//! The least that makes a record durable before it is acknowledged: one write of whole blocks with
//! `O_DIRECT` and `O_DSYNC`, over blocks that were written before.
//!
//! One file per connection, made when its first Produce arrives, and written over from the
//! beginning when it is full: nothing is ever read back. What has arrived by the time of a write
//! goes out together.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

const BLOCK_BYTES: usize = 4096;
/// More than the largest write: a frame of 1 MB batches for a dozen partitions.
const FILE_BYTES: u64 = 64 << 20;
/// A write takes no further frame from here on.
const ENOUGH_BYTES: usize = 4 << 20;

/// The log of one connection.
pub struct Log {
    file: File,
    position: u64,
    /// Of zeroes where nothing was gathered; direct writes begin on a block boundary in it.
    buffer: Vec<u8>,
    gathered: usize,
}

impl Log {
    /// A file of its own at `path`, written once.
    pub fn create(path: &Path) -> io::Result<Log> {
        fs::write(path, vec![0; FILE_BYTES as usize])?;
        let flags = (OFlags::DIRECT | OFlags::DSYNC).bits() as i32;
        let file = File::options().write(true).custom_flags(flags).open(path)?;
        file.sync_all()?;
        Ok(Log { file, position: 0, buffer: Vec::new(), gathered: 0 })
    }

    /// Takes a frame into the next write.
    pub fn gather(&mut self, frame: &[u8]) {
        let end = self.gathered + frame.len();
        let needed = end.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES;
        if self.buffer.len() < needed {
            let mut larger = vec![0; needed.next_power_of_two()];
            let (from, to) = (aligned(&self.buffer), aligned(&larger));
            larger[to..to + self.gathered]
                .copy_from_slice(&self.buffer[from..from + self.gathered]);
            self.buffer = larger;
        }
        let start = aligned(&self.buffer) + self.gathered;
        self.buffer[start..start + frame.len()].copy_from_slice(frame);
        self.gathered = end;
    }

    /// Whether the next write has its size.
    pub fn is_full(&self) -> bool {
        self.gathered >= ENOUGH_BYTES
    }

    /// What was gathered is durable when this returns.
    pub fn write(&mut self) -> io::Result<()> {
        if self.gathered == 0 {
            return Ok(());
        }
        let length = self.gathered.next_multiple_of(BLOCK_BYTES);
        if self.position + length as u64 > FILE_BYTES {
            self.position = 0;
        }
        let start = aligned(&self.buffer);
        self.file.write_all_at(&self.buffer[start..start + length], self.position)?;
        self.position += length as u64;
        self.gathered = 0;
        Ok(())
    }
}

/// Where the first block of a buffer begins.
fn aligned(buffer: &[u8]) -> usize {
    match buffer.is_empty() {
        true => 0,
        false => buffer.as_ptr().align_offset(BLOCK_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_stand_together_in_whole_blocks_and_the_file_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::create(&path).unwrap();
        log.gather(&[1; 3000]);
        log.gather(&[2; 3000]);
        log.write().unwrap();
        log.write().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, FILE_BYTES);
        assert_eq!((bytes[2999], bytes[3000], bytes[5999]), (1, 2, 2));
        assert_eq!(log.position, 8192);
        let rounds = FILE_BYTES / (5 << 20) + 1;
        for round in 0..rounds {
            log.gather(&vec![10 + round as u8; 5 << 20]);
            assert!(log.is_full());
            log.write().unwrap();
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), FILE_BYTES, "it does not grow");
        assert_eq!(fs::read(&path).unwrap()[0], 10 + (rounds - 1) as u8);
    }
}
