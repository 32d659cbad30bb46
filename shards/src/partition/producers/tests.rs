//! The rules table of kafka.md section 6, row by row; then a property test that a state rolled
//! back, snapshotted, restored and replayed equals one that only ever saw the surviving log.

use proptest::prelude::*;

use super::*;

const DAY_MS: i64 = 86_400_000;

fn states() -> ProducerStates {
    ProducerStates::new(Index(5), DAY_MS)
}

fn info(producer_id: i64, epoch: i16, first: i32, records: i32) -> BatchInfo {
    BatchInfo::new(producer_id, epoch, first, records - 1)
}

/// Appends at the next index, which also stands for base offset and timestamp.
fn append(states: &mut ProducerStates, info: BatchInfo) -> Index {
    let index = Index(states.last_index.0 + 1);
    assert_eq!(states.check(&info), Verdict::Append);
    states.appended(&info, index.0 as i64 * 100, index, index.0 as i64);
    index
}

fn out_of_order() -> Verdict {
    Verdict::Reject(Reject::OutOfOrderSequence)
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    let mut states = states();
    append(&mut states, info(7, 3, 42, 10));
    append(&mut states, info(9, 0, 0, 1));
}

#[test]
fn the_next_sequence_appends_and_a_gap_or_overlap_does_not() {
    let mut states = states();
    append(&mut states, info(7, 0, 0, 10));
    assert_eq!(states.check(&info(7, 0, 11, 1)), out_of_order());
    assert_eq!(states.check(&info(7, 0, 5, 10)), out_of_order());
    assert_eq!(states.check(&info(7, 0, 0, 9)), out_of_order());
    assert_eq!(states.check(&info(7, 0, 0, 11)), out_of_order());
    append(&mut states, info(7, 0, 10, 1));
}

#[test]
fn sequences_wrap_to_zero_between_batches_and_inside_one() {
    let mut states = states();
    append(&mut states, info(7, 0, i32::MAX - 1, 2));
    append(&mut states, info(7, 0, 0, 1));
    append(&mut states, info(8, 0, i32::MAX, 3));
    assert_eq!(info(8, 0, i32::MAX, 3).last_sequence, 1);
    append(&mut states, info(8, 0, 2, 1));
}

#[test]
fn a_duplicate_names_its_original_in_flight_or_committed() {
    let mut states = states();
    let index = append(&mut states, info(7, 0, 0, 10));
    let duplicate = Verdict::Duplicate { base_offset: 600, max_timestamp: 6, index };
    assert_eq!(states.check(&info(7, 0, 0, 10)), duplicate);
    states.committed(index);
    assert_eq!(states.check(&info(7, 0, 0, 10)), duplicate);
}

#[test]
fn the_window_holds_five_across_the_commit() {
    let mut states = states();
    let indexes: Vec<Index> =
        (0..6).map(|batch| append(&mut states, info(7, 0, batch * 10, 10))).collect();
    for committed in [None, Some(indexes[3]), Some(indexes[5])] {
        if let Some(index) = committed {
            states.committed(index);
        }
        assert_eq!(states.check(&info(7, 0, 0, 10)), out_of_order(), "sixth from the end");
        for batch in 1..6 {
            let verdict = states.check(&info(7, 0, batch * 10, 10));
            assert!(matches!(verdict, Verdict::Duplicate { index, .. }
                if index == indexes[batch as usize]));
        }
    }
}

#[test]
fn a_higher_epoch_begins_at_zero_and_resets_the_window() {
    let mut states = states();
    append(&mut states, info(7, 1, 0, 10));
    assert_eq!(states.check(&info(7, 2, 10, 1)), out_of_order());
    append(&mut states, info(7, 2, 0, 4));
    assert_eq!(states.check(&info(7, 2, 0, 10)), out_of_order(), "a batch of the epoch before");
    append(&mut states, info(7, 2, 4, 1));
}

#[test]
fn a_lower_epoch_is_refused_as_such() {
    let mut states = states();
    append(&mut states, info(7, 2, 0, 1));
    let stale = Verdict::Reject(Reject::FencedEpoch);
    assert_eq!(states.check(&info(7, 1, 1, 1)), stale);
    assert_eq!(states.check(&info(7, 1, 0, 1)), stale);
}

