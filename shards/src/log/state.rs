//! What one partition's log is at a moment: tail in memory, segments on disk, how far each goes.
//!
//! Synchronous and without I/O. Events: `commit`, `move_log_start`, `retire`, `apply` (a round's
//! writes are done), `evict`. Getters: the rest. Only a flush round changes what is known of
//! files (`retire`, `apply`), and rounds of a shard follow one another.

use std::collections::VecDeque;

use bytes::Bytes;
use wal::{Index, Location, Term};

use super::checkpoint::{ActiveCheckpoint, LogCheckpoint};
use super::epochs::EpochList;
use super::index::{IndexCursor, IndexEntry};
use super::map::{ClosedFacts, EmptyEntry};
use super::placing::{Cursor, Pin, Placing, Upcoming};
use super::plan::PlanInput;
use super::roll::SegmentFill;
use super::staging::{Room, StagedEntry};
use super::types::{CommittedBatch, LastBatch, LogEntry, Offset, Payload, Position, StagedAt};

/// A closed segment. Its facts are read from its `.map` when first needed.
#[derive(Debug, Clone)]
pub(super) struct ClosedSegment {
    pub base_offset: Offset,
    /// By the segment that follows it.
    pub next_offset: Offset,
    /// Length of the file as listed.
    pub length: u64,
    pub facts: Option<ClosedFacts>,
    /// It was closed in this life of the process, or found to be the segment that was written here
    /// (`origin`).
    pub known: bool,
}

/// The segment that is being written.
#[derive(Debug, Clone)]
pub(super) struct ActiveSegment {
    pub base_offset: Offset,
    pub first_index: Index,
    pub first_term: Term,
    pub sealed: Position,
    pub written: Position,
    pub first_timestamp: i64,
    pub jitter_ms: i64,
    pub cursor: IndexCursor,
    /// Ends at `sealed`; `None` while nothing is.
    pub last: Option<LastBatch>,
    /// What its `.map` holds.
    pub empties: Vec<EmptyEntry>,
    /// The `.map` on disk says more than a checkpoint does (after a crash): it is to be replaced.
    pub map_stale: bool,
}

/// The last batch that is wholly in written blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flushed {
    pub index: Index,
    pub term: Term,
    pub next_offset: Offset,
}

/// What a finished round changes.
pub(super) struct Applied {
    pub closed: Vec<ClosedSegment>,
    pub active: Option<ActiveSegment>,
    pub index: IndexChange,
    pub flushed: Flushed,
}

/// New entries of the active segment's index.
pub(super) enum IndexChange {
    /// The active segment went on.
    Append(Vec<IndexEntry>),
    /// Another segment is active, or none.
    Replace(Vec<IndexEntry>),
}

/// Where the batch with a certain offset is to be read from.
pub(super) enum Source {
    /// Batches in memory, and the offset after the last.
    Memory(Vec<Bytes>, Offset),
    /// One batch in the WAL.
    Wal {
        index: Index,
        location: Location,
        length: u32,
        next_offset: Offset,
        staged: Option<StagedAt>,
    },
    /// A segment file.
    Segment(SegmentPart),
    /// Within the log, but no segment covers it.
    Missing,
    /// Nothing more below the limit, or no room for it.
    End,
}

/// The readable part of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentPart {
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub end: Position,
    pub closed: bool,
}

/// How a read is bounded.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadBound {
    /// Batches end at or below it.
    pub limit: Offset,
    pub max_bytes: u64,
    /// The first batch is taken whatever its size.
    pub at_least_one: bool,
}

pub(super) struct LogState {
    pub log_start: Offset,
    /// Log end: the offset that the next record takes.
    pub next_offset: Offset,
    pub last_index: Index,
    pub last_term: Term,
    pub epochs: EpochList,
    /// All batches from some offset to the end, without a gap: the flushed ones are a cache, the
    /// others are pending.
    tail: VecDeque<CommittedBatch>,
    /// Entries without records above `flushed.index`.
    pub empties: VecDeque<EmptyEntry>,
    pub flushed: Flushed,
    pub closed: Vec<ClosedSegment>,
    pub active: Option<ActiveSegment>,
    /// Index of the active segment; `None` until it is read after a restart.
    pub active_index: Option<Vec<IndexEntry>>,
    /// Base offsets of segments whose files go once a checkpoint without them is durable.
    pub obsolete: Vec<Offset>,
    /// Where batches that are not flushed go.
    pub placing: Placing,
    /// What staging may be written to now.
    pub room: Option<Room>,
    /// Bytes from the end of the written blocks to the end of the tail.
    pub unwritten_bytes: u64,
    /// Wall clock at the last commit: the age of batches without timestamps.
    pub last_commit_ms: i64,
}

