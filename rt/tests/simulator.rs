//! The simulator's own promises: what crashes do to disks, what the network does to streams, and
//! that a seed decides everything.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chronik_rt::sim::{CrashKind, NodeId, World, WorldOptions};
use chronik_rt::{FileOptions, ListenOptions, Mesh, Mutation, Shard, ShardId};

const DIRECT: FileOptions = FileOptions::READ_WRITE_DIRECT;
const HOUR: Duration = Duration::from_secs(3600);

/// A world with one node that runs `main` once per life until it returns.
fn node<M, F>(seed: u64, main: M) -> (World, NodeId)
where
    M: Fn(Shard) -> F + 'static,
    F: std::future::Future<Output = ()> + 'static,
{
    let world = World::new(seed, WorldOptions::default());
    let node = world.add_node("a", 1, main);
    (world, node)
}

fn finish(world: &World, node: NodeId) {
    assert!(world.run_until(|w| !w.is_running(node), HOUR), "seed {}", world.seed());
}

async fn block(shard: &Shard, byte: u8, blocks: usize) -> chronik_rt::Buf {
    let mut buf = shard.buffer(blocks * 4096);
    buf.resize_zeroed(blocks * 4096);
    buf.fill(byte);
    buf
}

/// What was synced, and only that, is certain after a power cut; everything else has every fate.
#[test]
fn a_power_cut_keeps_what_was_synced_and_tears_the_rest() {
    let mut fates = BTreeSet::new();
    for seed in 0..200 {
        let (world, a) = node(seed, |shard| async move {
            let dir = shard.create_dir("/d").await.expect("directory");
            let file = dir.create_file("f", DIRECT).await.expect("file");
            dir.sync().await.expect("sync");
            file.write_at(block(&shard, 1, 2).await, 0).await.expect("write");
            file.sync().await.expect("sync");
            file.write_at(block(&shard, 2, 2).await, 8192).await.expect("write");
            std::future::pending::<()>().await;
        });
        world.run_for(Duration::from_secs(1));
        world.crash(a, CrashKind::PowerCut);
        let content = world.disk(a).read_file("/d/f").expect("its entry was synced");
        assert!(content.len() >= 8192 && content[..8192].iter().all(|byte| *byte == 1));
        let tail = &content[8192..];
        for sector in tail.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "sectors are atomic");
        }
        let written = tail.chunks(512).filter(|sector| sector[0] == 2).count();
        fates.insert(match (tail.len(), written) {
            (0, _) => "lost",
            (8192, 16) => "kept",
            (_, 0) => "length without bytes",
            _ => "torn",
        });
    }
    assert_eq!(fates.len(), 4, "{fates:?}");
}

/// An unlinked file lives while a process has it open, and a dead process has nothing open.
#[test]
fn a_crash_closes_the_files_that_were_open() {
    for kind in [CrashKind::Kill, CrashKind::PowerCut] {
        let (world, a) = node(1, |shard| async move {
            let dir = shard.create_dir("/d").await.expect("directory");
            let file = dir.create_file("f", DIRECT).await.expect("file");
            file.write_at(block(&shard, 1, 2).await, 0).await.expect("write");
            dir.unlink("f").await.expect("unlink");
            dir.sync().await.expect("sync");
            std::future::pending::<()>().await;
            drop(file);
        });
        let empty = world.disk(a).space().available_bytes;
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.disk(a).space().available_bytes, empty - 8192, "it is open");
        world.crash(a, kind);
        assert_eq!(world.disk(a).space().available_bytes, empty, "{kind:?}");
    }
}

#[test]
fn a_dsync_write_is_durable_when_it_is_answered() {
    for seed in 0..50 {
        let (world, a) = node(seed, |shard| async move {
            let dir = shard.create_dir("/d").await.expect("directory");
            let options = FileOptions { dsync: true, ..DIRECT };
            let file = dir.create_file("f", options).await.expect("file");
            dir.sync().await.expect("sync");
            // An older write of the page cache must not come back over a newer durable one.
            let cached = dir.open_file("f", DIRECT).await.expect("file");
            cached.write_at(block(&shard, 1, 1).await, 0).await.expect("write");
            file.write_at(block(&shard, 2, 1).await, 0).await.expect("write");
            std::future::pending::<()>().await;
        });
        world.run_for(Duration::from_secs(1));
        world.crash(a, CrashKind::PowerCut);
        let content = world.disk(a).read_file("/d/f").expect("its entry was synced");
        assert_eq!(content, [2; 4096], "seed {seed}");
    }
}

