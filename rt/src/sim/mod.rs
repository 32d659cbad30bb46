//! The seeded simulator: whole clusters in one thread, under one seed and virtual time.
//!
//! A [`World`] holds nodes; a node is a machine with a disk and a network address that runs the
//! same main function on each of its shards, at first and after every restart. A client in a
//! test is just another node. The fault model stands in the headers of `disk` and `network`;
//! faults are switched on through [`Disk`] and the methods of [`World`], crashes happen at any
//! await point. The same seed gives the same run, to the last bit of [`World::trace_hash`].
//!
//! Outside the simulation: threads (`blocking` runs inline), real DNS, TLS randomness.

mod disk;
pub(crate) mod fs;
mod host;
pub(crate) mod net;
mod network;
mod pages;
mod world;

pub(crate) use host::Host;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use crate::{Instant, Mutation, Shard, Space};
use network::NetFaults;
use world::Inner;

/// A node of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// How a node goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashKind {
    /// The process dies; what it gave to the operating system survives.
    Kill,
    /// The machine dies; what was not synced is lost, kept or torn.
    PowerCut,
}

/// What a world is like at its start.
#[derive(Debug, Clone)]
pub struct WorldOptions {
    /// Size of every node's disk.
    pub disk_bytes: u64,
    /// Latencies and errors of every node's disk.
    pub disk: DiskFaults,
    /// One-way delay of a segment, from and to.
    pub net_delay_ns: (u64, u64),
    /// Chance that the arrival of a segment cuts its connection.
    pub net_cut_per_million: u32,
    /// Cut what is written into segments of any size, from one byte.
    pub net_fragment: bool,
    /// Tasks that a shard polls in one turn, at most; more is faster and less mixed.
    pub tasks_per_turn_max: u8,
}

impl Default for WorldOptions {
    fn default() -> WorldOptions {
        WorldOptions {
            disk_bytes: 16 << 30,
            disk: DiskFaults::default(),
            net_delay_ns: (20_000, 200_000),
            net_cut_per_million: 0,
            net_fragment: true,
            tasks_per_turn_max: 4,
        }
    }
}

impl WorldOptions {
    fn net_faults(&self) -> NetFaults {
        NetFaults {
            delay_ns: self.net_delay_ns,
            cut_per_million: self.net_cut_per_million,
            fragment: self.net_fragment,
        }
    }
}

/// Latencies and errors of a disk, from now on. What a power cut does needs no switch.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskFaults {
    /// Time of an operation, from and to; most lie near the lower end.
    pub read_ns: (u64, u64),
    pub write_ns: (u64, u64),
    pub sync_ns: (u64, u64),
    pub metadata_ns: (u64, u64),
    /// Added to every operation: a slow disk.
    pub slow_by_ns: u64,
    /// Chance of EIO.
    pub read_error_per_million: u32,
    pub write_error_per_million: u32,
    pub sync_error_per_million: u32,
    /// The next operation of the kind fails with this code.
    pub fail_next_read: Option<i32>,
    pub fail_next_write: Option<i32>,
    pub fail_next_sync: Option<i32>,
}

impl Default for DiskFaults {
    fn default() -> DiskFaults {
        DiskFaults {
            read_ns: (50_000, 400_000),
            write_ns: (60_000, 600_000),
            sync_ns: (100_000, 1_500_000),
            metadata_ns: (10_000, 100_000),
            slow_by_ns: 0,
            read_error_per_million: 0,
            write_error_per_million: 0,
            sync_error_per_million: 0,
            fail_next_read: None,
            fail_next_write: None,
            fail_next_sync: None,
        }
    }
}

/// A simulated world; dropping it ends all nodes.
pub struct World {
    inner: Rc<Inner>,
    options: WorldOptions,
    seed: u64,
}

