//! What the leaves promise, checked on both backends: every case runs on the simulator under a
//! few seeds and on io_uring against a temporary directory and the loopback interface.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chronik_rt::{
    either, join_all, Either, FileOptions, ListenOptions, Semaphore, Shard, Stream, BLOCK_BYTES,
};

/// Runs a case on both backends.
macro_rules! conform {
    ($($case:ident),* $(,)?) => {
        mod simulated {
            $(#[test]
            fn $case() {
                for seed in 0..10 {
                    chronik_rt::sim::run(seed, |shard| super::$case(shard, "/data".into()));
                }
            })*
        }
        mod io_uring {
            $(#[test]
            fn $case() {
                // Not tmpfs, where direct I/O does not exist.
                let root = env!("CARGO_TARGET_TMPDIR");
                let dir = tempfile::Builder::new().tempdir_in(root).expect("temporary directory");
                let path = dir.path().to_owned();
                chronik_rt::uring::run_one(move |shard| super::$case(shard, path));
            })*
        }
    };
}

conform!(
    spawned_tasks_run_and_are_cancelled,
    timers_fire_in_order,
    timeout_drops_the_future,
    blocking_returns_values_and_panics,
    direct_writes_are_read_back,
    allocated_room_reads_as_zeros_and_keeps_what_was_there,
    a_dropped_write_still_happens,
    many_writes_in_flight,
    more_writes_than_a_ring_holds,
    openings_go_on_beside_everything_else,
    reads_of_any_alignment_and_past_the_end,
    reads_in_steps_take_turns,
    buffered_files,
    directories,
    replace_is_whole,
    locks_exclude,
    errors_name_the_path,
    frozen_buffers_survive_their_buffer,
    streams_carry_bytes,
    streams_end_and_hang_up,
    big_writes_meet_a_slow_reader,
    refused_connections,
    mesh_to_itself,
    cross_channels,
);

fn direct() -> FileOptions {
    FileOptions::READ_WRITE_DIRECT
}

async fn spawned_tasks_run_and_are_cancelled(shard: Shard, _: PathBuf) {
    assert_eq!(shard.spawn(async { 7 }).await, 7);
    let dropped = Rc::new(Cell::new(false));
    struct SetOnDrop(Rc<Cell<bool>>);
    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let guard = SetOnDrop(Rc::clone(&dropped));
    let task = shard.spawn(async move {
        std::future::pending::<()>().await;
        drop(guard);
    });
    shard.yield_now().await;
    drop(task);
    shard.sleep(Duration::from_millis(1)).await;
    assert!(dropped.get());
    let outputs = join_all((0..5).map(|i| shard.spawn(async move { i }))).await;
    assert_eq!(outputs, [0, 1, 2, 3, 4]);
}

async fn timers_fire_in_order(shard: Shard, _: PathBuf) {
    let order = Rc::new(RefCell::new(Vec::new()));
    let tasks = [30, 10, 20].map(|ms| {
        let (inner, order) = (shard.clone(), Rc::clone(&order));
        shard.spawn(async move {
            inner.sleep(Duration::from_millis(ms)).await;
            order.borrow_mut().push(ms);
        })
    });
    let start = shard.now();
    join_all(tasks).await;
    assert_eq!(*order.borrow(), [10, 20, 30]);
    let took = shard.now() - start;
    assert!(took >= Duration::from_millis(30) && took < Duration::from_secs(5), "{took:?}");
}

async fn timeout_drops_the_future(shard: Shard, _: PathBuf) {
    assert_eq!(shard.timeout(Duration::from_secs(5), async { 3 }).await, Ok(3));
    let never = std::future::pending::<()>();
    assert_eq!(shard.timeout(Duration::from_millis(2), never).await, Err(chronik_rt::Elapsed));
    let left = either(async { 1 }, async { 2 }).await;
    assert_eq!(left, Either::Left(1));
}