#[test]
fn a_killed_process_keeps_what_was_answered() {
    for seed in 0..50 {
        let (world, a) = node(seed, |shard| async move {
            let dir = shard.create_dir("/d").await.expect("directory");
            let file = dir.create_file("f", DIRECT).await.expect("file");
            file.write_at(block(&shard, 1, 1).await, 0).await.expect("write");
            drop(file.write_at(block(&shard, 2, 1).await, 0));
            std::future::pending::<()>().await;
        });
        let disk = world.disk(a);
        let wrote = |_: &World| disk.read_file("/d/f").is_some_and(|content| content == [1; 4096]);
        assert!(world.run_until(wrote, HOUR));
        world.crash(a, CrashKind::Kill);
        let content = world.disk(a).read_file("/d/f").expect("names survive");
        assert_eq!(content.len(), 4096);
        assert!(content.iter().all(|byte| matches!(byte, 1 | 2)));
    }
}

#[test]
fn directory_entries_need_their_sync() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let (world, a) = node(seed, |shard| async move {
            let dir = shard.create_dir("/d").await.expect("directory");
            let sub = dir.create_subdir("sub").await.expect("directory");
            dir.create_file("old", DIRECT).await.expect("file");
            dir.sync().await.expect("sync");
            dir.create_file("new", DIRECT).await.expect("file");
            dir.rename_into("old", &sub, "moved").await.expect("rename");
            std::future::pending::<()>().await;
        });
        world.run_for(Duration::from_secs(1));
        world.crash(a, CrashKind::PowerCut);
        let files = world.disk(a).files();
        let files: Vec<_> = files.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let old = files.contains(&"/d/old".to_owned());
        let moved = files.contains(&"/d/sub/moved".to_owned());
        assert!(old != moved, "a rename is atomic: {files:?}");
        seen.insert((files.contains(&"/d/new".to_owned()), moved));
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn replace_survives_a_power_cut_at_every_step() {
    let mut outcomes = BTreeSet::new();
    for operation in 1..60 {
        let (world, a) = node(operation, |shard| async move {
            let dir = shard.create_dir("/d").await.expect("directory");
            for text in ["one", "two", "three"] {
                if dir.exists("f").await.expect("exists") && text == "one" {
                    return;
                }
                dir.replace("f", text.as_bytes()).await.expect("replace");
            }
        });
        world.crash_at_disk_operation(a, operation, CrashKind::PowerCut);
        finish(&world, a);
        let content = world.disk(a).read_file("/d/f");
        let text = content.map(|content| String::from_utf8(content).expect("text"));
        assert!(
            matches!(text.as_deref(), None | Some("one" | "two" | "three")),
            "{text:?} at operation {operation}"
        );
        outcomes.insert(text);
    }
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
}

#[test]
fn destructors_of_a_crashed_life_do_nothing() {
    struct WriteOnDrop(Shard, chronik_rt::File);
    impl Drop for WriteOnDrop {
        fn drop(&mut self) {
            let mut buf = self.0.buffer(4096);
            buf.resize_zeroed(4096);
            drop(self.1.write_at(buf, 0));
            self.0.spawn(async {}).detach();
        }
    }
    let (world, a) = node(1, |shard| async move {
        let dir = shard.create_dir("/d").await.expect("directory");
        let file = dir.create_file("f", DIRECT).await.expect("file");
        dir.sync().await.expect("sync");
        let _guard = WriteOnDrop(shard.clone(), file);
        std::future::pending::<()>().await;
    });
    world.run_for(Duration::from_secs(1));
    let before = world.disk(a).operations();
    world.crash(a, CrashKind::Kill);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.disk(a).operations(), before);
    assert_eq!(world.disk(a).read_file("/d/f"), Some(Vec::new()));
}

