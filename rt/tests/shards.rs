//! Several shards: rings, hand-over of connections and memory, common values, ends and panics,
//! on both backends where both apply.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chronik_rt::sim::{World, WorldOptions};
use chronik_rt::uring::{launch, LaunchError, Options};
use chronik_rt::{
    either, AcceptedStream, Either, FileOptions, ListenOptions, Mesh, Shard, ShardId,
};

/// Runs `main` on each shard of one node on both backends, until all have returned.
fn on_both<M, F>(shards: u16, main: M)
where
    M: Fn(Shard) -> F + Send + Clone + 'static,
    F: Future<Output = ()> + 'static,
{
    for seed in 0..5 {
        let world = World::new(seed, WorldOptions::default());
        let node = world.add_node("node", shards, main.clone());
        let limit = Duration::from_secs(3600);
        assert!(world.run_until(|w| !w.is_running(node), limit), "stuck with seed {seed}");
    }
    on_uring(shards, main).expect("shards");
}

fn on_uring<M, F>(shards: u16, main: M) -> Result<(), LaunchError>
where
    M: Fn(Shard) -> F + Send + Clone + 'static,
    F: Future<Output = ()> + 'static,
{
    launch(Options { shards: Some(shards), cpus: None }, main)?.join()
}

/// More shards than the machine has cores, rings that are full most of the time.
#[test]
fn every_shard_reaches_every_shard_in_order() {
    const MESSAGES: u64 = 500;
    on_both(4, |shard| async move {
        let mesh = shard.common(|| Mesh::<u64>::new(shard.count(), 8));
        let port = mesh.join(&shard);
        let senders = (0..shard.count()).map(|to| {
            let sender = port.sender(ShardId(to));
            shard.spawn(async move {
                for i in 0..MESSAGES {
                    sender.send(i).await;
                }
            })
        });
        let senders: Vec<_> = senders.collect();
        let mut next = vec![0; usize::from(shard.count())];
        for _ in 0..MESSAGES * u64::from(shard.count()) {
            let (from, value) = port.recv().await;
            let expected = &mut next[usize::from(from.0)];
            assert_eq!(value, *expected, "from {from}");
            *expected += 1;
        }
        for sender in senders {
            sender.await;
        }
    });
}

/// Dependent messages wake shards that sleep.
#[test]
fn sleeping_shards_are_woken() {
    on_both(2, |shard| async move {
        let mesh = shard.common(|| Mesh::<u32>::new(shard.count(), 2));
        let port = mesh.join(&shard);
        let other = port.sender(ShardId(1 - shard.id().0));
        for round in 0..200 {
            if shard.id().0 == 0 {
                if round % 20 == 0 {
                    shard.sleep(Duration::from_millis(2)).await;
                }
                other.send(round).await;
                assert_eq!(port.recv().await.1, round);
            } else {
                let (_, value) = port.recv().await;
                other.send(value).await;
            }
        }
    });
}

#[test]
fn memory_is_read_and_freed_on_other_shards_and_threads() {
    on_both(2, |shard| async move {
        let mesh = shard.common(|| Mesh::<Bytes>::new(shard.count(), 64));
        let port = mesh.join(&shard);
        let other = port.sender(ShardId(1 - shard.id().0));
        for round in 0..300_u32 {
            let mut buf = shard.buffer(16_384);
            buf.extend_from_slice(&round.to_le_bytes());
            let bytes = buf.freeze();
            let kept = bytes.clone();
            other.send(bytes).await;
            let (_, received) = port.recv().await;
            assert_eq!(received[..], round.to_le_bytes());
            if round % 50 == 0 {
                let part = received.slice(1..3);
                drop(received);
                shard.blocking(move || drop(part)).await.expect("no panic");
            }
            assert_eq!(kept[..], round.to_le_bytes());
        }
    });
}

