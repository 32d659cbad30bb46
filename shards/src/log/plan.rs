//! What one round writes for one partition: whole blocks only, each once.
//!
//! Pure: from the state, the configuration and the clock to a list of writes and to the state
//! that holds once they are durable. A round goes step by step, each of a bounded number of batches,
//! so that the shard serves others in between; a step builds on what the one before has planned, and
//! the state changes once, at the end (`Progress`). Where segments begin was decided before
//! (`placing`). The end of a segment that is being closed is written as a padded block and cut to its
//! length; nothing else is ever padded. The whole blocks of a staged batch are there already.

use std::collections::BTreeMap;
use std::ops::Range;

use wal::{Index, Term};

use super::checkpoint::BLOCK;
use super::index::{encode_block, IndexCursor, IndexEntry, BLOCK_ENTRIES};
use super::map::{ClosedFacts, EmptyEntry, SegmentMap};
use super::placing::Begin;
use super::staging::Layout;
use super::state::{ActiveSegment, Applied, ClosedSegment, Flushed, IndexChange, LogState};
use super::types::{CommittedBatch, LastBatch, Offset, Position, SegmentConfig};

/// The writes of one segment in one step.
pub(super) struct SegmentWrite {
    pub base_offset: Offset,
    /// It has no file yet.
    pub create: bool,
    /// Where the written blocks end now; a multiple of 4096.
    pub from: Position,
    /// Where they end afterwards; not a multiple of 4096 only when the segment is closed.
    pub to: Position,
    /// The batches whose bytes are needed; the first byte of the first lies `skip` below `from`.
    pub batches: Vec<CommittedBatch>,
    pub skip: u64,
    /// Blocks of the index that became full, or the last one, with their numbers.
    pub index_blocks: Vec<(u32, Vec<u8>)>,
    pub closed: bool,
}

/// A stretch of a segment to be written, from a block boundary on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub position: u64,
    pub end: u64,
    pub pieces: Vec<Piece>,
}

/// Bytes of one batch of a `SegmentWrite`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub batch: usize,
    pub bytes: Range<usize>,
}

impl SegmentWrite {
    /// What is to be written: everything from `from` to `to` but the whole blocks of batches that
    /// are staged.
    pub fn runs(&self) -> Vec<Run> {
        let (mut runs, mut start): (Vec<Run>, u64) = (Vec::new(), self.from.0 - self.skip);
        for (number, batch) in self.batches.iter().enumerate() {
            let end = start + u64::from(batch.length);
            let blocks = match batch.staged {
                Some(at) => Layout::new(at.position, batch.length).blocks(),
                None => end..end,
            };
            for part in [start..blocks.start, blocks.end..end] {
                let part = part.start.max(self.from.0)..part.end.min(self.to.0);
                if part.is_empty() {
                    continue;
                }
                let bytes = (part.start - start) as usize..(part.end - start) as usize;
                let piece = Piece { batch: number, bytes };
                match runs.last_mut().filter(|run| run.end == part.start) {
                    Some(run) => {
                        run.end = part.end;
                        run.pieces.push(piece);
                    }
                    None => {
                        let Range { start: position, end } = part;
                        assert_eq!(position % BLOCK, 0, "a run begins with a block");
                        runs.push(Run { position, end, pieces: vec![piece] });
                    }
                }
            }
            start = end;
        }
        runs
    }
}

/// What a plan needs to know beside the state.
pub(super) struct PlanInput<'a> {
    pub config: &'a SegmentConfig,
    pub now_ms: i64,
    /// For the jitter of new segments.
    pub random: u64,
}

/// How far a round has come with one partition: what holds once all that it wrote is durable.
pub(super) struct Progress {
    /// The last batch that is committed when the round begins: the round goes no further.
    until: Index,
    flushed: Flushed,
    closed: Vec<ClosedSegment>,
    active: Option<ActiveSegment>,
    index: IndexChange,
    /// Number of entries that the index of the active segment has by now.
    index_entries: usize,
    /// Those of them that stand in no full block yet.
    index_open: Vec<IndexEntry>,
    /// The `.map`s that changed, by the base offset of their segment.
    maps: BTreeMap<Offset, SegmentMap>,
}

impl Progress {
    /// Nothing is written yet. The index of the active segment must have been read.
    pub fn new(state: &LogState) -> Progress {
        let index = state.active_index.as_deref().unwrap_or_default();
        Progress {
            until: state.last_index,
            flushed: state.flushed,
            closed: Vec::new(),
            active: state.active.clone(),
            index: IndexChange::Append(Vec::new()),
            index_entries: index.len(),
            index_open: unblocked(index).to_vec(),
            maps: BTreeMap::new(),
        }
    }

