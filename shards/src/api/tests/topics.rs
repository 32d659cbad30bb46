//! Topics come, grow and go: every mistake of the table in Kafka's words.

use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, ResponseKind,
};
use uuid::Uuid;

use super::*;
use crate::meta::TopicId;

pub(super) fn topic(topic: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

fn assigned(partitions: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = partitions.iter().map(|(number, brokers)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(*number)
            .with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
    });
    topic("t", -1, -1).with_assignments(assignments.collect())
}

fn with_config(key: &str, value: Option<&str>) -> CreatableTopic {
    let config = CreatableTopicConfig::default().with_name(text(key)).with_value(value.map(text));
    topic("t", 1, 1).with_configs(vec![config])
}

fn request(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(5000)
}

fn create(cluster: &Cluster, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    match cluster.ask(7, request(topics)) {
        ResponseKind::CreateTopics(response) => response.topics,
        other => panic!("{other:?}"),
    }
}

/// Code and message of the only topic.
fn refusal(cluster: &Cluster, topic: CreatableTopic) -> (i16, String) {
    let version = cluster.image().version();
    let result = create(cluster, vec![topic]).remove(0);
    assert_eq!(cluster.image().version(), version, "nothing was created");
    assert_eq!((result.num_partitions, result.replication_factor), (-1, -1));
    assert!(result.topic_id.is_nil());
    assert_eq!(result.configs, Some(vec![]), "empty, not null");
    (result.error_code, result.error_message.map_or("null".into(), |m| m.to_string()))
}

#[test]
fn the_table_of_mistakes() {
    let cluster = Cluster::of(1);
    create(&cluster, vec![topic("a.b", 1, 1)]);
    let long = "x".repeat(250);
    let illegal =
        "contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'";
    let cases: Vec<(CreatableTopic, i16, String)> = vec![
        (topic("a.b", 1, 1), 36, "Topic 'a.b' already exists.".into()),
        (topic("a_b", 1, 1), 17, "Topic 'a_b' collides with existing topic: a.b".into()),
        (topic("t", 0, 1), 37, "Number of partitions was set to an invalid non-positive value.".into()),
        (topic("t", -2, 1), 37, "Number of partitions was set to an invalid non-positive value.".into()),
        (topic("t", 1, 0), 38, "Replication factor must be larger than 0, or -1 to use the default value.".into()),
        (topic("t", 1, -2), 38, "Replication factor must be larger than 0, or -1 to use the default value.".into()),
        (topic("t", 0, 0), 38, "Replication factor must be larger than 0, or -1 to use the default value.".into()),
        (topic("t", 1, 3), 38, "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered.".into()),
        (topic("a b", 1, 1), 17, format!("Topic name is invalid: 'a b' {illegal}")),
        (topic("ä", 1, 1), 17, format!("Topic name is invalid: 'ä' {illegal}")),
        (topic("", 1, 1), 17, "Topic name is invalid: the empty string is not allowed".into()),
        (topic(".", 1, 1), 17, "Topic name is invalid: '.' is not allowed".into()),
        (topic("..", 1, 1), 17, "Topic name is invalid: '..' is not allowed".into()),
        (topic(&long, 1, 1), 17, format!("Topic name is invalid: the length of '{long}' is longer than the max allowed length 249")),
        (with_config("x", Some("1")), 40, "Unknown topic config name: x".into()),
        (with_config("retention.ms", Some("abc")), 40, "Invalid value abc for configuration retention.ms: Not a number of type LONG".into()),
        (with_config("x", None), 40, "Null value not supported for topic configs: x".into()),
        (with_config("remote.storage.enable", Some("true")), 40, "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.".into()),
        (assigned(&[(0, &[1]), (2, &[1])]), 39, "partitions should be a consecutive 0-based integer sequence".into()),
        (assigned(&[(1, &[1])]), 39, "partitions should be a consecutive 0-based integer sequence".into()),
        (assigned(&[(0, &[1, 1])]), 39, "The manual partition assignment includes the broker 1 more than once.".into()),
        (assigned(&[(0, &[9])]), 39, "The manual partition assignment includes broker 9, but no such broker is registered.".into()),
        (assigned(&[(0, &[1]), (1, &[])]), 39, "The manual partition assignment includes an empty replica list.".into()),
        (assigned(&[(0, &[1]), (0, &[1])]), 39, "Found multiple manual partition assignments for partition 0".into()),
        (assigned(&[(0, &[1])]).with_replication_factor(1), 42, "A manual partition assignment was specified, but replication factor was not set to -1.".into()),
        (assigned(&[(0, &[1])]).with_num_partitions(1), 42, "A manual partition assignment was specified, but numPartitions was not set to -1.".into()),
        (topic("t", 10_001, 1), 44, "Excessively large number of partitions per request.".into()),
        (topic("__cluster_metadata", 1, 1), 42, "Creation of internal topic __cluster_metadata is prohibited.".into()),
        // Of several mistakes, the one that Kafka names.
        (with_config("x", Some("1")).with_num_partitions(0), 40, "Unknown topic config name: x".into()),
        (with_config("x", Some("1")).with_name(name("a.b")), 36, "Topic 'a.b' already exists.".into()),
        (topic("t", 0, 3), 37, "Number of partitions was set to an invalid non-positive value.".into()),
    ];
    for (topic, code, message) in cases {
        assert_eq!(refusal(&cluster, topic), (code, message));
    }
}

