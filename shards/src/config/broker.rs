//! Broker configurations: the operator's settings, what was changed while running, and the typed
//! values the broker works with.
//!
//! [`Settings`] are made once at start and cloned to every shard; [`BrokerConfig`] is resolved anew
//! from them and an image whenever `Image::broker_configs_version` moves. Pure values, any shard.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::broker_table::{BrokerKey, Mode, BROKER_KEYS};
use super::definition::{address_limits, Definition};
use super::error::ConfigError;
use super::layers::{BrokerView, Source, Synonym};
use super::topic::Described;
use crate::meta::{Configs, Image, NodeId};

/// What the operator set for this node, under Kafka's names, in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    node: NodeId,
    set: Configs,
}

impl Settings {
    /// Settings of a node that leaves everything else at its default.
    pub fn new(node: NodeId) -> Settings {
        let id = || node.to_string();
        let set = [("node.id".to_owned(), id()), ("broker.id".to_owned(), id())];
        Settings { node, set: Configs::from(set) }
    }

    /// Sets one key (`num.partitions`, `log.dirs`, `advertised.listeners`, ...).
    pub fn with(mut self, name: &str, value: &str) -> Result<Settings, ConfigError> {
        let definition =
            definition(name).ok_or_else(|| ConfigError::UnknownBrokerConfig(name.to_owned()))?;
        self.set.insert(name.to_owned(), definition.check(value)?);
        Ok(self)
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn set(&self) -> &Configs {
        &self.set
    }
}

/// The values in force on this broker. Units in the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    pub auto_create_topics: bool,
    pub connections_max_idle_ms: i64,
    pub default_replication_factor: i16,
    pub delete_topics: bool,
    pub fetch_max_bytes: u32,
    pub fetch_sessions_max: u32,
    pub group_initial_rebalance_delay_ms: i64,
    pub group_max_session_timeout_ms: i32,
    pub group_max_size: u32,
    pub group_min_session_timeout_ms: i32,
    pub log_retention_check_interval_ms: i64,
    pub connections_max: u32,
    pub connections_per_address_max: u32,
    pub connections_per_address_overrides: BTreeMap<IpAddr, u32>,
    /// New connections a second.
    pub connection_rate_max: u32,
    pub num_partitions: i32,
    pub offset_metadata_max_bytes: u32,
    pub offsets_retention_ms: i64,
    pub offsets_retention_check_interval_ms: i64,
    pub offsets_topic_partitions: i32,
    pub offsets_topic_replication_factor: i16,
    pub producer_id_expiration_ms: i64,
    pub socket_request_max_bytes: u32,
    pub transaction_max_timeout_ms: i32,
}

impl BrokerConfig {
    pub fn resolve(settings: &Settings, image: &Image) -> BrokerConfig {
        let view = BrokerView::new(settings, image);
        let text = |name: &str| {
            let definition = definition(name).expect("only names of the table are asked for");
            let sound = view.value(definition).and_then(|value| definition.check(value).ok());
            sound.or_else(|| definition.default.map(str::to_owned)).unwrap_or_default()
        };
        let long = |name: &str| text(name).parse::<i64>().unwrap_or_default();
        let int = |name: &str| i32::try_from(long(name)).unwrap_or(i32::MAX);
        let short = |name: &str| i16::try_from(long(name)).unwrap_or(i16::MAX);
        let size = |name: &str| u32::try_from(long(name)).unwrap_or_default();
        BrokerConfig {
            auto_create_topics: text("auto.create.topics.enable") == "true",
            connections_max_idle_ms: long("connections.max.idle.ms"),
            default_replication_factor: short("default.replication.factor"),
            delete_topics: text("delete.topic.enable") == "true",
            fetch_max_bytes: size("fetch.max.bytes"),
            fetch_sessions_max: size("max.incremental.fetch.session.cache.slots"),
            group_initial_rebalance_delay_ms: long("group.initial.rebalance.delay.ms"),
            group_max_session_timeout_ms: int("group.max.session.timeout.ms"),
            group_max_size: size("group.max.size"),
            group_min_session_timeout_ms: int("group.min.session.timeout.ms"),
            log_retention_check_interval_ms: long("log.retention.check.interval.ms"),
            connections_max: size("max.connections"),
            connections_per_address_max: size("max.connections.per.ip"),
            connections_per_address_overrides: address_limits(&text(
                "max.connections.per.ip.overrides",
            ))
            .unwrap_or_default(),
            connection_rate_max: size("max.connection.creation.rate"),
            num_partitions: int("num.partitions"),
            offset_metadata_max_bytes: size("offset.metadata.max.bytes"),
            offsets_retention_ms: long("offsets.retention.minutes").saturating_mul(60_000),
            offsets_retention_check_interval_ms: long("offsets.retention.check.interval.ms"),
            offsets_topic_partitions: int("offsets.topic.num.partitions"),
            offsets_topic_replication_factor: short("offsets.topic.replication.factor"),
            producer_id_expiration_ms: long("producer.id.expiration.ms"),
            socket_request_max_bytes: size("socket.request.max.bytes"),
            transaction_max_timeout_ms: int("transaction.max.timeout.ms"),
        }
    }
}

