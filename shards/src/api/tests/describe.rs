//! What clients see of the cluster, its topics and its absent features.

use kafka_protocol::messages::describe_quorum_request as quorum;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{self as m, ResponseKind, TransactionalId};
use uuid::Uuid;

use super::topics::topic;
use super::*;

fn cluster(nodes: i32, topics: &[(&str, i32, i16)]) -> Cluster {
    let cluster = Cluster::of(nodes);
    let topics =
        topics.iter().map(|(name, partitions, rf)| topic(name, *partitions, *rf)).collect();
    cluster.ask(7, m::CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(1));
    cluster
}

fn named(topics: &[&str]) -> Option<Vec<MetadataRequestTopic>> {
    let each = topics.iter().map(|t| MetadataRequestTopic::default().with_name(Some(name(t))));
    Some(each.collect())
}

fn metadata(cluster: &Cluster, version: i16, request: m::MetadataRequest) -> m::MetadataResponse {
    match cluster.ask(version, request) {
        ResponseKind::Metadata(response) => response,
        other => panic!("{other:?}"),
    }
}

fn asking(topics: Option<Vec<MetadataRequestTopic>>, create: bool) -> m::MetadataRequest {
    m::MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(create)
}

fn codes(response: &m::MetadataResponse) -> Vec<(String, i16)> {
    let shown = |name: &Option<TopicName>| name.as_ref().map_or("null".into(), |n| n.to_string());
    response.topics.iter().map(|t| (shown(&t.name), t.error_code)).collect()
}

#[test]
fn all_none_or_some_topics() {
    let cluster = cluster(1, &[("b", 2, 1), ("a", 1, 1)]);
    let all = vec![("a".to_owned(), 0), ("b".to_owned(), 0)];
    assert_eq!(codes(&metadata(&cluster, 0, asking(Some(vec![]), false))), all);
    assert_eq!(codes(&metadata(&cluster, 1, asking(None, false))), all);
    assert_eq!(codes(&metadata(&cluster, 1, asking(Some(vec![]), false))), []);
    let some = metadata(&cluster, 13, asking(named(&["b", "x", "a b", ""]), false));
    let expected = [("b", 0), ("x", 3), ("a b", 17), ("", 17)];
    assert_eq!(codes(&some), expected.map(|(n, c)| (n.to_owned(), c)));
    let b = &some.topics[0];
    assert_eq!(b.partitions.iter().map(|p| p.partition_index).collect::<Vec<_>>(), [0, 1]);
    let first = &b.partitions[0];
    assert_eq!((first.error_code, first.leader_id.0, first.leader_epoch), (0, 1, 6));
    assert_eq!((b.topic_authorized_operations, some.error_code), (i32::MIN, 0));
    assert_eq!((some.controller_id.0, some.brokers[0].host.as_str()), (1, "127.0.0.1"));
    assert_eq!(some.cluster_id.as_ref().unwrap().len(), 22);
}

#[test]
fn topics_are_found_by_id() {
    let cluster = cluster(1, &[("a", 1, 1)]);
    let id = cluster.image().topic("a").unwrap().id.0;
    let by_id = |id| MetadataRequestTopic::default().with_topic_id(id).with_name(None);
    let topics = vec![by_id(id), by_id(Uuid::from_u128(9)), by_id(Uuid::nil())];
    let response = metadata(&cluster, 13, asking(Some(topics), true));
    assert_eq!(codes(&response), [("a".to_owned(), 0), ("null".into(), 100), ("null".into(), 42)]);
    assert_eq!(response.topics[1].topic_id, Uuid::from_u128(9));
    assert_eq!(response.brokers.len(), 1, "one bad entry does not hide the brokers");

    let same = vec![by_id(id), MetadataRequestTopic::default().with_name(Some(name("a")))];
    assert_eq!(codes(&metadata(&cluster, 12, asking(Some(same), true))), [("a".to_owned(), 0)]);
}

