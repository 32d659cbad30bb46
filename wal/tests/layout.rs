//! Another number of shards, with crashes in the middle: every owner is on exactly one shard, the
//! one that the new number says, with all that was acknowledged, however small its files are.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use chronik_wal::format::POINTER_BYTES;
use chronik_wal::layout::{Layout, LayoutError};
use chronik_wal::{
    Flush, GroupId, HardState, Index, Owner, Pointer, RecordRef, RecoveredReplica, ReplicaId, Term,
    Wal, WalOptions,
};
use rt::sim::{CrashKind, World, WorldOptions};
use rt::{Dir, Shard, ShardId};

const GROUPS: u64 = 7;

/// The more shards, the smaller the files of each.
fn settings(shards: u16) -> WalOptions {
    let file_bytes = (192 << 10) / u64::from(shards);
    WalOptions {
        file_bytes,
        first_file_bytes: 48 << 10,
        budget_bytes: 6 * file_bytes,
        frame_max_bytes: 24 << 10,
        flush: Flush::Dsync,
        fill_ahead: false,
    }
}

/// Bytes of an entry; some find room in the files of few shards only.
fn length(index: Index) -> usize {
    match index.0 % 10 {
        5 => 60_000,
        8 => 90_000,
        _ => 500,
    }
}

fn owner(group: u64) -> Owner {
    Owner { group: GroupId(group), replica: ReplicaId(1) }
}

fn shard_of(owner: Owner, shards: u16) -> ShardId {
    ShardId((owner.group.0 % u64::from(shards)) as u16)
}

/// Some entries have their payload elsewhere.
fn is_pointer(index: Index) -> bool {
    index.0.is_multiple_of(3)
}

#[derive(Default)]
struct Model {
    /// Of each group: entries acknowledged, and appended, and the same of the term.
    entries: BTreeMap<u64, (u64, u64)>,
    terms: BTreeMap<u64, (u64, u64)>,
    shards: u16,
    rounds: u64,
}

impl Model {
    /// Compares what recovery tells of a replica, and goes on from it.
    fn took(&mut self, owner: Owner, replica: &RecoveredReplica) {
        let group = owner.group.0;
        let count = replica.entries.len() as u64;
        let (acknowledged, appended) = self.entries.get(&group).copied().unwrap_or_default();
        assert!((acknowledged..=appended).contains(&count), "{owner}: {count} entries");
        self.entries.insert(group, (count, count));
        let term = replica.hard_state.term.0;
        let (acknowledged, appended) = self.terms.get(&group).copied().unwrap_or_default();
        assert!((acknowledged..=appended).contains(&term), "{owner}: term {term}");
        self.terms.insert(group, (term, term));
    }
}

async fn node(shard: Shard, model: Rc<RefCell<Model>>) {
    let data = shard.create_dir("/data").await.expect("the folder can be made");
    loop {
        let wanted = model.borrow().shards;
        let layout = Layout::open(&shard, &data, wanted).await.expect("a layout");
        let layout = if layout.shards == wanted {
            layout
        } else {
            let place = |owner| shard_of(owner, wanted);
            layout.change(&shard, &data, wanted, settings(wanted), place).await.expect("a change")
        };
        let wals = check(&shard, &data, &layout, &model).await;
        work(&wals, &model).await;
        for wal in &wals {
            wal.stop().await;
        }
        let mut model = model.borrow_mut();
        model.rounds += 1;
        model.shards = 1 + (shard.random() % 4) as u16;
    }
}

async fn check(shard: &Shard, data: &Dir, layout: &Layout, model: &Rc<RefCell<Model>>) -> Vec<Wal> {
    let mut wals = Vec::new();
    let mut seen = Vec::new();
    for number in 0..layout.shards {
        let number = ShardId(number);
        let dir = layout.wal_dir(data, number).await.expect("a folder");
        let opened = Wal::open(shard, dir, settings(layout.shards), layout.identity(number)).await;
        let (wal, recovered) = opened.expect("the log opens");
        assert_eq!(recovered.report.damage, []);
        for (owner, replica) in &recovered.replicas {
            assert_eq!(shard_of(*owner, layout.shards), number, "{owner} is on a wrong shard");
            assert_eq!(replica.damaged, None);
            model.borrow_mut().took(*owner, replica);
            for entry in &replica.entries {
                let body = wal.read(entry.location).await.expect("a body");
                let pointer = is_pointer(entry.index);
                assert_eq!(
                    entry.pointer, pointer,
                    "{owner} entry {} changed its kind",
                    entry.index
                );
                let skip = if pointer { POINTER_BYTES } else { 0 };
                assert_eq!(&body[skip..], &vec![entry.index.0 as u8; length(entry.index)][..]);
            }
            seen.push(owner.group.0);
        }
        wals.push(wal);
    }
    for (group, entries) in &mut model.borrow_mut().entries {
        assert!(entries.0 == 0 || seen.contains(group), "group {group} is gone");
        if !seen.contains(group) {
            *entries = (0, 0);
        }
    }
    wals
}

