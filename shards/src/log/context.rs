//! What all partition logs of one shard share: folder, memory budget, open files, the list of
//! partitions that a round should visit, and counters.
//!
//! Lives on one shard. Holds no partition state; knows partitions as weak references only.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::{Rc, Weak};

use rt::{Buf, Dir, Instant, Notify, Semaphore, Shard};

use super::files::Files;
use super::pace::Pace;
use super::partition::PartitionInner;
use super::staging::STAGED_IN_FLIGHT_BYTES;
use super::types::{LogOptions, Offset, Reader};

/// Memory that a cached batch costs beside its bytes.
const CACHED_BATCH_OVERHEAD_BYTES: u64 = 160;

/// Counters of one shard, for its metrics. All only grow, but the gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Finished flush rounds.
    pub rounds: u64,
    /// Bytes that rounds wrote to segments, indexes not counted.
    pub flushed_bytes: u64,
    /// Bytes of batches that were staged: in their segments before any round.
    pub staged_bytes: u64,
    /// Bytes handed to readers from memory.
    pub read_cache_bytes: u64,
    /// Bytes handed to readers from segment files.
    pub read_disk_bytes: u64,
    /// Reads refused because what is on disk is not what was written.
    pub damaged_reads: u64,
    /// Rounds that met a full disk.
    pub full_disk_rounds: u64,
    /// Indexes rebuilt from their segments.
    pub index_rebuilds: u64,
    /// Segment files opened.
    pub files_opened: u64,
    /// Gauge: segment files open.
    pub files_open: u64,
    /// Gauge: bytes in the tail cache.
    pub cache_bytes: u64,
    /// Gauge: bytes that rounds have to write.
    pub dirty_bytes: u64,
    /// Gauge: the last round could not write for lack of space.
    pub disk_full: bool,
}

/// Shared by all partition logs of a shard.
pub struct LogContext {
    pub(super) shard: Shard,
    pub(super) files: Files,
    pub(super) reader: Reader,
    pub(super) options: LogOptions,
    pub(super) stats: Cell<LogStats>,
    pub(super) dirty: RefCell<DirtyList>,
    /// Rings when a round may be due.
    pub(super) bell: Notify,
    /// One round, or one removal, at a time.
    pub(super) round: Semaphore,
    /// Segment writes in flight.
    pub(super) writes: Semaphore,
    /// Those that the writes of rounds are done with.
    round_buffers: RefCell<Vec<Buf>>,
    /// Bytes of staged batches that are with the disk.
    pub(super) staging: Semaphore,
    /// How segments are read.
    pub(super) pace: Pace,
    cache: RefCell<CacheQueue>,
    /// An error after which nothing may be built on what was written.
    fault: RefCell<Option<io::Error>>,
}

/// Partitions with whole blocks to write or segments to give up, in the order they became so.
#[derive(Default)]
pub(super) struct DirtyList {
    pub partitions: VecDeque<Weak<PartitionInner>>,
    pub bytes: u64,
    /// When the oldest of them became dirty.
    pub since: Option<Instant>,
}

/// Batches in memory, oldest first, over all partitions: so that a WAL frame's buffer, which many
/// partitions share, is let go of as a whole.
#[derive(Default)]
struct CacheQueue {
    entries: VecDeque<Cached>,
    bytes: u64,
}

struct Cached {
    partition: Weak<PartitionInner>,
    base_offset: Offset,
    length: u32,
}

impl LogContext {
    /// `topics` is the node's folder of topics, which all shards share.
    pub fn new(shard: Shard, topics: Dir, reader: Reader, options: LogOptions) -> Rc<Self> {
        let files = Files::new(topics, options.open_files_max, options.maps_max);
        let writes = Semaphore::new(options.writes_in_flight.max(1));
        let pace = Pace::new(&shard);
        Rc::new(LogContext {
            shard,
            files,
            reader,
            options,
            stats: Cell::default(),
            dirty: RefCell::default(),
            bell: Notify::new(),
            round: Semaphore::new(1),
            writes,
            round_buffers: RefCell::default(),
            staging: Semaphore::new(STAGED_IN_FLIGHT_BYTES),
            pace,
            cache: RefCell::default(),
            fault: RefCell::default(),
        })
    }

    /// The counters now.
    pub fn stats(&self) -> LogStats {
        LogStats {
            files_opened: self.files.opened(),
            files_open: self.files.open() as u64,
            cache_bytes: self.cache.borrow().bytes,
            dirty_bytes: self.dirty.borrow().bytes,
            ..self.stats.get()
        }
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut LogStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    /// Something was not written: the flusher says so, and the process must stop.
    pub(super) fn fail(&self, error: io::Error) {
        self.fault.borrow_mut().get_or_insert(error);
        self.bell.notify_one();
    }

    pub(super) fn take_fault(&self) -> Option<io::Error> {
        self.fault.borrow_mut().take()
    }

    /// An empty buffer of at least `length` bytes for a write of a round. Memory fresh from the kernel
    /// costs more than what is copied into it, so rounds that follow one another share a few buffers;
    /// one that is too small makes room for its successor.
    pub(super) fn round_buffer(&self, length: usize) -> Buf {
        let kept = self.round_buffers.borrow_mut().pop();
        match kept.filter(|buf| buf.capacity() >= length) {
            Some(mut buf) => {
                buf.set_len(0);
                buf
            }
            None => self.shard.buffer(length),
        }
    }

    pub(super) fn keep_round_buffer(&self, buf: Buf) {
        self.round_buffers.borrow_mut().push(buf);
    }

    pub(super) fn free_round_buffers(&self) {
        self.round_buffers.take();
    }

    /// A batch of `partition` is in memory. Nothing of the partition may be borrowed.
    pub(super) fn cached(&self, partition: &Rc<PartitionInner>, base_offset: Offset, length: u32) {
        let mut cache = self.cache.borrow_mut();
        cache.bytes += charge(length);
        let partition = Rc::downgrade(partition);
        cache.entries.push_back(Cached { partition, base_offset, length });
    }

    /// Brings the cache back into its budget, oldest batches first. Nothing may be borrowed.
    pub(super) fn shrink(&self) {
        let mut left = self.cache.borrow().entries.len();
        while left > 0 && self.cache.borrow().bytes > self.options.cache_bytes {
            left -= 1;
            let Some(entry) = self.cache.borrow_mut().entries.pop_front() else { break };
            let freed = match entry.partition.upgrade() {
                Some(partition) => partition.evict(entry.base_offset),
                None => true,
            };
            let mut cache = self.cache.borrow_mut();
            if freed {
                cache.bytes -= charge(entry.length);
            } else {
                cache.entries.push_back(entry);
            }
        }
    }
}

fn charge(length: u32) -> u64 {
    u64::from(length) + CACHED_BATCH_OVERHEAD_BYTES
}