impl LogState {
    /// A partition without files. Its first entry has the index after `before`.
    pub fn new(before: Index, term: Term, now_ms: i64) -> Self {
        let flushed = Flushed { index: before, term, next_offset: Offset(0) };
        LogState {
            log_start: Offset(0),
            next_offset: Offset(0),
            last_index: before,
            last_term: term,
            epochs: EpochList::new(),
            tail: VecDeque::new(),
            empties: VecDeque::new(),
            flushed,
            closed: Vec::new(),
            active: None,
            active_index: Some(Vec::new()),
            obsolete: Vec::new(),
            placing: Placing::new(before),
            room: None,
            unwritten_bytes: 0,
            last_commit_ms: now_ms,
        }
    }

    /// What a checkpoint says; segments are added by the caller, which lists the folder.
    pub fn restore(checkpoint: &LogCheckpoint, now_ms: i64) -> Self {
        let flushed = Flushed {
            index: checkpoint.flushed_index,
            term: checkpoint.flushed_term,
            next_offset: checkpoint.next_offset,
        };
        let mut state = LogState::new(flushed.index, flushed.term, now_ms);
        state.log_start = checkpoint.log_start;
        state.next_offset = checkpoint.next_offset;
        state.epochs = checkpoint.epochs.clone();
        state.flushed = flushed;
        state.active = checkpoint.active.as_ref().map(restore_active);
        state.active_index = if state.active.is_some() { None } else { Some(Vec::new()) };
        state
    }

    /// Staged batches that will be committed again: their segments are not strays, and they keep
    /// their places.
    pub fn restore_pins(&mut self, staged: &[StagedEntry]) {
        let flushed = self.flushed.index;
        for entry in staged.iter().filter(|entry| entry.index > flushed) {
            let StagedEntry { index, base_offset, at, .. } = *entry;
            self.placing.pin(Pin { index, base_offset, at });
        }
    }

    /// Takes committed entries in Raft order. A gap is a bug of the layer that orders them.
    pub fn commit(&mut self, entry: LogEntry, now_ms: i64) {
        let (index, term) = match &entry {
            LogEntry::Batch(batch) => (batch.index, batch.term),
            LogEntry::Empty { index, term } => (*index, *term),
        };
        assert_eq!(index, self.last_index.next(), "committed entries follow one another");
        assert!(term >= self.last_term, "terms never go back");
        self.last_index = index;
        self.last_term = term;
        match entry {
            LogEntry::Empty { .. } => {
                self.empties.push_back(EmptyEntry { index, term, offset: self.next_offset });
            }
            LogEntry::Batch(batch) => self.commit_batch(batch, now_ms),
        }
    }

    fn commit_batch(&mut self, batch: CommittedBatch, now_ms: i64) {
        assert_eq!(batch.base_offset, self.next_offset, "offsets are dense");
        assert!(batch.records > 0 && batch.length > 0, "a batch has records");
        if let Payload::Memory { bytes, .. } = &batch.payload {
            assert_eq!(bytes.len(), batch.length as usize, "the payload is the batch");
        }
        let epoch = i32::try_from(batch.term.0).expect("terms fit in Kafka's epochs");
        self.epochs.assign(epoch, batch.base_offset);
        self.next_offset = batch.next_offset();
        self.unwritten_bytes += u64::from(batch.length);
        self.last_commit_ms = now_ms;
        self.tail.push_back(batch);
    }

    /// The part of the unwritten bytes that makes whole blocks.
    pub fn writable_bytes(&self) -> u64 {
        // `written` is a multiple of the block size, so the unwritten bytes begin at a boundary.
        self.unwritten_bytes / super::checkpoint::BLOCK * super::checkpoint::BLOCK
    }

    /// Moves the log start forward; `false` when it already stands there or further.
    pub fn move_log_start(&mut self, to: Offset) -> bool {
        let to = to.min(self.next_offset);
        if to <= self.log_start {
            return false;
        }
        self.log_start = to;
        self.epochs.move_start(to);
        let flushed = self.flushed.next_offset;
        while self.tail.front().is_some_and(|b| b.next_offset() <= to && b.next_offset() <= flushed)
        {
            self.tail.pop_front();
        }
        true
    }

    /// Is there anything on disk or pending that lies wholly below the log start?
    pub fn has_retired(&self) -> bool {
        self.closed.first().is_some_and(|segment| segment.next_offset <= self.log_start)
            || (self.active_is_below() || self.pending_is_below())
                && !self.is_held(self.retirable())
    }

