//! What the log does, in the simulator: group commit, confirmation, budget, recycling, damage,
//! faults of the disk, stopping.

mod common;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use chronik_wal::inspect::{inspect, InspectOptions};
use chronik_wal::{
    Damage, DiskError, FileSequence, Flush, FrameNumber, Index, Pointer, Pressure, RecordRef,
    Recovered, Term, Wal, WalError, WalOptions,
};
use rt::sim::{CrashKind, NodeId, World, WorldOptions};
use rt::Shard;

use common::{checkpoint, entry, finish, identity, open, open_with, owner, vote, OPTIONS};

/// A pointer for an entry, whose payload is durable when the sender says so.
fn pointer(
    wal: &Wal,
    index: u64,
) -> (FrameNumber, rt::local::oneshot::Sender<Result<(), DiskError>>) {
    let (sender, payload) = rt::oneshot();
    let pointer = Pointer { segment: 1, position: 4096, length: 300_000, crc: 9 };
    let (owner, index, prefix): (_, _, &[&[u8]]) = (owner(1), Index(index), &[b"edges"]);
    let record = RecordRef::Pointer { owner, index, term: Term(5), pointer, prefix };
    (wal.append_pointer(record, payload).expect("there is room").frame, sender)
}

#[test]
fn a_frame_waits_for_the_payloads_it_points_to() {
    rt::sim::run(1, |shard| async move {
        let (wal, _) = open(&shard).await;
        let (frame, second) = pointer(&wal, 1);
        assert_eq!(entry(&wal, 2, 1, b"in the same frame").unwrap(), frame);
        shard.sleep(Duration::from_secs(1)).await;
        let later = entry(&wal, 3, 1, b"in the next frame").unwrap();
        assert!(later > frame, "the frame that waits takes no more records");
        shard.sleep(Duration::from_secs(1)).await;
        assert!(wal.durable() < frame);
        shard.sleep(Duration::from_secs(1)).await;
        assert!(wal.stalled().is_some(), "a payload that takes long is a slow disk");
        second.send(Ok(())).unwrap();
        wal.wait_durable(later).await.unwrap();
        let body = wal.read_entry(owner(1), Index(1)).await.unwrap().expect("it lives");
        assert_eq!(&body[24..], b"edges");
    });
}

#[test]
fn a_payload_that_fails_poisons_the_log() {
    rt::sim::run(1, |shard| async move {
        for given_up in [false, true] {
            let dir = shard.create_dir(format!("/data/{given_up}")).await.unwrap();
            let (wal, _) = Wal::open(&shard, dir, OPTIONS, identity()).await.unwrap();
            let (frame, sender) = pointer(&wal, 1);
            match given_up {
                true => drop(sender),
                false => sender.send(Err(std::io::Error::other("broken").into())).unwrap(),
            }
            assert!(matches!(wal.wait_durable(frame).await, Err(WalError::Poisoned(_))));
        }
    });
}

#[test]
fn records_of_one_turn_share_a_frame_and_come_back() {
    rt::sim::run(1, |shard| async move {
        let (wal, recovered) = open(&shard).await;
        assert!(recovered.report.fresh);
        let mut frames = Vec::new();
        for group in 1..=50 {
            frames.push(entry(&wal, group, 1, &[group as u8; 100]).unwrap());
        }
        assert_eq!(frames[0], frames[49], "one frame for all groups of a turn");
        let frame = wal.next_durable().await.unwrap();
        assert_eq!(frame.number, frames[0]);
        assert_eq!(wal.durable(), frames[0]);
        let placed = wal
            .append(RecordRef::Append {
                owner: owner(1),
                index: Index(2),
                term: Term(5),
                body: &[b"head", b"payload"],
            })
            .unwrap();
        let frame = wal.next_durable().await.unwrap();
        let start = placed.offset as usize;
        assert_eq!(&frame.bytes[start..start + placed.length as usize], b"headpayload");
        assert_eq!(&wal.read(placed.location).await.unwrap()[..], b"headpayload");
        wal.stop().await;
        assert_eq!(entry(&wal, 1, 3, b"x"), Err(WalError::Stopped));
        let (wal, recovered) = open(&shard).await;
        assert!(recovered.report.stopped && !recovered.report.fresh);
        assert_eq!(recovered.replicas.len(), 50);
        let first = &recovered.replicas[&owner(1)];
        assert_eq!(first.entries.len(), 2);
        assert_eq!(&first.entries[1].prefix[..], b"headpayload");
        assert_eq!(&wal.read(first.entries[1].location).await.unwrap()[..], b"headpayload");
    });
}

