//! The cluster's metadata, `__meta`: a versioned, deterministic state machine (design.md section 6).
//!
//! Owns what every node must agree on: brokers, topics, partitions with their Raft group and replica
//! ids, configurations, producer id blocks, cluster id and feature level. Leaders and ISR are *not*
//! here: nodes tell each other those.
//! [`State`] is fed with committed [`Command`]s on shard 0 and hands out immutable [`Image`]s, which
//! are `Send` and are published to every shard.
//! Nothing here reads a clock, draws a random number or does I/O: time and ids arrive in commands.

mod codec;
mod command;
mod error;
mod ids;
mod image;
mod snapshot;
mod state;

pub use codec::DecodeError;
pub use command::{
    AlteredResource, Assignment, Command, ConfigChange, ConfigResource, Endpoint, MorePartitions,
    NewTopic, Outcome, COMMAND_VERSION,
};
pub use error::MetaError;
pub use ids::{GroupId, NodeId, ReplicaId, TopicId};
pub use image::{
    AddressedPartition, Broker, Configs, Image, Partition, Replica, Topic, FEATURE_LEVEL,
    META_GROUP,
};
pub use snapshot::SNAPSHOT_VERSION;
pub use state::{State, PRODUCER_ID_BLOCK};

#[cfg(test)]
mod tests;