#[test]
fn ids_are_refused_in_versions_whose_schema_only_has_them() {
    let cluster = cluster(1, &[("a", 1, 1)]);
    let id = cluster.image().topic("a").unwrap().id.0;
    let both = MetadataRequestTopic::default().with_topic_id(id).with_name(Some(name("a")));
    let neither = MetadataRequestTopic::default().with_name(None);
    for version in [10, 11] {
        for (bad, shown) in [(&both, "a"), (&neither, "")] {
            let asked = asking(Some(vec![bad.clone(), named(&["new"]).unwrap().remove(0)]), true);
            let response = metadata(&cluster, version, asked);
            assert_eq!(codes(&response), [(shown.to_owned(), 42), ("new".into(), 42)]);
            assert_eq!(response.topics[0].topic_id, bad.topic_id);
            assert_eq!((response.brokers.len(), response.controller_id.0), (0, -1));
            assert_eq!(response.cluster_id, None);
        }
        assert_eq!(metadata(&cluster, version, asking(named(&["a"]), true)).brokers.len(), 1);
    }
    assert!(cluster.image().topic("new").is_none());
    let topics = Some(vec![both]);
    assert_eq!(codes(&metadata(&cluster, 12, asking(topics, true))), [("a".to_owned(), 0)]);
}

#[test]
fn the_metadata_log_is_not_created_on_request() {
    let cluster = cluster(1, &[]);
    let response = metadata(&cluster, 12, asking(named(&["__cluster_metadata"]), true));
    assert_eq!(codes(&response), [("__cluster_metadata".to_owned(), 3)]);
}

