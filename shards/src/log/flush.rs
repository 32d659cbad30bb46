//! Flush rounds: committed batches of all dirty partitions of a shard go to their segments.
//!
//! A round writes (partitions side by side, few writes in flight), then syncs every file it wrote
//! and replaces the `.map`s that changed, then hands out checkpoints, and when those are durable
//! removes the files that nothing names any more. Nothing is forgotten before its successor is
//! durable, so a crash anywhere leaves the last checkpoint true. One per shard.
//!
//! A full disk ends the part of the round it hit; the data is safe in the WAL and the next round
//! tries again. Any other error of a write or a sync poisons: the caller stops the process.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rt::{Either, File, Mutation, Shard};
use thiserror::Error;
use wal::{Index, Owner, Term};

use super::checkpoint::BLOCK;
use super::context::LogContext;
use super::files::{file_name, parse_name, FileKind};
use super::index::INDEX_BLOCK_BYTES;
use super::map::SegmentMap;
use super::partition::{take_dirty, PartitionInner, Strays};
use super::plan::{PlanInput, Progress, Run, SegmentWrite};
use super::read::ReadError;
use super::staging::Layout;
use super::state::Applied;
use super::types::{CommittedBatch, Local, Offset, PartitionIdentity, Payload};

/// Partitions that a round works on side by side. With more of them a round ends no sooner, and the
/// log's writes wait longer behind those of the round (perf/runs/2026-11-22-partitions.md).
const WIDTH: usize = 4;
/// Partitions that are declared flushed together. Each costs some microseconds of work in memory
/// that nobody has touched for a while: thousands at once would hold up everybody else's records.
const CHECKPOINTS_AT_ONCE: usize = 64;
/// How long a round that met a full disk waits before the next.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// What a group's next checkpoint says of its log.
#[derive(Debug, Clone)]
pub struct FlushedCheckpoint {
    /// The partition.
    pub identity: PartitionIdentity,
    /// Raft index up to which everything is in sealed segment bytes or below the log start.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// For `PartitionLog::open`, opaque to the caller.
    pub bytes: Bytes,
}

/// Where checkpoints go: the group driver.
pub trait CheckpointSink {
    /// The producer state to keep with a checkpoint at `flushed`. Entries above `flushed` will be
    /// replayed on top of it, so a newer state must know which entries it already holds.
    fn producers(&self, owner: Owner, flushed: Index) -> Bytes;

    /// Makes the checkpoints durable, all at once; ready when they are.
    fn checkpoint(&self, checkpoints: Vec<FlushedCheckpoint>)
        -> Local<'static, Result<(), String>>;
}

