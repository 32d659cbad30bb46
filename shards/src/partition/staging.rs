//! A partition's log as the staging area of its Raft group: translates between the two.
//!
//! Called by the driver within its turn, when the partition itself may be borrowed by who proposes:
//! so it knows the log only. On the partition's shard.

use bytes::Bytes;
use raft::{Appending, Descriptor, PayloadRead, Staged, Staging, STAGED_HEAD_MIN_BYTES};
use wal::{Index, Location, Pointer, RecoveredReplica};

use crate::log::{
    Offset, PartitionLog, Position, StagedAt, StagedBatch, StagedEntry, Upcoming, STAGED_HEAD_BYTES,
};

// What recovery hands back of a pointer record holds the batch's header, and nothing that is not
// the batch's beginning.
const _: () = assert!(STAGED_HEAD_BYTES == STAGED_HEAD_MIN_BYTES);
const _: () = assert!(STAGED_HEAD_BYTES >= net::batch::HEADER_BYTES);

pub struct LogStaging(pub PartitionLog);

impl Staging for LogStaging {
    fn min_bytes(&self) -> u32 {
        self.0.staged_min_bytes()
    }

    fn would_place(&self, entry: &Appending<'_>) -> bool {
        let before = |index| (entry.before)(index).map(|found| upcoming(index, &found));
        self.0.would_stage(&upcoming(entry.index, &entry.descriptor), &before)
    }

    fn place(&self, entry: &Appending<'_>, payload: &[Bytes]) -> Option<Staged> {
        let before = |index| (entry.before)(index).map(|found| upcoming(index, &found));
        let next = upcoming(entry.index, &entry.descriptor);
        let StagedBatch { at, crc, edges, bytes, durable } =
            self.0.stage(&next, &before, payload)?;
        let pointer = Pointer {
            segment: at.segment.0 as u64,
            position: at.position.0,
            length: next.length,
            crc,
        };
        Some(Staged { pointer, edges, bytes, durable })
    }

    fn truncated(&self, from: Index) {
        self.0.unstage(from);
    }

    fn read(&self, index: Index, location: Location, pointer: Pointer) -> PayloadRead {
        let (log, at) = (self.0.clone(), staged_at(&pointer));
        Box::pin(async move { log.read_staged(index, location, pointer.length, at).await })
    }
}

fn upcoming(index: Index, descriptor: &Descriptor) -> Upcoming {
    Upcoming {
        index,
        base_offset: Offset(descriptor.base_offset),
        records: descriptor.records,
        length: descriptor.length,
        max_timestamp: descriptor.max_timestamp,
    }
}

/// The place that a pointer names.
pub fn staged_at(pointer: &Pointer) -> StagedAt {
    StagedAt { segment: Offset(pointer.segment as i64), position: Position(pointer.position) }
}

/// The entries of a recovered replica whose batches are staged.
pub fn staged_entries(replica: &RecoveredReplica) -> Vec<StagedEntry> {
    let entries = replica.entries.iter().filter_map(|entry| {
        let (pointer, descriptor) = raft::staged_entry(entry)?;
        Some(StagedEntry {
            index: entry.index,
            base_offset: Offset(descriptor.base_offset),
            length: descriptor.length,
            at: staged_at(&pointer),
            location: entry.location,
        })
    });
    entries.collect()
}