async fn work(wals: &[Wal], model: &Rc<RefCell<Model>>) {
    for group in 0..GROUPS {
        let owner = owner(group);
        let wal = &wals[usize::from(shard_of(owner, wals.len() as u16).0)];
        let next = model.borrow().entries.get(&group).map_or(0, |entries| entries.1) + 1;
        let (index, term) = (Index(next), Term(5));
        if next < 30 && length(index) as u64 <= wal.body_max_bytes() {
            let body: &[&[u8]] = &[&vec![next as u8; length(index)]];
            let record = RecordRef::Append { owner, index, term, body };
            if is_pointer(index) {
                let pointer = Pointer { segment: 1, position: next, length: 9, crc: 9 };
                let record = RecordRef::Pointer { owner, index, term, pointer, prefix: body };
                let (sender, payload) = rt::oneshot();
                sender.send(Ok(())).expect("the receiver is here");
                wal.append_pointer(record, payload).expect("room");
            } else {
                wal.append_reserved(record).expect("it fits");
            }
            model.borrow_mut().entries.entry(group).or_default().1 = next;
        }
        let term = model.borrow().terms.get(&group).map_or(5, |terms| terms.1) + 1;
        let state = HardState { term: Term(term), vote: ReplicaId(1), commit: Index(0) };
        wal.append(RecordRef::HardState { owner, state }).expect("room");
        model.borrow_mut().terms.entry(group).or_default().1 = term;
        wal.wait_durable(wal.newest()).await.expect("durable");
        let mut model = model.borrow_mut();
        let model = &mut *model;
        let pairs = [model.entries.get_mut(&group), model.terms.get_mut(&group)];
        for (acknowledged, appended) in pairs.into_iter().flatten() {
            *acknowledged = *appended;
        }
    }
}

#[test]
fn a_change_of_shards_survives_crashes() {
    let rounds = RefCell::new(0);
    rt::sim::for_seeds("-p chronik-wal --test layout", 25, |seed| {
        let world = World::new(seed, WorldOptions::default());
        let model = Rc::new(RefCell::new(Model { shards: 2, ..Model::default() }));
        let inside = Rc::clone(&model);
        let id = world.add_node("node", 1, move |shard| node(shard, Rc::clone(&inside)));
        for _ in 0..12 {
            let kind = if world.random().is_multiple_of(2) {
                CrashKind::Kill
            } else {
                CrashKind::PowerCut
            };
            world.crash_after_polls(id, 1 + world.random() % 800, kind);
            world.run_until(|world| !world.is_running(id), Duration::from_secs(20));
            assert!(!world.is_running(id), "a round waits for ever");
            world.restart(id);
        }
        *rounds.borrow_mut() += model.borrow().rounds;
    });
    if std::env::var_os("CHRONIK_SEED").is_none() {
        assert!(*rounds.borrow() > 20, "changes must come to an end now and then");
    }
}

#[test]
fn a_folder_that_a_killed_process_made_is_there_after_a_power_cut() {
    for operation in 1..24 {
        let written = Rc::new(Cell::new(false));
        let told = Rc::clone(&written);
        let world = World::new(operation, WorldOptions::default());
        let node = world.add_node("node", 1, move |shard| {
            let written = Rc::clone(&told);
            async move {
                let data = shard.create_dir("/data").await.expect("the folder can be made");
                let layout = Layout::open(&shard, &data, 1).await.expect("a layout");
                let dir = layout.wal_dir(&data, ShardId(0)).await.expect("a folder");
                dir.replace("file", b"durable").await.expect("it is written");
                written.set(true);
                std::future::pending::<()>().await;
            }
        });
        world.crash_at_disk_operation(node, operation, CrashKind::Kill);
        world.run_for(Duration::from_secs(1));
        world.restart(node);
        assert!(world.run_until(|_| written.get(), Duration::from_secs(1)));
        world.crash(node, CrashKind::PowerCut);
        let content = world.disk(node).read_file("/data/wal/1/0/file");
        assert_eq!(content.as_deref(), Some(&b"durable"[..]), "killed at operation {operation}");
    }
}

