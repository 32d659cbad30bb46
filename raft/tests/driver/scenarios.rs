//! Text scenarios: commands to drivers in memory, and everything that follows from them.
//!
//! Each file in `scenarios/` is a list of cases: command lines, `----`, the expected output, an
//! empty line. With `CHRONIK_REWRITE=1` the expected output is rewritten, to be reviewed as a diff.

use std::path::Path;

use crate::harness::{owner, Net, GROUP};
use bytes::Bytes;
use chronik_raft::driver::{Broken, DriverOptions, Opened};
use chronik_raft::eraftpb::ConfChangeV2;
use chronik_raft::{Descriptor, EntryKind, Proposal};
use prost::Message as _;
use wal::{Index, ReplicaId};

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/driver/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of scenarios")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for file in files {
        let expected = std::fs::read_to_string(&file).expect("a scenario");
        let actual = run(&expected);
        if expected == actual {
            continue;
        }
        if std::env::var_os("CHRONIK_REWRITE").is_some() {
            std::fs::write(&file, &actual).expect("the scenario is rewritten");
        } else {
            wrong.push(format!("{}:\n{}", file.display(), difference(&expected, &actual)));
        }
    }
    assert!(wrong.is_empty(), "{}\nCHRONIK_REWRITE=1 rewrites them.", wrong.join("\n"));
}

/// The first line that differs, with what stands around it.
fn difference(expected: &str, actual: &str) -> String {
    let pairs = expected.lines().zip(actual.lines().chain(std::iter::repeat("(end)")));
    let at = pairs.enumerate().find(|(_, (left, right))| left != right);
    let line = at.map_or(expected.lines().count().min(actual.lines().count()), |(line, _)| line);
    let around = |text: &str| {
        let lines: Vec<&str> = text.lines().skip(line.saturating_sub(3)).take(8).collect();
        lines.join("\n  ")
    };
    format!(" line {}, expected:\n  {}\n actual:\n  {}", line + 1, around(expected), around(actual))
}

/// Runs a file: the text with the outputs as they are.
fn run(text: &str) -> String {
    let mut net = Net::new(0, DriverOptions::default());
    let mut cases = Vec::new();
    for case in text.trim_end().split("\n\n") {
        net.violations.clear();
        let input = case.split("----").next().unwrap_or_default().trim_end();
        let mut output = Vec::new();
        let commands: Vec<&str> =
            input.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        for command in &commands {
            let answer = execute(&mut net, command);
            output.append(&mut net.trace);
            output.extend(answer);
        }
        output.extend(net.violations.drain(..).map(|violation| format!("VIOLATION {violation}")));
        if commands.is_empty() {
            cases.push(input.to_string());
            continue;
        }
        if output.is_empty() {
            output.push("ok".into());
        }
        cases.push(format!("{input}\n----\n{}", output.join("\n")));
    }
    cases.join("\n\n") + "\n"
}

fn execute(net: &mut Net, command: &str) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let number = |at: usize| -> u64 { words[at].parse().expect(command) };
    match words[0] {
        "nodes" => *net = Net::new(number(1), DriverOptions::default()),
        "create" => {
            let voters: Vec<u64> = (1..words.len()).map(number).collect();
            net.create(&voters);
        }
        "create-learner" => net.create_on(number(1), &[number(2)]),
        "campaign" => net.node(number(1)).driver.campaign(GROUP),
        "transfer" => net.node(number(1)).driver.transfer_leader(GROUP, ReplicaId(number(2))),
        "propose" => {
            return Some(match net.propose(number(1), words[2]) {
                Ok((index, term)) => format!("{index}/{term}"),
                Err(error) => error,
            })
        }
        "turn" => net.turn(number(1)),
        "seal" => return (!net.node(number(1)).journal.seal()).then(|| "nothing gathered".into()),
        "member" => return Some(member(net, number(1), words[2])),
        "sync" => return (!net.sync(number(1))).then(|| "nothing gathered".into()),
        "deliver" => while net.deliver() {},
        "drop" => net.links.clear(),
        "isolate" => net.isolated = (1..words.len()).map(number).collect(),
        "settle" => net.settle(),
        "tick" => (0..number(2)).for_each(|_| net.tick(number(1))),
        "crash" => return Some(crash(net, number(1))),
        "checkpoint" => {
            let index = Index(number(2));
            let node = net.node(number(1));
            let term = node.driver.term_of(GROUP, index).expect("an entry in memory");
            let driver = &mut node.driver;
            driver.checkpoint(&mut node.journal, GROUP, (index, term), b"app").expect("written");
        }
        "remove" => {
            let node = net.node(number(1));
            node.driver.remove(&mut node.journal, owner(number(1))).expect("written");
        }
        "break" => {
            let broken = Broken {
                empty_ready_reported_early: words[2] == "empty-ready",
                skip_vote_sync: words[2] == "vote-sync",
                ..Broken::default()
            };
            net.node(number(1)).broken = broken;
            net.node(number(1)).driver.set_broken(broken);
        }
        "quiet" => {
            net.settle();
            net.trace.clear();
        }
        "status" => return Some(status(net, number(1))),
        _ => panic!("unknown command {command:?}"),
    }
    None
}

/// Proposes a membership change, given as `v1`, `l2` or `r3`.
fn member(net: &mut Net, node: u64, change: &str) -> String {
    let changes = raft_proto::parse_conf_change(change).expect("a membership change");
    let change = ConfChangeV2 { changes, ..ConfChangeV2::default() };
    let payload = [Bytes::from(change.encode_to_vec())];
    let kind = EntryKind::Membership;
    let proposal = Proposal { kind, descriptor: Descriptor::default(), payload: &payload };
    match net.node(node).driver.propose(GROUP, &proposal) {
        Ok((index, term)) => format!("{index}/{term}"),
        Err(error) => error.to_string(),
    }
}

fn crash(net: &mut Net, node: u64) -> String {
    let opened = net.crash(node).into_iter().map(|opened| match opened {
        Ok(Opened::Running) => "running".to_string(),
        Ok(Opened::Fenced(fence)) => format!("fenced: {fence}"),
        Err(error) => error,
    });
    format!("{node} starts: {}", opened.collect::<Vec<_>>().join(", "))
}

fn status(net: &mut Net, node: u64) -> String {
    let Some(status) = net.node(node).driver.status(GROUP) else { return "no group".into() };
    let ticking = if net.node(node).driver.is_ticking() { "ticking" } else { "not ticking" };
    format!(
        "{node} {} term {} leader {} commit {} applied {} persisted {} log {}..{} {ticking}",
        status.role,
        status.term,
        status.leader.map_or("none".into(), |leader| leader.to_string()),
        status.commit,
        status.applied,
        status.persisted,
        status.first_index,
        status.last_index,
    )
}
