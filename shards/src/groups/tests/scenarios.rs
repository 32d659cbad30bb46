//! Scenarios in text: `testdata/*.txt`. Each block is a command, a line of dashes, and what it
//! gives: the outcome, then answers to waiting requests, then the records written. Lines before a
//! command that begin with `#` say what the scenario shows. Run the tests with
//! `CHRONIK_REWRITE=1` to write the output anew, and read the difference before committing it.
//!
//! Waiting requests are named by `as=`. The UUIDs of member ids are shown as `#01`, `#02`, ….
//! Protocols are `name/topic+topic`, in order of preference.

use super::*;
use crate::groups::subscription;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const UUID_STEM: &str = "00000000-0000-4000-8000-0000000000";

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/groups/testdata");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let actual = run(&text);
        if std::env::var_os("CHRONIK_REWRITE").is_some() {
            std::fs::write(&file, &actual).unwrap();
        } else if let Some(line) = first_difference(&text, &actual) {
            panic!("{}:{}", file.display(), line);
        }
    }
}

fn first_difference(expected: &str, actual: &str) -> Option<String> {
    let (mut expected, mut actual) = (expected.lines(), actual.lines());
    let mut number = 1;
    loop {
        let pair = (expected.next(), actual.next());
        if pair.0.is_none() && pair.1.is_none() {
            return None;
        }
        if pair.0 != pair.1 {
            let (expected, actual) = (pair.0.unwrap_or("(end)"), pair.1.unwrap_or("(end)"));
            return Some(format!("{number}\n expected: {expected}\n actual:   {actual}"));
        }
        number += 1;
    }
}

fn run(text: &str) -> String {
    let mut player = Player {
        world: World::new(GroupsConfig::default()),
        names: BTreeMap::new(),
        output: String::new(),
        restarts: 0,
    };
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        assert_eq!(lines.next(), Some("----"), "after: {line}");
        while lines.peek().is_some_and(|line| !line.is_empty()) {
            lines.next();
        }
        out.push_str("----\n");
        out.push_str(&player.play(line));
    }
    out
}

struct Player {
    world: World,
    names: BTreeMap<Token, String>,
    output: String,
    restarts: u8,
}

/// `word word key=value …`
struct Line<'a> {
    words: Vec<&'a str>,
    values: BTreeMap<&'a str, String>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Line<'a> {
        let (mut words, mut values) = (Vec::new(), BTreeMap::new());
        for part in line.split_whitespace() {
            match part.split_once('=') {
                Some((key, value)) => {
                    values.insert(key, value.replace('#', UUID_STEM));
                }
                None => words.push(part),
            }
        }
        Line { words, values }
    }

    fn text(&self, key: &str, default: &str) -> String {
        self.values.get(key).cloned().unwrap_or_else(|| default.to_owned())
    }

    fn optional(&self, key: &str) -> Option<String> {
        self.values.get(key).cloned()
    }

    fn number(&self, key: &str, default: i64) -> i64 {
        let parse = |text: &String| text.parse().unwrap_or_else(|_| panic!("{key}={text}"));
        self.values.get(key).map_or(default, parse)
    }

    fn millis(&self, key: &str, default: i64) -> i32 {
        self.values.get(key).map_or(default, |text| span(text).as_millis() as i64) as i32
    }

    fn group(&self) -> String {
        match self.words.get(1) {
            Some(&"(empty)") | None => String::new(),
            Some(group) => group.to_string(),
        }
    }

    /// `key=a,b` as its parts.
    fn list(&self, key: &str) -> Vec<String> {
        let text = self.text(key, "");
        text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }
}

fn span(text: &str) -> Duration {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let count: u64 = digits.parse().unwrap_or_else(|_| panic!("time {text}"));
    match &text[digits.len()..] {
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "m" => Duration::from_secs(count * 60),
        "h" => Duration::from_secs(count * 3600),
        unit => panic!("unit {unit}"),
    }
}

/// `a/t+u,b/t` as protocols with subscriptions; `!` gives metadata that nobody can read.
fn protocols(parts: Vec<String>) -> Vec<(String, Bytes)> {
    let protocol = |part: String| match part.split_once('/') {
        Some((name, "!")) => (name.to_owned(), Bytes::from_static(b"!")),
        Some((name, topics)) => {
            let topics: Vec<&str> = topics.split('+').filter(|topic| !topic.is_empty()).collect();
            (name.to_owned(), subscription::encode(&topics))
        }
        None => (part, Bytes::new()),
    };
    parts.into_iter().map(protocol).collect()
}

