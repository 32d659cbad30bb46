//! Loss that nothing in the files of a log shows: its end, its last files, all of them. What the
//! file `reached` says of it is true after any crash.

mod common;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use chronik_wal::{Damage, FileSequence, FrameNumber, Recovered, WalError};
use rt::sim::{CrashKind, NodeId, World, WorldOptions};

use common::{checkpoint, entry, finish, open, open_with, owner, vote, OPTIONS};

const REACHED: &str = "/data/wal/reached";
/// Entries of the first life, each in a frame of its own: three files, and one prepared.
const ENTRIES: u64 = 12;
static BODY: [u8; 20_000] = [7; 20_000];

type Opened = Result<Recovered, WalError>;

/// How the first life of a log ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Stopped,
    /// Killed, a while after its last frame.
    Killed,
}

/// A log that was written and has ended; its node tells how it opens, and ends, at each start.
struct Ground {
    world: World,
    node: NodeId,
    told: Rc<RefCell<Option<Opened>>>,
    /// Its later lives deal with what was lost.
    settles: Rc<Cell<bool>>,
}

impl Ground {
    fn new(end: End) -> Ground {
        let world = World::new(1, WorldOptions::default());
        let told: Rc<RefCell<Option<Opened>>> = Rc::default();
        let settles: Rc<Cell<bool>> = Rc::default();
        let (slot, settling) = (Rc::clone(&told), Rc::clone(&settles));
        let node = world.add_node("node", 1, move |shard| {
            let (slot, settling) = (Rc::clone(&slot), Rc::clone(&settling));
            async move {
                let (wal, recovered) = match open_with(&shard, OPTIONS).await {
                    Ok(opened) => opened,
                    Err(error) => return *slot.borrow_mut() = Some(Err(error)),
                };
                let fresh = recovered.report.fresh;
                *slot.borrow_mut() = Some(Ok(recovered));
                if fresh {
                    for index in 1..=ENTRIES {
                        entry(&wal, 1, index, &BODY).expect("there is room");
                        wal.wait_durable(wal.newest()).await.expect("durable");
                    }
                    shard.sleep(Duration::from_secs(3)).await;
                }
                if settling.get() {
                    wal.loss_is_settled().expect("a fence is never refused");
                }
                if !fresh || end == End::Stopped {
                    wal.stop().await;
                } else {
                    std::future::pending().await
                }
            }
        });
        world.run_for(Duration::from_secs(10));
        if world.is_running(node) {
            world.crash(node, CrashKind::Kill);
        }
        Ground { world, node, told, settles }
    }

    fn logs(&self) -> Vec<PathBuf> {
        let is_log = |path: &PathBuf| path.extension().is_some_and(|end| end == "wal");
        self.world.disk(self.node).files().into_iter().filter(is_log).collect()
    }

    /// The file in which the log ends.
    fn last(&self) -> PathBuf {
        let disk = self.world.disk(self.node);
        let written = |path: &&PathBuf| {
            disk.read_file(*path).is_some_and(|bytes| bytes[4096..].iter().any(|byte| *byte != 0))
        };
        self.logs().iter().rfind(written).cloned().expect("one has frames")
    }

    fn start(&self) -> Opened {
        self.world.restart(self.node);
        finish(&self.world, self.node);
        self.told.borrow_mut().take().expect("it was opened")
    }

    /// Everyone is fenced, for this reason. Starts are told of the loss until one has dealt with it,
    /// and there is no replica but those that were.
    fn is_lost(&self, damage: Damage) {
        for (settles, lost) in [(false, Some(damage)), (true, Some(damage)), (true, None)] {
            self.settles.set(settles);
            let opened = self.start().expect("it opens");
            assert_eq!(opened.report.lost, lost);
            let all: Vec<_> = opened.replicas.keys().collect();
            assert_eq!(all, [&owner(1)]);
            assert_eq!(opened.replicas[&owner(1)].damaged, Some(damage));
        }
    }

    fn is_whole(&self) {
        let recovered = self.start().expect("it opens");
        assert_eq!(recovered.report.damage, []);
        assert_eq!(recovered.replicas[&owner(1)].entries.len() as u64, ENTRIES);
    }
}

const ENDS: [End; 2] = [End::Stopped, End::Killed];

#[test]
fn an_end_that_turned_to_zeros_is_damage() {
    for end in ENDS {
        for block in [1, 6, 7] {
            let ground = Ground::new(end);
            let (disk, last) = (ground.world.disk(ground.node), ground.last());
            let bytes = disk.read_file(&last).expect("it is there");
            assert!(disk.overwrite(
                &last,
                block * 4096,
                &vec![0; bytes.len() - block as usize * 4096]
            ));
            let recovered = ground.start().expect("it opens");
            let Some(Damage::LostEnd { last, reached }) = recovered.report.lost else {
                panic!("{end:?}, from block {block}: {:?}", recovered.report);
            };
            assert!(last < FrameNumber(ENTRIES) && reached == FrameNumber(ENTRIES));
            assert!(recovered.replicas[&owner(1)].damaged.is_some());
        }
    }
}

