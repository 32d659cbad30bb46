//! What `/metrics` shows: that it is valid, that it counts what happened, and that its names, types,
//! labels and texts are those of the golden file, which dashboards rely on.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse,
    GroupId, ListOffsetsRequest, ListOffsetsResponse, OffsetCommitRequest, OffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::hostile::{batch, create, name, produce};
use crate::support::http::get;
use crate::support::wire::Wire;
use crate::support::Broker;

/// Three batches of two records in `counted`; all read once; the group `readers` has committed
/// offset 2, and somebody asked for a topic that is not there.
fn used(arguments: &[&str]) -> (Broker, u64) {
    let broker = Broker::start_with(arguments);
    let mut wire = Wire::connect(broker.port());
    create(&mut wire, "counted", &[]);
    let batch = batch(&[b"one", b"two"]);
    for offset in [0, 2, 4] {
        assert_eq!(produce(&mut wire, "counted", batch.clone()), (0, offset));
    }
    assert_eq!(fetch(&mut wire).len(), 3 * batch.len());
    commit(&mut wire, 2);
    let wanted = ListOffsetsPartition::default().with_timestamp(-1);
    let wanted =
        ListOffsetsTopic::default().with_name(name("absent")).with_partitions(vec![wanted]);
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted]);
    let answer: ListOffsetsResponse = wire.ask(ApiKey::ListOffsets, 7, &request);
    assert_eq!(answer.topics[0].partitions[0].error_code, 3);
    (broker, batch.len() as u64)
}

fn fetch(wire: &mut Wire) -> Bytes {
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let wanted = FetchTopic::default().with_topic(name("counted")).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![wanted]);
    let answer: FetchResponse = wire.ask(ApiKey::Fetch, 12, &request);
    answer.responses[0].partitions[0].records.clone().unwrap_or_default()
}

/// The coordinator may still be loading its partition.
fn commit(wire: &mut Wire, offset: i64) {
    let group = GroupId(StrBytes::from_static_str("readers"));
    let find = FindCoordinatorRequest::default().with_key(group.0.clone());
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("counted"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default().with_group_id(group).with_topics(vec![topic]);
    let deadline = std::time::Instant::now() + crate::support::wire::LIMIT;
    loop {
        let _: FindCoordinatorResponse = wire.ask(ApiKey::FindCoordinator, 2, &find);
        let answer: OffsetCommitResponse = wire.ask(ApiKey::OffsetCommit, 7, &request);
        match answer.topics[0].partitions[0].error_code {
            0 => return,
            code => assert!(std::time::Instant::now() < deadline, "commit: error {code}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn scrape(broker: &Broker) -> String {
    let answer = get(broker.port(), "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"));
    answer.body
}

/// The value of one sample, summed over the shards where it has that label.
fn value(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let samples = text.lines().filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        let (found, rest) = sample.split_once('{').unwrap_or((sample, ""));
        let wanted = found == name && labels.iter().all(|label| rest.contains(label));
        wanted.then(|| value.parse::<f64>().expect("a number"))
    });
    samples.reduce(|a, b| a + b)
}

#[test]
fn metrics_are_valid_and_count_what_happened() {
    let (broker, batch_bytes) = used(&["--shards", "2"]);
    let text = scrape(&broker);
    for line in [
        "raft_leader{topic=\"__meta\",partition=\"0\"} 1",
        "raft_is_leader{topic=\"__meta\",partition=\"0\"} 1",
        "raft_leader{topic=\"counted\",partition=\"0\"} 1",
        "partition_isr_size{topic=\"counted\",partition=\"0\"} 1",
        "partition_has_min_isr{topic=\"counted\",partition=\"0\"} 1",
        "cluster_quorum_size 1",
        "cluster_size 1",
        "chronik_topic_records_in_total{topic=\"counted\"} 6",
        "chronik_partition_high_watermark{topic=\"counted\",partition=\"0\"} 6",
        "chronik_partition_log_start_offset{topic=\"counted\",partition=\"0\"} 0",
        "chronik_consumer_lag_records{group=\"readers\",topic=\"counted\",partition=\"0\"} 4",
        "chronik_consumer_lag_omitted_series 0",
        "chronik_request_errors_total{api=\"ListOffsets\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"} 1",
        "chronik_requests_total{api=\"Produce\"} 3",
        "chronik_flush_info{flush=\"always\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no line `{line}` in\n{text}");
    }
    let topic = ["topic=\"counted\""];
    let bytes = Some((3 * batch_bytes) as f64);
    assert_eq!(value(&text, "chronik_topic_bytes_in_total", &topic), bytes);
    assert_eq!(value(&text, "chronik_topic_bytes_out_total", &topic), bytes);
    assert_eq!(value(&text, "chronik_partition_size_bytes", &topic), bytes);
    assert_eq!(value(&text, "chronik_request_seconds_count", &["api=\"Produce\""]), Some(3.0));
    assert_eq!(value(&text, "chronik_batch_bytes_count", &[]), Some(3.0));
    assert_eq!(value(&text, "chronik_batch_bytes_bucket", &["le=\"128\""]), Some(3.0));
    assert_eq!(value(&text, "chronik_groups", &[]), Some(1.0));
    // The one that asks; that of the requests before may still be closing.
    assert!(value(&text, "chronik_connections", &[]).expect("a gauge") >= 1.0);
    let frames = value(&text, "chronik_wal_frames_total", &[]).expect("a counter");
    assert!(frames >= 4.0);
    assert_eq!(value(&text, "chronik_wal_write_seconds_count", &[]), Some(frames));
    assert_eq!(value(&text, "chronik_wal_frame_bytes_count", &[]), Some(frames));
    assert!(value(&text, "process_resident_memory_bytes", &[]).expect("a gauge") > 1e6);
    promtool(&text);
}

