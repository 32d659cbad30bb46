//! The inside of a simulated world: virtual time, events, nodes and the order of everything.
//!
//! One thread runs all shards of all nodes. Every choice comes from one generator, every effect
//! that lies in the future is an event in one ordered queue, and both feed the trace hash. No
//! user code (futures, their destructors) runs while the state is borrowed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use super::disk::Disk;
use super::host::Host;
use super::network::{Later, NetFaults, Network};
use super::{CrashKind, DiskFaults, WorldOptions};
use crate::local::oneshot;
use crate::shard::{Backend, Core};
use crate::task::{Queue, Remote};
use crate::time::Timers;
use crate::{Instant, Shard, ShardId};

type Main = Rc<dyn Fn(Shard) -> Pin<Box<dyn Future<Output = ()>>>>;

pub(crate) struct Inner {
    pub(super) now: Cell<u64>,
    pub(super) mutations: Cell<u32>,
    pub(super) state: RefCell<State>,
    /// The running shards, in the order of node and number.
    shards: RefCell<Vec<Rc<Core>>>,
    mains: RefCell<Vec<Main>>,
    /// Connections whose `AcceptedStream` was dropped before a shard adopted it.
    pub(super) orphans: Arc<Mutex<Vec<(u64, usize)>>>,
    tasks_per_turn_max: u8,
}

pub(super) struct State {
    pub(super) rng: fastrand::Rng,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    pub(super) trace: Trace,
    pub(super) nodes: Vec<Node>,
    pub(super) net: Network,
    pub(super) net_faults: NetFaults,
    wall_origin_ms: i64,
}

/// What an event does, given the time at which it happens.
type Act = Box<dyn FnOnce(&mut State, u64)>;

struct Event {
    /// The life of the node that this belongs to; void if that life has ended.
    owner: Option<(usize, u64)>,
    act: Act,
}

pub(super) struct Node {
    pub(super) name: String,
    /// Of the next life.
    pub(super) shards: u16,
    pub(super) ip: IpAddr,
    /// Counts lives; a handle of an earlier life does nothing.
    pub(super) life: u64,
    pub(super) running: bool,
    pub(super) powered: bool,
    pub(super) disk: Disk,
    pub(super) faults: DiskFaults,
    /// Writes, syncs and directory changes, each counted when begun and when finished.
    pub(super) operations: u64,
    pub(super) polls: u64,
    pub(super) wall_offset_ms: i64,
    crash_at_poll: Option<(u64, CrashKind)>,
    pub(super) crash_at_operation: Option<(u64, CrashKind)>,
    pub(super) crash_due: Option<CrashKind>,
    pub(super) stop_due: bool,
}

impl Node {
    /// Counts a step of the disk, and plans the crash that was asked for at it.
    pub(super) fn disk_step(&mut self) {
        self.operations += 1;
        if let Some((at, kind)) = self.crash_at_operation {
            if self.operations >= at {
                self.crash_at_operation = None;
                self.crash_due = Some(kind);
            }
        }
    }
}

/// A running hash of everything that happens.
pub(super) struct Trace(u64);

impl Trace {
    pub(super) fn value(&self) -> u64 {
        self.0
    }

    pub(super) fn add(&mut self, values: &[u64]) {
        for value in values {
            self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }

    pub(super) fn add_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(&[u64::from_le_bytes(word)]);
        }
        self.add(&[bytes.len() as u64]);
    }
}

impl State {
    /// Lets `act` happen at a time; void if the owner's life ends before.
    pub(super) fn at(
        &mut self,
        time: u64,
        owner: Option<(usize, u64)>,
        act: impl FnOnce(&mut State, u64) + 'static,
    ) {
        let id = self.next_event;
        self.next_event += 1;
        self.events.insert((time, id), Event { owner, act: Box::new(act) });
    }

    pub(super) fn segment(&mut self, later: Option<Later>) {
        let Some(Later { at, conn, to }) = later else { return };
        self.at(at, None, move |state, now| {
            state.trace.add(&[7, conn, to as u64, now]);
            let next = state.net.arrive(conn, to, now, &state.net_faults, &mut state.rng);
            state.segment(next);
        });
    }

