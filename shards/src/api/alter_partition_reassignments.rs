//! AlterPartitionReassignments (key 45), versions 0 and 1, and ListPartitionReassignments (key 46),
//! version 0. KIP-455.
//!
//! Replicas cannot be moved yet: asking for what is there already succeeds, everything else is
//! refused by name, and nothing is ever in progress.

use std::collections::BTreeSet;

use kafka_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition,
};
use kafka_protocol::messages::alter_partition_reassignments_response::{
    AlterPartitionReassignmentsResponse, ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::ListPartitionReassignmentsResponse;
use net::ErrorCode;

use super::admin::Admin;
use super::errors::Refusal;
use super::placement::check_manual;
use crate::meta::{Image, NodeId};

pub fn handle_alter<A: Admin>(
    admin: &A,
    version: i16,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let image = admin.image();
    let responses = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = ReassignablePartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_error_message(None);
            match reassign(&image, &topic.name, asked) {
                Ok(()) => answer,
                Err(refusal) => {
                    answer.with_error_code(refusal.code.code()).with_error_message(refusal.text())
                }
            }
        });
        let partitions = partitions.collect();
        ReassignableTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    let response = AlterPartitionReassignmentsResponse::default()
        .with_error_message(None)
        .with_responses(responses.collect());
    match version {
        0 => response,
        _ => response.with_allow_replication_factor_change(request.allow_replication_factor_change),
    }
}

fn reassign(image: &Image, topic: &str, asked: &ReassignablePartition) -> Result<(), Refusal> {
    let found = image.topic(topic).and_then(|topic| topic.partition(asked.partition_index));
    let Some(partition) = found else {
        let message = "This server does not host this topic-partition.";
        return Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, message));
    };
    let Some(replicas) = &asked.replicas else {
        return Err(Refusal::bare(ErrorCode::NoReassignmentInProgress));
    };
    let wanted: Vec<NodeId> = replicas.iter().map(|id| NodeId(id.0)).collect();
    check_manual(image, &wanted)?;
    let wanted: BTreeSet<NodeId> = wanted.into_iter().collect();
    let current: BTreeSet<NodeId> = partition.replicas.iter().map(|r| r.node).collect();
    if wanted == current {
        return Ok(());
    }
    let message = "This release does not move replicas.";
    Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message))
}

pub fn handle_list() -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default().with_error_message(None)
}
