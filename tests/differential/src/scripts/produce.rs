//! kafka.md section 5: what Produce takes and refuses.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest};
use kafka_protocol::protocol::Request;
use uuid::Uuid;

use super::{create, produce, producing, T0, TIMEOUT_MS};
use crate::batch::{Batch, Record, GZIP, LZ4, SNAPPY, ZSTD};
use crate::message;
use crate::normal::now_ms;
use crate::pair::Pair;

const FOREVER: (&str, &str) = ("retention.ms", "-1");
const _: () = assert!(ProduceRequest::KEY == ApiKey::Produce as i16);

pub fn script(pair: &mut Pair) {
    create(pair, "pr", 3, &[FOREVER]);
    taken(pair);
    addressed(pair);
    acks(pair);
    malformed(pair);
    headers(pair);
    records(pair);
    sizes(pair);
    timestamps(pair);
    compacted(pair);
    compressed(pair);
    no_acks(pair);
}

/// What partition 0 of `topic` holds now, by a plain fetch.
fn stored(pair: &mut Pair, topic: &str) {
    pair.settle(&format!("{topic} as stored"), 12, |_| super::fetch::whole(topic));
}

fn taken(pair: &mut Pair) {
    let ids = pair.topic_ids("pr");
    pair.ask_every("one record", |side, version| {
        let mut request = producing("pr", Some(Batch::of(&["x"], T0).bytes()));
        if version >= 13 {
            request.topic_data[0].name = Default::default();
            request.topic_data[0].topic_id = ids[side];
        }
        request
    });
    pair.ask_every("no topics", |_, _| {
        message!(ProduceRequest { acks: -1, timeout_ms: TIMEOUT_MS }).with_transactional_id(None)
    });
    pair.ask("several partitions", 9, |_| {
        let mut request = producing("pr", Some(Batch::of(&["a", "b"], T0).bytes()));
        let data = &mut request.topic_data[0].partition_data;
        for index in [7, 2, 1] {
            data.push(message!(PartitionProduceData {
                index: index,
                records: Some(Batch::of(&["c"], T0).bytes()),
            }));
        }
        request
    });
    create(pair, "pr-twice", 1, &[]);
    pair.ask("one partition twice", 9, |_| {
        let mut request = producing("pr-twice", Some(Batch::of(&["a", "b"], T0).bytes()));
        let again = request.topic_data[0].partition_data[0].clone();
        request.topic_data[0].partition_data.push(again);
        request
    });
    pair.ask("a record with headers", 9, |_| {
        let mut batch = Batch::of(&["x"], T0);
        batch.records[0].headers = vec![("a", Some("1")), ("a", None), ("", Some(""))];
        producing("pr", Some(batch.bytes()))
    });
    pair.ask("a record without key or value", 9, |_| {
        let mut batch = Batch::of(&["x"], T0);
        batch.records[0].value = None;
        producing("pr", Some(batch.bytes()))
    });
    stored(pair, "pr");
}

fn addressed(pair: &mut Pair) {
    let records = Batch::of(&["x"], T0).bytes();
    for name in ["pr-nope", "a b", "", "__consumer_offsets"] {
        for version in [3, 9, 12] {
            pair.ask(&format!("to topic '{name}'"), version, |_| {
                producing(name, Some(records.clone()))
            });
        }
    }
    for id in [0, 5] {
        pair.ask(&format!("to topic id {id}"), 13, |_| {
            let mut request = producing("", Some(records.clone()));
            request.topic_data[0].topic_id = Uuid::from_u128(id);
            request
        });
    }
    for index in [3, -1] {
        pair.ask(&format!("to partition {index}"), 10, |_| {
            let mut request = producing("pr", Some(records.clone()));
            request.topic_data[0].partition_data[0].index = index;
            request
        });
    }
    pair.ask("known and unknown topics", 9, |_| {
        let mut request = producing("pr-nope", Some(records.clone()));
        request.topic_data.push(message!(TopicProduceData {
            name: "pr",
            partition_data: vec![message!(PartitionProduceData { records: Some(records.clone()) })],
        }));
        request
    });
}

