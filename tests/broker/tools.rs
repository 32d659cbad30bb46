//! The commands of the binary against the running binary: topics, groups, records, the data folder.

use std::io::{Read, Write};
use std::process::{Output, Stdio};

use rustix::process::{kill_process, Pid, Signal};

use crate::support::{chronik, output, run, Broker};

/// Runs a command that must succeed, and gives what it printed.
fn tool(broker: &Broker, arguments: &[&str]) -> String {
    let ended = ask(broker, arguments);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{arguments:?}: {said}");
    String::from_utf8(ended.stdout).unwrap()
}

fn ask(broker: &Broker, arguments: &[&str]) -> Output {
    output(chronik().args(arguments).env("CHRONIK_BOOTSTRAP_SERVER", broker.address()))
}

/// Runs a command that must be refused, and gives its exit code and what it said.
fn refused(broker: &Broker, arguments: &[&str]) -> (i32, String) {
    let ended = ask(broker, arguments);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success(), "{arguments:?} succeeded");
    (ended.status.code().unwrap(), said)
}

fn produce(broker: &Broker, arguments: &[&str], lines: &str) {
    let mut child = chronik()
        .arg("produce")
        .args(arguments)
        .env("CHRONIK_BOOTSTRAP_SERVER", broker.address())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn topics_are_made_changed_shown_and_deleted() {
    let broker = Broker::start();
    let said = tool(&broker, &["topic", "create", "t", "-p", "2", "--config", "segment.ms=70000"]);
    assert_eq!(said, "topic t created: 2 partitions, 1 replicas\n");
    let (code, said) = refused(&broker, &["topic", "create", "t"]);
    assert_eq!(code, 1);
    assert!(said.contains("TOPIC_ALREADY_EXISTS") && said.contains("--if-not-exists"), "{said}");
    tool(&broker, &["topic", "create", "t", "--if-not-exists"]);
    tool(
        &broker,
        &["topic", "alter", "t", "-p", "3", "--set", "retention.ms=5000", "--unset", "segment.ms"],
    );
    let shown = tool(&broker, &["topic", "describe", "t"]);
    assert!(shown.contains("partitions   3\n"), "{shown}");
    assert!(shown.contains("  retention.ms = 5000\n"), "{shown}");
    assert!(!shown.contains("segment.ms"), "{shown}");
    assert_eq!(tool(&broker, &["topic", "list"]), "t\n");
    let (code, said) = refused(&broker, &["topic", "alter", "t", "-p", "1"]);
    assert_eq!(code, 1);
    assert!(said.contains("INVALID_PARTITIONS"), "{said}");
    tool(&broker, &["topic", "delete", "t"]);
    assert_eq!(tool(&broker, &["topic", "list"]), "");
    let (_, said) = refused(&broker, &["topic", "describe", "t"]);
    assert!(said.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{said}");
}

#[test]
fn lines_come_back_with_their_keys_under_every_codec() {
    let broker = Broker::start();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        tool(&broker, &["topic", "create", codec, "-p", "3"]);
        produce(&broker, &[codec, "-k", ":", "-z", codec], "a:1\nb:2\nc:3\n");
        produce(&broker, &[codec, "--acks", "1", "-p", "1"], "plain\n");
        let read = ["consume", codec, "--from-beginning", "--until-end", "-k", "="];
        assert_eq!(sorted(&tool(&broker, &read)), ["a=1", "b=2", "c=3", "null=plain"], "{codec}");
    }
}

#[test]
fn reading_starts_at_an_offset_and_ends_after_a_count() {
    let broker = Broker::start();
    // The first record makes the topic.
    produce(&broker, &["new"], "zero\none\ntwo\nthree");
    let read = ["consume", "new", "-p", "0", "-o", "1", "-n", "2"];
    assert_eq!(tool(&broker, &read), "one\ntwo\n");
    assert_eq!(tool(&broker, &["consume", "new", "--until-end"]), "");
    let (code, said) = refused(&broker, &["consume", "new", "-p", "0", "-o", "9"]);
    assert_eq!(code, 1);
    assert!(said.contains("OFFSET_OUT_OF_RANGE"), "{said}");
    let (_, said) = refused(&broker, &["consume", "new", "-p", "7"]);
    assert!(said.contains("has no partition 7"), "{said}");
}

#[test]
fn reading_for_ever_ends_at_a_signal_and_at_a_closed_pipe() {
    let broker = Broker::start();
    produce(&broker, &["t"], "one\n");
    let follow = || {
        let mut child = chronik()
            .args(["consume", "t", "--from-beginning"])
            .env("CHRONIK_BOOTSTRAP_SERVER", broker.address())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 4];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"one\n");
        child
    };
    let child = follow();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let mut child = follow();
    drop(child.stdout.take());
    // The next record finds nobody who reads.
    produce(&broker, &["t"], "two\n");
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn a_group_is_reset_described_and_deleted() {
    let broker = Broker::start();
    produce(&broker, &["t"], "zero\none\ntwo\n");
    let set = ["group", "reset-offsets", "g", "--topic", "t", "--to"];
    let dry = [set.as_slice(), &["1", "--dry-run"]].concat();
    assert!(tool(&broker, &dry).ends_with("nothing was set (--dry-run)\n"));
    let said = tool(&broker, &[set.as_slice(), &["1"]].concat());
    assert_eq!(said, "TOPIC  PARTITION  OFFSET  NEW OFFSET\nt      0          -       1\n");
    let shown = tool(&broker, &["group", "describe", "g"]);
    let row = shown.lines().last().unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(row, ["t", "0", "1", "3", "2", "-", "-", "-"], "{shown}");
    let groups = tool(&broker, &["group", "list"]);
    assert!(groups.contains("g      Empty"), "{groups}");
    tool(&broker, &["group", "delete", "g"]);
    assert_eq!(tool(&broker, &["group", "list"]), "GROUP  STATE  TYPE\n");
    let (code, said) = refused(&broker, &["group", "describe", "g"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("`chronik-server group list`"), "{said}");
}

#[test]
fn no_broker_is_an_error_that_says_what_to_do() {
    let ended = run(&["topic", "list", "--bootstrap", "127.0.0.1:1"]);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        said.contains("127.0.0.1:1") && said.contains("--bootstrap-server HOST:PORT"),
        "{said}"
    );
    let ended = run(&["topic", "list", "--bootstrap", "http://x"]);
    assert_eq!(ended.status.code(), Some(2));
}

