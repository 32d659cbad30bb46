//! Three voters in one simulated world: real logs on simulated disks, frames over a simulated
//! network, power cuts and kills at any point, links that hold everything back.
//!
//! What must hold: a term has one leader, in one of its lives; an index has one committed entry,
//! on every node and after every crash; in the end everybody has everything that was committed.
//! Long payloads are staged, on a shelf that takes its time: every pointer that is recovered must
//! lead to its payload, also after entries were truncated and their places used anew. The mutations
//! that skip the durability of votes and of payloads must be found. Disks are slow and elections
//! quick here, so that votes are often not durable yet. `CHRONIK_SEED=n` runs one seed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chronik_raft::driver::{Opened, Outgoing, OutgoingPayload};
use chronik_raft::{
    staged_entry, transport, Appending, Committed, Descriptor, EntryKind, Groups, GroupsOptions,
    Leadership, Machine, Outbound, Payload, PayloadRead, Proposal, Staged, Staging,
    STAGED_HEAD_MIN_BYTES,
};
use rt::local::channel::{channel, Sender};
use rt::sim::{CrashKind, DiskFaults, NodeId, World, WorldOptions};
use rt::{ListenOptions, Mutation, Shard, ShardId};
use wal::{
    Flush, GroupId, Identity, Index, Location, Owner, Pointer, RecoveredReplica, ReplicaId, Term,
    Wal, WalOptions,
};

const NODES: u64 = 3;
const GROUP: GroupId = GroupId(1);
const PORT: u16 = 7000;
const SEEDS: u64 = 20;
/// Within so many seeds the mutation of votes is found.
const MUTATION_SEEDS: u64 = 200;
/// And so many for that of pointers.
const POINTER_SEEDS: u64 = 20;
/// Payloads from this length on are staged.
const LONG_BYTES: usize = 300;

/// What the world outside knows.
#[derive(Default)]
struct Model {
    /// Who leads a term, and in which of its lives.
    leaders: BTreeMap<Term, (u64, u64)>,
    committed: BTreeMap<Index, (Term, Bytes)>,
    applied: BTreeMap<u64, Index>,
    lives: BTreeMap<u64, u64>,
    /// Payloads that are staged, by node and index: what a crash leaves of them.
    shelves: BTreeMap<(u64, Index), Bytes>,
    /// Pointers that led to their payloads after a crash.
    followed: usize,
    violation: Option<String>,
}

impl Model {
    fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}

struct Recorder {
    node: u64,
    life: u64,
    model: Rc<RefCell<Model>>,
    leads: Cell<bool>,
}

impl Machine for Recorder {
    fn leadership(&mut self, leadership: Leadership) {
        self.leads.set(leadership.is_leader);
        if leadership.is_leader {
            let (own, term) = ((self.node, self.life), leadership.term);
            let mut model = self.model.borrow_mut();
            let leader = *model.leaders.entry(term).or_insert(own);
            if leader != own {
                model.violate(format!("DIVERGED: {leader:?} and {own:?} (node, life) lead {term}"));
            }
        }
    }

    fn truncated(&mut self, _: Index) {}

    fn committed(&mut self, entries: Vec<Committed>) {
        let mut model = self.model.borrow_mut();
        for entry in entries {
            let bytes = match entry.payload {
                Payload::Bytes(bytes) => bytes,
                Payload::Wal { .. } if entry.pointer.is_some() => {
                    model.shelves.get(&(self.node, entry.index)).cloned().unwrap_or_default()
                }
                // Enough to tell it from every other one.
                Payload::Wal { prefix } => prefix,
            };
            let own = (entry.term, bytes);
            let known = model.committed.entry(entry.index).or_insert_with(|| own.clone()).clone();
            let alike = known.1.starts_with(&own.1) || own.1.starts_with(&known.1);
            if known.0 != own.0 || !alike {
                let (node, index) = (self.node, entry.index);
                model.violate(format!("DIVERGED: {node} commits {own:?} at {index}: {known:?}"));
            }
            model.applied.insert(self.node, entry.index);
        }
    }

    fn persisted(&mut self, _: Index) {}
}

/// Where a node stages, in the middle of all disks: whatever index it is for, a payload is written
/// a while after it was placed, and over what was there.
struct Shelf {
    node: u64,
    shard: Shard,
    model: Rc<RefCell<Model>>,
}

impl Staging for Shelf {
    fn min_bytes(&self) -> u32 {
        LONG_BYTES as u32
    }