fn acks(pair: &mut Pair) {
    for acks in [2, -2, 1] {
        for version in [3, 9] {
            pair.ask(&format!("acks {acks}"), version, |_| {
                let mut request = producing("pr", Some(Batch::of(&["x"], T0).bytes()));
                request.acks = acks;
                request
            });
        }
    }
    pair.ask("a batch of a transaction without an id", 9, |_| {
        let batch = Batch::of(&["x"], T0).idempotent(77, 0, 0).with(|b| b.attributes = 16);
        producing("pr", Some(batch.bytes()))
    });
    pair.ask("a transactional id", 9, |_| {
        let mut request = producing("pr", Some(Batch::of(&["x"], T0).bytes()));
        request.transactional_id = crate::message::Value::value("an-id");
        request
    });
    create(pair, "pr-two", 1, &[FOREVER, ("min.insync.replicas", "2")]);
    produce(pair, "two in-sync replicas of one", "pr-two", Batch::of(&["x"], T0).bytes());
}

/// Bytes that are no single batch of the present format.
fn malformed(pair: &mut Pair) {
    let good = Batch::of(&["x"], T0).bytes();
    let joined = |parts: &[&[u8]]| Bytes::from(parts.concat());
    let cases: Vec<(&str, Bytes)> = vec![
        ("no bytes", Bytes::new()),
        ("two batches", joined(&[&good, &good])),
        ("half a batch", good.slice(..good.len() - 1)),
        ("half a header", good.slice(..40)),
        ("16 bytes", good.slice(..16)),
        ("17 bytes", good.slice(..17)),
        ("a batch and 10 zeros", joined(&[&good, &[0; 10]])),
        ("a batch and 100 zeros", joined(&[&good, &[0; 100]])),
        ("a batch and 5 other bytes", joined(&[&good, &[7; 5]])),
        ("zeros", Bytes::from_static(&[0; 80])),
        ("magic 0", Batch::of(&["x"], T0).with(|b| b.magic = 0).bytes()),
        ("magic 1", Batch::of(&["x"], T0).with(|b| b.magic = 1).bytes()),
        ("magic 3", Batch::of(&["x"], T0).with(|b| b.magic = 3).bytes()),
        ("magic -1", Batch::of(&["x"], T0).with(|b| b.magic = -1).bytes()),
        ("length 0", Batch::of(&["x"], T0).with(|b| b.length = Some(0)).bytes()),
        ("length -1", Batch::of(&["x"], T0).with(|b| b.length = Some(-1)).bytes()),
        ("length 13", Batch::of(&["x"], T0).with(|b| b.length = Some(13)).bytes()),
        ("length 48", Batch::of(&["x"], T0).with(|b| b.length = Some(48)).bytes()),
        ("length 2^31 - 1", Batch::of(&["x"], T0).with(|b| b.length = Some(i32::MAX)).bytes()),
        ("a wrong checksum", Batch::of(&["x"], T0).with(|b| b.crc = Some(1)).bytes()),
    ];
    for (what, records) in cases {
        for version in [3, 9] {
            pair.ask(what, version, |_| producing("pr", Some(records.clone())));
        }
    }
    pair.ask("null records and good ones beside", 9, |_| {
        let mut request = producing("pr", Some(good.clone()));
        request.topic_data[0]
            .partition_data
            .push(message!(PartitionProduceData { index: 1, records: Some(Bytes::new()) }));
        request
    });
}