/// Why flushing cannot go on; the process must stop.
#[derive(Debug, Error)]
pub enum FlushError {
    /// A write or a sync failed for another reason than space. What was written before may be
    /// lost, and must never be reported as durable.
    #[error("flushing segments: {0}")]
    Poisoned(#[from] io::Error),
    /// The checkpoint could not be made durable.
    #[error("writing checkpoints: {0}")]
    Checkpoint(String),
    /// A committed batch can no longer be read back from the WAL.
    #[error("partition {partition} of topic {topic}: {what}")]
    Lost {
        /// Folder name of the topic.
        topic: String,
        /// Number of the partition.
        partition: i32,
        /// What was missing.
        what: String,
    },
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundReport {
    /// Checkpoints handed out.
    pub checkpoints: usize,
    /// Segment bytes written.
    pub bytes: u64,
    /// Partitions that met a full disk.
    pub full: usize,
}

/// Runs the rounds of one shard. Cheap to clone.
#[derive(Clone)]
pub struct Flusher {
    context: Rc<LogContext>,
    sink: Rc<dyn CheckpointSink>,
    control: Rc<Control>,
}

#[derive(Default)]
struct Control {
    pressed: Cell<bool>,
    stopping: Cell<bool>,
}

impl Flusher {
    /// For the partitions of `context`.
    pub fn new(context: &Rc<LogContext>, sink: Rc<dyn CheckpointSink>) -> Self {
        Flusher { context: Rc::clone(context), sink, control: Rc::default() }
    }

    /// Runs rounds as they fall due, until `stop`; the last one is done before it returns.
    pub async fn run(&self) -> Result<(), FlushError> {
        loop {
            if let Some(fault) = self.context.take_fault() {
                return Err(FlushError::Poisoned(fault));
            }
            let stopping = self.control.stopping.get();
            if stopping || self.due() {
                self.control.pressed.set(false);
                let report = self.round().await?;
                if stopping {
                    return Ok(());
                }
                if report.full > 0 {
                    self.context.shard.sleep(FULL_DISK_PAUSE).await;
                }
                continue;
            }
            let since = self.context.dirty.borrow().since;
            let bell = self.context.bell.notified();
            match since {
                None => {
                    self.context.free_round_buffers();
                    bell.await;
                }
                Some(since) => {
                    let due = since + self.context.options.dirty_age;
                    match rt::either(bell, self.context.shard.sleep_until(due)).await {
                        Either::Left(()) | Either::Right(()) => {}
                    }
                }
            }
        }
    }

    /// The WAL runs short of space: a round is due now.
    pub fn wal_pressure(&self) {
        self.control.pressed.set(true);
        self.context.bell.notify_one();
    }

    /// Nothing is being written, and nothing could be: what the WAL still holds fills no block, and
    /// stays there until its partitions take more.
    pub fn is_idle(&self) -> bool {
        self.context.dirty.borrow().since.is_none() && self.context.round.available() > 0
    }

    /// One more round, then `run` returns.
    pub fn stop(&self) {
        self.control.stopping.set(true);
        self.context.bell.notify_one();
    }

    fn due(&self) -> bool {
        let dirty = self.context.dirty.borrow();
        let Some(since) = dirty.since else {
            // Nothing can be written; pressure alone is no reason to spin.
            self.control.pressed.set(false);
            return false;
        };
        self.control.pressed.get()
            || dirty.bytes >= self.context.options.dirty_bytes
            || self.context.shard.now() >= since + self.context.options.dirty_age
    }

    /// One round over everything that is dirty now.
    pub async fn round(&self) -> Result<RoundReport, FlushError> {
        let context = &self.context;
        let _alone = context.round.acquire(1).await;
        let partitions: Vec<_> =
            take_dirty(context).into_iter().filter(|partition| !partition.removed.get()).collect();
        self.make_folders(&partitions).await?;
        let mut report = RoundReport::default();
        let written = side_by_side(&context.shard, partitions, |partition| async move {
            let outcome = write_partition(&partition).await;
            (partition, outcome)
        });
        let mut done = Vec::new();
        for (partition, outcome) in written.await {
            match full_disk(outcome)? {
                Some(written) => done.push((partition, written)),
                None => {
                    report.full += 1;
                    partition.note_dirty();
                }
            }
        }
        let synced = side_by_side(&context.shard, done, |(partition, written)| async move {
            let outcome = sync_partition(&partition, written.as_ref()).await;
            (partition, written, outcome)
        });
        let mut synced = synced.await.into_iter();
        while synced.len() > 0 {
            let mut changed = Vec::new();
            for (partition, written, outcome) in synced.by_ref().take(CHECKPOINTS_AT_ONCE) {
                match full_disk(outcome)? {
                    Some(()) => {
                        report.bytes += apply(&partition, written);
                        changed.push(partition);
                    }
                    None => {
                        report.full += 1;
                        partition.note_dirty();
                    }
                }
            }
            report.checkpoints += changed.len();
            self.checkpoint(changed).await?;
        }
        context.count(|stats| {
            stats.rounds += 1;
            stats.flushed_bytes += report.bytes;
            stats.full_disk_rounds += u64::from(report.full > 0);
            stats.disk_full = report.full > 0;
        });
        Ok(report)
    }

    /// The folders of partitions that write for the first time, all at once.
    async fn make_folders(&self, partitions: &[Rc<PartitionInner>]) -> Result<(), FlushError> {
        let writing = partitions.iter().filter(|p| p.state.borrow().writable_bytes() > 0);
        let identities: Vec<_> = writing.map(|partition| partition.identity).collect();
        match self.context.files.make_dirs(&identities).await {
            // Each partition that lacks one tries again, and says so.
            Err(error) if is_full(&error) => Ok(()),
            made => Ok(made?),
        }
    }

    /// Hands the checkpoints out, waits for them, and removes what nothing names any more.
    async fn checkpoint(&self, partitions: Vec<Rc<PartitionInner>>) -> Result<(), FlushError> {
        if partitions.is_empty() {
            return Ok(());
        }
        let mut checkpoints = Vec::with_capacity(partitions.len());
        let mut obsolete = Vec::new();
        for partition in &partitions {
            let identity = partition.identity;
            let (index, term) = {
                let state = partition.state.borrow();
                (state.flushed.index, state.flushed.term)
            };
            let producers = self.sink.producers(identity.owner, index);
            let mut state = partition.state.borrow_mut();
            let bytes = Bytes::from(state.checkpoint(producers).encode(&identity));
            checkpoints.push(FlushedCheckpoint { identity, index, term, bytes });
            let bases = std::mem::take(&mut state.obsolete);
            if !bases.is_empty() {
                obsolete.push((Rc::clone(partition), bases));
            }
        }
        self.sink.checkpoint(checkpoints).await.map_err(FlushError::Checkpoint)?;
        for (partition, bases) in obsolete {
            let _turn = partition.files_turn.acquire(1).await;
            for base in bases {
                self.context.files.remove_segment(&partition.identity, base).await?;
            }
        }
        for partition in partitions {
            partition.note_dirty();
        }
        Ok(())
    }
}

/// Runs `work` over `items` in at most `WIDTH` tasks, so that the shard serves others between a step of
/// one and a step of another; results in any order.
async fn side_by_side<T, R, F>(
    shard: &Shard,
    items: Vec<T>,
    work: impl Fn(T) -> F + Copy + 'static,
) -> Vec<R>
where
    T: 'static,
    R: 'static,
    F: Future<Output = R> + 'static,
{
    let width = items.len().min(WIDTH);
    let queue = Rc::new(RefCell::new(VecDeque::from(items)));
    let lane = |_| {
        let queue = Rc::clone(&queue);
        shard.spawn(async move {
            let mut results = Vec::new();
            loop {
                let next = queue.borrow_mut().pop_front();
                let Some(item) = next else { break results };
                results.push(work(item).await);
            }
        })
    };
    let lanes: Vec<_> = (0..width).map(lane).collect();
    let mut results = Vec::new();
    for lane in lanes {
        results.extend(lane.await);
    }
    results
}

/// `None` for a full disk, which is to be tried again.
fn full_disk<T>(outcome: Result<T, FlushError>) -> Result<Option<T>, FlushError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(FlushError::Poisoned(error)) if is_full(&error) => {
            tracing::warn!(%error, "no space for segments; the data stays in the WAL");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What was written of a partition: to be synced, then to be applied to its state.
struct Written {
    bytes: u64,
    /// By segment and kind; one handle of each.
    files: BTreeMap<(Offset, FileKind), File>,
    maps: BTreeMap<Offset, SegmentMap>,
    applied: Applied,
}

/// `None`: there was no whole block to write.
type WrittenBlocks = Option<Written>;

async fn write_partition(partition: &Rc<PartitionInner>) -> Result<WrittenBlocks, FlushError> {
    {
        let _turn = partition.files_turn.acquire(1).await;
        remove_strays(partition).await?;
    }
    partition.state.borrow_mut().retire();
    match partition.load_active_index().await {
        Err(ReadError::Io(error)) => return Err(FlushError::Poisoned(error)),
        // A damaged segment is the readers' business; without an index the round goes on.
        Err(_) => partition.state.borrow_mut().active_index = Some(Vec::new()),
        Ok(()) => {}
    }
    let mut progress = Progress::new(&partition.state.borrow());
    let (mut bytes, mut files) = (0, BTreeMap::new());
    loop {
        let writes = plan_step(partition, &mut progress);
        if writes.is_empty() {
            break;
        }
        for write in writes {
            bytes += write_segment(partition, &write, &mut files).await?;
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    let (maps, applied) = progress.end();
    Ok(Some(Written { bytes, files, maps, applied }))
}

/// The next writes of a round; none at its end.
fn plan_step(partition: &PartitionInner, progress: &mut Progress) -> Vec<SegmentWrite> {
    let (context, config) = (&partition.context, partition.config.borrow());
    let shard = &context.shard;
    let input = PlanInput { config: &config, now_ms: shard.wall_ms(), random: shard.random() };
    let mut state = partition.state.borrow_mut();
    let Some(to) = progress.next_step(&state, context.options.step_batches) else {
        return Vec::new();
    };
    state.place_pending(to, &input);
    progress.step(&state, to, &input)
}

/// Segments that a crash, or entries that were taken back, left behind unnamed: the WAL holds all
/// that was in them. Under the turn for files.
pub(super) async fn remove_strays(partition: &Rc<PartitionInner>) -> io::Result<()> {
    let files = &partition.context.files;
    let strays = partition.strays.replace(Strays::These(Vec::new()));
    let bases = match strays {
        Strays::These(bases) => bases,
        Strays::All => {
            let listed = files.list(&partition.identity).await?;
            listed.iter().filter_map(|entry| parse_name(&entry.name)).map(|name| name.0).collect()
        }
    };
    for base in bases {
        // Only under the turn is a file taken into use, so it cannot be while it is removed.
        let used = partition.state.borrow().stages_into(base);
        if !used {
            files.remove_segment(&partition.identity, base).await?;
        }
    }
    Ok(())
}

/// Answers the number of bytes, and adds to `written` the files that are to be synced.
async fn write_segment(
    partition: &PartitionInner,
    segment: &SegmentWrite,
    written: &mut BTreeMap<(Offset, FileKind), File>,
) -> Result<u64, FlushError> {
    let files = &partition.context.files;
    let (identity, base) = (&partition.identity, segment.base_offset);
    let file = if segment.create {
        files.create_segment(identity, base).await?
    } else {
        files.segment(identity, base).await?
    };
    let mut bytes = 0;
    for run in segment.runs() {
        write_run(partition, segment, &run, &file).await?;
        bytes += run.end - run.position;
    }
    if segment.closed {
        let _turn = partition.files_turn.acquire(1).await;
        file.set_len(segment.to.0).await?;
    }
    // The first handle sees the errors of all that is written after it was opened.
    written.entry((base, FileKind::Segment)).or_insert(file);
    if !segment.index_blocks.is_empty() {
        let file = write_index(partition, segment).await?;
        written.entry((base, FileKind::Index)).or_insert(file);
    }
    Ok(bytes)
}

/// Copies pieces of batches into aligned buffers and writes those, one after the other.
async fn write_run(
    partition: &PartitionInner,
    segment: &SegmentWrite,
    run: &Run,
    file: &File,
) -> Result<(), FlushError> {
    let context = &partition.context;
    let end = run.end.next_multiple_of(BLOCK);
    let most = (context.options.write_bytes as u64).next_multiple_of(BLOCK).max(BLOCK);
    let mut position = run.position;
    let mut pieces = run.pieces.iter();
    let mut current: Bytes = Bytes::new();
    while position < end {
        let length = (end - position).min(most) as usize;
        let mut buf = context.round_buffer(length);
        while buf.len() < length {
            if current.is_empty() {
                let Some(next) = pieces.next() else { break };
                current = piece(partition, &segment.batches[next.batch], &next.bytes).await?;
            }
            let part = current.split_to(current.len().min(length - buf.len()));
            buf.extend_from_slice(&part);
        }
        // Only the last block of a segment that is being closed comes up short.
        assert!(buf.len() == length || segment.closed, "a whole block of batches");
        buf.resize_zeroed(length);
        let _turn = context.writes.acquire(1).await;
        context.keep_round_buffer(file.write_at(buf, position).await?);
        position += length as u64;
    }
    Ok(())
}

/// Some bytes of a batch; of a staged one, such as share a block with its neighbours.
async fn piece(
    partition: &PartitionInner,
    batch: &CommittedBatch,
    bytes: &Range<usize>,
) -> Result<Bytes, FlushError> {
    let (Payload::Wal(location), Some(at)) = (&batch.payload, batch.staged) else {
        return Ok(payload(partition, batch).await?.slice(bytes.clone()));
    };
    let owner = partition.identity.owner;
    let read = partition.context.reader.read_edges(owner, batch.index, *location).await;
    let edge = read.and_then(|(_, edges)| {
        let edge = Layout::new(at.position, batch.length).edge(&edges, bytes);
        edge.ok_or(format!("{} bytes beside its pointer", edges.len()))
    });
    edge.map_err(|what| lost(partition, batch, what))
}

async fn payload(partition: &PartitionInner, batch: &CommittedBatch) -> Result<Bytes, FlushError> {
    let location = match &batch.payload {
        Payload::Memory { bytes, .. } => return Ok(bytes.clone()),
        Payload::Wal(location) => *location,
    };
    let read = partition.context.reader.read(partition.identity.owner, batch.index, location).await;
    let what = match read {
        Ok(bytes) if bytes.len() == batch.length as usize => return Ok(bytes),
        Ok(bytes) => format!("{} bytes where the batch has {}", bytes.len(), batch.length),
        Err(what) => what,
    };
    Err(lost(partition, batch, what))
}

fn lost(partition: &PartitionInner, batch: &CommittedBatch, what: String) -> FlushError {
    FlushError::Lost {
        topic: partition.identity.topic_folder(),
        partition: partition.identity.partition,
        what: format!("entry {} cannot be read from the WAL: {what}", batch.index.0),
    }
}

/// Writes index blocks; the file is made when the first one is full.
async fn write_index(
    partition: &PartitionInner,
    segment: &SegmentWrite,
) -> Result<File, FlushError> {
    let context = &partition.context;
    let name = file_name(segment.base_offset, FileKind::Index);
    let dir = context.files.dir(&partition.identity).await?;
    let options = rt::FileOptions::READ_WRITE_DIRECT;
    let file = match dir.open_file(&name, options).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            dir.create_file(&name, options).await?
        }
        opened => opened?,
    };
    let mut end = 0;
    for (number, block) in &segment.index_blocks {
        let position = u64::from(*number) * INDEX_BLOCK_BYTES as u64;
        let mut buf = context.shard.buffer(INDEX_BLOCK_BYTES);
        buf.extend_from_slice(block);
        let _turn = context.writes.acquire(1).await;
        file.write_at(buf, position).await?;
        end = position + INDEX_BLOCK_BYTES as u64;
    }
    if segment.closed {
        file.set_len(end).await?;
    }
    Ok(file)
}

async fn sync_partition(
    partition: &Rc<PartitionInner>,
    written: Option<&Written>,
) -> Result<(), FlushError> {
    let Some(written) = written else { return Ok(()) };
    let unsynced = partition.context.shard.broken(Mutation::CheckpointBeforeSync);
    for file in written.files.values().filter(|_| !unsynced) {
        partition.sync_file(file).await?;
    }
    for (base_offset, map) in &written.maps {
        // The replacement syncs the folder, and with it the names made before.
        let dir = partition.context.files.dir(&partition.identity).await?;
        let name = file_name(*base_offset, FileKind::Map);
        dir.replace(&name, &map.encode(&partition.identity)).await?;
    }
    Ok(())
}

/// What was written is durable: the state says so. Answers the bytes written.
fn apply(partition: &Rc<PartitionInner>, written: Option<Written>) -> u64 {
    let Some(Written { bytes, applied, .. }) = written else { return 0 };
    partition.state.borrow_mut().apply(applied);
    bytes
}
