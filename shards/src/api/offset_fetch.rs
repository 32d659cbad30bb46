//! OffsetFetch (key 9), versions 1 to 9. All topics of a group (2), KIP-320 (leader epoch, 5),
//! KIP-447 (`require_stable`, 7), KIP-709 (several groups, each with its error, 8).
//!
//! `require_stable` has nothing to wait for yet: offsets of open transactions come with them.
//! The member id and epoch of version 9 concern groups of KIP-848, which are not served.

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use kafka_protocol::protocol::StrBytes;

use super::groups::{code, home, owned, wire, Groups};
use super::names::topic_name;
use crate::groups::coordinator::check_group_id;
use crate::groups::records::OffsetValue;
use crate::groups::runtime::Coordinators;
use crate::groups::types::{FetchedTopic, GroupError};

/// From here on a request names several groups.
const BATCHED: i16 = 8;
/// From here on the answer has an error of its own.
const TOP_LEVEL_ERROR: i16 = 2;

type Asked = Option<Vec<(String, Vec<i32>)>>;

pub async fn handle<G: Groups>(
    groups: &G,
    version: i16,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if version >= BATCHED {
        let mut answers = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            answers.push(one_of_several(groups, group).await);
        }
        return OffsetFetchResponse::default().with_groups(answers);
    }
    let asked: Asked = request.topics.map(|topics| {
        let topic = topics.iter();
        topic.map(|topic| (owned(&topic.name.0), topic.partition_indexes.clone())).collect()
    });
    match fetch(groups, owned(&request.group_id.0), asked.clone()).await {
        Ok(topics) => {
            let topics = topics.into_iter().map(|topic| old_topic(topic, 0)).collect();
            OffsetFetchResponse::default().with_topics(topics)
        }
        Err(error) if version < TOP_LEVEL_ERROR => {
            let none = |(topic, partitions): (String, Vec<i32>)| {
                let partitions = partitions.into_iter().map(|number| (number, None)).collect();
                old_topic(FetchedTopic { topic, partitions }, code(error))
            };
            let topics = asked.unwrap_or_default().into_iter().map(none).collect();
            OffsetFetchResponse::default().with_topics(topics)
        }
        Err(error) => OffsetFetchResponse::default().with_error_code(code(error)),
    }
}

async fn one_of_several<G: Groups>(
    groups: &G,
    request: OffsetFetchRequestGroup,
) -> OffsetFetchResponseGroup {
    let asked = request.topics.map(|topics| {
        let topic = topics.iter();
        topic.map(|topic| (owned(&topic.name.0), topic.partition_indexes.clone())).collect()
    });
    let outcome = fetch(groups, owned(&request.group_id.0), asked).await;
    let answer = OffsetFetchResponseGroup::default().with_group_id(request.group_id);
    match outcome {
        Ok(topics) => answer.with_topics(topics.into_iter().map(new_topic).collect()),
        Err(error) => answer.with_error_code(code(error)),
    }
}

async fn fetch<G: Groups>(
    groups: &G,
    group: String,
    asked: Asked,
) -> Result<Vec<FetchedTopic>, GroupError> {
    check_group_id(&group)?;
    let (shard_group, partition) = home(groups, &group)?;
    let call = move |coordinators: Coordinators| async move {
        coordinators.fetch(partition, group, asked).await
    };
    groups.on_coordinator(shard_group, call).await
}

/// Offset, leader epoch and metadata; of a partition without a commit -1, -1 and "".
fn shown(value: Option<OffsetValue>) -> (i64, i32, Option<StrBytes>) {
    match value {
        Some(value) => (value.offset, value.leader_epoch, Some(wire(value.metadata))),
        None => (-1, -1, Some(StrBytes::default())),
    }
}

fn old_topic(topic: FetchedTopic, error_code: i16) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|(number, value)| {
        let (offset, epoch, metadata) = shown(value);
        OffsetFetchResponsePartition::default()
            .with_partition_index(number)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(metadata)
            .with_error_code(error_code)
    });
    OffsetFetchResponseTopic::default()
        .with_name(topic_name(&topic.topic))
        .with_partitions(partitions.collect())
}

fn new_topic(topic: FetchedTopic) -> OffsetFetchResponseTopics {
    let partitions = topic.partitions.into_iter().map(|(number, value)| {
        let (offset, epoch, metadata) = shown(value);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(number)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(metadata)
    });
    OffsetFetchResponseTopics::default()
        .with_name(topic_name(&topic.topic))
        .with_partitions(partitions.collect())
}
