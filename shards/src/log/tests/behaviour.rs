//! One thing each: reads, rolls, retention, times, memory, files, full disks.

use std::time::Duration;

use super::*;
use crate::log::roll::draw_jitter;

async fn bench(shard: Shard, options: LogOptions) -> Bench {
    Bench::start(shard, Rc::default(), options).await
}

async fn round(bench: &Bench) -> RoundReport {
    bench.flusher.round().await.expect("a round")
}

#[test]
fn committed_batches_are_read_at_once_and_no_file_exists_before_a_block_is_full() {
    rt::sim::run(1, |shard| async move {
        let bench = bench(shard.clone(), LogOptions::default()).await;
        let partition = bench.open(0, small_segments()).await;
        partition.election();
        for _ in 0..10 {
            partition.batch(3, 200, 1);
        }
        partition.check_from(Offset(0), 10_000).await.unwrap();
        partition.check_from(Offset(16), 0).await.unwrap();
        assert_eq!(round(&bench).await, RoundReport::default());
        let topics = shard.open_dir("/data/topics").await.unwrap();
        assert!(topics.list().await.unwrap().is_empty(), "no folder before the first flush");
        partition.batch(1, 4096, 1);
        assert_eq!(round(&bench).await, RoundReport { checkpoints: 1, bytes: 4096, full: 0 });
        let topic = topics.open_subdir(&identity(0).topic_folder()).await.unwrap();
        let files = topic.open_subdir("0").await.unwrap().list().await.unwrap();
        let names: Vec<_> = files.iter().map(|entry| (entry.name.as_str(), entry.len)).collect();
        assert_eq!(names[0], ("00000000000000000000.log", 4096));
        assert_eq!(names[1].0, "00000000000000000000.map");
        assert_eq!(partition.log.flushed(), Index(16), "the batch that straddles the end is not");
        partition.check_from(Offset(0), 3_000).await.unwrap();
    });
}

#[test]
fn ranges_limits_and_room_are_kept() {
    rt::sim::run(2, |shard| async move {
        let bench = bench(shard, LogOptions::default()).await;
        let partition = bench.open(0, small_segments()).await;
        let length = partition.batch(5, 100, 1).len() as u64;
        partition.batch(5, 100, 1);
        partition.batch(5, 100, 1);
        let read = |from, up_to, max_bytes, at_least_one| {
            let (from, up_to) = (Offset(from), Offset(up_to));
            partition.log.read(ReadRequest { from, up_to, max_bytes, at_least_one })
        };
        assert_eq!(read(7, 15, 2 * length, false).await.unwrap().batches.len(), 2);
        assert_eq!(read(7, 15, 2 * length - 1, false).await.unwrap().next_offset, Offset(10));
        assert_eq!(read(7, 15, 1, false).await.unwrap().batches.len(), 0);
        assert_eq!(read(7, 15, 0, true).await.unwrap().batches.len(), 1);
        assert_eq!(read(0, 10, 99_999, true).await.unwrap().next_offset, Offset(10));
        assert_eq!(read(15, 15, 99_999, true).await.unwrap().next_offset, Offset(15));
        assert!(matches!(read(16, 16, 1, true).await, Err(ReadError::OutOfRange { .. })));
        partition.log.set_log_start(Offset(7));
        assert!(matches!(read(6, 15, 1, true).await, Err(ReadError::OutOfRange { .. })));
        let answer = read(7, 15, 0, true).await.unwrap();
        assert_eq!(
            answer.next_offset,
            Offset(10),
            "the batch that holds the log start comes whole"
        );
    });
}

/// Commits and flushes enough for several closed segments.
async fn filled(bench: &Bench, config: SegmentConfig) -> Partition {
    let partition = bench.open(0, config).await;
    for n in 0..100 {
        if n % 30 == 0 {
            partition.election();
        }
        partition.batch(2, 1_500, 1_000 + n * 10);
    }
    round(bench).await;
    partition
}