#[test]
fn a_burst_is_split_and_what_gathers_meanwhile_goes_out_together() {
    rt::sim::run(2, |shard| async move {
        let (wal, _) = open(&shard).await;
        let first = entry(&wal, 1, 1, &[1; 10]).unwrap();
        shard.yield_now().await;
        shard.yield_now().await;
        let mut frames = Vec::new();
        for index in 2..40 {
            frames.push(entry(&wal, 1, index, &[2; 2_000]).unwrap());
        }
        assert!(frames[0] > first, "the first frame is on its way and takes nothing more");
        assert!(frames[0] < frames[37], "76 KB do not fit a frame of 32 KiB");
        wal.wait_durable(wal.newest()).await.unwrap();
        let before = wal.stats();
        for index in 40..60 {
            entry(&wal, 1, index, &[2; 100]).unwrap();
        }
        wal.wait_durable(wal.newest()).await.unwrap();
        assert_eq!(wal.stats().frames, before.frames + 1);
    });
}

#[test]
fn an_idle_log_is_confirmed_once_and_then_silent() {
    rt::sim::run(3, |shard| async move {
        let (wal, _) = open(&shard).await;
        let frame = entry(&wal, 1, 1, b"x").unwrap();
        wal.wait_durable(frame).await.unwrap();
        assert_eq!(wal.stats().empty_frames, 0);
        shard.sleep(Duration::from_millis(9)).await;
        assert_eq!(wal.stats().empty_frames, 0);
        shard.sleep(Duration::from_millis(5)).await;
        assert_eq!(wal.stats().empty_frames, 1);
        shard.sleep(Duration::from_secs(60)).await;
        assert_eq!(wal.stats().empty_frames, 1);
        assert_eq!(wal.stats().frames, 2);
    });
}

#[test]
fn too_large_is_refused_and_nothing_changes() {
    rt::sim::run(4, |shard| async move {
        let (wal, _) = open(&shard).await;
        let error = entry(&wal, 1, 1, &vec![0; 128 << 10]).unwrap_err();
        assert!(matches!(error, WalError::TooLarge { .. }), "{error}");
        // Larger than a frame, but not than a file.
        let frame = entry(&wal, 1, 1, &vec![3; 100 << 10]).unwrap();
        wal.wait_durable(frame).await.unwrap();
        let body = wal.read_entry(owner(1), Index(1)).await.unwrap().unwrap();
        assert_eq!(body.len(), 100 << 10);
    });
}

#[test]
fn data_is_refused_votes_are_not_and_checkpoints_make_room() {
    rt::sim::run(5, |shard| async move {
        let (wal, _) = open(&shard).await;
        vote(&wal, 77, 6, 0).unwrap();
        let mut last = 0;
        let error = loop {
            match entry(&wal, 1, last + 1, &[7; 3_000]) {
                Ok(_) => last += 1,
                Err(error) => break error,
            }
            shard.yield_now().await;
        };
        assert_eq!(error, WalError::Exhausted);
        assert_eq!(wal.pressure(), Pressure::Refusing);
        assert_eq!(wal.oldest_live_owners(5), [owner(1)]);
        let mut term = 6;
        // Whole files are left for votes; then they go beyond the budget.
        let before = wal.stats().used_bytes;
        assert!(before <= OPTIONS.budget_bytes - 2 * OPTIONS.file_bytes);
        while wal.stats().used_bytes <= OPTIONS.budget_bytes {
            vote(&wal, 2, term, 0).unwrap();
            term += 1;
            wal.wait_durable(wal.newest()).await.unwrap();
        }
        assert!(term > 2 * OPTIONS.file_bytes / 4096, "each vote had a block of its own");
        let frame = checkpoint(&wal, 1, last).unwrap();
        wal.wait_durable(frame).await.unwrap();
        shard.sleep(Duration::from_secs(1)).await;
        assert!(wal.stats().recycled_files >= 4, "{:?}", wal.stats());
        assert!(wal.stats().relocated_records >= 1, "the idle vote moved");
        entry(&wal, 1, last + 1, &[7; 3_000]).unwrap();
        assert!(wal.stats().file_bytes <= OPTIONS.budget_bytes);
        wal.stop().await;
        let (_, recovered) = open(&shard).await;
        assert_eq!(recovered.replicas[&owner(77)].hard_state.term, Term(6));
        assert_eq!(recovered.replicas[&owner(2)].hard_state.term, Term(term - 1));
        assert_eq!(recovered.replicas[&owner(1)].entries.len(), 1);
    });
}