#[test]
fn a_request_without_time_changes_nothing() {
    let cluster = Cluster::of(1);
    for timeout in [0, -1] {
        let asked = request(vec![topic("t", 1, 1)]).with_timeout_ms(timeout);
        let ResponseKind::CreateTopics(response) = cluster.ask(5, asked) else { panic!() };
        let result = &response.topics[0];
        assert_eq!((result.error_code, &result.error_message), (7, &None));
    }
    assert!(cluster.image().topic("t").is_none());
}

#[test]
fn names_given_twice_and_names_that_look_alike() {
    let cluster = Cluster::of(1);
    let topics = vec![
        topic("d", 1, 1),
        topic("ok", 1, 1),
        topic("d", 1, 1),
        topic("q.q", 1, 1),
        topic("q_q", 1, 1),
    ];
    let results = create(&cluster, topics);
    let shown: Vec<_> = results
        .iter()
        .map(|r| {
            (r.name.as_str(), r.error_code, r.error_message.as_ref().map_or("", |m| m.as_str()))
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("d", 42, "Duplicate topic name."),
            ("ok", 0, ""),
            ("q.q", 0, ""),
            ("q_q", 17, "Topic 'q_q' collides with existing topic: q.q"),
        ]
    );
}

#[test]
fn too_many_partitions_fail_the_whole_request() {
    let cluster = Cluster::of(1);
    let results =
        create(&cluster, vec![topic("a", 6000, 1), topic("b", 6000, 1), topic("a b", 1, 1)]);
    assert!(results.iter().all(|r| r.error_code == 44));
    assert_eq!(create(&cluster, vec![topic("c", 10_000, 1)])[0].error_code, 0);
}

#[test]
fn success_shows_what_was_made() {
    let cluster = Cluster::of(1).with("num.partitions", "3").with("log.retention.hours", "1");
    let config = CreatableTopicConfig::default()
        .with_name(text("cleanup.policy"))
        .with_value(Some(text("compact, delete")));
    let asked = topic("t", -1, -1).with_configs(vec![config]);
    let dry = request(vec![asked.clone()]).with_validate_only(true);
    let ResponseKind::CreateTopics(dry) = cluster.ask(7, dry) else { panic!() };
    assert!(cluster.image().topic("t").is_none(), "validated only");

    let result = create(&cluster, vec![asked]).remove(0);
    let image = cluster.image();
    let made = image.topic("t").unwrap();
    assert_eq!((result.error_code, result.error_message.clone()), (0, None));
    assert_eq!(result.topic_id, made.id.0);
    assert_eq!((result.num_partitions, result.replication_factor), (3, 1));
    let configs = result.configs.clone().unwrap();
    assert_eq!(configs.len(), 33);
    assert!(configs.windows(2).all(|pair| pair[0].name < pair[1].name));
    let shown = |key: &str| {
        let found = configs.iter().find(|c| c.name.as_str() == key).unwrap();
        (found.value.as_ref().unwrap().to_string(), found.config_source)
    };
    assert_eq!(shown("cleanup.policy"), ("compact,delete".into(), 1));
    assert_eq!(shown("retention.ms"), ("3600000".into(), 4));
    assert_eq!(shown("max.message.bytes"), ("1048588".into(), 5));
    assert_eq!(dry.topics[0].configs, result.configs, "a dry run fills in the same");
    assert_eq!(dry.topics[0].num_partitions, 3);
}

