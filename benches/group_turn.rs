//! What does Raft cost per entry? Groups of one voter propose, a turn gathers what they wrote, the
//! frame becomes durable, the next turn commits: over a log in memory that does nothing but copy.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use raft::driver::{Driver, DriverOptions, Effects, Journal, JournalError, MachineRef, Placed};
use raft::{Committed, Descriptor, EntryKind, Leadership, Machine, Proposal};
use wal::{
    FileSequence, FrameNumber, GroupId, Index, Location, Owner, PayloadDurable, RecordRef,
    ReplicaId, Term,
};

/// Turns between checkpoints, which keep the driver's tail of entries short.
const CHECKPOINT_EVERY: u32 = 64;
const ENTRY_BYTES: usize = 1_024;

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("group_turn");
    for (groups, entries) in [(1, 1), (1, 64), (100, 1), (1_000, 1)] {
        group.throughput(Throughput::Elements(groups * entries));
        let id = BenchmarkId::from_parameter(format!("{groups} groups x {entries}"));
        group.bench_function(id, |bencher| {
            let mut node = Node::new(groups);
            bencher.iter(|| node.turn(entries));
        });
    }
    group.finish();
}

/// Counts what is committed.
#[derive(Default)]
struct Counter(u64);

impl Machine for Counter {
    fn leadership(&mut self, _: Leadership) {}
    fn truncated(&mut self, _: Index) {}
    fn committed(&mut self, entries: Vec<Committed>) {
        self.0 += entries.len() as u64;
    }
    fn persisted(&mut self, _: Index) {}
}

/// A log that gathers bodies and is durable when told so.
struct Memory {
    frame: u64,
    bytes: Vec<u8>,
}

impl Journal for Memory {
    fn append(&mut self, record: RecordRef<'_>) -> Result<Placed, JournalError> {
        let position = self.bytes.len() as u32;
        if let RecordRef::Append { body, .. } | RecordRef::Checkpoint { body, .. } = record {
            body.iter().for_each(|slice| self.bytes.extend_from_slice(slice));
        }
        let length = self.bytes.len() as u32 - position;
        let file = FileSequence(1);
        let location = Location { file, position: u64::from(position), length };
        Ok(Placed { frame: FrameNumber(self.frame), position, location })
    }

    fn append_pointer(
        &mut self,
        record: RecordRef<'_>,
        _: PayloadDurable,
    ) -> Result<Placed, JournalError> {
        panic!("nothing is staged here: {record:?}")
    }
}

struct Node {
    driver: Driver,
    journal: Memory,
    counter: Rc<RefCell<Counter>>,
    groups: u64,
    turns: u32,
    payload: [Bytes; 1],
}

impl Node {
    /// All groups lead.
    fn new(groups: u64) -> Node {
        let mut node = Node {
            driver: Driver::new(DriverOptions::default(), Box::new(|| 4)),
            journal: Memory { frame: 1, bytes: Vec::new() },
            counter: Rc::default(),
            groups,
            turns: 0,
            payload: [Bytes::from(vec![7; ENTRY_BYTES])],
        };
        for group in 0..groups {
            let owner = Owner { group: GroupId(group), replica: ReplicaId(group + 1) };
            let machine: MachineRef = node.counter.clone();
            let (start, voters) = ((Index(5), Term(5)), [owner.replica]);
            let Node { driver, journal, .. } = &mut node;
            driver.create(journal, owner, &voters, start, machine).expect("a new group");
        }
        node.settle();
        node
    }

    /// Every group proposes and commits so many entries.
    fn turn(&mut self, entries: u64) {
        let before = self.counter.borrow().0;
        let descriptor = Descriptor { records: 1, ..Descriptor::default() };
        for group in (0..self.groups).map(GroupId) {
            for _ in 0..entries {
                let kind = EntryKind::Data;
                let proposal = Proposal { kind, descriptor, payload: &self.payload };
                self.driver.propose(group, &proposal).expect("it leads");
            }
        }
        self.settle();
        assert_eq!(self.counter.borrow().0 - before, self.groups * entries);
        self.turns += 1;
        if self.turns.is_multiple_of(CHECKPOINT_EVERY) {
            self.checkpoint();
        }
    }

    /// A turn, its frame durable, and the turn that commits it.
    fn settle(&mut self) {
        self.driver.turn(&mut self.journal).expect("it never fails");
        let capacity = self.journal.bytes.capacity();
        let bytes = std::mem::replace(&mut self.journal.bytes, Vec::with_capacity(capacity));
        let frame = FrameNumber(self.journal.frame);
        self.journal.frame += 1;
        self.driver.durable(frame, &Bytes::from(bytes));
        self.driver.turn(&mut self.journal).expect("it never fails");
        let Effects { calls, .. } = self.driver.take_effects();
        calls.into_iter().for_each(|(machine, call)| call.make(&machine));
    }

    fn checkpoint(&mut self) {
        for group in (0..self.groups).map(GroupId) {
            let status = self.driver.status(group).expect("the group");
            let at = (status.applied, status.term);
            self.driver.checkpoint(&mut self.journal, group, at, &[]).expect("written");
        }
        self.settle();
    }
}
