//! The sparse index of a segment: from an offset or a time to a position near it.
//! FORMAT.md section 4.
//!
//! It is a cache: always rebuildable from the segment, and never evidence about the log. A
//! reader that finds another batch than the index promised believes the batch chain. Blocks of
//! 4096 bytes, each with its own checksum and written once. Pure; any shard.

use super::codec::{Fields, FormatError};
use super::types::{Offset, Position};

/// "CKIX", little endian.
pub const INDEX_MAGIC: u32 = u32::from_le_bytes(*b"CKIX");
/// The only version so far.
pub const INDEX_VERSION: u16 = 1;
/// Bytes of a block in the file.
pub const INDEX_BLOCK_BYTES: usize = 4096;
const HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 24;
/// Entries of a full block; only the last block of a closed segment has fewer.
pub const BLOCK_ENTRIES: usize = (INDEX_BLOCK_BYTES - HEADER_BYTES) / ENTRY_BYTES;

const _: () = assert!(HEADER_BYTES + BLOCK_ENTRIES * ENTRY_BYTES <= INDEX_BLOCK_BYTES);

/// One point of a segment: the batch that begins at `position` has this base offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Base offset of the batch.
    pub offset: Offset,
    /// Where it begins.
    pub position: Position,
    /// Largest timestamp of all batches of the segment before it; -1 for none. Never falls.
    pub max_timestamp_before: i64,
    /// Number of batches before it.
    pub ordinal: u32,
}

/// Encodes a block of at most `BLOCK_ENTRIES` entries.
pub fn encode_block(base: Offset, number: u32, entries: &[IndexEntry]) -> Vec<u8> {
    assert!(entries.len() <= BLOCK_ENTRIES);
    let mut out = Vec::with_capacity(INDEX_BLOCK_BYTES);
    out.extend_from_slice(&INDEX_MAGIC.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&INDEX_VERSION.to_le_bytes());
    out.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&base.0.to_le_bytes());
    out.resize(HEADER_BYTES, 0);
    for entry in entries {
        let relative = u32::try_from(entry.offset.0 - base.0).unwrap_or(u32::MAX);
        let position = u32::try_from(entry.position.0).unwrap_or(u32::MAX);
        out.extend_from_slice(&relative.to_le_bytes());
        out.extend_from_slice(&position.to_le_bytes());
        out.extend_from_slice(&entry.max_timestamp_before.to_le_bytes());
        out.extend_from_slice(&entry.ordinal.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
    out.resize(INDEX_BLOCK_BYTES, 0);
    let crc = crc32c::crc32c(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

/// A block as stored, its checksum verified.
#[derive(Clone, Copy)]
pub struct IndexBlock<'a> {
    base: Offset,
    entries: &'a [u8],
}

impl<'a> IndexBlock<'a> {
    /// Verifies the block with this number of the segment with this base offset.
    pub fn verify(bytes: &'a [u8], base: Offset, number: u32) -> Result<Self, FormatError> {
        let Some(bytes) = bytes.get(..INDEX_BLOCK_BYTES) else { return Err(FormatError::Short) };
        let mut fields = Fields::new(bytes);
        let magic = fields.u32()?;
        if magic != INDEX_MAGIC {
            return Err(FormatError::Magic(magic));
        }
        let stored = fields.u32()?;
        let computed = crc32c::crc32c(&bytes[8..]);
        if stored != computed {
            return Err(FormatError::Checksum { stored, computed });
        }
        let version = fields.u16()?;
        if version > INDEX_VERSION {
            return Err(FormatError::Version(version));
        }
        let count = usize::from(fields.u16()?);
        if fields.u32()? != number || Offset(fields.i64()?) != base {
            return Err(FormatError::Inconsistent("belongs to another segment or place"));
        }
        let entries = bytes.get(HEADER_BYTES..HEADER_BYTES + count * ENTRY_BYTES);
        match entries {
            Some(entries) if count > 0 => Ok(IndexBlock { base, entries }),
            _ => Err(FormatError::Inconsistent("number of entries")),
        }
    }

    /// Number of entries, at least 1.
    pub fn entry_count(&self) -> usize {
        self.entries.len() / ENTRY_BYTES
    }

    /// The entry with this number; `at < entry_count()`.
    pub fn entry(&self, at: usize) -> IndexEntry {
        let bytes = &self.entries[at * ENTRY_BYTES..(at + 1) * ENTRY_BYTES];
        let int = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let time = u64::from(int(12)) << 32 | u64::from(int(8));
        IndexEntry {
            offset: Offset(self.base.0 + i64::from(int(0))),
            position: Position(u64::from(int(4))),
            max_timestamp_before: time as i64,
            ordinal: int(16),
        }
    }

    /// All entries.
    pub fn iter(self) -> impl Iterator<Item = IndexEntry> + 'a {
        (0..self.entry_count()).map(move |at| self.entry(at))
    }
}

/// What a lookup seeks. Both hold for a prefix of the entries; the last of them is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// The last entry whose offset is at or below this one.
    Offset(Offset),
    /// The last entry before which every timestamp is below this one.
    Time(i64),
}

impl Seek {
    fn accepts(self, entry: &IndexEntry) -> bool {
        match self {
            Seek::Offset(offset) => entry.offset <= offset,
            Seek::Time(time) => entry.max_timestamp_before < time,
        }
    }
}

/// Looks entries in memory up; `None` means the start of the segment.
pub fn find(entries: &[IndexEntry], seek: Seek) -> Option<IndexEntry> {
    let after = entries.partition_point(|entry| seek.accepts(entry));
    after.checked_sub(1).map(|at| entries[at])
}

