//! Options have the effect that the reference promises, seen from a client's side.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    incremental_alter_configs_request, ApiKey, BrokerId, DeleteTopicsRequest, DeleteTopicsResponse,
    FetchRequest, FetchResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    MetadataRequest, MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::clients::read_all;
use crate::hostile::{batch, create, name, produce};
use crate::support::http::get;
use crate::support::wire::Wire;
use crate::support::{run, Broker};

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
fn connections_are_limited_by_address_and_while_running() {
    let limits = ["--max-connections-per-ip", "2", "--max-connections-per-ip-overrides"];
    let broker = Broker::start_with(&[&limits[..], &["127.0.0.9:1"]].concat());
    let from = |last: u8| Wire::connect_from(Ipv4Addr::new(127, 0, 0, last), broker.port());
    let mut kept = [from(5), from(5), from(9)];
    for wire in &mut kept {
        // Answered, so counted: the shards accept in no order.
        assert_eq!(metadata(wire, "a").0, 0);
    }
    from(5).assert_closed("the third of an address that may have two");
    from(9).assert_closed("the second of an address that may have one");
    broker.wait_for_line("connection refused: max.connections.per.ip = 2 is reached");
    let mut other = from(2);
    for wire in &mut kept {
        assert_eq!(metadata(wire, "a").0, 0, "who was there is served on");
    }
    let metrics = get(broker.port(), "/metrics").body;
    let refused = "chronik_connections_over_limit_total{limit=\"max_connections_per_ip\"} 2\n";
    assert!(metrics.contains(refused), "{metrics}");
    // Dynamic, as in Kafka: no restart, and the connections that are there stay.
    alter(&mut other, "max.connections.per.ip", "3");
    assert_eq!(metadata(&mut from(5), "a").0, 0);
    alter(&mut other, "max.connections", "1");
    from(3).assert_closed("more than the broker may have in all");
    assert_eq!(metadata(&mut other, "a").0, 0);
}

/// Sets a dynamic configuration of all brokers.
fn alter(wire: &mut Wire, name: &'static str, value: &'static str) {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let change = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(name))
        .with_value(Some(StrBytes::from_static_str(value)));
    let brokers = AlterConfigsResource::default().with_resource_type(4).with_configs(vec![change]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![brokers]);
    let answer: IncrementalAlterConfigsResponse =
        wire.ask(ApiKey::IncrementalAlterConfigs, 1, &request);
    assert_eq!(answer.responses[0].error_code, 0, "{:?}", answer.responses[0]);
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

/// The smallest log that there is, of one shard.
const SMALL_LOG: [&str; 4] = ["--shards", "1", "--wal-budget-bytes", "64MiB"];

/// The limit that a text names.
fn batches_of_up_to(text: &str) -> usize {
    let (_, rest) = text.split_once("batches of up to ").unwrap_or_else(|| panic!("{text}"));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// A batch of so many bytes.
fn batch_of_bytes(bytes: usize) -> Vec<u8> {
    let mut value = vec![b'x'; bytes];
    while batch(&[&value]).len() > bytes {
        value.truncate(value.len() - (batch(&[&value]).len() - bytes));
    }
    assert_eq!(batch(&[&value]).len(), bytes);
    batch(&[&value])
}

#[test]
fn a_start_that_allows_batches_beyond_the_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    for (command, code) in [("standalone", 2), ("doctor", 3)] {
        let mut arguments = vec![command, "--data-dir", &data, "--disk-reserve-bytes", "0"];
        arguments.extend(SMALL_LOG);
        arguments.extend(["--message-max-bytes", "8MiB"]);
        let ended = run(&arguments);
        let said = [ended.stdout, ended.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{said}");
        assert!(said.contains("message_max_bytes is 8388608; the log takes batches"), "{said}");
        assert!(said.contains("a wal_budget_bytes of 192 MiB takes such batches"), "{said}");
        assert!(batches_of_up_to(&said) > 4_000_000, "{said}");
    }
}

/// The largest batch that may be allowed is taken, also when the log goes round with such batches,
/// and is there after a crash.
#[test]
fn the_largest_batch_of_the_log_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let mut doctor = vec!["doctor", "--data-dir", &data, "--disk-reserve-bytes", "0"];
    doctor.extend(SMALL_LOG);
    let limit = batches_of_up_to(&String::from_utf8(run(&doctor).stdout).unwrap());
    let mut broker = Broker::start_with(&SMALL_LOG);
    let mut wire = Wire::connect(broker.port());
    create(&mut wire, "large", &[("max.message.bytes", &limit.to_string())]);
    let large = batch_of_bytes(limit);
    for offset in 0..40 {
        assert_eq!(produce(&mut wire, "large", large.clone()), (0, offset));
    }
    broker.kill();
    broker.restart();
    let mut wire = Wire::connect(broker.port());
    assert_eq!(produce(&mut wire, "large", batch(&[b"small"])), (0, 40));
    assert_eq!(read_all(&broker.address(), "large")[&0].len(), 41);
}

/// What an earlier start with a larger log allowed is said, and costs only what does not fit.
#[test]
fn topics_beyond_a_smaller_log_are_named_at_the_start() {
    let mut broker = Broker::start_with(&["--shards", "1", "--wal-budget-bytes", "256MiB"]);
    let mut wire = Wire::connect(broker.port());
    create(&mut wire, "wide", &[("max.message.bytes", "10000000")]);
    let large = batch_of_bytes(9_000_000);
    assert_eq!(produce(&mut wire, "wide", large.clone()), (0, 0));
    broker.kill();
    broker.restart_with(&SMALL_LOG);
    broker.wait_for_line(
        "these topics allow larger ones, which are refused with MESSAGE_TOO_LARGE: wide",
    );
    let mut wire = Wire::connect(broker.port());
    assert_eq!(produce(&mut wire, "wide", large), (10, -1));
    assert_eq!(produce(&mut wire, "wide", batch(&[b"small"])), (0, 1));
    assert_eq!(read_all(&broker.address(), "wide")[&0].len(), 2);
}
