//! Topic configurations: validation, resolution to typed values, and how they are described.
//!
//! Pure functions, any shard. A partition resolves its [`TopicConfig`] when its topic's or the
//! brokers' configuration changes (`Topic::configs_version`, `Image::broker_configs_version`).

use super::definition::Definition;
use super::error::ConfigError;
use super::layers::{BrokerView, Source, Synonym};
use super::topic_table::{Synonymous, TopicKey, TOPIC_KEYS};
use crate::meta::Configs;

/// The effective configuration of a topic, as partitions use it. Times in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    pub cleanup: CleanupPolicy,
    pub compression: Compression,
    pub index_interval_bytes: u32,
    /// A whole batch with its 12 bytes of offset and length.
    pub max_message_bytes: u32,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    /// As configured; what counts is the smaller of this and the number of replicas.
    pub min_insync_replicas: u32,
    /// `None` keeps everything.
    pub retention_bytes: Option<u64>,
    /// `None` keeps everything.
    pub retention_ms: Option<i64>,
    /// At least 1 MiB.
    pub segment_bytes: u32,
    pub segment_ms: i64,
    pub segment_jitter_ms: i64,
    pub segment_index_bytes: u32,
}

/// What may be removed from a log. Neither: everything is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub delete: bool,
    /// Records must have keys.
    pub compact: bool,
}

/// What codec stored batches have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Whatever the producer sent.
    Producer,
    Uncompressed,
    /// -1: the codec's default level.
    Gzip {
        level: i32,
    },
    Snappy,
    Lz4 {
        level: i32,
    },
    Zstd {
        level: i32,
    },
}

/// Whose clock a topic's timestamps show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// One configuration of a topic as it is described to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub definition: &'static Definition,
    pub value: Option<String>,
    pub source: Source,
    pub read_only: bool,
    /// Strongest first; the first is the effective one, unless it is a fallback in another unit.
    pub synonyms: Vec<Synonym>,
}

/// All topic keys, by name.
pub fn definitions() -> impl ExactSizeIterator<Item = &'static Definition> {
    TOPIC_KEYS.iter().map(|key| &key.definition)
}

pub fn definition(name: &str) -> Option<&'static Definition> {
    key(name).map(|key| &key.definition)
}

fn key(name: &str) -> Option<&'static TopicKey> {
    TOPIC_KEYS.binary_search_by(|key| key.definition.name.cmp(name)).ok().map(|i| &TOPIC_KEYS[i])
}

/// Checks all of a topic's own configurations together and gives their canonical texts.
/// Unknown names are reported before bad values, as Kafka does.
pub fn validate(configs: &Configs) -> Result<Configs, ConfigError> {
    if let Some(name) = configs.keys().find(|name| key(name).is_none()) {
        return Err(ConfigError::UnknownTopicConfig(name.clone()));
    }
    let mut checked = Configs::new();
    for (name, value) in configs {
        let definition = definition(name).expect("unknown names were refused above");
        checked.insert(name.clone(), definition.check(value)?);
    }
    check_together(&checked)?;
    Ok(checked)
}

/// Rules between keys. The values are canonical, so they parse.
fn check_together(configs: &Configs) -> Result<(), ConfigError> {
    if configs.get("remote.storage.enable").is_some_and(|v| v == "true") {
        return Err(ConfigError::TieredStorage);
    }
    let number = |name| {
        let set = configs.get(name).map(String::as_str);
        let text = set.or_else(|| definition(name)?.default);
        text.and_then(|text| text.parse::<i64>().ok()).unwrap_or_default()
    };
    let (min, max) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"));
    if min > max {
        return Err(ConfigError::CompactionLags { min, max });
    }
    Ok(())
}

/// Describes every key of a topic, by name.
pub fn describe(configs: &Configs, brokers: &BrokerView<'_>) -> Vec<Described> {
    TOPIC_KEYS.iter().map(|key| describe_key(key, configs, brokers)).collect()
}

fn describe_key(key: &'static TopicKey, configs: &Configs, brokers: &BrokerView<'_>) -> Described {
    let definition = &key.definition;
    let mut synonyms: Vec<Synonym> = Vec::new();
    if let Some(value) = configs.get(definition.name) {
        let (name, value) = (definition.name, value.clone());
        synonyms.push(Synonym { name, value, source: Source::Topic });
    }
    let chain: Vec<&'static str> = key.synonyms.iter().map(|s| s.name).collect();
    synonyms.extend(brokers.synonyms(&chain));
    let value = synonyms.first().map(|first| in_topic_unit(first, key.synonyms));
    let value = value.or_else(|| definition.default.map(str::to_owned));
    let source = synonyms.first().map_or(Source::Default, |first| first.source);
    Described { definition, value, source, read_only: false, synonyms }
}

/// A fallback in hours or minutes, in milliseconds; everything else as it is.
fn in_topic_unit(synonym: &Synonym, chain: &[Synonymous]) -> String {
    let factor = chain.iter().find(|s| s.name == synonym.name).map_or(1, |s| s.factor);
    match synonym.value.parse::<i64>() {
        // A negative time is "never" in every unit.
        Ok(n) if factor != 1 => if n < 0 { n } else { n.saturating_mul(factor) }.to_string(),
        _ => synonym.value.clone(),
    }
}

impl TopicConfig {
    /// Resolves what was set on a topic over what the brokers set and the defaults. A stored value
    /// that cannot be read (it was validated, so it comes from a newer release) counts as unset.
    pub fn resolve(configs: &Configs, brokers: &BrokerView<'_>) -> TopicConfig {
        let value = |name: &str| -> String {
            let key = key(name).expect("only names of the table are asked for");
            let described = describe_key(key, configs, brokers);
            let sound = described.value.and_then(|v| key.definition.check(&v).ok());
            sound.or_else(|| key.definition.default.map(str::to_owned)).unwrap_or_default()
        };
        let long = |name: &str| value(name).parse::<i64>().unwrap_or_default();
        let int = |name: &str| i32::try_from(long(name)).unwrap_or(i32::MAX);
        let size = |name: &str| u32::try_from(long(name)).unwrap_or_default();
        let policy = value("cleanup.policy");
        let has = |word| super::definition::elements(&policy).contains(&word);
        TopicConfig {
            cleanup: CleanupPolicy { delete: has("delete"), compact: has("compact") },
            compression: match value("compression.type").as_str() {
                "uncompressed" => Compression::Uncompressed,
                "gzip" => Compression::Gzip { level: int("compression.gzip.level") },
                "snappy" => Compression::Snappy,
                "lz4" => Compression::Lz4 { level: int("compression.lz4.level") },
                "zstd" => Compression::Zstd { level: int("compression.zstd.level") },
                _ => Compression::Producer,
            },
            index_interval_bytes: size("index.interval.bytes"),
            max_message_bytes: size("max.message.bytes"),
            timestamp_type: match value("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            min_insync_replicas: size("min.insync.replicas"),
            retention_bytes: u64::try_from(long("retention.bytes")).ok(),
            retention_ms: Some(long("retention.ms")).filter(|ms| *ms >= 0),
            segment_bytes: size("segment.bytes"),
            segment_ms: long("segment.ms"),
            segment_jitter_ms: long("segment.jitter.ms"),
            segment_index_bytes: size("segment.index.bytes"),
        }
    }
}