/// `t-0,t-1,u-0` by topic, in order.
fn partitions(parts: &[String]) -> Vec<(String, Vec<i32>)> {
    let mut topics: Vec<(String, Vec<i32>)> = Vec::new();
    for part in parts {
        let (topic, partition) = part.rsplit_once('-').expect("topic-partition");
        let partition = partition.parse().expect("a partition");
        match topics.iter_mut().find(|(name, _)| name == topic) {
            Some((_, partitions)) => partitions.push(partition),
            None => topics.push((topic.to_owned(), vec![partition])),
        }
    }
    topics
}

fn pairs(parts: Vec<String>) -> Vec<(String, Bytes)> {
    let pair = |part: String| {
        let (member, assignment) = part.rsplit_once(':').expect("member:assignment");
        (member.to_owned(), Bytes::copy_from_slice(assignment.as_bytes()))
    };
    parts.into_iter().map(pair).collect()
}

fn show<T, E: std::fmt::Debug>(outcome: &Result<T, E>) -> String {
    match outcome {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

fn text(bytes: &[u8]) -> String {
    match subscription::topics(bytes) {
        Ok(topics) => topics.join("+"),
        Err(_) if bytes.is_empty() => "-".to_owned(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

impl Player {
    fn play(&mut self, command: &str) -> String {
        self.output.clear();
        let line = Line::parse(command);
        match line.words[0] {
            "config" => self.config(&line),
            "advance" => self.advance(span(line.words[1])),
            "join" => self.join(&line),
            "sync" => self.sync(&line),
            "heartbeat" => self.heartbeat(&line),
            "leave" => self.leave(&line),
            "commit" => self.commit(&line),
            "fetch" => self.fetch(&line),
            "delete-offsets" => self.delete_offsets(&line),
            "delete-group" => {
                let now = self.world.now();
                let outcome = self.world.coordinator.delete_group(now, &line.group());
                self.say(show(&outcome));
            }
            "delete-topic" => {
                let now = self.world.now();
                self.world.coordinator.topic_deleted(now, line.words[1]);
            }
            "expire" => {
                let now = self.world.now();
                self.world.coordinator.expire_offsets(now);
            }
            "describe" => self.describe(&line),
            "list" => self.list(),
            "restart" => self.restart(),
            other => panic!("unknown command {other}"),
        }
        self.settle();
        std::mem::take(&mut self.output).replace(UUID_STEM, "#")
    }

    fn say(&mut self, line: impl AsRef<str>) {
        self.output.push_str(line.as_ref());
        self.output.push('\n');
    }

    fn settle(&mut self) {
        let output = self.world.settle();
        for answer in output.answers {
            let line = match answer {
                Answer::Join(token, answer) => {
                    format!("{}: {}", self.names[&token], joined(&answer))
                }
                Answer::Sync(token, answer) => {
                    format!("{}: {}", self.names[&token], synced(&answer))
                }
            };
            self.say(line);
        }
        for record in output.records {
            self.say(format!("log: {}", recorded(&record)));
        }
    }

    fn config(&mut self, line: &Line<'_>) {
        let mut config = self.world.config.clone();
        for (key, value) in &line.values {
            match *key {
                "delay" => config.initial_rebalance_delay = span(value),
                "max-size" => config.max_size = value.parse().unwrap(),
                "retention" => config.offsets_retention_ms = span(value).as_millis() as i64,
                other => panic!("unknown setting {other}"),
            }
        }
        self.world.config = config.clone();
        self.world.coordinator.set_config(config);
    }

    /// Time passes; each alarm goes off at its own time.
    fn advance(&mut self, span: Duration) {
        let end = self.world.elapsed + span;
        while let Some(alarm) = self.world.coordinator.next_alarm() {
            let at = Duration::from_nanos(alarm.as_nanos());
            if at > end {
                break;
            }
            self.world.elapsed = self.world.elapsed.max(at);
            let now = self.world.now();
            self.world.coordinator.tick(now);
            let before = self.output.len();
            self.settle();
            let said = self.output.split_off(before);
            if !said.is_empty() {
                let _ = writeln!(self.output, "at {:?}:", self.world.elapsed);
                self.output.push_str(&said);
            }
        }
        self.world.elapsed = end;
    }

    fn token(&mut self, line: &Line<'_>) -> Token {
        let token = Token(self.names.len() as u64);
        self.names.insert(token, line.text("as", "answer"));
        token
    }

    fn join(&mut self, line: &Line<'_>) {
        let version = line.number("v", 9);
        let request = Join {
            group: line.group(),
            member_id: line.text("id", ""),
            instance_id: line.optional("instance"),
            protocol_type: line.text("type", "consumer"),
            protocols: protocols(line.list("protocols")),
            session_timeout_ms: line.millis("session", 10_000),
            rebalance_timeout_ms: line.millis("rebalance", 60_000),
            client_id: line.text("client", "c"),
            client_host: "/127.0.0.1".to_owned(),
            member_id_required: version >= 4,
            can_skip_assignment: version >= 9,
        };
        let token = self.token(line);
        let now = self.world.now();
        self.world.coordinator.join(now, token, request);
    }

    fn sync(&mut self, line: &Line<'_>) {
        let request = Sync {
            group: line.group(),
            generation: line.number("gen", 0) as i32,
            member_id: line.text("id", ""),
            instance_id: line.optional("instance"),
            protocol_type: line.optional("type"),
            protocol: line.optional("protocol"),
            assignments: pairs(line.list("assign")),
        };
        let token = self.token(line);
        let now = self.world.now();
        self.world.coordinator.sync(now, token, request);
    }

    fn heartbeat(&mut self, line: &Line<'_>) {
        let request = Heartbeat {
            group: line.group(),
            generation: line.number("gen", 0) as i32,
            member_id: line.text("id", ""),
            instance_id: line.optional("instance"),
        };
        let now = self.world.now();
        let outcome = self.world.coordinator.heartbeat(now, &request);
        self.say(show(&outcome));
    }

    /// `members=id,/instance,id/instance`
    fn leave(&mut self, line: &Line<'_>) {
        let leaving = |part: String| match part.split_once('/') {
            Some((member_id, instance)) => {
                Leaving { member_id: member_id.to_owned(), instance_id: Some(instance.to_owned()) }
            }
            None => Leaving { member_id: part, instance_id: None },
        };
        let members: Vec<Leaving> = line.list("members").into_iter().map(leaving).collect();
        let now = self.world.now();
        let outcome = self.world.coordinator.leave(now, &line.group(), &members);
        self.each(outcome);
    }

    fn each(&mut self, outcome: Result<Vec<Result<(), GroupError>>, GroupError>) {
        match outcome {
            Ok(outcomes) if outcomes.is_empty() => self.say("none"),
            Ok(outcomes) => {
                self.say(outcomes.iter().map(show).collect::<Vec<_>>().join(" "));
            }
            Err(error) => self.say(format!("all: {error:?}")),
        }
    }

    /// `offsets=t-0:5,t-1:7`
    fn commit(&mut self, line: &Line<'_>) {
        let offset = |part: String| {
            let (place, offset) = part.split_once(':').expect("topic-partition:offset");
            let (topic, partition) = place.rsplit_once('-').expect("topic-partition");
            CommittedOffset {
                topic: topic.to_owned(),
                partition: partition.parse().expect("a partition"),
                offset: offset.parse().expect("an offset"),
                leader_epoch: line.number("epoch", -1) as i32,
                metadata: match line.optional("metadata-length") {
                    Some(length) => Some("ä".repeat(length.parse().unwrap())),
                    None => line.optional("metadata"),
                },
            }
        };
        let request = Commit {
            group: line.group(),
            generation: line.number("gen", -1) as i32,
            member_id: line.text("id", ""),
            instance_id: line.optional("instance"),
            retention_ms: line.optional("retention").map(|text| span(&text).as_millis() as i64),
            knows_group_id_not_found: line.number("v", 9) >= 9,
            offsets: line.list("offsets").into_iter().map(offset).collect(),
        };
        let now = self.world.now();
        let outcome = self.world.coordinator.commit(now, request);
        self.each(outcome);
    }

    fn fetch(&mut self, line: &Line<'_>) {
        let asked = line.optional("of").map(|_| partitions(&line.list("of")));
        let topics = self.world.coordinator.fetch(&line.group(), asked.as_deref());
        if topics.is_empty() {
            self.say("nothing");
        }
        for topic in topics {
            for (partition, value) in topic.partitions {
                let shown = match value {
                    Some(v) => format!("{} {:?} epoch {}", v.offset, v.metadata, v.leader_epoch),
                    None => "none".to_owned(),
                };
                self.say(format!("{}-{partition}: {shown}", topic.topic));
            }
        }
    }

    fn delete_offsets(&mut self, line: &Line<'_>) {
        let topics = partitions(&line.list("of"));
        let now = self.world.now();
        let outcome = self.world.coordinator.delete_offsets(now, &line.group(), &topics);
        self.each(outcome);
    }

    fn describe(&mut self, line: &Line<'_>) {
        let Some(group) = self.world.coordinator.describe(&line.group()) else {
            return self.say("Dead");
        };
        self.say(format!("{} {:?} {:?}", group.state, group.protocol_type, group.protocol));
        for member in group.members {
            let instance = member.instance_id.map(|id| format!(" instance {id}"));
            self.say(format!(
                "  {}{} {} {} metadata {} assignment {}",
                member.member_id,
                instance.unwrap_or_default(),
                member.client_id,
                member.client_host,
                text(&member.metadata),
                text(&member.assignment)
            ));
        }
    }

    fn list(&mut self) {
        for group in self.world.coordinator.list() {
            self.say(format!("{} {} {:?}", group.group, group.state, group.protocol_type));
        }
    }

    /// The broker dies, and another reads the log.
    fn restart(&mut self) {
        self.restarts += 1;
        let mut coordinator = self.world.reloaded(self.restarts * 0x10);
        coordinator.loaded(self.world.now());
        assert_eq!(coordinator.live_records().collect::<Vec<_>>(), self.world.live());
        self.world.coordinator = coordinator;
    }
}

fn joined(answer: &JoinAnswer) -> String {
    if let Some(error) = answer.error {
        return format!("{error:?} id={:?}", answer.member_id);
    }
    let mut line = format!("generation {} id={}", answer.generation, answer.member_id);
    let protocol = (answer.protocol_type.as_deref(), answer.protocol.as_deref());
    let _ = write!(line, " {}/{}", protocol.0.unwrap_or("-"), protocol.1.unwrap_or("-"));
    let _ = write!(line, " leader={}", answer.leader);
    if answer.skip_assignment {
        line.push_str(" skip-assignment");
    }
    for member in &answer.members {
        let instance = member.instance_id.as_ref().map(|id| format!("/{id}"));
        let _ = write!(
            line,
            "\n  {}{} {}",
            member.member_id,
            instance.unwrap_or_default(),
            text(&member.metadata)
        );
    }
    line
}

fn synced(answer: &SyncAnswer) -> String {
    match answer.error {
        Some(error) => format!("{error:?}"),
        None => format!(
            "{}/{} assignment {}",
            answer.protocol_type.as_deref().unwrap_or("-"),
            answer.protocol.as_deref().unwrap_or("-"),
            text(&answer.assignment)
        ),
    }
}

fn recorded(record: &Record) -> String {
    match record {
        Record::Offset(key, value) => {
            let place = format!("{} {}-{}", key.group, key.topic, key.partition);
            match value {
                Some(value) if value.expire_timestamp >= 0 => {
                    let kept = value.expire_timestamp - value.commit_timestamp;
                    format!("{place} = {} for {kept} ms", value.offset)
                }
                Some(value) => format!("{place} = {}", value.offset),
                None => format!("{place} removed"),
            }
        }
        Record::Group(group, Some(value)) => {
            let members: Vec<String> = value
                .members
                .iter()
                .map(|member| format!("{}:{}", member.member_id, text(&member.assignment)))
                .collect();
            format!(
                "{group} generation {} {}/{} leader {} members [{}]",
                value.generation,
                value.protocol_type,
                value.protocol.as_deref().unwrap_or("-"),
                value.leader.as_deref().unwrap_or("-"),
                members.join(" ")
            )
        }
        Record::Group(group, None) => format!("{group} removed"),
    }
}