#[test]
fn replicas_are_spread_as_operators_expect() {
    let cluster = Cluster::of(3);
    create(&cluster, vec![topic("t", 3, 3)]);
    let replicas = |topic: &str| -> Vec<Vec<i32>> {
        let image = cluster.image();
        let topic = image.topic(topic).unwrap();
        topic.partitions.iter().map(|p| p.replicas.iter().map(|r| r.node.0).collect()).collect()
    };
    assert_eq!(replicas("t"), [[1, 2, 3], [2, 3, 1], [3, 1, 2]]);
    for single in ["a", "b", "c"] {
        create(&cluster, vec![topic(single, 1, 1)]);
    }
    let leaders: Vec<_> = ["a", "b", "c"].map(|t| replicas(t)[0][0]).into();
    assert_eq!(leaders, [1, 2, 3]);
    create(&cluster, vec![assigned(&[(1, &[2, 1]), (0, &[3])]).with_name(name("m"))]);
    assert_eq!(replicas("m"), vec![vec![3], vec![2, 1]]);
}

#[test]
fn what_the_metadata_log_refuses_or_misses() {
    let cluster = Cluster::of(1);
    *cluster.failing.borrow_mut() = Some(SubmitError::TimedOut);
    assert_eq!(refusal(&cluster, topic("t", 1, 1)), (7, "null".into()));
    *cluster.failing.borrow_mut() = Some(SubmitError::Unavailable("no leader".into()));
    assert_eq!(refusal(&cluster, topic("t", 1, 1)).0, 41, "retriable");
}

fn delete_by_name(cluster: &Cluster, version: i16, names: &[&str]) -> Vec<(String, i16)> {
    let asked = DeleteTopicsRequest::default()
        .with_timeout_ms(5000)
        .with_topic_names(names.iter().map(|n| name(n)).collect());
    let ResponseKind::DeleteTopics(response) = cluster.ask(version, asked) else { panic!() };
    let shown = |r: &kafka_protocol::messages::delete_topics_response::DeletableTopicResult| {
        (r.name.as_ref().unwrap().to_string(), r.error_code)
    };
    response.responses.iter().map(shown).collect()
}

#[test]
fn topics_are_deleted_by_name() {
    let cluster = Cluster::of(1);
    create(&cluster, vec![topic("a", 1, 1), topic("b", 1, 1)]);
    let results = delete_by_name(&cluster, 5, &["a", "b", "b", "nope", "a b", ""]);
    let expected = [("a", 0), ("b", 42), ("nope", 3), ("a b", 3), ("", 3)];
    assert_eq!(results, expected.map(|(name, code)| (name.to_owned(), code)));
    assert!(cluster.image().topic("a").is_none() && cluster.image().topic("b").is_some());
    let off = Cluster::of(1).with("delete.topic.enable", "false");
    create(&off, vec![topic("a", 1, 1)]);
    assert_eq!(delete_by_name(&off, 3, &["a"])[0].1, 73);
    assert_eq!(delete_by_name(&off, 1, &["a"])[0].1, 42);
    assert!(off.image().topic("a").is_some());
}

#[test]
fn topics_are_deleted_by_id() {
    let cluster = Cluster::of(1);
    create(&cluster, vec![topic("a", 1, 1), topic("b", 1, 1), topic("c", 1, 1)]);
    let id = |topic: &str| cluster.image().topic(topic).unwrap().id.0;
    let (a, b, c) = (id("a"), id("b"), id("c"));
    let state = |topic: Option<&str>, id: Uuid| {
        DeleteTopicState::default().with_name(topic.map(name)).with_topic_id(id)
    };
    let stranger = Uuid::from_u128(99);
    let topics = vec![
        state(None, a),
        state(None, stranger),
        state(Some("b"), b),
        state(None, Uuid::nil()),
        state(None, c),
        state(Some("c"), Uuid::nil()),
    ];
    let asked = DeleteTopicsRequest::default().with_timeout_ms(5000).with_topics(topics);
    let ResponseKind::DeleteTopics(response) = cluster.ask(6, asked) else { panic!() };
    let codes: Vec<i16> = response.responses.iter().map(|r| r.error_code).collect();
    assert_eq!(codes, [0, 100, 42, 42, 42], "c is named twice, by id and by name");
    let both = &response.responses[4];
    assert_eq!((both.name.as_ref().unwrap().as_str(), both.topic_id), ("c", c));
    let why = "The provided topic name maps to an ID that was already supplied.";
    assert_eq!(both.error_message.as_deref(), Some(why));
    let first = &response.responses[0];
    assert_eq!((first.name.as_ref().unwrap().as_str(), first.topic_id), ("a", a));
    assert_eq!(response.responses[1].name, None);
    let image = cluster.image();
    assert!(image.topic_by_id(TopicId(a)).is_none() && image.topics().len() == 2);
}

