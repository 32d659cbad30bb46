//! What the clients of a world asked for and were told, and every rule about records that this
//! must keep.
//!
//! Rules hold as things happen where they can, and over the whole log at the end. What one client
//! was told binds every request that another begins later: an acknowledged offset lies below every
//! high watermark told since, and neither the watermark nor the log start goes back. The first
//! violation is kept and ends the run. Shared by all nodes of one world, which run on one thread.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use net::batch::Batch;
use net::compress::DECOMPRESSED_MAX_BYTES;
use net::records::Unfolded;
use shards::partition::Partition;

use crate::audit::{Audit, Whole};
use crate::offsets::{Offsets, Owners};
use crate::wire::{name_of, Place, DELETED, PLACES, RETENTION_BYTES};

pub type Shared = Rc<RefCell<History>>;

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// What was acknowledged is gone, or the broker itself gives it up as damaged.
    Lost,
    /// What an idempotent producer sent stands in the log twice.
    Doubled,
    /// What one producer sent stands in another order.
    Reordered,
    /// Bytes that nobody sent.
    Invented,
    /// Two answers, or an answer and the log, contradict each other.
    Diverged,
    /// A high watermark, a log start, a generation or a group's offset went back.
    WentBack,
    /// A partition had two owners.
    TwoOwners,
    /// Deleted data was served again.
    Returned,
    /// The node went on after a write or a sync that failed.
    WentOn,
    /// The node does not start, though nothing is wrong with its disk.
    NotStarted,
    /// The broker panicked, though nothing is wrong with its disk.
    Panicked,
    /// Somebody waits for ever.
    Stuck,
    /// A partition is still in memory when its world has ended.
    Kept,
}

impl Rule {
    /// The rules about what a client was promised: a mutation must be found by one of these.
    pub fn is_a_promise(self) -> bool {
        !matches!(self, Rule::WentOn | Rule::NotStarted | Rule::Panicked | Rule::Stuck | Rule::Kept)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

impl Violation {
    pub fn new(rule: Rule, what: impl Into<String>) -> Violation {
        Violation { rule, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = format!("{:?}", self.rule).to_uppercase();
        write!(f, "{rule}: {}", self.what)
    }
}

/// A record's value tells where it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    pub producer: u32,
    pub place: Place,
    pub sequence: u32,
}

impl Value {
    /// Key and value of the record, every byte of both.
    pub fn record(self) -> (String, String) {
        let Value { producer, place, sequence } = self;
        let mixed = (sequence ^ producer << 20).wrapping_mul(0x9e37_79b9) >> 16;
        // The two longest are staged, with whatever else is in their batch.
        let padding = match mixed % 32 {
            0 => 20_000,
            1..3 => 6000,
            3..11 => 900,
            _ => 20,
        };
        let mut value = format!("{producer} {place} {sequence} ");
        // A format width would write space by space: a fifth of the time of a run.
        value.push_str(&" ".repeat(padding));
        (format!("key {}", sequence % 7), value)
    }

    fn parse(text: &[u8]) -> Option<Value> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let mut number = || words.next()?.parse::<u32>().ok();
        let (producer, place, sequence) = (number()?, number()? as Place, number()?);
        Some(Value { producer, place, sequence })
    }
}

/// What one producer sent to one partition.
#[derive(Debug, Default)]
pub struct Lane {
    /// Sequences that were ever sent: those below.
    pub sent: u32,
    /// Sequence to the offset that was answered.
    pub acknowledged: BTreeMap<u32, i64>,
}

#[derive(Debug, Default)]
pub struct Producer {
    pub idempotent: bool,
    pub lanes: BTreeMap<Place, Lane>,
}

/// What clients were told of a partition; every request that begins now must hear no less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Floor {
    pub high_watermark: i64,
    pub log_start: i64,
}

/// A batch as it was first read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub base: i64,
    pub next: i64,
    pub epoch: i32,
    pub crc: u32,
    pub bytes: u64,
}

#[derive(Default)]
struct Facts {
    seen: BTreeMap<i64, Seen>,
    floor: Floor,
    /// The highest offset up to which somebody asked for deletion.
    asked_to_delete: i64,
}

