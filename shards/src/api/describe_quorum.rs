//! DescribeQuorum (key 55), versions 0 to 2. KIP-595, KIP-836 (times), KIP-853 (directories, nodes).
//!
//! Answers for `__meta` under the name `__cluster_metadata`, partition 0, since tools ask for that.
//! Offsets are Raft indexes.

use kafka_protocol::messages::describe_quorum_request::DescribeQuorumRequest;
use kafka_protocol::messages::describe_quorum_response::{
    DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState, TopicData,
};
use kafka_protocol::messages::BrokerId;
use kafka_protocol::protocol::StrBytes;
use net::{ConnectionContext, ErrorCode};
use uuid::Uuid;

use super::admin::{Admin, Quorum, Voter};
use super::names::{broker_id, text, METADATA_LOG};
use crate::meta::Image;

pub async fn handle<A: Admin>(
    admin: &A,
    context: &ConnectionContext,
    version: i16,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let quorum = admin.quorum().await;
    let mut nodes_asked_for = false;
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let known = topic.topic_name.as_str() == METADATA_LOG && asked.partition_index == 0;
            nodes_asked_for |= known;
            partitions.push(match known {
                true => state(version, &quorum),
                false => unknown(version, asked.partition_index),
            });
        }
        let answer = TopicData::default().with_topic_name(topic.topic_name);
        topics.push(answer.with_partitions(partitions));
    }
    let response = DescribeQuorumResponse::default().with_error_message(None).with_topics(topics);
    if version < 2 || !nodes_asked_for {
        return response;
    }
    response.with_nodes(nodes(admin, &admin.image(), context, &quorum))
}

fn state(version: i16, quorum: &Quorum) -> PartitionData {
    let voters = quorum.voters.iter().map(|voter| replica(version, voter));
    let observers = quorum.observers.iter().map(|voter| replica(version, voter));
    PartitionData::default()
        .with_error_message(None)
        .with_leader_id(quorum.leader.map_or(BrokerId(-1), broker_id))
        .with_leader_epoch(quorum.epoch)
        .with_high_watermark(quorum.high_watermark)
        .with_current_voters(voters.collect())
        .with_observers(observers.collect())
}

fn replica(version: i16, voter: &Voter) -> ReplicaState {
    let replica = ReplicaState::default()
        .with_replica_id(broker_id(voter.node))
        .with_replica_directory_id(if version >= 2 { voter.directory } else { Uuid::nil() })
        .with_log_end_offset(voter.log_end);
    if version < 1 {
        return replica;
    }
    replica
        .with_last_fetch_timestamp(voter.last_fetch_ms)
        .with_last_caught_up_timestamp(voter.last_caught_up_ms)
}

fn unknown(version: i16, partition: i32) -> PartitionData {
    let message = "This server does not host this topic-partition.";
    PartitionData::default()
        .with_partition_index(partition)
        .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
        .with_error_message((version >= 2).then(|| StrBytes::from_static_str(message)))
}

fn nodes<A: Admin>(
    admin: &A,
    image: &Image,
    context: &ConnectionContext,
    quorum: &Quorum,
) -> Vec<Node> {
    let voters = quorum.voters.iter().chain(&quorum.observers);
    voters
        .filter_map(|voter| {
            let broker = image.broker(voter.node)?;
            let host = admin.host(broker, context)?;
            let name = broker.endpoints.first().map_or("PLAINTEXT", |e| e.name.as_str());
            let listener = Listener::default()
                .with_name(text(name))
                .with_host(StrBytes::from_string(host.name))
                .with_port(host.port);
            Some(Node::default().with_node_id(broker_id(voter.node)).with_listeners(vec![listener]))
        })
        .collect()
}