    fn would_place(&self, entry: &Appending<'_>) -> bool {
        // Now and then there is no room.
        !entry.index.0.is_multiple_of(5)
    }

    fn place(&self, entry: &Appending<'_>, payload: &[Bytes]) -> Option<Staged> {
        if !self.would_place(entry) {
            return None;
        }
        let payload = Bytes::from(payload.concat());
        let pointer = pointer_to(entry.index, &payload);
        let edges = payload.slice(..STAGED_HEAD_MIN_BYTES);
        let bytes = Rc::new(RefCell::new(None));
        let (sender, durable) = rt::oneshot();
        let (shard, model, cell) = (self.shard.clone(), self.model.clone(), bytes.clone());
        let key = (self.node, entry.index);
        let write = async move {
            shard.sleep(Duration::from_micros(shard.random() % 20_000)).await;
            model.borrow_mut().shelves.insert(key, payload.clone());
            *cell.borrow_mut() = Some(payload);
            let _ = sender.send(Ok(()));
        };
        self.shard.spawn(write).detach();
        Some(Staged { pointer, edges, bytes, durable })
    }

    fn truncated(&self, _: Index) {}

    fn read(&self, index: Index, _: Location, pointer: Pointer) -> PayloadRead {
        let found = self.model.borrow().shelves.get(&(self.node, index)).cloned();
        let found = found.filter(|payload| pointer_to(index, payload) == pointer);
        Box::pin(async move { found.ok_or_else(|| "another payload".to_owned()) })
    }
}

fn pointer_to(index: Index, payload: &Bytes) -> Pointer {
    let mix = |crc: u32, byte: &u8| crc.wrapping_mul(31).wrapping_add(u32::from(*byte));
    let (length, crc) = (payload.len() as u32, payload.iter().fold(7, mix));
    Pointer { segment: 1, position: index.0 * 4096, length, crc }
}

/// Every pointer that was recovered leads to its payload.
fn follow_pointers(node: u64, replica: &RecoveredReplica, model: &mut Model) {
    for entry in &replica.entries {
        let Some((pointer, _)) = staged_entry(entry) else { continue };
        let found = model.shelves.get(&(node, entry.index));
        if found.is_some_and(|payload| pointer_to(entry.index, payload) == pointer) {
            model.followed += 1;
        } else {
            model.violate(format!("LOST: {node} has no payload for its entry {}", entry.index));
        }
    }
}

/// Sends what the groups give out, one connection per peer; what cannot be sent is dropped.
struct Links {
    peers: BTreeMap<u64, Sender<Bytes>>,
    groups: Groups,
    shard: Shard,
}

impl Outbound for Links {
    fn send(&self, messages: Vec<Outgoing>) {
        let (groups, peers) = (self.groups.clone(), self.peers.clone());
        let sending = async move {
            for outgoing in messages {
                let to = outgoing.message.to;
                let Some(frame) = encode(&groups, outgoing).await else { continue };
                if let Some(peer) = peers.get(&to) {
                    let _ = peer.send_now(frame);
                }
            }
        };
        self.shard.spawn(sending).detach();
    }
}

async fn encode(groups: &Groups, outgoing: Outgoing) -> Option<Bytes> {
    let mut payloads = Vec::new();
    for payload in outgoing.payloads {
        payloads.push(match payload {
            OutgoingPayload::Memory(slices) => slices,
            OutgoingPayload::Wal(index) => {
                vec![groups.read_payload(outgoing.from, index).await.ok()??]
            }
        });
    }
    Some(transport::encode(outgoing.from.group, &outgoing.message, &payloads).concat().into())
}

fn options() -> WalOptions {
    WalOptions {
        file_bytes: 256 << 10,
        first_file_bytes: 64 << 10,
        budget_bytes: 16 * (256 << 10),
        frame_max_bytes: 32 << 10,
        flush: Flush::Fdatasync,
        fill_ahead: false,
    }
}

