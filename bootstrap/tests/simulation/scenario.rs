//! One world under one seed: a broker, its clients, rounds of faults, and the judgement.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bootstrap::StartError;
use chronik_bootstrap as bootstrap;
use rt::sim::{CrashKind, NodeId, World, WorldOptions};
use rt::{Mutation, Shard};
use shards::config::Settings;
use shards::options::{FlushMode, Options};
use shards::{meta, node};

use crate::history::{History, Lane, Producer, Rule, Shared, Violation};
use crate::wire::{DELETED, KEPT};
use crate::{admin, audit, members, producers, readers};

const PORT: u16 = 9092;
pub const DISK_BYTES: u64 = 1 << 30;
/// So that some batches are staged, and most are not.
const STAGED_MIN_BYTES: u32 = 5_000;
/// Virtual time in which a broker without faults must have answered everything.
const LIMIT: Duration = Duration::from_secs(120);
/// The same for reading the whole log, which takes less than a second.
const AUDIT_LIMIT: Duration = Duration::from_secs(20);
/// What a stop in order may take for its segments.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Which faults a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    All,
    /// Kills and power cuts, close after each other: what mutations of the log must not survive.
    Crashes,
}

/// What a run has gone through, and the hash of all that happened in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    pub trace: u64,
    /// Records.
    pub acknowledged: u64,
    pub batches_read: u64,
    pub lives: u64,
    pub power_cuts: u64,
    pub kills: u64,
    pub stops: u64,
    pub failed_writes: u64,
    pub failed_syncs: u64,
    pub fail_stops: u64,
    pub full_disks: u64,
    pub clock_jumps: u64,
    pub cuts: u64,
    pub generations: u64,
    /// Records that were deleted.
    pub deleted: u64,
}

impl Report {
    pub fn add(&mut self, other: &Report) {
        for (sum, one) in self.counts_mut().into_iter().zip(other.counts()) {
            *sum.1 += one.1;
        }
    }

