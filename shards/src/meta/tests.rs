//! Tests of the metadata state machine: its rules, its bytes, and that a snapshot restores it whole.

use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::ids::base64url;
use super::*;

fn topic_id(n: u128) -> TopicId {
    TopicId(Uuid::from_u128(n))
}

fn register(node: i32) -> Command {
    Command::RegisterBroker {
        node: NodeId(node),
        node_uuid: Uuid::from_u128(node as u128),
        endpoints: vec![Endpoint { name: "PLAINTEXT".into(), host: "h".into(), port: 9092 }],
        rack: None,
    }
}

fn new_topic(id: u128, name: &str, partitions: usize) -> NewTopic {
    NewTopic {
        id: topic_id(id),
        name: name.into(),
        partitions: vec![vec![NodeId(1)]; partitions],
        configs: vec![],
    }
}

fn create(id: u128, name: &str, partitions: usize) -> Command {
    Command::CreateTopics { topics: vec![new_topic(id, name, partitions)] }
}

fn one(state: &mut State, command: Command) -> Result<(), MetaError> {
    match state.apply(command, 7)? {
        Outcome::Each(results) => results.into_iter().next().expect("one item was asked for"),
        _ => Ok(()),
    }
}

fn with_broker() -> State {
    let mut state = State::new();
    one(&mut state, register(1)).unwrap();
    state
}

#[test]
fn a_cluster_is_founded_once() {
    let mut state = State::new();
    let found = |n| Command::Found { cluster_id: Uuid::from_u128(n), feature_level: FEATURE_LEVEL };
    assert!(!state.image().is_founded());
    one(&mut state, found(9)).unwrap();
    let version = state.image().version();
    one(&mut state, found(9)).unwrap();
    assert_eq!(state.image().version(), version, "repeating it changes nothing");
    assert_eq!(one(&mut state, found(10)), Err(MetaError::AlreadyFounded));
    assert_eq!(state.image().cluster_id(), "AAAAAAAAAAAAAAAAAAAACQ");
}

#[test]
fn uuids_have_kafkas_text_form() {
    // The pair stands in Kafka's own quick start.
    let id = Uuid::from_u128(0xe0bea0de74a14fe78c0ad2bef97f3ab3);
    assert_eq!(base64url(id), "4L6g3nShT-eMCtK--X86sw");
    assert_eq!(TopicId::from_random([0xf8; 16]), None, "would start with a dash");
    let id = TopicId::from_random([1; 16]).unwrap();
    assert_eq!(id.0.get_version_num(), 4);
}

#[test]
fn a_topic_is_found_by_name_id_and_group() {
    let mut state = with_broker();
    one(&mut state, create(5, "a", 3)).unwrap();
    one(&mut state, create(6, "b", 2)).unwrap();
    let more = MorePartitions { topic: topic_id(5), expected: 3, added: vec![vec![NodeId(1)]; 2] };
    one(&mut state, Command::CreatePartitions { topics: vec![more] }).unwrap();

    let image = state.image();
    let a = image.topic("a").unwrap();
    assert_eq!(a.partitions.iter().map(|p| p.group.0).collect::<Vec<_>>(), [1, 2, 3, 6, 7]);
    assert!(Arc::ptr_eq(a, image.topic_by_id(topic_id(5)).unwrap()));
    for topic in image.topics() {
        for (number, partition) in (0..).zip(&topic.partitions) {
            let found = image.partition_by_group(partition.group).unwrap();
            assert_eq!((found.topic.id, found.number), (topic.id, number));
        }
    }
    assert!(image.partition_by_group(META_GROUP).is_none());
    assert!(image.partition_by_group(GroupId(8)).is_none());
    assert!(a.partition(-1).is_none() && a.partition(5).is_none());
    let from_b: Vec<_> = image.topics_from("aa").map(|t| t.name.to_string()).collect();
    assert_eq!(from_b, ["b"]);
}

#[test]
fn groups_and_replicas_are_never_given_twice() {
    let mut state = with_broker();
    one(&mut state, create(5, "a", 2)).unwrap();
    let first = state.image().topic("a").unwrap().partitions.clone();
    one(&mut state, Command::DeleteTopics { topics: vec![topic_id(5)] }).unwrap();
    assert!(state.image().topic("a").is_none());
    assert!(state.image().partition_by_group(first[1].group).is_none());
    one(&mut state, create(6, "a", 1)).unwrap();
    let second = state.image().topic("a").unwrap().partitions.clone();
    assert!(second[0].group > first[1].group);
    assert!(second[0].replicas[0].id > first[1].replicas[0].id);
}