#[test]
fn a_location_stays_good_while_its_record_lives() {
    rt::sim::run(6, |shard| async move {
        let (wal, _) = open(&shard).await;
        entry(&wal, 2, 1, b"stays").unwrap();
        let old = wal.locate(owner(2), Index(1)).unwrap();
        for index in 1..400 {
            entry(&wal, 1, index, &[7; 3_000]).unwrap();
            if index % 20 == 0 {
                let frame = checkpoint(&wal, 1, index).unwrap();
                wal.wait_durable(frame).await.unwrap();
            }
        }
        let new = wal.locate(owner(2), Index(1)).unwrap();
        assert_ne!(old, new);
        assert_eq!(&wal.read(old).await.unwrap()[..], b"stays");
        assert_eq!(&wal.read(new).await.unwrap()[..], b"stays");
        assert_eq!(wal.read_entry(owner(2), Index(2)).await, Ok(None));
        checkpoint(&wal, 2, 1).unwrap();
        for index in 400..900 {
            entry(&wal, 1, index, &[7; 3_000]).unwrap();
            if index % 20 == 0 {
                let frame = checkpoint(&wal, 1, index).unwrap();
                wal.wait_durable(frame).await.unwrap();
            }
        }
        assert_eq!(wal.read(old).await, Err(WalError::Gone(old)));
    });
}

#[test]
fn removed_replicas_take_nothing_and_are_forgotten_when_told() {
    rt::sim::run(7, |shard| async move {
        let (wal, _) = open(&shard).await;
        entry(&wal, 1, 1, b"x").unwrap();
        assert!(!wal.forget(owner(1)), "only the removed can be forgotten");
        wal.append(RecordRef::Tombstone { owner: owner(1) }).unwrap();
        assert_eq!(entry(&wal, 1, 2, b"x"), Err(WalError::Tombstoned(owner(1))));
        wal.stop().await;
        let (wal, recovered) = open(&shard).await;
        assert!(recovered.replicas[&owner(1)].tombstone);
        assert!(recovered.replicas[&owner(1)].entries.is_empty());
        assert!(wal.forget(owner(1)));
        // Nothing lives in the old file, so it goes.
        entry(&wal, 2, 1, b"x").unwrap();
        shard.sleep(Duration::from_millis(100)).await;
        wal.stop().await;
        let (_, recovered) = open(&shard).await;
        assert_eq!(recovered.replicas.keys().copied().collect::<Vec<_>>(), [owner(2)]);
    });
}

#[test]
#[should_panic(expected = "appended after")]
fn a_gap_is_a_bug_of_the_caller() {
    rt::sim::run(8, |shard| async move {
        let (wal, _) = open(&shard).await;
        entry(&wal, 1, 1, b"x").unwrap();
        let _ = entry(&wal, 1, 3, b"x");
    });
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    rt::sim::run(9, |shard| async move {
        let options = WalOptions { budget_bytes: 3 * OPTIONS.file_bytes, ..OPTIONS };
        let error = open_with(&shard, options).await.map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "log options: the budget must hold at least four files");
        let shares = WalOptions::for_shards(1 << 30, 16);
        assert!(shares.budget_bytes * 16 <= 1 << 30);
    });
}