    fn alive(&self, owner: Option<(usize, u64)>) -> bool {
        owner.is_none_or(|(node, life)| {
            let node = &self.nodes[node];
            node.running && node.life == life
        })
    }

    pub(super) fn wall_ms(&self, node: usize, now: u64) -> i64 {
        self.wall_origin_ms + (now / 1_000_000) as i64 + self.nodes[node].wall_offset_ms
    }
}

impl Inner {
    pub(super) fn new(seed: u64, options: &WorldOptions) -> Rc<Inner> {
        let state = State {
            rng: fastrand::Rng::with_seed(seed),
            events: BTreeMap::new(),
            next_event: 0,
            trace: Trace(seed),
            nodes: Vec::new(),
            net: Network::default(),
            net_faults: options.net_faults(),
            wall_origin_ms: 1_750_000_000_000,
        };
        Rc::new(Inner {
            // The clock does not begin at zero, as no real one does.
            now: Cell::new(1_000_000_000),
            mutations: Cell::new(0),
            state: RefCell::new(state),
            shards: RefCell::default(),
            mains: RefCell::default(),
            orphans: Arc::default(),
            tasks_per_turn_max: options.tasks_per_turn_max.max(1),
        })
    }

    pub(super) fn add_node(
        self: &Rc<Self>,
        name: &str,
        shards: u16,
        options: &WorldOptions,
        main: Main,
    ) -> usize {
        let number = {
            let mut state = self.state.borrow_mut();
            let number = state.nodes.len();
            state.nodes.push(Node {
                name: name.to_owned(),
                shards: shards.max(1),
                ip: IpAddr::V4(Ipv4Addr::new(
                    10,
                    0,
                    (number / 250) as u8,
                    (number % 250) as u8 + 1,
                )),
                life: 0,
                running: false,
                powered: true,
                disk: Disk::new(options.disk_bytes),
                faults: options.disk.clone(),
                operations: 0,
                polls: 0,
                wall_offset_ms: 0,
                crash_at_poll: None,
                crash_at_operation: None,
                crash_due: None,
                stop_due: false,
            });
            number
        };
        self.mains.borrow_mut().push(main);
        self.start(number);
        number
    }

    /// Begins a new life of a node that is down.
    pub(super) fn start(self: &Rc<Self>, number: usize) {
        let main = Rc::clone(&self.mains.borrow()[number]);
        let (count, life, seeds) = {
            let mut state = self.state.borrow_mut();
            let node = &mut state.nodes[number];
            assert!(!node.running, "node {} runs already", node.name);
            node.life += 1;
            node.running = true;
            node.powered = true;
            let (count, life) = (node.shards, node.life);
            state.trace.add(&[1, number as u64, life]);
            let seeds: Vec<u64> = (0..count).map(|_| state.rng.u64(..)).collect();
            (count, life, seeds)
        };
        let common = Arc::new(Mutex::new(BTreeMap::new()));
        for (id, seed) in seeds.into_iter().enumerate() {
            let remote = Remote::new(Box::new(|| {}));
            let core = Rc::new(Core {
                id: ShardId(id as u16),
                count,
                queue: Queue::new(remote),
                timers: RefCell::new(Timers::default()),
                rng: RefCell::new(fastrand::Rng::with_seed(seed)),
                common: Arc::clone(&common),
                backend: Backend::Sim(Host::new(Rc::clone(self), number, life)),
                ended: Cell::new(false),
            });
            let shard = Shard(Rc::clone(&core));
            let main = Rc::clone(&main);
            let body = async move {
                main(shard.clone()).await;
                shard.0.ended.set(true);
            };
            core.queue.spawn(body).detach();
            self.insert(number, core);
        }
    }

    fn insert(&self, number: usize, core: Rc<Core>) {
        let mut shards = self.shards.borrow_mut();
        let place = shards.partition_point(|other| node_of(other) <= number);
        shards.insert(place, core);
    }