/// The logs that it does not name are the ones that count: they must not be taken for leftovers.
#[test]
fn an_old_layout_is_refused_and_nothing_is_removed() {
    rt::sim::run(1, |shard| async move {
        let data = shard.create_dir("/data").await.unwrap();
        let first = Layout::open(&shard, &data, 1).await.unwrap();
        first.wal_dir(&data, ShardId(0)).await.unwrap();
        let old = data.read("layout").await.unwrap();
        let place = |_| ShardId(0);
        let second = first.change(&shard, &data, 2, settings(2), place).await.unwrap();
        assert!(second.require_logs(&data).await.is_ok());
        let current = data.read("layout").await.unwrap();
        data.replace("layout", &old).await.unwrap();
        let refused = Layout::open(&shard, &data, 2).await.unwrap_err();
        assert!(matches!(refused, LayoutError::Old { named: 1, found: 2 }), "{refused}");
        // Without the copy, as in a folder from before there were any.
        let folder = data.open_subdir("wal").await.unwrap().open_subdir("2").await.unwrap();
        let copy = folder.read("layout").await.unwrap();
        assert_eq!(copy, current);
        folder.unlink("layout").await.unwrap();
        let refused = Layout::open(&shard, &data, 2).await.unwrap_err();
        assert!(matches!(refused, LayoutError::Absent { named: 1, found: 2 }), "{refused}");
        // Also beside what is left of the generation that it names.
        folder.replace("layout", &copy).await.unwrap();
        first.wal_dir(&data, ShardId(0)).await.unwrap();
        let refused = Layout::open(&shard, &data, 2).await.unwrap_err();
        assert!(matches!(refused, LayoutError::Old { .. }), "{refused}");
        data.replace("layout", &copy).await.unwrap();
        assert_eq!(Layout::open(&shard, &data, 2).await.unwrap(), second);
        assert!(second.require_logs(&data).await.is_ok());
        folder.remove_subdir_all("1").await.unwrap();
        let refused = second.require_logs(&data).await.unwrap_err();
        assert!(matches!(refused, LayoutError::LogMissing { shard: 1, .. }), "{refused}");
    });
}

#[test]
fn a_damaged_log_keeps_its_shards_until_the_damage_is_dealt_with() {
    rt::sim::run(1, |shard| async move {
        let data = shard.create_dir("/data").await.unwrap();
        let layout = Layout::open(&shard, &data, 1).await.unwrap();
        let dir = layout.wal_dir(&data, ShardId(0)).await.unwrap();
        let open = || Wal::open(&shard, dir.clone(), settings(1), layout.identity(ShardId(0)));
        let (wal, _) = open().await.unwrap();
        let state = HardState { term: Term(6), vote: ReplicaId(1), commit: Index(0) };
        wal.append(RecordRef::HardState { owner: owner(1), state }).expect("room");
        wal.wait_durable(wal.newest()).await.expect("durable");
        wal.stop().await;
        let log = format!("{:020}.wal", 1);
        let content = dir.read(&log).await.unwrap();
        let emptied = [&content[..4096], &vec![0; content.len() - 4096]].concat();
        dir.replace(&log, &emptied).await.unwrap();
        let change = || layout.change(&shard, &data, 2, settings(2), |_| ShardId(0));
        for settles in [false, true] {
            let refused = change().await.unwrap_err();
            assert!(matches!(refused, LayoutError::Lost { shard: 0, shards: 1, .. }), "{refused}");
            let (wal, recovered) = open().await.unwrap();
            assert!(recovered.report.lost.is_some());
            if settles {
                wal.loss_is_settled().expect("a fence is never refused");
            }
            wal.stop().await;
        }
        assert_eq!(change().await.unwrap().shards, 2);
    });
}

#[test]
fn leftovers_go_and_a_lost_layout_is_noticed() {
    rt::sim::run(1, |shard| async move {
        let data = shard.create_dir("/data").await.unwrap();
        let layout = Layout::open(&shard, &data, 2).await.unwrap();
        assert_eq!((layout.generation, layout.shards), (1, 2));
        layout.wal_dir(&data, ShardId(0)).await.unwrap();
        let leftover = Layout { generation: 2, ..layout };
        leftover.wal_dir(&data, ShardId(0)).await.unwrap();
        // What the file says wins over what is asked for.
        assert_eq!(Layout::open(&shard, &data, 5).await.unwrap(), layout);
        let wal = data.open_subdir("wal").await.unwrap();
        assert!(wal.exists("1").await.unwrap() && !wal.exists("2").await.unwrap());
        data.unlink("layout").await.unwrap();
        let error = Layout::open(&shard, &data, 2).await.unwrap_err();
        assert!(matches!(error, LayoutError::Missing), "{error}");
    });
}