async fn blocking_returns_values_and_panics(shard: Shard, _: PathBuf) {
    assert_eq!(shard.blocking(|| 6 * 7).await, Ok(42));
    let failed: Result<(), _> = shard.blocking(|| panic!("on purpose")).await;
    let text = failed.expect_err("it panicked").to_string();
    assert!(text.contains("on purpose"), "{text}");
    assert_eq!(shard.blocking(|| 1).await, Ok(1), "the pool survives a panic");
}

async fn direct_writes_are_read_back(shard: Shard, path: PathBuf) {
    let dir = shard.create_dir(&path).await.expect("directory");
    for (name, dsync) in [("plain", false), ("dsync", true)] {
        let file = dir.create_file(name, FileOptions { dsync, ..direct() }).await.expect("file");
        let mut buf = shard.buffer(10_000);
        assert_eq!(buf.capacity(), 12_288);
        assert_eq!(buf.as_ptr() as usize % 4096, 0);
        buf.extend_from_slice(b"hello");
        buf.resize_zeroed(8192);
        let back = file.write_at(buf, 4096).await.expect("write");
        assert_eq!(&back[..6], b"hello\0");
        file.sync().await.expect("sync");
        assert_eq!(file.size().await.expect("size"), 12_288);
        assert_eq!(&file.read_at(4096, 5).await.expect("read")[..], b"hello");
        assert_eq!(&file.read_at(0, 4096).await.expect("read")[..], [0; 4096]);
        file.set_len(4097).await.expect("set_len");
        assert_eq!(&file.read_at(4090, 100).await.expect("read")[..], b"\0\0\0\0\0\0h");
        file.close().await.expect("close");
    }
}

async fn allocated_room_reads_as_zeros_and_keeps_what_was_there(shard: Shard, path: PathBuf) {
    let dir = shard.create_dir(&path).await.expect("directory");
    let file = dir.create_file("f", direct()).await.expect("file");
    let mut buf = shard.buffer(4096);
    buf.resize_zeroed(4096);
    buf.fill(7);
    file.write_at(buf, 4096).await.expect("write");
    file.allocate(20_000).await.expect("allocate");
    assert_eq!(file.size().await.expect("size"), 20_000);
    assert_eq!(&file.read_at(8190, 4).await.expect("read")[..], [7, 7, 0, 0]);
    file.allocate(4096).await.expect("less than there is");
    assert_eq!(file.size().await.expect("size"), 20_000);
}

async fn a_dropped_write_still_happens(shard: Shard, path: PathBuf) {
    let dir = shard.create_dir(&path).await.expect("directory");
    let file = dir.create_file("f", direct()).await.expect("file");
    let mut buf = shard.buffer(4096);
    buf.resize_zeroed(4096);
    buf.fill(9);
    drop(file.write_at(buf, 0));
    for _ in 0..1000 {
        shard.sleep(Duration::from_millis(2)).await;
        if file.size().await.expect("size") == 4096 {
            break;
        }
    }
    assert_eq!(&file.read_at(0, 4096).await.expect("read")[..], [9; 4096]);
}

async fn many_writes_in_flight(shard: Shard, path: PathBuf) {
    let dir = shard.create_dir(&path).await.expect("directory");
    let file = dir.create_file("f", direct()).await.expect("file");
    let writes = (0..64_u8).map(|i| {
        let mut buf = shard.buffer(4096);
        buf.resize_zeroed(4096);
        buf.fill(i);
        file.write_at(buf, u64::from(i) * 4096)
    });
    for result in join_all(writes).await {
        result.expect("write");
    }
    let all = file.read_at(0, 64 * 4096).await.expect("read");
    for (i, block) in all.chunks(4096).enumerate() {
        assert!(block.iter().all(|byte| usize::from(*byte) == i));
    }
}

