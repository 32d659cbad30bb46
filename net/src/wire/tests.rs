//! Hand-made bytes against the codec's, field by field, in every served version.

use super::*;
use crate::registry;
use kafka_protocol::messages::{
    fetch_response as fr, produce_response as pr, ApiKey, BrokerId, FetchResponse, ProduceResponse,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;

fn joined(parts: Vec<Bytes>) -> Bytes {
    assert!(parts.iter().all(|part| !part.is_empty()), "no empty slice is sent");
    parts.concat().into()
}

fn text() -> impl Strategy<Value = StrBytes> {
    "[a-z.]{0,12}".prop_map(StrBytes::from_string)
}

fn code() -> impl Strategy<Value = ErrorCode> {
    proptest::sample::select(ErrorCode::ALL.to_vec())
}

/// Not the codec's default of (-1, -1), which it leaves out.
fn leader() -> impl Strategy<Value = Option<Leader>> {
    let leader = (0i32..9, 0i32..99).prop_map(|(id, epoch)| Leader { id, epoch });
    proptest::option::of(leader)
}

fn endpoints() -> impl Strategy<Value = Vec<NodeEndpoint>> {
    let endpoint = (0i32..9, text(), 0i32..65536, proptest::option::of(text()))
        .prop_map(|(node_id, host, port, rack)| NodeEndpoint { node_id, host, port, rack });
    proptest::collection::vec(endpoint, 0..3)
}

fn fetch_partition() -> impl Strategy<Value = FetchPartition> {
    let aborted = (0i64..99, 0i64..99)
        .prop_map(|(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset });
    let diverging =
        (0i32..9, 0i64..99).prop_map(|(epoch, end_offset)| EpochEnd { epoch, end_offset });
    let slice = proptest::collection::vec(any::<u8>(), 0..700).prop_map(Bytes::from);
    (
        (0i32..9, code(), any::<i64>(), any::<i64>(), any::<i64>()),
        proptest::option::of(diverging),
        leader(),
        proptest::option::of(proptest::collection::vec(aborted, 0..3)),
        proptest::collection::vec(slice, 0..4),
    )
        .prop_map(
            |(numbers, diverging_epoch, current_leader, aborted_transactions, records)| {
                let (index, error, high_watermark, last_stable_offset, log_start_offset) = numbers;
                FetchPartition {
                    index,
                    error,
                    high_watermark,
                    last_stable_offset,
                    log_start_offset,
                    diverging_epoch,
                    current_leader,
                    aborted_transactions,
                    preferred_read_replica: index,
                    records,
                }
            },
        )
}

fn fetch_answer() -> impl Strategy<Value = FetchAnswer> {
    let topic =
        (text(), any::<u128>(), proptest::collection::vec(fetch_partition(), 0..3)).prop_map(
            |(name, id, partitions)| FetchTopic { name, id: Uuid::from_u128(id), partitions },
        );
    (any::<i32>(), code(), any::<i32>(), proptest::collection::vec(topic, 0..3), endpoints())
        .prop_map(|(throttle_time_ms, error, session_id, topics, node_endpoints)| FetchAnswer {
            throttle_time_ms,
            error,
            session_id,
            topics,
            node_endpoints,
        })
}

fn produce_answer() -> impl Strategy<Value = ProduceAnswer> {
    let message = || proptest::option::of("[a-zä ]{0,20}");
    let refused = (any::<i32>(), message())
        .prop_map(|(batch_index, message)| RefusedRecord { batch_index, message });
    let partition = (
        (0i32..9, code(), any::<i64>(), any::<i64>(), any::<i64>()),
        proptest::collection::vec(refused, 0..3),
        message(),
        leader(),
    )
        .prop_map(|(numbers, record_errors, error_message, current_leader)| {
            let (index, error, base_offset, log_append_time_ms, log_start_offset) = numbers;
            ProducePartition {
                index,
                error,
                base_offset,
                log_append_time_ms,
                log_start_offset,
                record_errors,
                error_message,
                current_leader,
            }
        });
    let topic = (text(), any::<u128>(), proptest::collection::vec(partition, 0..3)).prop_map(
        |(name, id, partitions)| ProduceTopic { name, id: Uuid::from_u128(id), partitions },
    );
    (proptest::collection::vec(topic, 0..3), any::<i32>(), endpoints()).prop_map(
        |(topics, throttle_time_ms, node_endpoints)| ProduceAnswer {
            topics,
            throttle_time_ms,
            node_endpoints,
        },
    )
}

fn fetch_endpoint(endpoint: &NodeEndpoint) -> fr::NodeEndpoint {
    fr::NodeEndpoint::default()
        .with_node_id(BrokerId(endpoint.node_id))
        .with_host(endpoint.host.clone())
        .with_port(endpoint.port)
        .with_rack(endpoint.rack.clone())
}

fn codec_fetch(answer: &FetchAnswer, version: i16) -> FetchResponse {
    let topics = answer.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let aborted = p.aborted_transactions.as_ref().map(|aborted| {
                let one = |a: &AbortedTransaction| {
                    fr::AbortedTransaction::default()
                        .with_producer_id(a.producer_id.into())
                        .with_first_offset(a.first_offset)
                };
                aborted.iter().map(one).collect()
            });
            let mut data = fr::PartitionData::default()
                .with_partition_index(p.index)
                .with_error_code(p.error.code())
                .with_high_watermark(p.high_watermark)
                .with_last_stable_offset(p.last_stable_offset)
                .with_log_start_offset(p.log_start_offset)
                .with_aborted_transactions(aborted)
                .with_records(Some(p.records.concat().into()));
            if version >= 11 {
                data.preferred_read_replica = BrokerId(p.preferred_read_replica);
            }
            if let Some(EpochEnd { epoch, end_offset }) = p.diverging_epoch {
                data.diverging_epoch.epoch = epoch;
                data.diverging_epoch.end_offset = end_offset;
            }
            if let Some(Leader { id, epoch }) = p.current_leader {
                data.current_leader.leader_id = BrokerId(id);
                data.current_leader.leader_epoch = epoch;
            }
            data
        });
        fr::FetchableTopicResponse::default()
            .with_topic(TopicName(topic.name.clone()))
            .with_topic_id(topic.id)
            .with_partitions(partitions.collect())
    });
    let mut response = FetchResponse::default()
        .with_throttle_time_ms(answer.throttle_time_ms)
        .with_responses(topics.collect());
    if version >= 7 {
        response.error_code = answer.error.code();
        response.session_id = answer.session_id;
    }
    if version >= 16 {
        response.node_endpoints = answer.node_endpoints.iter().map(fetch_endpoint).collect();
    }
    response
}