#[test]
fn an_accepted_connection_moves_to_another_shard() {
    on_both(2, |shard| async move {
        let address = shard.common(|| Arc::new(Mutex::new(None::<SocketAddr>)));
        let mesh = shard.common(|| Mesh::<AcceptedStream>::new(shard.count(), 4));
        let port = mesh.join(&shard);
        if shard.id().0 == 0 {
            let any = "127.0.0.1:0".parse().expect("address");
            let listener = shard.listen(ListenOptions::new(any)).expect("listen");
            *address.lock().expect("lock") = Some(listener.local_addr());
            let accepted = listener.accept().await.expect("accept");
            port.sender(ShardId(1)).send(accepted).await;
            // Dropped without a shard: the client sees the end.
            drop(listener.accept().await.expect("accept"));
        } else {
            let to = loop {
                if let Some(to) = *address.lock().expect("lock") {
                    break to;
                }
                shard.sleep(Duration::from_millis(1)).await;
            };
            let client = shard.connect(to).await.expect("connect");
            let server = shard.adopt(port.recv().await.1);
            assert_eq!(server.peer_addr(), client.local_addr());
            client.write_all(&mut vec![Bytes::from_static(b"x")]).await.expect("write");
            let mut buffer = BytesMut::new();
            assert_eq!(server.read_into(&mut buffer).await.expect("read"), 1);
            let unwanted = shard.connect(to).await.expect("connect");
            let mut buffer = BytesMut::new();
            assert_eq!(unwanted.read_into(&mut buffer).await.unwrap_or(0), 0);
        }
    });
}

#[test]
fn common_values_are_made_once() {
    let made = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&made);
    let main = move |shard: Shard| {
        let count = Arc::clone(&count);
        async move {
            let value = shard.common(|| Arc::new(count.fetch_add(1, Ordering::SeqCst)));
            shard.sleep(Duration::from_millis(1)).await;
            assert_eq!(*shard.common(|| Arc::new(99_u64)), *value);
        }
    };
    on_uring(3, main).expect("shards");
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

#[test]
fn a_panic_stops_all_shards_and_is_reported() {
    let result = on_uring(2, |shard| async move {
        if shard.id().0 == 1 {
            shard.spawn(async { panic!("on purpose") }).detach();
        }
        std::future::pending::<()>().await;
    });
    let error = result.expect_err("a shard panicked").to_string();
    assert!(error.contains("shard 1") && error.contains("on purpose"), "{error}");
}

#[test]
fn stopping_drops_tasks_after_their_writes() {
    let root = env!("CARGO_TARGET_TMPDIR");
    let dir = tempfile::Builder::new().tempdir_in(root).expect("temporary directory");
    let path = dir.path().to_owned();
    on_uring(1, move |shard| {
        let path = path.clone();
        async move {
            let dir = shard.create_dir(path).await.expect("directory");
            let options = chronik_rt::FileOptions::READ_WRITE_DIRECT;
            let file = dir.create_file("f", options).await.expect("file");
            for i in 0..32 {
                let mut buf = shard.buffer(65_536);
                buf.resize_zeroed(65_536);
                buf.fill(i);
                drop(file.write_at(buf, u64::from(i) * 65_536));
            }
            shard.stop_node();
            std::future::pending::<()>().await;
        }
    })
    .expect("a clean end");
    let content = std::fs::read(dir.path().join("f")).expect("file");
    assert_eq!(content.len(), 32 * 65_536);
    for (i, part) in content.chunks(65_536).enumerate() {
        assert!(part.iter().all(|byte| usize::from(*byte) == i));
    }
}

/// Busy neighbours do not stop timers, I/O or messages from being served.
#[test]
fn a_busy_shard_serves_its_timers() {
    on_uring(2, |shard| async move {
        let spinning = shard.clone();
        let hog = shard.spawn(async move {
            loop {
                spinning.yield_now().await;
            }
        });
        let start = shard.now();
        for _ in 0..20 {
            shard.sleep(Duration::from_millis(1)).await;
        }
        let took = shard.now() - start;
        assert!(took < Duration::from_secs(5), "{took:?}");
        drop(hog);
    })
    .expect("shards");
}

/// A process with idle shards uses next to no CPU.
#[test]
fn idle_shards_sleep() {
    let used = Arc::new(AtomicU64::new(0));
    let result = Arc::clone(&used);
    // A child would be cleaner, but the threads' own clocks tell the same.
    on_uring(2, move |shard| {
        let result = Arc::clone(&result);
        async move {
            shard.sleep(Duration::from_millis(50)).await;
            let before = thread_cpu_ns();
            shard.sleep(Duration::from_millis(500)).await;
            result.fetch_max(thread_cpu_ns() - before, Ordering::SeqCst);
        }
    })
    .expect("shards");
    let used = Duration::from_nanos(used.load(Ordering::SeqCst));
    assert!(used < Duration::from_millis(10), "an idle shard used {used:?} in 500 ms");
}

fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[test]
fn bytes_outlive_their_shard() {
    let (whole, read) = chronik_rt::uring::run_one(|shard| async move {
        let root = env!("CARGO_TARGET_TMPDIR");
        let dir = tempfile::Builder::new().tempdir_in(root).expect("temporary directory");
        let dir = shard.create_dir(dir.path()).await.expect("directory");
        let options = chronik_rt::FileOptions::READ_WRITE_DIRECT;
        let file = dir.create_file("f", options).await.expect("file");
        let mut buf = shard.buffer(4096);
        buf.resize_zeroed(4096);
        buf.fill(5);
        let buf = file.write_at(buf, 0).await.expect("write");
        (buf.freeze(), file.read_at(0, 4096).await.expect("read"))
    });
    assert_eq!((&whole[..], &read[..]), (&[5; 4096][..], &[5; 4096][..]));
}

#[test]
fn a_written_buffer_can_be_used_again_and_grow() {
    chronik_rt::uring::run_one(|shard| async move {
        let root = env!("CARGO_TARGET_TMPDIR");
        let dir = tempfile::Builder::new().tempdir_in(root).expect("temporary directory");
        let dir = shard.create_dir(dir.path()).await.expect("directory");
        let options = chronik_rt::FileOptions::READ_WRITE_DIRECT;
        let file = dir.create_file("f", options).await.expect("file");
        let mut buf = shard.buffer(16_384);
        for (round, blocks) in [1, 4, 2, 3, 4, 1].into_iter().enumerate() {
            buf.resize_zeroed(0);
            buf.resize_zeroed(blocks * 4096);
            buf.fill(round as u8 + 1);
            let position = round as u64 * 16_384;
            buf = file.write_at(buf, position).await.expect("write");
            assert_eq!((buf.len(), buf.capacity()), (blocks * 4096, 16_384));
            let back = file.read_at(position, 16_384).await.expect("read");
            assert_eq!(&back[..], &buf[..]);
        }
    });
}

/// A CPU that does not exist leaves the shard unbound; it runs all the same.
#[test]
fn shards_run_without_their_cpu() {
    let options = Options { shards: Some(1), cpus: Some(vec![4000]) };
    let running = launch(options, |shard| async move { shard.yield_now().await });
    running.expect("shards").join().expect("a clean end");
    assert!(Options::default().shard_count() >= 1);
    assert_eq!(Options { shards: Some(0), cpus: None }.shard_count(), 1);
}

/// The ring's answer to an opening that nobody waits for any more is a descriptor: it is closed.
#[test]
fn a_dropped_opening_leaves_no_descriptor() {
    let open = |path: &std::path::Path| {
        let descriptors = std::fs::read_dir("/proc/self/fd").expect("descriptors");
        let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        targets.filter(|target| target == path).count()
    };
    chronik_rt::uring::run_one(move |shard| async move {
        let root = env!("CARGO_TARGET_TMPDIR");
        let dir = tempfile::Builder::new().tempdir_in(root).expect("temporary directory");
        let (path, name) = (dir.path().join("given-up"), "given-up");
        let dir = shard.create_dir(dir.path()).await.expect("directory");
        for _ in 0..20 {
            let opening = dir.create_file(name, FileOptions::READ_WRITE_DIRECT);
            // Begun, and then dropped.
            assert!(matches!(either(opening, async {}).await, Either::Right(())));
            while !dir.exists(name).await.expect("look up") {
                shard.sleep(Duration::from_millis(1)).await;
            }
            for _ in 0..1000 {
                if open(&path) == 0 {
                    break;
                }
                shard.sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(open(&path), 0);
            let file = dir.open_file(name, FileOptions::READ).await.expect("open");
            assert_eq!(open(&path), 1);
            drop(file);
            dir.unlink(name).await.expect("unlink");
        }
    });
}
