//! The two brokers, asked the same, and what differed.
//!
//! A step sends one request to each and compares everything that comes back; scripts get both
//! answers, for ids that the next request needs. A broker that closed the connection gets a new one
//! with the next step. Owns the list of differences; whether one is accepted is decided later.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, IncrementalAlterConfigsRequest,
    MetadataRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Request, VersionRange};
use uuid::Uuid;

use crate::accepted::Difference;
use crate::message;
use crate::message::text;
use crate::normal::Names;
use crate::tree::Node;
use crate::wire::{Connection, Outcome, LIMIT};

/// The reference, then the broker under test.
pub const KAFKA: usize = 0;
pub const HERE: usize = 1;

/// How long an answer may take to become equal where one of the brokers shows changes late.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);

/// Answers whose lists have no order that a client could rely on.
const FREE_ORDER: &[ApiKey] = &[
    ApiKey::Metadata,
    ApiKey::DescribeConfigs,
    ApiKey::ListGroups,
    ApiKey::DescribeGroups,
    ApiKey::DescribeLogDirs,
    ApiKey::ListConfigResources,
    ApiKey::OffsetFetch,
    ApiKey::OffsetCommit,
    ApiKey::ListOffsets,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::DeleteRecords,
    ApiKey::JoinGroup,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::CreatePartitions,
    ApiKey::DeleteGroups,
    ApiKey::AlterConfigs,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::ElectLeaders,
    ApiKey::FindCoordinator,
    ApiKey::Produce,
    ApiKey::OffsetDelete,
];

/// A request whose answer can be shown field by field.
pub trait Ask: Request<Response: Debug> {}

impl<R: Request<Response: Debug>> Ask for R {}

pub type Both<T> = [T; 2];

/// One connection to each broker.
pub struct Lane(Both<Option<Connection>>);

/// A request under way on a lane.
pub struct Pending {
    step: String,
    version: i16,
    ids: Both<i32>,
}

pub struct Pair {
    ports: Both<u16>,
    names: Both<Names>,
    main: Lane,
    section: String,
    differences: Vec<Difference>,
    steps: usize,
    ranges: BTreeMap<i16, (i16, i16)>,
}

/// What came back, as a tree; and decoded, if it was an answer.
type Seen<T> = (Node, Option<T>);

impl Pair {
    pub fn new(ports: Both<u16>) -> Pair {
        let mut pair = Pair {
            ports,
            names: ports.map(Names::new),
            main: Lane([None, None]),
            section: String::new(),
            differences: Vec::new(),
            steps: 0,
            ranges: BTreeMap::new(),
        };
        pair.ranges = pair.common_ranges();
        pair.set_what_kafka_sets();
        pair
    }

    /// Kafka with `eligible.leader.replicas.version` 1 sets `min.insync.replicas` for all brokers.
    fn set_what_kafka_sets(&self) {
        let config = message!(AlterableConfig { name: "min.insync.replicas", value: "1" });
        let resource = message!(AlterConfigsResource {
            resource_type: 4,
            resource_name: "",
            configs: vec![config],
        });
        let request = message!(IncrementalAlterConfigsRequest { resources: vec![resource] });
        let answer = alone(self.ports[HERE], 1, &request);
        assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    }

    /// What follows belongs to this part of the comparison.
    pub fn section(&mut self, name: &str) {
        self.section = name.to_owned();
    }

    pub fn steps(&self) -> usize {
        self.steps
    }

    /// What differed since the last call.
    pub fn take_differences(&mut self) -> Vec<Difference> {
        std::mem::take(&mut self.differences)
    }

    /// The versions that both serve.
    pub fn versions<R: Ask>(&self) -> VersionRange {
        let key = ApiKey::try_from(R::KEY).expect("a known key");
        match self.ranges.get(&R::KEY) {
            // Advertised for librdkafka's codec check by both, served by neither.
            Some((_, max)) if key == ApiKey::Produce => VersionRange { min: 3, max: *max },
            Some((min, max)) => VersionRange { min: *min, max: *max },
            None => panic!("{key:?} is not served by both"),
        }
    }

    /// Asks both, and compares.
    pub fn ask<R: Ask>(
        &mut self,
        what: &str,
        version: i16,
        request: impl Fn(usize) -> R,
    ) -> Both<Option<R::Response>> {
        let mut lane = std::mem::replace(&mut self.main, Lane([None, None]));
        let answers = self.ask_on(&mut lane, what, version, request);
        self.main = lane;
        answers
    }

