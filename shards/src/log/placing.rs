//! Which segment every batch goes to, and where in it. Decided once per batch, in the order of the
//! log, either when a flush round comes to it or when a batch behind it is to be staged; both obey
//! what was decided before. So a batch can be staged while smaller ones before it wait for their
//! round: the log's order alone says where it will stand.
//!
//! What a crash leaves of the decisions are the places of staged batches, which their pointers
//! tell: a *pin* says that everything from the base of its segment up to itself lies in one
//! segment, without a gap. Other decisions may fall differently afterwards; nothing rests on them.
//!
//! Pure; part of a partition's state.

use std::collections::VecDeque;

use wal::Index;

use super::plan::PlanInput;
use super::roll::{draw_jitter, must_roll, NextBatch, SegmentFill};
use super::types::{CommittedBatch, Offset, Position, StagedAt};

/// A batch of the log, as far as its place depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upcoming {
    /// Raft index.
    pub index: Index,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Number of offsets that it takes.
    pub records: u32,
    /// Length in bytes.
    pub length: u32,
    /// Largest timestamp in milliseconds; -1 for none.
    pub max_timestamp: i64,
}

impl Upcoming {
    pub(super) fn of(batch: &CommittedBatch) -> Upcoming {
        Upcoming {
            index: batch.index,
            base_offset: batch.base_offset,
            records: batch.records,
            length: batch.length,
            max_timestamp: batch.max_timestamp,
        }
    }

    fn next(&self, now_ms: i64) -> NextBatch {
        NextBatch {
            next_offset: Offset(self.base_offset.0 + i64::from(self.records)),
            bytes: u64::from(self.length),
            timestamp: if self.max_timestamp < 0 { now_ms } else { self.max_timestamp },
        }
    }
}

/// A segment that begins at a batch which is not flushed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begin {
    pub base_offset: Offset,
    pub first_timestamp: i64,
    pub jitter_ms: i64,
}

/// A staged batch that is not wholly flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pin {
    pub index: Index,
    pub base_offset: Offset,
    pub at: StagedAt,
}

/// The end of what was walked through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    index: Index,
    /// `None`: the next batch begins a segment, whatever it is.
    open: Option<SegmentFill>,
    /// The next batch has bytes in the segment already.
    begun: bool,
}

impl Cursor {
    pub fn new(index: Index, open: Option<SegmentFill>, begun: bool) -> Cursor {
        Cursor { index, open, begun }
    }

    pub fn index(&self) -> Index {
        self.index
    }
}

/// See the module's text. Pins and begins rise from front to back.
#[derive(Debug)]
pub(super) struct Placing {
    /// Batches up to this index are decided on: where one begins a segment, `begins` says so.
    decided: Index,
    begins: VecDeque<Begin>,
    pins: VecDeque<Pin>,
    /// `None`: to be walked again from the last flushed batch.
    pub cursor: Option<Cursor>,
}

impl Placing {
    pub fn new(flushed: Index) -> Placing {
        Placing { decided: flushed, begins: VecDeque::new(), pins: VecDeque::new(), cursor: None }
    }

    // Events.

    /// Takes the next batch; answers its place.
    pub fn step(
        &mut self,
        cursor: &mut Cursor,
        batch: &Upcoming,
        input: &PlanInput<'_>,
    ) -> StagedAt {
        let next = batch.next(input.now_ms);
        if self.begins_segment(cursor, batch, input) {
            let begin = self.begin(batch.base_offset, next.timestamp, input);
            cursor.open = Some(SegmentFill {
                base_offset: begin.base_offset,
                bytes: 0,
                index_entries: 0,
                first_timestamp: begin.first_timestamp,
                jitter_ms: begin.jitter_ms,
            });
        }
        let open = cursor.open.as_mut().expect("a batch that finds no segment begins one");
        let at = StagedAt { segment: open.base_offset, position: Position(open.bytes) };
        let spacing = input.config.index_interval_bytes.max(1);
        let end = open.bytes + next.bytes;
        // An upper estimate: at most one entry in every stretch of the interval.
        open.index_entries += u64::from(open.bytes / spacing != end / spacing);
        open.bytes = end;
        cursor.index = batch.index;
        cursor.begun = false;
        self.decided = self.decided.max(batch.index);
        at
    }

    /// Where the next batch would go. If it would begin a segment, the batch with its base offset
    /// does so from now on, whichever that will be.
    pub fn peek(&mut self, cursor: &Cursor, batch: &Upcoming, input: &PlanInput<'_>) -> StagedAt {
        if self.begins_segment(cursor, batch, input) {
            let timestamp = batch.next(input.now_ms).timestamp;
            self.begin(batch.base_offset, timestamp, input);
            return StagedAt { segment: batch.base_offset, position: Position(0) };
        }
        let open = cursor.open.as_ref().expect("a batch that finds no segment begins one");
        StagedAt { segment: open.base_offset, position: Position(open.bytes) }
    }

