//! The state of `__meta` as bytes: what a checkpoint stores and a new voter receives. Shard 0.
//!
//! ```text
//! magic "CHRMETA\n" [8] | version u32 | body length u64 | body | crc32c u32 of all before it
//! body (encodings of command.rs):
//!   image version u64, cluster id [16], feature level i16
//!   next group u64, next replica u64, next producer id i64, broker configurations' version u64
//!   list<broker{node i32, uuid [16], list<endpoint>, rack option<str>, registered_ms i64}>       by node
//!   list<topic{id [16], name str, created_ms i64, configs version u64, list<config{str, str}>,
//!        list<partition{group u64, list<replica{id u64, node i32}>}>}>                           by name
//!   list<{resource, list<config{str, str}>}>                                                     by resource
//! ```
//! The frame around the body (magic, version, length, checksum) stays as it is in later versions, so
//! that an older release can say what it met. The checksum is verified before the version is judged.

use std::sync::Arc;

use bytes::Bytes;

use super::codec::{DecodeError, Reader, Writer};
use super::command::{read_endpoint, read_resource, write_endpoint, write_resource};
use super::ids::{GroupId, NodeId, ReplicaId, TopicId};
use super::image::{Broker, Configs, Image, Partition, Replica, Topic, Topics};
use super::state::State;

/// The version this build writes and the newest it reads.
pub const SNAPSHOT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"CHRMETA\n";

impl State {
    /// Encodes the whole state; equal states give equal bytes.
    pub fn snapshot(&self) -> Bytes {
        let mut body = Writer::default();
        self.encode_body(&mut body);
        let body = body.finish();
        let mut w = Writer::default();
        w.raw(MAGIC);
        w.u32(SNAPSHOT_VERSION);
        w.u64(body.len() as u64);
        w.raw(&body);
        w.u32(crc32c::crc32c(w.written()));
        w.finish()
    }

    /// Restores a state; refuses damage, other formats and newer versions, each by name.
    pub fn restore(bytes: &[u8]) -> Result<State, DecodeError> {
        let mut r = Reader::new(bytes);
        if r.take(MAGIC.len())? != MAGIC {
            return Err(DecodeError::Magic("metadata snapshot"));
        }
        let version = r.u32()?;
        let length = usize::try_from(r.u64()?).map_err(|_| DecodeError::Short)?;
        let body = r.take(length)?;
        let sealed = &bytes[..bytes.len() - r.left()];
        let found = r.u32()?;
        r.end()?;
        let computed = crc32c::crc32c(sealed);
        if found != computed {
            return Err(DecodeError::Checksum { found, computed });
        }
        if version != SNAPSHOT_VERSION {
            let known = SNAPSHOT_VERSION;
            return Err(DecodeError::Version { what: "metadata snapshot", found: version, known });
        }
        let mut r = Reader::new(body);
        let state = decode_body(&mut r)?;
        r.end()?;
        Ok(state)
    }

    fn encode_body(&self, w: &mut Writer) {
        let image = &self.image;
        w.u64(image.version);
        w.uuid(image.cluster_id);
        w.i16(image.feature_level);
        w.u64(self.next_group.0);
        w.u64(self.next_replica.0);
        w.i64(self.next_producer_id);
        w.u64(image.broker_configs_version);
        w.list(image.brokers(), |w, broker| {
            w.i32(broker.id.0);
            w.uuid(broker.uuid);
            w.list(&broker.endpoints, write_endpoint);
            w.option(broker.rack.as_deref(), Writer::str);
            w.i64(broker.registered_ms);
        });
        w.list(image.topics(), |w, topic| {
            w.uuid(topic.id.0);
            w.str(&topic.name);
            w.i64(topic.created_ms);
            w.u64(topic.configs_version);
            write_configs(w, &topic.configs);
            w.list(&topic.partitions, write_partition);
        });
        w.list(image.configs.iter(), |w, (resource, configs)| {
            write_resource(w, resource);
            write_configs(w, configs);
        });
    }
}

fn write_configs(w: &mut Writer, configs: &Configs) {
    w.list(configs, |w, (name, value)| {
        w.str(name);
        w.str(value);
    });
}

fn write_partition(w: &mut Writer, partition: &Partition) {
    w.u64(partition.group.0);
    w.list(&partition.replicas, |w, replica| {
        w.u64(replica.id.0);
        w.i32(replica.node.0);
    });
}

fn decode_body(r: &mut Reader<'_>) -> Result<State, DecodeError> {
    let mut image = Image::empty();
    image.version = r.u64()?;
    image.cluster_id = r.uuid()?;
    image.feature_level = r.i16()?;
    let next_group = GroupId(r.u64()?);
    let next_replica = ReplicaId(r.u64()?);
    let next_producer_id = r.i64()?;
    image.broker_configs_version = r.u64()?;

    let brokers = r.list(read_broker)?;
    image.brokers = Arc::new(brokers.into_iter().map(|b| (b.id, Arc::new(b))).collect());

    let mut topics = Topics::default();
    for topic in r.list(read_topic)? {
        check_topic(&topic, next_group, next_replica)?;
        if topics.by_id.contains_key(&topic.id) || topics.by_name.contains_key(&topic.name) {
            return Err(DecodeError::Contradiction("a topic stands twice in the snapshot"));
        }
        topics.insert(Arc::new(topic));
    }
    image.topics = Arc::new(topics);

    let configs = r.list(|r| Ok((read_resource(r)?, Arc::new(read_configs(r)?))))?;
    image.configs = Arc::new(configs.into_iter().collect());
    Ok(State { image: Arc::new(image), next_group, next_replica, next_producer_id })
}

fn read_broker(r: &mut Reader<'_>) -> Result<Broker, DecodeError> {
    Ok(Broker {
        id: NodeId(r.i32()?),
        uuid: r.uuid()?,
        endpoints: r.list(read_endpoint)?,
        rack: r.option(Reader::string)?,
        registered_ms: r.i64()?,
    })
}

fn read_topic(r: &mut Reader<'_>) -> Result<Topic, DecodeError> {
    Ok(Topic {
        id: TopicId(r.uuid()?),
        name: r.str()?.into(),
        created_ms: r.i64()?,
        configs_version: r.u64()?,
        configs: Arc::new(read_configs(r)?),
        partitions: r.list(|r| {
            Ok(Partition {
                group: GroupId(r.u64()?),
                replicas: r
                    .list(|r| Ok(Replica { id: ReplicaId(r.u64()?), node: NodeId(r.i32()?) }))?,
            })
        })?,
    })
}

fn read_configs(r: &mut Reader<'_>) -> Result<Configs, DecodeError> {
    Ok(r.list(|r| Ok((r.string()?, r.string()?)))?.into_iter().collect())
}

fn check_topic(
    topic: &Topic,
    next_group: GroupId,
    next_replica: ReplicaId,
) -> Result<(), DecodeError> {
    let fits = |p: &Partition| {
        p.group < next_group
            && !p.replicas.is_empty()
            && p.replicas.iter().all(|r| r.id < next_replica)
    };
    if topic.partitions.is_empty() || !topic.partitions.iter().all(fits) {
        return Err(DecodeError::Contradiction("a partition's ids were never given out"));
    }
    Ok(())
}