/// Looks a stored index up, verifying each block that it touches.
pub fn find_stored(
    bytes: &[u8],
    base: Offset,
    seek: Seek,
) -> Result<Option<IndexEntry>, FormatError> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(INDEX_BLOCK_BYTES) {
        return Err(FormatError::Short);
    }
    let block = |number: usize| {
        IndexBlock::verify(&bytes[number * INDEX_BLOCK_BYTES..], base, number as u32)
    };
    let (mut low, mut high) = (0, bytes.len() / INDEX_BLOCK_BYTES);
    while low < high {
        let middle = low + (high - low) / 2;
        if seek.accepts(&block(middle)?.entry(0)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let Some(number) = low.checked_sub(1) else { return Ok(None) };
    let block = block(number)?;
    Ok(block.iter().take_while(|entry| seek.accepts(entry)).last())
}

/// Decides which batches get an entry, as batches are sealed one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexCursor {
    /// Where the last entry stands.
    pub last_position: Position,
    /// Batches seen.
    pub batches: u32,
    /// Largest timestamp seen; -1 for none.
    pub max_timestamp: i64,
    /// Base offset of the first batch that has it.
    pub max_timestamp_offset: Offset,
}

impl IndexCursor {
    /// Before the first batch of a segment.
    pub fn new(base: Offset) -> Self {
        IndexCursor {
            last_position: Position(0),
            batches: 0,
            max_timestamp: -1,
            max_timestamp_offset: base,
        }
    }

    /// The next batch was sealed at `position`; the entry that it gets, if any.
    pub fn batch(
        &mut self,
        offset: Offset,
        position: Position,
        max_timestamp: i64,
        interval_bytes: u64,
    ) -> Option<IndexEntry> {
        let due = position.0 - self.last_position.0 > interval_bytes;
        let entry = due.then_some(IndexEntry {
            offset,
            position,
            max_timestamp_before: self.max_timestamp,
            ordinal: self.batches,
        });
        if due {
            self.last_position = position;
        }
        if max_timestamp > self.max_timestamp {
            self.max_timestamp = max_timestamp;
            self.max_timestamp_offset = offset;
        }
        self.batches += 1;
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Offset = Offset(1_000);

    fn entries(count: usize) -> Vec<IndexEntry> {
        (0..count as i64)
            .map(|n| IndexEntry {
                offset: Offset(BASE.0 + 10 + n * 10),
                position: Position(5_000 * (n as u64 + 1)),
                max_timestamp_before: n / 3 * 100,
                ordinal: n as u32 * 2 + 1,
            })
            .collect()
    }

    fn file(entries: &[IndexEntry]) -> Vec<u8> {
        let blocks = entries.chunks(BLOCK_ENTRIES).enumerate();
        blocks.flat_map(|(number, part)| encode_block(BASE, number as u32, part)).collect()
    }

    #[test]
    fn stored_and_in_memory_answers_agree() {
        let entries = entries(2 * BLOCK_ENTRIES + 7);
        let file = file(&entries);
        for offset in (995..5_000).step_by(3) {
            let seek = Seek::Offset(Offset(offset));
            assert_eq!(find_stored(&file, BASE, seek), Ok(find(&entries, seek)));
        }
        for time in 0..120 {
            let seek = Seek::Time(time * 99);
            assert_eq!(find_stored(&file, BASE, seek), Ok(find(&entries, seek)));
        }
        assert_eq!(find(&entries, Seek::Offset(Offset(1_009))), None);
        assert_eq!(find(&entries, Seek::Offset(Offset(1_010))), Some(entries[0]));
        assert_eq!(find(&entries, Seek::Time(101)), Some(entries[5]));
        assert_eq!(find(&entries, Seek::Time(0)), None);
    }

    #[test]
    fn a_damaged_or_misplaced_block_is_refused() {
        let entries = entries(BLOCK_ENTRIES + 1);
        let good = file(&entries);
        let last = Seek::Offset(Offset(i64::MAX));
        for at in (0..good.len()).step_by(37) {
            let mut bad = good.clone();
            bad[at] ^= 2;
            let block = &bad[at / INDEX_BLOCK_BYTES * INDEX_BLOCK_BYTES..];
            assert!(IndexBlock::verify(block, BASE, (at / INDEX_BLOCK_BYTES) as u32).is_err());
        }
        assert!(IndexBlock::verify(&good, BASE, 1).is_err());
        assert!(IndexBlock::verify(&good, Offset(1), 0).is_err());
        assert!(find_stored(&good[..4000], BASE, last).is_err());
        assert!(find_stored(&[], BASE, last).is_err());
    }

    #[test]
    fn entries_come_at_the_interval_and_remember_the_first_maximum() {
        let mut cursor = IndexCursor::new(BASE);
        let mut made = Vec::new();
        for n in 0..6u64 {
            let time = [5, 9, 9, 3, 2, 9][n as usize];
            let offset = Offset(BASE.0 + n as i64);
            made.extend(cursor.batch(offset, Position(n * 2_000), time, 4_096));
        }
        let found: Vec<_> =
            made.iter().map(|e| (e.position.0, e.max_timestamp_before, e.ordinal)).collect();
        assert_eq!(found, [(6_000, 9, 3)], "the next would be due above 10,096");
        assert_eq!((cursor.max_timestamp, cursor.max_timestamp_offset), (9, Offset(1_001)));
    }
}
