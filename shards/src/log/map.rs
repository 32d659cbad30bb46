//! The `.map` file beside a segment: which Raft entries its bytes are. FORMAT.md section 3.
//!
//! It is data, not a cache: with it, the Raft index of a batch is the segment's first index plus
//! the batch's ordinal plus the entries without records before it. Written whole and replaced
//! atomically; small, because entries without records are rare. Pure; any shard.

use wal::{Index, Term};

use super::codec::{preamble, seal, Fields, FormatError};
use super::types::{LastBatch, Offset, PartitionIdentity, Position};

/// "CKMP", little endian.
pub const MAP_MAGIC: u32 = u32::from_le_bytes(*b"CKMP");
/// The only version that is read: no release wrote version 1, which knew no last batch.
pub const MAP_VERSION: u16 = 2;
const FLAG_CLOSED: u16 = 1;

/// An entry that took an index and no offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmptyEntry {
    /// Raft index.
    pub index: Index,
    /// Raft term.
    pub term: Term,
    /// The offset that the next record took, or will take.
    pub offset: Offset,
}

/// What is known of a segment once it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedFacts {
    /// Length of the segment file in bytes.
    pub length: u64,
    /// Offset after its last record.
    pub next_offset: Offset,
    /// Raft index of its last batch.
    pub last_index: Index,
    /// Raft term of its last batch.
    pub last_term: Term,
    /// Number of batches.
    pub batches: u32,
    /// Largest timestamp; -1 when no batch has one.
    pub max_timestamp: i64,
    /// Base offset of the first batch that has it.
    pub max_timestamp_offset: Offset,
    /// Wall clock at the close, in milliseconds.
    pub closed_ms: i64,
    /// Its last batch.
    pub last: LastBatch,
}

/// The content of a `.map` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMap {
    /// Offset of the first record of the segment.
    pub base_offset: Offset,
    /// Raft index of the first entry that belongs to the segment, with or without records.
    pub first_index: Index,
    /// Its term.
    pub first_term: Term,
    /// `None` while the segment is written; then the group checkpoint says how far it goes.
    pub closed: Option<ClosedFacts>,
    /// Entries without records, by rising index.
    pub empties: Vec<EmptyEntry>,
}

impl SegmentMap {
    /// The Raft index of the batch with this ordinal (from 0) and base offset.
    pub fn index_of(&self, ordinal: u64, base_offset: Offset) -> Index {
        let before = self.empties.iter().filter(|entry| entry.offset <= base_offset).count();
        Index(self.first_index.0 + ordinal + before as u64)
    }

    /// The bytes of the file.
    pub fn encode(&self, identity: &PartitionIdentity) -> Vec<u8> {
        let mut out = Vec::with_capacity(172 + 24 * self.empties.len());
        out.extend_from_slice(&MAP_MAGIC.to_le_bytes());
        out.extend_from_slice(&MAP_VERSION.to_le_bytes());
        let flags = if self.closed.is_some() { FLAG_CLOSED } else { 0 };
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&identity.topic);
        out.extend_from_slice(&identity.partition.to_le_bytes());
        out.extend_from_slice(&self.base_offset.0.to_le_bytes());
        out.extend_from_slice(&self.first_index.0.to_le_bytes());
        out.extend_from_slice(&self.first_term.0.to_le_bytes());
        if let Some(facts) = &self.closed {
            out.extend_from_slice(&facts.length.to_le_bytes());
            out.extend_from_slice(&facts.next_offset.0.to_le_bytes());
            out.extend_from_slice(&facts.last_index.0.to_le_bytes());
            out.extend_from_slice(&facts.last_term.0.to_le_bytes());
            out.extend_from_slice(&facts.batches.to_le_bytes());
            out.extend_from_slice(&facts.max_timestamp.to_le_bytes());
            out.extend_from_slice(&facts.max_timestamp_offset.0.to_le_bytes());
            out.extend_from_slice(&facts.closed_ms.to_le_bytes());
            out.extend_from_slice(&facts.last.position.0.to_le_bytes());
            out.extend_from_slice(&facts.last.crc.to_le_bytes());
        }
        out.extend_from_slice(&(self.empties.len() as u32).to_le_bytes());
        for entry in &self.empties {
            out.extend_from_slice(&entry.index.0.to_le_bytes());
            out.extend_from_slice(&entry.term.0.to_le_bytes());
            out.extend_from_slice(&entry.offset.0.to_le_bytes());
        }
        seal(&mut out);
        out
    }

    /// Reads a file back; the topic and the partition in it must be the expected ones, if given.
    pub fn decode(
        bytes: &[u8],
        identity: Option<&PartitionIdentity>,
    ) -> Result<SegmentMap, FormatError> {
        let (flags, mut fields) = preamble(bytes, MAP_MAGIC, MAP_VERSION, identity)?;
        let base_offset = Offset(fields.i64()?);
        let first_index = Index(fields.u64()?);
        let first_term = Term(fields.u64()?);
        let closed = if flags & FLAG_CLOSED != 0 { Some(closed_facts(&mut fields)?) } else { None };
        let mut empties = Vec::with_capacity(fields.count(24)?.min(1024));
        while fields.remaining() > 0 {
            let index = Index(fields.u64()?);
            let term = Term(fields.u64()?);
            empties.push(EmptyEntry { index, term, offset: Offset(fields.i64()?) });
        }
        fields.end()?;
        Ok(SegmentMap { base_offset, first_index, first_term, closed, empties })
    }
}