#[derive(Default)]
pub struct History {
    pub producers: Vec<Producer>,
    places: [Facts; PLACES],
    pub offsets: Offsets,
    pub owners: Owners,
    /// Topics that come and go: acknowledged to exist, or not to.
    pub topics: BTreeMap<String, bool>,
    /// Clients are to finish.
    pub finish: bool,
    pub finished: usize,
    pub clients: usize,
    pub violation: Option<Violation>,
    /// A client was refused what it must be granted; the whole log tells what is wrong.
    pub suspicion: Option<String>,
    pub audits: Vec<Audit>,
    /// How far the audit under way has come, and what it was answered last.
    pub audit_progress: BTreeMap<Place, (i64, i16)>,
    pub lives: u32,
    /// The partitions that each life has found, which die with it.
    pub partitions: Vec<Weak<RefCell<Partition>>>,
    /// Starts that failed: whether durable state was given up, and the message.
    pub failed_starts: Vec<(bool, String)>,
    pub batches_read: u64,
    /// The last answer that made a client try again.
    pub refused: String,
}

impl History {
    /// To be asked when the world has ended: nothing of it may be left.
    pub fn judge_memory(&self) -> Result<(), Violation> {
        let kept = self.partitions.iter().filter(|one| one.strong_count() > 0).count();
        if kept == 0 {
            return Ok(());
        }
        let what = format!("{kept} of {} partitions are still in memory", self.partitions.len());
        Err(Violation::new(Rule::Kept, what))
    }