#[test]
fn disks_fail_and_fill_as_told() {
    let (world, a) = node(1, |shard| async move {
        let dir = shard.create_dir("/d").await.expect("directory");
        let file = dir.create_file("f", DIRECT).await.expect("file");
        dir.sync().await.expect("sync");
        let code = |error: std::io::Error| chronik_rt::os_code(&error);
        let mut errors = Vec::new();
        for round in 0.. {
            shard.sleep(Duration::from_millis(100)).await;
            let written = file.write_at(block(&shard, 7, 1).await, round * 4096).await;
            errors.extend(written.err().map(code));
            errors.extend(file.sync().await.err().map(code));
            errors.extend(file.read_at(0, 1).await.err().map(code));
            if errors.len() == 4 {
                break;
            }
        }
        let eio = Some(libc::EIO);
        assert_eq!(errors, [eio, eio, eio, Some(libc::ENOSPC)]);
        shard.common(|| ());
    });
    world.run_for(Duration::from_millis(500));
    let disk = world.disk(a);
    let once = |change: &dyn Fn(&mut chronik_rt::sim::DiskFaults)| {
        let mut faults = disk.faults();
        change(&mut faults);
        disk.set_faults(faults);
        world.run_for(Duration::from_millis(500));
    };
    once(&|faults| faults.fail_next_write = Some(libc::EIO));
    once(&|faults| faults.fail_next_sync = Some(libc::EIO));
    once(&|faults| faults.fail_next_read = Some(libc::EIO));
    assert!(world.is_running(a));
    disk.set_capacity(disk.space().total_bytes - disk.space().available_bytes);
    finish(&world, a);
}

#[test]
fn allocated_room_is_there_on_a_full_disk() {
    let (world, a) = node(1, |shard| async move {
        let dir = shard.create_dir("/d").await.expect("directory");
        let file = dir.create_file("f", DIRECT).await.expect("file");
        let kind = |error: std::io::Error| error.kind();
        assert_eq!(file.allocate(40_960).await.map_err(kind), Err(std::io::ErrorKind::StorageFull));
        file.allocate(16_384).await.expect("that much is there");
        file.write_at(block(&shard, 1, 4).await, 0).await.expect("room that was taken");
        let beyond = file.write_at(block(&shard, 1, 1).await, 16_384).await.map(drop);
        assert_eq!(beyond.map_err(kind), Err(std::io::ErrorKind::StorageFull));
    });
    world.disk(a).set_capacity(16_384);
    finish(&world, a);
}

#[test]
fn blocks_that_are_there_are_written_on_a_disk_that_is_more_than_full() {
    let (world, a) = node(1, |shard| async move {
        let dir = shard.create_dir("/d").await.expect("directory");
        let file = dir.create_file("f", DIRECT).await.expect("file");
        file.write_at(block(&shard, 1, 4).await, 0).await.expect("there is room");
        shard.sleep(Duration::from_millis(100)).await;
        file.write_at(block(&shard, 2, 4).await, 0).await.expect("its own blocks");
        let beyond = file.write_at(block(&shard, 1, 1).await, 16_384).await.map(drop);
        let kind = beyond.map_err(|error| error.kind());
        assert_eq!(kind, Err(std::io::ErrorKind::StorageFull));
    });
    world.run_for(Duration::from_millis(50));
    world.disk(a).set_capacity(4096);
    finish(&world, a);
}

/// Writes under a sync that fails; what is then on the disk is read, and is not durable.
fn forgotten(seed: u64, dsync: bool, write_again: bool) -> (World, NodeId) {
    let (world, a) = node(seed, move |shard| async move {
        let dir = shard.create_dir("/d").await.expect("directory");
        let options = FileOptions { dsync, ..DIRECT };
        let file = dir.create_file("f", options).await.expect("file");
        dir.sync().await.expect("sync");
        shard.sleep(Duration::from_millis(100)).await;
        let written = file.write_at(block(&shard, 1, 4).await, 0).await;
        assert_eq!(written.is_err(), dsync);
        assert!(dsync || file.sync().await.is_err());
        assert_eq!(file.read_at(0, 16_384).await.expect("read")[..], [1; 16_384]);
        if write_again {
            file.write_at(block(&shard, 1, 4).await, 0).await.expect("write");
        }
        file.sync().await.expect("the second sync says that all is well");
        std::future::pending::<()>().await;
    });
    world.run_for(Duration::from_millis(50));
    let mut faults = world.disk(a).faults();
    faults.fail_next_sync = Some(libc::EIO);
    world.disk(a).set_faults(faults);
    world.run_for(Duration::from_secs(1));
    assert!(world.is_running(a));
    (world, a)
}