/// All broker keys, by name.
pub fn definitions() -> impl ExactSizeIterator<Item = &'static Definition> {
    BROKER_KEYS.iter().map(|key| &key.definition)
}

pub fn definition(name: &str) -> Option<&'static Definition> {
    key(name).map(|key| &key.definition)
}

pub(super) fn key(name: &str) -> Option<&'static BrokerKey> {
    BROKER_KEYS
        .binary_search_by(|key| key.definition.name.cmp(name))
        .ok()
        .map(|at| &BROKER_KEYS[at])
}

/// Describes every key of the broker whose view it is.
pub fn describe(view: &BrokerView<'_>) -> Vec<Described> {
    BROKER_KEYS
        .iter()
        .map(|key| {
            let own_chain = [key.definition.name];
            let chain = if key.chain.is_empty() { &own_chain } else { key.chain };
            let synonyms = view.synonyms(chain);
            Described {
                definition: &key.definition,
                value: view.value(&key.definition).map(str::to_owned),
                source: synonyms.first().map_or(Source::Default, |first| first.source),
                read_only: key.mode == Mode::ReadOnly,
                synonyms,
            }
        })
        .collect()
}

/// Describes what was set for all brokers, and nothing else.
pub fn describe_all_brokers(all: &Configs) -> Vec<Described> {
    all.iter()
        .filter_map(|(name, value)| {
            let definition = definition(name)?;
            let source = Source::AllBrokers;
            let synonym = Synonym { name: definition.name, value: value.clone(), source };
            Some(Described {
                definition,
                value: Some(value.clone()),
                source,
                read_only: false,
                synonyms: vec![synonym],
            })
        })
        .collect()
}

/// Checks new values of broker keys: `one_broker` if they are for one, else for all.
/// `changed` are the keys that the request names with a value.
pub fn validate(changed: &Configs, one_broker: bool) -> Result<Configs, ConfigError> {
    if let Some(name) = changed.keys().find(|name| key(name).is_none()) {
        return Err(ConfigError::UnknownBrokerConfig(name.clone()));
    }
    let names_of = |refused: fn(Mode) -> bool| -> Option<String> {
        let names: Vec<&str> = changed
            .keys()
            .map(String::as_str)
            .filter(|name| key(name).is_some_and(|key| refused(key.mode)))
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = names_of(|mode| matches!(mode, Mode::ReadOnly | Mode::Fixed)) {
        return Err(ConfigError::Static(names));
    }
    if !one_broker {
        if let Some(names) = names_of(|mode| mode == Mode::PerBroker) {
            return Err(ConfigError::PerBrokerOnly(names));
        }
    }
    changed
        .iter()
        .map(|(name, value)| {
            let definition = definition(name).expect("unknown names were refused above");
            let checked = definition.check(value).map_err(as_broker_error)?;
            Ok((name.clone(), checked))
        })
        .collect()
}

fn as_broker_error(error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Value { name, value, why } => ConfigError::BrokerValue { name, value, why },
        other => other,
    }
}
