//! What does the protocol cost around the records? A Produce request is checked against its schema
//! and decoded, Produce and Fetch answers are encoded; six partitions each, as with six partitions of
//! one topic. The records themselves are slices and are not touched.

use std::hint::black_box;

use bytes::Bytes;
use criterion::Criterion;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use net::client::encode_frame;
use net::header::decode_request_header;
use net::wire::{
    encode_fetch, encode_produce, FetchAnswer, FetchPartition, FetchTopic, ProduceAnswer,
    ProducePartition, ProduceTopic,
};
use net::{schema, ErrorCode, RequestKind};
use uuid::Uuid;

use crate::batch::of_values;

const PARTITIONS: i32 = 6;
const PRODUCE_VERSION: i16 = 12;
const FETCH_VERSION: i16 = 12;
const TOPIC: StrBytes = StrBytes::from_static_str("topic");

pub fn bench(criterion: &mut Criterion) {
    let frame = produce_frame();
    criterion.bench_function("codec/decode produce", |bencher| {
        bencher.iter(|| {
            let mut body = black_box(&frame).clone();
            let header = decode_request_header(&mut body).expect("a header");
            schema::check(header.api, header.version, &body).expect("a sound body");
            RequestKind::decode(header.api.key, &mut body, header.version).expect("a request")
        });
    });
    let answer = produce_answer();
    criterion.bench_function("codec/encode produce answer", |bencher| {
        bencher.iter(|| encode_produce(black_box(&answer), PRODUCE_VERSION));
    });
    let records = of_values(16 << 10).bytes;
    criterion.bench_function("codec/encode fetch answer", |bencher| {
        bencher.iter(|| encode_fetch(fetch_answer(black_box(&records)), FETCH_VERSION));
    });
}

fn produce_frame() -> Bytes {
    let partition = |index| {
        PartitionProduceData::default()
            .with_index(index)
            .with_records(Some(of_values(16 << 10).bytes))
    };
    let topic = TopicProduceData::default()
        .with_name(TopicName(TOPIC))
        .with_partition_data((0..PARTITIONS).map(partition).collect());
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    let client_id = StrBytes::from_static_str("bench");
    let frame = encode_frame(&client_id, 0, &request, PRODUCE_VERSION).expect("a request");
    // What is timed gets a frame without its length.
    frame.slice(4..)
}

fn produce_answer() -> ProduceAnswer {
    let partition = |index| ProducePartition {
        base_offset: 1_000,
        log_start_offset: 0,
        ..ProducePartition::refused(index, ErrorCode::None, None)
    };
    let partitions = (0..PARTITIONS).map(partition).collect();
    let topic = ProduceTopic { name: TOPIC, id: Uuid::nil(), partitions };
    ProduceAnswer { topics: vec![topic], throttle_time_ms: 0, node_endpoints: Vec::new() }
}

fn fetch_answer(records: &Bytes) -> FetchAnswer {
    let partition = |index| FetchPartition {
        high_watermark: 1_000,
        last_stable_offset: 1_000,
        log_start_offset: 0,
        records: vec![records.clone()],
        ..FetchPartition::refused(index, ErrorCode::None)
    };
    let partitions = (0..PARTITIONS).map(partition).collect();
    FetchAnswer {
        throttle_time_ms: 0,
        error: ErrorCode::None,
        session_id: 0,
        topics: vec![FetchTopic { name: TOPIC, id: Uuid::nil(), partitions }],
        node_endpoints: Vec::new(),
    }
}
