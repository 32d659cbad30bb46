//! Every answer of these handlers can be encoded in every version that is advertised.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{self as m, ApiKey, RequestKind};
use net::registry;

use super::topics::topic;
use super::*;

/// A request of each API that makes its answer fill as many fields as it can, errors included.
fn requests(version: i16) -> Vec<RequestKind> {
    let names = || vec![name("t"), name("nope"), name("a b")];
    let metadata_topics = names()
        .into_iter()
        .map(|n| m::metadata_request::MetadataRequestTopic::default().with_name(Some(n)));
    let resources = [(2, "t"), (2, "nope"), (4, "1"), (4, ""), (32, "g"), (16, "m"), (99, "x")];
    let described = resources.map(|(kind, name)| {
        m::describe_configs_request::DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(None)
    });
    let altered = resources.map(|(kind, name)| {
        m::alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
    });
    let changed = resources.map(|(kind, name)| {
        m::incremental_alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
    });
    let more = names().into_iter().map(|n| {
        m::create_partitions_request::CreatePartitionsTopic::default().with_name(n).with_count(5)
    });
    let deleted = names()
        .into_iter()
        .map(|n| m::delete_topics_request::DeleteTopicState::default().with_name(Some(n)));
    let elected = names().into_iter().map(|n| {
        m::elect_leaders_request::TopicPartitions::default().with_topic(n).with_partitions(vec![0])
    });
    let moved = names().into_iter().map(|n| {
        let partition = m::alter_partition_reassignments_request::ReassignablePartition::default();
        m::alter_partition_reassignments_request::ReassignableTopic::default()
            .with_name(n)
            .with_partitions(vec![partition])
    });
    let quorum = [("__cluster_metadata", 0), ("t", 0)].map(|(topic, number)| {
        let partition =
            m::describe_quorum_request::PartitionData::default().with_partition_index(number);
        m::describe_quorum_request::TopicData::default()
            .with_topic_name(name(topic))
            .with_partitions(vec![partition])
    });
    let feature = m::update_features_request::FeatureUpdateKey::default().with_feature(text("x"));
    let all_operations = version >= 8;
    vec![
        m::ApiVersionsRequest::default().into(),
        m::MetadataRequest::default()
            .with_topics(Some(metadata_topics.collect()))
            .with_include_cluster_authorized_operations(all_operations && version <= 10)
            .with_include_topic_authorized_operations(all_operations)
            .into(),
        m::CreateTopicsRequest::default()
            .with_topics(vec![topic("new", 1, 1), topic("t", 1, 1), topic("a b", 1, 1)])
            .with_timeout_ms(1)
            .into(),
        m::CreatePartitionsRequest::default().with_topics(more.collect()).with_timeout_ms(1).into(),
        m::DescribeConfigsRequest::default()
            .with_resources(described.into())
            .with_include_synonyms(true)
            .with_include_documentation(true)
            .into(),
        m::AlterConfigsRequest::default().with_resources(altered.into()).into(),
        m::IncrementalAlterConfigsRequest::default().with_resources(changed.into()).into(),
        m::ListConfigResourcesRequest::default().into(),
        m::DescribeClusterRequest::default().into(),
        m::DescribeTopicPartitionsRequest::default().with_response_partition_limit(1).into(),
        m::DescribeQuorumRequest::default().with_topics(quorum.into()).into(),
        m::ElectLeadersRequest::default().with_topic_partitions(Some(elected.collect())).into(),
        m::AlterPartitionReassignmentsRequest::default().with_topics(moved.collect()).into(),
        m::ListPartitionReassignmentsRequest::default().into(),
        m::UnregisterBrokerRequest::default().with_broker_id(m::BrokerId(9)).into(),
        m::UpdateFeaturesRequest::default().with_feature_updates(vec![feature]).into(),
        m::DescribeAclsRequest::default().into(),
        m::CreateAclsRequest::default().with_creations(vec![Default::default()]).into(),
        m::DeleteAclsRequest::default().with_filters(vec![Default::default()]).into(),
        m::DescribeClientQuotasRequest::default().into(),
        m::DescribeUserScramCredentialsRequest::default()
            .with_users(Some(vec![Default::default()]))
            .into(),
        m::ListTransactionsRequest::default().into(),
        m::DescribeTransactionsRequest::default()
            .with_transactional_ids(vec![Default::default()])
            .into(),
        m::CreateDelegationTokenRequest::default().into(),
        m::RenewDelegationTokenRequest::default().into(),
        m::ExpireDelegationTokenRequest::default().into(),
        m::DescribeDelegationTokenRequest::default().into(),
        m::SaslHandshakeRequest::default().into(),
        m::SaslAuthenticateRequest::default().into(),
        m::DeleteTopicsRequest::default()
            .with_topic_names(if version < 6 { names() } else { vec![] })
            .with_topics(if version < 6 { vec![] } else { deleted.collect() })
            .with_timeout_ms(1)
            .into(),
    ]
}

fn key_of(request: &RequestKind) -> ApiKey {
    let debug = format!("{request:?}");
    let name = debug.split('(').next().unwrap_or_default();
    let named = |api: &&registry::Api| api.name() == name;
    registry::APIS.iter().find(named).unwrap_or_else(|| panic!("no API {name}")).key
}

#[test]
fn answers_fit_every_advertised_version() {
    for version in 0..=13 {
        let cluster = Cluster::of(1);
        let setup = m::CreateTopicsRequest::default()
            .with_topics(vec![topic("t", 2, 1)])
            .with_timeout_ms(1);
        cluster.ask(7, setup);
        for request in requests(version) {
            let api = registry::api(key_of(&request)).expect("it is in the registry");
            if !api.serves(version) {
                continue;
            }
            let answer = cluster.ask(version, request);
            let mut out = BytesMut::new();
            let encoded = answer.encode(&mut out, version);
            assert!(encoded.is_ok(), "{:?} version {version}: {encoded:?}", api.key);
            let mut bytes: Bytes = out.freeze();
            let decoded = ResponseKind::decode(api.key, &mut bytes, version);
            assert!(decoded.is_ok(), "{:?} version {version}: {decoded:?}", api.key);
        }
    }
}
