//! A log whose budget is another one than at the start before, in the simulator: larger, smaller,
//! smaller than what lives, with records longer than its files can be.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use chronik_wal::{Index, Wal, WalError, WalOptions};
use rt::sim::{CrashKind, World, WorldOptions};
use rt::Shard;

use common::{checkpoint, entry, finish, open, open_with, owner, vote, OPTIONS};

/// Four files of 512 KiB.
const LARGE: WalOptions =
    WalOptions { file_bytes: 512 << 10, budget_bytes: 4 * (512 << 10), ..OPTIONS };

/// Appends so many bytes for a group, and makes them dead as room is needed. A log that takes no
/// more says so within the test's patience.
async fn pour(shard: &Shard, wal: &Wal, group: u64, bytes: u64) {
    let (mut index, mut taken, mut refused) = (1, 0, 0);
    while taken < bytes {
        match entry(wal, group, index, &[3; 8000]) {
            Ok(frame) => {
                wal.wait_durable(frame).await.expect("durable");
                (index, taken, refused) = (index + 1, taken + 8000, 0);
            }
            Err(error) => {
                assert_eq!(error, WalError::Exhausted);
                refused += 1;
                assert!(refused < 100, "data is refused for ever: {:?}", wal.stats());
                if index > 1 {
                    checkpoint(wal, group, index - 1).expect("a checkpoint");
                }
                wal.wait_durable(wal.newest()).await.expect("durable");
                wal.nothing_to_flush();
                shard.sleep(Duration::from_millis(10)).await;
            }
        }
    }
    checkpoint(wal, group, index - 1).expect("a checkpoint");
    wal.wait_durable(wal.newest()).await.expect("durable");
}

#[test]
fn a_record_longer_than_the_files_of_a_smaller_budget_holds_nothing_up() {
    rt::sim::run(1, |shard| async move {
        let long = vec![7; 300 << 10];
        let (wal, _) = open_with(&shard, LARGE).await.unwrap();
        let frame = entry(&wal, 1, 1, &long).unwrap();
        wal.wait_durable(frame).await.unwrap();
        wal.stop().await;
        let (wal, _) = open(&shard).await;
        let refused = entry(&wal, 1, 2, &long);
        assert!(matches!(refused, Err(WalError::TooLarge { .. })), "{refused:?}");
        pour(&shard, &wal, 2, 4 * OPTIONS.budget_bytes).await;
        assert!(wal.stats().relocated_records > 0);
        wal.stop().await;
        let (wal, _) = open(&shard).await;
        assert_eq!(wal.read_entry(owner(1), Index(1)).await.unwrap().unwrap(), long);
        // With it goes the reason for larger files than are configured.
        checkpoint(&wal, 1, 1).unwrap();
        pour(&shard, &wal, 3, OPTIONS.budget_bytes).await;
        wal.stop().await;
        let (wal, _) = open(&shard).await;
        pour(&shard, &wal, 4, 2 * OPTIONS.budget_bytes).await;
        assert!(wal.stats().file_bytes <= OPTIONS.budget_bytes, "{:?}", wal.stats());
    });
}

#[test]
fn many_records_of_a_larger_file_are_moved_to_smaller_ones() {
    rt::sim::run(1, |shard| async move {
        let (wal, _) = open_with(&shard, LARGE).await.unwrap();
        for group in 10..30 {
            entry(&wal, group, 1, &[group as u8; 20_000]).unwrap();
        }
        wal.wait_durable(wal.newest()).await.unwrap();
        wal.stop().await;
        let (wal, _) = open(&shard).await;
        pour(&shard, &wal, 2, 4 * OPTIONS.budget_bytes).await;
        for group in 10..30 {
            let body = wal.read_entry(owner(group), Index(1)).await.unwrap().unwrap();
            assert_eq!(body, vec![group as u8; 20_000]);
        }
    });
}

#[test]
fn what_lives_may_take_more_than_the_budget() {
    rt::sim::run(1, |shard| async move {
        let options = WalOptions { budget_bytes: 8 * LARGE.file_bytes, ..LARGE };
        let (wal, _) = open_with(&shard, options).await.unwrap();
        for group in 10..60 {
            entry(&wal, group, 1, &[group as u8; 20_000]).unwrap();
        }
        wal.wait_durable(wal.newest()).await.unwrap();
        wal.stop().await;
        let (wal, _) = open(&shard).await;
        pour(&shard, &wal, 2, 4 * OPTIONS.budget_bytes).await;
        assert!(wal.stats().used_bytes > OPTIONS.budget_bytes);
        for group in 10..60 {
            let body = wal.read_entry(owner(group), Index(1)).await.unwrap().unwrap();
            assert_eq!(body, vec![group as u8; 20_000]);
        }
        // It comes back into its budget when they have gone.
        for group in 10..60 {
            checkpoint(&wal, group, 1).unwrap();
        }
        pour(&shard, &wal, 3, 4 * OPTIONS.budget_bytes).await;
        assert!(wal.stats().file_bytes <= OPTIONS.budget_bytes, "{:?}", wal.stats());
    });
}

/// One record fills most of a file: nothing about it changes with a restart.
#[test]
fn a_file_full_of_what_lives_holds_nothing_up() {
    rt::sim::run(1, |shard| async move {
        let (wal, _) = open(&shard).await;
        let longest = vec![7; wal.body_max_bytes() as usize];
        entry(&wal, 1, 1, &longest).unwrap();
        pour(&shard, &wal, 2, 4 * OPTIONS.budget_bytes).await;
        assert_eq!(wal.read_entry(owner(1), Index(1)).await.unwrap().unwrap(), longest);
    });
}

/// Another budget makes the files that were only prepared go. The process is killed after each of
/// the steps, and no file is missed afterwards.
#[test]
fn a_start_with_another_budget_may_be_interrupted() {
    for operations in 1..60 {
        let starts = Rc::new(RefCell::new(0));
        let counted = Rc::clone(&starts);
        let world = World::new(operations, WorldOptions::default());
        let node = world.add_node("node", 1, move |shard| {
            *counted.borrow_mut() += 1;
            let start = *counted.borrow();
            async move {
                let many = WalOptions { budget_bytes: 16 * LARGE.file_bytes, ..LARGE };
                let options = if start <= 2 { many } else { OPTIONS };
                let (wal, recovered) = open_with(&shard, options).await.expect("the log opens");
                assert_eq!(recovered.report.damage, [], "{operations} operations");
                // The second one only begins a file, and one more is prepared.
                if start != 2 {
                    vote(&wal, 1, start, 0).unwrap();
                    wal.wait_durable(wal.newest()).await.unwrap();
                }
                // Files that are dead now are recycled.
                shard.sleep(Duration::from_secs(1)).await;
                wal.stop().await;
            }
        });
        finish(&world, node);
        world.restart(node);
        world.run_for(Duration::from_millis(500));
        world.crash(node, CrashKind::Kill);
        world.restart(node);
        let next = world.disk(node).operations() + operations;
        world.crash_at_disk_operation(node, next, CrashKind::Kill);
        finish(&world, node);
        for _ in 0..3 {
            world.restart(node);
            finish(&world, node);
        }
    }
}
