//! What is on disk is not what was written: found, refused, never served; and failing disks.

use std::time::Duration;

use rt::sim::{NodeId, World, WorldOptions};

use super::*;
use crate::log::index::{encode_block, IndexEntry};

/// A world whose node filled several segments; then the disk is tampered with, and after a
/// restart `check` looks at the partition.
fn tampered<F>(
    tamper: impl FnOnce(&World, NodeId, &str),
    check: impl Fn(Bench, Partition) -> F + 'static,
) where
    F: std::future::Future<Output = ()> + 'static,
{
    let world = World::new(77, WorldOptions::default());
    let durable: Rc<Durable> = Rc::default();
    let (life, done) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let check = Rc::new(check);
    let node = {
        let (durable, life, done) = (Rc::clone(&durable), Rc::clone(&life), Rc::clone(&done));
        world.add_node("broker", 1, move |shard| {
            let (durable, done, check) = (Rc::clone(&durable), Rc::clone(&done), Rc::clone(&check));
            life.set(life.get() + 1);
            let life = life.get();
            async move {
                let options = LogOptions { cache_bytes: 0, ..LogOptions::default() };
                let bench = Bench::start(shard, durable, options).await;
                let partition = bench.open(0, small_segments()).await;
                if life == 1 {
                    for n in 0..100 {
                        partition.batch(2, 1_500, 1_000 + n * 10);
                    }
                    bench.flusher.round().await.expect("a round");
                } else {
                    check(bench, partition).await;
                }
                done.set(life);
            }
        })
    };
    assert!(world.run_until(|_| done.get() == 1, Duration::from_secs(10)));
    world.crash(node, rt::sim::CrashKind::PowerCut);
    let folder = format!("/data/topics/{}/0", identity(0).topic_folder());
    tamper(&world, node, &folder);
    world.restart(node);
    assert!(world.run_until(|_| done.get() == 2, Duration::from_secs(10)));
}

pub(super) fn damage_of(outcome: Result<(), ReadError>) -> (i64, Damage) {
    match outcome {
        Err(ReadError::Damaged { offset, fault, .. }) => (offset.0, fault),
        other => panic!("damage was not found: {other:?}"),
    }
}

const BATCH: u64 = 1_561;

#[test]
fn a_flipped_bit_in_a_batch_is_refused_and_its_neighbours_are_served() {
    // Byte 1000 is inside the payload; 0 to 7 the base offset, 12 to 15 the epoch: both outside
    // the checksum.
    for (at, fault) in [
        (1_000, Damage::Batch(BatchFault::Checksum)),
        (7, Damage::Batch(BatchFault::BaseOffset { found: 11, expected: 10 })),
        (15, Damage::Batch(BatchFault::Epoch { found: 4, expected: 5 })),
        (16, Damage::Batch(BatchFault::Magic(3))),
    ] {
        let flip = move |world: &World, node, folder: &str| {
            let file = format!("{folder}/00000000000000000000.log");
            assert!(world.disk(node).flip_bits(&file, 5 * BATCH + at, 1));
        };
        tampered(flip, move |bench, partition| {
            let fault = fault.clone();
            async move {
                let (offset, found) = damage_of(partition.check_from(Offset(0), 4_000).await);
                assert_eq!((offset, found), (10, fault));
                let (offset, _) = damage_of(partition.check_from(Offset(11), 4_000).await);
                assert_eq!(offset, 10);
                partition.check_from(Offset(14), 4_000).await.expect("behind the damage");
                assert_eq!(bench.context.stats().damaged_reads, 2);
            }
        });
    }
}

#[test]
fn a_lost_or_damaged_index_is_rebuilt() {
    let name = "00000000000000000000.index";
    let flip = move |world: &World, node, folder: &str| {
        assert!(world.disk(node).flip_bits(format!("{folder}/{name}"), 60, 8));
    };
    tampered(flip, |bench, partition| async move {
        partition.check_from(Offset(30), 4_000).await.expect("rebuilt");
        assert_eq!(bench.context.stats().index_rebuilds, 1);
        partition.check_from(Offset(31), 4_000).await.expect("from the new index");
        assert_eq!(bench.context.stats().index_rebuilds, 1);
    });
    let lose = move |world: &World, node, folder: &str| {
        assert!(world.disk(node).remove_file(format!("{folder}/{name}")));
    };
    tampered(lose, |_, partition| async move {
        partition.check_from(Offset(30), 4_000).await.expect("searched without");
    });
}

