//! Configurations as Kafka's clients and tools know them: names, types, defaults, rules, messages.
//!
//! Four kinds of resource: topics ([`topic`]), brokers ([`broker`]), groups ([`group`]) and client
//! metrics ([`client_metrics`]). Each has one table of [`Definition`]s; from it come validation,
//! Describe's answers, the typed values that the broker works with ([`TopicConfig`],
//! [`BrokerConfig`]) and the reference in `reference.md`, a golden file that also says which
//! configurations have no effect here.
//! What was set lives in `__meta` ([`crate::meta`]); nothing here keeps state. Pure functions, any shard.

pub mod alter;
pub mod batches;
pub mod broker;
mod broker_table;
pub mod client_metrics;
mod definition;
mod error;
pub mod group;
mod layers;
pub mod topic;
mod topic_table;

pub use broker::{BrokerConfig, Settings};
pub use definition::{Definition, Effect, Rule, Type};
pub use error::ConfigError;
pub use layers::{BrokerView, Source, Synonym};
pub use topic::{CleanupPolicy, Compression, TimestampType, TopicConfig};

#[cfg(test)]
mod tests;