#[test]
fn a_data_folder_is_inspected_when_nobody_uses_it() {
    let mut broker = Broker::start();
    produce(&broker, &["t"], "zero\none\n");
    let data = broker.data_dir();
    let folder = data.to_str().unwrap();
    let used = run(&["inspect", "--data-dir", folder]);
    let said = String::from_utf8_lossy(&used.stderr);
    assert_eq!(used.status.code(), Some(4), "{said}");
    assert!(said.contains("is in use by process") && said.contains("--force-read"), "{said}");
    assert!(run(&["inspect", "node", "--force-read", "--data-dir", folder]).status.success());
    assert!(broker.terminate().success());
    let shown = run(&["inspect", "--batches", "--data-dir", folder]);
    let said = String::from_utf8_lossy(&shown.stderr);
    assert!(shown.status.success(), "{said}");
    let text = String::from_utf8(shown.stdout).unwrap();
    for expected in ["== node\n", "node_id = 1\n", "shard 0\n", "stopped in order", "== segments\n"]
    {
        assert!(text.contains(expected), "no `{expected}` in:\n{text}");
    }
    assert!(!text.contains("DAMAGE"), "{text}");
    // No snapshot was written yet: the metadata is read from the log.
    assert!(text.contains("no snapshot, "), "{text}");
    let topic = text.lines().find(|line| line.starts_with("t  ")).expect("a line for the topic");
    assert!(topic.split_whitespace().nth(2) == Some("0") && topic.ends_with('1'), "{topic}");
    let again = run(&["inspect", "--batches", "--data-dir", folder]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), text, "looking changed something");
    let nowhere = run(&["inspect", "--data-dir", "/nowhere/at/all"]);
    assert_eq!(nowhere.status.code(), Some(4));
}

#[test]
fn the_doctor_looks_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let ended = run(&["doctor", "--data-dir", path, "--disk-reserve-bytes", "0"]);
    let text = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{text}");
    for check in [
        "kernel",
        "io_uring",
        "memlock",
        "open files",
        "clock",
        "file system",
        "disk",
        "free space",
    ] {
        assert!(text.lines().any(|line| line.starts_with(check)), "no {check} in:\n{text}");
    }
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
    let full = ["doctor", "--data-dir", path, "--disk-reserve-bytes", "9223372036854775807"];
    let ended = run(&full);
    assert_eq!(ended.status.code(), Some(3));
    let text = String::from_utf8(ended.stdout).unwrap();
    let space = text.lines().find(|line| line.starts_with("free space")).unwrap();
    assert!(space.contains(" FAIL "), "{text}");
}