    /// Does the first pending batch lie below the log start? Asked at every commit: the tail, which
    /// is long and out of the processor's caches, is looked at only if it can.
    fn pending_is_below(&self) -> bool {
        self.flushed.next_offset < self.log_start
            && self.pending().next().is_some_and(|batch| batch.next_offset() <= self.log_start)
    }

    /// What would be the last flushed batch if all that lies below the log start were given up.
    fn retirable(&self) -> Flushed {
        let below = |batch: &&CommittedBatch| batch.next_offset() <= self.log_start;
        let last = self.pending().take_while(below).last();
        last.map_or(self.flushed, |batch| Flushed {
            index: batch.index,
            term: batch.term,
            next_offset: batch.next_offset(),
        })
    }

    /// Whether a batch behind `flushed` is staged in a segment with bytes before it: the segment
    /// cannot be given up, and what is missing in it must be written.
    fn is_held(&self, flushed: Flushed) -> bool {
        self.placing.holds(flushed.index, flushed.next_offset)
    }

    /// Does the active segment hold sealed batches, all of them below the log start?
    fn active_is_below(&self) -> bool {
        let sealed = self.active.as_ref().is_some_and(|active| active.sealed.0 > 0);
        sealed && self.flushed.next_offset <= self.log_start
    }

    /// Gives up what lies wholly below the log start: pending batches count as flushed, segments
    /// become obsolete. A first step of a round.
    pub fn retire(&mut self) {
        let to = self.retirable();
        if !self.is_held(to) && (to != self.flushed || self.active_is_below()) {
            self.retire_pending(to);
        }
        let kept = self.closed.partition_point(|segment| segment.next_offset <= self.log_start);
        self.obsolete.extend(self.closed.drain(..kept).map(|segment| segment.base_offset));
        self.recount_unwritten();
    }

    fn retire_pending(&mut self, to: Flushed) {
        if to != self.flushed {
            self.flushed = to;
            self.tail.drain(..self.pending_from());
            self.empties.retain(|entry| entry.index > to.index);
        }
        if let Some(active) = self.active.take() {
            self.obsolete.push(active.base_offset);
            self.active_index = Some(Vec::new());
        }
        // No later segment begins below the next batch, so none of these names is used again.
        let staged = self.placing.retired(to.index, to.next_offset);
        let room = self.room.take_if(|room| room.segment < to.next_offset);
        let segments = staged.into_iter().chain(room.map(|room| room.segment));
        for segment in segments.filter(|segment| *segment < to.next_offset) {
            if !self.obsolete.contains(&segment) {
                self.obsolete.push(segment);
            }
        }
    }

    /// A round has written and synced what was planned.
    pub fn apply(&mut self, applied: Applied) {
        self.closed.extend(applied.closed);
        self.active = applied.active;
        match applied.index {
            IndexChange::Append(entries) => {
                let index = self.active_index.get_or_insert_default();
                index.extend(entries);
            }
            IndexChange::Replace(entries) => self.active_index = Some(entries),
        }
        self.flushed = applied.flushed;
        let flushed = self.flushed.index;
        let closed = self.closed.last().map(|segment| segment.base_offset);
        let begun = self.active.as_ref().map(|active| active.base_offset).max(closed);
        self.placing.flushed(flushed, begun);
        self.empties.retain(|entry| entry.index > flushed);
        while self
            .tail
            .front()
            .is_some_and(|batch| batch.index <= flushed && matches!(batch.payload, Payload::Wal(_)))
        {
            self.tail.pop_front();
        }
        self.recount_unwritten();
    }

    /// Decides where the pending batches up to `to` go. The index of the active segment must be
    /// there.
    pub fn place_pending(&mut self, to: Index, input: &PlanInput<'_>) {
        let mut cursor = self.placing.cursor.unwrap_or_else(|| self.cursor_at_flushed());
        let from = self.tail.partition_point(|batch| batch.index <= cursor.index());
        for batch in self.tail.range(from..).take_while(|batch| batch.index <= to) {
            self.placing.step(&mut cursor, &Upcoming::of(batch), input);
        }
        self.placing.cursor = Some(cursor);
    }