#[test]
fn series_of_consumer_lag_are_limited() {
    let (broker, _) = used(&["--consumer-lag-series-max", "0"]);
    let text = scrape(&broker);
    assert_eq!(value(&text, "chronik_consumer_lag_records", &[]), None);
    assert_eq!(value(&text, "chronik_consumer_lag_omitted_series", &[]), Some(1.0));
}

/// `UPDATE_GOLDEN=1 cargo test` rewrites the file; a name that changes breaks dashboards.
#[test]
fn names_types_and_labels_are_those_of_the_golden_file() {
    let (broker, _) = used(&[]);
    let found = families(&scrape(&broker));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/metrics.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(path).unwrap());
}

/// A line for each family: name, type, labels in their order, help.
fn families(text: &str) -> String {
    let mut families: BTreeMap<&str, (&str, Vec<&str>, &str)> = BTreeMap::new();
    let mut family = "";
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            family = name;
            families.insert(name, ("", Vec::new(), help));
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            assert_eq!(name, family, "HELP comes before TYPE");
            families.get_mut(name).expect("told above").0 = kind;
        } else {
            assert!(line.starts_with(family), "{line} stands below {family}");
            let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
            let found = labels.map_or("", |(labels, _)| labels).split("\",");
            let names = &mut families.get_mut(family).expect("told above").1;
            for name in found.filter_map(|label| Some(label.split_once('=')?.0)) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    let line = |(name, (kind, labels, help)): (&&str, &(&str, Vec<&str>, &str))| {
        format!("{name} {kind} {{{}}} {help}\n", labels.join(","))
    };
    families.iter().map(line).collect()
}

/// `promtool check metrics`, where it is installed (`.ci/run` installs it, so CI always checks).
fn promtool(text: &str) {
    let command = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match command {
        Ok(child) => child,
        Err(error) if std::env::var_os("CI").is_some() => panic!("promtool: {error}"),
        Err(_) => return,
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    // 3 is only style (names that do not follow a convention); 1 is text that cannot be parsed.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    let style: Vec<_> = said
        .lines()
        .filter(|line| !line.starts_with("raft_") && !line.starts_with("partition_"))
        .filter(|line| !line.starts_with("cluster_") && !line.trim().is_empty())
        .collect();
    assert!(style.is_empty(), "promtool finds fault with names of our own:\n{}", style.join("\n"));
}
