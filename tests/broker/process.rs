//! What belongs to the process: signals, the port, the data folder, the start screen.

use std::time::{Duration, Instant};

use rdkafka::producer::{BaseRecord, Producer};
use rustix::process::Signal;

use crate::clients::{producer, read_all};
use crate::support::{chronik, output, run, Broker};

fn send(broker: &Broker, topic: &str, count: usize) {
    let producer = producer(&broker.address(), &[]);
    for i in 0..count {
        let value = i.to_string();
        let record = BaseRecord::<(), str>::to(topic).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

#[test]
fn the_start_screen_says_what_the_operator_needs() {
    let broker = Broker::start_with(&["--shards", "2", "--advertised-addr", "localhost"]);
    // Standard output and standard error arrive by different ways.
    broker.wait_for_line("metrics ");
    let log = broker.log();
    let port = broker.port();
    let data = broker.data_dir().display().to_string();
    for text in [
        concat!("chronik-server ", env!("CARGO_PKG_VERSION")).to_string(),
        "shards      2".into(),
        format!("data        {data}"),
        "durability  always".into(),
        format!("kafka       0.0.0.0:{port}"),
        format!("Chronik server ready on 0.0.0.0:{port} (advertised: localhost:{port})"),
    ] {
        assert!(log.contains(&text), "no `{text}` in\n{log}");
    }
    assert!(!log.contains('\u{1b}'), "colours without a terminal:\n{log}");
}

#[test]
fn a_stop_is_clean_quick_and_loses_nothing() {
    let mut broker = Broker::start();
    send(&broker, "stopped", 200);
    let asked = Instant::now();
    // timeout(1) and shells tell the process and its group.
    broker.signal(Signal::TERM);
    assert_eq!(broker.terminate().code(), Some(0), "{}", broker.log());
    assert!(asked.elapsed() < Duration::from_secs(10));
    broker.restart();
    assert_eq!(read_all(&broker.address(), "stopped")[&0].len(), 200);
}

#[test]
fn an_interrupt_stops_too_and_a_hangup_reloads_the_log_filter() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chronik.toml");
    std::fs::write(&file, "log_filter = \"info\"\n").unwrap();
    let mut broker = Broker::start_with(&["--config", file.to_str().unwrap()]);
    std::fs::write(&file, "log_filter = \"debug\"\n").unwrap();
    broker.signal(Signal::HUP);
    broker.wait_for_line("log filter is now debug");
    std::fs::write(&file, "log_filter = \"loud=very\"\n").unwrap();
    broker.signal(Signal::HUP);
    broker.wait_for_line("log filter stays as it is");
    broker.assert_alive();
    broker.signal(Signal::INT);
    broker.wait_for_line("stopping");
}

#[test]
fn another_number_of_shards_keeps_everything() {
    let mut broker = Broker::start_with(&["--shards", "1", "--num-partitions", "5"]);
    send(&broker, "moved", 500);
    for shards in ["3", "2"] {
        broker.terminate();
        broker.restart_with(&["--shards", shards]);
        let read = read_all(&broker.address(), "moved");
        assert_eq!(read.values().map(Vec::len).sum::<usize>(), 500, "{shards} shards");
    }
    broker.kill();
    broker.restart_with(&["--shards", "4"]);
    send(&broker, "moved", 100);
    let read = read_all(&broker.address(), "moved");
    assert_eq!(read.values().map(Vec::len).sum::<usize>(), 600);
}

#[test]
fn a_data_folder_serves_one_process() {
    let mut broker = Broker::start();
    let data = broker.data_dir().display().to_string();
    let second = run(&["standalone", "--data-dir", &data, "--kafka-port", "0"]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(4), "{said}");
    let owner = format!("in use by process {}", broker.process());
    assert!(said.contains(&owner), "{said}");
    broker.assert_alive();
    send(&broker, "undisturbed", 10);
}

#[test]
fn a_port_in_use_is_refused_and_not_shared() {
    let mut broker = Broker::start();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let port = broker.port().to_string();
    let second = run(&["standalone", "--data-dir", &data, "--kafka-port", &port]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(3), "{said}");
    assert!(said.contains("--kafka-port"), "{said}");
    broker.assert_alive();
    send(&broker, "undisturbed", 10);
}

#[test]
fn a_folder_of_another_node_or_of_a_newer_format_is_refused() {
    let mut broker = Broker::start();
    broker.terminate();
    let data = broker.data_dir();
    let start = |node: &str| {
        let mut command = chronik();
        command.args(["standalone", "--kafka-port", "0", "--node-id", node, "--data-dir"]);
        let ended = output(command.arg(&data));
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).to_string())
    };
    let (code, said) = start("7");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("--node-id 1"), "{said}");
    let identity = data.join("node");
    let text = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, text.replacen("chronik-node 1", "chronik-node 9", 1)).unwrap();
    let (code, said) = start("1");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("newer"), "{said}");
    std::fs::write(&identity, text).unwrap();
    broker.restart();
}