#[test]
fn truncation_restores_window_epoch_and_absence() {
    let mut states = states();
    for batch in 0..6 {
        append(&mut states, info(7, 0, batch, 1));
    }
    states.committed(Index(11));
    let before = states.clone();
    let from = append(&mut states, info(7, 1, 0, 1));
    append(&mut states, info(8, 0, 0, 1));
    states.truncated(from);
    assert_eq!(states, before);
    assert!(matches!(states.check(&info(7, 0, 1, 1)), Verdict::Duplicate { .. }));
    append(&mut states, info(8, 0, 99, 1));
}

#[test]
#[should_panic(expected = "never truncated")]
fn truncating_the_commit_is_a_bug() {
    let mut states = states();
    let index = append(&mut states, info(7, 0, 0, 1));
    states.committed(index);
    states.truncated(index);
}

#[test]
fn producers_expire_by_the_logs_time() {
    let mut states = states();
    // An old record (a copy of last year's data) is no sign of a silent producer.
    states.appended(&info(7, 0, 0, 1), 0, Index(6), 10 * DAY_MS);
    states.appended(&info(8, 0, 0, 1), 1, Index(7), 3);
    states.committed(Index(7));
    assert_eq!(states.len(), 2);
    states.appended(&info(9, 0, 0, 1), 2, Index(8), 11 * DAY_MS - 1);
    states.committed(Index(8));
    assert_eq!(states.len(), 3);
    states.appended(&info(9, 0, 1, 1), 3, Index(9), 11 * DAY_MS);
    assert_eq!(states.len(), 3, "nothing expires before the commit");
    states.committed(Index(9));
    assert_eq!(states.active().map(|p| p.producer_id).collect::<Vec<_>>(), [9]);
    assert_eq!(states.check(&info(7, 0, 50, 1)), Verdict::Append);
}

#[test]
fn the_longest_silent_producer_yields_to_the_limit() {
    let mut states = states();
    states.producers_max = 2;
    for (producer, index) in [(7, 6), (8, 7), (7, 8), (9, 9)] {
        let first = i32::from(index == 8);
        states.appended(&info(producer, 0, first, 1), 0, Index(index), -1);
        states.committed(Index(index));
    }
    assert_eq!(states.active().map(|p| p.producer_id).collect::<Vec<_>>(), [7, 9]);
}

#[test]
fn describe_shows_the_last_batch_of_each() {
    let mut states = states();
    append(&mut states, info(7, 2, 0, 10));
    append(&mut states, info(7, 2, 10, 5));
    let expected = ActiveProducer {
        producer_id: 7,
        epoch: 2,
        last_sequence: 14,
        last_timestamp: 7,
        coordinator_epoch: -1,
        txn_start_offset: -1,
    };
    assert_eq!(states.active().collect::<Vec<_>>(), [expected]);
}

#[test]
fn entries_that_a_snapshot_holds_are_not_counted_twice() {
    let mut states = states();
    for batch in 0..4 {
        append(&mut states, info(7, 0, batch, 1));
    }
    states.committed(Index(8));
    let bytes = states.snapshot(Index(6));
    let mut restored = ProducerStates::restore(&bytes, DAY_MS).unwrap();
    assert_eq!(restored.committed_index(), Index(8));
    for index in 7..=9 {
        let batch = info(7, 0, index - 6, 1);
        restored.appended(&batch, i64::from(index) * 100, Index(index as u64), i64::from(index));
    }
    assert_eq!(restored, states);
}

#[test]
fn the_snapshot_format_is_fixed() {
    let mut states = states();
    states.appended(&info(0x0102, 3, 4, 5), 6, Index(7), 8);
    states.committed(Index(9));
    let hex: String = states.snapshot(Index(9)).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "434b5053",
            "0100",
            "0000",
            "0900000000000000",
            "0800000000000000",
            "01000000",
            "0201000000000000",
            "0300",
            "0800000000000000",
            "01",
            "04000000",
            "08000000",
            "0600000000000000",
            "0800000000000000",
            "0700000000000000",
            "6610774f"
        )
    );
}