    /// Decides where everything before an entry goes that is about to be appended; `before` knows
    /// the batches that are not committed. `None` while the active segment is not known in full.
    pub fn place_before(
        &mut self,
        next: Index,
        before: &dyn Fn(Index) -> Option<Upcoming>,
        input: &PlanInput<'_>,
    ) -> Option<Cursor> {
        if self.active.is_some() && self.active_index.is_none() {
            return None;
        }
        self.place_pending(self.last_index, input);
        let mut cursor = self.placing.cursor?;
        for index in cursor.index().max(self.last_index).0 + 1..next.0 {
            if let Some(batch) = before(Index(index)) {
                self.placing.step(&mut cursor, &batch, input);
            }
        }
        self.placing.cursor = Some(cursor);
        Some(cursor)
    }

    fn cursor_at_flushed(&self) -> Cursor {
        let fill = |active: &ActiveSegment| SegmentFill {
            base_offset: active.base_offset,
            bytes: active.sealed.0,
            index_entries: self.active_index.as_ref().map_or(0, |index| index.len() as u64),
            first_timestamp: active.first_timestamp,
            jitter_ms: active.jitter_ms,
        };
        let begun = self.active.as_ref().is_some_and(|active| active.written > active.sealed);
        Cursor::new(self.flushed.index, self.active.as_ref().map(fill), begun)
    }

    /// Entries from `from` on are taken back; none of them was committed. Answers the segments
    /// that were begun for them: perhaps none will ever begin there again.
    pub fn unplace(&mut self, from: Index) -> Vec<Offset> {
        assert!(from > self.last_index, "committed entries stay");
        let end = self.next_offset;
        let staged = self.placing.truncated(from, self.last_index, end);
        let room = self.room.take_if(|room| room.segment >= end).map(|room| room.segment);
        staged.into_iter().filter(|segment| *segment >= end).chain(room).collect()
    }

    /// Whether this segment's file is in use, though no checkpoint names it yet.
    pub fn stages_into(&self, segment: Offset) -> bool {
        let room = self.room.as_ref().is_some_and(|room| room.segment == segment);
        room || self.placing.names(segment)
    }

    fn recount_unwritten(&mut self) {
        let pending: u64 = self.pending().map(|batch| u64::from(batch.length)).sum();
        let ahead = self.active.as_ref().map_or(0, |active| active.written.0 - active.sealed.0);
        self.unwritten_bytes = pending.saturating_sub(ahead);
    }

    /// Number of tail batches that are flushed.
    fn pending_from(&self) -> usize {
        self.tail.partition_point(|batch| batch.index <= self.flushed.index)
    }

    /// Batches that are not wholly in written blocks.
    pub fn pending(&self) -> impl Iterator<Item = &CommittedBatch> {
        self.pending_after(self.flushed.index)
    }

    /// Those of them behind the entry `index`.
    pub fn pending_after(&self, index: Index) -> impl Iterator<Item = &CommittedBatch> {
        let from = self.tail.partition_point(|batch| batch.index <= index);
        self.tail.range(from..)
    }

    /// Gives back the memory of the batch with this base offset: a flushed one leaves the cache
    /// with all before it, a pending one stays in the WAL alone. `false` when it must stay.
    pub fn evict(&mut self, base_offset: Offset) -> bool {
        let before = |batch: &CommittedBatch| batch.base_offset < base_offset;
        // Nearly always it is the oldest, and a search would touch memory that nobody else does.
        let at = match self.tail.front() {
            Some(front) if !before(front) => 0,
            _ => self.tail.partition_point(before),
        };
        let Some(batch) = self.tail.get_mut(at) else { return true };
        if batch.base_offset != base_offset {
            return true;
        }
        if batch.index <= self.flushed.index {
            self.tail.drain(..=at);
            return true;
        }
        match &batch.payload {
            Payload::Memory { location: Some(location), .. } => {
                batch.payload = Payload::Wal(*location);
                true
            }
            Payload::Memory { location: None, .. } => false,
            Payload::Wal(_) => true,
        }
    }

    /// Base offset of the batch in the tail that contains `offset`.
    pub fn batch_base(&self, offset: Offset) -> Option<Offset> {
        let at = self.tail.partition_point(|batch| batch.next_offset() <= offset);
        self.tail.get(at).map(|batch| batch.base_offset).filter(|base| *base <= offset)
    }

    /// Where the batch that contains `offset` is; `offset` is within the log.
    pub fn source(&self, offset: Offset, bound: ReadBound) -> Source {
        if offset >= bound.limit || offset >= self.next_offset {
            return Source::End;
        }
        if self.tail.front().is_some_and(|front| front.base_offset <= offset) {
            return self.tail_source(offset, bound);
        }
        match self.segment_at(offset) {
            Some(part) => Source::Segment(part),
            None => Source::Missing,
        }
    }