async fn node(
    shard: Shard,
    number: u64,
    peers: Rc<RefCell<Vec<IpAddr>>>,
    model: Rc<RefCell<Model>>,
) {
    let life = {
        let mut model = model.borrow_mut();
        let lives = model.lives.entry(number).or_default();
        *lives += 1;
        *lives
    };
    let dir = shard.create_dir("/data/wal").await.expect("the folder");
    let identity = Identity { node: [number as u8; 16], shard: ShardId(0), generation: 1 };
    let (wal, recovered) = Wal::open(&shard, dir, options(), identity).await.expect("the log");
    let tick = Duration::from_millis(10);
    let groups = Groups::new(&shard, wal, GroupsOptions { tick, ..GroupsOptions::default() });
    let owner = Owner { group: GROUP, replica: ReplicaId(number) };
    let leads = Cell::new(false);
    let machine =
        Rc::new(RefCell::new(Recorder { node: number, life, model: model.clone(), leads }));
    match recovered.replicas.get(&owner) {
        Some(replica) => {
            follow_pointers(number, replica, &mut model.borrow_mut());
            let opened = groups.open(owner, replica, machine.clone());
            if opened != Ok(Opened::Running) {
                return model.borrow_mut().violate(format!("LOST: {number} is {opened:?}"));
            }
        }
        None => {
            let voters: Vec<ReplicaId> = (1..=NODES).map(ReplicaId).collect();
            let created = groups.create(owner, &voters, Index(5), Term(5), machine.clone());
            created.expect("a new group");
        }
    }
    let shelf = Shelf { node: number, shard: shard.clone(), model: model.clone() };
    groups.set_staging(GROUP, Rc::new(shelf));
    groups.set_outbound(connect(&shard, number, &groups, &peers));
    shard.spawn(listen(shard.clone(), groups.clone())).detach();
    groups.start();
    loop {
        if machine.borrow().leads.get() {
            let padding = if shard.random().is_multiple_of(3) { LONG_BYTES } else { 1 };
            let text = format!("{number} {} {:padding$}.", shard.random() % 1000, "");
            let payload = [Bytes::from(text)];
            let descriptor = Descriptor { records: 1, ..Descriptor::default() };
            let proposal = Proposal { kind: EntryKind::Data, descriptor, payload: &payload };
            // Refused unless it leads still.
            let _ = groups.propose(GROUP, proposal);
        }
        shard.sleep(Duration::from_millis(shard.random() % 20)).await;
    }
}

/// A task per peer that keeps a connection to it.
fn connect(
    shard: &Shard,
    number: u64,
    groups: &Groups,
    peers: &Rc<RefCell<Vec<IpAddr>>>,
) -> Rc<dyn Outbound> {
    let mut senders = BTreeMap::new();
    for (peer, ip) in (1..).zip(peers.borrow().iter().copied()).filter(|(peer, _)| *peer != number)
    {
        let (sender, mut receiver) = channel::<Bytes>();
        senders.insert(peer, sender);
        let own = shard.clone();
        let sending = async move {
            loop {
                let Ok(stream) = own.connect(SocketAddr::new(ip, PORT)).await else {
                    own.sleep(Duration::from_millis(5)).await;
                    continue;
                };
                while let Some(frame) = receiver.recv().await {
                    if stream.write_all(&mut vec![frame]).await.is_err() {
                        break;
                    }
                }
            }
        };
        shard.spawn(sending).detach();
    }
    Rc::new(Links { peers: senders, groups: groups.clone(), shard: shard.clone() })
}

async fn listen(shard: Shard, groups: Groups) {
    let any = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), PORT);
    let listener = shard.listen(ListenOptions::new(any)).expect("listen");
    loop {
        let accepted = listener.accept().await.expect("accept");
        let (stream, groups) = (shard.adopt(accepted), groups.clone());
        let reading = async move {
            let mut buffer = BytesMut::with_capacity(64 << 10);
            while let Ok(1..) = stream.read_into(&mut buffer).await {
                while let Some(start) = buffer.get(..4) {
                    let start = start.try_into().expect("four bytes");
                    let length = transport::frame_bytes(start);
                    if buffer.len() < length {
                        break;
                    }
                    let frame = buffer.split_to(length).freeze();
                    groups.receive(transport::decode(&frame).expect("a peer's frame"));
                }
                buffer.reserve(64 << 10);
            }
        };
        shard.spawn(reading).detach();
    }
}

