//! CreateTopics (key 19), versions 2 to 7. KIP-4, KIP-464 (defaults by -1), KIP-525 (effective
//! configurations in the answer), KIP-516 (topic ids).
//!
//! Answers when the partitions accept Produce. Departure: of two names in one request that differ
//! only in `.` and `_` the second is refused, where Kafka checks only against existing topics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use kafka_protocol::messages::TopicName;
use net::ErrorCode;
use uuid::Uuid;

use super::admin::{Admin, SubmitError, SUBMIT_TIMEOUT};
use super::errors::Refusal;
use super::names::{check_topic_name, text, METADATA_LOG};
use super::placement;
use crate::config::{batches, topic, BrokerConfig, BrokerView, ConfigError};
use crate::meta::{
    Assignment, Command, Configs, Image, MetaError, NewTopic, NodeId, Outcome, TopicId,
};

/// New partitions that one request may ask for.
pub(super) const PARTITIONS_MAX: usize = 10_000;

pub async fn handle<A: Admin>(
    admin: &A,
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let image = admin.image();
    let mut plan = plan(admin, &image, &request);
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    if !request.validate_only {
        submit(admin, &mut plan, timeout).await;
    }
    let topics = plan.into_iter().map(|(name, planned)| match planned {
        Ok(topic) => created(admin, version, topic),
        Err(refusal) => refused(name, &refusal),
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

/// Each name of the request once, in its order, with what to create or why not.
type Plan = Vec<(TopicName, Result<NewTopic, Refusal>)>;

fn plan<A: Admin>(admin: &A, image: &Image, request: &CreateTopicsRequest) -> Plan {
    let config = BrokerConfig::resolve(admin.settings(), image);
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.as_str()).or_default() += 1;
    }
    let excessive = asked_partitions(&request.topics, &config) > PARTITIONS_MAX;
    let mut planned: Plan = Vec::new();
    let mut seen = BTreeSet::new();
    let mut names = BTreeMap::new();
    for topic in &request.topics {
        let name = topic.name.as_str();
        if !seen.insert(name) {
            continue;
        }
        let result = if request.timeout_ms <= 0 {
            Err(Refusal::bare(ErrorCode::RequestTimedOut))
        } else if excessive {
            Err(excessive_partitions())
        } else if times[name] > 1 {
            Err(Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else {
            check(image, &config, topic).and_then(|(partitions, configs)| {
                if let Some(existing) = names.insert(name.replace('.', "_"), name) {
                    return Err(collision(name, existing));
                }
                for (key, value) in &configs {
                    batches::check(key, value, admin.batch_max_bytes())?;
                }
                let name = name.to_owned();
                Ok(NewTopic { id: new_topic_id(admin, image), name, partitions, configs })
            })
        };
        planned.push((topic.name.clone(), result));
    }
    planned
}

pub(super) fn excessive_partitions() -> Refusal {
    let message = "Excessively large number of partitions per request.";
    Refusal::new(ErrorCode::PolicyViolation, message)
}

fn asked_partitions(topics: &[CreatableTopic], config: &BrokerConfig) -> usize {
    let asked = topics.iter().map(|topic| match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => usize::try_from(config.num_partitions).unwrap_or_default(),
        (0, count) => usize::try_from(count).unwrap_or_default(),
        (assigned, _) => assigned,
    });
    asked.fold(0, usize::saturating_add)
}

/// A topic that may be created: its partitions and what is set on it.
type Checked = (Vec<Assignment>, Vec<(String, String)>);

/// Checks one topic in Kafka's order: name, existence, configurations, assignment, counts.
fn check(image: &Image, config: &BrokerConfig, topic: &CreatableTopic) -> Result<Checked, Refusal> {
    check_new_name(image, &topic.name)?;
    let configs = check_configs(topic)?;
    let assignments = if topic.assignments.is_empty() {
        place(image, config, topic.num_partitions, topic.replication_factor)?
    } else {
        manual(image, topic)?
    };
    Ok((assignments, configs.into_iter().collect()))
}

fn check_new_name(image: &Image, name: &str) -> Result<(), Refusal> {
    if name == METADATA_LOG {
        let message = format!("Creation of internal topic {METADATA_LOG} is prohibited.");
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    check_topic_name(name)?;
    if image.topic(name).is_some() {
        return Err(MetaError::TopicExists { name: name.to_owned() }.into());
    }
    match image.colliding_topic(name) {
        Some(existing) => Err(collision(name, &existing.name)),
        None => Ok(()),
    }
}

fn collision(name: &str, existing: &str) -> Refusal {
    let (name, existing) = (name.to_owned(), existing.to_owned());
    MetaError::TopicCollides { name, existing }.into()
}

fn check_configs(topic: &CreatableTopic) -> Result<Configs, Refusal> {
    let without_value: Vec<&str> =
        topic.configs.iter().filter(|c| c.value.is_none()).map(|c| c.name.as_str()).collect();
    if !without_value.is_empty() {
        return Err(ConfigError::NullAtCreation(without_value.join(",")).into());
    }
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let set = topic.configs.iter().filter_map(|c| Some((c.name.as_str(), c.value.as_deref()?)));
    Ok(topic::validate(&set.map(pair).collect())?)
}

/// Counts of -1 are the broker's defaults.
fn place(
    image: &Image,
    config: &BrokerConfig,
    partitions: i32,
    replicas: i16,
) -> Result<Vec<Assignment>, Refusal> {
    let replicas = if replicas == -1 { config.default_replication_factor } else { replicas };
    if replicas <= 0 {
        let message = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
    }
    let partitions = if partitions == -1 { config.num_partitions } else { partitions };
    if partitions <= 0 {
        let message = "Number of partitions was set to an invalid non-positive value.";
        return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    }
    placement::place(image, partitions as usize, replicas)
}

/// The assignment that the client chose.
fn manual(image: &Image, topic: &CreatableTopic) -> Result<Vec<Assignment>, Refusal> {
    let given = |what| {
        let message =
            format!("A manual partition assignment was specified, but {what} was not set to -1.");
        Err(Refusal::new(ErrorCode::InvalidRequest, message))
    };
    if topic.replication_factor != -1 {
        return given("replication factor");
    }
    if topic.num_partitions != -1 {
        return given("numPartitions");
    }
    let refuse = |message| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    let mut partitions: BTreeMap<i32, Assignment> = BTreeMap::new();
    for assignment in &topic.assignments {
        let nodes: Assignment = assignment.broker_ids.iter().map(|id| NodeId(id.0)).collect();
        placement::check_manual(image, &nodes)?;
        let number = assignment.partition_index;
        if partitions.insert(number, nodes).is_some() {
            return refuse(format!(
                "Found multiple manual partition assignments for partition {number}"
            ));
        }
    }
    if !partitions.keys().copied().eq(0..partitions.len() as i32) {
        return refuse("partitions should be a consecutive 0-based integer sequence".to_owned());
    }
    Ok(partitions.into_values().collect())
}

/// An id that no topic has, from the broker's random bytes.
fn new_topic_id<A: Admin>(admin: &A, image: &Image) -> TopicId {
    loop {
        if let Some(id) = TopicId::from_random(admin.entropy()) {
            if image.topic_by_id(id).is_none() {
                return id;
            }
        }
    }
}

/// Creates what is planned; what `__meta` refuses becomes a refusal in the plan.
async fn submit<A: Admin>(admin: &A, plan: &mut Plan, timeout: Duration) {
    let planned: Vec<NewTopic> =
        plan.iter().filter_map(|(_, topic)| topic.as_ref().ok()).cloned().collect();
    if planned.is_empty() {
        return;
    }
    let count = planned.len();
    let outcome = admin.submit(Command::CreateTopics { topics: planned }, timeout).await;
    let mut results = results_of(outcome, count).into_iter();
    for (_, topic) in plan.iter_mut().filter(|(_, topic)| topic.is_ok()) {
        if let Some(Err(refusal)) = results.next() {
            *topic = Err(refusal);
        }
    }
}

/// One result for each item of a command.
pub(super) fn results_of(
    outcome: Result<Outcome, SubmitError>,
    count: usize,
) -> Vec<Result<(), Refusal>> {
    match outcome {
        Ok(Outcome::Each(results)) => {
            results.into_iter().map(|result| result.map_err(Refusal::from)).collect()
        }
        Ok(_) => vec![Ok(()); count],
        Err(error) => vec![Err(error.into()); count],
    }
}

fn created<A: Admin>(admin: &A, version: i16, topic: NewTopic) -> CreatableTopicResult {
    let replicas = topic.partitions.first().map_or(0, Vec::len);
    let result = CreatableTopicResult::default()
        .with_name(TopicName(text(&topic.name)))
        .with_error_message(None)
        .with_topic_id(if version >= 7 { topic.id.0 } else { Uuid::nil() })
        .with_num_partitions(topic.partitions.len() as i32)
        .with_replication_factor(i16::try_from(replicas).unwrap_or(i16::MAX));
    if version < 5 {
        return result;
    }
    let image = admin.image();
    let view = BrokerView::new(admin.settings(), &image);
    let set: Configs = topic.configs.into_iter().collect();
    let configs = topic::describe(&set, &view).into_iter().map(|described| {
        CreatableTopicConfigs::default()
            .with_name(text(described.definition.name))
            .with_value(described.value.as_deref().map(text))
            .with_config_source(described.source as i8)
    });
    result.with_configs(Some(configs.collect()))
}

fn refused(name: TopicName, refusal: &Refusal) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(refusal.code.code())
        .with_error_message(refusal.text())
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(Some(Vec::new()))
}

/// Creates topics with the broker's defaults, for a client that asked for their metadata, or for
/// the broker itself (`__consumer_offsets`, with its own counts and configurations). A topic that
/// somebody else created in the meantime is as good.
pub(crate) async fn ensure<A: Admin>(
    admin: &A,
    names: &[&str],
) -> Vec<Result<(), (ErrorCode, Option<String>)>> {
    let image = admin.image();
    let config = BrokerConfig::resolve(admin.settings(), &image);
    let each = usize::try_from(config.num_partitions).unwrap_or_default();
    let excessive = names.len().saturating_mul(each) > PARTITIONS_MAX;
    let mut plan: Plan = Vec::new();
    for name in names {
        let topic = match excessive {
            true => Err(excessive_partitions()),
            false => default_topic(admin, &image, &config, name),
        };
        plan.push((TopicName(text(name)), topic));
    }
    submit(admin, &mut plan, SUBMIT_TIMEOUT).await;
    let exists = |code| code == ErrorCode::TopicAlreadyExists;
    plan.into_iter()
        .map(|(_, result)| match result {
            Ok(_) => Ok(()),
            Err(refusal) if exists(refusal.code) => Ok(()),
            Err(refusal) => Err((refusal.code, refusal.message)),
        })
        .collect()
}

fn default_topic<A: Admin>(
    admin: &A,
    image: &Image,
    config: &BrokerConfig,
    name: &str,
) -> Result<NewTopic, Refusal> {
    check_new_name(image, name)?;
    let (partitions, replicas, configs) = match name {
        "__consumer_offsets" => (
            config.offsets_topic_partitions,
            config.offsets_topic_replication_factor,
            internal_configs(),
        ),
        _ => (-1, -1, Vec::new()),
    };
    let partitions = place(image, config, partitions, replicas)?;
    Ok(NewTopic { id: new_topic_id(admin, image), name: name.to_owned(), partitions, configs })
}

/// What Kafka sets on the topics of its coordinators.
fn internal_configs() -> Vec<(String, String)> {
    let configs = [
        ("cleanup.policy", "compact"),
        ("compression.type", "producer"),
        ("segment.bytes", "104857600"),
    ];
    configs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
