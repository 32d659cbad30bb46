//! Why `__meta` refuses a command. Handlers map these to Kafka's codes; any shard.

use super::ids::{GroupId, NodeId, TopicId};

/// The refusal of a command, or of one item of a command. The state is unchanged by what is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// A topic of this name exists (perhaps created by a command that was committed a moment before).
    #[error("Topic '{name}' already exists.")]
    TopicExists { name: String },
    /// The name differs from an existing one only in `.` and `_`, which metric names cannot tell apart.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    TopicCollides { name: String, existing: String },
    /// The topic id is in use; 122 random bits make this a bug or a replayed request.
    #[error("the topic id {0} is in use")]
    TopicIdInUse(TopicId),
    /// A topic without partitions, a partition without replicas, or a node twice among them.
    #[error("the assignment of topic '{name}' is empty or names a broker twice")]
    BadAssignment { name: String },
    /// The assignment names a broker that is not registered (any more).
    #[error("broker {0} is not registered")]
    UnknownBroker(NodeId),
    /// No topic has this id (any more).
    #[error("no topic has the id {0}")]
    UnknownTopic(TopicId),
    /// Partitions were added by somebody else since the request was checked.
    #[error("the topic has {found} partition(s) and not {expected} any more")]
    PartitionCountChanged { expected: u32, found: u32 },
    /// The broker id belongs to a live node with another UUID: a second node was started with one id,
    /// or the data folder was wiped.
    #[error("broker id {node} is registered by another node")]
    BrokerIdTaken { node: NodeId },
    /// The broker still holds replicas and cannot be forgotten.
    #[error("broker {0} still holds replicas")]
    BrokerInUse(NodeId),
    /// The cluster has its id already, and it is another one.
    #[error("the cluster was founded before")]
    AlreadyFounded,
    /// The command needs a newer feature level than the cluster runs at, or would lower it.
    #[error("feature level {asked} is not possible, the cluster is at {current} and this broker knows up to {known}")]
    FeatureLevel { asked: i16, current: i16, known: i16 },
    /// All producer ids (2^63) are used up.
    #[error("producer ids are exhausted")]
    ProducerIdsExhausted,
    /// The partition's group is not known: used by lookups of other layers.
    #[error("no partition has the group {}", .0 .0)]
    UnknownGroup(GroupId),
}
