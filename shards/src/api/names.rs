//! Legal topic names, and small conversions between our types and the codec's. Any shard.

use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use net::ErrorCode;

use super::errors::Refusal;
use crate::meta::NodeId;

/// Longest topic name, in bytes: file names of partitions must hold it.
const NAME_MAX_BYTES: usize = 249;

/// The name under which DescribeQuorum shows `__meta`; no topic may have it.
pub(super) const METADATA_LOG: &str = "__cluster_metadata";

/// Refuses a name that Kafka refuses, in its words.
pub(super) fn check_topic_name(name: &str) -> Result<(), Refusal> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let why = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.len() > NAME_MAX_BYTES {
        format!("the length of '{name}' is longer than the max allowed length {NAME_MAX_BYTES}")
    } else if !name.bytes().all(legal) {
        format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        )
    } else {
        return Ok(());
    };
    Err(Refusal::new(ErrorCode::InvalidTopicException, format!("Topic name is invalid: {why}")))
}

pub(super) fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

pub(super) fn topic_name(s: &str) -> TopicName {
    TopicName(text(s))
}

pub(super) fn broker_id(node: NodeId) -> BrokerId {
    BrokerId(node.0)
}

pub(super) fn broker_ids(nodes: impl IntoIterator<Item = NodeId>) -> Vec<BrokerId> {
    nodes.into_iter().map(broker_id).collect()
}