#[test]
fn a_failed_sync_never_makes_its_bytes_durable() {
    for dsync in [false, true] {
        let mut lost = 0;
        for seed in 0..40 {
            let (world, a) = forgotten(seed, dsync, false);
            assert_eq!(world.disk(a).read_file("/d/f"), Some(vec![1; 16_384]));
            world.crash(a, CrashKind::PowerCut);
            let content = world.disk(a).read_file("/d/f").expect("entry");
            lost += u32::from(content != [1; 16_384]);
        }
        assert!(lost > 10, "{lost}");
    }
}

#[test]
fn bytes_of_a_failed_sync_are_durable_when_they_were_written_again() {
    for seed in 0..40 {
        let (world, a) = forgotten(seed, seed % 2 == 0, true);
        world.crash(a, CrashKind::PowerCut);
        assert_eq!(world.disk(a).read_file("/d/f"), Some(vec![1; 16_384]));
    }
}

#[test]
fn bit_rot_and_truncation_are_seen() {
    let (world, a) = node(1, |shard| async move {
        let dir = shard.create_dir("/d").await.expect("directory");
        if !dir.exists("f").await.expect("exists") {
            dir.replace("f", b"hello").await.expect("replace");
            return;
        }
        assert_eq!(&dir.read("f").await.expect("read")[..], b"hmll");
        dir.replace("seen", b"").await.expect("replace");
    });
    finish(&world, a);
    assert!(world.disk(a).flip_bits("/d/f", 1, b'e' ^ b'm'));
    assert!(world.disk(a).truncate_file("/d/f", 4));
    assert!(!world.disk(a).truncate_file("/d/g", 4));
    world.restart(a);
    finish(&world, a);
    assert!(world.disk(a).read_file("/d/seen").is_some());
    assert!(world.disk(a).remove_file("/d/seen"));
    assert!(world.disk(a).read_file("/d/seen").is_none());
}

#[test]
fn an_image_is_what_a_crash_would_leave_and_the_node_goes_on() {
    let write = |shard: Shard| async move {
        let dir = shard.create_dir("/d").await.expect("directory");
        let file = dir.create_file("f", DIRECT).await.expect("file");
        dir.sync().await.expect("sync");
        file.write_at(block(&shard, 1, 1).await, 0).await.expect("write");
        file.sync().await.expect("sync");
        file.write_at(block(&shard, 2, 1).await, 0).await.expect("write");
        shard.sleep(Duration::from_secs(1)).await;
        file.sync().await.expect("sync");
        std::future::pending::<()>().await;
    };
    let (world, a) = node(7, write);
    world.run_for(Duration::from_millis(500));
    let trace = world.trace_hash();
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let image = world.disk(a).after(CrashKind::PowerCut, seed);
        let (other, b) = node(1, |_| std::future::pending::<()>());
        for _ in 0..2 {
            other.disk(b).replace(&image);
            let content = other.disk(b).read_file("/d/f").expect("its entry was synced");
            seen.insert((content[0], content[4095]));
        }
    }
    assert_eq!(seen.len(), 4, "old, new and torn: {seen:?}");
    let killed = world.disk(a).after(CrashKind::Kill, 0);
    assert_eq!(world.trace_hash(), trace, "nothing has happened to the node");
    world.run_for(Duration::from_secs(1));
    world.crash(a, CrashKind::PowerCut);
    assert_eq!(world.disk(a).read_file("/d/f"), Some(vec![2; 4096]), "synced since");
    world.disk(a).replace(&killed);
    assert_eq!(world.disk(a).read_file("/d/f"), Some(vec![2; 4096]), "a kill keeps the cache");
    assert!(world.disk(a).write_file("/d/f", b"new") && world.disk(a).write_file("/d/g", b"g"));
    world.crash(a, CrashKind::PowerCut);
    assert_eq!(world.disk(a).read_file("/d/f"), Some(b"new".to_vec()));
    assert!(!world.disk(a).write_file("/nowhere/f", b""));
}

#[test]
fn a_slow_disk_is_slow_and_the_wall_clock_jumps() {
    let (world, a) = node(1, |shard| async move {
        let wall = shard.wall_ms();
        let start = shard.now();
        shard.sleep(Duration::from_millis(10)).await;
        let dir = shard.create_dir("/d").await.expect("directory");
        assert!(shard.now() - start > Duration::from_secs(2));
        assert!(shard.wall_ms() < wall - 50_000, "back by a minute");
        dir.sync().await.expect("sync");
    });
    let mut faults = world.disk(a).faults();
    faults.slow_by_ns = 2_000_000_000;
    world.disk(a).set_faults(faults);
    world.run_for(Duration::from_millis(1));
    world.jump_wall_clock(a, -60_000);
    finish(&world, a);
}