    /// Ends a life: first the handles die, then the tasks are dropped.
    pub(super) fn crash(self: &Rc<Self>, number: usize, kind: CrashKind) {
        {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            let node = &mut state.nodes[number];
            if !node.running && (kind == CrashKind::Kill || !node.powered) {
                return;
            }
            let was_running = std::mem::replace(&mut node.running, false);
            node.life += 1;
            node.crash_due = None;
            node.stop_due = false;
            state.trace.add(&[2, number as u64, kind as u64]);
            let now = self.now.get();
            let silent = match kind {
                CrashKind::Kill => {
                    node.disk.kill(&mut state.rng);
                    None
                }
                CrashKind::PowerCut => {
                    node.powered = false;
                    node.disk.power_cut(&mut state.rng);
                    Some(now + state.rng.u64(1..=5) * 1_000_000_000)
                }
            };
            if was_running {
                let faults = state.net_faults.clone();
                let net = &mut state.net;
                let laters = net.node_down(number, silent, now, &faults, &mut state.rng);
                for later in laters {
                    state.segment(Some(later));
                }
            }
        }
        let dead: Vec<Rc<Core>> = {
            let mut shards = self.shards.borrow_mut();
            let (dead, alive) = shards.drain(..).partition(|core| node_of(core) == number);
            *shards = alive;
            dead
        };
        for core in dead {
            end(&core);
        }
        self.close_orphans();
    }

    /// One turn of one shard, or one event, or a leap in time no further than `end`. False if
    /// nothing is left to do until then.
    pub(super) fn step(self: &Rc<Self>, end: u64) -> bool {
        if self.run_event(self.now.get()) {
            self.crash_where_due();
            return true;
        }
        if let Some(core) = self.pick() {
            self.turn(&core);
            self.crash_where_due();
            return true;
        }
        let next_timer = {
            let shards = self.shards.borrow();
            let deadline = |core: &Rc<Core>| core.timers.borrow().next_deadline();
            shards.iter().filter_map(deadline).map(Instant::as_nanos).min()
        };
        let next_event = self.state.borrow().events.keys().next().map(|(time, _)| *time);
        match next_timer.into_iter().chain(next_event).min() {
            Some(time) if time <= end && time < u64::MAX => {
                self.now.set(self.now.get().max(time));
                true
            }
            _ => false,
        }
    }

    /// One of the shards that have something to do, chosen by the seed.
    fn pick(&self) -> Option<Rc<Core>> {
        let now = Instant::from_nanos(self.now.get());
        let is_ready = |core: &&Rc<Core>| {
            !core.queue.is_idle()
                || core.timers.borrow().next_deadline().is_some_and(|deadline| deadline <= now)
        };
        let shards = self.shards.borrow();
        let ready = shards.iter().filter(is_ready).count();
        if ready == 0 {
            return None;
        }
        let place = self.state.borrow_mut().rng.usize(..ready);
        shards.iter().filter(is_ready).nth(place).cloned()
    }

    fn run_event(&self, now: u64) -> bool {
        let mut state = self.state.borrow_mut();
        let due = match state.events.first_entry() {
            Some(entry) if entry.key().0 <= now => entry.remove(),
            _ => return false,
        };
        if state.alive(due.owner) {
            (due.act)(&mut state, now);
        } else {
            // What it holds may have destructors that look at the world.
            drop(state);
            drop(due.act);
        }
        true
    }

    /// Polls a few tasks of a shard.
    fn turn(self: &Rc<Self>, core: &Rc<Core>) {
        let number = node_of(core);
        let tasks = self.state.borrow_mut().rng.u8(1..=self.tasks_per_turn_max);
        let entered = core.queue.enter();
        core.queue.take_mail();
        fire_timers(core, Instant::from_nanos(self.now.get()));
        for _ in 0..tasks {
            {
                let mut state = self.state.borrow_mut();
                let cost = state.rng.u64(200..=1500);
                let now = self.now.get() + cost;
                self.now.set(now);
                state.trace.add(&[3, number as u64, u64::from(core.id.0), now]);
                let node = &mut state.nodes[number];
                node.polls += 1;
                if let Some((at, kind)) = node.crash_at_poll {
                    if node.polls > at {
                        node.crash_at_poll = None;
                        node.crash_due = Some(kind);
                    }
                }
                if node.crash_due.is_some() {
                    break;
                }
            }
            if !core.queue.run_one() || core.ended.get() {
                break;
            }
        }
        drop(entered);
        if core.ended.get() {
            self.retire(core);
        }
        // Before anyone asks what comes next.
        self.close_orphans();
    }

