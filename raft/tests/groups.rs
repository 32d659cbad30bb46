//! Groups of one voter over the real log, in the simulator: power cuts at any point, a failing
//! disk, a full log, many groups at once.
//!
//! `CHRONIK_SEED=n` runs one seed of the power-cut test.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use chronik_raft::driver::{Opened, ProposeError};
use chronik_raft::{
    Appending, Committed, Descriptor, EntryKind, Groups, GroupsOptions, Leadership, Machine,
    Payload, PayloadRead, Proposal, Staged, Staging, STAGED_HEAD_MIN_BYTES,
};
use rt::sim::{CrashKind, World, WorldOptions};
use rt::{Mutation, Shard, ShardId};
use wal::{
    DiskError, Flush, GroupId, Identity, Index, Location, Owner, Pointer, Recovered, ReplicaId,
    Term, Wal, WalOptions,
};

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
    wal: Wal,
    groups: Groups,
    model: Rc<RefCell<Model>>,
    machines: BTreeMap<u64, Rc<RefCell<Recorder>>>,
}

impl Node {
    /// Opens log and groups, and waits until all of them serve.
    async fn start(shard: Shard, model: Rc<RefCell<Model>>, options: WalOptions) -> Node {
        let (wal, recovered) = open_log(&shard, options).await;
        let groups = Groups::new(&shard, wal.clone(), GroupsOptions::default());
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
        let node = Node { shard, wal, groups, model, machines };
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

/// A staging area whose payloads arrive when the test says so.
#[derive(Default)]
struct Slow {
    on_the_way: RefCell<Vec<rt::local::oneshot::Sender<Result<(), DiskError>>>>,
    placed: Cell<usize>,
}

/// Payloads from this length on are staged.
const LONG_BYTES: usize = 1_000;

impl Slow {
    fn arrive(&self) {
        for payload in self.on_the_way.take() {
            payload.send(Ok(())).expect("somebody waits");
        }
    }
}

impl Staging for Slow {
    fn min_bytes(&self) -> u32 {
        LONG_BYTES as u32
    }

    fn would_place(&self, _: &Appending<'_>) -> bool {
        true
    }

    fn place(&self, _: &Appending<'_>, payload: &[Bytes]) -> Option<Staged> {
        let payload = Bytes::from(payload.concat());
        let (sender, durable) = rt::oneshot();
        self.on_the_way.borrow_mut().push(sender);
        self.placed.set(self.placed.get() + 1);
        Some(Staged {
            pointer: Pointer { segment: 1, position: 0, length: payload.len() as u32, crc: 0 },
            edges: payload.slice(..STAGED_HEAD_MIN_BYTES),
            bytes: Rc::new(RefCell::new(Some(payload))),
            durable,
        })
    }

    fn truncated(&self, _: Index) {}

    fn read(&self, _: Index, _: Location, _: Pointer) -> PayloadRead {
        Box::pin(async { Err("nobody reads here".to_owned()) })
    }
}

impl Node {
    /// A node whose first group stages.
    async fn with_slow_payloads(shard: Shard) -> (Node, Rc<Slow>) {
        let node = Node::start(shard, Rc::default(), small_log()).await;
        let slow = Rc::new(Slow::default());
        node.groups.set_staging(GroupId(1), slow.clone());
        (node, slow)
    }

    /// The first bytes and the lengths of what was committed in a group, in order.
    fn committed(&self, group: u64) -> Vec<(u8, usize)> {
        let model = self.model.borrow();
        let of_group = model.committed.range((group, Index(0))..(group + 1, Index(0)));
        of_group.map(|(_, (_, payload))| (payload[0], payload.len())).collect()
    }
}

#[test]
fn a_payload_on_its_way_holds_up_its_own_group_only() {
    rt::sim::run(7, |shard| async move {
        let (node, slow) = Node::with_slow_payloads(shard).await;
        node.propose(1, Bytes::from(vec![1; LONG_BYTES]));
        node.propose(1, Bytes::from(vec![2; 10]));
        for number in 3..6 {
            node.propose(2, Bytes::from(vec![number; 10]));
            node.shard.sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(node.committed(2), [(3, 10), (4, 10), (5, 10)]);
        assert_eq!(node.committed(1), []);
        // A vote or a membership stands behind what was decided before it; a checkpoint need not.
        node.checkpoint(1);
        node.shard.sleep(Duration::from_millis(50)).await;
        node.propose(2, Bytes::from(vec![6; 10]));
        node.propose(1, Bytes::from(vec![7; LONG_BYTES + 1]));
        node.shard.sleep(Duration::from_millis(50)).await;
        assert_eq!(node.committed(2).len(), 4);
        assert_eq!((node.committed(1), slow.placed.get()), (vec![], 2));
        slow.arrive();
        node.shard.sleep(Duration::from_millis(50)).await;
        assert_eq!(node.committed(1), [(1, LONG_BYTES), (2, 10), (7, LONG_BYTES + 1)]);
        assert_eq!(node.model.borrow().violation, None);
    });
}

#[test]
fn what_waits_for_payloads_is_in_the_log_when_the_groups_are_closed() {
    rt::sim::run(8, |shard| async move {
        let (node, slow) = Node::with_slow_payloads(shard.clone()).await;
        let before = node.groups.status(GroupId(1)).expect("it runs").last_index;
        node.propose(1, Bytes::from(vec![1; LONG_BYTES]));
        node.propose(1, Bytes::from(vec![2; 10]));
        node.groups.close();
        let late = shard.spawn({
            let (shard, slow) = (shard.clone(), slow.clone());
            async move {
                shard.sleep(Duration::from_millis(30)).await;
                slow.arrive();
            }
        });
        node.wal.stop().await;
        late.await;
        let (_, recovered) = open_log(&shard, small_log()).await;
        let entries = &recovered.replicas[&owner(1)].entries;
        let found: Vec<_> = entries.iter().filter(|entry| entry.index > before).collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].pointer && !found[1].pointer);
    });
}

#[test]
fn what_waits_for_payloads_has_its_room_in_the_log() {
    rt::sim::run(9, |shard| async move {
        let (node, slow) = Node::with_slow_payloads(shard).await;
        let data = |bytes: usize| [Bytes::from(vec![1; bytes])];
        let propose = |payload: &[Bytes]| {
            let descriptor = Descriptor { records: 1, ..Descriptor::default() };
            let proposal = Proposal { kind: EntryKind::Data, descriptor, payload };
            node.groups.propose(GroupId(1), proposal)
        };
        propose(&data(LONG_BYTES)).expect("there is room");
        let refused = (0..10_000).find_map(|_| propose(&data(LONG_BYTES - 1)).err());
        assert_eq!(refused, Some(ProposeError::LogFull));
        slow.arrive();
        node.shard.sleep(Duration::from_millis(500)).await;
        assert!(node.committed(1).len() > 100);
        let stats = node.wal.stats();
        assert!(stats.used_bytes <= small_log().budget_bytes, "{stats:?}");
    });
}

/// A machine that holds the groups which hold it, as a partition of the broker does.
struct Knowing {
    _groups: Groups,
    _kept: Rc<()>,
}

impl Machine for Knowing {
    fn leadership(&mut self, _: Leadership) {}

