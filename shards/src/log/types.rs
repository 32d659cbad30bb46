//! The vocabulary of the log: offsets, positions, what is committed into it and how it is set up.
//!
//! `Offset` counts records of a partition, `Position` counts bytes of a segment, `wal::Index`
//! counts Raft entries; they never mix. Pure values; any shard.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use uuid::Uuid;
use wal::{Index, Location, Owner, Term};

/// A Kafka record offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A byte position in a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A future that lives on its shard.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Which partition a log belongs to; stands in each of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionIdentity {
    /// UUID of the topic.
    pub topic: [u8; 16],
    /// Number of the partition within the topic.
    pub partition: i32,
    /// The Raft group and the replica placed here.
    pub owner: Owner,
}

impl PartitionIdentity {
    /// The partition whose folders have these names; which replica it is stands in no file of it.
    pub fn of_folders(topic: &str, partition: &str) -> Option<PartitionIdentity> {
        let uuid = *Uuid::parse_str(topic).ok()?.as_bytes();
        let partition = partition.parse().ok()?;
        Some(PartitionIdentity { topic: uuid, partition, owner: Owner::default() })
    }

    /// Name of the topic's folder: the UUID in lower-case hexadecimal with hyphens.
    pub fn topic_folder(&self) -> String {
        let hex: String = self.topic.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// Name of the partition's folder within the topic's.
    pub fn partition_folder(&self) -> String {
        self.partition.to_string()
    }
}

/// Where the bytes of a committed batch are.
#[derive(Debug, Clone)]
pub enum Payload {
    /// In memory: a slice of the WAL frame that carried it. `location` is where the WAL keeps it,
    /// so that memory can be given back before it is flushed; `None` pins it in memory.
    Memory {
        /// The batch, whole and stamped.
        bytes: Bytes,
        /// Its place in the WAL.
        location: Option<Location>,
    },
    /// In the WAL only (after a restart, or when memory ran short).
    Wal(Location),
}

/// A place in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedAt {
    /// Base offset of the segment.
    pub segment: Offset,
    /// Where the batch begins in it.
    pub position: Position,
}

/// A committed entry that carries records: exactly one Kafka batch.
#[derive(Debug, Clone)]
pub struct CommittedBatch {
    /// Raft index.
    pub index: Index,
    /// Raft term, stamped into the batch as its leader epoch.
    pub term: Term,
    /// Offset of the first record, stamped into the batch.
    pub base_offset: Offset,
    /// Number of offsets that the batch takes, at least 1.
    pub records: u32,
    /// Length in bytes.
    pub length: u32,
    /// Largest timestamp in milliseconds; -1 for none.
    pub max_timestamp: i64,
    /// The batch's own checksum, as it stands in its header.
    pub crc: u32,
    /// The bytes, or where they are.
    pub payload: Payload,
    /// It was staged: its whole blocks are in the segment already, and the WAL has its edges.
    pub staged: Option<StagedAt>,
}

impl CommittedBatch {
    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        Offset(self.base_offset.0 + i64::from(self.records))
    }
}

/// The last batch of a segment that is sealed. What is kept of it elsewhere tells whose a segment
/// is: two partitions' batches may agree in all that a reader checks, but not in their checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastBatch {
    /// Where it begins.
    pub position: Position,
    /// Its own checksum.
    pub crc: u32,
}

/// A committed entry, in Raft order.
#[derive(Debug, Clone)]
pub enum LogEntry {
    /// It carries a batch.
    Batch(CommittedBatch),
    /// It carries no records: it takes an index and no offset.
    Empty {
        /// Raft index.
        index: Index,
        /// Raft term.
        term: Term,
    },
}

/// Reads what the WAL has of an entry.
pub trait EntryReader {
    /// As `read`, for an entry whose batch is staged: the checksum of the batch, and its edges.
    fn read_edges(
        &self,
        owner: Owner,
        index: Index,
        location: Location,
    ) -> Local<'static, Result<(u32, Bytes), String>>;

    /// The whole batch that `owner` has at `index`. `location` is where it was when it was
    /// committed; relocation may have moved it since.
    fn read(
        &self,
        owner: Owner,
        index: Index,
        location: Location,
    ) -> Local<'static, Result<Bytes, String>>;
}

/// Finds a record inside a batch; it may have to decompress.
pub trait RecordSearch {
    /// The first record of `batch` with a timestamp of at least `timestamp` and an offset of at
    /// least `from`: its offset and timestamp. `None` when there is none; an error says why the
    /// records cannot be read.
    fn first_at_or_after(
        &self,
        batch: &Bytes,
        timestamp: i64,
        from: Offset,
    ) -> Result<Option<(Offset, i64)>, String>;
}

/// What of a topic's configuration shapes its segments. Kafka's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentConfig {
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`; an index entry counts as the 8 bytes it has in Kafka.
    pub segment_index_bytes: u64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u64,
}

impl Default for SegmentConfig {
    fn default() -> Self {
        SegmentConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
        }
    }
}

/// Limits of one shard's logs.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Memory for batches that can be read without the disk.
    pub cache_bytes: u64,
    /// Segment files open at once.
    pub open_files_max: usize,
    /// Sealed indexes mapped at once.
    pub maps_max: usize,
    /// A round starts when this much can be written.
    pub dirty_bytes: u64,
    /// A round starts when something writable is this old.
    pub dirty_age: std::time::Duration,
    /// Segment writes in flight at once, so that the WAL's own writes are not held up.
    pub writes_in_flight: u64,
    /// Largest single write.
    pub write_bytes: usize,
    /// Batches of a partition that a round plans and writes without a pause.
    pub step_batches: usize,
    /// Batches from this length on are staged: written to their segment at once, not to the WAL.
    pub staged_min_bytes: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            cache_bytes: 128 << 20,
            open_files_max: 512,
            maps_max: 1024,
            dirty_bytes: 64 << 20,
            dirty_age: std::time::Duration::from_secs(5),
            writes_in_flight: 4,
            write_bytes: 1 << 20,
            step_batches: 512,
            staged_min_bytes: 128 << 10,
        }
    }
}

/// Shared handles that a log needs from its owner.
pub(super) type Reader = Rc<dyn EntryReader>;