#[test]
fn damaged_snapshots_are_refused() {
    let mut states = states();
    append(&mut states, info(7, 0, 0, 1));
    append(&mut states, info(8, 0, 0, 1));
    states.committed(Index(7));
    let bytes = states.snapshot(Index(7));
    for length in 0..bytes.len() {
        assert!(ProducerStates::restore(&bytes[..length], DAY_MS).is_err());
    }
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x40;
        assert!(ProducerStates::restore(&damaged, DAY_MS).is_err(), "byte {position}");
    }
}

/// Gives the content a right checksum again.
fn sealed(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(content).to_le_bytes());
    bytes
}

#[test]
fn sealed_nonsense_is_refused_without_allocating_for_its_counts() {
    let mut content = b"CKPS\x01\0\0\0".to_vec();
    content.extend_from_slice(&[0; 16]);
    content.extend_from_slice(&u32::MAX.to_le_bytes());
    let error = ProducerStates::restore(&sealed(&content), DAY_MS).unwrap_err();
    assert_eq!(error, SnapshotError::Malformed("ends too early"));
    content[4] = 2;
    let error = ProducerStates::restore(&sealed(&content), DAY_MS).unwrap_err();
    assert_eq!(error, SnapshotError::Version(2));
}

#[derive(Debug, Clone)]
enum Step {
    /// A producer's next batch, valid or not; only what `check` allows is appended.
    Batch {
        producer: i64,
        bump: bool,
        skip: i32,
        records: i32,
        time: i64,
    },
    Commit(u8),
    Truncate(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4i64, prop::bool::weighted(0.1), 0..8, 1..4, 0..2 * DAY_MS).prop_map(
            |(producer, bump, skip, records, time): (_, _, i32, _, _)| Step::Batch {
                producer, bump, skip: (skip - 6).max(0), records, time
            }
        ),
        3 => any::<u8>().prop_map(Step::Commit),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => Just(Step::Restart),
    ]
}

type LogEntry = (BatchInfo, i64, Index, i64);

fn replay(log: &[LogEntry], committed: Index) -> ProducerStates {
    let mut states = states();
    for (info, offset, index, time) in log {
        states.appended(info, *offset, *index, *time);
        if *index <= committed {
            states.committed(*index);
        }
    }
    states.committed(committed);
    states
}

proptest! {
    #[test]
    fn living_through_a_log_equals_replaying_what_survived(
        steps in prop::collection::vec(step(), 0..60)
    ) {
        let mut states = states();
        let mut log: Vec<LogEntry> = Vec::new();
        let mut committed = Index(5);
        for step in steps {
            match step {
                Step::Batch { producer, bump, skip, records, time } => {
                    let last = states.active().find(|p| p.producer_id == producer);
                    let (epoch, next) = last
                        .map_or((0, 0), |p| (p.epoch, sequence_after(p.last_sequence, 1)));
                    let batch = match bump {
                        true => info(producer, epoch + 1, skip, records),
                        false => info(producer, epoch, next + skip, records),
                    };
                    match states.check(&batch) {
                        Verdict::Append => {
                            let index = Index(log.last().map_or(committed, |e| e.2).0.max(committed.0) + 1);
                            states.appended(&batch, index.0 as i64, index, time);
                            log.push((batch, index.0 as i64, index, time));
                            let is_duplicate =
                                matches!(states.check(&batch), Verdict::Duplicate { index: i, .. } if i == index);
                            prop_assert!(is_duplicate);
                        }
                        verdict => prop_assert!(skip > 0, "{:?} {:?}", batch, verdict),
                    }
                }
                Step::Commit(part) => {
                    let last = log.last().map_or(committed, |e| e.2.max(committed));
                    let open = last.0 - committed.0;
                    committed = Index(committed.0 + open * u64::from(part) / 255);
                    states.committed(committed);
                }
                Step::Truncate(part) => {
                    let last = log.last().map_or(committed, |e| e.2.max(committed));
                    let from = Index(committed.0 + 1 + (last.0 - committed.0) * u64::from(part) / 255);
                    states.truncated(from);
                    log.retain(|entry| entry.2 < from);
                }
                Step::Restart => {
                    let bytes = states.snapshot(committed);
                    states = ProducerStates::restore(&bytes, DAY_MS).unwrap();
                    for (info, offset, index, time) in &log {
                        states.appended(info, *offset, *index, *time);
                    }
                }
            }
            prop_assert_eq!(&states.producers, &replay(&log, committed).producers);
        }
    }
}