    pub fn violate(&mut self, rule: Rule, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| Violation::new(rule, what));
    }

    pub fn check(&mut self, outcome: Result<(), Violation>) {
        if let Err(violation) = outcome {
            self.violation.get_or_insert(violation);
        }
    }

    pub fn floor(&self, place: Place) -> Floor {
        self.places[place].floor
    }

    /// What an answer to a request tells that began when `floor` held.
    pub fn told(&mut self, place: Place, floor: Floor, high_watermark: i64, log_start: i64) {
        let name = name_of(place);
        if high_watermark < floor.high_watermark {
            let what = format!(
                "the high watermark of {name} was at least {} and is {high_watermark}",
                floor.high_watermark
            );
            self.violate(Rule::WentBack, what);
        }
        if log_start < floor.log_start {
            let what =
                format!("the log start of {name} was {} and is {log_start}", floor.log_start);
            self.violate(Rule::WentBack, what);
        }
        let known = &mut self.places[place].floor;
        known.high_watermark = known.high_watermark.max(high_watermark);
        known.log_start = known.log_start.max(log_start);
    }

    pub fn asks_to_delete(&mut self, place: Place, offset: i64) {
        let asked = &mut self.places[place].asked_to_delete;
        *asked = offset.max(*asked);
    }

    /// The answer to a fetch at `position` says that there is no such offset, and the log starts
    /// at `log_start`. Where the reader goes on.
    pub fn out_of_range(&mut self, place: Place, position: i64, log_start: i64) -> i64 {
        if log_start <= position {
            let what = format!("offset {position} of {} was reached, and is gone", name_of(place));
            self.violate(Rule::Lost, what);
        }
        log_start
    }

    /// Takes in what a fetch at `position` gave; the position after it, and the records.
    pub fn records(
        &mut self,
        place: Place,
        position: i64,
        floor: Floor,
        mut bytes: Bytes,
    ) -> (i64, Vec<(i64, Value)>) {
        let (mut next, mut values) = (position, Vec::new());
        if !bytes.is_empty() && position < floor.log_start {
            let what = format!("offset {position} of {} is read again", name_of(place));
            self.violate(Rule::Returned, what);
        }
        while !bytes.is_empty() {
            // The last batch may be cut by the limit of bytes.
            let Ok(batch) = Batch::split_from(&mut bytes) else { break };
            let first = next == position;
            if let Err(violation) = self.batch(place, &batch, next, first, &mut values) {
                self.check(Err(violation));
                break;
            }
            next = batch.header.next_offset();
        }
        (next, values)
    }

    fn batch(
        &mut self,
        place: Place,
        batch: &Batch,
        due: i64,
        first: bool,
        values: &mut Vec<(i64, Value)>,
    ) -> Result<(), Violation> {
        let name = name_of(place);
        let at = |rule, what: &str| Err(Violation::new(rule, format!("{name} at {due}: {what}")));
        if let Err(error) = batch.check_crc() {
            return at(Rule::Invented, &error.to_string());
        }
        let header = &batch.header;
        let base = header.base_offset;
        let follows = if first { base <= due } else { base == due };
        if !follows || header.last_offset() < due {
            return at(Rule::Diverged, &format!("a batch of {base} to {}", header.last_offset()));
        }
        let seen = Seen {
            base,
            next: header.next_offset(),
            epoch: header.partition_leader_epoch,
            crc: header.crc,
            bytes: batch.bytes.len() as u64,
        };
        if *self.places[place].seen.entry(base).or_insert(seen) != seen {
            return at(Rule::Diverged, &format!("the batch at {base} was another one before"));
        }
        self.batches_read += 1;
        let Ok(records) = Unfolded::new(batch, DECOMPRESSED_MAX_BYTES) else {
            return at(Rule::Invented, "records that nobody can read");
        };
        for (offset, record) in (base..).zip(&records) {
            let Ok(record) = record else { return at(Rule::Invented, "a malformed record") };
            let (key, text) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
            let value = Value::parse(text).filter(|value| self.was_sent(place, *value));
            let genuine = value.filter(|value| {
                let (own_key, own_text) = value.record();
                (own_key.as_bytes(), own_text.as_bytes()) == (key, text)
            });
            let Some(value) = genuine else {
                let start = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
                return at(Rule::Invented, &format!("nobody sent {start:?} at {offset}"));
            };
            values.push((offset, value));
        }
        Ok(())
    }

    fn was_sent(&self, place: Place, value: Value) -> bool {
        let producer = self.producers.get(value.producer as usize);
        let lane = producer.and_then(|producer| producer.lanes.get(&place));
        value.place == place && lane.is_some_and(|lane| value.sequence < lane.sent)
    }

    pub fn batches(&self, place: Place, from: i64) -> Vec<Seen> {
        let seen = self.places[place].seen.values();
        seen.filter(|seen| seen.next > from).copied().collect()
    }

    pub fn acknowledge(&mut self, value: Value, count: u32, base_offset: i64) {
        let producer = &mut self.producers[value.producer as usize];
        let lane = producer.lanes.entry(value.place).or_default();
        for step in 0..count {
            lane.acknowledged.insert(value.sequence + step, base_offset + i64::from(step));
        }
        let known = &mut self.places[value.place].floor.high_watermark;
        *known = (*known).max(base_offset + i64::from(count));
    }

    pub fn acknowledged(&self) -> usize {
        let lanes = self.producers.iter().flat_map(|producer| producer.lanes.values());
        lanes.map(|lane| lane.acknowledged.len()).sum()
    }

    /// Where everybody stands, for a run that hangs.
    pub fn progress(&self) -> String {
        let lanes = self.producers.iter().map(|producer| {
            let lanes = producer.lanes.iter();
            lanes.map(|(place, lane)| (*place, lane.sent, lane.acknowledged.len())).collect()
        });
        let lanes: Vec<Vec<(Place, u32, usize)>> = lanes.collect();
        let (finished, clients, refused) = (self.finished, self.clients, &self.refused);
        format!(
            "{finished} of {clients} clients are done; partition, sent, acknowledged: {lanes:?}; \
             the last refusal: {refused}"
        )
    }

    /// The log as it stands against everything that was acknowledged.
    pub fn judge(&self, audit: &Audit) -> Result<(), Violation> {
        for (place, whole) in audit.places.iter().enumerate() {
            self.judge_start(place, whole)?;
            if !whole.batches.is_sorted_by_key(|batch| batch.epoch) {
                let what = format!("leader epochs of {} go back", name_of(place));
                return Err(Violation::new(Rule::Reordered, what));
            }
            for (number, producer) in self.producers.iter().enumerate() {
                let Some(lane) = producer.lanes.get(&place) else { continue };
                judge_order(number, producer.idempotent, place, whole)?;
                judge_acknowledged(number, lane, place, whole)?;
            }
        }
        Ok(())
    }

    fn judge_start(&self, place: Place, whole: &Whole) -> Result<(), Violation> {
        let asked = self.places[place].asked_to_delete;
        let bytes: u64 = whole.batches.iter().map(|batch| batch.bytes).sum();
        let by_size = place == DELETED && bytes >= RETENTION_BYTES;
        if whole.start > asked && !by_size {
            let (name, start) = (name_of(place), whole.start);
            return Err(Violation::new(
                Rule::Lost,
                format!(
                    "{name} begins at {start} with {bytes} bytes; deletion was asked up to {asked}"
                ),
            ));
        }
        Ok(())
    }

    /// An audit does not come to its end: what was acknowledged beyond the place where a
    /// partition answers with an error is lost.
    pub fn judge_unreadable(&self) -> Result<(), Violation> {
        for (place, (position, code)) in &self.audit_progress {
            let lanes = self.producers.iter().filter_map(|producer| producer.lanes.get(place));
            let offsets = lanes.flat_map(|lane| lane.acknowledged.values());
            let beyond = offsets.filter(|offset| *offset >= position).count();
            if *code != 0 && beyond > 0 {
                let name = name_of(*place);
                return Err(Violation::new(
                    Rule::Lost,
                    format!(
                        "{beyond} acknowledged records of {name} from {position} on are answered \
                         with error {code} for ever"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// What a producer sent stands once and in order; without idempotence, again at most.
fn judge_order(
    number: usize,
    idempotent: bool,
    place: Place,
    whole: &Whole,
) -> Result<(), Violation> {
    let name = name_of(place);
    let found = |rule, what: String| {
        Err(Violation::new(rule, format!("producer {number} in {name}: {what}")))
    };
    let own = whole.values.iter().filter(|(_, value)| value.producer as usize == number);
    let own: Vec<(i64, u32)> = own.map(|(offset, value)| (*offset, value.sequence)).collect();
    let mut seen = BTreeSet::new();
    for (offset, sequence) in &own {
        let last = seen.last().copied();
        match last {
            _ if seen.contains(sequence) && idempotent => {
                return found(Rule::Doubled, format!("{sequence} again at {offset}"));
            }
            _ if seen.contains(sequence) => {}
            Some(last) if *sequence < last => {
                return found(Rule::Reordered, format!("{sequence} at {offset}, after {last}"));
            }
            Some(last) if *sequence > last + 1 => {
                let later = own.iter().any(|(_, later)| *later == last + 1);
                let rule = if later { Rule::Reordered } else { Rule::Lost };
                let what = format!("{sequence} at {offset} where {} is due", last + 1);
                return found(rule, what);
            }
            None if *sequence > 0 && whole.start == 0 => {
                return found(Rule::Lost, format!("begins with {sequence} at {offset}"));
            }
            _ => {}
        }
        seen.insert(*sequence);
    }
    Ok(())
}

fn judge_acknowledged(
    number: usize,
    lane: &Lane,
    place: Place,
    whole: &Whole,
) -> Result<(), Violation> {
    let kept = lane.acknowledged.iter().filter(|(_, offset)| **offset >= whole.start);
    for (&sequence, &offset) in kept {
        let there = whole.values.binary_search_by_key(&offset, |(offset, _)| *offset);
        let there = there.ok().map(|at| whole.values[at].1);
        let value = Value { producer: number as u32, place, sequence };
        if there == Some(value) {
            continue;
        }
        let elsewhere = whole.values.iter().find(|(_, other)| *other == value);
        let rule = if elsewhere.is_some() { Rule::Diverged } else { Rule::Lost };
        let (name, end) = (name_of(place), whole.end);
        return Err(Violation::new(
            rule,
            format!(
                "{value:?} was acknowledged at {offset} of {name}, which ends at {end}; there: \
                 {there:?}, found at {:?}",
                elsewhere.map(|(offset, _)| offset)
            ),
        ));
    }
    Ok(())
}