/// A world with one node that runs `body` at each start.
fn world<F>(seed: u64, body: impl Fn(Shard) -> F + 'static) -> (World, NodeId)
where
    F: std::future::Future<Output = ()> + 'static,
{
    let world = World::new(seed, WorldOptions::default());
    let node = world.add_node("node", 1, body);
    (world, node)
}

type Shared<T> = Rc<RefCell<T>>;

/// Writes five frames of three groups, stops, and opens again after `spoil` has been at the disk.
fn after_spoiling(
    seed: u64,
    spoil: impl Fn(&World, NodeId, &[PathBuf]),
) -> (World, NodeId, Shared<Option<Result<Recovered, WalError>>>) {
    let told: Shared<Option<Result<Recovered, WalError>>> = Rc::default();
    let slot = Rc::clone(&told);
    let first = RefCell::new(true);
    let (world, node) = world(seed, move |shard| {
        let slot = Rc::clone(&slot);
        let first = first.replace(false);
        async move {
            match open_with(&shard, OPTIONS).await {
                Ok((wal, recovered)) => {
                    if first {
                        for index in 1..=5 {
                            for group in 1..=3 {
                                entry(&wal, group, index, &[group as u8; 300]).unwrap();
                            }
                            wal.wait_durable(wal.newest()).await.unwrap();
                        }
                    } else {
                        *slot.borrow_mut() = Some(Ok(recovered));
                    }
                    wal.stop().await;
                }
                Err(error) => *slot.borrow_mut() = Some(Err(error)),
            }
        }
    });
    finish(&world, node);
    let files: Vec<PathBuf> = world.disk(node).files();
    let logs: Vec<PathBuf> =
        files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "wal")).collect();
    spoil(&world, node, &logs);
    world.restart(node);
    finish(&world, node);
    (world, node, told)
}

fn recovered(told: &Shared<Option<Result<Recovered, WalError>>>) -> Recovered {
    told.borrow_mut().take().expect("it was opened").expect("it opens in spite of damage")
}

#[test]
fn a_durable_frame_that_rots_fences_every_replica_for_good() {
    let (world, node, told) = after_spoiling(20, |world, node, logs| {
        // Frame 2 stands in the third block.
        assert!(world.disk(node).flip_bits(&logs[0], 2 * 4096 + 200, 4));
    });
    let first = recovered(&told);
    let damage =
        Damage::CorruptFrame { frame: FrameNumber(2), file: FileSequence(1), position: 2 * 4096 };
    assert_eq!(first.report.damage, [damage]);
    assert_eq!(first.replicas.len(), 3);
    for replica in first.replicas.values() {
        assert_eq!(replica.damaged, Some(damage));
    }
    // The rot is still there, and the fence is not forgotten.
    world.restart(node);
    finish(&world, node);
    let second = recovered(&told);
    assert!(second.replicas.values().all(|replica| replica.damaged == Some(damage)));
    assert_eq!(second.report.last_frame.0, first.report.last_frame.0 + 2, "fences, then a stop");
}

#[test]
fn a_fence_is_not_lost_when_the_recovery_that_found_damage_is_cut_off() {
    for operation in 1..24 {
        let told: Shared<Option<Recovered>> = Rc::default();
        let slot = Rc::clone(&told);
        let (world, node) = world(40 + operation, move |shard| {
            let slot = Rc::clone(&slot);
            async move {
                let (wal, recovered) = open(&shard).await;
                if recovered.report.fresh {
                    for index in 1..=5 {
                        entry(&wal, 1, index, &[1; 300]).unwrap();
                        wal.wait_durable(wal.newest()).await.unwrap();
                    }
                }
                *slot.borrow_mut() = Some(recovered);
                wal.stop().await;
            }
        });
        finish(&world, node);
        let log = "/data/wal/00000000000000000001.wal";
        assert!(world.disk(node).flip_bits(log, 2 * 4096 + 200, 4));
        let at = world.disk(node).operations() + operation;
        world.crash_at_disk_operation(node, at, CrashKind::PowerCut);
        for _ in 0..3 {
            world.restart(node);
            finish(&world, node);
        }
        let recovered = told.borrow_mut().take().expect("it was opened");
        let damaged = recovered.replicas[&owner(1)].damaged;
        assert!(damaged.is_some(), "cut off at operation {operation}");
    }
}

