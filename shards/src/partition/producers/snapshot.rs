//! The bytes of a producer snapshot: a file's worth of [`ProducerStates`] as of its committed
//! index. Owns the format, version 1, little-endian:
//!
//! ```text
//! magic "CKPS" · version u16 = 1 · zero u16 · committed index u64 · log time i64 · producers u32
//! per producer, ids ascending:
//!   id i64 · epoch i16 · last use i64 · batches u8 (1..=5)
//!   per batch, indexes ascending: first i32 · last i32 · base offset i64 · max timestamp i64 · index u64
//! crc32c u32 of all before it
//! ```
//! It trusts nothing it reads: no allocation follows a count that the bytes do not hold.

use std::collections::{BTreeMap, VecDeque};

use thiserror::Error;
use wal::Index;

use super::{Batch, Committed, Producer, ProducerStates, PRODUCERS_MAX, WINDOW_BATCHES};

const MAGIC: [u8; 4] = *b"CKPS";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 4 + 2 + 2 + 8 + 8 + 4;
const CRC_BYTES: usize = 4;
const BATCH_BYTES: usize = 4 + 4 + 8 + 8 + 8;

/// Why bytes are not a producer snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SnapshotError {
    #[error("not a producer snapshot")]
    NotASnapshot,
    #[error("producer snapshot of version {0}, which this build does not know")]
    Version(u16),
    #[error("producer snapshot fails its checksum")]
    Checksum,
    /// The checksum is right, so it was written wrong.
    #[error("producer snapshot is malformed: {0}")]
    Malformed(&'static str),
}

pub(super) fn encode(states: &ProducerStates) -> Vec<u8> {
    let committed =
        || states.producers.iter().filter_map(|(id, p)| p.committed.as_ref().map(|c| (*id, c)));
    let mut out = Vec::with_capacity(HEAD_BYTES + committed().count() * 64 + CRC_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&states.committed_index.0.to_le_bytes());
    out.extend_from_slice(&states.log_time_ms.to_le_bytes());
    let count = u32::try_from(committed().count()).expect("bounded by PRODUCERS_MAX");
    out.extend_from_slice(&count.to_le_bytes());
    for (producer_id, producer) in committed() {
        out.extend_from_slice(&producer_id.to_le_bytes());
        out.extend_from_slice(&producer.epoch.to_le_bytes());
        out.extend_from_slice(&producer.last_use_ms.to_le_bytes());
        out.push(u8::try_from(producer.window.len()).expect("at most WINDOW_BATCHES"));
        for batch in &producer.window {
            out.extend_from_slice(&batch.first_sequence.to_le_bytes());
            out.extend_from_slice(&batch.last_sequence.to_le_bytes());
            out.extend_from_slice(&batch.base_offset.to_le_bytes());
            out.extend_from_slice(&batch.max_timestamp.to_le_bytes());
            out.extend_from_slice(&batch.index.0.to_le_bytes());
        }
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

pub(super) fn decode(bytes: &[u8], expiration_ms: i64) -> Result<ProducerStates, SnapshotError> {
    if bytes.len() < HEAD_BYTES + CRC_BYTES || bytes[..4] != MAGIC {
        return Err(SnapshotError::NotASnapshot);
    }
    let (content, crc) = bytes.split_at(bytes.len() - CRC_BYTES);
    let version = u16::from_le_bytes([bytes[4], bytes[5]]);
    if version != VERSION {
        return Err(SnapshotError::Version(version));
    }
    if crc32c::crc32c(content).to_le_bytes() != crc {
        return Err(SnapshotError::Checksum);
    }
    let mut reader = Reader(&content[8..]);
    let committed_index = Index(reader.u64()?);
    let log_time_ms = reader.i64()?;
    let count = reader.u32()?;
    let mut producers = BTreeMap::new();
    let mut by_last_use = BTreeMap::new();
    for _ in 0..count {
        let (id, committed) = read_producer(&mut reader, committed_index, log_time_ms)?;
        if producers.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err(SnapshotError::Malformed("producer ids do not ascend"));
        }
        let last = committed.window.back().expect("read_producer gives at least one").index;
        if by_last_use.insert(last, id).is_some() {
            return Err(SnapshotError::Malformed("two batches at one index"));
        }
        producers.insert(id, Producer { committed: Some(committed), uncommitted: VecDeque::new() });
    }
    if !reader.0.is_empty() {
        return Err(SnapshotError::Malformed("bytes after the last producer"));
    }
    Ok(ProducerStates {
        producers,
        uncommitted: VecDeque::new(),
        by_last_use,
        committed_index,
        last_index: committed_index,
        log_time_ms,
        expiration_ms,
        producers_max: PRODUCERS_MAX,
        window_batches: WINDOW_BATCHES,
    })
}

fn read_producer(
    reader: &mut Reader<'_>,
    committed_index: Index,
    log_time_ms: i64,
) -> Result<(i64, Committed), SnapshotError> {
    let id = reader.i64()?;
    let epoch = reader.i16()?;
    let last_use_ms = reader.i64()?;
    let batches = usize::from(reader.u8()?);
    if !(1..=WINDOW_BATCHES).contains(&batches) {
        return Err(SnapshotError::Malformed("number of batches"));
    }
    if last_use_ms > log_time_ms {
        return Err(SnapshotError::Malformed("last use after the log's time"));
    }
    let mut window: VecDeque<Batch> = VecDeque::with_capacity(batches);
    for _ in 0..batches {
        let batch = reader.batch()?;
        let ascends = window.back().is_none_or(|last| last.index < batch.index);
        if !ascends || batch.index > committed_index {
            return Err(SnapshotError::Malformed("batch index"));
        }
        window.push_back(batch);
    }
    Ok((id, Committed { epoch, last_use_ms, window }))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (head, rest) =
            self.0.split_first_chunk().ok_or(SnapshotError::Malformed("ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, SnapshotError> {
        self.take::<1>().map(|b| b[0])
    }

    fn i16(&mut self) -> Result<i16, SnapshotError> {
        self.take().map(i16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, SnapshotError> {
        self.take().map(u32::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, SnapshotError> {
        self.take().map(i64::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        self.take().map(u64::from_le_bytes)
    }

    fn batch(&mut self) -> Result<Batch, SnapshotError> {
        let mut fields = Reader(&self.take::<BATCH_BYTES>()?[..]);
        Ok(Batch {
            first_sequence: fields.take().map(i32::from_le_bytes)?,
            last_sequence: fields.take().map(i32::from_le_bytes)?,
            base_offset: fields.i64()?,
            max_timestamp: fields.i64()?,
            index: Index(fields.u64()?),
        })
    }
}