    /// The last batch of a step of `most` batches, or of as many as fill a block; `None` when the
    /// round has taken all.
    pub fn next_step(&self, state: &LogState, most: usize) -> Option<Index> {
        let active = self.active.as_ref();
        let (mut end, written) = active.map_or((0, 0), |open| (open.sealed.0, open.written.0));
        let mut last = None;
        let batches = state.pending_after(self.flushed.index);
        for (number, batch) in batches.take_while(|batch| batch.index <= self.until).enumerate() {
            if number >= most && end >= written + BLOCK {
                break;
            }
            end += u64::from(batch.length);
            last = Some(batch.index);
        }
        last
    }

    /// Plans a step, up to the batch `to`; nothing when no whole block can be written, so that the
    /// round has come to its end. Every batch of the step must have its place.
    pub fn step(
        &mut self,
        state: &LogState,
        to: Index,
        input: &PlanInput<'_>,
    ) -> Vec<SegmentWrite> {
        let open = self.active.as_ref().map(OpenSegment::resume);
        let from = self.flushed.index;
        let mut planner = Planner { state, input, progress: self, open, segments: Vec::new() };
        for batch in state.pending_after(from).take_while(|batch| batch.index <= to) {
            planner.place(batch);
        }
        planner.finish();
        planner.segments
    }

    /// The `.map`s to write, and what is to be applied when they and all writes are durable.
    pub fn end(self) -> (BTreeMap<Offset, SegmentMap>, Applied) {
        let Progress { flushed, closed, active, index, maps, .. } = self;
        (maps, Applied { closed, active, index, flushed })
    }
}

impl Progress {
    /// Adds entries to the index of the active segment, or of one that was just `created`; answers
    /// the blocks that became full, and the last one of a segment that is `closed`.
    fn extend_index(
        &mut self,
        base: Offset,
        fresh: Vec<IndexEntry>,
        created: bool,
        closed: bool,
    ) -> Vec<(u32, Vec<u8>)> {
        if created {
            self.index = IndexChange::Replace(Vec::new());
            self.index_entries = 0;
            self.index_open.clear();
        }
        let first_block = self.index_entries / BLOCK_ENTRIES;
        self.index_entries += fresh.len();
        self.index_open.extend_from_slice(&fresh);
        let blocks = index_blocks(base, first_block, &self.index_open, closed);
        self.index_open = unblocked(&self.index_open).to_vec();
        match &mut self.index {
            IndexChange::Append(entries) | IndexChange::Replace(entries) => entries.extend(fresh),
        }
        blocks
    }
}

/// The entries behind the last full block.
fn unblocked(entries: &[IndexEntry]) -> &[IndexEntry] {
    &entries[entries.len() / BLOCK_ENTRIES * BLOCK_ENTRIES..]
}

struct Planner<'a> {
    state: &'a LogState,
    input: &'a PlanInput<'a>,
    progress: &'a mut Progress,
    open: Option<OpenSegment>,
    segments: Vec<SegmentWrite>,
}

/// A segment while batches are assigned to it.
struct OpenSegment {
    active: ActiveSegment,
    create: bool,
    /// End of the batches assigned.
    total: u64,
    batches: Vec<CommittedBatch>,
}

impl OpenSegment {
    fn resume(active: &ActiveSegment) -> Self {
        OpenSegment {
            active: active.clone(),
            create: false,
            total: active.sealed.0,
            batches: Vec::new(),
        }
    }
}