/// A server that echoes, restarted as often as it falls, and a client that connects until it got
/// `rounds` echoes on connections that may break at any time.
fn echo_world(seed: u64, options: WorldOptions, rounds: u32) -> (World, NodeId, NodeId) {
    let world = World::new(seed, options);
    let server = world.add_node("server", 2, |shard| async move {
        let any: SocketAddr = "0.0.0.0:9092".parse().expect("address");
        let options = ListenOptions { reuse_port: true, ..ListenOptions::new(any) };
        let listener = shard.listen(options).expect("listen");
        loop {
            let stream = shard.adopt(listener.accept().await.expect("accept"));
            let echo = async move {
                let mut buffer = BytesMut::new();
                while let Ok(n) = stream.read_into(&mut buffer).await {
                    let parts = &mut vec![buffer.split().freeze()];
                    if n == 0 || stream.write_all(parts).await.is_err() {
                        break;
                    }
                }
            };
            shard.spawn(echo).detach();
        }
    });
    let client = world.add_node("client", 1, move |shard| async move {
        let to = shard.resolve("server", 9092).await.expect("a node's name")[0];
        let mut done = 0;
        while done < rounds {
            let Ok(stream) = shard.connect(to).await else {
                shard.sleep(Duration::from_millis(100)).await;
                continue;
            };
            while done < rounds {
                let text = Bytes::from(format!("round {done} of {rounds}"));
                if stream.write_all(&mut vec![text.clone()]).await.is_err() {
                    break;
                }
                let mut buffer = BytesMut::new();
                let answer = async {
                    while buffer.len() < text.len() {
                        if !matches!(stream.read_into(&mut buffer).await, Ok(n) if n > 0) {
                            return false;
                        }
                    }
                    true
                };
                if shard.timeout(Duration::from_secs(10), answer).await != Ok(true) {
                    break;
                }
                assert_eq!(buffer, text);
                done += 1;
            }
        }
    });
    (world, server, client)
}

#[test]
fn clients_get_through_cuts_partitions_and_crashes() {
    for seed in 0..20 {
        let options = WorldOptions { net_cut_per_million: 20_000, ..WorldOptions::default() };
        let (world, server, client) = echo_world(seed, options, 300);
        for round in 0..6 {
            world.run_for(Duration::from_millis(5 + world.random() % 20));
            match round % 6 {
                0 => world.crash(server, CrashKind::Kill),
                1 => world.block_link(server, client),
                2 => world.block_link(client, server),
                3 => world.cut_connections(server, client),
                4 => world.crash(server, CrashKind::PowerCut),
                _ => {}
            }
            world.run_for(Duration::from_millis(world.random() % 500));
            world.heal_all();
            if !world.is_running(server) {
                world.restart(server);
            }
        }
        finish(&world, client);
    }
}

/// The same seed gives the same run; another seed another one.
#[test]
fn a_seed_decides_everything() {
    let run = |seed| {
        let options = WorldOptions { net_cut_per_million: 5_000, ..WorldOptions::default() };
        let (world, server, client) = echo_world(seed, options, 100);
        world.crash_after_polls(server, 200, CrashKind::PowerCut);
        assert!(world.run_until(|w| !w.is_running(server), HOUR));
        world.restart(server);
        finish(&world, client);
        (world.trace_hash(), world.now())
    };
    let mut hashes = BTreeSet::new();
    for seed in 0..20 {
        let first = run(seed);
        assert_eq!(first, run(seed), "seed {seed}");
        hashes.insert(first.0);
    }
    assert_eq!(hashes.len(), 20);
}

/// Several nodes with several shards each, with rings inside and streams between.
#[test]
fn many_nodes_with_many_shards() {
    let totals = Rc::new(RefCell::new(Vec::new()));
    let world = World::new(9, WorldOptions::default());
    let nodes: Vec<NodeId> = (0..3)
        .map(|number| {
            let totals = Rc::clone(&totals);
            world.add_node(&format!("n{number}"), 3, move |shard| {
                let totals = Rc::clone(&totals);
                async move { sum_of_all(shard, number, &totals).await }
            })
        })
        .collect();
    for node in nodes {
        finish(&world, node);
    }
    // Each shard of each node heard of all nine.
    assert_eq!(*totals.borrow(), [45; 9]);
}

