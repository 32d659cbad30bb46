//! One world under one seed: a broker, its clients, rounds of faults, and the judgement.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use chronik_bootstrap as bootstrap;
use rt::sim::{CrashKind, DiskFaults, NodeId, World, WorldOptions};
use rt::{Mutation, Shard};
use shards::config::Settings;
use shards::meta;
use shards::options::{FlushMode, Options};

use crate::clients::{self, Shared};
use crate::history::{History, Producer, PARTITIONS};

const PORT: u16 = 9092;
const EIO: i32 = 5;
const DISK_BYTES: u64 = 1 << 30;
/// Virtual time in which a broker without faults must have answered everything.
const LIMIT: Duration = Duration::from_secs(120);

/// What a run saw, and the hash of all that happened in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub trace: u64,
    pub acknowledged: usize,
    pub batches_read: u64,
    pub lives: u32,
}

/// Runs a seed; the error is the rule that was broken.
pub fn run(seed: u64, mutation: Option<Mutation>) -> Result<Report, String> {
    let options =
        WorldOptions { disk_bytes: DISK_BYTES, tasks_per_turn_max: 16, ..WorldOptions::default() };
    let world = World::new(seed, options);
    if let Some(mutation) = mutation {
        world.set_mutation(mutation, true);
    }
    let history = Shared::default();
    history.borrow_mut().committed = -1;
    history.borrow_mut().attempted = -1;
    let flush =
        if world.random().is_multiple_of(2) { FlushMode::Dsync } else { FlushMode::Fdatasync };
    let lives = history.clone();
    let main = move |shard: Shard| broker(shard, flush, lives.clone());
    let node = world.add_node("broker", below(&world, 1, 3) as u16, main);
    let address = SocketAddr::new(world.address(node), PORT);
    let mut stage = Stage { world, node, history, address, faulty: false, nodes: vec![node] };
    stage.add_clients();
    for _ in 0..below(&stage.world, 2, 5) {
        stage.round()?;
    }
    stage.end()
}

fn below(world: &World, low: u64, high: u64) -> u64 {
    low + world.random() % (high - low + 1)
}

/// A small log, so that its files are recycled within a run.
fn options(flush: FlushMode) -> Options {
    let mut options = Options::new(meta::NodeId(1), PathBuf::from("/data"));
    options.settings = [("num.partitions", "3"), ("offsets.topic.num.partitions", "2")]
        .iter()
        .fold(Settings::new(meta::NodeId(1)), |settings, (name, value)| {
            settings.with(name, value).expect("a known setting")
        });
    options.wal_flush = flush;
    options.wal_file_bytes = Some(128 << 10);
    options.wal_budget_bytes = 1 << 20;
    options.disk_reserve_bytes = 0;
    options
}

async fn broker(shard: Shard, flush: FlushMode, history: Shared) {
    if shard.id().0 == 0 {
        history.borrow_mut().lives += 1;
    }
    match bootstrap::start(&shard, &Arc::new(options(flush)), |_| {}).await {
        Ok(_broker) => std::future::pending::<()>().await,
        Err(error) => {
            history.borrow_mut().start_errors.push(error.to_string());
            shard.stop_node();
        }
    }
}

struct Stage {
    world: World,
    node: NodeId,
    history: Shared,
    address: SocketAddr,
    /// Errors of the disk are switched on: the node may stop by itself.
    faulty: bool,
    nodes: Vec<NodeId>,
}