#[test]
fn an_index_that_leads_astray_is_not_believed() {
    // A valid block of another history: its checksum holds, its promises do not.
    let replace = |world: &World, node, folder: &str| {
        let wrong = IndexEntry {
            offset: Offset(4),
            position: Position(100),
            max_timestamp_before: 0,
            ordinal: 1,
        };
        let block = encode_block(Offset(0), 0, &[wrong]);
        let path = format!("{folder}/00000000000000000000.index");
        assert!(world.disk(node).overwrite(&path, 0, &block));
    };
    tampered(replace, |bench, partition| async move {
        partition.check_from(Offset(30), 4_000).await.expect("rebuilt");
        assert_eq!(bench.context.stats().index_rebuilds, 1);
        assert_eq!(bench.context.stats().damaged_reads, 0);
    });
}

#[test]
fn a_missing_or_short_segment_is_damage() {
    let remove = |world: &World, node, folder: &str| {
        assert!(world.disk(node).remove_file(format!("{folder}/00000000000000000000.log")));
    };
    tampered(remove, |_, partition| async move {
        let (offset, fault) = damage_of(partition.check_from(Offset(3), 4_000).await);
        assert_eq!((offset, fault), (3, Damage::Missing));
        partition.check_from(Offset(60), 4_000).await.expect("the others are served");
    });
    let cut = |world: &World, node, folder: &str| {
        let file = format!("{folder}/00000000000000000000.log");
        assert!(world.disk(node).truncate_file(&file, 10_000));
    };
    tampered(cut, |_, partition| async move {
        partition.check_from(Offset(0), 4_000).await.expect_err("cut");
        let policy = RetentionConfig { delete: true, retention_ms: 1, retention_bytes: -1 };
        let outcome = partition.log.retention(&policy).await.map(|_| ());
        assert!(matches!(damage_of(outcome), (0, Damage::Map(_))));
    });
}

/// No file says how long a segment was; that its neighbour begins further on does.
#[test]
fn a_segment_gone_from_among_others_is_damage() {
    for remove in [true, false] {
        let gone = Rc::new(Cell::new(0));
        let told = Rc::clone(&gone);
        let spoil = move |world: &World, node, folder: &str| {
            let files = world.disk(node).files();
            let logs = files.iter().filter(|path| {
                path.starts_with(folder) && path.extension().is_some_and(|end| end == "log")
            });
            let second = logs.min_by_key(|path| match base_of(path) {
                0 => i64::MAX,
                base => base,
            });
            let second = second.expect("several segments");
            told.set(base_of(second));
            assert!(match remove {
                true => world.disk(node).remove_file(second),
                false => world.disk(node).truncate_file(second, 0),
            });
        };
        tampered(spoil, move |_, partition| {
            let at = gone.get();
            async move {
                let (offset, fault) = damage_of(partition.check_from(Offset(at), 4_000).await);
                let gone = match remove {
                    true => fault == Damage::Truncated,
                    false => matches!(fault, Damage::Foreign(Foreign { found: None, .. })),
                };
                assert!(offset == at && gone, "at {offset}: {fault}");
                partition.check_from(Offset(150), 4_000).await.expect("the others are served");
            }
        });
    }
}

/// The last batch of a segment, whole but not of the length in offsets that its neighbour says, and
/// no map to tell that it is another's: readers would get what follows twice, or wait for ever.
#[test]
fn a_last_batch_that_ends_elsewhere_is_damage() {
    for records in [1, 3] {
        let replace = move |world: &World, node, folder: &str| {
            let disk = world.disk(node);
            let other = batch(48, records, FIRST_TERM.0 as i32, 1_000, &[7; 1_500]);
            assert_eq!(other.len() as u64, BATCH);
            let segment = format!("{folder}/00000000000000000000");
            assert!(disk.overwrite(format!("{segment}.log"), 24 * BATCH, &other));
            assert!(disk.remove_file(format!("{segment}.map")));
        };
        tampered(replace, move |_, partition| async move {
            let from = Offset(48 + i64::from(records == 1));
            let (offset, fault) = damage_of(partition.check_from(from, 4_000).await);
            let beyond = BatchFault::Beyond { found: 51, end: 50 };
            match records {
                1 => assert_eq!((offset, fault), (from.0, Damage::Truncated)),
                _ => assert_eq!((offset, fault), (from.0, Damage::Batch(beyond))),
            }
        });
    }
}

fn base_of(path: &std::path::Path) -> i64 {
    let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
    name.parse().expect("a segment's base offset")
}

