//! ElectLeaders (key 43), versions 0 to 2. KIP-183, KIP-460.
//!
//! Raft keeps the leaders, and the balancer that moves them to the preferred replica comes with
//! replication: what exists needs no election. An unknown type of election is refused as Kafka does
//! it: by the request's code and by that of each partition that is named, and not at all where the
//! list of partitions is empty.

use kafka_protocol::messages::elect_leaders_request::ElectLeadersRequest;
use kafka_protocol::messages::elect_leaders_response::{
    ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use net::ErrorCode;

use super::admin::Admin;
use super::names::text;
use crate::meta::Image;

/// The types of election, 0 (preferred) and 1 (unclean). Version 0 has no field for it: 0.
const ELECTION_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

pub fn handle<A: Admin>(admin: &A, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let image = admin.image();
    let kind = request.election_type;
    let is_known = ELECTION_TYPES.contains(&kind);
    let asks_nothing = request.topic_partitions.as_ref().is_some_and(|asked| asked.is_empty());
    let code = match is_known || asks_nothing {
        true => ErrorCode::None,
        false => ErrorCode::InvalidRequest,
    };
    // Null asks for all partitions; those that need no election are not listed then.
    let asked = request.topic_partitions.unwrap_or_default();
    let results = asked.into_iter().map(|asked| {
        let partitions = asked.partitions.iter().map(|number| {
            let (code, message) = match is_known {
                true => outcome(&image, &asked.topic, *number),
                false => (ErrorCode::InvalidRequest, format!("Unknown election type {kind}")),
            };
            PartitionResult::default()
                .with_partition_id(*number)
                .with_error_code(code.code())
                .with_error_message(Some(text(&message)))
        });
        let partitions = partitions.collect();
        ReplicaElectionResult::default().with_topic(asked.topic).with_partition_result(partitions)
    });
    ElectLeadersResponse::default()
        .with_error_code(code.code())
        .with_replica_election_results(results.collect())
}

fn outcome(image: &Image, topic: &str, number: i32) -> (ErrorCode, String) {
    let unknown = ErrorCode::UnknownTopicOrPartition;
    match image.topic(topic) {
        None => (unknown, format!("No such topic as {topic}")),
        Some(found) if found.partition(number).is_none() => {
            (unknown, format!("No such partition as {topic}-{number}"))
        }
        Some(_) => (
            ErrorCode::ElectionNotNeeded,
            "Leader election not needed for topic partition.".to_owned(),
        ),
    }
}
