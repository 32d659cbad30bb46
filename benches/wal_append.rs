//! How long until one entry is durable? An append to a log of its own on a real file system, waited
//! for, then the next: mostly the disk's own time, and what the log adds to it.

use std::ops::RangeInclusive;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use rt::{Shard, ShardId};
use wal::{Flush, GroupId, Identity, Index, Owner, RecordRef, ReplicaId, Term, Wal, WalOptions};

const OWNER: Owner = Owner { group: GroupId(1), replica: ReplicaId(1) };
const TERM: Term = Term(5);
/// Small, so that all files exist and are used again before the clock starts.
const BUDGET_BYTES: u64 = 16 << 20;
const WARM_UP_BYTES: usize = 1 << 20;
const WARM_UP_APPENDS: u64 = 24;
/// More than the headers of a frame and of its records.
const HEADERS_BYTES: u64 = 8192;

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal_append");
    for bytes in [100, 64 << 10, 1 << 20] {
        group.throughput(Throughput::Bytes(bytes as u64));
        for flush in [Flush::Dsync, Flush::Fdatasync] {
            let id = BenchmarkId::new(format!("{flush:?}"), bytes);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|appends| on_a_shard(flush, bytes, appends));
            });
        }
    }
    group.finish();
}

/// The time that so many appends take, one after the other.
fn on_a_shard(flush: Flush, bytes: usize, appends: u64) -> Duration {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let path = folder.path().to_owned();
    rt::uring::run_one(move |shard| async move {
        let dir = shard.create_dir(&path).await.expect("a folder");
        let small = WalOptions::for_shards(BUDGET_BYTES, 1);
        let options = WalOptions { flush, fill_ahead: false, ..small };
        let identity = Identity { node: [7; 16], shard: ShardId(0), generation: 1 };
        let (wal, _) = Wal::open(&shard, dir, options, identity).await.expect("the log opens");
        append_each(&shard, &wal, &vec![7; WARM_UP_BYTES], 1..=WARM_UP_APPENDS).await;
        assert!(wal.stats().recycled_files > 0, "the warm-up went through the whole budget");
        let began = shard.now();
        let first = WARM_UP_APPENDS + 1;
        append_each(&shard, &wal, &vec![7; bytes], first..=WARM_UP_APPENDS + appends).await;
        let took = shard.now() - began;
        wal.stop().await;
        took
    })
}

async fn append_each(shard: &Shard, wal: &Wal, body: &[u8], indexes: RangeInclusive<u64>) {
    for index in indexes.map(Index) {
        // On a slow disk the next file may still be on its way.
        while !wal.has_data_room(body.len() as u64 + HEADERS_BYTES) {
            rt::either(wal.gains_room(), shard.sleep(Duration::from_millis(1))).await;
        }
        let record = RecordRef::Append { owner: OWNER, index, term: TERM, body: &[body] };
        wal.append(record).expect("room");
        wal.wait_durable(wal.newest()).await.expect("durable");
        // Leaves with the next frame, so that the file of this entry can be used anew.
        let checkpoint = RecordRef::Checkpoint { owner: OWNER, index, term: TERM, body: &[b"c"] };
        wal.append(checkpoint).expect("room");
    }
}
