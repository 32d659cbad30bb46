//! How large batches may be, by configuration and by the write-ahead log.
//!
//! A batch is one record of the log, so it must fit into a log file, and the size of those follows
//! from `wal_budget_bytes`. Who configures more is told, instead of its producers. Pure; any shard.

use super::error::ConfigError;
use super::layers::BrokerView;
use super::topic::TopicConfig;
use crate::meta::Image;

/// The topics' key and the brokers'.
const KEYS: [&str; 2] = ["max.message.bytes", "message.max.bytes"];

/// Refuses a value that this node's logs cannot keep. Other keys pass; `value` is canonical.
pub fn check(name: &str, value: &str, batch_max_bytes: u64) -> Result<(), ConfigError> {
    let fits = value.parse::<u64>().is_ok_and(|bytes| bytes <= batch_max_bytes);
    if fits || !KEYS.contains(&name) {
        return Ok(());
    }
    let (name, value) = (name.to_owned(), value.to_owned());
    let why = format!(
        "the write-ahead log of this broker takes batches of up to {batch_max_bytes} bytes; \
         with a larger wal_budget_bytes it takes larger ones"
    );
    Err(match name == KEYS[0] {
        true => ConfigError::Value { name, value, why },
        false => ConfigError::BrokerValue { name, value, why },
    })
}

/// Topics that allow larger batches than the logs take, by name: set when the budget was larger or
/// the shards were fewer.
pub fn beyond(image: &Image, brokers: &BrokerView<'_>, batch_max_bytes: u64) -> Vec<String> {
    let allows = |configs| u64::from(TopicConfig::resolve(configs, brokers).max_message_bytes);
    let topics = image.topics().filter(|topic| allows(&topic.configs) > batch_max_bytes);
    topics.map(|topic| topic.name.to_string()).collect()
}