    fn truncated(&mut self, _: Index) {}

    fn committed(&mut self, _: Vec<Committed>) {}

    fn persisted(&mut self, _: Index) {}
}

#[test]
fn nothing_of_a_shard_outlives_it_however_it_ends() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum End {
        Stop,
        Crash(CrashKind),
        Panic,
        World,
        /// Before anything has run.
        AtOnce,
    }
    let crashes = [CrashKind::Kill, CrashKind::PowerCut].map(End::Crash);
    for end in crashes.into_iter().chain([End::Stop, End::AtOnce, End::Panic, End::World]) {
        let world = World::new(10, WorldOptions::default());
        let outside = Rc::new(());
        let inside = outside.clone();
        let node = world.add_node("node", 1, move |shard| {
            let kept = inside.clone();
            async move {
                let (wal, _) = open_log(&shard, small_log()).await;
                let groups = Groups::new(&shard, wal, GroupsOptions::default());
                let machine = Knowing { _groups: groups.clone(), _kept: kept };
                let (voters, machine) = ([owner(1).replica], Rc::new(RefCell::new(machine)));
                let created = groups.create(owner(1), &voters, Index(5), Term(5), machine);
                created.expect("a new group");
                groups.start();
                if end == End::AtOnce {
                    return;
                }
                shard.sleep(Duration::from_secs(1)).await;
                match end {
                    End::Stop | End::AtOnce => {}
                    End::Panic => panic!("as asked"),
                    End::Crash(_) | End::World => std::future::pending().await,
                }
            }
        });
        let run = || world.run_for(Duration::from_secs(2));
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        assert_eq!(ran.is_err(), end == End::Panic);
        if let End::Crash(kind) = end {
            world.crash(node, kind);
        }
        if matches!(end, End::Crash(_) | End::Stop | End::AtOnce) {
            // Ours, and the one that the next life would be given.
            assert_eq!(Rc::strong_count(&outside), 2, "{end:?}: the node has ended");
        }
        drop(world);
        assert_eq!(Rc::strong_count(&outside), 1, "{end:?}: the world has ended");
    }
}