impl World {
    pub fn new(seed: u64, options: WorldOptions) -> World {
        World { inner: Inner::new(seed, &options), options, seed }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds a node that runs `main` on each of its shards, now and after every restart. What its
    /// shards share they make with [`Shard::common`]. A shard ends when its main future returns.
    pub fn add_node<M, F>(&self, name: &str, shards: u16, main: M) -> NodeId
    where
        M: Fn(Shard) -> F + 'static,
        F: Future<Output = ()> + 'static,
    {
        let main = Rc::new(move |shard| Box::pin(main(shard)) as Pin<Box<dyn Future<Output = ()>>>);
        NodeId(self.inner.add_node(name, shards, &self.options, main) as u16)
    }

    /// The node's address; its name resolves to it on every node.
    pub fn address(&self, node: NodeId) -> IpAddr {
        self.inner.state.borrow().nodes[node.index()].ip
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.inner.now.get())
    }

    /// One turn of one shard, or one event, or a leap in time. False if nothing is left to do.
    pub fn step(&self) -> bool {
        self.inner.step(u64::MAX)
    }

    /// Runs for this long in virtual time.
    pub fn run_for(&self, duration: Duration) {
        let end = (self.now() + duration).as_nanos();
        while self.inner.now.get() <= end && self.inner.step(end) {}
        self.inner.now.set(self.inner.now.get().max(end));
    }

    /// Runs until the condition holds, and says whether it did before `limit` of virtual time had
    /// passed or everything stood still. The condition is looked at after every step.
    pub fn run_until(&self, mut done: impl FnMut(&World) -> bool, limit: Duration) -> bool {
        let end = (self.now() + limit).as_nanos();
        loop {
            if done(self) {
                return true;
            }
            if self.inner.now.get() > end || !self.inner.step(end) {
                return false;
            }
        }
    }

    /// Takes a node down, between two polls. What its disk does is said in `disk`.
    pub fn crash(&self, node: NodeId, kind: CrashKind) {
        self.inner.crash(node.index(), kind);
    }

    /// Starts a node again.
    ///
    /// # Panics
    /// If it runs.
    pub fn restart(&self, node: NodeId) {
        self.inner.start(node.index());
    }

    /// Gives the node another number of shards from its next start on.
    pub fn set_shards(&self, node: NodeId, shards: u16) {
        self.inner.state.borrow_mut().nodes[node.index()].shards = shards.max(1);
    }

    /// Not crashed, and some main future has not returned.
    pub fn is_running(&self, node: NodeId) -> bool {
        self.inner.state.borrow().nodes[node.index()].running
    }

    /// Crashes the node after so many more polls of its tasks: at any await point.
    pub fn crash_after_polls(&self, node: NodeId, polls: u64, kind: CrashKind) {
        self.inner.plan_crash_at_poll(node.index(), polls, kind);
    }

    /// Crashes the node when [`Disk::operations`] reaches this count: at every boundary of a
    /// write or sync, both when it is begun and when it is finished but not yet seen.
    pub fn crash_at_disk_operation(&self, node: NodeId, operation: u64, kind: CrashKind) {
        let node = &mut self.inner.state.borrow_mut().nodes[node.index()];
        node.crash_at_operation = Some((operation, kind));
    }

