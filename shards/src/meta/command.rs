//! What can be asked of `__meta`, and its encoding in Raft entries. Plain values, any shard.
//!
//! Encoding of an entry (little-endian; `str` is a u32 length and UTF-8, `list` a u32 count and items,
//! `option` a byte 0 or 1 and the value):
//! ```text
//! version u8 (COMMAND_VERSION) | kind u8 | now_ms i64 | body by kind
//! 1 Found             cluster_id [16], feature_level i16
//! 2 RegisterBroker    node i32, node_uuid [16], list<endpoint{name str, host str, port u16}>, rack option<str>
//! 3 UnregisterBroker  node i32
//! 4 CreateTopics      list<topic{id [16], name str, list<partition: list<node i32>>, list<config{str, str}>}>
//! 5 DeleteTopics      list<id [16]>
//! 6 CreatePartitions  list<{topic [16], expected u32, list<partition: list<node i32>>}>
//! 7 AlterConfigs      list<{resource, replace u8, list<{name str, value option<str>}>}>
//!                     resource: 1 topic [16] | 2 broker i32 | 3 all brokers | 4 group str | 5 client metrics str
//! 8 AllocateProducerIds  node i32
//! 9 SetFeatureLevel   level i16
//! ```
//! The bytes carry no checksum of their own: the WAL record around them does. An entry of a newer
//! version is refused by name, never guessed at: the node must be upgraded.

use bytes::Bytes;
use uuid::Uuid;

use super::codec::{DecodeError, Reader, Writer};
use super::error::MetaError;
use super::ids::{NodeId, TopicId};

/// The version this build writes and the newest it reads.
pub const COMMAND_VERSION: u8 = 1;

/// The nodes that hold one partition, preferred leader first.
pub type Assignment = Vec<NodeId>;

/// One change of the metadata. Every id and time in it was chosen by its proposer, so that applying
/// it is deterministic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The first command of a cluster. Repeating it with the same id changes nothing.
    Found { cluster_id: Uuid, feature_level: i16 },
    /// A broker's presence and addresses; sent at each start of a node.
    RegisterBroker { node: NodeId, node_uuid: Uuid, endpoints: Vec<Endpoint>, rack: Option<String> },
    /// Forgets a broker that holds no replicas.
    UnregisterBroker { node: NodeId },
    /// Creates topics, each by itself: one refusal does not touch the others.
    CreateTopics { topics: Vec<NewTopic> },
    /// Deletes topics by id, each by itself.
    DeleteTopics { topics: Vec<TopicId> },
    /// Adds partitions to topics, each by itself.
    CreatePartitions { topics: Vec<MorePartitions> },
    /// Changes configurations, each resource by itself.
    AlterConfigs { resources: Vec<AlteredResource> },
    /// Reserves a block of [`super::PRODUCER_ID_BLOCK`] producer ids for a node.
    AllocateProducerIds { node: NodeId },
    /// Raises the feature level.
    SetFeatureLevel { level: i16 },
}

/// Where a broker can be reached under one listener name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub name: String,
    pub host: String,
    pub port: u16,
}

/// A topic to be created, assignment and all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    pub id: TopicId,
    pub name: String,
    pub partitions: Vec<Assignment>,
    pub configs: Vec<(String, String)>,
}

/// Partitions to be added to a topic that has `expected` of them now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MorePartitions {
    pub topic: TopicId,
    pub expected: u32,
    pub added: Vec<Assignment>,
}

/// What a configuration belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    Topic(TopicId),
    Broker(NodeId),
    AllBrokers,
    Group(String),
    ClientMetrics(String),
}

/// New value of one key; `None` removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    pub name: String,
    pub value: Option<String>,
}

/// Changes of one resource. With `replace` every key that is not named is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlteredResource {
    pub resource: ConfigResource,
    pub replace: bool,
    pub changes: Vec<ConfigChange>,
}

/// What a command did. Lists stand in the order of the command's items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// CreateTopics, DeleteTopics, CreatePartitions, AlterConfigs.
    Each(Vec<Result<(), MetaError>>),
    /// AllocateProducerIds: the block is `first .. first + count`.
    ProducerIds {
        first: i64,
        count: i32,
    },
}

impl Command {
    /// Encodes the command as a Raft entry's payload. `now_ms` is the proposer's wall clock and the
    /// time that every replica applies the command with.
    pub fn encode(&self, now_ms: i64) -> Bytes {
        let mut w = Writer::default();
        w.u8(COMMAND_VERSION);
        w.u8(self.kind());
        w.i64(now_ms);
        self.encode_body(&mut w);
        w.finish()
    }

    /// Decodes an entry's payload into its time and command. Trailing bytes are an error.
    pub fn decode(bytes: &[u8]) -> Result<(i64, Command), DecodeError> {
        let mut r = Reader::new(bytes);
        let version = r.u8()?;
        if version != COMMAND_VERSION {
            return Err(DecodeError::Version {
                what: "metadata command",
                found: version.into(),
                known: COMMAND_VERSION.into(),
            });
        }
        let kind = r.u8()?;
        let now_ms = r.i64()?;
        let command = Command::decode_body(kind, &mut r)?;
        r.end()?;
        Ok((now_ms, command))
    }

