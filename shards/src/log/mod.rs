//! Partition logs: committed batches in memory and in segment files, and how they are read back.
//!
//! A `PartitionLog` takes what Raft has committed, serves it from memory at once, and a `Flusher`
//! per shard moves it to segment files in rounds; what a checkpoint calls sealed is durable and
//! never changes. Long batches are in their segments before they are committed (`staging`). Bytes
//! on disk: FORMAT.md beside this file. Decisions are in synchronous code (`state`, `placing`, `plan`, `roll`, `retention`, the formats), I/O in async functions over `rt`
//! (`read`, `scan`, `lookup`, `flush`). Everything lives on one shard; nothing here speaks Kafka's
//! protocol or knows Raft beyond index and term.

mod batch;
mod checkpoint;
mod codec;
mod context;
mod epochs;
mod files;
mod flush;
mod index;
mod inspect;
mod lookup;
mod map;
mod origin;
mod pace;
mod partition;
mod placing;
mod plan;
mod read;
mod retention;
mod roll;
mod scan;
mod staging;
mod state;
mod types;

#[cfg(test)]
mod tests;

pub use batch::{BatchFault, BatchHead};
pub use checkpoint::{ActiveCheckpoint, LogCheckpoint};
pub use codec::FormatError;
pub use context::{LogContext, LogStats};
pub use epochs::{EpochList, EpochStart};
pub use flush::{CheckpointSink, FlushError, FlushedCheckpoint, Flusher, RoundReport};
pub use index::{encode_block, find_stored, IndexBlock, IndexEntry, Seek, INDEX_BLOCK_BYTES};
pub use inspect::{inspect_list, inspect_segment, BatchReport, SegmentReport};
pub use lookup::TimeHit;
pub use map::{ClosedFacts, EmptyEntry, SegmentMap};
pub use origin::Foreign;
pub use partition::{OpenError, OpenedLog, PartitionLog};
pub use placing::Upcoming;
pub use read::{Damage, ReadAnswer, ReadError, ReadRequest};
pub use retention::{new_log_start, RetentionConfig, SegmentView};
pub use staging::{StagedBatch, StagedEntry, STAGED_HEAD_BYTES};
pub use types::{
    CommittedBatch, EntryReader, LastBatch, Local, LogEntry, LogOptions, Offset, PartitionIdentity,
    Payload, Position, RecordSearch, SegmentConfig, StagedAt,
};