/// Lies in the header of a batch whose records are fine. Each has a topic of its own: a lie that is
/// taken moves the offsets after it.
fn headers(pair: &mut Pair) {
    type Change = fn(&mut Batch);
    let cases: &[(&str, Change)] = &[
        ("base offset 5", |b| b.base_offset = 5),
        ("base offset -1", |b| b.base_offset = -1),
        ("a leader epoch", |b| b.leader_epoch = 7),
        ("last offset delta too large", |b| b.last_offset_delta = Some(2)),
        ("last offset delta too small", |b| b.last_offset_delta = Some(0)),
        ("last offset delta -1", |b| b.last_offset_delta = Some(-1)),
        ("count too large", |b| b.count = Some(3)),
        ("count too small", |b| b.count = Some(1)),
        ("count 0", |b| b.count = Some(0)),
        ("count -1", |b| b.count = Some(-1)),
        ("count and delta too large", |b| {
            b.count = Some(3);
            b.last_offset_delta = Some(2);
        }),
        ("count and delta too small", |b| {
            b.count = Some(1);
            b.last_offset_delta = Some(0);
        }),
        ("a control batch", |b| b.attributes = 32),
        ("a control batch of a transaction", |b| b.attributes = 48),
        ("an append time", |b| b.attributes = 8),
        ("a delete horizon", |b| b.attributes = 64),
        ("an unknown attribute", |b| b.attributes = 128),
        ("an id without sequence", |b| b.producer = (8_000_005, 0, -1)),
        ("an id without epoch", |b| b.producer = (8_000_005, -1, 0)),
        ("a sequence without id", |b| b.producer = (-1, -1, 0)),
        ("an id of -2", |b| b.producer = (-2, 0, 0)),
        ("no records", |b| {
            b.records.clear();
            b.last_offset_delta = Some(0);
        }),
        ("no records at all", |b| b.records.clear()),
        ("codec 5", |b| b.attributes = 5),
        ("codec 7", |b| b.attributes = 7),
    ];
    for (what, change) in cases {
        lie(pair, what, &Batch::of(&["a", "b"], T0).with(change));
    }
    create(pair, "pr-vast", 1, &[FOREVER]);
    let vast = Batch::of(&["a", "b"], T0).with(|b| {
        b.count = Some(i32::MAX);
        b.last_offset_delta = Some(i32::MAX - 1);
    });
    produce(pair, "count and delta of 2^31", "pr-vast", vast.bytes());
}

/// Produces one batch to a new topic, and compares what is stored of it.
fn lie(pair: &mut Pair, what: &str, batch: &Batch) {
    let topic: String =
        what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let topic = format!("pr-lie-{topic}");
    create(pair, &topic, 1, &[FOREVER]);
    produce(pair, what, &topic, batch.bytes());
    stored(pair, &topic);
}

/// Lies in the records of a batch that is not compressed.
fn records(pair: &mut Pair) {
    type Change = fn(&mut Vec<Record>);
    let cases: &[(&str, Change)] = &[
        ("an offset too large", |r| r[1].offset_delta = Some(2)),
        ("an offset twice", |r| r[1].offset_delta = Some(0)),
        ("a negative offset", |r| r[0].offset_delta = Some(-1)),
        ("a length too large", |r| r[1].length = Some(100)),
        ("a length too small", |r| r[0].length = Some(2)),
        ("a negative length", |r| r[0].length = Some(-1)),
        ("a negative count of headers", |r| r[0].header_count = Some(-1)),
        ("a count of headers too large", |r| r[0].header_count = Some(3)),
        ("a timestamp after the header's", |r| r[0].timestamp_delta = 5),
    ];
    for (what, change) in cases {
        let plain = Batch::of(&["a", "b"], T0).with(|b| {
            b.max_timestamp = Some(T0);
            change(&mut b.records);
        });
        lie(pair, &format!("plain: {what}"), &plain);
        lie(pair, &format!("compressed: {what}"), &plain.compressed(GZIP));
    }
    for (what, codec) in [("plain", 0), ("compressed", GZIP)] {
        let batch = Batch::of(&["a"], T0).compressed(codec);
        let trailing = batch.clone().with(|b| b.trailing = vec![1, 2, 3]);
        lie(pair, &format!("{what}: bytes after the last record"), &trailing);
        let early = batch.clone().with(|b| b.max_timestamp = Some(-1));
        lie(pair, &format!("{what}: no largest timestamp"), &early);
        let wrong = batch.clone().with(|b| b.max_timestamp = Some(T0 + 50));
        lie(pair, &format!("{what}: a largest timestamp too large"), &wrong);
    }
    for codec in [GZIP, SNAPPY, LZ4, ZSTD] {
        let junk = Batch::of(&["a"], T0).compressed(codec).bytes();
        let junk = reattributed(&junk, codec);
        let topic = format!("pr-junk-{codec}");
        create(pair, &topic, 1, &[FOREVER]);
        produce(pair, &format!("junk of codec {codec}"), &topic, junk);
    }
}

