//! DescribeTopicPartitions (key 75), version 0. KIP-966.
//!
//! Topics come sorted by name, a page at a time. There are no eligible leader replicas besides the
//! in-sync ones: Raft elects, so those lists are empty.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::messages::describe_topic_partitions_request::{
    Cursor as RequestCursor, DescribeTopicPartitionsRequest,
};
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use net::ErrorCode;

use super::admin::Admin;
use super::metadata::{PartitionStatus, NO_OPERATIONS, TOPIC_OPERATIONS};
use super::names::{broker_ids, check_topic_name, topic_name};
use crate::meta::{Image, Topic};

/// Most partitions in one answer.
const PAGE_PARTITIONS_MAX: i32 = 2000;

pub fn handle<A: Admin>(
    admin: &A,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = admin.image();
    let names = asked_names(&image, &request);
    let response = DescribeTopicPartitionsResponse::default();
    if request.cursor.as_ref().is_some_and(|cursor| !is_legal(cursor, &request, &names)) {
        let asked = request.topics.iter();
        let refused = asked.map(|topic| {
            error(&topic.name, ErrorCode::InvalidRequest)
                .with_topic_authorized_operations(NO_OPERATIONS)
        });
        return response.with_topics(refused.collect());
    }
    let mut left = request.response_partition_limit.clamp(1, PAGE_PARTITIONS_MAX) as usize;
    let mut topics = Vec::new();
    for name in names {
        if left == 0 {
            return response.with_topics(topics).with_next_cursor(Some(cursor(&name, 0)));
        }
        let Some(topic) = image.topic(&name) else {
            topics.push(error(&name, missing(&name)));
            continue;
        };
        let first = match &request.cursor {
            Some(cursor) if cursor.topic_name.as_str() == name => cursor.partition_index as usize,
            _ => 0,
        };
        let end = topic.partitions.len().min(first.saturating_add(left));
        topics.push(page(admin, topic, first, end));
        left -= end.saturating_sub(first);
        if end < topic.partitions.len() {
            return response.with_topics(topics).with_next_cursor(Some(cursor(&name, end)));
        }
    }
    response.with_topics(topics)
}

/// A cursor names a partition, and one of the topics that are asked for.
fn is_legal(
    cursor: &RequestCursor,
    request: &DescribeTopicPartitionsRequest,
    names: &BTreeSet<String>,
) -> bool {
    let asked = request.topics.is_empty() || names.contains(cursor.topic_name.as_str());
    asked && cursor.partition_index >= 0
}

/// The names to describe, sorted, from the cursor on. An empty list asks for all.
fn asked_names(image: &Image, request: &DescribeTopicPartitionsRequest) -> BTreeSet<String> {
    let from = request.cursor.as_ref().map_or("", |cursor| cursor.topic_name.as_str());
    if request.topics.is_empty() {
        return image.topics_from(from).map(|topic| topic.name.to_string()).collect();
    }
    let asked = request.topics.iter().map(|topic| topic.name.to_string());
    asked.filter(|name| name.as_str() >= from).collect()
}

fn missing(name: &str) -> ErrorCode {
    match check_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(refusal) => refusal.code,
    }
}

fn cursor(name: &str, partition: usize) -> Cursor {
    let partition = i32::try_from(partition).unwrap_or(i32::MAX);
    Cursor::default().with_topic_name(topic_name(name)).with_partition_index(partition)
}

fn error(name: &str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(code.code())
        .with_name(Some(topic_name(name)))
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}

fn page<A: Admin>(
    admin: &A,
    topic: &Arc<Topic>,
    first: usize,
    end: usize,
) -> DescribeTopicPartitionsResponseTopic {
    let numbered = (0..).zip(&topic.partitions).take(end).skip(first);
    let partitions = numbered.map(|(number, partition)| {
        let status = PartitionStatus::of(admin, partition);
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(status.code.code())
            .with_partition_index(number)
            .with_leader_id(status.leader)
            .with_leader_epoch(status.epoch)
            .with_replica_nodes(broker_ids(partition.replicas.iter().map(|r| r.node)))
            .with_isr_nodes(broker_ids(status.in_sync))
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
            .with_offline_replicas(broker_ids(status.offline))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}