#[test]
fn a_last_frame_that_nothing_confirms_is_a_torn_tail() {
    let (_, _, told) = after_spoiling(21, |world, node, logs| {
        // Frames 1 to 5 have records, 6 is the stop frame.
        assert!(world.disk(node).flip_bits(&logs[0], 6 * 4096 + 20, 4));
    });
    let recovered = recovered(&told);
    assert_eq!(recovered.report.damage, []);
    assert_eq!(recovered.report.last_frame, FrameNumber(5));
    assert!(recovered.replicas.values().all(|replica| replica.entries.len() == 5));
}

#[test]
fn a_damaged_header_fences_and_the_file_is_put_aside() {
    let (world, node, told) = after_spoiling(22, |world, node, logs| {
        assert!(world.disk(node).flip_bits(&logs[0], 50, 4));
    });
    let first = recovered(&told);
    assert!(first.report.damage.contains(&Damage::UnreadableHeader { file: FileSequence(1) }));
    let files = world.disk(node).files();
    let damaged = |path: &&PathBuf| path.extension().is_some_and(|end| end == "damaged");
    assert_eq!(files.iter().filter(damaged).count(), 1);
}

/// The frames behind the cut were confirmed by frames behind the cut: only the length tells.
#[test]
fn a_file_cut_where_the_log_ends_is_damage() {
    let cut_at = |block: u64| {
        let (_, _, told) = after_spoiling(25, |world, node, logs| {
            assert!(world.disk(node).truncate_file(&logs[0], block * 4096));
        });
        recovered(&told)
    };
    let cut = cut_at(4);
    assert_eq!(cut.report.lost, Some(Damage::TruncatedFile { file: FileSequence(1) }));
    assert!(cut.replicas.values().all(|replica| replica.damaged.is_some()));
    // Behind the frame with which the log was stopped there is nothing to lose.
    let whole = cut_at(7);
    assert_eq!(whole.report.damage, []);
    assert!(whole.replicas.values().all(|replica| replica.entries.len() == 5));
}

#[test]
fn a_missing_file_is_damage() {
    let (_, _, told) = after_spoiling(23, |world, node, logs| {
        assert!(world.disk(node).remove_file(&logs[0]));
    });
    let recovered = recovered(&told);
    assert!(recovered.report.damage.contains(&Damage::MissingFile { file: FileSequence(1) }));
}

#[test]
fn a_foreign_file_and_a_newer_format_are_refused() {
    let (_, _, told) = after_spoiling(24, |world, node, logs| {
        let header = world.disk(node).read_file(&logs[0]).unwrap();
        let mut header = chronik_wal::format::FileHeader::decode(&header).unwrap();
        header.identity.node = [8; 16];
        assert!(world.disk(node).overwrite(&logs[0], 0, &header.encode()));
    });
    let error = told.borrow_mut().take().unwrap().map(|_| ()).unwrap_err();
    assert!(matches!(error, WalError::Foreign { .. }), "{error}");
}

#[test]
fn a_read_error_is_never_a_torn_tail() {
    let (_, _, told) = after_spoiling(25, |world, node, _| {
        let mut faults = world.disk(node).faults();
        faults.read_error_per_million = 1_000_000;
        world.disk(node).set_faults(faults);
    });
    let error = told.borrow_mut().take().unwrap().map(|_| ()).unwrap_err();
    assert!(matches!(error, WalError::Disk(_)), "{error}");
}

#[test]
fn an_operator_accepts_damage_and_it_stays_accepted() {
    let told: Shared<Vec<Recovered>> = Rc::default();
    let slot = Rc::clone(&told);
    let (world, node) = world(26, move |shard| {
        let slot = Rc::clone(&slot);
        async move {
            let (wal, recovered) = open(&shard).await;
            let round = slot.borrow().len();
            slot.borrow_mut().push(recovered);
            match round {
                // A commit that the log does not reach.
                0 => {
                    checkpoint(&wal, 1, 5).unwrap();
                    entry(&wal, 1, 6, b"x").unwrap();
                    vote(&wal, 1, 7, 9).unwrap();
                }
                1 => {
                    wal.accept_damage(owner(1)).unwrap();
                }
                _ => {}
            }
            wal.stop().await;
        }
    });
    for _ in 0..4 {
        finish(&world, node);
        world.restart(node);
    }
    finish(&world, node);
    let told = told.borrow();
    let damage = Damage::CommitBeyondLog { commit: Index(9), last: Index(6) };
    assert_eq!(told[1].replicas[&owner(1)].damaged, Some(damage));
    for later in &told[2..] {
        let replica = &later.replicas[&owner(1)];
        assert_eq!(replica.damaged, None);
        assert_eq!(replica.hard_state.commit, Index(6));
        assert_eq!((replica.hard_state.term, replica.entries.len()), (Term(7), 1));
    }
}