/// The batch of one plain record, said to be compressed.
fn reattributed(batch: &Bytes, codec: i16) -> Bytes {
    let plain = Batch::of(&["a"], T0).bytes();
    let mut bytes = [&batch[..23], &plain[23..]].concat();
    let length = (bytes.len() as i32 - 12).to_be_bytes();
    bytes[8..12].copy_from_slice(&length);
    bytes[21..23].copy_from_slice(&codec.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]).to_be_bytes();
    bytes[17..21].copy_from_slice(&crc);
    bytes.into()
}

fn sizes(pair: &mut Pair) {
    create(pair, "pr-small", 1, &[FOREVER, ("max.message.bytes", "200")]);
    for fill in [100, 200] {
        let value = "x".repeat(fill);
        produce(pair, &format!("{fill} bytes"), "pr-small", Batch::of(&[&value], T0).bytes());
    }
    // The exact limit, with the 12 bytes of offset and length, and one more.
    let exactly = |bytes: usize| {
        let mut value = String::new();
        while Batch::of(&[&value], T0).bytes().len() < bytes {
            value.push('x');
        }
        Batch::of(&[&value], T0).bytes()
    };
    for bytes in [200, 201] {
        produce(pair, &format!("a batch of {bytes} bytes"), "pr-small", exactly(bytes));
    }
    let long = "x".repeat(1000);
    let packed = Batch::of(&[&long], T0).compressed(ZSTD).bytes();
    produce(pair, "small when compressed", "pr-small", packed);
    let segments = [FOREVER, ("segment.bytes", "1048576"), ("max.message.bytes", "3000000")];
    create(pair, "pr-segment", 1, &segments);
    let large = "x".repeat(1_100_000);
    produce(pair, "larger than a segment", "pr-segment", Batch::of(&[&large], T0).bytes());
    create(pair, "pr-limit", 1, &[FOREVER]);
    for bytes in [1_048_588, 1_048_589] {
        let empty = Batch::of(&["x".repeat(1_048_500).as_str()], T0).bytes().len() - 1_048_500;
        let value = "x".repeat(bytes - empty);
        let batch = Batch::of(&[&value], T0).bytes();
        assert_eq!(batch.len(), bytes);
        produce(pair, &format!("the default limit: {bytes} bytes"), "pr-limit", batch);
    }
}