impl Stage {
    fn add_client<F>(&mut self, main: impl Fn(Shard, SocketAddr, Shared) -> F + 'static)
    where
        F: std::future::Future<Output = ()> + 'static,
    {
        let (history, address) = (self.history.clone(), self.address);
        let name = format!("client {}", self.nodes.len());
        let run = move |shard: Shard| main(shard, address, history.clone());
        self.nodes.push(self.world.add_node(&name, 1, run));
    }

    fn add_clients(&mut self) {
        for number in 0..below(&self.world, 2, 5) as u32 {
            let idempotent = number % 3 != 2;
            let partition = number as i32 % PARTITIONS;
            let producer = Producer { partition, idempotent, ..Producer::default() };
            self.history.borrow_mut().producers.push(producer);
            self.history.borrow_mut().clients += 1;
            self.add_client(move |shard, address, history| {
                clients::producer(shard, address, number, history)
            });
        }
        for number in 0..2 {
            self.add_client(move |shard, address, history| {
                clients::consumer(shard, address, number, history)
            });
        }
        self.history.borrow_mut().clients += 1;
        self.add_client(clients::committer);
    }

    /// Runs until `done`, or for `time`; a node that panics goes down as a process would.
    fn drive(&mut self, time: Duration, done: impl Fn(&History) -> bool) -> Result<bool, String> {
        let end = self.world.now() + time;
        loop {
            let step = AssertUnwindSafe(|| {
                let over = |world: &World| {
                    let history = self.history.borrow();
                    world.now() >= end || history.violation.is_some() || done(&history)
                };
                self.world.run_until(over, time)
            });
            if let Err(panic) = catch_unwind(step) {
                let text = panic_text(&*panic);
                if !self.faulty {
                    return Err(format!("the broker panicked: {text}"));
                }
                self.world.crash(self.node, CrashKind::Kill);
                continue;
            }
            let history = self.history.borrow();
            if let Some(violation) = &history.violation {
                return Err(violation.clone());
            }
            match history.start_errors.first() {
                Some(error) if !self.faulty => return Err(format!("no start: {error}")),
                _ => {}
            }
            return Ok(done(&history));
        }
    }

    fn run_for(&mut self, ms: u64) -> Result<(), String> {
        self.drive(Duration::from_millis(ms), |_| false).map(|_| ())
    }

    /// Work, a fault in the middle of it, and what follows.
    fn round(&mut self) -> Result<(), String> {
        self.restart();
        let calm_ms = below(&self.world, 10, 500);
        self.run_for(calm_ms)?;
        match self.world.random() % 12 {
            0..5 => self.crash()?,
            5 => {
                for _ in 0..below(&self.world, 1, 6) {
                    self.cut();
                    let pause = below(&self.world, 1, 60);
                    self.run_for(pause)?;
                }
            }
            6 => self.with_faults(|faults| faults.slow_by_ns = 20_000_000)?,
            7 => self.disk_error(|faults| faults.fail_next_write = Some(EIO))?,
            8 => self.disk_error(|faults| faults.fail_next_sync = Some(EIO))?,
            9 => self.full_disk()?,
            10 => {
                let ms = below(&self.world, 0, 7_200_000) as i64 - 3_600_000;
                self.world.jump_wall_clock(self.node, ms);
            }
            _ => {
                self.world.set_network((20_000, 200_000), 2_000);
                self.run_for(300)?;
                self.world.set_network((20_000, 200_000), 0);
            }
        }
        Ok(())
    }

    fn cut(&self) {
        let place = self.world.random() as usize % (self.nodes.len() - 1);
        self.world.cut_connections(self.node, self.nodes[1 + place]);
    }

    fn kind(&self) -> CrashKind {
        match self.world.random() % 3 {
            0 => CrashKind::Kill,
            _ => CrashKind::PowerCut,
        }
    }

    /// A crash at any await point or step of the disk, and often another while it recovers.
    fn crash(&mut self) -> Result<(), String> {
        self.plan_crash(3000, 300);
        self.run_for(400)?;
        loop {
            let kind = self.kind();
            self.world.crash(self.node, kind);
            if self.world.random().is_multiple_of(4) {
                // Killed first, and then the power went.
                self.world.crash(self.node, CrashKind::PowerCut);
            }
            self.restart();
            if !self.world.random().is_multiple_of(3) {
                return Ok(());
            }
            self.plan_crash(400, 120);
            let recovering_ms = below(&self.world, 1, 60);
            self.run_for(recovering_ms)?;
        }
    }

    fn plan_crash(&self, polls: u64, operations: u64) {
        let kind = self.kind();
        if self.world.random().is_multiple_of(2) {
            let polls = below(&self.world, 0, polls);
            self.world.crash_after_polls(self.node, polls, kind);
        } else {
            let now = self.world.disk(self.node).operations();
            let at = now + below(&self.world, 1, operations);
            self.world.crash_at_disk_operation(self.node, at, kind);
        }
    }

    fn restart(&self) {
        if self.world.is_running(self.node) {
            return;
        }
        if self.world.random().is_multiple_of(4) {
            self.world.set_shards(self.node, below(&self.world, 1, 3) as u16);
        }
        self.world.restart(self.node);
    }

    fn with_faults(&mut self, set: impl Fn(&mut DiskFaults)) -> Result<(), String> {
        let mut faults = DiskFaults::default();
        set(&mut faults);
        self.world.disk(self.node).set_faults(faults);
        self.run_for(400)?;
        self.world.disk(self.node).set_faults(DiskFaults::default());
        Ok(())
    }

    /// The node must stop at a write or sync that fails, and start again from what is durable.
    fn disk_error(&mut self, set: impl Fn(&mut DiskFaults)) -> Result<(), String> {
        self.faulty = true;
        self.with_faults(set)?;
        // What was begun before the fault was switched off is answered.
        self.run_for(100)?;
        self.faulty = false;
        self.history.borrow_mut().start_errors.clear();
        self.restart();
        Ok(())
    }

    /// No space for a while: nothing is lost, nobody stops.
    fn full_disk(&mut self) -> Result<(), String> {
        let space = self.world.disk(self.node).space();
        let used = space.total_bytes - space.available_bytes;
        let left = below(&self.world, 0, 300_000);
        self.world.disk(self.node).set_capacity(used + left);
        let full_ms = below(&self.world, 50, 3000);
        let outcome = self.run_for(full_ms);
        self.world.disk(self.node).set_capacity(DISK_BYTES);
        outcome
    }

    /// Faults end; everybody finishes, the whole log is read and judged.
    fn end(mut self) -> Result<Report, String> {
        // Crashes that were planned and have not come about.
        self.world.crash_after_polls(self.node, u64::MAX / 2, CrashKind::Kill);
        self.world.crash_at_disk_operation(self.node, u64::MAX, CrashKind::Kill);
        self.restart();
        self.history.borrow_mut().finish = true;
        if !self.drive(LIMIT, |history| history.finished >= history.clients)? {
            let history = self.history.borrow();
            let (finished, clients) = (history.finished, history.clients);
            return Err(format!("{finished} of {clients} clients end: {}", history.progress()));
        }
        if self.world.random().is_multiple_of(2) {
            self.world.crash(self.node, CrashKind::PowerCut);
            self.restart();
        }
        self.history.borrow_mut().clients += 1;
        self.add_client(clients::last_reader);
        if !self.drive(LIMIT, |history| history.finished >= history.clients)? {
            return Err("the log cannot be read to its end".to_owned());
        }
        let history: Rc<RefCell<History>> = self.history.clone();
        let history = history.borrow();
        history.judge()?;
        Ok(Report {
            trace: self.world.trace_hash(),
            acknowledged: history.producers.iter().map(|p| p.acknowledged.len()).sum(),
            batches_read: history.fetched,
            lives: history.lives,
        })
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
