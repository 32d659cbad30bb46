//! The log always comes back to taking data: under random traffic, crashes and a disk that is
//! full at times, with another budget now and then, followed by calm in which the layers above
//! checkpoint what they can.
//!
//! The model of those layers: when room is short, every owner is checkpointed up to the last block
//! that its bytes fill, but for times when the disk is full. The entry in which the rest begins
//! stays in the log for ever, however long it is; when that is all, the log is told so. Nothing
//! else is assumed. The budgets are of four to eight small files, and what stays may be more. More
//! seeds: CHRONIK_WAL_SEEDS; one seed: CHRONIK_SEED.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use chronik_wal::{
    Flush, GroupId, HardState, Identity, Index, Owner, Pressure, RecordRef, Recovered, ReplicaId,
    Term, Wal, WalError, WalOptions,
};
use rt::sim::{CrashKind, NodeId, World, WorldOptions};
use rt::{Shard, ShardId};

const DISK_BYTES: u64 = 1 << 30;
const TERM: Term = Term(5);
/// Segments are written in blocks.
const BLOCK_BYTES: u64 = 4096;

/// What the layers above know of one owner.
#[derive(Default)]
struct Group {
    checkpoint: u64,
    /// Lengths of the entries above it.
    entries: VecDeque<u64>,
    /// Of the first of them, what is in the segment.
    written: u64,
}

impl Group {
    fn last(&self) -> u64 {
        self.checkpoint + self.entries.len() as u64
    }

    /// The entry up to which everything can be checkpointed, if that is any.
    fn flushable(&mut self) -> Option<u64> {
        let all: u64 = self.entries.iter().sum();
        self.written += (all - self.written) / BLOCK_BYTES * BLOCK_BYTES;
        let mut upto = None;
        while let Some(length) = self.entries.front().filter(|length| **length <= self.written) {
            self.written -= length;
            self.entries.pop_front();
            self.checkpoint += 1;
            upto = Some(self.checkpoint);
        }
        upto
    }
}

struct Job {
    options: Cell<WalOptions>,
    groups: u64,
    /// Segments cannot be written now.
    disk_full: Cell<bool>,
    /// Bytes of data that became durable, over all lives.
    taken_bytes: Cell<u64>,
    /// What the log looked like when data was last refused.
    refused: RefCell<String>,
}

fn owner(group: u64) -> Owner {
    Owner { group: GroupId(group), replica: ReplicaId(1) }
}