#[test]
fn topics_are_created_on_request() {
    let cluster = Cluster::of(1).with("num.partitions", "2");
    assert_eq!(codes(&metadata(&cluster, 9, asking(named(&["a"]), false))), [("a".to_owned(), 3)]);
    let response = metadata(&cluster, 9, asking(named(&["a", "a b", "a"]), true));
    assert_eq!(codes(&response), [("a".to_owned(), 0), ("a b".into(), 17)], "each once");
    assert_eq!(response.topics[0].partitions.len(), 2);
    assert_eq!(
        codes(&metadata(&cluster, 3, asking(named(&["old"]), false))),
        [("old".to_owned(), 0)]
    );
    assert_eq!(codes(&metadata(&cluster, 9, asking(named(&["o.d", "o_d"]), true)))[1].1, 17);

    let off = Cluster::of(1).with("auto.create.topics.enable", "false");
    assert_eq!(codes(&metadata(&off, 9, asking(named(&["a"]), true))), [("a".to_owned(), 3)]);
    let many: Vec<String> = (0..10_001).map(|n| format!("t{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let fresh = Cluster::of(1);
    let greedy = codes(&metadata(&fresh, 9, asking(named(&many), true)));
    assert!(greedy.iter().all(|(_, code)| *code == 44) && fresh.image().topics().len() == 0);
    let short = Cluster::of(1).with("default.replication.factor", "3");
    assert_eq!(codes(&metadata(&short, 9, asking(named(&["a"]), true))), [("a".to_owned(), 38)]);
}

#[test]
fn a_dead_leader_is_shown_as_none() {
    let mut cluster = cluster(3, &[("t", 3, 3)]);
    cluster.dead.insert(NodeId(2));
    let response = metadata(&cluster, 13, asking(named(&["t"]), false));
    assert_eq!(response.brokers.iter().map(|b| b.node_id.0).collect::<Vec<_>>(), [1, 3]);
    let partition = &response.topics[0].partitions[1];
    assert_eq!((partition.error_code, partition.leader_id.0), (5, -1));
    assert_eq!(partition.replica_nodes.len(), 3, "replicas are listed still");
    assert_eq!(partition.offline_replicas, [m::BrokerId(2)]);

    let describe = |fenced| {
        let asked = m::DescribeClusterRequest::default().with_include_fenced_brokers(fenced);
        let ResponseKind::DescribeCluster(response) = cluster.ask(2, asked) else { panic!() };
        response.brokers.iter().map(|b| (b.broker_id.0, b.is_fenced)).collect::<Vec<_>>()
    };
    assert_eq!(describe(false), [(1, false), (3, false)]);
    assert_eq!(describe(true), [(1, false), (2, true), (3, false)]);
}

#[test]
fn operations_come_when_asked_for() {
    let cluster = cluster(1, &[("t", 1, 1)]);
    let asked = asking(named(&["t"]), false)
        .with_include_cluster_authorized_operations(true)
        .with_include_topic_authorized_operations(true);
    let response = metadata(&cluster, 8, asked);
    assert_eq!(response.cluster_authorized_operations, 8096);
    assert_eq!(response.topics[0].topic_authorized_operations, 3576);
    let asked = asking(named(&["x"]), false).with_include_topic_authorized_operations(true);
    let unknown = metadata(&cluster, 13, asked);
    assert_eq!(unknown.topics[0].topic_authorized_operations, 3576);
}

#[test]
fn the_cluster_is_described_to_those_who_ask_for_brokers() {
    let cluster = cluster(1, &[]);
    let ask = |kind| {
        let asked = m::DescribeClusterRequest::default().with_endpoint_type(kind);
        let ResponseKind::DescribeCluster(response) = cluster.ask(1, asked) else { panic!() };
        (response.error_code, response.cluster_id.len(), response.brokers.len())
    };
    assert_eq!(ask(1), (0, 22, 1));
    assert_eq!(ask(2), (114, 0, 0));
    assert_eq!(ask(9), (115, 0, 0));
}

/// Topics with their partitions' numbers, and the cursor.
type Page = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

fn page(cluster: &Cluster, topics: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> Page {
    let asked = m::DescribeTopicPartitionsRequest::default()
        .with_topics(topics.iter().map(|t| TopicRequest::default().with_name(name(t))).collect())
        .with_response_partition_limit(limit)
        .with_cursor(cursor.map(|(topic, partition)| {
            Cursor::default().with_topic_name(name(topic)).with_partition_index(partition)
        }));
    let ResponseKind::DescribeTopicPartitions(response) = cluster.ask(0, asked) else { panic!() };
    let topics = response.topics.iter().map(|topic| {
        let operations = if topic.error_code == 42 { i32::MIN } else { 3576 };
        assert_eq!(topic.topic_authorized_operations, operations);
        let numbers = topic.partitions.iter().map(|p| p.partition_index).collect();
        (topic.name.as_ref().unwrap().to_string(), topic.error_code, numbers)
    });
    let next = response.next_cursor.as_ref();
    (topics.collect(), next.map(|c| (c.topic_name.to_string(), c.partition_index)))
}

#[test]
fn partitions_come_page_by_page() {
    let cluster = cluster(1, &[("b", 3, 1), ("a", 2, 1), ("c", 1, 1)]);
    let entry = |topic: &str, numbers: &[i32]| (topic.to_owned(), 0, numbers.to_vec());
    assert_eq!(
        page(&cluster, &[], 2000, None),
        (vec![entry("a", &[0, 1]), entry("b", &[0, 1, 2]), entry("c", &[0])], None)
    );
    assert_eq!(page(&cluster, &[], 2, None), (vec![entry("a", &[0, 1])], Some(("b".into(), 0))));
    assert_eq!(
        page(&cluster, &[], 3, None),
        (vec![entry("a", &[0, 1]), entry("b", &[0])], Some(("b".into(), 1)))
    );
    assert_eq!(
        page(&cluster, &[], 2, Some(("b", 1))),
        (vec![entry("b", &[1, 2])], Some(("c".into(), 0)))
    );
    assert_eq!(
        page(&cluster, &[], 2, Some(("bb", 7))),
        (vec![entry("c", &[0])], None),
        "b was deleted meanwhile"
    );
    assert_eq!(page(&cluster, &["c", "a", "a"], 0, None).1, Some(("a".into(), 1)), "at least one");
    let (topics, _) = page(&cluster, &["zz", "a b"], 10, None);
    assert_eq!(topics, [("a b".to_owned(), 17, vec![]), ("zz".into(), 3, vec![])]);
    let refused = ["a", "c"].map(|topic| (topic.to_owned(), 42, vec![]));
    assert_eq!(page(&cluster, &["a", "c"], 10, Some(("c", -1))).0, refused);
    assert_eq!(page(&cluster, &["a", "c"], 10, Some(("b", 0))).0, refused, "b is not asked for");
    assert_eq!(page(&cluster, &["a", "c"], 10, Some(("c", 0))).0, [entry("c", &[0])]);
}

#[test]
fn the_quorum_answers_under_kafkas_name() {
    let cluster = cluster(1, &[]);
    let ask = |topic: &str, partition| {
        let partition = quorum::PartitionData::default().with_partition_index(partition);
        let topic = quorum::TopicData::default()
            .with_topic_name(name(topic))
            .with_partitions(vec![partition]);
        let asked = m::DescribeQuorumRequest::default().with_topics(vec![topic]);
        let ResponseKind::DescribeQuorum(response) = cluster.ask(2, asked) else { panic!() };
        response
    };
    let known = ask("__cluster_metadata", 0);
    let partition = &known.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id.0, partition.high_watermark), (0, 1, 41));
    assert_eq!(partition.current_voters[0].log_end_offset, 42);
    assert_eq!(known.nodes[0].listeners[0].port, 9092);
    for (topic, number) in [("t", 0), ("__cluster_metadata", 1)] {
        let response = ask(topic, number);
        assert_eq!((response.error_code, response.nodes.len()), (0, 0));
        assert_eq!(response.topics[0].partitions[0].error_code, 3);
    }
}

#[test]
fn versions_and_features() {
    let cluster = cluster(1, &[]);
    let ask = |version, name: &str, software: &str| {
        let asked = m::ApiVersionsRequest::default()
            .with_client_software_name(text(name))
            .with_client_software_version(text(software));
        let ResponseKind::ApiVersions(response) = cluster.ask(version, asked) else { panic!() };
        response
    };
    let good = ask(4, "apache-kafka-java", "4.1.1");
    assert_eq!(good.error_code, 0);
    let produce = good.api_keys.iter().find(|api| api.api_key == 0).unwrap();
    assert_eq!((produce.min_version, produce.max_version), (0, 13));
    let features: Vec<_> =
        good.finalized_features.iter().map(|f| (f.name.as_str(), f.max_version_level)).collect();
    assert_eq!(features, [("metadata.version", 27)], "what is finalised must be served");
    assert!(good.supported_features.iter().all(|f| f.min_version > 0));
    for (name, software) in [("", "1"), ("x", ""), ("-x", "1"), ("x", "1.0."), ("a b", "1")] {
        let bad = ask(3, name, software);
        assert_eq!((bad.error_code, bad.api_keys.len()), (42, 0), "{name:?} {software:?}");
    }
    assert_eq!(ask(2, "", "").error_code, 0, "older versions name no software");
    let unknown = super::super::api_versions::unsupported();
    let keys: Vec<_> =
        unknown.api_keys.iter().map(|k| (k.api_key, k.min_version, k.max_version)).collect();
    assert_eq!((unknown.error_code, keys), (35, vec![(18, 0, 4)]));
}

#[test]
fn absent_features_answer_as_kafka_does_without_them() {
    let cluster = cluster(1, &[("t", 1, 1)]);
    let ResponseKind::DescribeAcls(acls) = cluster.ask(3, m::DescribeAclsRequest::default()) else {
        panic!()
    };
    assert_eq!(acls.error_code, 54);
    assert_eq!(acls.error_message.unwrap().as_str(), "No Authorizer is configured on the broker");
    let user = m::describe_user_scram_credentials_request::UserName::default().with_name(text("u"));
    let asked = m::DescribeUserScramCredentialsRequest::default().with_users(Some(vec![user]));
    let ResponseKind::DescribeUserScramCredentials(users) = cluster.ask(0, asked) else { panic!() };
    assert_eq!((users.error_code, users.results[0].error_code), (0, 91));
    let asked =
        m::ListTransactionsRequest::default().with_state_filters(vec![text("Ongoing"), text("X")]);
    let ResponseKind::ListTransactions(listed) = cluster.ask(2, asked) else { panic!() };
    assert_eq!((listed.error_code, listed.unknown_state_filters), (0, vec![text("X")]));
    let asked = m::DescribeTransactionsRequest::default()
        .with_transactional_ids(vec![TransactionalId(text("x"))]);
    let ResponseKind::DescribeTransactions(described) = cluster.ask(0, asked) else { panic!() };
    assert_eq!(described.transaction_states[0].error_code, 105);
    let ResponseKind::SaslHandshake(sasl) = cluster.ask(1, m::SaslHandshakeRequest::default())
    else {
        panic!()
    };
    assert_eq!(sasl.error_code, 34);
    let ResponseKind::CreateDelegationToken(token) =
        cluster.ask(3, m::CreateDelegationTokenRequest::default())
    else {
        panic!()
    };
    assert_eq!(token.error_code, 64);
    let asked = m::RenewDelegationTokenRequest::default();
    let ResponseKind::RenewDelegationToken(token) = cluster.ask(2, asked) else { panic!() };
    assert_eq!((token.error_code, token.expiry_timestamp_ms), (64, -1));
}

#[test]
fn elections_and_moves() {
    let cluster = cluster(1, &[("t", 1, 1)]);
    let partitions = |topic: &str, number| {
        let each = m::elect_leaders_request::TopicPartitions::default();
        each.with_topic(name(topic)).with_partitions(vec![number])
    };
    let asked = m::ElectLeadersRequest::default().with_topic_partitions(Some(vec![
        partitions("t", 0),
        partitions("t", 9),
        partitions("x", 0),
    ]));
    let ResponseKind::ElectLeaders(response) = cluster.ask(2, asked) else { panic!() };
    let codes: Vec<_> = response
        .replica_election_results
        .iter()
        .map(|r| r.partition_result[0].error_code)
        .collect();
    assert_eq!(codes, [84, 3, 3]);
    // As a live Kafka 4.1.1 answers: the type is looked at where there is something to elect.
    let typed = |kind: i8, topics: Option<Vec<_>>| {
        let asked = m::ElectLeadersRequest::default().with_election_type(kind);
        let asked = asked.with_topic_partitions(topics);
        let ResponseKind::ElectLeaders(response) = cluster.ask(2, asked) else { panic!() };
        let results = response.replica_election_results;
        let codes = results.iter().map(|r| r.partition_result[0].error_code).collect::<Vec<_>>();
        (response.error_code, codes)
    };
    let some = || Some(vec![partitions("t", 0), partitions("x", 0)]);
    assert_eq!(typed(1, some()), (0, vec![84, 3]));
    for kind in [-1, 2, 7] {
        assert_eq!(typed(kind, some()), (42, vec![42, 42]), "type {kind}");
        assert_eq!(typed(kind, None), (42, vec![]), "type {kind} everywhere");
        assert_eq!(typed(kind, Some(Vec::new())), (0, vec![]), "type {kind} nowhere");
    }

    let reassign = |topic: &str, replicas: Option<Vec<i32>>| {
        let partition = m::alter_partition_reassignments_request::ReassignablePartition::default()
            .with_partition_index(0)
            .with_replicas(replicas.map(|ids| ids.into_iter().map(m::BrokerId).collect()));
        let topic = m::alter_partition_reassignments_request::ReassignableTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition]);
        let asked = m::AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        let ResponseKind::AlterPartitionReassignments(response) = cluster.ask(1, asked) else {
            panic!()
        };
        response.responses[0].partitions[0].error_code
    };
    assert_eq!(reassign("t", Some(vec![1])), 0);
    assert_eq!(reassign("t", None), 85);
    assert_eq!(reassign("x", Some(vec![1])), 3);
    assert_eq!(reassign("t", Some(vec![9])), 39);
    assert_eq!(reassign("t", Some(vec![])), 39);
}

