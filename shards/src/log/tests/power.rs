//! Power cuts and kills at any moment: what a checkpoint calls sealed is always there, byte for
//! byte, and everything committed can be read after a restart.

use std::panic::catch_unwind;
use std::time::Duration;

use rt::sim::{for_seeds, CrashKind, World, WorldOptions};
use rt::Mutation;

use super::*;

const PARTITIONS: i32 = 3;

/// A small generator of the test's own, so that its choices do not shift the world's.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % most
    }
}

/// Each partition's log start, which its own control entries would bring back.
type Starts = Rc<RefCell<BTreeMap<i32, Offset>>>;

async fn broker(shard: Shard, durable: Rc<Durable>, starts: Starts, lives: Rc<Cell<u64>>) {
    let life = lives.get();
    lives.set(life + 1);
    let mut dice = Dice(shard.random());
    let options = LogOptions {
        cache_bytes: 30_000 + dice.below(200_000),
        open_files_max: 3,
        maps_max: 2,
        dirty_bytes: 20_000,
        dirty_age: Duration::from_millis(20),
        writes_in_flight: 2,
        write_bytes: 8192,
        step_batches: 1 + dice.below(8) as usize,
        staged_min_bytes: 5_000,
    };
    let bench = Bench::start(shard.clone(), durable, options).await;
    let mut partitions = Vec::new();
    for number in 0..PARTITIONS {
        // Other settings in each life: a segment that is begun keeps its straddling batch.
        let segment_bytes = 10_000 + dice.below([60_000, 600_000][life as usize % 2]);
        let config = SegmentConfig { segment_bytes, ..small_segments() };
        let partition = bench.open(number, config).await;
        let start = starts.borrow().get(&number).copied().unwrap_or_default();
        partition.log.set_log_start(start);
        partition.election();
        partition.check_from(start, 5_000).await.expect("all of it is back after a restart");
        partitions.push(partition);
    }
    let flusher = bench.flusher.clone();
    shard.spawn(async move { flusher.run().await.expect("no fault is injected") }).detach();
    loop {
        let number = dice.below(PARTITIONS as u64) as usize;
        let partition = &partitions[number];
        match dice.below(100) {
            0..=1 => partition.election(),
            2..=3 => {
                let (start, end) = (partition.log.log_start(), partition.log.log_end());
                let to = Offset(start.0 + dice.below((end.0 - start.0) as u64 + 1) as i64);
                starts.borrow_mut().insert(number as i32, to.max(start));
                partition.log.set_log_start(to);
            }
            4..=6 => {
                let start = partition.log.log_start();
                let end = partition.log.log_end();
                let from = Offset(start.0 + dice.below((end.0 - start.0) as u64 + 1) as i64);
                partition.check_from(from, dice.below(20_000)).await.expect("readable");
            }
            7..=9 => shard.sleep(Duration::from_millis(dice.below(8))).await,
            10..=34 => {
                let payloads: Vec<usize> = (0..1 + dice.below(6))
                    .map(|_| match dice.below(3) {
                        0 => dice.below(1_500) as usize,
                        _ => 4_900 + dice.below(10_000) as usize,
                    })
                    .collect();
                let kept = if dice.below(5) == 0 { dice.below(6) as usize } else { usize::MAX };
                let hasty = shard.broken(Mutation::PointerBeforePayload);
                partition.pipeline(&payloads, dice.below(1000) as i64, kept, hasty).await;
            }
            35..=35 => {
                partition.batch(1 + dice.below(50) as u32, 30_000, dice.below(1000) as i64);
            }
            _ => {
                let bytes = dice.below(1_500) as usize;
                partition.batch(1 + dice.below(4) as u32, bytes, dice.below(1000) as i64);
            }
        }
        shard.yield_now().await;
    }
}

/// Every checkpoint's sealed bytes, straight from the disk, are those that were committed.
fn check_sealed(world: &World, node: rt::sim::NodeId, durable: &Rc<Durable>) {
    for checkpoint in durable.checkpoints.borrow().values() {
        let identity = checkpoint.identity;
        let log = LogCheckpoint::decode(&checkpoint.bytes, Some(&identity)).expect("valid");
        let Some(active) = log.active else { continue };
        let base = active.base_offset;
        let folder = format!("/data/topics/{}/{}", identity.topic_folder(), identity.partition);
        let path = format!("{folder}/{:020}.log", base.0);
        let found = world.disk(node).read_file(&path).expect("the active segment is there");
        let entries = durable.entries.borrow();
        let expected: Vec<u8> = entries[&identity.owner]
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Batch(batch) if batch.base_offset >= base => Some(bytes_of(batch)),
                _ => None,
            })
            .flatten()
            .take(active.written.0 as usize)
            .collect();
        let sealed = active.written.0 as usize;
        assert!(found[..sealed] == expected[..sealed], "sealed bytes of {path} changed");
    }
}