    /// The node's disk, as seen from outside.
    pub fn disk(&self, node: NodeId) -> Disk<'_> {
        Disk { world: self, node: node.index() }
    }

    /// Moves the node's wall clock.
    pub fn jump_wall_clock(&self, node: NodeId, ms: i64) {
        self.inner.state.borrow_mut().nodes[node.index()].wall_offset_ms += ms;
    }

    /// Sets the node's wall clock this far from the true time.
    pub fn set_wall_clock(&self, node: NodeId, offset_ms: i64) {
        self.inner.state.borrow_mut().nodes[node.index()].wall_offset_ms = offset_ms;
    }

    /// Holds back everything from one node to another until it is healed.
    pub fn block_link(&self, from: NodeId, to: NodeId) {
        self.inner.state.borrow_mut().net.blocked.insert((from.index(), to.index()));
    }

    /// Lets go of what was held back.
    pub fn heal_link(&self, from: NodeId, to: NodeId) {
        let mut state = self.inner.state.borrow_mut();
        let laters = state.net.heal(from.index(), to.index(), self.inner.now.get());
        for later in laters {
            state.segment(Some(later));
        }
    }

    /// Heals every link.
    pub fn heal_all(&self) {
        let blocked: Vec<_> = self.inner.state.borrow().net.blocked.iter().copied().collect();
        for (from, to) in blocked {
            self.heal_link(NodeId(from as u16), NodeId(to as u16));
        }
    }

    /// Resets all connections between two nodes, after a random part of the bytes in flight.
    pub fn cut_connections(&self, a: NodeId, b: NodeId) {
        let mut state = self.inner.state.borrow_mut();
        let state = &mut *state;
        state.net.cut(a.index(), b.index(), &mut state.rng);
    }

    /// Changes the delay and the chance of a cut, for segments sent from now on.
    pub fn set_network(&self, delay_ns: (u64, u64), cut_per_million: u32) {
        let faults = &mut self.inner.state.borrow_mut().net_faults;
        faults.delay_ns = delay_ns;
        faults.cut_per_million = cut_per_million;
    }

    /// Breaks the broker on purpose, on every node.
    pub fn set_mutation(&self, mutation: Mutation, on: bool) {
        let bits = self.inner.mutations.get();
        let bit = mutation.bit();
        self.inner.mutations.set(if on { bits | bit } else { bits & !bit });
    }

    /// A number from the world's generator, for a test's own choices.
    pub fn random(&self) -> u64 {
        self.inner.state.borrow_mut().rng.u64(..)
    }

    /// A hash of everything that has happened: equal for equal seeds.
    pub fn trace_hash(&self) -> u64 {
        self.inner.state.borrow().trace.value()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.inner.end();
    }
}

/// What a crash left of a disk: can be put into any node of any world, as often as asked.
pub struct DiskImage(disk::Disk);

/// The disk of a node, as seen from outside; it outlives the node's processes.
pub struct Disk<'w> {
    world: &'w World,
    node: usize,
}

impl Disk<'_> {
    fn with<T>(&self, act: impl FnOnce(&mut world::Node) -> T) -> T {
        act(&mut self.world.inner.state.borrow_mut().nodes[self.node])
    }

    pub fn faults(&self) -> DiskFaults {
        self.with(|node| node.faults.clone())
    }

    pub fn set_faults(&self, faults: DiskFaults) {
        self.with(|node| node.faults = faults);
    }

    /// A smaller capacity makes writes fail with ENOSPC.
    pub fn set_capacity(&self, bytes: u64) {
        self.with(|node| node.disk.capacity_bytes = bytes);
    }

    pub fn space(&self) -> Space {
        self.with(|node| node.disk.space())
    }

    /// Writes, syncs and directory changes since the world began, each counted twice: when it is
    /// begun and when it is finished.
    pub fn operations(&self) -> u64 {
        self.with(|node| node.operations)
    }

    /// What the disk would hold after a crash at this moment. The node goes on undisturbed, and
    /// `seed` alone decides what survives: a run can be cut at each of its boundaries at once.
    pub fn after(&self, kind: CrashKind, seed: u64) -> DiskImage {
        let mut rng = fastrand::Rng::with_seed(seed);
        self.with(|node| DiskImage(node.disk.after(kind, &mut rng)))
    }

    /// Puts a copy of `image` in the place of this disk.
    ///
    /// # Panics
    /// If the node has done anything with its disk in this life.
    pub fn replace(&self, image: &DiskImage) {
        // A disk at rest does not change by a kill: every copy is the same.
        let copy = image.0.after(CrashKind::Kill, &mut fastrand::Rng::with_seed(0));
        self.with(|node| {
            assert!(!node.running || node.operations == 0, "the disk of a running node");
            node.disk = copy;
        });
    }

    /// Puts a file of this content there, durably; one of the same name is replaced. False if its
    /// folder does not exist.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> bool {
        let path = path.as_ref();
        self.with(|node| {
            let dir = path.parent().map_or(Ok(disk::ROOT), |parent| node.disk.find(parent));
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let (Ok(dir), Some(name)) = (dir, name) else { return false };
            // It may not be there.
            let _ = node.disk.unlink(dir, &name);
            let made = node.disk.create_file(dir, &name).and_then(|open| {
                node.disk.write_now(open.inode, 0, bytes)?;
                node.disk.sync_dir(dir)?;
                node.disk.tamper(open.inode, |pages| pages.write(0, bytes))
            });
            made.is_ok()
        })
    }

    /// What a process would read now.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.with(|node| {
            let inode = node.disk.find(path.as_ref()).ok()?;
            let len = node.disk.size(inode).ok()?;
            node.disk.read(inode, 0, len as usize).ok()
        })
    }

    /// All files, by path.
    pub fn files(&self) -> Vec<PathBuf> {
        self.with(|node| node.disk.files())
    }

    /// Bit rot: inverts the bits of `mask` in one byte. False if there is no such byte.
    pub fn flip_bits(&self, path: impl AsRef<Path>, position: u64, mask: u8) -> bool {
        self.tamper(path.as_ref(), |pages| {
            if let [byte] = pages.read(position, 1)[..] {
                pages.write(position, &[byte ^ mask]);
            }
        })
    }

    /// Overwrites bytes behind everyone's back. False if there is no such file.
    pub fn overwrite(&self, path: impl AsRef<Path>, position: u64, bytes: &[u8]) -> bool {
        self.tamper(path.as_ref(), |pages| pages.write(position, bytes))
    }

    /// Cuts a file. False if there is no such file.
    pub fn truncate_file(&self, path: impl AsRef<Path>, len: u64) -> bool {
        self.tamper(path.as_ref(), |pages| pages.set_len(len.min(pages.len())))
    }

    fn tamper(&self, path: &Path, change: impl Fn(&mut pages::Pages)) -> bool {
        self.with(|node| {
            let inode = node.disk.find(path);
            inode.is_ok_and(|inode| node.disk.tamper(inode, change).is_ok())
        })
    }

    /// Removes a file, durably. False if there is no such file.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        self.with(|node| {
            let dir = path.parent().map_or(Ok(disk::ROOT), |parent| node.disk.find(parent));
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let (Ok(dir), Some(name)) = (dir, name) else { return false };
            node.disk.unlink(dir, &name).and_then(|()| node.disk.sync_dir(dir)).is_ok()
        })
    }
}

