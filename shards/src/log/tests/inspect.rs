//! The offline reader, and the same log on the real backend.

use super::*;

#[test]
fn every_batch_is_reported_with_its_raft_index() {
    rt::sim::run(21, |shard| async move {
        let bench = Bench::start(shard.clone(), Rc::default(), LogOptions::default()).await;
        let partition = bench.open(0, small_segments()).await;
        for n in 0..60 {
            if n % 20 == 0 {
                partition.election();
            }
            partition.batch(2, 1_500, n);
        }
        bench.flusher.round().await.unwrap();
        let path = format!("/data/topics/{}/0", identity(0).topic_folder());
        let dir = shard.open_dir(&path).await.unwrap();
        let entries = bench.durable.entries.borrow()[&identity(0).owner].clone();
        let mut expected = entries.iter().filter_map(|entry| match entry {
            LogEntry::Batch(batch) => Some((batch.base_offset, Some(batch.index))),
            LogEntry::Empty { .. } => None,
        });
        let segments = inspect_list(&dir).await.unwrap();
        assert_eq!(segments.len(), 3);
        let last = segments[2];
        let own = identity(0);
        for base in segments {
            let report = inspect_segment(&dir, Some(&own), base, |batch| {
                assert!(batch.intact);
                assert_eq!(Some((batch.head.base_offset, batch.index)), expected.next());
            });
            let report = report.await.unwrap();
            assert_eq!(report.is_whole(), base != last, "{report:?}");
            assert_eq!(report.damaged, 0);
        }
    });
}

#[test]
fn damage_is_reported_and_the_rest_is_shown() {
    rt::sim::run(22, |shard| async move {
        let bench = Bench::start(shard.clone(), Rc::default(), LogOptions::default()).await;
        let partition = bench.open(0, small_segments()).await;
        for n in 0..60 {
            partition.batch(2, 1_500, n);
        }
        bench.flusher.round().await.unwrap();
        let path = format!("/data/topics/{}/0", identity(0).topic_folder());
        let dir = shard.open_dir(&path).await.unwrap();
        let name = "00000000000000000000.log";
        let mut bytes = dir.read(name).await.unwrap().to_vec();
        bytes[1_561 * 3 + 200] ^= 1;
        dir.replace(name, &bytes).await.unwrap();
        let report = inspect_segment(&dir, None, Offset(0), |_| ()).await.unwrap();
        assert_eq!((report.damaged, report.batches, report.stop), (1, 25, None));
        assert!(!report.is_whole());
        bytes.truncate(1_561 * 3 + 200);
        dir.replace(name, &bytes).await.unwrap();
        let report = inspect_segment(&dir, None, Offset(0), |_| ()).await.unwrap();
        assert_eq!((report.batches, report.stop), (3, Some(BatchFault::Short)));
    });
}

/// The same on a real disk: direct writes, cuts to odd lengths, mapped indexes, restarts.
#[test]
fn the_log_works_on_io_uring() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let topics = folder.path().join("topics").to_string_lossy().into_owned();
    rt::uring::run_one(move |shard| async move {
        let options = LogOptions { cache_bytes: 20_000, maps_max: 1, ..LogOptions::default() };
        let durable: Rc<Durable> = Rc::default();
        let start = |durable: &Rc<Durable>| {
            Bench::start_in(&topics, shard.clone(), Rc::clone(durable), options.clone())
        };
        let bench = start(&durable).await;
        let partition = bench.open(0, small_segments()).await;
        for n in 0..200 {
            partition.batch(2, 1_500, n);
            if n % 70 == 0 {
                bench.flusher.round().await.expect("a round");
            }
        }
        bench.flusher.round().await.expect("a round");
        partition.check_from(Offset(0), 50_000).await.expect("readable");
        let again = start(&durable).await;
        let partition = again.open(0, small_segments()).await;
        partition.election();
        for n in 0..30 {
            partition.batch(2, 3_000, n);
        }
        partition.log.set_log_start(Offset(100));
        again.flusher.round().await.expect("a round");
        partition.check_from(Offset(100), 50_000).await.expect("readable");
        assert_eq!(again.context.stats().index_rebuilds, 0);
        let mut listed = again.context.files.list(&identity(0)).await.unwrap();
        listed.retain(|entry| entry.name.ends_with(".log"));
        assert_eq!(listed.len(), partition.log.segments(), "what is below the start is gone");
        assert!(listed.iter().any(|entry| entry.len % 4096 != 0), "closed ones are not padded");
        partition.log.remove().await.expect("removed");
        assert_eq!(durable.dead_reads.get(), 0);
    });
}