#[test]
fn closed_segments_have_no_padding_and_their_maps_give_raft_indexes() {
    rt::sim::run(3, |shard| async move {
        let bench = bench(shard.clone(), LogOptions::default()).await;
        let partition = filled(&bench, small_segments()).await;
        assert!(partition.log.segments() > 3);
        let path = format!("/data/topics/{}/0", identity(0).topic_folder());
        let dir = shard.open_dir(&path).await.unwrap();
        let (mut at, mut index) = (Offset(0), FIRST.next());
        let closed = partition.log.inner.state.borrow().closed.clone();
        for base in closed.iter().map(|segment| segment.base_offset) {
            assert_eq!(base, at);
            let log = dir.read(&format!("{:020}.log", base.0)).await.unwrap();
            let map = dir.read(&format!("{:020}.map", base.0)).await.unwrap();
            let map = SegmentMap::decode(&map, Some(&identity(0))).unwrap();
            assert_eq!(map.first_index, index, "segments share no entry and leave none out");
            let facts = map.closed.expect("closed");
            assert_eq!(facts.length, log.len() as u64);
            let expected = partition.committed();
            let inside: Vec<_> = expected
                .iter()
                .filter(|(b, _, _)| *b >= base && *b < facts.next_offset)
                .map(|(_, _, bytes)| bytes.clone())
                .collect();
            assert!(log == inside.concat(), "exactly the bytes that a Fetch carries");
            let entries = bench.durable.entries.borrow()[&identity(0).owner].clone();
            for (ordinal, wanted) in entries
                .iter()
                .filter_map(|entry| match entry {
                    LogEntry::Batch(b) if b.base_offset >= base => Some(b),
                    _ => None,
                })
                .take(inside.len())
                .enumerate()
            {
                assert_eq!(map.index_of(ordinal as u64, wanted.base_offset), wanted.index);
            }
            (at, index) = (facts.next_offset, facts.last_index.next());
        }
    });
}

#[test]
fn reads_come_from_segments_when_memory_is_short_and_files_stay_bounded() {
    rt::sim::run(4, |shard| async move {
        let options = LogOptions {
            cache_bytes: 10_000,
            open_files_max: 2,
            maps_max: 1,
            ..LogOptions::default()
        };
        let bench = bench(shard, options).await;
        let partition = filled(&bench, small_segments()).await;
        assert!(bench.durable.wal_reads.get() > 0, "what was evicted is written from the WAL");
        for from in (0..200).step_by(7) {
            partition.check_from(Offset(from), 9_000).await.unwrap();
        }
        let stats = bench.context.stats();
        assert!(stats.cache_bytes <= 10_000, "{stats:?}");
        assert!(stats.files_open <= 2 && stats.read_disk_bytes > 1_000_000, "{stats:?}");
        assert_eq!(stats.index_rebuilds, 0);
        assert_eq!(bench.durable.dead_reads.get(), 0);
    });
}

#[test]
fn times_are_found_in_segments_and_in_memory() {
    rt::sim::run(5, |shard| async move {
        let options = LogOptions { cache_bytes: 10_000, ..LogOptions::default() };
        let bench = bench(shard, options).await;
        let partition = filled(&bench, small_segments()).await;
        partition.batch(2, 100, 5_000);
        partition.batch(2, 100, 4_000);
        let end = partition.log.log_end();
        for time in (0..2_100).step_by(3) {
            let hit = partition.log.first_at_or_after(time, end, &WholeBatches).await.unwrap();
            let nth = (time - 1_000 + 9).max(0) / 10;
            let expected = if nth < 100 { (nth * 2, 1_000 + nth * 10) } else { (200, 5_000) };
            let hit = hit.map(|hit| (hit.offset.0, hit.timestamp));
            assert_eq!(hit, Some(expected), "time {time}");
        }
        let find =
            |time, up_to| partition.log.first_at_or_after(time, Offset(up_to), &WholeBatches);
        assert_eq!(find(5_001, end.0).await.unwrap(), None);
        assert_eq!(find(1_500, 100).await.unwrap(), None, "a hit at the limit is none");
        assert_eq!(find(1_490, 100).await.unwrap().map(|hit| hit.offset), Some(Offset(98)));
        let newest = partition.log.max_timestamp(&WholeBatches).await.unwrap().unwrap();
        assert_eq!((newest.offset, newest.timestamp, newest.epoch), (Offset(200), 5_000, 9));
        partition.log.set_log_start(Offset(101));
        let first = find(0, end.0).await.unwrap().unwrap();
        assert_eq!(first.offset, Offset(101), "never below the log start, also inside a batch");
        partition.log.set_log_start(Offset(202));
        let newest = partition.log.max_timestamp(&WholeBatches).await.unwrap().unwrap();
        assert_eq!((newest.offset, newest.timestamp), (Offset(202), 4_000));
        partition.log.set_log_start(end);
        assert_eq!(partition.log.max_timestamp(&WholeBatches).await.unwrap(), None);
    });
}

#[test]
fn the_newest_record_is_sought_above_a_log_start_inside_its_segment() {
    rt::sim::run(6, |shard| async move {
        let bench = bench(shard, LogOptions { cache_bytes: 0, ..LogOptions::default() }).await;
        let partition = bench.open(0, SegmentConfig::default()).await;
        for time in [9_000, 3_000, 7_000, 7_000, 1_000] {
            partition.batch(1, 4_000, time);
        }
        round(&bench).await;
        partition.log.set_log_start(Offset(1));
        let newest = partition.log.max_timestamp(&WholeBatches).await.unwrap().unwrap();
        assert_eq!((newest.offset, newest.timestamp), (Offset(2), 7_000));
    });
}

