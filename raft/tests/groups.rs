//! Groups of one voter over the real log, in the simulator: power cuts at any point, a failing
//! disk, a full log, many groups at once.
//!
//! `CHRONIK_SEED=n` runs one seed of the power-cut test.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use chronik_raft::driver::{Opened, ProposeError};
use chronik_raft::{
    Committed, Descriptor, EntryKind, Groups, GroupsOptions, Leadership, Machine, Payload, Proposal,
};
use rt::sim::{CrashKind, World, WorldOptions};
use rt::{Mutation, Shard, ShardId};
use wal::{Flush, GroupId, Identity, Index, Owner, Recovered, ReplicaId, Term, Wal, WalOptions};

const GROUPS: u64 = 5;
const SEEDS: u64 = 25;

fn owner(group: u64) -> Owner {
    Owner { group: GroupId(group), replica: ReplicaId(group + 100) }
}

fn small_log() -> WalOptions {
    WalOptions {
        file_bytes: 128 << 10,
        first_file_bytes: 64 << 10,
        budget_bytes: 6 * (128 << 10),
        frame_max_bytes: 32 << 10,
        flush: Flush::Fdatasync,
        fill_ahead: false,
    }
}

async fn open_log(shard: &Shard, options: WalOptions) -> (Wal, Recovered) {
    let dir = shard.create_dir("/data/wal").await.expect("the folder");
    let identity = Identity { node: [7; 16], shard: ShardId(0), generation: 1 };
    Wal::open(shard, dir, options, identity).await.expect("the log opens")
}

/// What the world outside knows: what was committed, and who led.
#[derive(Default)]
struct Model {
    committed: BTreeMap<(u64, Index), (Term, Bytes)>,
    terms: BTreeMap<u64, Term>,
    violation: Option<String>,
    lives: u64,
    found_again: u64,
}

impl Model {
    fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}

/// A machine that tells the world, and remembers for its own life.
struct Recorder {
    group: u64,
    model: Rc<RefCell<Model>>,
    entries: BTreeMap<Index, Committed>,
    leadership: Option<Leadership>,
    persisted: Index,
}

impl Recorder {
    fn new(group: u64, model: &Rc<RefCell<Model>>) -> Rc<RefCell<Recorder>> {
        Rc::new(RefCell::new(Recorder {
            group,
            model: model.clone(),
            entries: BTreeMap::new(),
            leadership: None,
            persisted: Index(0),
        }))
    }

    /// It leads and has everything that was committed before.
    fn is_serving(&self) -> bool {
        self.leadership.is_some_and(|leadership| {
            leadership.first_index.is_some_and(|first| self.entries.contains_key(&first))
        })
    }
}

impl Machine for Recorder {
    fn leadership(&mut self, leadership: Leadership) {
        self.leadership = Some(leadership);
        if leadership.is_leader {
            let mut model = self.model.borrow_mut();
            let before = model.terms.insert(self.group, leadership.term);
            if before >= Some(leadership.term) {
                model.violate(format!("group {} leads {} again", self.group, leadership.term));
            }
        }
    }

    fn truncated(&mut self, from: Index) {
        self.model.borrow_mut().violate(format!("group {} truncated from {from}", self.group));
    }

    fn committed(&mut self, entries: Vec<Committed>) {
        let mut model = self.model.borrow_mut();
        for entry in entries {
            if entry.index > self.persisted && matches!(entry.payload, Payload::Bytes(_)) {
                // Found by what follows a crash too, but later.
                model.violate(format!("group {}: {} is not durable", self.group, entry.index));
            }
            if let (EntryKind::Data, Payload::Bytes(bytes)) = (entry.kind, &entry.payload) {
                let known = (entry.term, bytes.clone());
                model.committed.insert((self.group, entry.index), known);
            }
            self.entries.insert(entry.index, entry);
        }
    }

    fn persisted(&mut self, index: Index) {
        self.persisted = index;
    }
}

struct Node {
    shard: Shard,
    groups: Groups,
    model: Rc<RefCell<Model>>,
    machines: BTreeMap<u64, Rc<RefCell<Recorder>>>,
}

impl Node {
    /// Opens log and groups, and waits until all of them serve.
    async fn start(shard: Shard, model: Rc<RefCell<Model>>, options: WalOptions) -> Node {
        let (wal, recovered) = open_log(&shard, options).await;
        let groups = Groups::new(&shard, wal, GroupsOptions::default());
        let mut machines = BTreeMap::new();
        for group in 1..=GROUPS {
            let machine = Recorder::new(group, &model);
            match recovered.replicas.get(&owner(group)) {
                Some(replica) => {
                    let opened = groups.open(owner(group), replica, machine.clone());
                    if opened != Ok(Opened::Running) {
                        model.borrow_mut().violate(format!("group {group}: {opened:?}"));
                    }
                }
                None => {
                    let voters = [owner(group).replica];
                    let (index, term) = (Index(5), Term(5));
                    let created =
                        groups.create(owner(group), &voters, index, term, machine.clone());
                    created.expect("a new group");
                }
            }
            machines.insert(group, machine);
        }
        groups.start();
        let node = Node { shard, groups, model, machines };
        while !node.machines.values().all(|machine| machine.borrow().is_serving()) {
            node.shard.sleep(Duration::from_millis(1)).await;
        }
        node.check(&recovered).await;
        node.model.borrow_mut().lives += 1;
        node
    }

