//! The error codes within an answer, for the metrics of this broker.
//!
//! One table over the answers of all APIs that are served as messages; Produce and Fetch are encoded
//! by their handlers, which count for themselves. Every code is told once for each thing it is
//! about, as Kafka counts: a ListOffsets that fails for two partitions has two errors.

use kafka_protocol::messages::ResponseKind;

/// Calls `note` with every code of the answer that is not 0.
pub fn each(response: &ResponseKind, note: &mut impl FnMut(i16)) {
    let mut note = |code: i16| {
        if code != 0 {
            note(code);
        }
    };
    if let Some(code) = of_the_whole(response) {
        note(code);
    }
    of_partitions(response, &mut note);
    of_things(response, &mut note);
}

/// The code that stands at the top of an answer.
fn of_the_whole(response: &ResponseKind) -> Option<i16> {
    use ResponseKind as R;
    Some(match response {
        R::OffsetFetch(r) => r.error_code,
        R::FindCoordinator(r) => r.error_code,
        R::JoinGroup(r) => r.error_code,
        R::Heartbeat(r) => r.error_code,
        R::LeaveGroup(r) => r.error_code,
        R::SyncGroup(r) => r.error_code,
        R::ListGroups(r) => r.error_code,
        R::ApiVersions(r) => r.error_code,
        R::InitProducerId(r) => r.error_code,
        R::DescribeAcls(r) => r.error_code,
        R::DescribeLogDirs(r) => r.error_code,
        R::ElectLeaders(r) => r.error_code,
        R::AlterPartitionReassignments(r) => r.error_code,
        R::ListPartitionReassignments(r) => r.error_code,
        R::OffsetDelete(r) => r.error_code,
        R::DescribeClientQuotas(r) => r.error_code,
        R::DescribeUserScramCredentials(r) => r.error_code,
        R::DescribeQuorum(r) => r.error_code,
        R::UpdateFeatures(r) => r.error_code,
        R::DescribeCluster(r) => r.error_code,
        R::UnregisterBroker(r) => r.error_code,
        R::ListTransactions(r) => r.error_code,
        R::ListConfigResources(r) => r.error_code,
        R::SaslHandshake(r) => r.error_code,
        R::SaslAuthenticate(r) => r.error_code,
        R::CreateDelegationToken(r) => r.error_code,
        R::RenewDelegationToken(r) => r.error_code,
        R::ExpireDelegationToken(r) => r.error_code,
        R::DescribeDelegationToken(r) => r.error_code,
        _ => return None,
    })
}

/// Codes that stand by topic and partition.
fn of_partitions(response: &ResponseKind, note: &mut impl FnMut(i16)) {
    use ResponseKind as R;
    macro_rules! partitions {
        ($topics:expr) => {
            for partition in $topics.iter().flat_map(|topic| &topic.partitions) {
                note(partition.error_code);
            }
        };
    }
    match response {
        R::Metadata(r) => {
            r.topics.iter().for_each(|topic| note(topic.error_code));
            partitions!(r.topics);
        }
        R::DescribeTopicPartitions(r) => {
            r.topics.iter().for_each(|topic| note(topic.error_code));
            partitions!(r.topics);
        }
        R::ListOffsets(r) => partitions!(r.topics),
        R::OffsetCommit(r) => partitions!(r.topics),
        R::OffsetFetch(r) => {
            partitions!(r.topics);
            for group in &r.groups {
                note(group.error_code);
                partitions!(group.topics);
            }
        }
        R::OffsetDelete(r) => partitions!(r.topics),
        R::OffsetForLeaderEpoch(r) => partitions!(r.topics),
        R::DeleteRecords(r) => partitions!(r.topics),
        R::DescribeProducers(r) => partitions!(r.topics),
        R::DescribeQuorum(r) => partitions!(r.topics),
        R::AlterPartitionReassignments(r) => partitions!(r.responses),
        R::ElectLeaders(r) => {
            let results = r.replica_election_results.iter().flat_map(|t| &t.partition_result);
            results.for_each(|partition| note(partition.error_code));
        }
        _ => {}
    }
}

/// Codes that stand by topic, group, configuration and the like.
fn of_things(response: &ResponseKind, note: &mut impl FnMut(i16)) {
    use ResponseKind as R;
    macro_rules! things {
        ($things:expr) => {
            $things.iter().for_each(|thing| note(thing.error_code))
        };
    }
    match response {
        R::FindCoordinator(r) => things!(r.coordinators),
        R::LeaveGroup(r) => things!(r.members),
        R::DescribeGroups(r) => things!(r.groups),
        R::DeleteGroups(r) => things!(r.results),
        R::CreateTopics(r) => things!(r.topics),
        R::DeleteTopics(r) => things!(r.responses),
        R::CreatePartitions(r) => things!(r.results),
        R::DescribeConfigs(r) => things!(r.results),
        R::AlterConfigs(r) => things!(r.responses),
        R::IncrementalAlterConfigs(r) => things!(r.responses),
        R::DescribeLogDirs(r) => things!(r.results),
        R::CreateAcls(r) => things!(r.results),
        R::DeleteAcls(r) => things!(r.filter_results),
        R::DescribeUserScramCredentials(r) => things!(r.results),
        R::UpdateFeatures(r) => things!(r.results),
        R::DescribeTransactions(r) => things!(r.transaction_states),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::list_offsets_response::*;
    use kafka_protocol::messages::{
        CreateTopicsResponse, HeartbeatResponse, ListOffsetsResponse, MetadataResponse,
    };

    fn codes(response: ResponseKind) -> Vec<i16> {
        let mut found = Vec::new();
        each(&response, &mut |code| found.push(code));
        found
    }

    #[test]
    fn every_code_counts_once_and_success_never() {
        let partition = |code| ListOffsetsPartitionResponse::default().with_error_code(code);
        let topic = ListOffsetsTopicResponse::default().with_partitions(vec![
            partition(3),
            partition(0),
            partition(6),
        ]);
        let offsets = ListOffsetsResponse::default().with_topics(vec![topic.clone(), topic]);
        assert_eq!(codes(ResponseKind::ListOffsets(offsets)), [3, 6, 3, 6]);
        let heartbeat = HeartbeatResponse::default().with_error_code(27);
        assert_eq!(codes(ResponseKind::Heartbeat(heartbeat)), [27]);
        assert!(codes(ResponseKind::Metadata(MetadataResponse::default())).is_empty());
        assert!(codes(ResponseKind::CreateTopics(CreateTopicsResponse::default())).is_empty());
    }
}
