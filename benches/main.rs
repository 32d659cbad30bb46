//! Microbenchmarks: one file, one question about one part. `cargo bench` measures, `cargo test`
//! runs each once, so that none rots. A name behind `--` picks: `cargo bench --bench parts -- batch`.
//!
//! What runs on a shard is timed inside it. Whole brokers are measured from outside, by `perf`.

mod batch;
mod codec;
mod fetch;
mod group_turn;
mod ring_hop;
mod wal_append;

use std::time::Duration;

use criterion::{criterion_group, criterion_main, Criterion};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Short: every figure in about three seconds.
fn settings() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = parts;
    config = settings();
    targets = batch::bench, codec::bench, group_turn::bench, ring_hop::bench, wal_append::bench,
        fetch::bench
}
criterion_main!(parts);