#[test]
fn a_write_error_poisons_for_good() {
    for sync in [false, true] {
        let (world, node) = world(27, move |shard| async move {
            let flush = if sync { Flush::Fdatasync } else { Flush::Dsync };
            let options = WalOptions { flush, fill_ahead: false, ..OPTIONS };
            let (wal, _) = open_with(&shard, options).await.unwrap();
            entry(&wal, 1, 1, b"x").unwrap();
            wal.wait_durable(wal.newest()).await.unwrap();
            wal.next_durable().await.unwrap();
            // The fault is switched on from outside meanwhile.
            shard.sleep(Duration::from_secs(1)).await;
            let frame = entry(&wal, 1, 2, b"x").unwrap();
            let error = wal.wait_durable(frame).await.unwrap_err();
            assert!(matches!(error, WalError::Poisoned(_)), "{error}");
            assert_eq!(entry(&wal, 1, 3, b"x"), Err(error.clone()));
            assert_eq!(wal.next_durable().await.map(|_| ()), Err(error.clone()));
            assert_eq!(wal.poisoned(), Some(error));
            assert_eq!(wal.durable().next().0, frame.0);
            wal.stop().await;
        });
        world.run_for(Duration::from_millis(500));
        let mut faults = world.disk(node).faults();
        match sync {
            true => faults.fail_next_sync = Some(5),
            false => faults.fail_next_write = Some(5),
        }
        world.disk(node).set_faults(faults);
        finish(&world, node);
    }
}

/// What a process reads after a failed sync need not be on the disk, and the next sync says nothing
/// of it: a frame that a start has found and built on must be there when power is lost later.
#[test]
fn a_frame_whose_sync_failed_is_durable_once_it_was_recovered() {
    for (seed, flush) in (0..20).flat_map(|seed| [(seed, Flush::Dsync), (seed, Flush::Fdatasync)]) {
        let found = Rc::new(RefCell::new(Vec::new()));
        let told = found.clone();
        let (world, node) = world(seed, move |shard| {
            let told = told.clone();
            async move {
                let options = WalOptions { flush, fill_ahead: false, ..OPTIONS };
                let (wal, recovered) = open_with(&shard, options).await.unwrap();
                assert_eq!(recovered.report.damage, []);
                let replica = recovered.replicas.get(&owner(1));
                told.borrow_mut().push(replica.map_or(0, |replica| replica.entries.len()));
                if recovered.report.fresh {
                    entry(&wal, 1, 1, b"x").unwrap();
                    wal.wait_durable(wal.newest()).await.unwrap();
                    // The frame is named in `reached`, and the fault switched on from outside.
                    shard.sleep(Duration::from_secs(3)).await;
                    let frame = entry(&wal, 1, 2, &[7; 9_000]).unwrap();
                    wal.wait_durable(frame).await.unwrap_err();
                }
                std::future::pending::<()>().await;
            }
        });
        world.run_for(Duration::from_millis(2_500));
        let mut faults = world.disk(node).faults();
        faults.fail_next_sync = Some(5);
        world.disk(node).set_faults(faults);
        world.run_for(Duration::from_secs(2));
        for (kind, starts) in [(CrashKind::Kill, 2), (CrashKind::PowerCut, 3)] {
            world.crash(node, kind);
            world.restart(node);
            // Before the frame's records are relocated.
            let started = || found.borrow().len() == starts;
            assert!(world.run_until(|_| started(), Duration::from_secs(2)));
        }
        assert_eq!(*found.borrow(), [0, 2, 2], "seed {seed}, {flush:?}");
    }
}

