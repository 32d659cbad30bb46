//! OffsetDelete (key 47), version 0. KIP-496.
//!
//! Partitions that do not exist are refused one by one, and the group is asked about the rest only.

use kafka_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use net::ErrorCode;

use super::groups::{code, code_of, exists, home, owned, Groups};
use crate::groups::runtime::Coordinators;
use crate::groups::types::GroupError;
use crate::meta::Image;

pub async fn handle<G: Groups>(groups: &G, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let image = groups.image();
    let known = known(&image, &request.topics);
    let outcome = match known.iter().all(|(_, partitions)| partitions.is_empty()) {
        true => Ok(vec![Ok(()); known.len()]),
        false => delete(groups, owned(&request.group_id.0), known).await,
    };
    let outcomes = match outcome {
        Ok(outcomes) => outcomes,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(code(error)),
    };
    let topics = request.topics.into_iter().zip(&outcomes).map(|(topic, outcome)| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let code = match exists(&image, topic.name.as_str(), index) {
                true => code_of(outcome),
                false => ErrorCode::UnknownTopicOrPartition.code(),
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    // A topic of which nothing was asked is not answered.
    let topics = topics.filter(|topic| !topic.partitions.is_empty());
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

/// Each topic of the request with those of its partitions that exist.
fn known(image: &Image, topics: &[OffsetDeleteRequestTopic]) -> Vec<(String, Vec<i32>)> {
    let known = |topic: &OffsetDeleteRequestTopic| {
        let name = owned(&topic.name.0);
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        let partitions = indexes.filter(|index| exists(image, &name, *index)).collect();
        (name, partitions)
    };
    topics.iter().map(known).collect()
}

async fn delete<G: Groups>(
    groups: &G,
    group: String,
    topics: Vec<(String, Vec<i32>)>,
) -> Result<Vec<Result<(), GroupError>>, GroupError> {
    let (shard_group, partition) = home(groups, &group)?;
    let call = move |coordinators: Coordinators| async move {
        coordinators.delete_offsets(partition, group, topics).await
    };
    groups.on_coordinator(shard_group, call).await
}