#[test]
fn what_a_topic_may_not_be() {
    let mut state = with_broker();
    one(&mut state, create(5, "a.b", 1)).unwrap();
    let before = state.clone();
    let exists = MetaError::TopicExists { name: "a.b".into() };
    assert_eq!(one(&mut state, create(6, "a.b", 1)), Err(exists));
    let collides = MetaError::TopicCollides { name: "a_b".into(), existing: "a.b".into() };
    assert_eq!(one(&mut state, create(6, "a_b", 1)), Err(collides));
    assert_eq!(one(&mut state, create(5, "c", 1)), Err(MetaError::TopicIdInUse(topic_id(5))));
    let bad = MetaError::BadAssignment { name: "c".into() };
    assert_eq!(one(&mut state, create(6, "c", 0)), Err(bad.clone()));
    let mut twice = new_topic(6, "c", 1);
    twice.partitions = vec![vec![NodeId(1), NodeId(1)]];
    assert_eq!(one(&mut state, Command::CreateTopics { topics: vec![twice.clone()] }), Err(bad));
    twice.partitions = vec![vec![NodeId(9)]];
    let command = Command::CreateTopics { topics: vec![twice] };
    assert_eq!(one(&mut state, command), Err(MetaError::UnknownBroker(NodeId(9))));
    assert_eq!(state, before, "a refused command leaves no trace, not even in the ids to give");
}

#[test]
fn one_bad_topic_does_not_fail_the_others() {
    let mut state = with_broker();
    let topics = vec![new_topic(5, "a", 1), new_topic(6, "a", 1), new_topic(7, "b", 1)];
    let outcome = state.apply(Command::CreateTopics { topics }, 1).unwrap();
    let exists = Err(MetaError::TopicExists { name: "a".into() });
    assert_eq!(outcome, Outcome::Each(vec![Ok(()), exists, Ok(())]));
}

#[test]
fn partitions_are_added_to_the_count_that_was_seen() {
    let mut state = with_broker();
    one(&mut state, create(5, "a", 2)).unwrap();
    let more =
        |expected| MorePartitions { topic: topic_id(5), expected, added: vec![vec![NodeId(1)]] };
    let stale = one(&mut state, Command::CreatePartitions { topics: vec![more(1)] });
    assert_eq!(stale, Err(MetaError::PartitionCountChanged { expected: 1, found: 2 }));
    one(&mut state, Command::CreatePartitions { topics: vec![more(2)] }).unwrap();
    assert_eq!(state.image().topic("a").unwrap().partitions.len(), 3);
}

#[test]
fn brokers_come_and_go() {
    let mut state = with_broker();
    let version = state.image().version();
    one(&mut state, register(1)).unwrap();
    assert_eq!(state.image().version(), version, "the same registration changes nothing");
    let Command::RegisterBroker { endpoints, rack, .. } = register(1) else { unreachable!() };
    let other = Command::RegisterBroker {
        node: NodeId(1),
        node_uuid: Uuid::from_u128(77),
        endpoints,
        rack,
    };
    assert_eq!(one(&mut state, other), Err(MetaError::BrokerIdTaken { node: NodeId(1) }));
    one(&mut state, create(5, "a", 1)).unwrap();
    let remove = |node| Command::UnregisterBroker { node: NodeId(node) };
    assert_eq!(one(&mut state, remove(1)), Err(MetaError::BrokerInUse(NodeId(1))));
    assert_eq!(one(&mut state, remove(2)), Err(MetaError::UnknownBroker(NodeId(2))));
    one(&mut state, Command::DeleteTopics { topics: vec![topic_id(5)] }).unwrap();
    one(&mut state, remove(1)).unwrap();
    assert_eq!(state.image().brokers().len(), 0);
}

