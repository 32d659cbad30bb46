//! Options have the effect that the reference promises, seen from a client's side.

use std::time::{Duration, Instant};

use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, BrokerId, DeleteTopicsRequest, DeleteTopicsResponse, FetchRequest, FetchResponse,
    MetadataRequest, MetadataResponse,
};

use crate::clients::read_all;
use crate::hostile::{batch, create, name, produce};
use crate::support::http::get;
use crate::support::wire::Wire;
use crate::support::Broker;

fn metadata(wire: &mut Wire, topic: &str) -> (i16, usize) {
    let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(true);
    let answer: MetadataResponse = wire.ask(ApiKey::Metadata, 9, &request);
    (answer.topics[0].error_code, answer.topics[0].partitions.len())
}

#[test]
fn topics_come_into_being_as_configured() {
    let broker = Broker::start_with(&["--num-partitions", "3"]);
    assert_eq!(metadata(&mut Wire::connect(broker.port()), "new"), (0, 3));
    let broker = Broker::start_with(&["--auto-create-topics-enable", "false"]);
    assert_eq!(metadata(&mut Wire::connect(broker.port()), "new"), (3, 0));
}

#[test]
fn topics_stay_when_deletion_is_off() {
    let broker = Broker::start_with(&["--delete-topic-enable", "false"]);
    let mut wire = Wire::connect(broker.port());
    create(&mut wire, "kept", &[]);
    let wanted = DeleteTopicState::default().with_name(Some(name("kept")));
    let request = DeleteTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
    let answer: DeleteTopicsResponse = wire.ask(ApiKey::DeleteTopics, 6, &request);
    assert_eq!(answer.responses[0].error_code, 73);
    assert_eq!(metadata(&mut wire, "kept"), (0, 1));
}

#[test]
fn one_answer_is_no_larger_than_the_broker_allows() {
    let broker = Broker::start_with(&["--fetch-max-bytes", "2000"]);
    let mut wire = Wire::connect(broker.port());
    create(&mut wire, "read", &[]);
    let one = batch(&[&[b'x'; 600]]);
    for offset in 0..10 {
        assert_eq!(produce(&mut wire, "read", one.clone()), (0, offset));
    }
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let wanted = FetchTopic::default().with_topic(name("read")).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_bytes(1 << 20)
        .with_max_wait_ms(100)
        .with_session_epoch(-1)
        .with_topics(vec![wanted]);
    let answer: FetchResponse = wire.ask(ApiKey::Fetch, 12, &request);
    let records = answer.responses[0].partitions[0].records.clone().unwrap_or_default();
    assert_eq!(records.len(), 2000 / one.len() * one.len());
}

#[test]
fn connections_are_limited_in_number_and_idleness() {
    let broker = Broker::start_with(&["--max-connections", "2", "--connections-max-idle-ms", "1s"]);
    let mut first = Wire::connect(broker.port());
    let mut second = Wire::connect(broker.port());
    assert_eq!(metadata(&mut first, "a").0, 0);
    assert_eq!(metadata(&mut second, "a").0, 0);
    Wire::connect(broker.port()).assert_closed("one connection too many");
    let since = Instant::now();
    first.assert_closed("an idle connection");
    second.assert_closed("an idle connection");
    let waited = since.elapsed();
    assert!(waited > Duration::from_millis(500), "closed after {waited:?}");
    // There is room again.
    let deadline = Instant::now() + Duration::from_secs(5);
    while Wire::connect(broker.port())
        .call(ApiKey::Metadata, 9, &MetadataRequest::default())
        .is_none()
    {
        assert!(Instant::now() < deadline, "no connection is taken any more");
    }
}

#[test]
fn a_request_over_the_limit_closes_its_connection() {
    let arguments = ["--socket-request-max-bytes", "4000", "--message-max-bytes", "3000"];
    let broker = Broker::start_with(&arguments);
    let mut wire = Wire::connect(broker.port());
    create(&mut wire, "small", &[]);
    assert_eq!(produce(&mut wire, "small", batch(&[&[b'x'; 2000]])), (0, 0));
    let mut wire = Wire::connect(broker.port());
    wire.send_frame(&[0; 4001]);
    wire.assert_closed("a frame over the limit");
}

#[test]
fn relaxed_is_answered_and_says_its_name_everywhere() {
    let mut broker = Broker::start_with(&["--flush", "relaxed"]);
    broker.wait_for_line("durability  relaxed: a write is answered BEFORE it is on disk");
    broker
        .wait_for_line("flush = relaxed: a crash can lose records that producers were told are in");
    let shown = |broker: &Broker, mode: &str| {
        let line = format!("chronik_flush_info{{flush=\"{mode}\"}} 1");
        let text = get(broker.port(), "/metrics").body;
        assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
    };
    shown(&broker, "relaxed");
    let mut wire = Wire::connect(broker.port());
    create(&mut wire, "soon", &[]);
    for offset in 0..20 {
        assert_eq!(produce(&mut wire, "soon", batch(&[b"x"])), (0, offset));
    }
    // A stop is no crash. And who does not ask for it, does not get it.
    assert_eq!(broker.terminate().code(), Some(0));
    broker.restart_with(&[]);
    broker.wait_for_line("durability  always: a write is answered when it is on disk");
    shown(&broker, "always");
    assert_eq!(read_all(&broker.address(), "soon")[&0].len(), 20);
}