/// Answers how many batches were staged.
fn power_cuts(seed: u64, mutation: Option<Mutation>) -> u64 {
    let world = World::new(seed, WorldOptions::default());
    if let Some(mutation) = mutation {
        world.set_mutation(mutation, true);
    }
    let mut dice = Dice(seed ^ 0x5eed);
    let durable: Rc<Durable> = Rc::default();
    let (starts, lives): (Starts, _) = (Rc::default(), Rc::new(Cell::new(0)));
    let main = {
        let (durable, starts, lives) = (Rc::clone(&durable), Rc::clone(&starts), Rc::clone(&lives));
        move |shard| broker(shard, Rc::clone(&durable), Rc::clone(&starts), Rc::clone(&lives))
    };
    let node = world.add_node("broker", 1, main);
    for _ in 0..12 {
        let kind = if dice.below(3) == 0 { CrashKind::Kill } else { CrashKind::PowerCut };
        let operation = world.disk(node).operations() + 1 + dice.below(300);
        world.crash_at_disk_operation(node, operation, kind);
        let crashed = world.run_until(|w| !w.is_running(node), Duration::from_secs(3));
        if !crashed {
            world.crash(node, kind);
        }
        check_sealed(&world, node, &durable);
        world.restart(node);
    }
    world.run_for(Duration::from_millis(300));
    assert!(world.is_running(node));
    assert_eq!(lives.get(), 13);
    // Nothing stands in the way of a round, though it may have to wait until all is read again.
    let flushed = || durable.checkpoints.borrow().len() == PARTITIONS as usize;
    assert!(world.run_until(|_| flushed(), Duration::from_secs(30)), "rounds take place");
    assert!(world.is_running(node));
    durable.staged.get()
}

#[test]
fn what_a_checkpoint_seals_survives_power_cuts() {
    let staged = Cell::new(0);
    let seeds = std::env::var("CHRONIK_LOG_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for_seeds("-p chronik-shards what_a_checkpoint_seals", seeds.unwrap_or(40), |seed| {
        staged.set(staged.get() + power_cuts(seed, None));
    });
    println!("{} batches staged", staged.get());
    if std::env::var_os("CHRONIK_SEED").is_none() {
        assert!(staged.get() > 1_000, "{} batches staged", staged.get());
    }
}

/// Writes one batch to the first segment, in the first life or the next.
async fn first_flush(shard: Shard, durable: Rc<Durable>, done: Rc<Cell<bool>>) {
    let bench = Bench::start(shard, durable, LogOptions::default()).await;
    let partition = bench.open(0, small_segments()).await;
    if partition.log.log_end() == Offset(0) {
        partition.batch(1, 9_000, 1);
    }
    bench.flusher.round().await.expect("no fault is injected");
    done.set(true);
    std::future::pending().await
}

#[test]
fn a_folder_that_a_killed_process_made_is_there_after_a_power_cut() {
    let mut lives = 1;
    for seed in 0..200 {
        let world = World::new(seed, WorldOptions::default());
        let (durable, done): (Rc<Durable>, Rc<Cell<bool>>) = Default::default();
        let (known, switch) = (Rc::clone(&durable), Rc::clone(&done));
        let main = move |shard| first_flush(shard, Rc::clone(&known), Rc::clone(&switch));
        let node = world.add_node("broker", 1, main);
        let operation = world.disk(node).operations() + 1 + seed % 20;
        world.crash_at_disk_operation(node, operation, CrashKind::Kill);
        world.run_until(|w| !w.is_running(node) || done.get(), Duration::from_secs(3));
        if !world.is_running(node) {
            lives += 1;
            world.restart(node);
            world.run_until(|_| done.get(), Duration::from_secs(3));
        }
        assert!(done.get(), "seed {seed}: the batch is flushed");
        world.crash(node, CrashKind::PowerCut);
        check_sealed(&world, node, &durable);
    }
    assert!(lives > 50, "{lives} were killed before they had flushed");
}

#[test]
fn a_pointer_before_its_batch_is_seen() {
    let mutation = Some(Mutation::PointerBeforePayload);
    let found = (0..20).find(|seed| catch_unwind(|| power_cuts(*seed, mutation)).is_err());
    assert!(found.is_some());
}
