//! What does a record batch cost between socket and log? Its header is parsed, its checksum is
//! computed over every byte, and its records are never looked at.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use net::batch::{checksum, Batch, BatchHeader};
use net::builder::BatchBuilder;

/// A batch with so many bytes of values in records of at most 1 KiB.
pub fn of_values(bytes: usize) -> Batch {
    let value = vec![b'v'; bytes.min(1_024)];
    let builder = (0..bytes / value.len()).fold(BatchBuilder::new(), |builder, _| {
        builder.record(1_700_000_000_000, None, Some(&value))
    });
    builder.build().expect("a batch")
}

pub fn bench(criterion: &mut Criterion) {
    let batch = of_values(1_024);
    criterion.bench_function("batch/header", |bencher| {
        bencher.iter(|| BatchHeader::parse(black_box(&batch.bytes)).expect("a header"));
    });
    let mut group = criterion.benchmark_group("batch/checksum");
    for bytes in [1 << 10, 16 << 10, 1 << 20] {
        let batch = of_values(bytes);
        group.throughput(Throughput::Bytes(batch.bytes.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &batch, |bencher, batch| {
            bencher.iter(|| checksum(black_box(&batch.bytes)));
        });
    }
    group.finish();
}