#[test]
fn a_full_disk_is_not_an_error_of_the_log() {
    let (world, node) = world(28, move |shard| async move {
        let (wal, _) = open(&shard).await;
        shard.sleep(Duration::from_secs(1)).await;
        let mut last = 0;
        while entry(&wal, 1, last + 1, &[7; 3_000]).is_ok() {
            last += 1;
            wal.wait_durable(wal.newest()).await.unwrap();
        }
        assert_eq!(wal.poisoned(), None);
        assert!(wal.stats().file_bytes < OPTIONS.budget_bytes);
        checkpoint(&wal, 1, last).unwrap();
        shard.sleep(Duration::from_secs(1)).await;
        entry(&wal, 1, last + 1, &[7; 3_000]).unwrap();
        wal.wait_durable(wal.newest()).await.unwrap();
        wal.stop().await;
    });
    world.disk(node).set_capacity(4 * OPTIONS.file_bytes);
    finish(&world, node);
}

/// Somebody else takes the rest of the disk. Gives its size of before.
fn fill_up(world: &World, node: NodeId) -> u64 {
    let disk = world.disk(node);
    let space = disk.space();
    disk.set_capacity(space.total_bytes - space.available_bytes);
    space.total_bytes
}

/// Data leaves two whole files, and a start takes one: a log that takes no more can be opened twice,
/// whoever took the rest of the disk. Then it says how much it needs.
#[test]
fn a_log_begins_in_its_prepared_files_on_a_full_disk() {
    let starts = Rc::new(RefCell::new(Vec::new()));
    let seen = starts.clone();
    let (world, node) = world(33, move |shard| {
        let seen = seen.clone();
        async move {
            let opened = open_with(&shard, OPTIONS).await;
            let started = opened.as_ref().map(|(_, recovered)| recovered.replicas.len());
            seen.borrow_mut().push(started.map_err(|error| error.clone()));
            let Ok((wal, recovered)) = opened else { return };
            if recovered.report.fresh {
                shard.sleep(Duration::from_secs(5)).await;
                for index in 1.. {
                    let Ok(frame) = entry(&wal, 1, index, &[7; 3_000]) else { break };
                    wal.wait_durable(frame).await.unwrap();
                }
            } else {
                wal.wait_durable(vote(&wal, 2, 5, 0).unwrap()).await.unwrap();
            }
            shard.sleep(Duration::from_secs(3600)).await;
        }
    });
    for _ in 0..4 {
        world.run_for(Duration::from_secs(30));
        world.crash(node, CrashKind::Kill);
        fill_up(&world, node);
        world.restart(node);
    }
    let starts = starts.borrow();
    assert_eq!(starts[..3], [Ok(0), Ok(1), Ok(2)]);
    let refused = starts[3].as_ref().unwrap_err();
    assert!(matches!(refused, WalError::NoRoom { bytes: 65_536, .. }), "{refused}");
}

#[test]
fn a_write_without_an_answer_is_reported() {
    let (world, node) = world(29, move |shard| async move {
        let options = WalOptions { fill_ahead: false, ..OPTIONS };
        let (wal, _) = open_with(&shard, options).await.unwrap();
        shard.sleep(Duration::from_secs(1)).await;
        entry(&wal, 1, 1, b"x").unwrap();
        assert_eq!(wal.stalled(), None);
        shard.sleep(Duration::from_millis(1_500)).await;
        assert_eq!(wal.stalled(), None);
        shard.sleep(Duration::from_secs(1)).await;
        assert!(wal.stalled().is_some_and(|since| since >= Duration::from_secs(2)));
        wal.wait_durable(wal.newest()).await.unwrap();
        assert_eq!(wal.stalled(), None);
    });
    world.run_for(Duration::from_millis(500));
    let mut faults = world.disk(node).faults();
    faults.slow_by_ns = 5_000_000_000;
    world.disk(node).set_faults(faults);
    finish(&world, node);
}

#[test]
fn starts_without_traffic_do_not_use_up_the_budget() {
    let (world, node) = world(30, move |shard| async move {
        let (wal, _) = open(&shard).await;
        assert!(wal.stats().file_bytes <= OPTIONS.budget_bytes, "{:?}", wal.stats());
        shard.sleep(Duration::from_secs(3600)).await;
    });
    for round in 0..60 {
        world.run_for(Duration::from_millis(10 + round));
        world.crash(node, if round % 2 == 0 { CrashKind::Kill } else { CrashKind::PowerCut });
        world.restart(node);
    }
}