    /// Everything that was ever committed above the checkpoint is given again, the same.
    async fn check(&self, recovered: &Recovered) {
        let known = self.model.borrow().committed.clone();
        for ((group, index), (term, payload)) in known {
            let replica = recovered.replicas.get(&owner(group));
            let checkpoint = replica.and_then(|replica| replica.checkpoint.as_ref());
            if checkpoint.is_some_and(|(checkpoint, ..)| *checkpoint >= index) {
                continue;
            }
            let entry = self.machines[&group].borrow().entries.get(&index).cloned();
            let body = match entry.filter(|entry| entry.term == term) {
                Some(_) => self.groups.read_payload(owner(group), index).await.expect("it reads"),
                None => None,
            };
            let mut model = self.model.borrow_mut();
            match body {
                Some(body) if body == payload => model.found_again += 1,
                _ => model.violate(format!("group {group} has lost entry {index}")),
            }
        }
    }

    /// Random work until the crash.
    async fn work(&self) {
        loop {
            let random = |below: u64| self.shard.random() % below;
            for _ in 0..1 + random(6) {
                let group = 1 + random(GROUPS);
                if random(60) == 0 {
                    self.checkpoint(group);
                } else {
                    let text = vec![random(256) as u8; 1 + random(900) as usize];
                    self.propose(group, Bytes::from(text));
                }
            }
            match random(4) {
                0 => self.shard.sleep(Duration::from_micros(random(3_000))).await,
                _ => self.shard.yield_now().await,
            }
        }
    }

    fn propose(&self, group: u64, text: Bytes) {
        let (left, right) = (text.slice(..text.len() / 2), text.slice(text.len() / 2..));
        let payload = [left, right];
        let descriptor = Descriptor { records: 1, ..Descriptor::default() };
        let proposal = Proposal { kind: EntryKind::Data, descriptor, payload: &payload };
        match self.groups.propose(GroupId(group), proposal) {
            Ok(_) => {}
            Err(ProposeError::LogFull | ProposeError::TooMuchUncommitted) => {
                (1..=GROUPS).for_each(|group| self.checkpoint(group));
            }
            Err(error) => self.model.borrow_mut().violate(format!("group {group}: {error}")),
        }
    }

    fn checkpoint(&self, group: u64) {
        let last = self.machines[&group]
            .borrow()
            .entries
            .last_key_value()
            .map(|(index, entry)| (*index, entry.term));
        if let Some((index, term)) = last {
            let written = self.groups.checkpoint(GroupId(group), index, term, b"app");
            if !matches!(written, Ok(Some(_))) {
                self.model.borrow_mut().violate(format!("group {group}: {written:?}"));
            }
        }
    }
}

/// One node through crashes. What was found broken, if anything.
fn life(seed: u64, mutation: Option<Mutation>) -> (Option<String>, u64, u64, u64) {
    let world = World::new(seed, WorldOptions::default());
    if let Some(mutation) = mutation {
        world.set_mutation(mutation, true);
    }
    let model: Rc<RefCell<Model>> = Rc::default();
    let outside = model.clone();
    let node = world.add_node("node", 1, move |shard| {
        let model = model.clone();
        async move { Node::start(shard, model, small_log()).await.work().await }
    });
    for _ in 0..8 {
        let kind =
            if world.random().is_multiple_of(2) { CrashKind::Kill } else { CrashKind::PowerCut };
        if world.random().is_multiple_of(2) {
            world.crash_after_polls(node, 1 + world.random() % 4_000, kind);
        } else {
            let operations = world.disk(node).operations() + 1 + world.random() % 300;
            world.crash_at_disk_operation(node, operations, kind);
        }
        world.run_until(|world| !world.is_running(node), Duration::from_secs(60));
        if outside.borrow().violation.is_some() {
            break;
        }
        assert!(!world.is_running(node), "seed {seed}: the crash did not come");
        world.restart(node);
    }
    world.run_for(Duration::from_millis(300));
    let trace_hash = world.trace_hash();
    drop(world);
    let model = outside.borrow();
    (model.violation.clone(), model.lives, model.found_again, trace_hash)
}

