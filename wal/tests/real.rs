//! The log on io_uring and a real file system: the same path as in the simulator, once through,
//! and the figures of the disk under it.

use chronik_wal::probe::probe;
use chronik_wal::{
    Flush, GroupId, Identity, Index, Owner, RecordRef, ReplicaId, Term, Wal, WalOptions,
};
use rt::{Dir, Shard, ShardId};

const OPTIONS: WalOptions = WalOptions {
    file_bytes: 4 << 20,
    first_file_bytes: 1 << 20,
    budget_bytes: 24 << 20,
    frame_max_bytes: 1 << 20,
    flush: Flush::Fdatasync,
    fill_ahead: true,
};

const OWNER: Owner = Owner { group: GroupId(1), replica: ReplicaId(1) };

async fn open(shard: &Shard, dir: &Dir, options: WalOptions) -> (Wal, chronik_wal::Recovered) {
    let identity = Identity { node: [7; 16], shard: ShardId(0), generation: 1 };
    Wal::open(shard, dir.clone(), options, identity).await.expect("the log opens")
}

fn entry(wal: &Wal, index: u64, body: &[u8]) {
    let record =
        RecordRef::Append { owner: OWNER, index: Index(index), term: Term(5), body: &[body] };
    wal.append(record).expect("room");
}

#[test]
fn the_log_works_on_a_real_disk() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let path = folder.path().to_owned();
    rt::uring::run_one(move |shard| async move {
        let data = shard.create_dir(&path).await.expect("a folder");
        let found = probe(&shard, &data).await.expect("the probe runs");
        println!(
            "probe: dsync {:?}, fdatasync {:?}: {:?}",
            found.dsync, found.fdatasync, found.flush
        );
        for flush in [Flush::Dsync, Flush::Fdatasync] {
            let dir = shard.create_dir(path.join(format!("{flush:?}"))).await.expect("a folder");
            let options = WalOptions { flush, ..OPTIONS };
            let began = shard.now();
            let (wal, recovered) = open(&shard, &dir, options).await;
            println!("{flush:?}: first open {:?}", shard.now() - began);
            assert!(recovered.report.fresh);
            let mut last = 0;
            for size in [100, 60_000, 900_000] {
                let (before, began) = (wal.histograms().write_us.len(), shard.now());
                for _ in 0..20 {
                    last += 1;
                    entry(&wal, last, &vec![last as u8; size]);
                    wal.wait_durable(wal.newest()).await.expect("durable");
                    checkpoint(&wal, last - 1);
                }
                let mean = (shard.now() - began) / 20;
                println!("{flush:?}: {size} bytes: durable in {mean:?}");
                assert!(wal.histograms().write_us.len() >= before + 20, "a frame for each entry");
            }
            assert!(wal.stats().recycled_files > 0, "38 MB went through a budget of 24 MiB");
            assert!(wal.stats().file_bytes <= OPTIONS.budget_bytes);
            wal.stop().await;
            let began = shard.now();
            let (wal, recovered) = open(&shard, &dir, options).await;
            println!("{flush:?}: second open {:?}", shard.now() - began);
            assert!(recovered.report.stopped && recovered.report.damage.is_empty());
            let replica = &recovered.replicas[&OWNER];
            assert_eq!(replica.entries.len(), 1);
            let body = wal.read(replica.entries[0].location).await.expect("a body");
            assert_eq!(&body[..], &vec![last as u8; 900_000][..]);
            wal.stop().await;
        }
    });
}

fn checkpoint(wal: &Wal, index: u64) {
    let (index, term) = (Index(index), Term(5));
    wal.append(RecordRef::Checkpoint { owner: OWNER, index, term, body: &[b"c"] }).expect("room");
}
