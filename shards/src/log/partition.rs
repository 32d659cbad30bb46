//! One partition's log as the rest of the shard sees it.
//!
//! Committed batches go in through `commit` and can be read at once; flush rounds move them to
//! segment files behind the caller's back (`Flusher`). Lives on one shard; cheap to clone. No
//! borrow of the state is held across an await.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use rt::Semaphore;
use thiserror::Error;
use wal::{Index, Term};

use super::checkpoint::LogCheckpoint;
use super::codec::FormatError;
use super::context::LogContext;
use super::epochs::EpochStart;
use super::files::{file_name, parse_name, FileKind};
use super::map::SegmentMap;
use super::origin::check_active;
use super::staging::StagedEntry;
use super::state::{ClosedSegment, LogState};
use super::types::{LogEntry, Offset, PartitionIdentity, Payload, SegmentConfig};

/// Why a partition's log cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The checkpoint's bytes are damaged or from a newer release.
    #[error("checkpoint of the log: {0}")]
    Checkpoint(#[from] FormatError),
    /// A file that the checkpoint names is missing or damaged.
    #[error("segment {base_offset} of the log: {what}")]
    Segment {
        /// Which segment.
        base_offset: Offset,
        /// What is wrong with it.
        what: String,
    },
    /// The folder cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A partition's log, with what its checkpoint held for the caller.
pub struct OpenedLog {
    /// The log. Committed entries from `flushed.next()` on are to be replayed into it.
    pub log: PartitionLog,
    /// Raft index up to which nothing needs to be replayed.
    pub flushed: Index,
    /// Its term.
    pub flushed_term: Term,
    /// The bytes that `CheckpointSink::producers` gave.
    pub producers: Bytes,
}

/// The log of one partition. Cheap to clone.
#[derive(Clone)]
pub struct PartitionLog {
    pub(super) inner: Rc<PartitionInner>,
}

pub(super) struct PartitionInner {
    pub identity: PartitionIdentity,
    pub context: Rc<LogContext>,
    pub state: RefCell<LogState>,
    pub config: RefCell<SegmentConfig>,
    pub removed: Cell<bool>,
    /// What it contributes to the shard's dirty bytes; `None` while it is not listed.
    dirty: Cell<Option<u64>>,
    /// Segment files that no checkpoint names; they go before anything is written.
    pub strays: RefCell<Strays>,
    /// Held while files of a segment are made, grown, cut or removed.
    pub files_turn: Semaphore,
    /// Held during a sync of a file, and the error of one that has failed: see `sync_file`.
    pub sync_turn: Semaphore,
    pub sync_error: Cell<Option<i32>>,
    /// Room for staging is being made.
    pub making_room: Cell<bool>,
    /// Segments whose index was rebuilt in this life: if a read still fails, it is the segment.
    pub rebuilt: RefCell<BTreeSet<Offset>>,
}

/// What is known of files that no checkpoint names.
pub(super) enum Strays {
    /// Every file of the folder is one, but where a batch is staged: the partition has no checkpoint.
    All,
    /// These segments, but where a batch is staged.
    These(Vec<Offset>),
}

impl PartitionLog {
    /// The log of a partition without a checkpoint: no record. `before` and `term` are the group's
    /// first index and term; its entries begin after them. `staged`: those among them whose
    /// batches are staged.
    pub fn create(
        context: &Rc<LogContext>,
        identity: PartitionIdentity,
        config: SegmentConfig,
        before: Index,
        term: Term,
        staged: &[StagedEntry],
    ) -> PartitionLog {
        let mut state = LogState::new(before, term, context.shard.wall_ms());
        state.restore_pins(staged);
        PartitionLog::with(context, identity, config, state, Strays::All)
    }

    /// The log of a partition that has a checkpoint. Lists its folder, and of the segment that was
    /// being written reads the `.map` and one block; everything else is read when it is needed. `staged`: the
    /// entries to be replayed whose batches are staged.
    pub async fn open(
        context: &Rc<LogContext>,
        identity: PartitionIdentity,
        config: SegmentConfig,
        checkpoint: &Bytes,
        staged: &[StagedEntry],
    ) -> Result<OpenedLog, OpenError> {
        let checkpoint = LogCheckpoint::decode(checkpoint, Some(&identity))?;
        let mut state = LogState::restore(&checkpoint, context.shard.wall_ms());
        state.restore_pins(staged);
        let strays = find_segments(context, &identity, &mut state).await?;
        if state.active.is_some() {
            restore_map(context, &identity, &mut state).await?;
        }
        if let Some(active) = &state.active {
            check_active(context, &identity, active).await?;
        }
        let log = PartitionLog::with(context, identity, config, state, Strays::These(strays));
        log.inner.note_dirty();
        Ok(OpenedLog {
            log,
            flushed: checkpoint.flushed_index,
            flushed_term: checkpoint.flushed_term,
            producers: checkpoint.producers,
        })
    }

    fn with(
        context: &Rc<LogContext>,
        identity: PartitionIdentity,
        config: SegmentConfig,
        state: LogState,
        strays: Strays,
    ) -> PartitionLog {
        let inner = PartitionInner {
            identity,
            context: Rc::clone(context),
            state: RefCell::new(state),
            config: RefCell::new(config),
            removed: Cell::new(false),
            dirty: Cell::new(None),
            strays: RefCell::new(strays),
            files_turn: Semaphore::new(1),
            sync_turn: Semaphore::new(1),
            sync_error: Cell::new(None),
            making_room: Cell::new(false),
            rebuilt: RefCell::default(),
        };
        PartitionLog { inner: Rc::new(inner) }
    }

    /// Takes committed entries, in Raft order and without a gap; they can be read at once.
    ///
    /// # Panics
    /// On a gap or an overlap of indexes or offsets: that is a bug, and no state may be built on it.
    pub fn commit(&self, entries: impl IntoIterator<Item = LogEntry>) {
        let context = &self.inner.context;
        let now_ms = context.shard.wall_ms();
        context.pace.committed(now_ms);
        for entry in entries {
            let in_memory = match &entry {
                LogEntry::Batch(batch) => match &batch.payload {
                    Payload::Memory { .. } => Some((batch.base_offset, batch.length)),
                    Payload::Wal(_) => None,
                },
                LogEntry::Empty { .. } => None,
            };
            self.inner.state.borrow_mut().commit(entry, now_ms);
            if let Some((base_offset, length)) = in_memory {
                context.cached(&self.inner, base_offset, length);
            }
        }
        self.inner.note_dirty();
        context.shrink();
    }

    /// The log start moved, by a control entry that is committed and durable. Never moves back,
    /// and never beyond the log end. Files below it go after the next checkpoint.
    pub fn set_log_start(&self, offset: Offset) {
        let moved = self.inner.state.borrow_mut().move_log_start(offset);
        if moved {
            self.inner.note_dirty();
        }
    }

    /// The settings of new segments, from now on.
    pub fn set_config(&self, config: SegmentConfig) {
        *self.inner.config.borrow_mut() = config;
    }

    /// Which partition it is.
    pub fn identity(&self) -> &PartitionIdentity {
        &self.inner.identity
    }

    /// The first offset that may be read.
    pub fn log_start(&self) -> Offset {
        self.inner.state.borrow().log_start
    }

    /// The offset that the next committed record takes: the high watermark.
    pub fn log_end(&self) -> Offset {
        self.inner.state.borrow().next_offset
    }

    /// Raft index and term of the last committed entry.
    pub fn last_entry(&self) -> (Index, Term) {
        let state = self.inner.state.borrow();
        (state.last_index, state.last_term)
    }

    /// Raft index of the last batch that is wholly in segment files.
    pub fn flushed(&self) -> Index {
        self.inner.state.borrow().flushed.index
    }

    /// Bytes of batches between the oldest segment and the log end.
    pub fn size_bytes(&self) -> u64 {
        let state = self.inner.state.borrow();
        let closed: u64 = state.closed.iter().map(|segment| segment.length).sum();
        let active = state.active.as_ref().map_or(0, |active| active.sealed.0);
        let pending: u64 = state.pending().map(|batch| u64::from(batch.length)).sum();
        closed + active + pending
    }

    /// Number of segment files.
    pub fn segments(&self) -> usize {
        let state = self.inner.state.borrow();
        state.closed.len() + usize::from(state.active.is_some())
    }

    /// The epoch history, oldest first.
    pub fn epochs(&self) -> Vec<EpochStart> {
        self.inner.state.borrow().epochs.entries().to_vec()
    }

    /// The epoch of the record at `offset`, if the history reaches that far back.
    pub fn epoch_at(&self, offset: Offset) -> Option<i32> {
        self.inner.state.borrow().epochs.epoch_at(offset)
    }

    /// The newest epoch that wrote a record.
    pub fn last_epoch(&self) -> Option<i32> {
        self.inner.state.borrow().epochs.last_epoch()
    }

    /// OffsetForLeaderEpoch: see `EpochList::end_offset`. `current` is the leader's epoch and
    /// `log_end` the end that the caller shows.
    pub fn epoch_end(&self, asked: i32, current: i32, log_end: Offset) -> Option<(i32, Offset)> {
        let state = self.inner.state.borrow();
        state.epochs.end_offset(asked, current, state.log_start, log_end)
    }

    /// The partition was deleted: removes its folder. Reads that are under way end with an error.
    /// Waits for a round that is under way.
    pub async fn remove(&self) -> std::io::Result<()> {
        self.inner.removed.set(true);
        let context = &self.inner.context;
        let _alone = context.round.acquire(1).await;
        let _turn = self.inner.files_turn.acquire(1).await;
        self.inner.leave_dirty_list();
        context.files.remove_partition(&self.inner.identity).await
    }
}

impl PartitionInner {
    /// Lists the partition for the next round if there is something to do for one.
    pub fn note_dirty(self: &Rc<Self>) {
        let (writable, retired) = {
            let state = self.state.borrow();
            (state.writable_bytes(), state.has_retired())
        };
        if self.removed.get() || (writable == 0 && !retired) {
            return;
        }
        let context = &self.context;
        let mut dirty = context.dirty.borrow_mut();
        match self.dirty.replace(Some(writable)) {
            Some(before) => dirty.bytes = dirty.bytes - before + writable,
            None => {
                dirty.bytes += writable;
                dirty.partitions.push_back(Rc::downgrade(self));
            }
        }
        if dirty.since.is_none() {
            dirty.since = Some(context.shard.now());
            context.bell.notify_one();
        }
        if dirty.bytes >= context.options.dirty_bytes {
            context.bell.notify_one();
        }
    }

    /// The partition is gone: its bytes no longer count as dirty. Its place in the list goes with
    /// the next round.
    fn leave_dirty_list(&self) {
        if let Some(bytes) = self.dirty.take() {
            self.context.dirty.borrow_mut().bytes -= bytes;
        }
    }

    /// See `LogState::evict`.
    pub fn evict(&self, base_offset: Offset) -> bool {
        self.state.borrow_mut().evict(base_offset)
    }
}

/// Takes partitions off the dirty list, those that still live.
pub(super) fn take_dirty(context: &LogContext) -> Vec<Rc<PartitionInner>> {
    let listed = {
        let mut dirty = context.dirty.borrow_mut();
        dirty.since = None;
        dirty.bytes = 0;
        std::mem::take(&mut dirty.partitions)
    };
    let living: Vec<_> = listed.iter().filter_map(Weak::upgrade).collect();
    for partition in &living {
        partition.dirty.set(None);
    }
    living
}

/// Lists the folder into `state.closed`; answers the segments that no checkpoint names.
async fn find_segments(
    context: &LogContext,
    identity: &PartitionIdentity,
    state: &mut LogState,
) -> Result<Vec<Offset>, OpenError> {
    let end = state.active.as_ref().map_or(state.flushed.next_offset, |a| a.base_offset);
    let (mut strays, mut active_length) = (Vec::new(), None);
    for entry in context.files.list(identity).await? {
        let Some((base_offset, FileKind::Segment)) = parse_name(&entry.name) else { continue };
        if base_offset < end {
            let (next_offset, length) = (end, entry.len);
            let (facts, known) = (None, false);
            state.closed.push(ClosedSegment { base_offset, next_offset, length, facts, known });
        } else if state.active.is_some() && base_offset == end {
            active_length = Some(entry.len);
        } else {
            strays.push(base_offset);
        }
    }
    // The listing is sorted by name, and names of one width sort as the offsets do.
    for at in 1..state.closed.len() {
        state.closed[at - 1].next_offset = state.closed[at].base_offset;
    }
    if let Some(active) = &state.active {
        let what = match active_length {
            None => "the file is missing".to_owned(),
            Some(length) if length < active.written.0 => {
                format!("{length} bytes where {} were sealed", active.written)
            }
            Some(_) => return Ok(strays),
        };
        return Err(OpenError::Segment { base_offset: active.base_offset, what });
    }
    Ok(strays)
}

/// Reads the `.map` of the active segment, and drops from it what the checkpoint does not cover.
async fn restore_map(
    context: &LogContext,
    identity: &PartitionIdentity,
    state: &mut LogState,
) -> Result<(), OpenError> {
    let flushed = state.flushed.index;
    let Some(active) = &mut state.active else { return Ok(()) };
    let base_offset = active.base_offset;
    let damaged = |what: String| OpenError::Segment { base_offset, what: format!("map: {what}") };
    let dir = context.files.dir(identity).await?;
    let bytes = dir.read(&file_name(base_offset, FileKind::Map)).await?;
    let map = SegmentMap::decode(&bytes, Some(identity)).map_err(|e| damaged(e.to_string()))?;
    if map.base_offset != base_offset || map.first_index != active.first_index {
        return Err(damaged("is another segment's".to_owned()));
    }
    let known = map.empties.len();
    active.empties = map.empties;
    active.empties.retain(|entry| entry.index < flushed);
    active.map_stale = map.closed.is_some() || active.empties.len() != known;
    Ok(())
}
