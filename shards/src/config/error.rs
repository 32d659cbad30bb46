//! Why a configuration is refused, in Kafka's own words. The handlers map it to an error code.

/// A refused change of a configuration. The messages are Kafka 4.1's, since users search for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No topic configuration has this name.
    #[error("Unknown topic config name: {0}")]
    UnknownTopicConfig(String),
    /// No broker configuration has this name. (Kafka accepts any name here and shows it as a secret.)
    #[error("Unknown broker config name: {0}")]
    UnknownBrokerConfig(String),
    /// No group configuration has this name.
    #[error("Unknown group config name: {0}")]
    UnknownGroupConfig(String),
    /// No client metrics configuration has this name.
    #[error("Unknown client metrics configuration: {0}")]
    UnknownClientMetricsConfig(String),
    /// The value does not fit the type or the rule of its key.
    #[error("Invalid value {value} for configuration {name}: {why}")]
    Value { name: String, value: String, why: String },
    /// The same for a broker's key, where Kafka answers with another code.
    #[error("Invalid value {value} for configuration {name}: {why}")]
    BrokerValue { name: String, value: String, why: String },
    /// A topic was to be created with keys that have no value.
    #[error("Null value not supported for topic configs: {0}")]
    NullAtCreation(String),
    /// A key was to be set or appended to without a value.
    #[error("Null value not supported for : {0}")]
    Null(String),
    /// A key stands more than once among the changes of one resource.
    #[error("Error due to duplicate config keys")]
    DuplicateKeys,
    /// APPEND or SUBTRACT on a key whose type is not LIST.
    #[error("Can't {operation} to key {name} because its type is not LIST.")]
    NotAList { operation: &'static str, name: String },
    /// The same for a broker's key.
    #[error("Config value append is not allowed for config key: {0}")]
    BrokerAppend(String),
    /// An alter operation that is none of SET, DELETE, APPEND, SUBTRACT.
    #[error("Unknown config operation {0}.")]
    UnknownOperation(i8),
    /// The two compaction lags contradict each other.
    #[error("conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})")]
    CompactionLags { min: i64, max: i64 },
    /// There is no tiered storage.
    #[error("Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.")]
    TieredStorage,
    /// Broker keys that are read at start only; comma-separated.
    #[error("Cannot update these configs dynamically: Set({0})")]
    Static(String),
    /// Broker keys that differ from broker to broker by their nature.
    #[error("Cannot update these configs at default cluster level, broker id must be specified: Set({0})")]
    PerBrokerOnly(String),
    /// A group's key below or above the broker's limit for it.
    #[error("{name} must be {relation} than or equal to {limit}")]
    GroupLimit { name: &'static str, relation: &'static str, limit: &'static str },
    /// A client metrics interval outside of what is allowed.
    #[error(
        "Invalid value {0} for interval.ms, interval must be between 100 and 3600000 (1 hour)"
    )]
    MetricsInterval(i64),
    /// A client metrics pattern without a known field name.
    #[error("Illegal client matching pattern: {0}")]
    MetricsMatch(String),
}
