//! What the partition logs of a shard stand on: the write-ahead log to read back from, the group
//! driver to give checkpoints to, the record format to search in.
//!
//! `log` knows none of these; this file ties them together. One [`Storage`] per shard.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use net::batch::{Batch, TimestampType};
use net::scan::scan;
use net::unfold::unfolded_max_bytes;
use raft::Groups;
use rt::{Dir, Shard};
use wal::{GroupId, Index, Location, Owner, Pressure, Wal};

use crate::config::TopicConfig;
use crate::log::{
    CheckpointSink, EntryReader, FlushError, FlushedCheckpoint, Flusher, Local, LogContext,
    LogOptions, Offset, RecordSearch, RetentionConfig, SegmentConfig,
};
use crate::meta::{Image, TopicId};
use crate::options::Options;
use crate::partition::PartitionRef;

/// Where segments are, below the data folder.
pub const FOLDER: &str = "topics";
/// How often the log is asked whether it runs short of space.
const PRESSURE_CHECK: Duration = Duration::from_millis(250);
/// Least and most bytes that make a flush round due.
const DIRTY_MIN_BYTES: u64 = 8 << 20;
const DIRTY_MAX_BYTES: u64 = 64 << 20;

/// The partitions of a shard by group, as placement and checkpoints share them.
pub type Partitions = Rc<RefCell<BTreeMap<GroupId, PartitionRef>>>;

#[derive(Clone)]
pub struct Storage {
    context: Rc<LogContext>,
    flusher: Flusher,
    partitions: Partitions,
}

impl Storage {
    /// Opens the folder of segments, making it if need be, and starts the flush rounds.
    pub async fn open(
        shard: &Shard,
        data: &Dir,
        groups: &Groups,
        wal: &Wal,
        options: &Options,
    ) -> std::io::Result<Storage> {
        let topics = shard.create_dir(data.path().join(FOLDER)).await?;
        let reader = Rc::new(FromWal { wal: wal.clone() });
        let shares = u64::from(shard.count());
        let options = LogOptions {
            cache_bytes: options.cache_bytes / shares,
            dirty_bytes: dirty_bytes(options, shares),
            staged_min_bytes: options.staged_min_bytes,
            open_files_max: options.open_segments_max,
            ..LogOptions::default()
        };
        let context = LogContext::new(shard.clone(), topics, reader, options);
        let partitions = Partitions::default();
        let sink = Sink { groups: groups.clone(), partitions: partitions.clone() };
        let flusher = Flusher::new(&context, Rc::new(sink));
        shard.spawn(run(flusher.clone(), wal.clone())).detach();
        shard.spawn(watch(shard.clone(), wal.clone(), flusher.clone())).detach();
        Ok(Storage { context, flusher, partitions })
    }

    /// Removes the folders of topics that `image` does not have: a crash came between the deletion
    /// of the topic and that of its files. Only while nothing can create topics.
    pub async fn sweep(&self, shard: &Shard, data: &Dir, image: &Image) -> std::io::Result<()> {
        let topics = shard.create_dir(data.path().join(FOLDER)).await?;
        for entry in topics.list().await?.into_iter().filter(|entry| entry.is_dir) {
            let id = uuid::Uuid::parse_str(&entry.name).ok();
            if id.is_some_and(|id| image.topic_by_id(TopicId(id)).is_none()) {
                tracing::info!("removing what is left of the deleted topic {}", entry.name);
                topics.remove_subdir_all(&entry.name).await?;
            }
        }
        topics.sync().await
    }

    pub fn context(&self) -> &Rc<LogContext> {
        &self.context
    }

    pub fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// Flushes what can be flushed, for a stop.
    pub async fn flush_all(&self) -> Result<(), crate::log::FlushError> {
        self.flusher.round().await.map(|_| ())
    }
}

/// Rounds until the shard ends. An error means that data may not be durable which we believe is:
/// the process must not go on. Of a log that was stopped in order, the last round asks in vain:
/// the next start does its work again.
/// What makes a round due on one of `shards` shards: well below the log's budget, so that rounds run
/// before it is under pressure, and half of the cache, so that what waits for a round, and what comes
/// while it runs, is still in memory: the rest is read back from the log, batch by batch.
fn dirty_bytes(options: &Options, shards: u64) -> u64 {
    let (log, cache) = (options.wal_budget_bytes / shards, options.cache_bytes / shards);
    (cache / 2).max(DIRTY_MIN_BYTES).min(log / 8).min(DIRTY_MAX_BYTES)
}

async fn run(flusher: Flusher, wal: Wal) {
    let Err(error) = flusher.run().await else { return };
    let in_order = wal.is_stopped() && wal.poisoned().is_none();
    if in_order && !matches!(error, FlushError::Poisoned(_)) {
        tracing::warn!("a round did not end before the log had stopped: {error}");
        return;
    }
    panic!("segments cannot be written: {error}");
}

