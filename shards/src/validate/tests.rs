//! What a produced batch must satisfy, against topics of several configurations.

use net::batch::HEADER_BYTES;
use net::builder::BatchBuilder;

use super::*;
use crate::config::{BrokerView, Settings};
use crate::meta::{Configs, NodeId, State};

const HOUR_MS: i64 = 3_600_000;
const NOW_MS: i64 = 10 * HOUR_MS;

/// The answer of a topic with these configurations.
fn answer(configs: &[(&str, &str)], bytes: &Bytes) -> Result<Stored, Refused> {
    let settings = Settings::new(NodeId(1));
    let image = State::new().image();
    let pair = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let configs: Configs = configs.iter().map(pair).collect();
    let config = TopicConfig::resolve(&configs, &BrokerView::new(&settings, &image));
    batch(Some(bytes), &config, ("t", 0), NOW_MS, 9)
}

fn code(configs: &[(&str, &str)], bytes: &Bytes) -> ErrorCode {
    answer(configs, bytes).map_or_else(|refused| refused.error, |_| ErrorCode::None)
}

fn at(codec: Codec, times: &[i64]) -> Bytes {
    let mut builder = BatchBuilder::new().codec(codec);
    for time in times {
        builder.push(*time, Some(b"key"), Some(b"value"), &[("name", Some(b"header"))]);
    }
    builder.build().unwrap().bytes
}

/// The batch with other bytes in one place and a right checksum.
fn patched(bytes: &Bytes, place: usize, with: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[place..place + with.len()].copy_from_slice(with);
    let crc = net::batch::checksum(&bytes);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// A batch whose header counts `count` records, with offsets to match.
fn counting(bytes: &Bytes, count: i32) -> Bytes {
    let bytes = patched(bytes, 23, &(count - 1).to_be_bytes());
    patched(&bytes, 57, &count.to_be_bytes())
}

#[test]
fn a_plain_batch_holds_as_many_records_as_it_counts() {
    let three = at(Codec::None, &[NOW_MS, NOW_MS, NOW_MS]);
    assert_eq!(code(&[], &counting(&three, 3)), ErrorCode::None);
    for lie in [1, 2, 4, 9, i32::MAX] {
        let refused = answer(&[], &counting(&three, lie)).unwrap_err();
        assert_eq!(refused.error, ErrorCode::InvalidRecord, "{lie}");
        assert!(!refused.hides_log_start, "{lie}");
    }
}

#[test]
fn a_compressed_batch_counts_no_more_records_than_could_be_unfolded() {
    let three = at(Codec::Lz4, &[NOW_MS, NOW_MS, NOW_MS]);
    assert_eq!(code(&[], &counting(&three, i32::MAX)), ErrorCode::InvalidRecord);
    let looked_into = [("compression.type", "zstd")];
    assert_eq!(code(&looked_into, &counting(&three, 4)), ErrorCode::InvalidRecord);
}

#[test]
fn the_inside_of_a_plain_record_is_checked() {
    let one = at(Codec::None, &[NOW_MS]);
    for place in [HEADER_BYTES, HEADER_BYTES + 3, HEADER_BYTES + 4, one.len() - 7] {
        assert_eq!(code(&[], &patched(&one, place, &[0x7f])), ErrorCode::InvalidRecord, "{place}");
    }
}

#[test]
fn every_records_time_is_checked() {
    let old = [("message.timestamp.before.max.ms", "3600000")];
    let (early, late) = (NOW_MS - HOUR_MS - 1, NOW_MS + HOUR_MS + 1);
    for codec in [Codec::None, Codec::Zstd] {
        for times in [[early, NOW_MS, NOW_MS], [NOW_MS, NOW_MS, late], [early, NOW_MS, late]] {
            let refused = answer(&old, &at(codec, &times)).unwrap_err();
            assert_eq!(refused.error, ErrorCode::InvalidTimestamp, "{codec:?} {times:?}");
            assert!(!refused.hides_log_start);
            let wrong = (0..).zip(times).filter(|(_, time)| *time != NOW_MS);
            let places: Vec<i32> = wrong.map(|(place, _)| place).collect();
            assert!(refused.record_errors.iter().map(|(place, _)| *place).eq(places));
        }
        assert_eq!(code(&old, &at(codec, &[early + 1, late - 1])), ErrorCode::None);
        assert_eq!(code(&old, &at(codec, &[-1, NOW_MS])), ErrorCode::None, "-1 is no time");
        assert_eq!(code(&[], &at(codec, &[0])), ErrorCode::None);
        let stamped = [old[0], ("message.timestamp.type", "LogAppendTime")];
        assert_eq!(code(&stamped, &at(codec, &[early])), ErrorCode::None);
    }
    let between = at(Codec::None, &[NOW_MS, early, NOW_MS]);
    assert_eq!(code(&old, &between), ErrorCode::InvalidTimestamp);
    let refused = answer(&old, &between).unwrap_err();
    assert_eq!(
        refused.record_errors[0].1,
        "Timestamp 32399999 of message with offset 1 is out of range. The timestamp should be \
         within [32400000, 39600000]"
    );
}

#[test]
fn a_headers_largest_time_is_made_true() {
    let batch = at(Codec::None, &[NOW_MS, NOW_MS + 5]);
    for lie in [i64::MAX, NOW_MS + 9, 0, -1] {
        let stored = answer(&[], &patched(&batch, 35, &lie.to_be_bytes())).unwrap();
        let honest = answer(&[], &batch).unwrap();
        assert_eq!(stored.batch.header, honest.batch.header, "{lie}");
    }
}

#[test]
fn a_compacted_topic_names_the_first_hundred_records_without_key() {
    let mut builder = BatchBuilder::new().codec(Codec::Zstd);
    for nth in 0..300 {
        builder.push(NOW_MS, (nth % 2 == 0).then_some(b"key"), Some(b"v"), &[]);
    }
    let bytes = builder.build().unwrap().bytes;
    let compact = [("cleanup.policy", "compact")];
    let refused = answer(&compact, &bytes).unwrap_err();
    assert_eq!(refused.error, ErrorCode::InvalidRecord);
    let places = refused.record_errors.iter().map(|(place, _)| *place);
    assert!(places.eq((0..100).map(|nth| nth * 2 + 1)));
    assert_eq!(code(&[], &bytes), ErrorCode::None);
    let damaged = patched(&bytes, HEADER_BYTES + 10, &[0xff; 4]);
    assert_eq!(code(&compact, &damaged), ErrorCode::CorruptMessage);
}