/// A cluster under one seed: elections and commits counted, or what is broken.
fn run(seed: u64, mutation: Option<Mutation>) -> Result<(usize, usize, usize, u64), String> {
    let disk = DiskFaults { sync_ns: (1_000_000, 60_000_000), ..DiskFaults::default() };
    let world = World::new(seed, WorldOptions { disk, ..WorldOptions::default() });
    if let Some(mutation) = mutation {
        world.set_mutation(mutation, true);
    }
    let model = Rc::new(RefCell::new(Model::default()));
    let peers = Rc::new(RefCell::new(Vec::new()));
    let nodes: Vec<NodeId> = (1..=NODES)
        .map(|number| {
            let (peers, model) = (peers.clone(), model.clone());
            let name = format!("node {number}");
            world.add_node(&name, 1, move |shard| node(shard, number, peers.clone(), model.clone()))
        })
        .collect();
    *peers.borrow_mut() = nodes.iter().map(|node| world.address(*node)).collect();
    let random = |below: u64| world.random() % below;
    for _ in 0..40 {
        advance(&world, &model, Duration::from_millis(random(250)))?;
        let node = nodes[random(NODES) as usize];
        let kind = if random(3) == 0 { CrashKind::Kill } else { CrashKind::PowerCut };
        match random(6) {
            0 => world.block_link(node, nodes[random(NODES) as usize]),
            1 => world.heal_all(),
            2 => world.crash_after_polls(node, random(2000), kind),
            3 => {
                let operations = world.disk(node).operations() + 1 + random(20);
                world.crash_at_disk_operation(node, operations, kind);
            }
            _ => world.crash(node, kind),
        }
        for node in &nodes {
            if !world.is_running(*node) && random(4) > 0 {
                world.restart(*node);
            }
        }
    }
    settle(&world, &nodes, &model)
}

fn advance(world: &World, model: &Rc<RefCell<Model>>, time: Duration) -> Result<(), String> {
    let end = world.now() + time;
    world.run_until(|world| world.now() >= end || model.borrow().violation.is_some(), time);
    model.borrow().violation.clone().map_or(Ok(()), Err)
}

/// Everything heals; then everybody comes to have what was committed, and more commits.
fn settle(
    world: &World,
    nodes: &[NodeId],
    model: &Rc<RefCell<Model>>,
) -> Result<(usize, usize, usize, u64), String> {
    world.heal_all();
    for node in nodes {
        world.crash_after_polls(*node, u64::MAX / 2, CrashKind::Kill);
        world.crash_at_disk_operation(*node, u64::MAX, CrashKind::Kill);
        if !world.is_running(*node) {
            world.restart(*node);
        }
    }
    let last = model.borrow().committed.keys().next_back().copied().unwrap_or(Index(5));
    model.borrow_mut().applied.clear();
    let all_have = |model: &Model| {
        model.applied.len() == nodes.len() && model.applied.values().all(|index| *index > last)
    };
    world.run_until(
        |_| model.borrow().violation.is_some() || all_have(&model.borrow()),
        Duration::from_secs(60),
    );
    let model = model.borrow();
    if let Some(violation) = &model.violation {
        return Err(violation.clone());
    }
    if !all_have(&model) {
        return Err(format!("STUCK: {last} was committed; applied: {:?}", model.applied));
    }
    Ok((model.leaders.len(), model.committed.len(), model.followed, world.trace_hash()))
}

#[test]
fn three_voters_agree_through_crashes() {
    let (leaders, commits, followed) = (Cell::new(0), Cell::new(0), Cell::new(0));
    rt::sim::for_seeds("-p chronik-raft --test cluster three_voters", SEEDS, |seed| {
        let ran = run(seed, None).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        leaders.set(leaders.get() + ran.0);
        commits.set(commits.get() + ran.1);
        followed.set(followed.get() + ran.2);
    });
    let counts = (leaders.get(), commits.get(), followed.get());
    println!("{} elections, {} commits, {} pointers followed", counts.0, counts.1, counts.2);
    if std::env::var_os("CHRONIK_SEED").is_none() {
        assert!(followed.get() > 100 * SEEDS as usize);
        assert!(leaders.get() > 5 * SEEDS as usize && commits.get() > 100 * SEEDS as usize);
    }
}

#[test]
fn a_seed_gives_one_trace() {
    for seed in 0..3 {
        assert_eq!(run(seed, None), run(seed, None), "seed {seed}");
    }
}

#[test]
fn votes_that_are_not_durable_are_found() {
    is_found(Mutation::SkipVoteSync, MUTATION_SEEDS, "DIVERGED");
}

#[test]
fn pointers_before_their_payloads_are_found() {
    is_found(Mutation::PointerBeforePayload, POINTER_SEEDS, "LOST");
}

fn is_found(mutation: Mutation, seeds: u64, rule: &str) {
    let found = (0..seeds).find_map(|seed| {
        let violation = run(seed, Some(mutation)).err()?;
        violation.starts_with(rule).then_some((seed, violation))
    });
    let (seed, violation) = found.expect("the mutation is found");
    println!("{mutation:?} within {seeds}: seed {seed}: {violation}");
}