impl Planner<'_> {
    fn place(&mut self, batch: &CommittedBatch) {
        // A step before this one may have begun the segment, and not have come to the batch's end.
        let begun = self.open.as_ref().map(|open| open.active.base_offset);
        let begin = self.state.placing.begin_at(batch.base_offset);
        if let Some(begin) = begin.filter(|begin| begun != Some(begin.base_offset)) {
            self.close();
            self.open = Some(self.begin(batch, begin));
        }
        let open = self.open.as_mut().expect("a batch that finds no segment begins one");
        if let Some(at) = batch.staged {
            // Its blocks are there: whoever placed it must have meant this very place.
            let here = (open.active.base_offset, Position(open.total));
            assert_eq!((at.segment, at.position), here, "the place of a staged batch");
        }
        open.total += u64::from(batch.length);
        open.batches.push(batch.clone());
    }

    fn begin(&self, batch: &CommittedBatch, begin: Begin) -> OpenSegment {
        let first_index = self.progress.flushed.index.next();
        let first_term = self.term_of(first_index, batch);
        OpenSegment {
            active: ActiveSegment {
                base_offset: batch.base_offset,
                first_index,
                first_term,
                sealed: Position(0),
                written: Position(0),
                first_timestamp: begin.first_timestamp,
                jitter_ms: begin.jitter_ms,
                cursor: IndexCursor::new(batch.base_offset),
                last: None,
                empties: Vec::new(),
                map_stale: false,
            },
            create: true,
            total: 0,
            batches: Vec::new(),
        }
    }

    fn term_of(&self, index: Index, batch: &CommittedBatch) -> Term {
        let empty = self.state.empties.iter().find(|entry| entry.index == index);
        empty.map_or(batch.term, |entry| entry.term)
    }

    /// Writes the open segment to its very end; the next batch begins another.
    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let total = Position(open.total);
        let active = self.seal(open, total, true);
        let progress = &mut *self.progress;
        let facts = ClosedFacts {
            length: total.0,
            next_offset: progress.flushed.next_offset,
            last_index: progress.flushed.index,
            last_term: progress.flushed.term,
            batches: active.cursor.batches,
            max_timestamp: active.cursor.max_timestamp,
            max_timestamp_offset: active.cursor.max_timestamp_offset,
            closed_ms: self.input.now_ms,
            last: active.last.expect("a segment is begun by a batch"),
        };
        progress.maps.insert(active.base_offset, segment_map(&active, Some(facts)));
        progress.closed.push(ClosedSegment {
            base_offset: active.base_offset,
            next_offset: facts.next_offset,
            length: facts.length,
            facts: Some(facts),
            known: true,
        });
        progress.active = None;
        progress.index = IndexChange::Replace(Vec::new());
        progress.index_entries = 0;
        progress.index_open.clear();
    }

    /// Writes the whole blocks of the segment that stays open.
    fn finish(&mut self) {
        let Some(open) = self.open.take() else { return };
        let to = Position(open.total / BLOCK * BLOCK);
        if to > open.active.written {
            let active = self.seal(open, to, false);
            self.progress.active = Some(active);
        }
    }

    /// Plans the writes of a segment up to `to`, and moves `flushed` to its last whole batch.
    fn seal(&mut self, open: OpenSegment, to: Position, closed: bool) -> ActiveSegment {
        let OpenSegment { mut active, create, batches, .. } = open;
        let from = active.written;
        let skip = from.0 - active.sealed.0;
        let interval = self.input.config.index_interval_bytes;
        let (mut position, mut new_index, mut needed) = (active.sealed.0, Vec::new(), Vec::new());
        for batch in batches {
            let end = position + u64::from(batch.length);
            if end <= to.0 {
                let (offset, time) = (batch.base_offset, batch.max_timestamp);
                new_index.extend(active.cursor.batch(offset, Position(position), time, interval));
                self.progress.flushed = Flushed {
                    index: batch.index,
                    term: batch.term,
                    next_offset: batch.next_offset(),
                };
                active.last = Some(LastBatch { position: Position(position), crc: batch.crc });
                active.sealed = Position(end);
            }
            if position < to.0 {
                needed.push(batch);
            }
            position = end;
        }
        active.written = to;
        let fresh = self.take_empties(&mut active);
        if create || fresh || std::mem::take(&mut active.map_stale) {
            self.progress.maps.insert(active.base_offset, segment_map(&active, None));
        }
        let index_blocks =
            self.progress.extend_index(active.base_offset, new_index, create, closed);
        self.segments.push(SegmentWrite {
            base_offset: active.base_offset,
            create,
            from,
            to,
            batches: needed,
            skip,
            index_blocks,
            closed,
        });
        active
    }

    /// Gives the segment the entries without records that its sealed batches passed.
    fn take_empties(&self, active: &mut ActiveSegment) -> bool {
        let known = active.empties.last().map(|entry| entry.index);
        let flushed = self.progress.flushed.index;
        let fresh: Vec<EmptyEntry> = self
            .state
            .empties
            .iter()
            .filter(|entry| entry.index >= active.first_index && entry.index < flushed)
            .filter(|entry| known.is_none_or(|known| entry.index > known))
            .copied()
            .collect();
        active.empties.extend(&fresh);
        !fresh.is_empty()
    }
}

fn segment_map(active: &ActiveSegment, closed: Option<ClosedFacts>) -> SegmentMap {
    SegmentMap {
        base_offset: active.base_offset,
        first_index: active.first_index,
        first_term: active.first_term,
        closed,
        empties: active.empties.clone(),
    }
}

/// Of the entries from block `first` on: the full blocks, and at the close the last one.
fn index_blocks(
    base: Offset,
    first: usize,
    open: &[IndexEntry],
    closed: bool,
) -> Vec<(u32, Vec<u8>)> {
    let blocks = open.chunks(BLOCK_ENTRIES).enumerate();
    blocks
        .filter(|(_, entries)| closed || entries.len() == BLOCK_ENTRIES)
        .map(|(at, entries)| {
            let number = (first + at) as u32;
            (number, encode_block(base, number, entries))
        })
        .collect()
}