async fn reads_of_any_alignment_and_past_the_end(shard: Shard, path: PathBuf) {
    let dir = shard.create_dir(&path).await.expect("directory");
    let file = dir.create_file("f", direct()).await.expect("file");
    let mut buf = shard.buffer(8192);
    buf.resize_zeroed(8192);
    for (i, byte) in buf.iter_mut().enumerate() {
        *byte = (i % 251) as u8;
    }
    file.write_at(buf, 0).await.expect("write");
    file.set_len(5000).await.expect("set_len");
    for options in [direct(), FileOptions::READ_DIRECT, FileOptions::READ] {
        let file = dir.open_file("f", options).await.expect("open");
        for (position, len) in [(0, 5000), (1, 1), (4095, 2), (4097, 10_000), (4999, 1), (3, 0)] {
            let bytes = file.read_at(position, len).await.expect("read");
            let end = 5000.min(position as usize + len);
            assert_eq!(bytes.len(), end - position as usize, "{position} {len}");
            let wanted = (position as usize..end).map(|i| (i % 251) as u8);
            assert!(bytes.iter().copied().eq(wanted), "{position} {len}");
        }
        for (position, len) in [(0, 4096), (0, 8192), (1, 4990), (4095, 2), (4097, 10_000), (3, 0)]
        {
            let whole = file.read_at(position, len).await.expect("read");
            for step in [4096, 8192] {
                let steps = Cell::new(0);
                let next = async || {
                    steps.set(steps.get() + 1);
                    (step, ())
                };
                let bytes = file.read_in_steps(position, len, next).await.expect("read");
                assert_eq!(bytes, whole, "{position} {len}");
                assert!(steps.get() <= 2, "{} steps", steps.get());
            }
        }
        assert!(file.read_at(5000, 10).await.expect("read").is_empty());
        assert!(file.read_at(100_000, 10).await.expect("read").is_empty());
    }
}

async fn reads_in_steps_take_turns(shard: Shard, path: PathBuf) {
    let dir = shard.create_dir(&path).await.expect("directory");
    let file = dir.create_file("f", direct()).await.expect("file");
    let mut buf = shard.buffer(64 * 4096);
    buf.resize_zeroed(64 * 4096);
    file.write_at(buf, 0).await.expect("write");
    let turns = Semaphore::new(1);
    let ended = RefCell::new(Vec::new());
    let read = |blocks: usize| {
        let (file, turns, ended) = (&file, &turns, &ended);
        async move {
            let next = async || (4096, turns.acquire(1).await);
            let bytes = file.read_in_steps(0, blocks * 4096, next).await.expect("read");
            assert_eq!(bytes.len(), blocks * 4096);
            ended.borrow_mut().push(blocks);
        }
    };
    join_all([read(64), read(2), read(3)]).await;
    assert_eq!(*ended.borrow(), [2, 3, 64], "a long read holds up a short one for a step");
    // A permit that somebody keeps: nothing is read meanwhile.
    let held = turns.acquire(1).await;
    let waiting = shard.timeout(Duration::from_millis(20), read(1)).await;
    assert!(waiting.is_err());
    drop(held);
    read(1).await;
}

async fn buffered_files(shard: Shard, path: PathBuf) {
    let dir = shard.create_dir(&path).await.expect("directory");
    let options = FileOptions { read: true, write: true, ..FileOptions::default() };
    let file = dir.create_file("f", options).await.expect("file");
    let mut buf = shard.buffer(100);
    buf.extend_from_slice(b"abc");
    let buf = file.write_at(buf, 2).await.expect("write");
    assert_eq!(&buf[..], b"abc");
    assert_eq!(&file.read_at(0, 10).await.expect("read")[..], b"\0\0abc");
    file.sync().await.expect("sync");
}