async fn node(shard: Shard, job: Rc<Job>) {
    let dir = shard.create_dir("/data/wal").await.expect("a folder");
    let identity = Identity { node: [7; 16], shard: ShardId(0), generation: 1 };
    let options = job.options.get();
    let (wal, recovered) = match Wal::open(&shard, dir, options, identity).await {
        Ok(opened) => opened,
        // The operator starts it again when there is space.
        Err(WalError::NoRoom { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    assert!(recovered.report.damage.is_empty(), "{:?}", recovered.report.damage);
    let groups = Rc::new(RefCell::new(known(&recovered, job.groups)));
    // Each start is an election in every group.
    for group in groups.borrow().keys() {
        let state = HardState { term: TERM, vote: ReplicaId(1), commit: Index(0) };
        let vote = RecordRef::HardState { owner: owner(*group), state };
        wal.append_reserved(vote).expect("a vote is never refused");
    }
    shard.spawn(flush(shard.clone(), wal.clone(), Rc::clone(&groups), Rc::clone(&job))).detach();
    write(&shard, &wal, &groups, &job).await;
}

fn known(recovered: &Recovered, groups: u64) -> BTreeMap<u64, Group> {
    let mut known: BTreeMap<u64, Group> =
        (1..=groups).map(|group| (group, Group::default())).collect();
    for (owner, replica) in &recovered.replicas {
        let group = known.entry(owner.group.0).or_default();
        group.checkpoint = replica.checkpoint.as_ref().map_or(0, |(index, _, _)| index.0);
        group.entries =
            replica.entries.iter().map(|entry| u64::from(entry.location.length)).collect();
    }
    known
}

type Groups = Rc<RefCell<BTreeMap<u64, Group>>>;

async fn write(shard: &Shard, wal: &Wal, groups: &Groups, job: &Job) {
    loop {
        let mut bytes = 0;
        for _ in 0..1 + shard.random() % 8 {
            let group = 1 + shard.random() % job.groups;
            let length = match shard.random() % 64 {
                0 => shard.random() % wal.body_max_bytes(),
                1..=7 => shard.random() % job.options.get().frame_max_bytes,
                _ => shard.random() % 300,
            };
            let index = Index(groups.borrow()[&group].last() + 1);
            let body: &[&[u8]] = &[&vec![group as u8; length as usize]];
            let record = RecordRef::Append { owner: owner(group), index, term: TERM, body };
            match wal.append(record) {
                Ok(_) => {
                    let mut groups = groups.borrow_mut();
                    groups.get_mut(&group).expect("all are known").entries.push_back(length);
                    bytes += length;
                }
                Err(WalError::Exhausted) => {
                    *job.refused.borrow_mut() = format!("{:?}", wal.stats());
                    shard.sleep(Duration::from_millis(5)).await;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        wal.wait_durable(wal.newest()).await.expect("the disk has no errors");
        job.taken_bytes.set(job.taken_bytes.get() + bytes);
    }
}

async fn flush(shard: Shard, wal: Wal, groups: Groups, job: Rc<Job>) {
    loop {
        shard.sleep(Duration::from_millis(5)).await;
        if wal.pressure() == Pressure::None || job.disk_full.get() {
            continue;
        }
        let dirty: Vec<(u64, u64)> = {
            let mut groups = groups.borrow_mut();
            let flushable = groups.iter_mut().map(|(group, state)| (*group, state.flushable()));
            flushable.filter_map(|(group, upto)| Some((group, upto?))).collect()
        };
        if dirty.is_empty() && wal.pressure() == Pressure::Refusing {
            wal.nothing_to_flush();
        }
        for (group, upto) in dirty {
            let body: &[&[u8]] = &[&[0; 300]];
            let (owner, index) = (owner(group), Index(upto));
            let checkpoint = || RecordRef::Checkpoint { owner, index, term: TERM, body };
            while let Err(error) = wal.append(checkpoint()) {
                assert_eq!(error, WalError::Exhausted);
                shard.sleep(Duration::from_millis(10)).await;
            }
        }
        wal.wait_durable(wal.newest()).await.expect("the disk has no errors");
    }
}

fn pick(world: &World, low: u64, high: u64) -> u64 {
    low + world.random() % (high - low + 1)
}

fn settings(world: &World) -> WalOptions {
    // Now and then of another order of magnitude: what lives fills many files then.
    let file_bytes = pick(world, 16, 32) * 4096 * [1, 1, 4][world.random() as usize % 3];
    WalOptions {
        file_bytes,
        first_file_bytes: pick(world, 8, 16) * 4096,
        budget_bytes: pick(world, 4, 8) * file_bytes,
        frame_max_bytes: file_bytes / 2,
        flush: if world.random().is_multiple_of(2) { Flush::Dsync } else { Flush::Fdatasync },
        fill_ahead: !world.random().is_multiple_of(4),
    }
}

/// Rounds of work with a crash or a full disk in them, then calm.
fn run(seed: u64) -> Result<(), String> {
    let options = WorldOptions { disk_bytes: DISK_BYTES, ..WorldOptions::default() };
    let world = World::new(seed, options);
    let job = Rc::new(Job {
        options: Cell::new(settings(&world)),
        groups: pick(&world, 1, 8),
        disk_full: Cell::default(),
        taken_bytes: Cell::default(),
        refused: RefCell::default(),
    });
    let shared = Rc::clone(&job);
    let id = world.add_node("node", 1, move |shard| node(shard, Rc::clone(&shared)));
    for _ in 0..pick(&world, 2, 20) {
        world.run_for(Duration::from_millis(pick(&world, 1, 2_500)));
        match world.random() % 3 {
            0 => fill_disk(&world, id, &job),
            _ => crash(&world, id, &job),
        }
    }
    if !world.is_running(id) {
        world.restart(id);
    }
    let options = job.options.get();
    let goal = job.taken_bytes.get() + 3 * options.budget_bytes;
    let limit = Duration::from_secs(300);
    if !world.run_until(|_| job.taken_bytes.get() >= goal, limit) {
        let refused = job.refused.borrow();
        return Err(format!("data is refused for ever: {options:?} {refused}"));
    }
    Ok(())
}

/// Also of the next starts with other settings, both ways.
fn crash(world: &World, id: NodeId, job: &Job) {
    for _ in 0..pick(world, 1, 3) {
        if world.random().is_multiple_of(3) {
            job.options.set(settings(world));
        }
        let kind =
            if world.random().is_multiple_of(2) { CrashKind::Kill } else { CrashKind::PowerCut };
        world.crash(id, kind);
        world.restart(id);
        world.run_for(Duration::from_millis(pick(world, 0, 20)));
    }
}

fn fill_disk(world: &World, id: NodeId, job: &Job) {
    let space = world.disk(id).space();
    let used = space.total_bytes - space.available_bytes;
    job.disk_full.set(true);
    world.disk(id).set_capacity(used + pick(world, 0, 2 * job.options.get().file_bytes));
    world.run_for(Duration::from_millis(pick(world, 1, 3_000)));
    if world.random().is_multiple_of(3) {
        crash(world, id, job);
    }
    job.disk_full.set(false);
    world.disk(id).set_capacity(DISK_BYTES);
    if !world.is_running(id) {
        world.restart(id);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn data_is_taken_again_after_any_fault() {
    let first = number("CHRONIK_SEED").unwrap_or(0);
    let count = number("CHRONIK_WAL_SEEDS").unwrap_or(if first == 0 { 12 } else { 1 });
    let mut failed = 0;
    for seed in first..first + count {
        if let Err(violation) = run(seed) {
            failed += 1;
            println!("seed {seed}: {violation}");
            println!("replay with: CHRONIK_SEED={seed} cargo test -p chronik-wal --test room");
        }
    }
    assert_eq!(failed, 0, "of {count} seeds failed");
}