#[test]
fn configurations_are_merged_or_replaced() {
    let mut state = with_broker();
    let alter = |resource: &ConfigResource, replace, changes: &[(&str, Option<&str>)]| {
        let change = |(name, value): &(&str, Option<&str>)| ConfigChange {
            name: (*name).into(),
            value: value.map(Into::into),
        };
        let changes = changes.iter().map(change).collect();
        let resource = resource.clone();
        Command::AlterConfigs { resources: vec![AlteredResource { resource, replace, changes }] }
    };
    let configs = |state: &State, resource: &ConfigResource| -> Vec<(String, String)> {
        let image = state.image();
        let configs = image.configs(resource).cloned().unwrap_or_default();
        configs.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    one(&mut state, create(5, "t", 1)).unwrap();
    let topic = ConfigResource::Topic(topic_id(5));
    let all = [topic.clone(), ConfigResource::AllBrokers, ConfigResource::Group("g".into())];
    for resource in &all {
        one(&mut state, alter(resource, false, &[("x", Some("1")), ("y", Some("2"))])).unwrap();
        one(&mut state, alter(resource, false, &[("y", None), ("never", None)])).unwrap();
        assert_eq!(configs(&state, resource), [("x".into(), "1".into())]);
        one(&mut state, alter(resource, true, &[("z", Some("3"))])).unwrap();
        assert_eq!(configs(&state, resource), [("z".into(), "3".into())]);
        let version = state.image().version();
        one(&mut state, alter(resource, false, &[("z", Some("3"))])).unwrap();
        assert_eq!(state.image().version(), version, "the same value changes nothing");
        one(&mut state, alter(resource, true, &[])).unwrap();
        assert_eq!(configs(&state, resource), []);
    }
    assert_eq!(state.image().configured().count(), 0, "what is empty is forgotten");
    let gone = ConfigResource::Topic(topic_id(6));
    let unknown = Err(MetaError::UnknownTopic(topic_id(6)));
    assert_eq!(one(&mut state, alter(&gone, false, &[("x", Some("1"))])), unknown);
}

#[test]
fn producer_ids_come_in_blocks() {
    let mut state = with_broker();
    let allocate = Command::AllocateProducerIds { node: NodeId(1) };
    for first in [0, 1000, 2000] {
        let block = state.apply(allocate.clone(), 0).unwrap();
        assert_eq!(block, Outcome::ProducerIds { first, count: 1000 });
    }
    let restored = State::restore(&state.snapshot()).unwrap();
    assert_eq!(restored.next_producer_id, 3000);
    state.next_producer_id = i64::MAX - 999;
    assert_eq!(state.apply(allocate, 0), Err(MetaError::ProducerIdsExhausted));
}

#[test]
fn an_image_in_use_never_changes() {
    let mut state = with_broker();
    one(&mut state, create(5, "a", 1)).unwrap();
    let held = state.image();
    let copy = Image::clone(&held);
    one(&mut state, create(6, "b", 1)).unwrap();
    one(&mut state, Command::DeleteTopics { topics: vec![topic_id(5)] }).unwrap();
    assert_eq!(*held, copy);
    assert!(held.topic("a").is_some() && state.image().topic("a").is_none());
}

#[test]
fn commands_have_fixed_bytes() {
    let topic = NewTopic {
        id: topic_id(1),
        name: "t".into(),
        partitions: vec![vec![NodeId(1), NodeId(2)]],
        configs: vec![("k".into(), "v".into())],
    };
    let bytes = Command::CreateTopics { topics: vec![topic] }.encode(258);
    let mut expected = vec![1, 4, 2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    expected.extend([0; 15]);
    expected.extend([1, 1, 0, 0, 0, b't', 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
    expected.extend([1, 0, 0, 0, 1, 0, 0, 0, b'k', 1, 0, 0, 0, b'v']);
    assert_eq!(bytes[..], expected[..]);

    let alter = Command::AlterConfigs {
        resources: vec![AlteredResource {
            resource: ConfigResource::Broker(NodeId(-2)),
            replace: true,
            changes: vec![ConfigChange { name: "k".into(), value: None }],
        }],
    };
    let mut expected = vec![1, 7, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0];
    expected.extend([2, 254, 255, 255, 255, 1, 1, 0, 0, 0, 1, 0, 0, 0, b'k', 0]);
    assert_eq!(alter.encode(-1)[..], expected[..]);
}

#[test]
fn a_snapshot_has_fixed_bytes() {
    let mut state = with_broker();
    one(&mut state, create(5, "t", 1)).unwrap();
    let bytes = state.snapshot();
    assert_eq!(bytes.len(), 216);
    assert_eq!(&bytes[..20], b"CHRMETA\n\x01\0\0\0\xc0\0\0\0\0\0\0\0");
    // Computed from the format's description by another program; it stands for all bytes before it.
    assert_eq!(bytes[bytes.len() - 4..], 0x4c8a1b11_u32.to_le_bytes());
}

#[test]
fn damaged_and_newer_bytes_are_refused_by_name() {
    let mut state = with_broker();
    one(&mut state, create(5, "t", 1)).unwrap();
    let bytes = state.snapshot();
    for cut in 0..bytes.len() {
        assert!(State::restore(&bytes[..cut]).is_err());
    }
    for position in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[position] ^= 4;
        assert!(State::restore(&damaged).is_err(), "a flipped bit at {position} went unnoticed");
    }
    let mut newer = bytes[..bytes.len() - 4].to_vec();
    newer[8] = 2;
    let checksum = crc32c::crc32c(&newer);
    newer.extend(checksum.to_le_bytes());
    let error = State::restore(&newer).unwrap_err();
    assert_eq!(
        error.to_string(),
        "this metadata snapshot has version 2; this release reads up to 1: it was written by a \
         newer release, run that one"
    );
    let mut command = register(1).encode(0).to_vec();
    command[0] = 9;
    assert!(matches!(Command::decode(&command), Err(DecodeError::Version { found: 9, .. })));
    let hostile = [1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    assert!(matches!(Command::decode(&hostile), Err(DecodeError::Count { .. })));
}

fn names() -> impl Strategy<Value = String> {
    "[ab][._]?[ab]?"
}

fn nodes() -> impl Strategy<Value = NodeId> {
    (1..4).prop_map(NodeId)
}

fn assignments() -> impl Strategy<Value = Vec<Assignment>> {
    prop::collection::vec(prop::collection::vec(nodes(), 0..3), 0..4)
}

fn ids() -> impl Strategy<Value = TopicId> {
    (0..12u128).prop_map(topic_id)
}

fn resources() -> impl Strategy<Value = ConfigResource> {
    prop_oneof![
        ids().prop_map(ConfigResource::Topic),
        nodes().prop_map(ConfigResource::Broker),
        Just(ConfigResource::AllBrokers),
        names().prop_map(ConfigResource::Group),
        names().prop_map(ConfigResource::ClientMetrics),
    ]
}

fn commands() -> impl Strategy<Value = Command> {
    let pairs = || prop::collection::vec((names(), names()), 0..3);
    let changes = prop::collection::vec((names(), prop::option::of(names())), 0..3);
    prop_oneof![
        (0..2u128)
            .prop_map(|n| Command::Found { cluster_id: Uuid::from_u128(n), feature_level: 27 }),
        (1..4i32).prop_map(register),
        nodes().prop_map(|node| Command::UnregisterBroker { node }),
        (ids(), names(), assignments(), pairs()).prop_map(|(id, name, partitions, configs)| {
            Command::CreateTopics { topics: vec![NewTopic { id, name, partitions, configs }] }
        }),
        prop::collection::vec(ids(), 0..3).prop_map(|topics| Command::DeleteTopics { topics }),
        (ids(), 0..6u32, assignments()).prop_map(|(topic, expected, added)| {
            Command::CreatePartitions { topics: vec![MorePartitions { topic, expected, added }] }
        }),
        (resources(), any::<bool>(), changes).prop_map(|(resource, replace, changes)| {
            let change = |(name, value)| ConfigChange { name, value };
            let changes = changes.into_iter().map(change).collect();
            let altered = AlteredResource { resource, replace, changes };
            Command::AlterConfigs { resources: vec![altered] }
        }),
        nodes().prop_map(|node| Command::AllocateProducerIds { node }),
        (20..30i16).prop_map(|level| Command::SetFeatureLevel { level }),
    ]
}

proptest! {
    #[test]
    fn commands_survive_their_encoding(command in commands(), now_ms in any::<i64>()) {
        prop_assert_eq!(Command::decode(&command.encode(now_ms)), Ok((now_ms, command)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Command::decode(&bytes);
        let _ = State::restore(&bytes);
    }

    /// A node that restarts from a snapshot goes on exactly as one that never stopped.
    #[test]
    fn a_restored_state_is_equal_and_stays_equal(
        before in prop::collection::vec(commands(), 0..30),
        after in prop::collection::vec(commands(), 0..10),
    ) {
        let mut state = State::new();
        for (now_ms, command) in (0..).zip(before) {
            let version = state.image().version();
            let old = state.image();
            let _ = state.apply(command, now_ms);
            prop_assert_eq!(state.image().version() == version, *old == *state.image());
        }
        let mut restored = State::restore(&state.snapshot()).unwrap();
        prop_assert_eq!(&restored, &state);
        for (now_ms, command) in (100..).zip(after) {
            prop_assert_eq!(restored.apply(command.clone(), now_ms), state.apply(command, now_ms));
        }
        prop_assert_eq!(restored.snapshot(), state.snapshot());
        prop_assert_eq!(restored, state);
    }
}