    /// A main future has returned: its shard ends, and with the last one the process.
    fn retire(self: &Rc<Self>, core: &Rc<Core>) {
        self.shards.borrow_mut().retain(|other| !Rc::ptr_eq(other, core));
        end(core);
        let number = node_of(core);
        if !self.shards.borrow().iter().any(|other| node_of(other) == number) {
            self.crash(number, CrashKind::Kill);
        }
    }

    fn crash_where_due(self: &Rc<Self>) {
        let due: Vec<(usize, CrashKind)> = {
            let state = self.state.borrow();
            let due = |(number, node): (usize, &Node)| {
                let stop = node.stop_due.then_some(CrashKind::Kill);
                node.crash_due.or(stop).map(|kind| (number, kind))
            };
            state.nodes.iter().enumerate().filter_map(due).collect()
        };
        for (number, kind) in due {
            self.crash(number, kind);
        }
    }

    pub(super) fn plan_crash_at_poll(&self, number: usize, polls: u64, kind: CrashKind) {
        let node = &mut self.state.borrow_mut().nodes[number];
        node.crash_at_poll = Some((node.polls + polls, kind));
    }

    fn close_orphans(&self) {
        let mut orphans = self.orphans.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if orphans.is_empty() {
            return;
        }
        let list = std::mem::take(&mut *orphans);
        drop(orphans);
        for (conn, side) in list {
            self.close_conn(conn, side);
        }
    }

    pub(super) fn close_conn(&self, conn: u64, side: usize) {
        let Ok(mut guard) = self.state.try_borrow_mut() else { return };
        let state = &mut *guard;
        let now = self.now.get();
        let later = state.net.close(conn, side, now, &state.net_faults, &mut state.rng);
        state.segment(later);
    }

    /// Drops every task of every node; ends the circle between shards and world.
    pub(super) fn end(self: &Rc<Self>) {
        let count = self.state.borrow().nodes.len();
        for number in 0..count {
            self.crash(number, CrashKind::Kill);
        }
        self.mains.borrow_mut().clear();
        let events = std::mem::take(&mut self.state.borrow_mut().events);
        drop(events);
    }

    pub(super) fn node_named(&self, name: &str) -> Option<IpAddr> {
        let state = self.state.borrow();
        state.nodes.iter().find(|node| node.name == name).map(|node| node.ip)
    }

    /// The node that an address belongs to, as seen from `from`.
    pub(super) fn node_at(state: &State, from: usize, address: SocketAddr) -> Option<usize> {
        if super::network::is_local(address.ip()) {
            return Some(from);
        }
        state.nodes.iter().position(|node| node.ip == address.ip())
    }
}

/// Makes a pair whose receiver waits for ever if the event that holds the sender is void.
pub(super) async fn answered<T>(receiver: oneshot::Receiver<T>) -> T {
    match receiver.await {
        Ok(value) => value,
        Err(_canceled) => std::future::pending().await,
    }
}

fn node_of(core: &Rc<Core>) -> usize {
    match &core.backend {
        Backend::Sim(host) => host.node(),
        Backend::Uring(_) => unreachable!("a world holds simulated shards"),
    }
}

fn fire_timers(core: &Rc<Core>, now: Instant) {
    loop {
        let waker = core.timers.borrow_mut().pop_due(now);
        match waker {
            Some(waker) => waker.wake(),
            None => break,
        }
    }
}

/// Drops all tasks of a shard that is no longer in the world's list.
fn end(core: &Rc<Core>) {
    let entered = core.queue.enter();
    core.ended.set(true);
    core.queue.drop_all();
    let wakers = core.timers.borrow_mut().clear();
    drop(wakers);
    drop(entered);
}