#[test]
fn retention_moves_nothing_and_files_go_after_the_checkpoint() {
    rt::sim::run(7, |shard| async move {
        let bench = bench(shard.clone(), LogOptions::default()).await;
        let partition = filled(&bench, small_segments()).await;
        let size = partition.log.size_bytes() as i64;
        let policy = |retention_ms, retention_bytes| RetentionConfig {
            delete: true,
            retention_ms,
            retention_bytes,
        };
        let ask = |config: RetentionConfig| async move { config };
        let config = ask(policy(-1, size - 50_000)).await;
        let start = partition.log.retention(&config).await.unwrap().expect("one segment goes");
        assert_eq!(partition.log.log_start(), Offset(0), "a decision, not a deed");
        let segments = partition.log.segments();
        partition.log.set_log_start(start);
        assert_eq!(partition.log.segments(), segments, "files stay until a round");
        round(&bench).await;
        assert_eq!(partition.log.segments(), segments - 1);
        let path = format!("/data/topics/{}/0", identity(0).topic_folder());
        let dir = shard.open_dir(&path).await.unwrap();
        assert!(!dir.exists("00000000000000000000.log").await.unwrap());
        assert!(!dir.exists("00000000000000000000.map").await.unwrap());
        partition.check_from(start, 10_000).await.unwrap();
        let compact = RetentionConfig { delete: false, ..policy(0, 0) };
        assert_eq!(partition.log.retention(&compact).await.unwrap(), None);
        // Everything is older than now by far: the whole log goes, what is pending too.
        let all = partition.log.retention(&policy(1_000, -1)).await.unwrap();
        assert_eq!(all, Some(partition.log.log_end()));
        partition.log.set_log_start(partition.log.log_end());
        round(&bench).await;
        assert_eq!((partition.log.segments(), partition.log.size_bytes()), (0, 0));
        assert_eq!(partition.log.flushed(), partition.log.last_entry().0);
        partition.batch(1, 9_000, 1);
        round(&bench).await;
        partition.check_from(partition.log.log_start(), 10_000).await.unwrap();
    });
}

#[test]
fn a_restart_goes_on_where_the_checkpoint_ends() {
    rt::sim::run(8, |shard| async move {
        let bench = bench(shard.clone(), LogOptions::default()).await;
        let partition = filled(&bench, small_segments()).await;
        partition.batch(1, 100_000, 1);
        partition.batch(1, 50, 1);
        round(&bench).await;
        let epochs = partition.log.epochs();
        let end = partition.log.log_end();
        let again = Bench::start(shard, Rc::clone(&bench.durable), LogOptions::default()).await;
        let partition = again.open(0, small_segments()).await;
        assert_eq!((partition.log.log_end(), partition.log.epochs()), (end, epochs));
        partition.check_from(Offset(0), 30_000).await.unwrap();
        partition.election();
        for _ in 0..50 {
            partition.batch(1, 2_000, 3_000);
        }
        round(&again).await;
        partition.check_from(Offset(0), 30_000).await.unwrap();
        assert_eq!(again.durable.dead_reads.get(), 0);
        assert_eq!(again.context.stats().index_rebuilds, 0);
    });
}

#[test]
fn time_rolls_a_segment_and_configuration_takes_effect() {
    rt::sim::run(9, |shard| async move {
        let bench = bench(shard, LogOptions::default()).await;
        let config = SegmentConfig { segment_ms: 1_000, ..SegmentConfig::default() };
        assert_eq!(draw_jitter(&config, 17), 0);
        let partition = bench.open(0, config).await;
        for time in [0, 500, 1_000, 1_001, 1_500] {
            partition.batch(1, 5_000, time);
        }
        round(&bench).await;
        let bases = |partition: &Partition| -> Vec<i64> {
            let state = partition.log.inner.state.borrow();
            state.parts().iter().map(|part| part.base_offset.0).collect()
        };
        assert_eq!(bases(&partition), [0, 3]);
        partition.log.set_config(small_segments());
        for _ in 0..10 {
            partition.batch(1, 10_000, 1_500);
        }
        round(&bench).await;
        assert_eq!(bases(&partition), [0, 3, 7, 10, 13]);
    });
}