fn codec_produce(answer: &ProduceAnswer, version: i16) -> ProduceResponse {
    let topics = answer.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let refused = p.record_errors.iter().map(|refused| {
                pr::BatchIndexAndErrorMessage::default()
                    .with_batch_index(refused.batch_index)
                    .with_batch_index_error_message(
                        refused.message.clone().map(StrBytes::from_string),
                    )
            });
            let mut response = pr::PartitionProduceResponse::default()
                .with_index(p.index)
                .with_error_code(p.error.code())
                .with_base_offset(p.base_offset)
                .with_log_append_time_ms(p.log_append_time_ms)
                .with_log_start_offset(p.log_start_offset)
                .with_record_errors(refused.collect())
                .with_error_message(p.error_message.clone().map(StrBytes::from_string));
            if let (Some(Leader { id, epoch }), 10..) = (p.current_leader, version) {
                response.current_leader.leader_id = BrokerId(id);
                response.current_leader.leader_epoch = epoch;
            }
            response
        });
        pr::TopicProduceResponse::default()
            .with_name(TopicName(topic.name.clone()))
            .with_topic_id(topic.id)
            .with_partition_responses(partitions.collect())
    });
    let mut response = ProduceResponse::default()
        .with_throttle_time_ms(answer.throttle_time_ms)
        .with_responses(topics.collect());
    if version >= 10 {
        let endpoint = |e: &NodeEndpoint| {
            pr::NodeEndpoint::default()
                .with_node_id(BrokerId(e.node_id))
                .with_host(e.host.clone())
                .with_port(e.port)
                .with_rack(e.rack.clone())
        };
        response.node_endpoints = answer.node_endpoints.iter().map(endpoint).collect();
    }
    response
}

fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    let api = registry::api(key).expect("a row");
    api.served_min..=api.max
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn fetch_is_what_the_codec_writes(answer in fetch_answer()) {
        for version in versions(ApiKey::Fetch) {
            let mut theirs = BytesMut::new();
            codec_fetch(&answer, version).encode(&mut theirs, version).expect("encodes");
            prop_assert_eq!(&joined(encode_fetch(answer.clone(), version)), &theirs, "{}", version);
            FetchResponse::decode(&mut theirs.freeze(), version).expect("decodes");
        }
    }

    #[test]
    fn produce_is_what_the_codec_writes(answer in produce_answer()) {
        for version in versions(ApiKey::Produce) {
            let mut theirs = BytesMut::new();
            codec_produce(&answer, version).encode(&mut theirs, version).expect("encodes");
            prop_assert_eq!(&joined(encode_produce(&answer, version)), &theirs, "{}", version);
        }
    }
}

#[test]
fn large_records_are_not_copied_and_empty_ones_are_not_null() {
    let records = Bytes::from(vec![7; 100_000]);
    let address = records.as_ptr();
    let mut partition = FetchPartition::refused(0, ErrorCode::None);
    partition.records = vec![records.slice(..60_000), records.slice(60_000..)];
    let empty = FetchPartition::refused(1, ErrorCode::OffsetOutOfRange);
    let answer = FetchAnswer {
        throttle_time_ms: 0,
        error: ErrorCode::None,
        session_id: 0,
        topics: vec![FetchTopic {
            name: StrBytes::from_static_str("t"),
            id: Uuid::nil(),
            partitions: vec![partition, empty],
        }],
        node_endpoints: Vec::new(),
    };
    let parts = encode_fetch(answer, 12);
    assert_eq!(parts.len(), 4);
    assert_eq!(parts[1].as_ptr(), address);
    let decoded = FetchResponse::decode(&mut joined(parts), 12).expect("decodes");
    assert_eq!(decoded.responses[0].partitions[1].records, Some(Bytes::new()));
}

#[test]
fn long_messages_are_cut_between_characters() {
    let text = "ä".repeat(20_000);
    assert_eq!(cut_text(&text, i16::MAX as usize).len(), 32_766);
    assert_eq!(cut_text("abc", 10), "abc");
}