/// Rings for a round when the log runs short of files: at once when it begins a file or refuses
/// data, and now and then while that lasts. If rounds are of no use any more, the log is told so.
async fn watch(shard: Shard, wal: Wal, flusher: Flusher) {
    let mut idle_since = None;
    loop {
        rt::either(wal.pressure_may_rise(), shard.sleep(PRESSURE_CHECK)).await;
        let pressure = wal.pressure();
        if pressure != Pressure::None {
            flusher.wal_pressure();
        }
        // While data is refused only recycling writes. What else was in flight must be durable,
        // and then some: it is committed, and to be flushed, a moment later.
        let now = shard.now();
        idle_since = match pressure == Pressure::Refusing && flusher.is_idle() {
            true => idle_since.or(Some((now, wal.newest()))),
            false => None,
        };
        let done = |(since, newest)| {
            now.saturating_since(since) >= PRESSURE_CHECK && wal.durable() >= newest
        };
        if idle_since.is_some_and(done) {
            wal.nothing_to_flush();
        }
    }
}

/// What of a topic's configuration shapes its segments.
pub fn segment_config(config: &TopicConfig) -> SegmentConfig {
    SegmentConfig {
        segment_bytes: u64::from(config.segment_bytes),
        segment_ms: config.segment_ms,
        segment_jitter_ms: config.segment_jitter_ms,
        segment_index_bytes: u64::from(config.segment_index_bytes),
        index_interval_bytes: u64::from(config.index_interval_bytes),
    }
}

/// What of a topic's configuration decides how long records are kept.
pub fn retention_config(config: &TopicConfig) -> RetentionConfig {
    RetentionConfig {
        // A compacted topic keeps the last record of every key, whatever its age.
        delete: config.cleanup.delete,
        retention_ms: config.retention_ms.unwrap_or(-1),
        retention_bytes: config.retention_bytes.map_or(-1, |n| i64::try_from(n).unwrap_or(-1)),
    }
}

/// Reads committed batches back from the log.
struct FromWal {
    wal: Wal,
}

impl EntryReader for FromWal {
    fn read(
        &self,
        owner: Owner,
        index: Index,
        _: Location,
    ) -> Local<'static, Result<Bytes, String>> {
        let wal = self.wal.clone();
        Box::pin(async move {
            let body = wal.read_entry(owner, index).await.map_err(|error| error.to_string())?;
            let body = body.ok_or_else(|| format!("entry {} is not in the log", index.0))?;
            Ok(raft::payload_of(&body))
        })
    }

    fn read_edges(
        &self,
        owner: Owner,
        index: Index,
        _: Location,
    ) -> Local<'static, Result<(u32, Bytes), String>> {
        let wal = self.wal.clone();
        Box::pin(async move {
            let body = wal.read_entry(owner, index).await.map_err(|error| error.to_string())?;
            let body = body.ok_or_else(|| format!("entry {} is not in the log", index.0))?;
            let (pointer, edges) = raft::edges_of(&body).ok_or("its pointer is too short")?;
            Ok((pointer.crc, edges))
        })
    }
}

/// Gives checkpoints to the group driver.
struct Sink {
    groups: Groups,
    partitions: Partitions,
}

impl CheckpointSink for Sink {
    fn producers(&self, owner: Owner, flushed: Index) -> Bytes {
        let partitions = self.partitions.borrow();
        let partition = partitions.get(&owner.group);
        // A partition that is being deleted: its checkpoint will not be read again.
        partition.map_or_else(Bytes::new, |p| p.borrow().producers().snapshot(flushed).into())
    }

    fn checkpoint(
        &self,
        checkpoints: Vec<FlushedCheckpoint>,
    ) -> Local<'static, Result<(), String>> {
        let groups = self.groups.clone();
        Box::pin(async move {
            let mut last = None;
            for FlushedCheckpoint { identity, index, term, bytes } in checkpoints {
                let written = groups.checkpoint(identity.owner.group, index, term, &bytes);
                last = written.map_err(|error| error.to_string())?.or(last);
            }
            match last {
                Some(frame) => groups.wait_durable(frame).await.map_err(|e| e.to_string()),
                None => Ok(()),
            }
        })
    }
}

/// Looks for records inside batches.
pub struct Search;

impl RecordSearch for Search {
    fn first_at_or_after(
        &self,
        batch: &Bytes,
        timestamp: i64,
        from: Offset,
    ) -> Result<Option<(Offset, i64)>, String> {
        let batch = Batch::split_from(&mut batch.clone()).map_err(|error| error.to_string())?;
        if batch.header.timestamp_type() == TimestampType::LogAppendTime {
            let hit = batch.header.max_timestamp >= timestamp;
            let offset = Offset(batch.header.base_offset.max(from.0));
            return Ok(hit.then_some((offset, batch.header.max_timestamp)));
        }
        let mut found = None;
        let scanned = scan(&batch, unfolded_max_bytes(&batch), |seen| {
            if seen.timestamp >= timestamp && seen.offset >= from.0 {
                found = Some((Offset(seen.offset), seen.timestamp));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        scanned.map_err(|error| error.to_string())?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::NodeId;

    #[test]
    fn a_round_is_due_before_the_cache_is_full_or_the_log_under_pressure() {
        let with = |cache_bytes, wal_budget_bytes| {
            let defaults = Options::new(NodeId(1), "data".into());
            dirty_bytes(&Options { cache_bytes, wal_budget_bytes, ..defaults }, 2)
        };
        assert_eq!(with(128 << 20, 1 << 30), 32 << 20);
        assert_eq!(with(1 << 30, 8 << 30), DIRTY_MAX_BYTES);
        assert_eq!(with(1 << 30, 256 << 20), 16 << 20);
        assert_eq!(with(1 << 20, 1 << 30), DIRTY_MIN_BYTES);
        assert_eq!(with(1 << 20, 64 << 20), 4 << 20);
    }
}