/// Tells its number to every shard of every node, through the shard 0 of the other nodes.
async fn sum_of_all(shard: Shard, node: u64, totals: &RefCell<Vec<u64>>) {
    let mesh = shard.common(|| Mesh::<u64>::new(shard.count(), 2));
    let port = mesh.join(&shard);
    let mine = node * 3 + u64::from(shard.id().0) + 1;
    let own: Vec<_> = (0..shard.count()).map(|to| port.sender(ShardId(to))).collect();
    if shard.id().0 == 0 {
        let any: SocketAddr = "0.0.0.0:1000".parse().expect("address");
        let listener = shard.listen(ListenOptions::new(any)).expect("listen");
        let own = own.clone();
        let inner = shard.clone();
        let receive = async move {
            loop {
                let stream = inner.adopt(listener.accept().await.expect("accept"));
                let mut buffer = BytesMut::new();
                while stream.read_into(&mut buffer).await.expect("read") > 0 {}
                for sender in &own {
                    sender.send(u64::from(buffer[0])).await;
                }
            }
        };
        shard.spawn(receive).detach();
    }
    for sender in own {
        shard.spawn(async move { sender.send(mine).await }).detach();
    }
    for other in (0..3).filter(|other| *other != node) {
        let to = shard.resolve(&format!("n{other}"), 1000).await.expect("name")[0];
        let stream = loop {
            match shard.connect(to).await {
                Ok(stream) => break stream,
                Err(_) => shard.sleep(Duration::from_millis(10)).await,
            }
        };
        stream.write_all(&mut vec![Bytes::from(vec![mine as u8])]).await.expect("write");
    }
    let mut total = 0;
    for _ in 0..9 {
        total += port.recv().await.1;
    }
    totals.borrow_mut().push(total);
    // Others may still need this node's shard 0.
    shard.sleep(Duration::from_secs(10)).await;
}

#[test]
fn a_crash_comes_at_any_poll_and_common_values_end_with_a_life() {
    for polls in 1..60 {
        let lives = Rc::new(Cell::new(0));
        let count = Rc::clone(&lives);
        let (world, a) = node(polls, move |shard| {
            count.set(count.get() + 1);
            async move {
                let tag = shard.common(|| std::sync::Arc::new(()));
                assert_eq!(std::sync::Arc::strong_count(&tag), 2, "of this life only");
                let dir = shard.create_dir("/d").await.expect("directory");
                for i in 0..10_u8 {
                    dir.replace("f", &[i; 100]).await.expect("replace");
                    shard.yield_now().await;
                }
            }
        });
        world.crash_after_polls(a, polls, CrashKind::PowerCut);
        finish(&world, a);
        let content = world.disk(a).read_file("/d/f").unwrap_or_default();
        assert!(content.iter().all(|byte| *byte == content[0]));
        world.restart(a);
        finish(&world, a);
        assert_eq!(world.disk(a).read_file("/d/f"), Some(vec![9; 100]));
        assert_eq!(lives.get(), 2);
    }
}

#[test]
fn mutations_are_switches_of_the_world() {
    let (world, a) = node(1, |shard| async move {
        assert!(shard.broken(Mutation::IgnoreChecksum));
        assert!(!shard.broken(Mutation::SkipVoteSync));
    });
    world.set_mutation(Mutation::IgnoreChecksum, true);
    world.set_mutation(Mutation::SkipVoteSync, true);
    world.set_mutation(Mutation::SkipVoteSync, false);
    finish(&world, a);
    let bits: BTreeSet<u32> = Mutation::ALL.iter().map(|mutation| *mutation as u32).collect();
    assert_eq!(bits.len(), Mutation::ALL.len());
    chronik_rt::uring::run_one(|shard| async move {
        assert!(Mutation::ALL.iter().all(|mutation| !shard.broken(*mutation)));
    });
}

#[test]
#[should_panic(expected = "waits for something that never happens")]
fn a_body_that_is_stuck_is_reported() {
    chronik_rt::sim::run(1, |_| std::future::pending::<()>());
}