    /// A batch is staged where it was placed.
    pub fn pin(&mut self, pin: Pin) {
        assert!(self.pins.back().is_none_or(|last| last.index < pin.index), "pins rise");
        self.pins.push_back(pin);
    }

    /// Batches from `from` on are taken back. What is committed, up to `committed` and below
    /// `offset`, keeps its place: a round may be on its way with it. Answers the segments that
    /// staged batches among them stood in.
    pub fn truncated(&mut self, from: Index, committed: Index, offset: Offset) -> Vec<Offset> {
        let mut segments = Vec::new();
        while let Some(pin) = self.pins.back().filter(|pin| pin.index >= from) {
            segments.push(pin.at.segment);
            self.pins.pop_back();
        }
        self.begins.retain(|begin| begin.base_offset < offset);
        self.decided = self.decided.min(committed);
        self.cursor = None;
        segments
    }

    /// Batches up to `index` are flushed, and the newest segment with a file begins at `begun`.
    pub fn flushed(&mut self, index: Index, begun: Option<Offset>) {
        self.pins.retain(|pin| pin.index > index);
        self.begins.retain(|begin| Some(begin.base_offset) > begun);
    }

    /// Batches up to `index` were given up, the next one has `offset` and begins a segment.
    /// Answers the segments that exist, perhaps, for batches that were staged among them.
    pub fn retired(&mut self, index: Index, offset: Offset) -> Vec<Offset> {
        let gone = self.pins.iter().filter(|pin| pin.index <= index);
        let mut segments: Vec<Offset> = gone.map(|pin| pin.at.segment).collect();
        segments.dedup();
        self.pins.retain(|pin| pin.index > index);
        self.begins.retain(|begin| begin.base_offset >= offset);
        self.cursor = None;
        segments
    }

    // Getters.

    /// The decision to begin a segment at this offset, if that is one.
    pub fn begin_at(&self, offset: Offset) -> Option<Begin> {
        let at = self.begins.partition_point(|begin| begin.base_offset < offset);
        self.begins.get(at).filter(|begin| begin.base_offset == offset).copied()
    }

    /// The segment that begins last of all.
    pub fn latest(&self) -> Option<Offset> {
        let open = self.cursor.and_then(|cursor| cursor.open).map(|open| open.base_offset);
        self.begins.back().map(|begin| begin.base_offset).max(open)
    }

    /// Whether a staged batch above `index` stands in a segment that begins below `offset`: that
    /// segment must then be filled up to it.
    pub fn holds(&self, index: Index, offset: Offset) -> bool {
        let first = self.pins.iter().find(|pin| pin.index > index);
        first.is_some_and(|pin| pin.at.segment < offset)
    }

    /// Whether a staged batch stands in this segment.
    pub fn names(&self, segment: Offset) -> bool {
        self.pins.iter().any(|pin| pin.at.segment == segment)
    }

    fn begins_segment(&self, cursor: &Cursor, batch: &Upcoming, input: &PlanInput<'_>) -> bool {
        let Some(open) = &cursor.open else { return true };
        if self.begin_at(batch.base_offset).is_some() {
            return true;
        }
        if batch.index <= self.decided || cursor.begun {
            return false;
        }
        // The first staged batch that is not before this one.
        match self.pins.iter().find(|pin| pin.base_offset >= batch.base_offset) {
            Some(pin) if pin.at.segment <= batch.base_offset => pin.at.segment == batch.base_offset,
            _ => must_roll(input.config, open, &batch.next(input.now_ms)),
        }
    }

    fn begin(&mut self, base_offset: Offset, timestamp: i64, input: &PlanInput<'_>) -> Begin {
        let at = self.begins.partition_point(|begin| begin.base_offset < base_offset);
        let known = self.begins.get_mut(at).filter(|begin| begin.base_offset == base_offset);
        if let Some(begin) = known {
            begin.first_timestamp = timestamp;
            return *begin;
        }
        let jitter_ms = draw_jitter(input.config, input.random);
        let begin = Begin { base_offset, first_timestamp: timestamp, jitter_ms };
        self.begins.insert(at, begin);
        begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::types::SegmentConfig;

    fn config() -> SegmentConfig {
        SegmentConfig { segment_bytes: 1000, ..SegmentConfig::default() }
    }

    fn input(config: &SegmentConfig) -> PlanInput<'_> {
        PlanInput { config, now_ms: 7, random: 0 }
    }

    /// A batch of one record whose index is its offset + 10.
    fn batch(offset: i64, length: u32) -> Upcoming {
        let index = Index(offset as u64 + 10);
        Upcoming { index, base_offset: Offset(offset), records: 1, length, max_timestamp: 7 }
    }