    pub fn counts(&self) -> [(&'static str, u64); 14] {
        let mut copy = *self;
        copy.counts_mut().map(|(name, count)| (name, *count))
    }

    fn counts_mut(&mut self) -> [(&'static str, &mut u64); 14] {
        [
            ("records acknowledged", &mut self.acknowledged),
            ("batches read", &mut self.batches_read),
            ("lives", &mut self.lives),
            ("power cuts", &mut self.power_cuts),
            ("kills", &mut self.kills),
            ("stops in order", &mut self.stops),
            ("failed writes", &mut self.failed_writes),
            ("failed syncs", &mut self.failed_syncs),
            ("fail-stops", &mut self.fail_stops),
            ("full disks", &mut self.full_disks),
            ("jumps of the clock", &mut self.clock_jumps),
            ("cut connections", &mut self.cuts),
            ("group generations", &mut self.generations),
            ("records deleted", &mut self.deleted),
        ]
    }
}

/// Runs a seed; the error is the rule that was broken.
pub fn run(seed: u64, faults: Faults, mutation: Option<Mutation>) -> Result<Report, Violation> {
    let stage = Stage::new(seed, faults, mutation);
    let history = stage.history.clone();
    let report = play(stage)?;
    history.borrow().judge_memory()?;
    Ok(report)
}

fn play(mut stage: Stage) -> Result<Report, Violation> {
    stage.add_clients();
    for _ in 0..stage.below(2, 5) {
        if let Err(violation) = stage.round() {
            return Err(stage.explain(violation));
        }
        if stage.history.borrow().suspicion.is_some() {
            break;
        }
    }
    stage.end()
}

/// A small log, so that its files are recycled within a run; short times, so that what happens
/// by time happens within it, and no sooner than the rules say.
fn options(flush: FlushMode, cache_bytes: u64) -> Options {
    let mut options = Options::new(meta::NodeId(1), PathBuf::from("/data"));
    options.settings = [
        ("offsets.topic.num.partitions", "2"),
        // Offsets are stamped by the broker's clock, which may jump by two hours.
        ("offsets.retention.minutes", "150"),
        ("offsets.retention.check.interval.ms", "400"),
        ("log.retention.check.interval.ms", "300"),
        ("group.min.session.timeout.ms", "500"),
        ("group.initial.rebalance.delay.ms", "100"),
        // A producer's clock may be ahead of the broker's by this much.
        ("log.message.timestamp.after.max.ms", "9223372036854775807"),
    ]
    .iter()
    .fold(Settings::new(meta::NodeId(1)), |settings, (name, value)| {
        settings.with(name, value).expect("a known setting")
    });
    options.wal_flush = flush;
    options.wal_file_bytes = Some(128 << 10);
    options.wal_budget_bytes = 1 << 20;
    options.cache_bytes = cache_bytes;
    options.staged_min_bytes = STAGED_MIN_BYTES;
    options.disk_reserve_bytes = 0;
    options
}

async fn broker(shard: Shard, options: Arc<Options>, history: Shared, stop: Rc<Cell<bool>>) {
    if shard.id().0 == 0 {
        history.borrow_mut().lives += 1;
    }
    match bootstrap::start(&shard, &options, |_| {}).await {
        Ok(broker) => {
            let partitions = broker.placement().partitions();
            history.borrow_mut().partitions.extend(partitions.iter().map(Rc::downgrade));
            while !stop.get() {
                shard.sleep(Duration::from_millis(10)).await;
            }
            node::stop(broker, STOP_LIMIT).await;
        }
        Err(error) => {
            let gives_up = matches!(
                error,
                StartError::Shard(
                    node::StartError::MetadataMissing | node::StartError::MetadataDamaged(_)
                )
            );
            history.borrow_mut().failed_starts.push((gives_up, error.to_string()));
            shard.stop_node();
        }
    }
}

pub struct Stage {
    pub world: World,
    pub node: NodeId,
    pub history: Shared,
    pub report: Report,
    pub faults: Faults,
    address: SocketAddr,
    /// Asks the broker to stop in order.
    pub stop: Rc<Cell<bool>>,
    /// A fault is switched on at which the broker may end itself, naming this error.
    pub may_fail_stop: Option<i32>,
    /// A fault is switched on at which it may refuse to start.
    pub may_not_start: bool,
    /// The broker's and the clients' nodes.
    pub nodes: Vec<NodeId>,
}

impl Stage {
    fn new(seed: u64, faults: Faults, mutation: Option<Mutation>) -> Stage {
        let options = WorldOptions {
            disk_bytes: DISK_BYTES,
            tasks_per_turn_max: 16,
            ..WorldOptions::default()
        };
        let world = World::new(seed, options);
        if let Some(mutation) = mutation {
            world.set_mutation(mutation, true);
        }
        let random = |below: u64| world.random() % below;
        let flush = if random(2) == 0 { FlushMode::Dsync } else { FlushMode::Fdatasync };
        let cache_bytes = if random(3) == 0 { 512 << 10 } else { 64 << 20 };
        let options = Arc::new(self::options(flush, cache_bytes));
        let (history, stop) = (Shared::default(), Rc::new(Cell::new(false)));
        let (lives, switch) = (history.clone(), stop.clone());
        let main = move |shard| broker(shard, options.clone(), lives.clone(), switch.clone());
        let node = world.add_node("broker", 1 + random(3) as u16, main);
        let address = SocketAddr::new(world.address(node), PORT);
        Stage {
            world,
            node,
            history,
            report: Report::default(),
            faults,
            address,
            stop,
            may_fail_stop: None,
            may_not_start: false,
            nodes: vec![node],
        }
    }

    pub fn below(&self, low: u64, high: u64) -> u64 {
        low + self.world.random() % (high - low + 1)
    }

    pub fn one_in(&self, chances: u64) -> bool {
        self.world.random().is_multiple_of(chances)
    }

    fn add_client<F>(
        &mut self,
        finishes: bool,
        main: impl Fn(Shard, SocketAddr, Shared) -> F + 'static,
    ) where
        F: Future<Output = ()> + 'static,
    {
        let (history, address) = (self.history.clone(), self.address);
        history.borrow_mut().clients += usize::from(finishes);
        let name = format!("client {}", self.nodes.len());
        let run = move |shard: Shard| main(shard, address, history.clone());
        self.nodes.push(self.world.add_node(&name, 1, run));
    }

    fn add_clients(&mut self) {
        for number in 0..self.below(2, 4) as u32 {
            let own = number as usize % KEPT;
            let mut places = vec![own];
            match self.below(0, 3) {
                0 => places.push((own + 1) % KEPT),
                1 => places.push(DELETED),
                _ => {}
            }
            let lanes = places.into_iter().map(|place| (place, Lane::default())).collect();
            let producer = Producer { idempotent: number % 3 != 2, lanes };
            self.history.borrow_mut().producers.push(producer);
            self.add_client(true, move |shard, address, history| {
                producers::run(shard, address, number, history)
            });
        }
        for number in 0..2 {
            self.add_client(false, move |shard, address, history| {
                readers::run(shard, address, number, history)
            });
        }
        self.add_client(true, admin::committer);
        if self.one_in(2) {
            self.add_client(true, admin::deleter);
        }
        if self.one_in(2) {
            for _ in 0..self.below(2, 4) {
                self.add_client(true, members::run);
            }
        }
        if self.one_in(3) {
            self.add_client(true, admin::churner);
        }
    }

    /// Runs until `done`, or for `time`; a node that panics goes down as a process would.
    pub fn drive(
        &mut self,
        time: Duration,
        done: impl Fn(&World, &History) -> bool,
    ) -> Result<bool, Violation> {
        let end = self.world.now() + time;
        loop {
            let step = AssertUnwindSafe(|| {
                let over = |world: &World| {
                    let history = self.history.borrow();
                    let broken = history.violation.is_some();
                    world.now() >= end || broken || done(world, &history)
                };
                self.world.run_until(over, time)
            });
            if let Err(panic) = catch_unwind(step) {
                let text = panic_text(&*panic);
                if !self.may_fail_stop.is_some_and(|error| is_fail_stop(&text, error)) {
                    return Err(Violation::new(Rule::Panicked, text));
                }
                self.report.fail_stops += 1;
                self.crash_with(CrashKind::Kill);
                continue;
            }
            let history = self.history.borrow();
            if let Some(violation) = &history.violation {
                return Err(violation.clone());
            }
            if let (Some((gives_up, error)), false) =
                (history.failed_starts.first(), self.may_not_start)
            {
                let rule = if *gives_up { Rule::Lost } else { Rule::NotStarted };
                return Err(Violation::new(rule, error));
            }
            return Ok(done(&self.world, &history));
        }
    }

    pub fn run_for(&mut self, ms: u64) -> Result<(), Violation> {
        self.drive(Duration::from_millis(ms), |_, _| false).map(|_| ())
    }

    pub fn crash_with(&mut self, kind: CrashKind) {
        self.world.crash(self.node, kind);
        match kind {
            CrashKind::Kill => self.report.kills += 1,
            CrashKind::PowerCut => self.report.power_cuts += 1,
        }
    }

    /// Starts the broker if it does not run, perhaps with another number of shards.
    pub fn restart(&self) {
        if self.world.is_running(self.node) {
            return;
        }
        if self.one_in(4) {
            self.world.set_shards(self.node, self.below(1, 3) as u16);
        }
        self.world.restart(self.node);
    }

    /// Faults end; everybody finishes, the whole log is read and judged, twice, with crashes and
    /// recoveries between.
    fn end(mut self) -> Result<Report, Violation> {
        self.end_faults();
        self.restart();
        self.history.borrow_mut().finish = true;
        let settled =
            |history: &History| history.finished >= history.clients || history.suspicion.is_some();
        let finished = match self.drive(LIMIT, |_, history| settled(history)) {
            Ok(finished) => finished,
            Err(violation) => return Err(self.explain(violation)),
        };
        let progress = self.history.borrow().progress();
        if self.one_in(2) {
            let kind = self.kind();
            self.crash_with(kind);
            self.restart();
        }
        let first = self.audit()?;
        let suspicion = self.history.borrow().suspicion.clone();
        if let Some(suspicion) = suspicion {
            return Err(Violation::new(Rule::Diverged, suspicion));
        }
        if !finished {
            return Err(Violation::new(Rule::Stuck, progress));
        }
        for _ in 0..self.below(1, 3) {
            let kind = self.kind();
            self.crash_with(kind);
            self.restart();
            // Now and then before it has recovered.
            let recovering_ms = self.below(0, 40);
            self.run_for(recovering_ms)?;
        }
        let second = self.audit()?;
        first.same(&second)?;
        self.report.trace = self.world.trace_hash();
        let history = self.history.borrow();
        self.report.acknowledged = history.acknowledged() as u64;
        self.report.batches_read = history.batches_read;
        self.report.lives = u64::from(history.lives);
        self.report.generations = history.owners.newest() as u64;
        self.report.deleted = history.floor(DELETED).log_start as u64;
        Ok(self.report)
    }

    /// Reads everything and judges it.
    fn audit(&mut self) -> Result<audit::Audit, Violation> {
        let before = self.history.borrow().audits.len();
        self.history.borrow_mut().audit_progress.clear();
        self.add_client(false, audit::run);
        if !self.drive(AUDIT_LIMIT, |_, history| history.audits.len() > before)? {
            let history = self.history.borrow();
            history.judge_unreadable()?;
            let progress = &history.audit_progress;
            let refused = &history.refused;
            let what = format!("the audit does not end; it is at {progress:?}; refused: {refused}");
            return Err(Violation::new(Rule::Stuck, what));
        }
        let history = self.history.borrow();
        let audit = history.audits[before].clone();
        history.judge(&audit)?;
        Ok(audit)
    }

    /// A violation that may have come from one that says more: if the log can still be read,
    /// what is missing in it is named.
    fn explain(&mut self, violation: Violation) -> Violation {
        if violation.rule != Rule::Stuck {
            return violation;
        }
        self.end_faults();
        self.restart();
        self.audit().err().unwrap_or(violation)
    }
}

/// Whether the broker ended itself as it must when the disk fails, and said what the disk said.
fn is_fail_stop(text: &str, error: i32) -> bool {
    let says_why =
        ["the write-ahead log has failed and the broker stops: ", "segments cannot be written: "];
    let cause = format!("(os error {error})");
    says_why.iter().any(|begin| text.starts_with(begin)) && text.contains(&cause)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
