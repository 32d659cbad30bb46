//! What a group checkpoint says of a partition's log: how far its segments are sealed, and what
//! cannot be rebuilt from them. FORMAT.md section 2.
//!
//! The bytes travel inside the group's checkpoint record in the WAL. Everything at or below
//! `flushed_index` is in sealed segment bytes or below the log start. Pure; any shard.

use bytes::Bytes;
use wal::{Index, Term};

use super::codec::{preamble, seal, Fields, FormatError};
use super::epochs::{EpochList, EpochStart};
use super::types::{LastBatch, Offset, PartitionIdentity, Position};

/// "CKLC", little endian.
pub const CHECKPOINT_MAGIC: u32 = u32::from_le_bytes(*b"CKLC");
/// The only version that is read: no release wrote version 1, which knew no last batch.
pub const CHECKPOINT_VERSION: u16 = 2;
const FLAG_ACTIVE: u16 = 1;
/// What stands for the last batch while nothing is sealed.
const NO_BATCH: LastBatch = LastBatch { position: Position(0), crc: 0 };
/// Direct writes are whole blocks of this size.
pub(super) const BLOCK: u64 = 4096;

/// The segment that is being written, as far as it is durable.
///
/// `sealed <= written`, `written` is a multiple of 4096. Between the two lies the beginning of
/// the batch that follows `flushed_index`; its other part is in the WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveCheckpoint {
    /// Offset of its first record: its name.
    pub base_offset: Offset,
    /// Raft index of the first entry that belongs to it.
    pub first_index: Index,
    /// Its term.
    pub first_term: Term,
    /// End of the last batch that lies wholly within the written blocks.
    pub sealed: Position,
    /// End of the written blocks.
    pub written: Position,
    /// Batches below `sealed`.
    pub batches: u32,
    /// Largest timestamp of the first batch (the wall clock if it had none): for the roll.
    pub first_timestamp: i64,
    /// Largest timestamp below `sealed`; -1 for none.
    pub max_timestamp: i64,
    /// Base offset of the first batch that has it.
    pub max_timestamp_offset: Offset,
    /// The last batch below `sealed`; `None` when there is none.
    pub last: Option<LastBatch>,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCheckpoint {
    /// Raft index of the last batch that is wholly in sealed bytes.
    pub flushed_index: Index,
    /// Its term.
    pub flushed_term: Term,
    /// Offset after it.
    pub next_offset: Offset,
    /// First offset that may be read.
    pub log_start: Offset,
    /// The segment being written; `None` when the next batch begins one.
    pub active: Option<ActiveCheckpoint>,
    /// Epochs that began at or below `next_offset`.
    pub epochs: EpochList,
    /// The caller's producer state, or a name for it; opaque here.
    pub producers: Bytes,
}

impl LogCheckpoint {
    /// The bytes to store.
    pub fn encode(&self, identity: &PartitionIdentity) -> Vec<u8> {
        let epochs = self.epochs.entries();
        let mut out = Vec::with_capacity(188 + 12 * epochs.len() + self.producers.len());
        out.extend_from_slice(&CHECKPOINT_MAGIC.to_le_bytes());
        out.extend_from_slice(&CHECKPOINT_VERSION.to_le_bytes());
        let flags = if self.active.is_some() { FLAG_ACTIVE } else { 0 };
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&identity.topic);
        out.extend_from_slice(&identity.partition.to_le_bytes());
        out.extend_from_slice(&self.flushed_index.0.to_le_bytes());
        out.extend_from_slice(&self.flushed_term.0.to_le_bytes());
        out.extend_from_slice(&self.next_offset.0.to_le_bytes());
        out.extend_from_slice(&self.log_start.0.to_le_bytes());
        if let Some(active) = &self.active {
            out.extend_from_slice(&active.base_offset.0.to_le_bytes());
            out.extend_from_slice(&active.first_index.0.to_le_bytes());
            out.extend_from_slice(&active.first_term.0.to_le_bytes());
            out.extend_from_slice(&active.sealed.0.to_le_bytes());
            out.extend_from_slice(&active.written.0.to_le_bytes());
            out.extend_from_slice(&active.batches.to_le_bytes());
            out.extend_from_slice(&active.first_timestamp.to_le_bytes());
            out.extend_from_slice(&active.max_timestamp.to_le_bytes());
            out.extend_from_slice(&active.max_timestamp_offset.0.to_le_bytes());
            let last = active.last.unwrap_or(NO_BATCH);
            out.extend_from_slice(&last.position.0.to_le_bytes());
            out.extend_from_slice(&last.crc.to_le_bytes());
        }
        out.extend_from_slice(&(epochs.len() as u32).to_le_bytes());
        for entry in epochs {
            out.extend_from_slice(&entry.epoch.to_le_bytes());
            out.extend_from_slice(&entry.start.0.to_le_bytes());
        }
        out.extend_from_slice(&(self.producers.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.producers);
        seal(&mut out);
        out
    }

