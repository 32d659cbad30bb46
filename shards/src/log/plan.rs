//! What one round writes for one partition: whole blocks only, each once.
//!
//! Pure: from the state, the configuration and the clock to a list of writes and to the state
//! that holds once they are durable. Where segments begin was decided before (`placing`). The end
//! of a segment that is being closed is written as a padded block and cut to its length; nothing
//! else is ever padded. The whole blocks of a staged batch are there already.

use std::ops::Range;

use wal::{Index, Term};

use super::checkpoint::BLOCK;
use super::index::{encode_block, IndexCursor, IndexEntry, BLOCK_ENTRIES};
use super::map::{ClosedFacts, EmptyEntry, SegmentMap};
use super::placing::Begin;
use super::staging::Layout;
use super::state::{ActiveSegment, Applied, ClosedSegment, Flushed, IndexChange, LogState};
use super::types::{CommittedBatch, LastBatch, Offset, Position, SegmentConfig};

/// The writes of one segment.
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
    /// The `.map`, when it changed.
    pub map: Option<SegmentMap>,
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

/// All writes of a round for one partition.
pub(super) struct RoundPlan {
    pub segments: Vec<SegmentWrite>,
    pub applied: Applied,
}

/// What a plan needs to know beside the state.
pub(super) struct PlanInput<'a> {
    pub config: &'a SegmentConfig,
    pub now_ms: i64,
    /// For the jitter of new segments.
    pub random: u64,
}

/// Plans a round; `None` when no whole block can be written. The index of the active segment must
/// have been read, and every pending batch have its place.
pub(super) fn plan(state: &LogState, input: &PlanInput<'_>) -> Option<RoundPlan> {
    let mut planner = Planner {
        state,
        input,
        open: None,
        flushed: state.flushed,
        segments: Vec::new(),
        closed: Vec::new(),
        active: state.active.clone(),
        index: IndexChange::Append(Vec::new()),
    };
    planner.open = state.active.as_ref().map(|active| OpenSegment::resume(active, state));
    for batch in state.pending() {
        planner.place(batch);
    }
    planner.finish();
    if planner.segments.is_empty() {
        return None;
    }
    let Planner { segments, closed, active, index, flushed, .. } = planner;
    Some(RoundPlan { segments, applied: Applied { closed, active, index, flushed } })
}

struct Planner<'a> {
    state: &'a LogState,
    input: &'a PlanInput<'a>,
    open: Option<OpenSegment>,
    flushed: Flushed,
    segments: Vec<SegmentWrite>,
    closed: Vec<ClosedSegment>,
    active: Option<ActiveSegment>,
    index: IndexChange,
}

/// A segment while batches are assigned to it.
struct OpenSegment {
    active: ActiveSegment,
    create: bool,
    /// End of the batches assigned.
    total: u64,
    batches: Vec<CommittedBatch>,
    /// Number of entries of its index from before this round.
    index_entries: usize,
    /// Those of them that stand in no full block yet.
    index_open: Vec<IndexEntry>,
}

impl OpenSegment {
    fn resume(active: &ActiveSegment, state: &LogState) -> Self {
        let index = state.active_index.as_deref().unwrap_or_default();
        OpenSegment {
            active: active.clone(),
            create: false,
            total: active.sealed.0,
            batches: Vec::new(),
            index_entries: index.len(),
            index_open: index[index.len() / BLOCK_ENTRIES * BLOCK_ENTRIES..].to_vec(),
        }
    }
}

impl Planner<'_> {
    fn place(&mut self, batch: &CommittedBatch) {
        if let Some(begin) = self.state.placing.begin_at(batch.base_offset) {
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
        let first_index = self.flushed.index.next();
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
            index_entries: 0,
            index_open: Vec::new(),
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
        let done = self.seal(open, total, true);
        let cursor = &done.active.cursor;
        let facts = ClosedFacts {
            length: total.0,
            next_offset: self.flushed.next_offset,
            last_index: self.flushed.index,
            last_term: self.flushed.term,
            batches: cursor.batches,
            max_timestamp: cursor.max_timestamp,
            max_timestamp_offset: cursor.max_timestamp_offset,
            closed_ms: self.input.now_ms,
            last: done.active.last.expect("a segment is begun by a batch"),
        };
        if let Some(write) = self.segments.last_mut() {
            write.map = Some(segment_map(&done.active, Some(facts)));
        }
        self.closed.push(ClosedSegment {
            base_offset: done.active.base_offset,
            next_offset: facts.next_offset,
            length: facts.length,
            facts: Some(facts),
            known: true,
        });
        self.active = None;
        self.index = IndexChange::Replace(Vec::new());
    }

    /// Writes the whole blocks of the segment that stays open.
    fn finish(&mut self) {
        let Some(open) = self.open.take() else { return };
        let to = Position(open.total / BLOCK * BLOCK);
        if to <= open.active.written {
            return;
        }
        let create = open.create;
        let done = self.seal(open, to, false);
        self.active = Some(done.active);
        self.index = if create {
            IndexChange::Replace(done.new_index)
        } else {
            IndexChange::Append(done.new_index)
        };
    }

    /// Plans the writes of a segment up to `to`, and moves `flushed` to its last whole batch.
    fn seal(&mut self, open: OpenSegment, to: Position, closed: bool) -> Sealed {
        let OpenSegment { mut active, create, batches, index_entries, index_open, .. } = open;
        let from = active.written;
        let skip = from.0 - active.sealed.0;
        let interval = self.input.config.index_interval_bytes;
        let (mut position, mut new_index, mut needed) = (active.sealed.0, Vec::new(), Vec::new());
        for batch in batches {
            let end = position + u64::from(batch.length);
            if end <= to.0 {
                let (offset, time) = (batch.base_offset, batch.max_timestamp);
                new_index.extend(active.cursor.batch(offset, Position(position), time, interval));
                self.flushed = Flushed {
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
        let changed = create || fresh || std::mem::take(&mut active.map_stale);
        let map = changed.then(|| segment_map(&active, None));
        let first_block = index_entries / BLOCK_ENTRIES;
        let open = [index_open.as_slice(), &new_index].concat();
        let index_blocks = index_blocks(active.base_offset, first_block, &open, closed);
        self.segments.push(SegmentWrite {
            base_offset: active.base_offset,
            create,
            from,
            to,
            batches: needed,
            skip,
            index_blocks,
            map,
            closed,
        });
        Sealed { active, new_index }
    }

    /// Gives the segment the entries without records that its sealed batches passed.
    fn take_empties(&self, active: &mut ActiveSegment) -> bool {
        let known = active.empties.last().map(|entry| entry.index);
        let fresh: Vec<EmptyEntry> = self
            .state
            .empties
            .iter()
            .filter(|entry| entry.index >= active.first_index && entry.index < self.flushed.index)
            .filter(|entry| known.is_none_or(|known| entry.index > known))
            .copied()
            .collect();
        active.empties.extend(&fresh);
        !fresh.is_empty()
    }
}

struct Sealed {
    active: ActiveSegment,
    new_index: Vec<IndexEntry>,
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