#[test]
fn brokers_are_forgotten_when_they_are_gone() {
    let mut cluster = cluster(2, &[("t", 1, 1)]);
    let ask = |cluster: &Cluster, id| {
        let asked = m::UnregisterBrokerRequest::default().with_broker_id(m::BrokerId(id));
        let ResponseKind::UnregisterBroker(response) = cluster.ask(0, asked) else { panic!() };
        response.error_code
    };
    assert_eq!(ask(&cluster, 9), 102);
    assert_eq!(ask(&cluster, 2), 42, "alive");
    cluster.dead.insert(NodeId(2));
    assert_eq!(ask(&cluster, 2), 0);
    assert_eq!(cluster.image().brokers().len(), 1);
    cluster.dead.insert(NodeId(1));
    assert_eq!(ask(&cluster, 1), 42, "holds replicas");
}

#[test]
fn features_stay_where_they_are() {
    let cluster = cluster(1, &[]);
    let ask = |version, updates: &[(&str, i16)]| {
        let updates = updates.iter().map(|(feature, level)| {
            m::update_features_request::FeatureUpdateKey::default()
                .with_feature(text(feature))
                .with_max_version_level(*level)
        });
        let asked = m::UpdateFeaturesRequest::default().with_feature_updates(updates.collect());
        let ResponseKind::UpdateFeatures(response) = cluster.ask(version, asked) else { panic!() };
        (response.error_code, response.results.iter().map(|r| r.error_code).collect::<Vec<_>>())
    };
    assert_eq!(ask(2, &[]), (0, vec![]));
    assert_eq!(ask(2, &[("metadata.version", 27)]), (0, vec![]));
    assert_eq!(ask(2, &[("metadata.version", 26)]), (95, vec![]));
    assert_eq!(ask(1, &[("metadata.version", 27), ("group.version", 1)]), (0, vec![0, 95]));
}