async fn directories(shard: Shard, path: PathBuf) {
    assert_eq!(
        shard.open_dir(path.join("a/b")).await.err().map(|error| error.kind()),
        Some(ErrorKind::NotFound)
    );
    let dir = shard.create_dir(path.join("a/b")).await.expect("create");
    assert_eq!(dir.path(), path.join("a/b"));
    shard.create_dir(path.join("a/b")).await.expect("again");
    let sub = dir.create_subdir("sub").await.expect("subdirectory");
    let taken = dir.create_subdir("sub").await.err().map(|error| error.kind());
    assert_eq!(taken, Some(ErrorKind::AlreadyExists));
    dir.create_file("x", direct()).await.expect("file");
    let taken = dir.create_file("x", direct()).await.err().map(|error| error.kind());
    assert_eq!(taken, Some(ErrorKind::AlreadyExists));
    dir.rename("x", "y").await.expect("rename");
    assert!(dir.exists("y").await.expect("exists"));
    assert!(!dir.exists("x").await.expect("exists"));
    dir.rename_into("y", &sub, "z").await.expect("rename");
    sub.sync().await.expect("sync");
    dir.sync().await.expect("sync");
    let names: Vec<_> = dir.list().await.expect("list");
    assert_eq!(names.len(), 1);
    assert!(names[0].is_dir && names[0].name == "sub");
    let sub = dir.open_subdir("sub").await.expect("open");
    assert_eq!(sub.list().await.expect("list")[0].name, "z");
    sub.unlink("z").await.expect("unlink");
    let gone = sub.unlink("z").await.err().map(|error| error.kind());
    assert_eq!(gone, Some(ErrorKind::NotFound));
    sub.replace("w", b"1").await.expect("replace");
    dir.remove_subdir_all("sub").await.expect("remove");
    assert!(dir.list().await.expect("list").is_empty());
    let space = dir.space().await.expect("space");
    assert!(space.available_bytes > 0 && space.available_bytes <= space.total_bytes);
    let odd = dir.exists("../x").await.err().map(|error| error.kind());
    assert_eq!(odd, Some(ErrorKind::InvalidInput));
}

async fn replace_is_whole(shard: Shard, path: PathBuf) {
    let dir = shard.create_dir(&path).await.expect("directory");
    dir.replace("f", b"one").await.expect("replace");
    assert_eq!(&dir.read("f").await.expect("read")[..], b"one");
    dir.replace("f", b"second").await.expect("replace");
    assert_eq!(&dir.read("f").await.expect("read")[..], b"second");
    assert_eq!(&dir.map("f").await.expect("map")[..], b"second");
    dir.replace("empty", b"").await.expect("replace");
    assert!(dir.read("empty").await.expect("read").is_empty());
    assert!(dir.map("empty").await.expect("map").is_empty());
    assert_eq!(dir.list().await.expect("list").len(), 2);
}

async fn locks_exclude(shard: Shard, path: PathBuf) {
    let dir = shard.create_dir(&path).await.expect("directory");
    let guard = dir.lock("LOCK", "process 12").await.expect("lock");
    let refused = dir.lock("LOCK", "process 13").await.err().expect("held");
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    assert!(refused.to_string().contains("process 12"), "{refused}");
    drop(guard);
    dir.lock("LOCK", "process 13").await.expect("lock");
}

async fn errors_name_the_path(shard: Shard, path: PathBuf) {
    let dir = shard.create_dir(&path).await.expect("directory");
    let error = dir.open_file("missing", direct()).await.err().expect("no such file");
    assert!(error.to_string().contains("missing"), "{error}");
    assert_eq!(chronik_rt::os_code(&error), Some(libc::ENOENT));
}

async fn frozen_buffers_survive_their_buffer(shard: Shard, _: PathBuf) {
    let mut kept = Vec::new();
    for i in 0..300_u16 {
        let mut buf = shard.buffer(4096);
        buf.extend_from_slice(&i.to_le_bytes());
        kept.push(buf.freeze());
    }
    for (i, bytes) in kept.iter().enumerate() {
        assert_eq!(bytes[..], (i as u16).to_le_bytes());
    }
    let half = kept.split_off(150);
    let sum = shard.blocking(move || half.iter().map(|bytes| bytes.len()).sum::<usize>()).await;
    assert_eq!(sum, Ok(300));
    drop(kept);
    shard.yield_now().await;
}