    /// Reads it back; the topic and the partition in it must be the expected ones, if given.
    pub fn decode(
        bytes: &Bytes,
        identity: Option<&PartitionIdentity>,
    ) -> Result<LogCheckpoint, FormatError> {
        let (flags, mut fields) = preamble(bytes, CHECKPOINT_MAGIC, CHECKPOINT_VERSION, identity)?;
        let flushed_index = Index(fields.u64()?);
        let flushed_term = Term(fields.u64()?);
        let next_offset = Offset(fields.i64()?);
        let log_start = Offset(fields.i64()?);
        let active = if flags & FLAG_ACTIVE != 0 { Some(active(&mut fields)?) } else { None };
        let epochs = epochs(&mut fields)?;
        let count = fields.count(1)?;
        let producers = bytes.slice_ref(fields.bytes(count)?);
        fields.end()?;
        Ok(LogCheckpoint {
            flushed_index,
            flushed_term,
            next_offset,
            log_start,
            active,
            epochs,
            producers,
        })
    }
}

fn active(fields: &mut Fields<'_>) -> Result<ActiveCheckpoint, FormatError> {
    let mut active = ActiveCheckpoint {
        base_offset: Offset(fields.i64()?),
        first_index: Index(fields.u64()?),
        first_term: Term(fields.u64()?),
        sealed: Position(fields.u64()?),
        written: Position(fields.u64()?),
        batches: fields.u32()?,
        first_timestamp: fields.i64()?,
        max_timestamp: fields.i64()?,
        max_timestamp_offset: Offset(fields.i64()?),
        last: None,
    };
    if active.sealed > active.written || !active.written.0.is_multiple_of(BLOCK) {
        return Err(FormatError::Inconsistent("positions of the active segment"));
    }
    let last = LastBatch { position: Position(fields.u64()?), crc: fields.u32()? };
    active.last = match active.sealed {
        Position(0) if last == NO_BATCH => None,
        sealed if last.position < sealed => Some(last),
        _ => return Err(FormatError::Inconsistent("place of the last sealed batch")),
    };
    Ok(active)
}

fn epochs(fields: &mut Fields<'_>) -> Result<EpochList, FormatError> {
    let count = fields.count(12)?;
    let mut starts = Vec::with_capacity(count);
    for _ in 0..count {
        starts.push(EpochStart { epoch: fields.i32()?, start: Offset(fields.i64()?) });
    }
    EpochList::from_entries(starts).ok_or(FormatError::Inconsistent("epochs do not rise"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> PartitionIdentity {
        PartitionIdentity { topic: [9; 16], partition: 0, owner: wal::Owner::default() }
    }

    fn checkpoint() -> LogCheckpoint {
        let mut epochs = EpochList::new();
        epochs.assign(6, Offset(3));
        epochs.assign(9, Offset(40));
        LogCheckpoint {
            flushed_index: Index(77),
            flushed_term: Term(9),
            next_offset: Offset(50),
            log_start: Offset(3),
            active: Some(ActiveCheckpoint {
                base_offset: Offset(30),
                first_index: Index(60),
                first_term: Term(6),
                sealed: Position(8000),
                written: Position(8192),
                batches: 17,
                first_timestamp: 5,
                max_timestamp: 99,
                max_timestamp_offset: Offset(44),
                last: Some(LastBatch { position: Position(7900), crc: 0x1234_5678 }),
            }),
            epochs,
            producers: Bytes::from_static(b"producers"),
        }
    }

    #[test]
    fn a_checkpoint_is_read_back() {
        let unsealed = |active: ActiveCheckpoint| ActiveCheckpoint {
            sealed: Position(0),
            batches: 0,
            last: None,
            ..active
        };
        for active in [checkpoint().active, checkpoint().active.map(unsealed), None] {
            let whole = LogCheckpoint { active, ..checkpoint() };
            let bytes = Bytes::from(whole.encode(&identity()));
            assert_eq!(LogCheckpoint::decode(&bytes, Some(&identity())), Ok(whole));
        }
    }

    #[test]
    fn damage_another_version_and_another_partition_are_refused() {
        let bytes = checkpoint().encode(&identity());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x20;
            assert!(LogCheckpoint::decode(&Bytes::from(bad), None).is_err(), "byte {at}");
        }
        for cut in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..cut]);
            assert!(LogCheckpoint::decode(&cut, None).is_err());
        }
        for version in [CHECKPOINT_VERSION - 1, CHECKPOINT_VERSION + 1] {
            let mut bytes = bytes.clone();
            bytes[4] = version as u8;
            let refused = LogCheckpoint::decode(&bytes.into(), None);
            assert_eq!(refused, Err(FormatError::Version(version)));
        }
        let other = PartitionIdentity { topic: [8; 16], ..identity() };
        assert!(LogCheckpoint::decode(&bytes.into(), Some(&other)).is_err());
    }
}