fn grow(cluster: &Cluster, topics: Vec<CreatePartitionsTopic>) -> Vec<(i16, String)> {
    let asked = CreatePartitionsRequest::default().with_timeout_ms(5000).with_topics(topics);
    let ResponseKind::CreatePartitions(response) = cluster.ask(3, asked) else { panic!() };
    let shown = response
        .results
        .into_iter()
        .map(|r| (r.error_code, r.error_message.map_or_else(|| "null".into(), |m| m.to_string())));
    shown.collect()
}

#[test]
fn partitions_are_added() {
    let cluster = Cluster::of(1);
    create(&cluster, vec![topic("p", 3, 1)]);
    let to = |topic: &str, count| {
        CreatePartitionsTopic::default()
            .with_name(name(topic))
            .with_count(count)
            .with_assignments(None)
    };
    let manual = |count, assignments: &[&[i32]]| {
        let each = assignments.iter().map(|brokers| {
            let ids = brokers.iter().copied().map(BrokerId).collect();
            CreatePartitionsAssignment::default().with_broker_ids(ids)
        });
        to("p", count).with_assignments(Some(each.collect()))
    };
    let cases = [
        (to("p", 2), 37, "The topic p currently has 3 partition(s); 2 would not be an increase."),
        (to("p", -1), 37, "The topic p currently has 3 partition(s); -1 would not be an increase."),
        (to("p", 3), 37, "Topic already has 3 partition(s)."),
        (to("nope", 4), 3, "null"),
        (to("p", 20_000), 44, "Excessively large number of partitions per request."),
        (
            manual(5, &[&[1]]),
            39,
            "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
        ),
        (
            manual(4, &[&[9]]),
            39,
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        ),
        (
            manual(4, &[&[1, 1]]),
            39,
            "The manual partition assignment includes the broker 1 more than once.",
        ),
        (manual(4, &[&[]]), 39, "The manual partition assignment includes an empty replica list."),
        (
            manual(4, &[]),
            39,
            "Attempted to add 1 additional partition(s), but only 0 assignment(s) were specified.",
        ),
    ];
    for (asked, code, message) in cases {
        assert_eq!(grow(&cluster, vec![asked]), [(code, message.to_owned())]);
    }
    let twice = grow(&cluster, vec![to("p", 4), to("p", 5)]);
    assert_eq!(twice, [(42, "Duplicate topic name.".to_owned())]);
    assert_eq!(cluster.image().topic("p").unwrap().partitions.len(), 3);
    assert_eq!(grow(&cluster, vec![to("p", 4), to("nope", 1)])[0].0, 0);
    assert_eq!(grow(&cluster, vec![manual(5, &[&[1]])])[0].0, 0);
    assert_eq!(cluster.image().topic("p").unwrap().partitions.len(), 5);
}

#[test]
fn the_offsets_topic_has_its_own_counts() {
    let cluster = Cluster::of(1).with("offsets.topic.num.partitions", "7");
    let results = run(super::super::create_topics::ensure(&cluster, &["__consumer_offsets", "x"]));
    assert_eq!(results, [Ok(()), Ok(())]);
    let image = cluster.image();
    let offsets = image.topic("__consumer_offsets").unwrap();
    assert_eq!((offsets.partitions.len(), offsets.is_internal()), (7, true));
    assert_eq!(offsets.configs["cleanup.policy"], "compact");
    assert_eq!(image.topic("x").unwrap().partitions.len(), 1);
    let again = run(super::super::create_topics::ensure(&cluster, &["x"]));
    assert_eq!(again, [Ok(())], "somebody else was faster");
}