async fn pair(shard: &Shard) -> (Stream, Stream) {
    let addr = "127.0.0.1:0".parse().expect("address");
    let listener = shard.listen(ListenOptions::new(addr)).expect("listen");
    let to = listener.local_addr();
    let inner = shard.clone();
    let client = shard.spawn(async move { inner.connect(to).await.expect("connect") });
    let accepted = listener.accept().await.expect("accept");
    (client.await, shard.adopt(accepted))
}

async fn read_exactly(stream: &Stream, len: usize) -> BytesMut {
    let mut buffer = BytesMut::new();
    while buffer.len() < len {
        assert_ne!(stream.read_into(&mut buffer).await.expect("read"), 0, "early end");
    }
    buffer
}

async fn streams_carry_bytes(shard: Shard, _: PathBuf) {
    let (client, server) = pair(&shard).await;
    assert_eq!(client.peer_addr(), server.local_addr());
    assert_eq!(client.local_addr(), server.peer_addr());
    let mut parts = vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"cde")];
    client.write_all(&mut parts).await.expect("write");
    assert!(parts.is_empty());
    assert_eq!(&read_exactly(&server, 5).await[..], b"abcde");
    server.write_all(&mut vec![Bytes::from_static(b"ok")]).await.expect("write");
    assert_eq!(&read_exactly(&client, 2).await[..], b"ok");
    let mut buffer = BytesMut::new();
    let waits = server.read_into(&mut buffer);
    assert!(shard.timeout(Duration::from_millis(5), waits).await.is_err());
    client.write_all(&mut vec![Bytes::from_static(b"z")]).await.expect("write");
    assert_eq!(&read_exactly(&server, 1).await[..], b"z");
}

async fn streams_end_and_hang_up(shard: Shard, _: PathBuf) {
    let (client, server) = pair(&shard).await;
    let watched = server.clone();
    let hangup = shard.spawn(async move { watched.closed().await });
    client.write_all(&mut vec![Bytes::from_static(b"unread")]).await.expect("write");
    shard.sleep(Duration::from_millis(5)).await;
    assert!(!hangup.is_finished());
    drop(client);
    shard.timeout(Duration::from_secs(5), hangup).await.expect("hang-up is seen behind data");
    let mut buffer = read_exactly(&server, 6).await;
    assert_eq!(server.read_into(&mut buffer).await.expect("end"), 0);

    let (client, server) = pair(&shard).await;
    server.shutdown();
    let mut buffer = BytesMut::new();
    assert_eq!(client.read_into(&mut buffer).await.expect("end"), 0);
}

async fn big_writes_meet_a_slow_reader(shard: Shard, _: PathBuf) {
    const TOTAL: usize = 8 << 20;
    let (client, server) = pair(&shard).await;
    let writer = shard.spawn(async move {
        let mut parts: Vec<Bytes> = (0..2048).map(|i| Bytes::from(vec![i as u8; 4096])).collect();
        client.write_all(&mut parts).await.expect("write");
    });
    shard.sleep(Duration::from_millis(20)).await;
    assert!(!writer.is_finished(), "8 MiB do not fit into the buffers between");
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    let mut seen = 0;
    while seen < TOTAL {
        buffer.clear();
        let n = server.read_into(&mut buffer).await.expect("read");
        assert_ne!(n, 0);
        for (i, byte) in buffer.iter().enumerate() {
            assert_eq!(*byte, ((seen + i) / 4096) as u8);
        }
        seen += n;
    }
    writer.await;
}

