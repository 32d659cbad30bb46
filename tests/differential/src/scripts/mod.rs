//! What is asked: one file per part of the protocol. Each script makes its own topics and groups,
//! so that any of them can run alone.

mod admin;
mod configs;
mod connections;
mod fetch;
mod groups;
mod idempotence;
mod members;
mod metadata;
mod offsets;
mod produce;
mod topics;
mod versions;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, ProduceResponse,
};

use crate::message;
use crate::pair::{Both, Pair};

type Script = fn(&mut Pair);

/// Every script, in the order of a whole run.
pub const ALL: &[(&str, Script)] = &[
    ("versions", versions::script),
    ("connections", connections::script),
    ("metadata", metadata::script),
    ("topics", topics::script),
    ("produce", produce::script),
    ("idempotence", idempotence::script),
    ("fetch", fetch::script),
    ("offsets", offsets::script),
    ("groups", groups::script),
    ("members", members::script),
    ("configs", configs::script),
    ("admin", admin::script),
];

/// A time long ago, so that it is compared as it is. Topics that hold it never expire.
const T0: i64 = 1_600_000_000_000;
const TIMEOUT_MS: i32 = 10_000;

/// Makes a topic on both sides, and waits until both show it.
fn create(pair: &mut Pair, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
    pair.ask(&format!("create {topic}"), 7, |_| {
        message!(CreateTopicsRequest {
            topics: vec![creatable(topic, partitions, 1, configs)],
            timeout_ms: TIMEOUT_MS,
        })
    });
    pair.settle(&format!("{topic} is there"), 12, |_| {
        message!(MetadataRequest {
            topics: Some(vec![message!(MetadataRequestTopic { name: topic })]),
            allow_auto_topic_creation: false,
        })
    });
    // Kafka takes records a moment after it shows the topic.
    for number in 0..partitions {
        pair.settle(&format!("{topic} [{number}] leads"), 1, |_| {
            let partition =
                message!(ListOffsetsPartition { partition_index: number, timestamp: -1i64 });
            message!(ListOffsetsRequest {
                replica_id: -1,
                topics: vec![message!(ListOffsetsTopic {
                    name: topic,
                    partitions: vec![partition]
                })],
            })
        });
    }
}

fn creatable(
    topic: &str,
    partitions: i32,
    replicas: i16,
    configs: &[(&str, &str)],
) -> CreatableTopic {
    let config = |(name, value): &(&str, &str)| {
        message!(CreatableTopicConfig { name: *name, value: *value })
    };
    message!(CreatableTopic {
        name: topic,
        num_partitions: partitions,
        replication_factor: replicas,
        configs: configs.iter().map(config).collect::<Vec<_>>(),
    })
}

/// A Produce of one batch to partition 0, by name.
fn producing(topic: &str, records: Option<Bytes>) -> ProduceRequest {
    message!(ProduceRequest {
        acks: -1,
        timeout_ms: TIMEOUT_MS,
        topic_data: vec![message!(TopicProduceData {
            name: topic,
            partition_data: vec![message!(PartitionProduceData { records: records })],
        })],
    })
}

/// Produces one batch to partition 0 of both.
fn produce(
    pair: &mut Pair,
    what: &str,
    topic: &str,
    records: Bytes,
) -> Both<Option<ProduceResponse>> {
    pair.ask(what, 9, |_| producing(topic, Some(records.clone())))
}
