//! Metrics and health on the Kafka port.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::producer::{BaseRecord, Producer};

use crate::clients::producer;
use crate::support::http::{get, request};
use crate::support::Broker;

#[test]
fn health_is_answered_on_the_kafka_port() {
    let broker = Broker::start();
    for path in ["/health", "/health/live", "/health/ready"] {
        let answer = get(broker.port(), path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    assert_eq!(get(broker.port(), "/nothing").status, 404);
    assert_eq!(request(broker.port(), "POST", "/health").status, 405);
}

#[test]
fn metrics_are_valid_and_count_what_happened() {
    let broker = Broker::start();
    let producer = producer(&broker.address(), &[]);
    for i in 0..100 {
        let value = i.to_string();
        let record = BaseRecord::<(), str>::to("counted").payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    let answer = get(broker.port(), "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.head.to_ascii_lowercase().contains("content-type: text/plain"));
    let text = answer.body;
    for line in [
        "raft_leader{topic=\"__meta\",partition=\"0\"} 1",
        "raft_is_leader{topic=\"__meta\",partition=\"0\"} 1",
        "raft_leader{topic=\"counted\",partition=\"0\"} 1",
        "partition_isr_size{topic=\"counted\",partition=\"0\"} 1",
        "partition_has_min_isr{topic=\"counted\",partition=\"0\"} 1",
        "cluster_quorum_size 1",
        "cluster_size 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no line `{line}` in\n{text}");
    }
    for name in ["raft_term", "raft_commit_index", "raft_applied_index"] {
        let line = format!("{name}{{topic=\"counted\",partition=\"0\"}} ");
        assert!(text.contains(&line), "no `{line}`");
    }
    assert!(text.lines().any(|line| line.starts_with("chronik_")), "{text}");
    promtool(&text);
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
