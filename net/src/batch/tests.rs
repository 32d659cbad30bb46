//! Tests of batch headers, records and the builder, against the codec crate where it can judge.

use super::*;
use crate::builder::{BatchBuilder, Marker};
use crate::compress::CompressError;
use crate::records::{Record, RecordError, Unfolded};
use crate::scan::{recompress, scan, Seen, Target};
use crate::unfold::unfolded_max_bytes;
use bytes::{BufMut, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as theirs;
use proptest::prelude::*;
use std::ops::ControlFlow;

const LIMIT: usize = 1 << 20;

type Fields = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn fields() -> impl Strategy<Value = Fields> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    let headers = proptest::collection::btree_map("[a-z]{0,5}", bytes(), 0..3);
    (0i64..1 << 45, bytes(), bytes(), headers.prop_map(|h| h.into_iter().collect()))
}

fn build(records: &[Fields], codec: Codec) -> Batch {
    let mut builder =
        BatchBuilder::new().codec(codec).base_offset(1000).leader_epoch(7).producer(9, 3, 20);
    for (timestamp, key, value, headers) in records {
        let headers: Vec<(&str, Option<&[u8]>)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        builder.push(*timestamp, key.as_deref(), value.as_deref(), &headers);
    }
    builder.build().expect("builds")
}