#[test]
fn the_offline_reader_tells_what_is_there() {
    let lines = rt::sim::run(31, |shard| async move {
        let (wal, _) = open(&shard).await;
        checkpoint(&wal, 4, 5).unwrap();
        entry(&wal, 4, 6, b"hello").unwrap();
        vote(&wal, 4, 8, 6).unwrap();
        wal.append(RecordRef::Tombstone { owner: owner(5) }).unwrap();
        wal.stop().await;
        let dir = shard.open_dir("/data/wal").await.unwrap();
        let options = InspectOptions { frames: true, records: true, group: None };
        let mut lines = Vec::new();
        inspect(&shard, &dir, options, |line| lines.push(line.to_owned())).await.unwrap();
        lines
    });
    let text = lines.join("\n");
    for expected in [
        "file 1 of node 07070707-0707-0707-0707-070707070707 shard 0 generation 1",
        "frame 1 file 1 position 4096 length",
        "group 4 replica 1 append 6 term 5, 5 bytes at ",
        "group 4 replica 1 hard state term 8 vote 9 commit 6",
        "group 5 replica 1: removed",
        "group 4 replica 1: term 8 vote 9 commit 6, checkpoint 5 term 5, entries 6 to 6",
        "last frame 2, 4 records, stopped in order",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

/// Others may fill the disk once the power is back: what was made ahead is to be there then.
#[test]
fn files_made_ahead_are_there_after_a_power_cut() {
    let made: Shared<u64> = Rc::default();
    let told = Rc::clone(&made);
    let (world, node) = world(1, move |shard| {
        let told = Rc::clone(&told);
        async move {
            let (wal, _) = open(&shard).await;
            loop {
                *told.borrow_mut() = wal.stats().file_bytes;
                shard.sleep(Duration::from_millis(100)).await;
            }
        }
    });
    world.run_for(Duration::from_secs(5));
    let before = *made.borrow();
    assert!(before + OPTIONS.file_bytes > OPTIONS.budget_bytes, "it is filled: {before}");
    world.crash(node, CrashKind::PowerCut);
    fill_up(&world, node);
    let done = world.disk(node).operations();
    world.restart(node);
    world.run_for(Duration::from_secs(5));
    let done = world.disk(node).operations() - done;
    assert!(done < 200, "{done} operations: more is asked of the full disk than once a second");
    // The first file had no frame and another size: a whole one is begun instead.
    assert_eq!(*made.borrow(), before - OPTIONS.first_file_bytes);
}

/// A spare may need room to become a log file, as on file systems that write elsewhere what is
/// overwritten. Without it the spare stays one; that it is there is no reason to try at once again.
#[test]
fn a_spare_that_the_full_disk_cannot_take_is_tried_once_a_second() {
    let appended: Shared<u64> = Rc::default();
    let count = Rc::clone(&appended);
    let (world, node) = world(1, move |shard| {
        let count = Rc::clone(&count);
        async move {
            let (wal, _) = open(&shard).await;
            shard.sleep(Duration::from_secs(5)).await;
            let mut next = 1;
            loop {
                if let Ok(frame) = entry(&wal, 1, next, &[7; 8_000]) {
                    wal.wait_durable(frame).await.expect("durable");
                    *count.borrow_mut() = next;
                    next += 1;
                }
                shard.sleep(Duration::from_millis(10)).await;
            }
        }
    });
    world.run_for(Duration::from_secs(4));
    let disk = world.disk(node);
    let spares: Vec<_> = disk.files().into_iter().filter(|path| is_spare(path)).collect();
    assert!(spares.len() >= 3, "{spares:?}");
    for spare in &spares {
        assert!(disk.truncate_file(spare, 0));
    }
    let whole = fill_up(&world, node);
    // The first files are filled; then the next one is wanted.
    world.run_for(Duration::from_secs(5));
    let (before, reached) = (disk.operations(), *appended.borrow());
    assert!(reached > 10);
    world.run_for(Duration::from_secs(10));
    let done = disk.operations() - before;
    assert!(done > 0 && done < 200, "{done} operations in ten seconds");
    assert_eq!(*appended.borrow(), reached);
    disk.set_capacity(whole);
    world.run_for(Duration::from_secs(3));
    assert!(*appended.borrow() > reached, "it goes on when there is room");
}

fn is_spare(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "spare")
}