fn timestamps(pair: &mut Pair) {
    let hour = 3_600_000;
    create(pair, "pr-time", 1, &[FOREVER]);
    for (what, time) in [
        ("now", now_ms()),
        ("in half an hour", now_ms() + hour / 2),
        ("in two days", now_ms() + 48 * hour),
        ("long ago", 1),
        ("0", 0),
        ("-1", -1),
        ("-2", -2),
    ] {
        for codec in [0, GZIP] {
            let records = Batch::of(&["x"], time).compressed(codec).bytes();
            produce(pair, &format!("time {what}, codec {codec}"), "pr-time", records);
        }
    }
    stored(pair, "pr-time");
    let past = [FOREVER, ("message.timestamp.before.max.ms", "3600000")];
    create(pair, "pr-past", 1, &past);
    let mixed = Batch::of(&["good", "old", "good", "old"], now_ms()).with(|b| {
        b.records[1].timestamp_delta = -48 * hour;
        b.records[3].timestamp_delta = -49 * hour;
    });
    produce(pair, "two of four too old", "pr-past", mixed.bytes());
    produce(pair, "two of four too old, compressed", "pr-past", mixed.compressed(GZIP).bytes());
    create(pair, "pr-append", 1, &[FOREVER, ("message.timestamp.type", "LogAppendTime")]);
    for (what, time) in [("long ago", T0), ("in two days", now_ms() + 48 * hour), ("-1", -1)] {
        for version in [3, 9] {
            pair.ask(&format!("append time, {what}"), version, |_| {
                producing("pr-append", Some(Batch::of(&["x", "y"], time).bytes()))
            });
        }
    }
    let packed = Batch::of(&["x", "y"], T0).compressed(LZ4).bytes();
    produce(pair, "append time, compressed", "pr-append", packed);
    stored(pair, "pr-append");
}

fn compacted(pair: &mut Pair) {
    create(pair, "pr-keys", 1, &[FOREVER, ("cleanup.policy", "compact")]);
    produce(pair, "a key", "pr-keys", Batch::keyed(&[("k", "v")], T0).bytes());
    let mut mixed = Batch::keyed(&[("a", "1"), ("b", "2"), ("c", "3")], T0);
    mixed.records[0].key = None;
    mixed.records[2].key = None;
    for version in [3, 8, 9] {
        pair.ask("two of three without key", version, |_| {
            producing("pr-keys", Some(mixed.bytes()))
        });
    }
    produce(pair, "compressed without key", "pr-keys", mixed.compressed(LZ4).bytes());
    produce(pair, "one without key", "pr-keys", Batch::of(&["x"], T0).bytes());
    create(pair, "pr-both", 1, &[FOREVER, ("cleanup.policy", "compact,delete")]);
    produce(pair, "without key, also deleted", "pr-both", Batch::of(&["x"], T0).bytes());
    create(pair, "pr-neither", 1, &[FOREVER, ("cleanup.policy", "")]);
    produce(pair, "without key, no policy", "pr-neither", Batch::of(&["x"], T0).bytes());
}

fn compressed(pair: &mut Pair) {
    for version in [3, 6, 7, 9] {
        pair.ask("zstd", version, |_| {
            producing("pr", Some(Batch::of(&["x"], T0).compressed(ZSTD).bytes()))
        });
    }
    for (name, _) in [("uncompressed", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)] {
        let topic = format!("pr-{name}");
        create(pair, &topic, 1, &[FOREVER, ("compression.type", name)]);
        for codec in [0, GZIP, SNAPPY, LZ4, ZSTD] {
            let batch = Batch::of(&["aaaaaaaaaaaaaaaa", "b"], T0).compressed(codec);
            produce(pair, &format!("codec {codec} to {name}"), &topic, batch.bytes());
        }
        stored(pair, &topic);
    }
}

/// Without acknowledgement: silence when it worked, an end of the connection when it did not.
fn no_acks(pair: &mut Pair) {
    create(pair, "pr-blind", 1, &[FOREVER]);
    for (what, topic) in [("taken", "pr-blind"), ("refused", "pr-nope")] {
        let mut lane = pair.lane();
        let pending = pair.send_on(&mut lane, &format!("acks 0, {what}"), 9, |_| {
            let mut request = producing(topic, Some(Batch::of(&["x"], T0).bytes()));
            request.acks = 0;
            request
        });
        pair.receive_within::<ProduceRequest>(&mut lane, pending, Duration::from_millis(500));
    }
    stored(pair, "pr-blind");
}