fn ours_of(batch: &Batch) -> Vec<Fields> {
    let unfolded = Unfolded::new(batch, LIMIT).expect("unfolds");
    unfolded
        .iter()
        .map(|record| {
            let record = record.expect("a record");
            let headers = record.headers().map(|header| {
                let header = header.expect("a header");
                let name = String::from_utf8(header.key.to_vec()).expect("text");
                (name, header.value.map(<[u8]>::to_vec))
            });
            (
                record.timestamp,
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
                headers.collect(),
            )
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What we build, we and the codec crate read back, in every codec.
    #[test]
    fn built_batches_are_read_by_both(
        records in proptest::collection::vec(fields(), 1..12),
        codec in proptest::sample::select(Codec::ALL.to_vec()),
    ) {
        let batch = build(&records, codec);
        batch.check_crc().expect("a right checksum");
        prop_assert_eq!(ours_of(&batch), records.clone());
        let set = theirs::RecordBatchDecoder::decode(&mut batch.bytes.clone()).expect("decodes");
        prop_assert_eq!(set.records.len(), records.len());
        for (nth, (record, expected)) in set.records.iter().zip(&records).enumerate() {
            prop_assert_eq!(record.offset, 1000 + nth as i64);
            prop_assert_eq!(record.timestamp, expected.0);
            prop_assert_eq!(record.key.as_deref(), expected.1.as_deref());
            prop_assert_eq!(record.value.as_deref(), expected.2.as_deref());
            prop_assert_eq!(record.headers.len(), expected.3.len());
            prop_assert_eq!((record.producer_id, record.producer_epoch), (9, 3));
        }
    }

    /// What the codec crate builds, we read.
    #[test]
    fn their_batches_are_read_by_us(
        records in proptest::collection::vec(fields(), 1..12),
        codec in proptest::sample::select(vec![
            theirs::Compression::None, theirs::Compression::Gzip, theirs::Compression::Snappy,
            theirs::Compression::Lz4, theirs::Compression::Zstd,
        ]),
    ) {
        let list: Vec<theirs::Record> = records.iter().enumerate().map(|(nth, fields)| {
            theirs::Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 0,
                producer_id: -1,
                producer_epoch: -1,
                timestamp_type: theirs::TimestampType::Creation,
                offset: nth as i64,
                sequence: nth as i32,
                timestamp: fields.0,
                key: fields.1.clone().map(Bytes::from),
                value: fields.2.clone().map(Bytes::from),
                headers: fields.3.iter().cloned()
                    .map(|(name, value)| (StrBytes::from_string(name), value.map(Bytes::from)))
                    .collect::<IndexMap<_, _>>(),
            }
        }).collect();
        let mut out = BytesMut::new();
        let options = theirs::RecordEncodeOptions { version: 2, compression: codec };
        theirs::RecordBatchEncoder::encode(&mut out, &list, &options).expect("encodes");
        let batch = Batch::from_produce(Some(&out.freeze()), 13).expect("one batch");
        batch.check_integrity(i32::MAX, i32::MAX).expect("whole");
        batch.check_fields().expect("a client's batch");
        prop_assert_eq!(ours_of(&batch), records);
    }

    /// Header rewriting gives the checksum that a pass over all bytes gives.
    #[test]
    fn rewritten_headers_have_the_right_checksum(
        value in proptest::collection::vec(any::<u8>(), 0..3000),
        now in any::<i64>(),
    ) {
        let batch = build(&[(5, None, Some(value), vec![])], Codec::None);
        let rewrite = |edit: &dyn Fn(&mut BatchHeader)| {
            let mut header = batch.header;
            edit(&mut header);
            let mut bytes = BytesMut::from(&batch.bytes[..]);
            bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
            Batch::split_from(&mut bytes.freeze()).expect("a batch")
        };
        let placed = rewrite(&|header| header.place(77, 8));
        placed.check_crc().expect("offset and epoch lie outside the checksum");
        let stamped = rewrite(&|header| header.set_log_append_time(now));
        stamped.check_crc().expect("a new checksum");
        prop_assert_eq!(stamped.header.timestamp_type(), TimestampType::LogAppendTime);
        prop_assert_eq!(stamped.header.max_timestamp, now);
        let back = rewrite(&|header| {
            header.set_log_append_time(now);
            header.set_create_time(7);
        });
        back.check_crc().expect("a new checksum");
        prop_assert_eq!(back.header.timestamp_type(), TimestampType::CreateTime);
        prop_assert_eq!(back.header.max_timestamp, 7);
    }

    /// Bytes of strangers never panic and never yield more records than they have bytes.
    #[test]
    fn mutated_batches_never_panic(
        records in proptest::collection::vec(fields(), 1..5),
        codec in proptest::sample::select(Codec::ALL.to_vec()),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = build(&records, codec).bytes.to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let bytes = Bytes::from(bytes);
        for batch in Batches::new(bytes.clone()).flatten() {
            let _ = (batch.check_crc(), batch.check_fields(), batch.header.last_sequence());
            let target = Target { codec: Codec::Lz4, level: None, batch_max_bytes: LIMIT };
            let _ = recompress(&batch, target, LIMIT, |_| ());
            let (seen, scanned) = scanned(&batch);
            if let Ok(unfolded) = Unfolded::new(&batch, LIMIT) {
                let read = unfolded.iter().flatten().flat_map(|r| r.headers()).flatten().count();
                prop_assert!(read <= LIMIT);
                let sound = |r: &Record<'_>| r.check_headers().is_ok();
                let whole: Vec<_> =
                    unfolded.iter().map_while(Result::ok).take_while(sound).map(seen_of).collect();
                let is_sound = unfolded.iter().all(|r| r.is_ok_and(|record| sound(&record)));
                prop_assert_eq!((seen, scanned.is_ok()), (whole, is_sound));
            }
        }
    }

    /// What is seen in passing is what lies in memory whole, in every codec.
    #[test]
    fn a_scan_sees_every_record(
        records in proptest::collection::vec(fields(), 1..20),
        codec in proptest::sample::select(Codec::ALL.to_vec()),
        append_time in any::<bool>(),
    ) {
        let mut batch = build(&records, codec);
        if append_time {
            batch.header.set_log_append_time(77);
        }
        let unfolded = Unfolded::new(&batch, LIMIT).expect("unfolds");
        let whole: Vec<Seen> = unfolded.iter().map(|r| seen_of(r.expect("reads"))).collect();
        prop_assert_eq!(scanned(&batch), (whole, Ok(())));
    }
}

fn seen_of(record: Record<'_>) -> Seen {
    let Record { offset, timestamp, key, .. } = record;
    Seen { offset, timestamp, has_key: key.is_some() }
}

fn scanned(batch: &Batch) -> (Vec<Seen>, Result<(), RecordError>) {
    let mut seen = Vec::new();
    let result = scan(batch, LIMIT, |one| {
        seen.push(one);
        ControlFlow::Continue(())
    });
    (seen, result)
}

#[test]
fn checksums_shift_as_the_crate_combines_them() {
    for bytes in [0usize, 1, 7, 61, 4096, 1_000_003, 100 << 20] {
        for difference in [1u32, 0xdead_beef, u32::MAX] {
            let expected = crc32c::crc32c_combine(difference, 0, bytes);
            assert_eq!(crc_after_bytes(difference, bytes as u64), expected, "{bytes}");
        }
    }
}

fn plain() -> Batch {
    build(&[(5, Some(b"k".to_vec()), Some(b"v".to_vec()), vec![])], Codec::None)
}

/// A batch as a client sends it.
fn from_client() -> BatchBuilder {
    BatchBuilder::new().record(5, None, Some(b"one")).record(6, None, Some(b"two"))
}

fn edited(edit: impl FnOnce(&mut BatchHeader)) -> Batch {
    let batch = from_client().build().expect("builds");
    let mut header = batch.header;
    edit(&mut header);
    crate::records::seal(header, &batch.body())
}

/// kafka.md section 5, check 3, each case with its code.
#[test]
fn structure_checks_of_a_produce() {
    let code = |bytes: &[u8], version| {
        Batch::from_produce(Some(&Bytes::copy_from_slice(bytes)), version).unwrap_err().code()
    };
    let good = from_client().build().expect("builds").bytes;
    let with = |at: usize, value: &[u8]| {
        let mut bytes = good.to_vec();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    assert_eq!(Batch::from_produce(None, 13), Err(BatchError::NoBatch));
    assert_eq!(code(b"", 13), ErrorCode::InvalidRecord);
    assert_eq!(code(&good[..good.len() - 1], 13), ErrorCode::InvalidRecord);
    assert_eq!(code(&good[..30], 13), ErrorCode::InvalidRecord);
    assert_eq!(code(&[&good[..], &good[..]].concat(), 13), ErrorCode::InvalidRecord);
    assert_eq!(code(&with(16, &[0]), 13), ErrorCode::InvalidRecord);
    assert_eq!(code(&with(16, &[1]), 13), ErrorCode::InvalidRecord);
    assert_eq!(code(&with(16, &[3]), 13), ErrorCode::CorruptMessage);
    assert_eq!(code(&with(16, &[0xff]), 13), ErrorCode::CorruptMessage);
    assert_eq!(code(&with(8, &0i32.to_be_bytes()), 13), ErrorCode::CorruptMessage);
    assert_eq!(code(&with(8, &(-1i32).to_be_bytes()), 13), ErrorCode::CorruptMessage);
    assert_eq!(code(&with(8, &48i32.to_be_bytes()), 13), ErrorCode::CorruptMessage);
    assert_eq!(code(&with(8, &i32::MAX.to_be_bytes()), 13), ErrorCode::InvalidRecord);
    assert_eq!(code(&with(22, &[7]), 13), ErrorCode::UnsupportedCompressionType);
    let zstd = from_client().codec(Codec::Zstd).build().expect("builds").bytes;
    assert_eq!(code(&zstd, 6), ErrorCode::UnsupportedCompressionType);
    assert!(Batch::from_produce(Some(&zstd), 7).is_ok());
    let zero_tail = Bytes::from([&good[..], &[0; 16]].concat());
    let batch = Batch::from_produce(Some(&zero_tail), 13).expect("the tail is ignored");
    assert_eq!(batch.bytes, good);
    assert_eq!(code(&[&good[..], &[0; 17]].concat(), 13), ErrorCode::CorruptMessage);
    for ignored in [&[1; 16], &good[..good.len() - 1]] {
        let tail = Bytes::from([&good[..], ignored].concat());
        assert_eq!(Batch::from_produce(Some(&tail), 13).expect("ignored").bytes, good);
    }
}

#[test]
fn integrity_checks_of_a_produce() {
    let batch = from_client().build().expect("builds");
    let size = batch.bytes.len() as i32;
    assert_eq!(batch.check_integrity(size, size), Ok(()));
    let code = |max, segment| batch.check_integrity(max, segment).unwrap_err().code();
    assert_eq!(code(size - 1, size), ErrorCode::MessageTooLarge);
    assert_eq!(code(size, size - 1), ErrorCode::RecordListTooLarge);
    let mut bytes = batch.bytes.to_vec();
    *bytes.last_mut().expect("bytes") ^= 1;
    let damaged = Batch::split_from(&mut bytes.into()).expect("a batch");
    let error = damaged.check_integrity(size, size).unwrap_err();
    assert_eq!((error.code(), error.hides_log_start()), (ErrorCode::CorruptMessage, true));
}

#[test]
fn field_checks_of_a_produce() {
    assert_eq!(edited(|_| {}).check_fields(), Ok(()));
    let edits: [fn(&mut BatchHeader); 8] = [
        |header| header.base_offset = 1,
        |header| header.record_count = 3,
        |header| header.record_count = 0,
        |header| header.last_offset_delta = i32::MAX,
        |header| (header.record_count, header.last_offset_delta) = (0, -1),
        |header| (header.record_count, header.last_offset_delta) = (i32::MAX, i32::MAX - 1),
        |header| header.attributes |= CONTROL_BIT,
        |header| (header.producer_id, header.base_sequence) = (4, -1),
    ];
    for edit in edits {
        let error = edited(edit).check_fields().unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRecord, "{error}");
        assert!(!error.hides_log_start(), "{error}");
    }
}

#[test]
fn sequences_wrap_to_zero() {
    let batch = edited(|header| header.base_sequence = i32::MAX);
    assert_eq!(batch.header.last_sequence(), 0);
    assert_eq!(sequence_after(5, 3), 8);
    assert_eq!(sequence_after(i32::MAX, 3), 2);
}

#[test]
fn lies_inside_a_batch_are_errors() {
    let lie = |record: &[u8], count: i32| {
        let mut header = plain().header;
        header.record_count = count;
        header.last_offset_delta = count - 1;
        header.batch_length = (HEADER_BYTES - LENGTH_PREFIX_BYTES + record.len()) as i32;
        let batch = crate::records::seal(header, record);
        let unfolded = Unfolded::new(&batch, LIMIT).expect("not compressed");
        let result: Result<Vec<_>, _> = unfolded.iter().map(|r| r.map(|r| r.offset)).collect();
        result
    };
    // length 6 (zigzag 12): attributes, time, offset, null key, null value, no headers.
    let good = [12, 0, 0, 0, 1, 1, 0];
    assert_eq!(lie(&good, 1), Ok(vec![1000]));
    assert_eq!(lie(&[12, 0, 0, 2, 1, 1, 0], 1), Err(RecordError::Offset(1)));
    assert_eq!(lie(&[12, 0, 0, 1, 1, 1, 0], 1), Err(RecordError::Offset(-1)));
    assert_eq!(lie(&[good, good].concat(), 2), Err(RecordError::Offset(0)));
    assert_eq!(lie(&[good, good].concat(), 1), Err(RecordError::Trailing));
    assert_eq!(lie(&good, 2), Err(RecordError::Malformed));
    assert_eq!(lie(&good, i32::MAX), Err(RecordError::Malformed));
    // A count of two billion headers in no bytes at all.
    let many = [20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(lie(&many, 1), Err(RecordError::Malformed));
    // A key of a gigabyte.
    let long = [20, 0, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x08, 1, 0];
    assert_eq!(lie(&long, 1), Err(RecordError::Malformed));
}

#[test]
fn headers_end_where_their_record_ends() {
    let check = |headers: &[u8]| {
        let record = [&[(6 + headers.len() as u8) * 2 - 2, 0, 0, 0, 1, 1][..], headers].concat();
        let mut header = plain().header;
        header.batch_length = (HEADER_BYTES - LENGTH_PREFIX_BYTES + record.len()) as i32;
        let batch = crate::records::seal(header, &record);
        let unfolded = Unfolded::new(&batch, LIMIT).expect("not compressed");
        let record = unfolded.iter().next().expect("one").expect("a record");
        record.check_headers()
    };
    assert_eq!(check(&[0]), Ok(()));
    assert_eq!(check(&[2, 2, b'k', 2, b'v']), Ok(()));
    assert_eq!(check(&[2, 2, b'k', 1]), Ok(()), "a null value");
    assert_eq!(check(&[2, 1, 1]), Err(RecordError::Malformed), "a null key");
    assert_eq!(check(&[2, 2, b'k', 2, b'v', 0]), Err(RecordError::Malformed), "a byte too many");
    assert_eq!(check(&[4, 2, b'k', 2, b'v']), Err(RecordError::Malformed), "one header of two");
}

#[test]
fn recompression_keeps_the_records() {
    let records = vec![(5, None, Some(vec![9; 500]), vec![]), (8, Some(vec![1]), None, vec![])];
    for from in Codec::ALL {
        for to in Codec::ALL {
            let target = Target { codec: to, level: None, batch_max_bytes: LIMIT };
            let (before, mut seen) = (build(&records, from), Vec::new());
            let batch = recompress(&before, target, LIMIT, |one| seen.push(one));
            let batch = batch.expect("recompresses");
            assert_eq!(scanned(&before), (seen, Ok(())));
            assert_eq!(batch.header.codec(), Some(to));
            batch.check_crc().expect("a new checksum");
            assert_eq!(batch.header.size_bytes(), batch.bytes.len());
            assert_eq!(ours_of(&batch), records);
            assert_eq!(batch.header.producer_id, 9);
        }
    }
}

/// A batch of one record whose value is so many zeros.
fn bomb(codec: Codec, value_bytes: usize) -> Batch {
    let value = vec![0; value_bytes];
    let batch = BatchBuilder::new().codec(codec).record(1, None, Some(&value)).build();
    batch.expect("builds")
}

#[test]
fn recompression_stops_at_either_limit() {
    for from in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bomb = bomb(from, 8 << 20);
        assert!(bomb.bytes.len() < 1 << 20, "{from:?}");
        let moved = |limit_bytes, batch_max_bytes| {
            let target = Target { codec: Codec::None, level: None, batch_max_bytes };
            recompress(&bomb, target, limit_bytes, |_| ())
        };
        let unfolds = CompressError::TooLarge { limit_bytes: 1 << 20 };
        assert_eq!(moved(1 << 20, 16 << 20), Err(unfolds.into()), "{from:?}");
        let folds = CompressError::FoldedTooLarge { limit_bytes: 4 << 20 };
        assert_eq!(moved(16 << 20, 4 << 20), Err(folds.into()), "{from:?}");
        // What fits is let through to the last byte.
        let plain = moved(16 << 20, 16 << 20).expect("fits");
        let exact = plain.bytes.len();
        assert!(exact > 8 << 20);
        assert_eq!(moved(exact - HEADER_BYTES, exact), Ok(plain), "{from:?}");
        assert!(moved(exact - HEADER_BYTES - 1, exact).is_err(), "{from:?}");
        assert!(moved(exact, exact - 1).is_err(), "{from:?}");
    }
}

#[test]
fn a_large_batch_may_unfold_to_a_multiple_of_its_size() {
    assert_eq!(unfolded_max_bytes(&plain()), 32 << 20);
    assert_eq!(unfolded_max_bytes(&bomb(Codec::None, 8 << 20)) >> 20, 64);
}

#[test]
fn a_time_before_minus_one_is_stored_as_none_under_a_new_checksum() {
    let sealed = |max_timestamp| {
        let mut header = plain().header;
        header.max_timestamp = max_timestamp;
        crate::records::seal(header, &plain().body()).header
    };
    let mut stored = sealed(-2);
    stored.set_create_time(-2);
    assert_eq!((stored.max_timestamp, stored.crc), (-1, sealed(-1).crc));
}

#[test]
fn markers_are_control_batches() {
    let batch = BatchBuilder::marker(Marker::Commit, 12, 1, 6, 99).expect("builds");
    assert!(batch.header.is_control() && batch.header.is_transactional());
    let set = theirs::RecordBatchDecoder::decode(&mut batch.bytes.clone()).expect("decodes");
    assert!(set.records[0].control);
    assert_eq!(set.records[0].key.as_deref(), Some(&[0, 0, 0, 1][..]));
    assert_eq!(set.records[0].value.as_deref(), Some(&[0, 0, 0, 0, 0, 6][..]));
    let error = batch.check_fields().unwrap_err();
    assert_eq!(error, BatchError::Control);
}

#[test]
fn a_run_of_batches_ends_at_the_first_damage() {
    let mut run = BytesMut::new();
    run.put_slice(&plain().bytes);
    run.put_slice(&plain().bytes);
    let whole: Vec<_> = Batches::new(run.clone().freeze()).collect();
    assert_eq!(whole, vec![Ok(plain()), Ok(plain())]);
    run.truncate(run.len() - 1);
    let cut: Vec<_> = Batches::new(run.freeze()).collect();
    assert_eq!(cut, vec![Ok(plain()), Err(BatchError::Truncated)]);
}