    fn tail_source(&self, offset: Offset, bound: ReadBound) -> Source {
        let from = self.tail.partition_point(|batch| batch.next_offset() <= offset);
        let (mut batches, mut bytes, mut next) = (Vec::new(), 0, offset);
        for batch in self.tail.range(from..) {
            let first = bound.at_least_one && batches.is_empty();
            let fits = bytes + u64::from(batch.length) <= bound.max_bytes;
            if batch.next_offset() > bound.limit || !(fits || first) {
                break;
            }
            match &batch.payload {
                Payload::Memory { bytes: payload, .. } => batches.push(payload.clone()),
                Payload::Wal(_) if !batches.is_empty() => break,
                Payload::Wal(location) => {
                    return Source::Wal {
                        index: batch.index,
                        location: *location,
                        length: batch.length,
                        next_offset: batch.next_offset(),
                        staged: batch.staged,
                    }
                }
            }
            bytes += u64::from(batch.length);
            next = batch.next_offset();
        }
        if batches.is_empty() {
            Source::End
        } else {
            Source::Memory(batches, next)
        }
    }

    /// The closed segment of this name.
    pub fn closed_segment(&mut self, base_offset: Offset) -> Option<&mut ClosedSegment> {
        let at = self.closed.binary_search_by_key(&base_offset, |segment| segment.base_offset);
        self.closed.get_mut(at.ok()?)
    }

    /// The segment that covers `offset`, if its bytes are sealed.
    pub fn segment_at(&self, offset: Offset) -> Option<SegmentPart> {
        if let Some(part) = self.active_part() {
            if part.base_offset <= offset {
                return (offset < part.next_offset).then_some(part);
            }
        }
        let after = self.closed.partition_point(|segment| segment.base_offset <= offset);
        let segment = self.closed.get(after.checked_sub(1)?)?;
        (offset < segment.next_offset).then(|| segment.part())
    }

    /// The sealed part of the active segment.
    pub fn active_part(&self) -> Option<SegmentPart> {
        let active = self.active.as_ref()?;
        Some(SegmentPart {
            base_offset: active.base_offset,
            next_offset: self.flushed.next_offset,
            end: active.sealed,
            closed: false,
        })
    }

    /// All segments with sealed bytes, oldest first.
    pub fn parts(&self) -> Vec<SegmentPart> {
        let closed = self.closed.iter().map(ClosedSegment::part);
        let parts = closed.chain(self.active_part());
        parts.filter(|part| part.next_offset > part.base_offset).collect()
    }

    /// What a checkpoint taken now says.
    pub fn checkpoint(&self, producers: Bytes) -> LogCheckpoint {
        let next_offset = self.flushed.next_offset;
        let known = self.epochs.entries().iter().filter(|entry| entry.start <= next_offset);
        let epochs = EpochList::from_entries(known.copied().collect());
        LogCheckpoint {
            flushed_index: self.flushed.index,
            flushed_term: self.flushed.term,
            next_offset,
            log_start: self.log_start,
            active: self.active.as_ref().map(active_checkpoint),
            epochs: epochs.expect("a part of a rising list rises"),
            producers,
        }
    }
}

impl ClosedSegment {
    pub fn part(&self) -> SegmentPart {
        SegmentPart {
            base_offset: self.base_offset,
            next_offset: self.next_offset,
            end: Position(self.length),
            closed: true,
        }
    }
}

/// What was written of a batch before anything was sealed is written again: of those bytes nobody
/// can tell whose they are, and the WAL has them all.
fn restore_active(active: &ActiveCheckpoint) -> ActiveSegment {
    let written = active.last.map_or(Position(0), |_| active.written);
    ActiveSegment {
        base_offset: active.base_offset,
        first_index: active.first_index,
        first_term: active.first_term,
        sealed: active.sealed,
        written,
        first_timestamp: active.first_timestamp,
        jitter_ms: 0,
        cursor: IndexCursor {
            last_position: active.sealed,
            batches: active.batches,
            max_timestamp: active.max_timestamp,
            max_timestamp_offset: active.max_timestamp_offset,
        },
        last: active.last,
        empties: Vec::new(),
        map_stale: false,
    }
}

fn active_checkpoint(active: &ActiveSegment) -> ActiveCheckpoint {
    ActiveCheckpoint {
        base_offset: active.base_offset,
        first_index: active.first_index,
        first_term: active.first_term,
        sealed: active.sealed,
        written: active.written,
        batches: active.cursor.batches,
        first_timestamp: active.first_timestamp,
        max_timestamp: active.cursor.max_timestamp,
        max_timestamp_offset: active.cursor.max_timestamp_offset,
        last: active.last,
    }
}
