//! OffsetCommit (key 8), versions 2 to 9. KIP-211 (no retention time from 5 on), KIP-320 (leader
//! epoch, 6), KIP-345 (static members, 7), KIP-848 (GROUP_ID_NOT_FOUND, 9).
//!
//! Partitions that do not exist are refused one by one, and the group is asked about the rest only.

use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use net::ErrorCode;

use super::groups::{code, code_of, exists, home, owned, owned_option, Groups};
use crate::groups::runtime::Coordinators;
use crate::groups::types::{Commit, CommittedOffset, GroupError};
use crate::meta::Image;

pub async fn handle<G: Groups>(
    groups: &G,
    version: i16,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let image = groups.image();
    let offsets = offsets(&image, &request.topics);
    let outcome = match offsets.is_empty() {
        true => Ok(Vec::new()),
        false => commit(groups, version, &request, offsets).await,
    };
    let mut outcomes = outcome.as_ref().map(|outcomes| outcomes.iter()).ok();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let code = if !exists(&image, topic.name.as_str(), partition.partition_index) {
                ErrorCode::UnknownTopicOrPartition.code()
            } else {
                match (&outcome, &mut outcomes) {
                    (Err(error), _) => code(*error),
                    (_, outcomes) => outcomes.as_mut().and_then(Iterator::next).map_or(0, code_of),
                }
            };
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    // A topic of which nothing was asked is not answered.
    let topics = topics.filter(|topic| !topic.partitions.is_empty());
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// The offsets of partitions that exist, in order.
fn offsets(image: &Image, topics: &[OffsetCommitRequestTopic]) -> Vec<CommittedOffset> {
    let mut offsets = Vec::new();
    for topic in topics {
        let name = topic.name.as_str();
        let known = |partition: i32| exists(image, name, partition);
        for partition in topic.partitions.iter().filter(|one| known(one.partition_index)) {
            offsets.push(CommittedOffset {
                topic: name.to_owned(),
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: owned_option(&partition.committed_metadata),
            });
        }
    }
    offsets
}

async fn commit<G: Groups>(
    groups: &G,
    version: i16,
    request: &OffsetCommitRequest,
    offsets: Vec<CommittedOffset>,
) -> Result<Vec<Result<(), GroupError>>, GroupError> {
    let commit = Commit {
        group: owned(&request.group_id.0),
        generation: request.generation_id_or_member_epoch,
        member_id: owned(&request.member_id),
        instance_id: owned_option(&request.group_instance_id),
        retention_ms: Some(request.retention_time_ms).filter(|ms| version <= 4 && *ms >= 0),
        knows_group_id_not_found: version >= 9,
        offsets,
    };
    let (shard_group, partition) = home(groups, &commit.group)?;
    let call = move |coordinators: Coordinators| async move {
        coordinators.commit(partition, commit).await
    };
    groups.on_coordinator(shard_group, call).await
}