/// Runs a body on the one shard of a new world, and gives its value.
///
/// # Panics
/// If the body panics, can never go on, or takes more than a day of virtual time; the seed is
/// printed.
pub fn run<M, F, T>(seed: u64, main: M) -> T
where
    M: FnOnce(Shard) -> F + 'static,
    F: Future<Output = T> + 'static,
    T: 'static,
{
    let _seed = PrintSeed(seed);
    let world = World::new(seed, WorldOptions::default());
    let output = Rc::new(RefCell::new(None));
    let main = Cell::new(Some(main));
    let slot = Rc::clone(&output);
    world.add_node("node", 1, move |shard| {
        let body = main.take().map(|main| main(shard));
        let slot = Rc::clone(&slot);
        async move {
            if let Some(body) = body {
                let value = body.await;
                *slot.borrow_mut() = Some(value);
            }
        }
    });
    let done = world.run_until(|_| output.borrow().is_some(), Duration::from_secs(86_400));
    assert!(done, "the body waits for something that never happens (seed {seed})");
    let value = output.borrow_mut().take();
    match value {
        Some(value) => value,
        None => unreachable!("the condition held"),
    }
}

/// Runs a body for seeds `0..count`, or for the one in the environment variable `CHRONIK_SEED`.
/// A failing seed prints the command that replays it; `test` is what `cargo test` takes for it,
/// such as `-p chronik-wal power_cut`.
pub fn for_seeds(test: &str, count: u64, body: impl Fn(u64)) {
    struct Replay<'a>(&'a str, u64);
    impl Drop for Replay<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("replay with: CHRONIK_SEED={} cargo test {}", self.1, self.0);
            }
        }
    }
    let only = std::env::var("CHRONIK_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let replay = Replay(test, seed);
        body(seed);
        drop(replay);
    }
}

struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {}", self.0);
        }
    }
}