async fn refused_connections(shard: Shard, _: PathBuf) {
    let addr = "127.0.0.1:0".parse().expect("address");
    let listener = shard.listen(ListenOptions::new(addr)).expect("listen");
    let to = listener.local_addr();
    let taken = shard.listen(ListenOptions::new(to)).err().expect("the port is taken");
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    assert!(taken.to_string().contains(&to.to_string()), "{taken}");
    drop(listener);
    let refused = shard.connect(to).await.err().expect("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(refused.to_string().contains(&to.to_string()), "{refused}");
}

async fn mesh_to_itself(shard: Shard, _: PathBuf) {
    let mesh = shard.common(|| chronik_rt::Mesh::<u32>::new(1, 2));
    let port = mesh.join(&shard);
    let sender = port.sender(shard.id());
    let sending = shard.spawn(async move {
        for i in 0..10 {
            sender.send(i).await;
        }
    });
    for i in 0..10 {
        assert_eq!(port.recv().await, (shard.id(), i));
    }
    sending.await;
}

async fn cross_channels(shard: Shard, _: PathBuf) {
    let (sender, receiver) = chronik_rt::cross::channel();
    let job =
        shard.spawn({
            let shard = shard.clone();
            async move {
                shard.blocking(move || (0..5).for_each(|i| sender.send(i).expect("sent"))).await
            }
        });
    let mut seen = Vec::new();
    while let Some(value) = receiver.recv().await {
        seen.push(value);
    }
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    job.await.expect("no panic");
    let (sender, answer) = chronik_rt::cross::oneshot::<u8>();
    drop(sender);
    assert_eq!(answer.recv().await, None);
}

#[test]
fn the_temporary_directory_is_a_directory() {
    assert!(Path::new(env!("CARGO_TARGET_TMPDIR")).is_dir());
}

/// More than the ring takes at once; each write is answered and each byte is where it belongs.
async fn more_writes_than_a_ring_holds(shard: Shard, path: PathBuf) {
    const WRITES: u64 = 1_500;
    let dir = shard.create_dir(&path).await.expect("directory");
    let file = dir.create_file("many", direct()).await.expect("file");
    let written: Vec<_> = (0..WRITES)
        .map(|number| {
            let mut buf = shard.buffer(BLOCK_BYTES);
            buf.extend_from_slice(&number.to_le_bytes());
            buf.resize_zeroed(BLOCK_BYTES);
            file.write_at(buf, number * BLOCK_BYTES as u64)
        })
        .collect();
    for write in written {
        write.await.expect("write");
    }
    for number in (0..WRITES).rev().step_by(7) {
        let read = file.read_at(number * BLOCK_BYTES as u64, 8).await.expect("read");
        assert_eq!(read[..], number.to_le_bytes());
    }
}

/// Files are opened in glommio's ring and all else happens in ours: neither waits for the other.
async fn openings_go_on_beside_everything_else(shard: Shard, path: PathBuf) {
    let dir = shard.create_dir(&path).await.expect("directory");
    let opener = {
        let dir = dir.clone();
        shard.spawn(async move {
            for number in 0..100_u32 {
                let name = number.to_string();
                let file = dir.create_file(&name, direct()).await;
                drop(file.expect("create"));
                drop(dir.open_file(&name, FileOptions::READ).await.expect("open"));
                dir.unlink(&name).await.expect("remove");
            }
        })
    };
    let sleeper = {
        let shard = shard.clone();
        shard.clone().spawn(async move {
            for _ in 0..100 {
                shard.sleep(Duration::from_micros(200)).await;
            }
        })
    };
    let file = dir.create_file("log", direct()).await.expect("file");
    let mut buf = shard.buffer(BLOCK_BYTES);
    for round in 0..100_u8 {
        buf.set_len(0);
        buf.extend_from_slice(&[round; BLOCK_BYTES]);
        buf = file.write_at(buf, u64::from(round) * BLOCK_BYTES as u64).await.expect("write");
        file.sync().await.expect("sync");
    }
    opener.await;
    sleeper.await;
    let last = file.read_at(99 * BLOCK_BYTES as u64 + 5, 3).await.expect("read");
    assert_eq!(last[..], [99; 3]);
}
