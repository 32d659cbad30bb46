//! Measures what an idle process costs and how fast shards reach each other: wake of a parked
//! shard, round trips parked and busy, spawn and yield, idle CPU. Prints one line each; run with
//! `cargo run --release -p chronik-rt --example wake`. Nothing else should run meanwhile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chronik_rt::uring::{launch, Options};
use chronik_rt::{Mesh, Port, Shard, ShardId};

const ROUNDS: u32 = 5_000;

fn main() {
    let report = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&report);
    let options = Options { shards: Some(2), cpus: None };
    let running = launch(options, move |shard| {
        let lines = Arc::clone(&lines);
        async move {
            let mesh = shard.common(|| Mesh::<u64>::new(shard.count(), 64));
            let port = mesh.join(&shard);
            if shard.id() == ShardId(0) {
                let text = measure(&shard, &port).await;
                lines.lock().expect("no panic").extend(text);
            } else {
                echo(&shard, &port).await;
            }
        }
    });
    let running = running.expect("shards");
    running.join().expect("a clean end");
    for line in report.lock().expect("no panic").iter() {
        println!("{line}");
    }
}

/// Answers 0 with its clock, which all shards of a process share, until 1 comes; after 2 it keeps
/// itself busy.
async fn echo(shard: &Shard, port: &Port<u64>) {
    let back = port.sender(ShardId(0));
    let mut busy = None;
    loop {
        match port.recv().await.1 {
            1 => return,
            2 => busy = Some(spin(shard)),
            3 => busy = None,
            _ => {}
        }
        back.send(shard.now().as_nanos()).await;
        let _ = &busy;
    }
}

fn spin(shard: &Shard) -> chronik_rt::Task<()> {
    let inner = shard.clone();
    shard.spawn(async move {
        loop {
            inner.yield_now().await;
        }
    })
}

async fn measure(shard: &Shard, port: &Port<u64>) -> Vec<String> {
    let other = port.sender(ShardId(1));
    let mut lines = Vec::new();
    let (mut one_way, mut round_trip) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // Long enough for the other shard to sleep.
        shard.sleep(Duration::from_micros(200)).await;
        let start = shard.now();
        other.send(0).await;
        let there = port.recv().await.1;
        one_way.push(there.saturating_sub(start.as_nanos()));
        round_trip.push((shard.now() - start).as_nanos() as u64);
    }
    lines.push(line("wake of a parked shard, one way", &mut one_way));
    lines.push(line("round trip, other shard parked", &mut round_trip));

    let hog = spin(shard);
    other.send(2).await;
    port.recv().await;
    let mut busy = Vec::new();
    for _ in 0..ROUNDS {
        let start = shard.now();
        other.send(0).await;
        port.recv().await;
        busy.push((shard.now() - start).as_nanos() as u64);
    }
    lines.push(line("round trip, both shards busy", &mut busy));
    other.send(3).await;
    port.recv().await;
    drop(hog);

    let start = shard.now();
    for _ in 0..100_000 {
        shard.spawn(async {}).await;
    }
    lines.push(each("spawn, run and await a task", shard.now() - start, 100_000));
    let start = shard.now();
    for _ in 0..1_000_000 {
        shard.yield_now().await;
    }
    lines.push(each("yield", shard.now() - start, 1_000_000));

    shard.sleep(Duration::from_millis(300)).await;
    let before = process_cpu();
    shard.sleep(Duration::from_secs(5)).await;
    let used = process_cpu() - before;
    let percent = used.as_secs_f64() / 5.0 * 100.0;
    lines.push(format!("idle process, two shards: {percent:.3}% of a core"));
    other.send(1).await;
    lines.push(format!("{:?}", shard.stats()));
    lines
}

fn line(what: &str, nanos: &mut [u64]) -> String {
    nanos.sort_unstable();
    let at = |share: f64| nanos[((nanos.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    format!("{what}: p50 {:.1} us, p99 {:.1} us, max {:.1} us", at(0.5), at(0.99), at(1.0))
}

fn each(what: &str, took: Duration, count: u32) -> String {
    format!("{what}: {} ns", took.as_nanos() / u128::from(count))
}

fn process_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