#[test]
fn nothing_committed_is_lost_in_power_cuts() {
    let one = std::env::var("CHRONIK_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = one.map_or(0..SEEDS, |seed| seed..seed + 1);
    let (mut lives, mut found_again) = (0, 0);
    for seed in seeds.clone() {
        let (violation, more_lives, more_found, _) = life(seed, None);
        assert_eq!(violation, None, "CHRONIK_SEED={seed}");
        lives += more_lives;
        found_again += more_found;
    }
    let seeds = seeds.count() as u64;
    assert!(lives >= 3 * seeds && found_again >= 100 * seeds, "{lives} lives, {found_again}");
}

#[test]
fn a_seed_gives_one_trace() {
    assert_eq!(life(3, None), life(3, None));
}

#[test]
fn an_empty_ready_reported_early_is_found() {
    let early = Some(Mutation::EmptyReadyReportedEarly);
    assert!((0..SEEDS).any(|seed| life(seed, early).0.is_some()));
}

/// Why the log failed, and what a proposal was answered then.
type Outcome = (String, Option<ProposeError>);

#[test]
fn a_failed_disk_ends_everything_and_says_so() {
    let world = World::new(1, WorldOptions::default());
    let model: Rc<RefCell<Model>> = Rc::default();
    let outcome: Rc<RefCell<Option<Outcome>>> = Rc::default();
    let told = outcome.clone();
    let node = world.add_node("node", 1, move |shard| {
        let (model, told) = (model.clone(), told.clone());
        async move {
            let node = Node::start(shard, model, small_log()).await;
            let reason = {
                let proposals = async {
                    loop {
                        let payload = [Bytes::from_static(b"x")];
                        let descriptor = Descriptor::default();
                        let kind = EntryKind::Data;
                        let proposal = Proposal { kind, descriptor, payload: &payload };
                        let _ = node.groups.propose(GroupId(1), proposal);
                        node.shard.sleep(Duration::from_millis(1)).await;
                    }
                };
                match rt::either(node.groups.failure(), proposals).await {
                    rt::Either::Left(reason) => reason,
                    rt::Either::Right(never) => never,
                }
            };
            let proposal =
                Proposal { kind: EntryKind::Data, descriptor: Descriptor::default(), payload: &[] };
            let refused = node.groups.propose(GroupId(1), proposal).err();
            *told.borrow_mut() = Some((reason, refused));
        }
    });
    world.run_for(Duration::from_millis(200));
    assert!(outcome.borrow().is_none());
    let mut faults = world.disk(node).faults();
    faults.fail_next_sync = Some(5);
    world.disk(node).set_faults(faults);
    assert!(world.run_until(|_| outcome.borrow().is_some(), Duration::from_secs(5)));
    let (reason, refused) = outcome.borrow_mut().take().expect("just seen");
    assert!(reason.contains("poisoned"), "{reason}");
    assert_eq!(refused, Some(ProposeError::LogFailed));
}

#[test]
fn a_full_log_refuses_data_until_checkpoints_make_room() {
    rt::sim::run(5, |shard| async move {
        let model: Rc<RefCell<Model>> = Rc::default();
        let node = Node::start(shard, model.clone(), small_log()).await;
        let payload = [Bytes::from(vec![1; 16 << 10])];
        let data = |kind| Proposal { kind, descriptor: Descriptor::default(), payload: &payload };
        let mut refused = None;
        for _ in 0..1_000 {
            match node.groups.propose(GroupId(1), data(EntryKind::Data)) {
                Ok(_) => node.shard.sleep(Duration::from_millis(2)).await,
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        assert_eq!(refused, Some(ProposeError::LogFull));
        let small = Proposal { payload: &[], ..data(EntryKind::Control(1)) };
        node.groups.propose(GroupId(1), small).expect("log starts have room still");
        node.shard.sleep(Duration::from_millis(20)).await;
        node.checkpoint(1);
        let mut waited_ms = 0;
        while node.groups.propose(GroupId(1), data(EntryKind::Data)).is_err() {
            node.shard.sleep(Duration::from_millis(1)).await;
            waited_ms += 1;
            assert!(waited_ms < 2_000, "no room was made");
        }
        assert_eq!(model.borrow().violation, None);
    });
}

#[test]
fn many_groups_start_in_a_few_frames() {
    rt::sim::run(6, |shard| async move {
        let model: Rc<RefCell<Model>> = Rc::default();
        let options = WalOptions::for_shards(256 << 20, 1);
        let (wal, _) = open_log(&shard, options).await;
        let groups = Groups::new(&shard, wal.clone(), GroupsOptions::default());
        let mut machines = Vec::new();
        for group in 1..=1_000 {
            let machine = Recorder::new(group, &model);
            let voters = [owner(group).replica];
            groups
                .create(owner(group), &voters, Index(5), Term(5), machine.clone())
                .expect("a new group");
            machines.push(machine);
        }
        groups.start();
        while !machines.iter().all(|machine| machine.borrow().is_serving()) {
            shard.sleep(Duration::from_micros(100)).await;
        }
        let frames = wal.stats().frames;
        assert!(frames <= 3, "{frames} frames");
        // Idle now: nothing is written any more, whatever the clock says.
        shard.sleep(Duration::from_secs(30)).await;
        let later = wal.stats().frames;
        assert!(later <= frames + 1, "{frames} frames, then {later}");
        assert_eq!(model.borrow().violation, None);
    });
}