#[test]
fn a_full_disk_is_waited_out_and_nothing_is_lost() {
    let world = World::new(5, WorldOptions { disk_bytes: 200_000, ..WorldOptions::default() });
    let (durable, done): (Rc<Durable>, _) = (Rc::default(), Rc::new(Cell::new(false)));
    let seen_full = Rc::new(Cell::new(false));
    let node = {
        let (done, seen_full) = (Rc::clone(&done), Rc::clone(&seen_full));
        world.add_node("broker", 1, move |shard| {
            let (durable, done, seen_full) =
                (Rc::clone(&durable), Rc::clone(&done), Rc::clone(&seen_full));
            async move {
                let options = LogOptions {
                    cache_bytes: 0,
                    dirty_age: Duration::from_millis(10),
                    ..LogOptions::default()
                };
                let bench = Bench::start(shard.clone(), durable, options).await;
                let partition = bench.open(0, small_segments()).await;
                let flusher = bench.flusher.clone();
                shard.spawn(async move { flusher.run().await.expect("no poison") }).detach();
                for _ in 0..300 {
                    partition.batch(1, 1_500, 1);
                    shard.sleep(Duration::from_millis(1)).await;
                }
                while bench.context.stats().full_disk_rounds == 0 {
                    shard.sleep(Duration::from_millis(10)).await;
                }
                assert!(bench.context.stats().disk_full);
                partition.check_from(Offset(0), 9_000).await.expect("reads go on");
                seen_full.set(true);
                while bench.context.stats().disk_full {
                    shard.sleep(Duration::from_millis(10)).await;
                }
                partition.check_from(Offset(0), 9_000).await.expect("all of it");
                assert!(partition.log.flushed() > Index(300));
                done.set(true);
            }
        })
    };
    assert!(world.run_until(|_| seen_full.get(), Duration::from_secs(60)));
    world.disk(node).set_capacity(16 << 20);
    assert!(world.run_until(|_| done.get(), Duration::from_secs(60)));
}

/// Space that is taken ahead is a convenience: what must be written comes first.
#[test]
fn no_room_is_made_for_staging_on_a_disk_that_is_short() {
    for (disk_bytes, is_short) in [(64 << 20, true), (256 << 20, false)] {
        let world = World::new(5, WorldOptions { disk_bytes, ..WorldOptions::default() });
        let staged = Rc::new(Cell::new(None));
        let told = Rc::clone(&staged);
        let node = world.add_node("broker", 1, move |shard| {
            let staged = Rc::clone(&told);
            async move {
                let options = LogOptions { staged_min_bytes: 5_000, ..LogOptions::default() };
                let bench = Bench::start(shard.clone(), Rc::default(), options).await;
                let config = SegmentConfig { segment_bytes: 1 << 20, ..small_segments() };
                let partition = bench.open(0, config).await;
                let mut count = 0;
                for _ in 0..10 {
                    count += partition.pipeline(&[20_000], 1, 1, false).await;
                    shard.sleep(Duration::from_millis(10)).await;
                }
                staged.set(Some(count));
            }
        });
        assert!(world.run_until(|_| staged.get().is_some(), Duration::from_secs(60)));
        assert_eq!(staged.get() == Some(0), is_short, "{:?} of 10 batches", staged.get());
        let space = world.disk(node).space();
        let used = space.total_bytes - space.available_bytes;
        assert!(!is_short || used < 1 << 20, "{used} bytes of a disk that is short");
    }
}

#[test]
fn a_failed_write_or_sync_poisons() {
    for (write, sync) in [(Some(libc_eio()), None), (None, Some(libc_eio()))] {
        let world = World::new(6, WorldOptions::default());
        let durable: Rc<Durable> = Rc::default();
        let kept = Rc::clone(&durable);
        let (ready, outcome) = (Rc::new(Cell::new(false)), Rc::new(RefCell::new(None)));
        let node = {
            let (ready, outcome) = (Rc::clone(&ready), Rc::clone(&outcome));
            world.add_node("broker", 1, move |shard| {
                let (durable, ready, outcome) =
                    (Rc::clone(&durable), Rc::clone(&ready), Rc::clone(&outcome));
                async move {
                    let bench = Bench::start(shard.clone(), durable, LogOptions::default()).await;
                    let partition = bench.open(0, small_segments()).await;
                    partition.batch(1, 9_000, 1);
                    ready.set(true);
                    shard.sleep(Duration::from_millis(50)).await;
                    *outcome.borrow_mut() = Some(bench.flusher.round().await);
                }
            })
        };
        assert!(world.run_until(|_| ready.get(), Duration::from_secs(1)));
        let faults = world.disk(node).faults();
        world.disk(node).set_faults(rt::sim::DiskFaults {
            fail_next_write: write,
            fail_next_sync: sync,
            ..faults
        });
        assert!(world.run_until(|_| outcome.borrow().is_some(), Duration::from_secs(5)));
        let outcome = outcome.borrow_mut().take();
        assert!(matches!(outcome, Some(Err(FlushError::Poisoned(_)))), "{outcome:?}");
        assert!(kept.checkpoints.borrow().is_empty(), "no checkpoint after a failure");
    }
}

fn libc_eio() -> i32 {
    5
}