    /// As [`Pair::ask`], in every version that both serve.
    pub fn ask_every<R: Ask>(&mut self, what: &str, request: impl Fn(usize, i16) -> R) {
        let VersionRange { min, max } = self.versions::<R>();
        for version in min..=max {
            self.ask(what, version, |side| request(side, version));
        }
    }

    /// As [`Pair::ask`], for a change that one broker shows later than it acknowledged it: asks
    /// again until both answer the same.
    pub fn settle<R: Ask>(
        &mut self,
        what: &str,
        version: i16,
        request: impl Fn(usize) -> R,
    ) -> Both<Option<R::Response>> {
        let deadline = Instant::now() + SETTLES_WITHIN;
        let names = self.names.clone();
        let known = self.differences.len();
        loop {
            let answers = self.ask(what, version, &request);
            if self.differences.len() == known || Instant::now() > deadline {
                return answers;
            }
            self.differences.truncate(known);
            self.steps -= 1;
            self.names = names.clone();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn lane(&self) -> Lane {
        Lane(self.ports.map(open))
    }

    pub fn ask_on<R: Ask>(
        &mut self,
        lane: &mut Lane,
        what: &str,
        version: i16,
        request: impl Fn(usize) -> R,
    ) -> Both<Option<R::Response>> {
        let pending = self.send_on(lane, what, version, request);
        self.receive_on::<R>(lane, pending)
    }

    /// Sends without waiting: for requests that another one must answer.
    pub fn send_on<R: Ask>(
        &mut self,
        lane: &mut Lane,
        what: &str,
        version: i16,
        request: impl Fn(usize) -> R,
    ) -> Pending {
        let step = format!("{}: {what} v{version}", self.section);
        let key = ApiKey::try_from(R::KEY).expect("a known key");
        let mut ids = [0; 2];
        for side in [KAFKA, HERE] {
            let mut body = BytesMut::new();
            if let Err(error) = request(side).encode(&mut body, version) {
                panic!("{step}: the request cannot be encoded: {error}");
            }
            let connection = lane.0[side].get_or_insert_with(|| {
                Connection::open(self.ports[side]).expect("the broker takes connections")
            });
            ids[side] = connection.send(key, version, &body);
        }
        Pending { step, version, ids }
    }

    /// The answers to what was sent, compared.
    pub fn receive_on<R: Ask>(
        &mut self,
        lane: &mut Lane,
        pending: Pending,
    ) -> Both<Option<R::Response>> {
        self.receive_within::<R>(lane, pending, LIMIT)
    }

    pub fn receive_within<R: Ask>(
        &mut self,
        lane: &mut Lane,
        pending: Pending,
        limit: Duration,
    ) -> Both<Option<R::Response>> {
        let Pending { step, version, ids } = pending;
        let mut seen = |side: usize| -> Seen<R::Response> {
            let key = ApiKey::try_from(R::KEY).expect("a known key");
            let connection = lane.0[side].as_mut().expect("it was sent on this lane");
            match connection.receive(key, version, ids[side], limit) {
                Outcome::Answer(mut body) => {
                    let answer = R::Response::decode(&mut body, version);
                    let answer = answer.unwrap_or_else(|e| panic!("{step} side {side}: {e}"));
                    assert!(body.is_empty(), "{step} side {side}: bytes after the answer");
                    (Node::read(&format!("{answer:?}")), Some(answer))
                }
                other => {
                    lane.0[side] = None;
                    (outcome(&other), None)
                }
            }
        };
        let [(kafka, first), (here, second)] = [seen(KAFKA), seen(HERE)];
        let key = ApiKey::try_from(R::KEY).expect("a known key");
        self.compare(&step, [kafka, here], FREE_ORDER.contains(&key));
        [first, second]
    }

    /// Bytes as they are on a connection of their own; compares what becomes of it. An answer is
    /// compared as raw bytes.
    pub fn raw(&mut self, what: &str, bytes: &[u8]) {
        let step = format!("{}: {what}", self.section);
        let seen = self.ports.map(|port| {
            let mut connection = Connection::open(port).expect("the broker takes connections");
            connection.send_raw(bytes);
            outcome(&connection.frame(Duration::from_secs(2)))
        });
        self.compare(&step, seen, false);
    }

    /// A value that was found otherwise than as a field of an answer.
    pub fn compare_values(&mut self, what: &str, field: &str, kafka: String, here: String) {
        let step = format!("{}: {what}", self.section);
        self.steps += 1;
        if kafka != here {
            self.differences.push(Difference { step, field: field.to_owned(), kafka, here });
        }
    }

    fn compare(&mut self, step: &str, seen: Both<Node>, free_order: bool) {
        self.steps += 1;
        let [kafka, here] = seen;
        let kafka = self.names[KAFKA].normal(kafka, free_order).leaves();
        let here = self.names[HERE].normal(here, free_order).leaves();
        let paths = |leaves: Vec<(String, String)>| leaves.into_iter().collect::<BTreeMap<_, _>>();
        let (kafka, here) = (paths(kafka), paths(here));
        let mut longer: Vec<String> = Vec::new();
        let absent = "(absent)".to_owned();
        for path in kafka.keys().chain(here.keys().filter(|path| !kafka.contains_key(*path))) {
            let [a, b] = [&kafka, &here].map(|side| side.get(path).unwrap_or(&absent).clone());
            // A list of another length is one difference, not one for each of its fields.
            if a == b || longer.iter().any(|list| path.starts_with(list)) {
                continue;
            }
            if let Some(list) = path.strip_suffix(".len") {
                longer.push(format!("{list}["));
            }
            let (step, field) = (step.to_owned(), path.clone());
            self.differences.push(Difference { step, field, kafka: a, here: b });
        }
    }

    /// The id of a topic on each side; nothing is compared.
    pub fn topic_ids(&mut self, topic: &str) -> Both<Uuid> {
        self.partition_facts(topic).map(|(id, _)| id)
    }

    /// The current leader epoch of a topic's first partition on each side; nothing is compared.
    pub fn leader_epochs(&mut self, topic: &str) -> Both<i32> {
        self.partition_facts(topic).map(|(_, epoch)| epoch)
    }

    fn partition_facts(&mut self, topic: &str) -> Both<(Uuid, i32)> {
        use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
        let request = message!(MetadataRequest {
            topics: Some(vec![message!(MetadataRequestTopic { name: topic })]),
        });
        self.ports.map(|port| {
            let answer = alone(port, 12, &request);
            let topic = answer
                .topics
                .into_iter()
                .find(|one| one.name.as_ref().is_some_and(|name| *name == TopicName(text(topic))));
            let topic = topic.expect("the topic is listed");
            let epoch = topic.partitions.first().map_or(-1, |partition| partition.leader_epoch);
            (topic.topic_id, epoch)
        })
    }

    fn common_ranges(&self) -> BTreeMap<i16, (i16, i16)> {
        let [kafka, here] = self.advertised();
        let mut ranges = BTreeMap::new();
        for api in &kafka.api_keys {
            if let Some(ours) = here.api_keys.iter().find(|ours| ours.api_key == api.api_key) {
                let range =
                    (api.min_version.max(ours.min_version), api.max_version.min(ours.max_version));
                ranges.insert(api.api_key, range);
            }
        }
        ranges
    }

    /// What each broker says that it serves; nothing is compared.
    pub fn advertised(&self) -> Both<ApiVersionsResponse> {
        let request = message!(ApiVersionsRequest {
            client_software_name: "differential",
            client_software_version: "1",
        });
        self.ports.map(|port| alone(port, 4, &request))
    }
}

/// Asks one broker on a connection of its own.
fn alone<R: Ask>(port: u16, version: i16, request: &R) -> R::Response {
    let key = ApiKey::try_from(R::KEY).expect("a known key");
    let mut connection = Connection::open(port).expect("the broker takes connections");
    let mut body = BytesMut::new();
    request.encode(&mut body, version).expect("a request");
    let id = connection.send(key, version, &body);
    match connection.receive(key, version, id, LIMIT) {
        Outcome::Answer(mut body) => R::Response::decode(&mut body, version).expect("an answer"),
        other => panic!("{key:?} v{version}: {other:?}"),
    }
}

fn open(port: u16) -> Option<Connection> {
    Some(Connection::open(port).expect("the broker takes connections"))
}

fn outcome(outcome: &Outcome) -> Node {
    let value = match outcome {
        Outcome::Answer(bytes) => Node::Bytes(bytes.to_vec()),
        Outcome::Closed => Node::Token("closed".into()),
        Outcome::Silent => Node::Token("silent".into()),
    };
    Node::Fields(vec![("outcome".into(), value)])
}
