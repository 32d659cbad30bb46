//! What the driver costs per proposal on groups of one voter, over a log in memory that does
//! nothing but copy. `cargo run --release -p chronik-raft --example propose_cost`

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use chronik_raft::driver::{
    Driver, DriverOptions, Effects, Journal, JournalError, MachineRef, Placed,
};
use chronik_raft::{Committed, Descriptor, EntryKind, Leadership, Machine, Proposal};
use rt::Shard;
use wal::{FileSequence, FrameNumber, GroupId, Index, Location, Owner, RecordRef, ReplicaId, Term};

/// Counts what is committed.
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
}

struct Bench {
    driver: Driver,
    journal: Memory,
    counter: Rc<RefCell<Counter>>,
}

impl Bench {
    fn new(groups: u64) -> Bench {
        let driver = Driver::new(DriverOptions::default(), Box::new(|| 4));
        let journal = Memory { frame: 1, bytes: Vec::new() };
        let counter = Rc::new(RefCell::new(Counter(0)));
        let mut bench = Bench { driver, journal, counter };
        for group in 0..groups {
            let owner = Owner { group: GroupId(group), replica: ReplicaId(group + 1) };
            let machine: MachineRef = bench.counter.clone();
            let (start, voters) = ((Index(5), Term(5)), [owner.replica]);
            bench
                .driver
                .create(&mut bench.journal, owner, &voters, start, machine)
                .expect("a new group");
        }
        bench.settle();
        bench
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

    /// Checkpoints everything, so that the log in memory stays short.
    fn checkpoint(&mut self, groups: u64) {
        for group in 0..groups {
            let status = self.driver.status(GroupId(group)).expect("the group");
            let at = (status.applied, status.term);
            self.driver.checkpoint(&mut self.journal, GroupId(group), at, &[]).expect("written");
        }
        self.settle();
    }
}

/// `rounds` frames, in each of which `groups` groups propose `batch` entries of `size` bytes.
fn measure(shard: &Shard, groups: u64, batch: u64, size: usize, rounds: u64) {
    let mut bench = Bench::new(groups);
    let payload = [Bytes::from(vec![7; size])];
    let descriptor = Descriptor { records: 1, ..Descriptor::default() };
    let kind = EntryKind::Data;
    let before = bench.counter.borrow().0;
    let started = shard.now();
    for round in 0..rounds {
        for group in 0..groups {
            for _ in 0..batch {
                let proposal = Proposal { kind, descriptor, payload: &payload };
                bench.driver.propose(GroupId(group), &proposal).expect("it leads");
            }
        }
        bench.settle();
        if round % 64 == 63 {
            bench.checkpoint(groups);
        }
    }
    let elapsed = shard.now().saturating_since(started);
    let entries = bench.counter.borrow().0 - before;
    assert_eq!(entries, groups * batch * rounds);
    let each_ns = elapsed.as_nanos() as f64 / entries as f64;
    println!("{groups:>6} {batch:>6} {size:>8} {each_ns:>12.0}");
}

fn main() {
    rt::uring::run_one(|shard| async move {
        println!("groups  batch     bytes  ns/proposal");
        measure(&shard, 1, 1, 100, 200_000);
        measure(&shard, 1, 8, 100, 50_000);
        measure(&shard, 1, 64, 100, 10_000);
        measure(&shard, 100, 1, 100, 5_000);
        measure(&shard, 10_000, 1, 100, 30);
        measure(&shard, 1, 1, 16 << 10, 50_000);
        measure(&shard, 1, 8, 16 << 10, 10_000);
    });
}