    fn kind(&self) -> u8 {
        match self {
            Command::Found { .. } => 1,
            Command::RegisterBroker { .. } => 2,
            Command::UnregisterBroker { .. } => 3,
            Command::CreateTopics { .. } => 4,
            Command::DeleteTopics { .. } => 5,
            Command::CreatePartitions { .. } => 6,
            Command::AlterConfigs { .. } => 7,
            Command::AllocateProducerIds { .. } => 8,
            Command::SetFeatureLevel { .. } => 9,
        }
    }

    fn encode_body(&self, w: &mut Writer) {
        match self {
            Command::Found { cluster_id, feature_level } => {
                w.uuid(*cluster_id);
                w.i16(*feature_level);
            }
            Command::RegisterBroker { node, node_uuid, endpoints, rack } => {
                w.i32(node.0);
                w.uuid(*node_uuid);
                w.list(endpoints, write_endpoint);
                w.option(rack.as_deref(), Writer::str);
            }
            Command::UnregisterBroker { node } => w.i32(node.0),
            Command::CreateTopics { topics } => w.list(topics, |w, t| {
                w.uuid(t.id.0);
                w.str(&t.name);
                w.list(&t.partitions, write_assignment);
                w.list(&t.configs, |w, (name, value)| {
                    w.str(name);
                    w.str(value);
                });
            }),
            Command::DeleteTopics { topics } => w.list(topics, |w, id| w.uuid(id.0)),
            Command::CreatePartitions { topics } => w.list(topics, |w, t| {
                w.uuid(t.topic.0);
                w.u32(t.expected);
                w.list(&t.added, write_assignment);
            }),
            Command::AlterConfigs { resources } => w.list(resources, |w, r| {
                write_resource(w, &r.resource);
                w.bool(r.replace);
                w.list(&r.changes, |w, c| {
                    w.str(&c.name);
                    w.option(c.value.as_deref(), Writer::str);
                });
            }),
            Command::AllocateProducerIds { node } => w.i32(node.0),
            Command::SetFeatureLevel { level } => w.i16(*level),
        }
    }

    fn decode_body(kind: u8, r: &mut Reader<'_>) -> Result<Command, DecodeError> {
        Ok(match kind {
            1 => Command::Found { cluster_id: r.uuid()?, feature_level: r.i16()? },
            2 => Command::RegisterBroker {
                node: NodeId(r.i32()?),
                node_uuid: r.uuid()?,
                endpoints: r.list(read_endpoint)?,
                rack: r.option(Reader::string)?,
            },
            3 => Command::UnregisterBroker { node: NodeId(r.i32()?) },
            4 => Command::CreateTopics {
                topics: r.list(|r| {
                    Ok(NewTopic {
                        id: TopicId(r.uuid()?),
                        name: r.string()?,
                        partitions: r.list(read_assignment)?,
                        configs: r.list(|r| Ok((r.string()?, r.string()?)))?,
                    })
                })?,
            },
            5 => Command::DeleteTopics { topics: r.list(|r| Ok(TopicId(r.uuid()?)))? },
            6 => Command::CreatePartitions {
                topics: r.list(|r| {
                    Ok(MorePartitions {
                        topic: TopicId(r.uuid()?),
                        expected: r.u32()?,
                        added: r.list(read_assignment)?,
                    })
                })?,
            },
            7 => Command::AlterConfigs {
                resources: r.list(|r| {
                    Ok(AlteredResource {
                        resource: read_resource(r)?,
                        replace: r.bool()?,
                        changes: r.list(|r| {
                            Ok(ConfigChange { name: r.string()?, value: r.option(Reader::string)? })
                        })?,
                    })
                })?,
            },
            8 => Command::AllocateProducerIds { node: NodeId(r.i32()?) },
            9 => Command::SetFeatureLevel { level: r.i16()? },
            other => return Err(DecodeError::Kind { what: "metadata command", found: other }),
        })
    }
}

pub(super) fn write_endpoint(w: &mut Writer, e: &Endpoint) {
    w.str(&e.name);
    w.str(&e.host);
    w.u16(e.port);
}

pub(super) fn read_endpoint(r: &mut Reader<'_>) -> Result<Endpoint, DecodeError> {
    Ok(Endpoint { name: r.string()?, host: r.string()?, port: r.u16()? })
}

fn write_assignment(w: &mut Writer, nodes: &Assignment) {
    w.list(nodes, |w, node| w.i32(node.0));
}

fn read_assignment(r: &mut Reader<'_>) -> Result<Assignment, DecodeError> {
    r.list(|r| Ok(NodeId(r.i32()?)))
}

pub(super) fn write_resource(w: &mut Writer, resource: &ConfigResource) {
    match resource {
        ConfigResource::Topic(id) => {
            w.u8(1);
            w.uuid(id.0);
        }
        ConfigResource::Broker(node) => {
            w.u8(2);
            w.i32(node.0);
        }
        ConfigResource::AllBrokers => w.u8(3),
        ConfigResource::Group(name) => {
            w.u8(4);
            w.str(name);
        }
        ConfigResource::ClientMetrics(name) => {
            w.u8(5);
            w.str(name);
        }
    }
}

pub(super) fn read_resource(r: &mut Reader<'_>) -> Result<ConfigResource, DecodeError> {
    Ok(match r.u8()? {
        1 => ConfigResource::Topic(TopicId(r.uuid()?)),
        2 => ConfigResource::Broker(NodeId(r.i32()?)),
        3 => ConfigResource::AllBrokers,
        4 => ConfigResource::Group(r.string()?),
        5 => ConfigResource::ClientMetrics(r.string()?),
        other => return Err(DecodeError::Kind { what: "configuration resource", found: other }),
    })
}