#[test]
fn a_batch_whose_beginning_is_written_stays_in_its_segment() {
    rt::sim::run(12, |shard| async move {
        let bench = bench(shard, LogOptions::default()).await;
        let partition = bench.open(0, SegmentConfig::default()).await;
        partition.batch(1, 6_000, 1);
        partition.batch(1, 6_000, 1);
        round(&bench).await;
        assert_eq!(partition.log.flushed(), Index(6), "the second straddles the written blocks");
        partition.log.set_config(SegmentConfig { segment_bytes: 7_000, ..small_segments() });
        partition.batch(1, 6_000, 1);
        round(&bench).await;
        let state = partition.log.inner.state.borrow();
        let ends: Vec<_> = state.closed.iter().map(|s| (s.next_offset.0, s.length)).collect();
        assert_eq!(ends, [(2, 2 * 6_061)], "a checkpoint counts on its first bytes");
    });
}

#[test]
fn deleting_a_partition_removes_its_folder() {
    rt::sim::run(10, |shard| async move {
        let bench =
            bench(shard.clone(), LogOptions { cache_bytes: 0, ..LogOptions::default() }).await;
        let partition = filled(&bench, small_segments()).await;
        partition.batch(1, 50_000, 1);
        partition.log.remove().await.unwrap();
        let topic = format!("/data/topics/{}", identity(0).topic_folder());
        assert!(shard.open_dir(&topic).await.unwrap().list().await.unwrap().is_empty());
        assert!(matches!(partition.check_from(Offset(0), 1).await, Err(ReadError::Removed)));
        assert_eq!(round(&bench).await, RoundReport::default(), "nothing comes back");
        assert!(shard.open_dir(&topic).await.unwrap().list().await.unwrap().is_empty());
        partition.log.remove().await.unwrap();
    });
}

#[test]
fn rounds_come_by_age_by_size_by_pressure_and_at_the_stop() {
    rt::sim::run(11, |shard| async move {
        let options = LogOptions {
            dirty_bytes: 100_000,
            dirty_age: Duration::from_secs(5),
            ..LogOptions::default()
        };
        let bench = bench(shard.clone(), options).await;
        let partition = bench.open(0, SegmentConfig::default()).await;
        let flusher = bench.flusher.clone();
        let running = shard.spawn(async move { flusher.run().await });
        let rounds = || bench.context.stats().rounds;
        let wait = |ms| shard.sleep(Duration::from_millis(ms));
        partition.batch(1, 5_000, 1);
        wait(4_900).await;
        assert_eq!(rounds(), 0);
        wait(200).await;
        assert_eq!(rounds(), 1, "age");
        partition.batch(1, 110_000, 1);
        wait(50).await;
        assert_eq!(rounds(), 2, "size");
        bench.flusher.wal_pressure();
        wait(50).await;
        assert_eq!(rounds(), 2, "pressure without anything to write is no round");
        partition.batch(1, 9_000, 1);
        bench.flusher.wal_pressure();
        wait(50).await;
        assert_eq!(rounds(), 3, "pressure");
        partition.batch(1, 9_000, 1);
        bench.flusher.stop();
        running.await.expect("a clean stop");
        assert_eq!(rounds(), 4);
        assert_eq!(partition.log.flushed(), Index(8), "but for a tail under one block");
    });
}

/// The log's next frame waits for all that the disk was given before it.
#[test]
fn the_disk_is_given_few_staged_batches_at_once() {
    use rt::sim::{World, WorldOptions};
    let world = World::new(1, WorldOptions { disk_bytes: 1 << 30, ..WorldOptions::default() });
    let (staging, staged) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let told = (Rc::clone(&staging), Rc::clone(&staged));
    let node = world.add_node("broker", 1, move |shard| {
        let (staging, staged) = told.clone();
        async move {
            let bench = bench(shard.clone(), LogOptions::default()).await;
            let config = SegmentConfig { segment_bytes: 1 << 30, ..small_segments() };
            let (one, other) = (bench.open(0, config.clone()).await, bench.open(1, config).await);
            // Room is made after the first batch was asked for.
            one.pipeline(&[600_000], 1, 1, false).await;
            other.pipeline(&[3_000_000], 1, 1, false).await;
            shard.sleep(Duration::from_secs(1)).await;
            staging.set(true);
            shard.sleep(Duration::from_millis(1)).await;
            let together = one.pipeline(&[600_000; 5], 1, 5, false).await;
            let alone = other.pipeline(&[3_000_000], 1, 1, false).await;
            staged.set(together + alone);
        }
    });
    assert!(world.run_until(|_| staging.get(), Duration::from_secs(60)));
    let mut faults = world.disk(node).faults();
    faults.slow_by_ns = 100_000_000;
    world.disk(node).set_faults(faults);
    let before = world.disk(node).operations();
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.disk(node).operations() - before, 3, "writes begun");
    assert!(world.run_until(|_| staged.get() > 0, Duration::from_secs(60)));
    assert_eq!(staged.get(), 6, "also one that is longer than all that may be under way");
}
