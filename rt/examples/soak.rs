//! Runs everything at once for a while and looks for tasks that stand still: timers, yields,
//! direct files, sockets, rings and blocking work on more shards than cores. Prints the longest
//! pause of any task.
//!
//! `cargo run --release -p chronik-rt --example soak -- SECONDS SHARDS FOLDER`

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chronik_rt::uring::{launch, Options};
use chronik_rt::{File, FileOptions, Instant, ListenOptions, Mesh, Shard, ShardId};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Some(default), |text| text.parse().ok());
    let seconds = number(10).expect("seconds");
    let shards = number(4).expect("shards") as u16;
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "soak.data".to_owned()));
    let options = Options { shards: Some(shards), cpus: None };
    let path = folder.clone();
    let running = launch(options, move |shard| {
        let path = path.join(shard.id().to_string());
        async move { soak(&shard, path, Duration::from_secs(seconds)).await }
    });
    running.and_then(|running| running.join()).expect("shards");
    std::fs::remove_dir_all(folder).expect("its own folder");
}

/// When a task was last seen alive, and the longest pause.
#[derive(Clone)]
struct Life {
    shard: Shard,
    seen: Rc<Cell<Instant>>,
    longest: Rc<Cell<Duration>>,
}

impl Life {
    fn beat(&self) {
        let now = self.shard.now();
        let pause = now - self.seen.replace(now);
        self.longest.set(self.longest.get().max(pause));
    }
}

async fn soak(shard: &Shard, path: PathBuf, length: Duration) {
    let mesh = shard.common(|| Mesh::<u64>::new(shard.count(), 16));
    let port = mesh.join(shard);
    let dir = shard.create_dir(path).await.expect("folder");
    let mut lives = Vec::new();
    let mut start = |name: &'static str| {
        let (seen, longest) = (Rc::new(Cell::new(shard.now())), Rc::default());
        let life = Life { shard: shard.clone(), seen, longest };
        lives.push((name, life.clone()));
        life
    };
    for _ in 0..900 {
        shard.spawn(sleeper(start("sleeper"))).detach();
    }
    for number in 0..20 {
        let options = FileOptions::READ_WRITE_DIRECT;
        let file = dir.create_file(&format!("f{number}"), options).await.expect("file");
        shard.spawn(writer(start("writer"), file)).detach();
        shard.spawn(echo(start("echo"))).detach();
        shard.spawn(blocker(start("blocker"))).detach();
    }
    let life = start("receiver");
    let others: Vec<_> = (0..shard.count()).map(|to| port.sender(ShardId(to))).collect();
    let inner = shard.clone();
    let send = async move {
        loop {
            for other in &others {
                other.send(inner.random()).await;
            }
            let pause = inner.random() % 500;
            inner.sleep(Duration::from_micros(pause)).await;
        }
    };
    shard.spawn(send).detach();
    let receive = async move {
        loop {
            port.recv().await;
            life.beat();
        }
    };
    shard.spawn(receive).detach();
    shard.sleep(length).await;
    let mut worst: std::collections::BTreeMap<&str, Duration> = Default::default();
    for (name, life) in &lives {
        life.beat();
        let longest = worst.entry(name).or_default();
        *longest = (*longest).max(life.longest.get());
    }
    println!("shard {}: longest pauses {worst:?}, {:?}", shard.id(), shard.stats());
    // Others may still send to this shard.
    shard.sleep(Duration::from_millis(500)).await;
}

async fn sleeper(life: Life) {
    loop {
        let pause = life.shard.random() % 10_000;
        life.shard.sleep(Duration::from_micros(pause)).await;
        for _ in 0..life.shard.random() % 4 {
            life.shard.yield_now().await;
        }
        life.beat();
    }
}

async fn writer(life: Life, file: File) {
    loop {
        let blocks = life.shard.random() % 16 + 1;
        let position = life.shard.random() % 64 * 4096;
        let byte = life.shard.random() as u8;
        let mut buf = life.shard.buffer(blocks as usize * 4096);
        buf.resize_zeroed(blocks as usize * 4096);
        buf.fill(byte);
        let buf = file.write_at(buf, position).await.expect("write");
        let back = file.read_at(position + 1, buf.len() - 1).await.expect("read");
        assert!(back.iter().all(|read| *read == byte), "wrong bytes");
        life.beat();
    }
}

async fn echo(life: Life) {
    let shard = life.shard.clone();
    let any = "127.0.0.1:0".parse().expect("address");
    let listener = shard.listen(ListenOptions::new(any)).expect("listen");
    let to = listener.local_addr();
    let inner = shard.clone();
    let server = async move {
        loop {
            let stream = inner.adopt(listener.accept().await.expect("accept"));
            let mut buffer = BytesMut::with_capacity(65_536);
            while stream.read_into(&mut buffer).await.expect("read") > 0 {
                let answer = &mut vec![buffer.split().freeze()];
                stream.write_all(answer).await.expect("write");
            }
        }
    };
    let _server = shard.spawn(server);
    loop {
        let stream = shard.connect(to).await.expect("connect");
        for _ in 0..shard.random() % 50 {
            let sent = Bytes::from(vec![7; (shard.random() % 100_000) as usize + 1]);
            let whole = sent.len();
            let writer = stream.clone();
            let _write = shard.spawn(async move { writer.write_all(&mut vec![sent]).await });
            let (mut buffer, mut seen) = (BytesMut::with_capacity(65_536), 0);
            while seen < whole {
                buffer.clear();
                seen += stream.read_into(&mut buffer).await.expect("read");
            }
            life.beat();
        }
    }
}

async fn blocker(life: Life) {
    loop {
        let pause = life.shard.random() % 1000;
        let work = move || std::thread::sleep(Duration::from_micros(pause));
        life.shard.blocking(work).await.expect("no panic");
        life.beat();
    }
}
