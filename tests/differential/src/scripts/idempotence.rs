//! kafka.md section 6: InitProducerId, sequences, DescribeProducers.

use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::{DescribeProducersRequest, InitProducerIdRequest};

use super::{create, produce, T0};
use crate::batch::Batch;
use crate::message;
use crate::message::Value;
use crate::pair::Pair;

pub fn script(pair: &mut Pair) {
    ids(pair);
    window(pair);
    epochs(pair);
    strangers(pair);
    described(pair);
}

fn ids(pair: &mut Pair) {
    let asking = |id: i64, epoch: i16| {
        message!(InitProducerIdRequest { producer_id: id, producer_epoch: epoch })
            .with_transactional_id(None)
    };
    // Kafka fails once or twice after its start.
    pair.settle("a new id", 5, |_| asking(-1, -1));
    pair.ask_every("an id", |_, _| asking(-1, -1));
    for version in [3, 5] {
        pair.ask("an id for an old one", version, |_| asking(4000, 3));
        pair.ask("an id for a negative one", version, |_| asking(-5, -5));
    }
    pair.ask("an id with a timeout below zero", 5, |_| {
        let mut request = asking(-1, -1);
        request.transaction_timeout_ms = -1;
        request
    });
    pair.ask("an empty transactional id", 5, |_| {
        message!(InitProducerIdRequest { transactional_id: "" })
    });
    for timeout in [0, -1, 900_001] {
        pair.ask(&format!("a transaction of {timeout} ms"), 5, |_| {
            message!(InitProducerIdRequest {
                transactional_id: "id-bad",
                transaction_timeout_ms: timeout,
            })
        });
    }
    pair.ask("a transactional id", 5, |_| {
        message!(InitProducerIdRequest {
            transactional_id: Value::<Option<_>>::value("id-good"),
            transaction_timeout_ms: 10_000,
        })
    });
}

/// One record for each sequence number.
fn batch(id: i64, epoch: i16, first: i32, records: usize) -> bytes::Bytes {
    Batch::of(&vec!["x"; records], T0).idempotent(id, epoch, first).bytes()
}

fn window(pair: &mut Pair) {
    create(pair, "id-window", 1, &[("retention.ms", "-1")]);
    let mut ask = |what: &str, first: i32, records: usize| {
        produce(pair, what, "id-window", batch(900, 0, first, records));
    };
    for first in 0..7 {
        ask(&format!("sequence {first}"), first * 2, 2);
    }
    for first in (0..7).rev() {
        ask(&format!("sequence {first} again"), first * 2, 2);
    }
    ask("a gap", 20, 2);
    ask("an overlap", 13, 2);
    ask("shorter than the last", 12, 1);
    ask("longer than the last", 12, 3);
    ask("inside an older one", 9, 1);
    ask("the next", 14, 1);
    ask("negative", -1, 1);
    create(pair, "id-wrap", 1, &[("retention.ms", "-1")]);
    let mut ask = |what: &str, first: i32, records: usize| {
        produce(pair, what, "id-wrap", batch(901, 0, first, records));
    };
    ask("near the end", i32::MAX - 1, 1);
    ask("across the end", i32::MAX, 3);
    ask("across the end again", i32::MAX, 3);
    ask("after the end", 2, 1);
    ask("the end as a gap", 0, 1);
}

fn epochs(pair: &mut Pair) {
    create(pair, "id-epoch", 1, &[("retention.ms", "-1")]);
    let mut ask = |what: &str, epoch: i16, first: i32| {
        produce(pair, what, "id-epoch", batch(902, epoch, first, 1));
    };
    ask("first", 3, 0);
    ask("second", 3, 1);
    ask("a higher epoch, not from 0", 4, 2);
    ask("a higher epoch", 5, 0);
    ask("a lower epoch", 3, 2);
    ask("a lower epoch from 0", 4, 0);
    ask("the higher epoch again", 5, 0);
    ask("the higher epoch goes on", 5, 1);
    ask("the highest epoch", i16::MAX, 0);
    ask("the highest epoch goes on", i16::MAX, 1);
}

fn strangers(pair: &mut Pair) {
    create(pair, "id-any", 1, &[("retention.ms", "-1")]);
    let mut ask = |what: &str, id: i64, epoch: i16, first: i32| {
        produce(pair, what, "id-any", batch(id, epoch, first, 1));
    };
    ask("an id nobody was given", 9_000_000, 0, 0);
    ask("from sequence 5", 9_000_001, 0, 5);
    ask("from sequence 5 goes on", 9_000_001, 0, 6);
    ask("from sequence 5 with a gap", 9_000_001, 0, 8);
    ask("from epoch 7", 9_000_002, 7, 9);
    let late = Batch::of(&["x"], T0 + 5).idempotent(9_000_003, 0, 0).bytes();
    for _ in 0..2 {
        produce(pair, "a duplicate has its own time", "id-any", late.clone());
    }
    create(
        pair,
        "id-append",
        1,
        &[("retention.ms", "-1"), ("message.timestamp.type", "LogAppendTime")],
    );
    for _ in 0..2 {
        produce(pair, "a duplicate with append time", "id-append", batch(903, 0, 0, 1));
    }
}

fn described(pair: &mut Pair) {
    let asking = |topic: &str, partitions: &[i32]| {
        message!(DescribeProducersRequest {
            topics: vec![message!(TopicRequest {
                name: topic,
                partition_indexes: partitions.to_vec(),
            })],
        })
    };
    for (topic, partitions) in [
        ("id-epoch", &[0][..]),
        ("id-wrap", &[0]),
        ("id-epoch", &[1, -1]),
        ("id-nope", &[0]),
        ("a b", &[0]),
        ("id-epoch", &[]),
    ] {
        pair.ask(&format!("producers of {topic} {partitions:?}"), 0, |_| asking(topic, partitions));
    }
}