    fn at(segment: i64, position: u64) -> StagedAt {
        StagedAt { segment: Offset(segment), position: Position(position) }
    }

    fn fresh() -> (Placing, Cursor) {
        (Placing::new(Index(9)), Cursor::new(Index(9), None, false))
    }

    #[test]
    fn batches_follow_one_another_until_the_segment_is_full() {
        let (config, (mut placing, mut cursor)) = (config(), fresh());
        let places: Vec<_> = [300, 600, 101, 900]
            .into_iter()
            .zip(0..)
            .map(|(length, offset)| {
                placing.step(&mut cursor, &batch(offset, length), &input(&config))
            })
            .collect();
        assert_eq!(places, [at(0, 0), at(0, 300), at(2, 0), at(3, 0)]);
        assert!(placing.begin_at(Offset(2)).is_some() && placing.begin_at(Offset(1)).is_none());
    }

    #[test]
    fn a_walk_again_under_other_settings_comes_to_the_same_places() {
        let (first, (mut placing, mut cursor)) = (config(), fresh());
        let walk = |placing: &mut Placing, cursor: &mut Cursor, config: &SegmentConfig| {
            let lengths = [300, 600, 101, 900, 50];
            let batches = lengths.into_iter().zip(0..).map(|(length, at)| batch(at, length));
            batches.map(|b| placing.step(cursor, &b, &input(config))).collect::<Vec<_>>()
        };
        let before = walk(&mut placing, &mut cursor, &first);
        let other = SegmentConfig { segment_bytes: 400, ..config() };
        let mut cursor = Cursor::new(Index(9), None, false);
        assert_eq!(walk(&mut placing, &mut cursor, &other), before);
    }

    #[test]
    fn after_a_restart_a_pin_holds_its_segment_together() {
        let (config, (mut placing, mut cursor)) = (config(), fresh());
        placing.pin(Pin { index: Index(13), base_offset: Offset(3), at: at(1, 1200) });
        let step = |placing: &mut Placing, cursor: &mut Cursor, offset, length| {
            placing.step(cursor, &batch(offset, length), &input(&config))
        };
        assert_eq!(step(&mut placing, &mut cursor, 0, 10), at(0, 0));
        // Room enough, and yet the pin's segment begins here.
        assert_eq!(step(&mut placing, &mut cursor, 1, 600), at(1, 0));
        // No room, and yet no other segment may begin before the pin.
        assert_eq!(step(&mut placing, &mut cursor, 2, 600), at(1, 600));
        assert_eq!(step(&mut placing, &mut cursor, 3, 100), at(1, 1200));
        assert_eq!(step(&mut placing, &mut cursor, 4, 100), at(4, 0));
    }

    #[test]
    fn a_batch_that_was_asked_about_leaves_its_segment_to_the_next_one() {
        let (config, (mut placing, mut cursor)) = (config(), fresh());
        placing.step(&mut cursor, &batch(0, 10), &input(&config));
        assert_eq!(placing.peek(&cursor, &batch(1, 5000), &input(&config)), at(1, 0));
        assert_eq!(placing.latest(), Some(Offset(1)));
        assert_eq!(placing.step(&mut cursor, &batch(1, 10), &input(&config)), at(1, 0));
    }

    #[test]
    fn what_is_taken_back_is_decided_anew() {
        let (config, (mut placing, mut cursor)) = (config(), fresh());
        placing.step(&mut cursor, &batch(0, 900), &input(&config));
        placing.step(&mut cursor, &batch(1, 200), &input(&config));
        placing.pin(Pin { index: Index(11), base_offset: Offset(1), at: at(1, 0) });
        assert!(placing.holds(Index(10), Offset(2)) && !placing.holds(Index(10), Offset(1)));
        assert_eq!(placing.truncated(Index(11), Index(10), Offset(1)), [Offset(1)]);
        assert!(!placing.holds(Index(10), Offset(2)) && !placing.names(Offset(1)));
        let mut cursor = Cursor::new(Index(9), None, false);
        assert_eq!(placing.step(&mut cursor, &batch(0, 900), &input(&config)), at(0, 0));
        assert_eq!(placing.step(&mut cursor, &batch(1, 50), &input(&config)), at(0, 900));
    }

    #[test]
    fn a_batch_that_was_begun_stays_in_its_segment() {
        let (config, (mut placing, _)) = (config(), fresh());
        let open = SegmentFill {
            base_offset: Offset(0),
            bytes: 990,
            index_entries: 0,
            first_timestamp: 0,
            jitter_ms: 0,
        };
        let mut cursor = Cursor::new(Index(13), Some(open), true);
        assert_eq!(placing.step(&mut cursor, &batch(4, 500), &input(&config)), at(0, 990));
        assert_eq!(placing.step(&mut cursor, &batch(5, 500), &input(&config)), at(5, 0));
    }
}
