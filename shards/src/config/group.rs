//! Group configurations (KIP-848, 932, 1071): accepted, validated, kept and described.
//!
//! They steer the newer group protocols, which are not served yet, so none has an effect; librdkafka
//! and tools set them and expect success. Pure functions, any shard.

use super::definition::{Definition, Effect, Rule, Type};
use super::error::ConfigError;
use super::layers::{Source, Synonym};
use super::topic::Described;
use crate::meta::Configs;

struct GroupKey {
    definition: Definition,
    /// Smallest and largest value, and the broker keys that Kafka names for them.
    limits: Option<Limits>,
}

struct Limits {
    min: i64,
    min_name: &'static str,
    max: i64,
    max_name: &'static str,
}

const fn limits(
    min: i64,
    min_name: &'static str,
    max: i64,
    max_name: &'static str,
) -> Option<Limits> {
    Some(Limits { min, min_name, max, max_name })
}

/// By name.
#[rustfmt::skip]
static GROUP_KEYS: [GroupKey; 10] = [
    row("consumer.heartbeat.interval.ms", Type::Int, "5000", Rule::AtLeast(1),
        limits(5000, "group.consumer.min.heartbeat.interval.ms", 15_000, "group.consumer.max.heartbeat.interval.ms"),
        "Time between two heartbeats of a consumer of this group."),
    row("consumer.session.timeout.ms", Type::Int, "45000", Rule::AtLeast(1),
        limits(45_000, "group.consumer.min.session.timeout.ms", 60_000, "group.consumer.max.session.timeout.ms"),
        "Silence after which a consumer of this group is given up."),
    row("share.auto.offset.reset", Type::String, "latest", Rule::Any, None,
        "Where a share group starts in a partition that it has not read."),
    row("share.heartbeat.interval.ms", Type::Int, "5000", Rule::AtLeast(1),
        limits(5000, "group.share.min.heartbeat.interval.ms", 15_000, "group.share.max.heartbeat.interval.ms"),
        "Time between two heartbeats of a share group's member."),
    row("share.isolation.level", Type::String, "read_uncommitted", Rule::OneOf(&["read_committed", "read_uncommitted"]), None,
        "Which records a share group reads."),
    row("share.record.lock.duration.ms", Type::Int, "30000", Rule::AtLeast(1000),
        limits(15_000, "group.share.min.record.lock.duration.ms", 60_000, "group.share.max.record.lock.duration.ms"),
        "How long a share group's member holds a record."),
    row("share.session.timeout.ms", Type::Int, "45000", Rule::AtLeast(1),
        limits(45_000, "group.share.min.session.timeout.ms", 60_000, "group.share.max.session.timeout.ms"),
        "Silence after which a share group's member is given up."),
    row("streams.heartbeat.interval.ms", Type::Int, "5000", Rule::AtLeast(1),
        limits(5000, "group.streams.min.heartbeat.interval.ms", 15_000, "group.streams.max.heartbeat.interval.ms"),
        "Time between two heartbeats of a streams group's member."),
    row("streams.num.standby.replicas", Type::Int, "0", Rule::AtLeast(0),
        limits(0, "0", 2, "group.streams.max.standby.replicas"),
        "Standby replicas of a streams group's tasks."),
    row("streams.session.timeout.ms", Type::Int, "45000", Rule::AtLeast(1),
        limits(45_000, "group.streams.min.session.timeout.ms", 60_000, "group.streams.max.session.timeout.ms"),
        "Silence after which a streams group's member is given up."),
];

const fn row(
    name: &'static str,
    kind: Type,
    default: &'static str,
    rule: Rule,
    limits: Option<Limits>,
    documentation: &'static str,
) -> GroupKey {
    let effect = Effect::None("it steers a group protocol that is not served yet");
    let definition = Definition { name, kind, default: Some(default), rule, effect, documentation };
    GroupKey { definition, limits }
}

pub fn definitions() -> impl ExactSizeIterator<Item = &'static Definition> {
    GROUP_KEYS.iter().map(|key| &key.definition)
}

/// Checks all of a group's configurations and gives their canonical texts.
pub fn validate(configs: &Configs) -> Result<Configs, ConfigError> {
    let key = |name: &str| GROUP_KEYS.iter().find(|key| key.definition.name == name);
    if let Some(name) = configs.keys().find(|name| key(name).is_none()) {
        return Err(ConfigError::UnknownGroupConfig(name.clone()));
    }
    configs
        .iter()
        .map(|(name, value)| {
            let key = key(name).expect("unknown names were refused above");
            let checked = key.definition.check(value)?;
            check_limits(key, &checked)?;
            Ok((name.clone(), checked))
        })
        .collect()
}

fn check_limits(key: &'static GroupKey, value: &str) -> Result<(), ConfigError> {
    let (Some(limits), Ok(number)) = (&key.limits, value.parse::<i64>()) else { return Ok(()) };
    let name = key.definition.name;
    if number < limits.min {
        return Err(ConfigError::GroupLimit { name, relation: "greater", limit: limits.min_name });
    }
    if number > limits.max {
        return Err(ConfigError::GroupLimit { name, relation: "less", limit: limits.max_name });
    }
    Ok(())
}

/// Describes every key of a group.
pub fn describe(configs: &Configs) -> Vec<Described> {
    definitions()
        .map(|definition| {
            let default = definition.default.unwrap_or_default().to_owned();
            let (value, source) = match configs.get(definition.name) {
                Some(value) => (value.clone(), Source::Group),
                None => (default, Source::Default),
            };
            let synonyms = vec![Synonym { name: definition.name, value: value.clone(), source }];
            Described { definition, value: Some(value), source, read_only: false, synonyms }
        })
        .collect()
}