#[test]
fn what_was_lost_is_found_once_and_remembered() {
    let ground = Ground::new(End::Killed);
    let (disk, last) = (ground.world.disk(ground.node), ground.last());
    let bytes = disk.read_file(&last).expect("it is there");
    assert!(disk.overwrite(&last, 4096, &vec![0; bytes.len() - 4096]));
    // Three entries find room in the first file, six in the second.
    let last = FrameNumber(3 + 6);
    ground.is_lost(Damage::LostEnd { last, reached: FrameNumber(ENTRIES) });
}

#[test]
fn a_last_file_that_is_gone_is_missed() {
    for end in ENDS {
        // With a prepared one behind it: there is a gap.
        let ground = Ground::new(end);
        let (disk, last) = (ground.world.disk(ground.node), ground.last());
        assert!(ground.logs().last() > Some(&last), "one is prepared");
        assert!(disk.remove_file(&last));
        let recovered = ground.start().expect("it opens");
        let missing = Damage::MissingFile { file: FileSequence(3) };
        assert_eq!(recovered.report.lost, Some(missing), "{end:?}");
        // Without: nothing but `reached` tells.
        let ground = Ground::new(end);
        let disk = ground.world.disk(ground.node);
        let last = ground.last();
        for gone in ground.logs().into_iter().filter(|path| *path >= last) {
            assert!(disk.remove_file(gone));
        }
        let recovered = ground.start().expect("it opens");
        assert!(matches!(recovered.report.lost, Some(Damage::LostEnd { .. })), "{end:?}");
    }
}

/// Nothing is written: they can be put back.
#[test]
fn a_log_without_its_files_is_not_a_new_one() {
    let ground = Ground::new(End::Stopped);
    let disk = ground.world.disk(ground.node);
    let kept: Vec<_> =
        ground.logs().into_iter().map(|path| (disk.read_file(&path), path)).collect();
    for (_, path) in &kept {
        assert!(disk.remove_file(path));
    }
    let left = disk.files();
    let refused = ground.start();
    assert!(matches!(refused, Err(WalError::Lost { reached, .. }) if reached.0 == ENTRIES));
    assert_eq!(disk.files(), left, "nothing was made");
    for (bytes, path) in kept {
        assert!(disk.write_file(path, &bytes.expect("it was read")));
    }
    ground.is_whole();
}

#[test]
fn a_damaged_mark_is_made_anew_and_a_foreign_one_refused() {
    for length in [4096, 100, 0] {
        let ground = Ground::new(End::Killed);
        let disk = ground.world.disk(ground.node);
        let whole = disk.read_file(REACHED).expect("it is there");
        assert!(disk.flip_bits(REACHED, 40, 1) && disk.truncate_file(REACHED, length));
        ground.is_whole();
        assert_ne!(disk.read_file(REACHED), None);
        // It guards again.
        assert!(disk.write_file(REACHED, &whole));
        ground.is_whole();
    }
    let ground = Ground::new(End::Killed);
    let disk = ground.world.disk(ground.node);
    let other = World::new(2, WorldOptions::default());
    let elsewhere = other.add_node("node", 1, |shard| async move {
        let dir = shard.create_dir("/data/wal").await.expect("a folder");
        let identity = chronik_wal::Identity { generation: 2, ..common::identity() };
        let (wal, _) = chronik_wal::Wal::open(&shard, dir, OPTIONS, identity).await.expect("opens");
        wal.stop().await;
    });
    finish(&other, elsewhere);
    let foreign = other.disk(elsewhere).read_file(REACHED).expect("it is there");
    assert!(disk.write_file(REACHED, &foreign));
    let refused = ground.start();
    assert!(matches!(refused, Err(WalError::Foreign { .. })), "{refused:?}");
}

/// Files that come and go, and a crash at every operation of the disk: nothing is missed.
#[test]
fn no_crash_looks_like_a_loss() {
    for operation in 1..120 {
        for kind in [CrashKind::Kill, CrashKind::PowerCut] {
            let world = World::new(operation, WorldOptions::default());
            let node = world.add_node("node", 1, move |shard| async move {
                let (wal, recovered) = open(&shard).await;
                assert_eq!(recovered.report.damage, [], "{kind:?} at operation {operation}");
                let known = recovered.replicas.get(&owner(1));
                let last = known.map_or(0, |replica| {
                    let checkpoint = replica.checkpoint.as_ref().map_or(0, |mark| mark.0 .0);
                    replica.entries.last().map_or(checkpoint, |entry| entry.index.0)
                });
                vote(&wal, 2, 6, 0).expect("a vote is never refused");
                for index in last + 1..last + 40 {
                    // Each batch of work is longer than the time in which a frame is named.
                    shard.sleep(Duration::from_millis(40)).await;
                    if entry(&wal, 1, index, &BODY).is_err() {
                        checkpoint(&wal, 1, index - 1).expect("a checkpoint");
                        break;
                    }
                    wal.wait_durable(wal.newest()).await.expect("durable");
                    checkpoint(&wal, 1, index).expect("a checkpoint");
                }
                wal.stop().await;
            });
            for _ in 0..4 {
                let at = world.disk(node).operations() + operation;
                world.crash_at_disk_operation(node, at, kind);
                finish(&world, node);
                world.restart(node);
            }
        }
    }
}