fn closed_facts(fields: &mut Fields<'_>) -> Result<ClosedFacts, FormatError> {
    let facts = ClosedFacts {
        length: fields.u64()?,
        next_offset: Offset(fields.i64()?),
        last_index: Index(fields.u64()?),
        last_term: Term(fields.u64()?),
        batches: fields.u32()?,
        max_timestamp: fields.i64()?,
        max_timestamp_offset: Offset(fields.i64()?),
        closed_ms: fields.i64()?,
        last: LastBatch { position: Position(fields.u64()?), crc: fields.u32()? },
    };
    if facts.last.position.0 >= facts.length {
        return Err(FormatError::Inconsistent("place of the last batch"));
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> PartitionIdentity {
        PartitionIdentity { topic: [7; 16], partition: 3, owner: wal::Owner::default() }
    }

    fn map() -> SegmentMap {
        let empty = |index, term, offset| EmptyEntry {
            index: Index(index),
            term: Term(term),
            offset: Offset(offset),
        };
        SegmentMap {
            base_offset: Offset(100),
            first_index: Index(50),
            first_term: Term(6),
            closed: None,
            empties: vec![empty(50, 6, 100), empty(53, 7, 120)],
        }
    }

    #[test]
    fn a_map_is_read_back_open_and_closed() {
        let open = map();
        assert_eq!(SegmentMap::decode(&open.encode(&identity()), Some(&identity())), Ok(open));
        let closed = SegmentMap {
            closed: Some(ClosedFacts {
                length: 12345,
                next_offset: Offset(130),
                last_index: Index(55),
                last_term: Term(7),
                batches: 4,
                max_timestamp: -1,
                max_timestamp_offset: Offset(0),
                closed_ms: 99,
                last: LastBatch { position: Position(12000), crc: 0x1234_5678 },
            }),
            ..map()
        };
        assert_eq!(SegmentMap::decode(&closed.encode(&identity()), None), Ok(closed));
    }

    #[test]
    fn indexes_count_the_entries_without_records() {
        let map = map();
        assert_eq!(map.index_of(0, Offset(100)), Index(51));
        assert_eq!(map.index_of(1, Offset(110)), Index(52));
        assert_eq!(map.index_of(2, Offset(120)), Index(54));
    }

    #[test]
    fn any_flipped_bit_and_another_partition_are_refused() {
        let bytes = map().encode(&identity());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert!(SegmentMap::decode(&bad, None).is_err(), "byte {at}");
        }
        let other = PartitionIdentity { partition: 4, ..identity() };
        assert_eq!(SegmentMap::decode(&bytes, Some(&other)), Err(FormatError::OtherPartition));
        assert_eq!(SegmentMap::decode(&bytes[..3], None), Err(FormatError::Short));
    }
}
