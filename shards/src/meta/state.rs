//! The state machine of `__meta`. Lives on shard 0, driven by committed entries in order.
//!
//! [`State::apply`] is the only way to change it: pure, deterministic, all or nothing per item. It
//! checks what must hold whoever proposed a command (uniqueness, existence, consistency); what a
//! client may ask for, and in which words it is refused, is the handlers' business.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::command::{
    AlteredResource, Assignment, Command, ConfigResource, Endpoint, MorePartitions, NewTopic,
    Outcome,
};
use super::error::MetaError;
use super::ids::{GroupId, NodeId, ReplicaId, TopicId};
use super::image::{Broker, Configs, Image, Partition, Replica, Topic, FEATURE_LEVEL};

/// How many producer ids a node reserves at a time.
pub const PRODUCER_ID_BLOCK: i32 = 1000;

/// Groups below are not partitions: 0 is `__meta`.
const FIRST_GROUP: GroupId = GroupId(1);

/// Replica ids below belong to `__meta`'s own replicas, which are named at founding and not here.
const FIRST_REPLICA: ReplicaId = ReplicaId(1 << 16);

/// Everything that `__meta` decides, and the image of it that is published.
///
/// `apply` is an event and changes the state; all else are getters. Invariants:
/// every group in the image < `next_group`; every replica in it < `next_replica`; neither ever falls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(super) image: Arc<Image>,
    pub(super) next_group: GroupId,
    pub(super) next_replica: ReplicaId,
    pub(super) next_producer_id: i64,
}

impl Default for State {
    fn default() -> State {
        State::new()
    }
}

impl State {
    /// The state before the first command.
    pub fn new() -> State {
        State {
            image: Arc::new(Image::empty()),
            next_group: FIRST_GROUP,
            next_replica: FIRST_REPLICA,
            next_producer_id: 0,
        }
    }

    /// The image to publish. It has another version than the last one exactly if it differs.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image)
    }

    /// Applies a committed command with the time that its proposer wrote into the entry.
    pub fn apply(&mut self, command: Command, now_ms: i64) -> Result<Outcome, MetaError> {
        match command {
            Command::Found { cluster_id, feature_level } => self.found(cluster_id, feature_level),
            Command::RegisterBroker { node, node_uuid, endpoints, rack } => {
                self.register(node, node_uuid, endpoints, rack, now_ms)
            }
            Command::UnregisterBroker { node } => self.unregister(node),
            Command::CreateTopics { topics } => {
                Ok(each(topics, |topic| self.create_topic(topic, now_ms)))
            }
            Command::DeleteTopics { topics } => Ok(each(topics, |id| self.delete_topic(id))),
            Command::CreatePartitions { topics } => {
                Ok(each(topics, |more| self.add_partitions(more)))
            }
            Command::AlterConfigs { resources } => Ok(each(resources, |r| self.alter_configs(r))),
            Command::AllocateProducerIds { node } => self.allocate_producer_ids(node),
            Command::SetFeatureLevel { level } => self.set_feature_level(level),
        }
    }

    /// The image for writing, one version on. Called only by changes that will take place.
    fn change(&mut self) -> &mut Image {
        let image = Arc::make_mut(&mut self.image);
        image.version += 1;
        image
    }

    fn found(&mut self, cluster_id: Uuid, feature_level: i16) -> Result<Outcome, MetaError> {
        if self.image.cluster_id == cluster_id {
            return Ok(Outcome::Done);
        }
        if self.image.is_founded() || cluster_id.is_nil() {
            return Err(MetaError::AlreadyFounded);
        }
        self.check_feature_level(feature_level)?;
        let image = self.change();
        image.cluster_id = cluster_id;
        image.feature_level = feature_level;
        Ok(Outcome::Done)
    }

    fn check_feature_level(&self, asked: i16) -> Result<(), MetaError> {
        let current = self.image.feature_level;
        if asked < current || asked > FEATURE_LEVEL {
            return Err(MetaError::FeatureLevel { asked, current, known: FEATURE_LEVEL });
        }
        Ok(())
    }

    fn set_feature_level(&mut self, level: i16) -> Result<Outcome, MetaError> {
        self.check_feature_level(level)?;
        if level != self.image.feature_level {
            self.change().feature_level = level;
        }
        Ok(Outcome::Done)
    }

    fn register(
        &mut self,
        node: NodeId,
        uuid: Uuid,
        endpoints: Vec<Endpoint>,
        rack: Option<String>,
        now_ms: i64,
    ) -> Result<Outcome, MetaError> {
        if let Some(known) = self.image.broker(node) {
            if known.uuid != uuid {
                return Err(MetaError::BrokerIdTaken { node });
            }
            if known.endpoints == endpoints && known.rack == rack {
                return Ok(Outcome::Done);
            }
        }
        let broker = Broker { id: node, uuid, endpoints, rack, registered_ms: now_ms };
        Arc::make_mut(&mut self.change().brokers).insert(node, Arc::new(broker));
        Ok(Outcome::Done)
    }

    fn unregister(&mut self, node: NodeId) -> Result<Outcome, MetaError> {
        if self.image.broker(node).is_none() {
            return Err(MetaError::UnknownBroker(node));
        }
        if self.image.topics().any(|topic| topic.partitions.iter().any(|p| p.is_on(node))) {
            return Err(MetaError::BrokerInUse(node));
        }
        Arc::make_mut(&mut self.change().brokers).remove(&node);
        Ok(Outcome::Done)
    }

    fn create_topic(&mut self, new: NewTopic, now_ms: i64) -> Result<(), MetaError> {
        self.check_new_name(&new.name)?;
        if self.image.topic_by_id(new.id).is_some() {
            return Err(MetaError::TopicIdInUse(new.id));
        }
        if new.partitions.is_empty() {
            return Err(MetaError::BadAssignment { name: new.name });
        }
        self.check_assignments(&new.name, &new.partitions)?;

        let partitions = self.place(&new.partitions);
        let image = self.change();
        let topic = Arc::new(Topic {
            id: new.id,
            name: new.name.into(),
            created_ms: now_ms,
            partitions,
            configs: Arc::new(new.configs.into_iter().collect()),
            configs_version: image.version,
        });
        Arc::make_mut(&mut image.topics).insert(topic);
        Ok(())
    }

    fn check_new_name(&self, name: &str) -> Result<(), MetaError> {
        if self.image.topic(name).is_some() {
            return Err(MetaError::TopicExists { name: name.to_owned() });
        }
        if let Some(existing) = self.image.colliding_topic(name) {
            return Err(MetaError::TopicCollides {
                name: name.to_owned(),
                existing: existing.name.to_string(),
            });
        }
        Ok(())
    }

    fn check_assignments(&self, name: &str, assignments: &[Assignment]) -> Result<(), MetaError> {
        for nodes in assignments {
            let distinct: BTreeSet<NodeId> = nodes.iter().copied().collect();
            if nodes.is_empty() || distinct.len() != nodes.len() {
                return Err(MetaError::BadAssignment { name: name.to_owned() });
            }
            if let Some(stranger) = nodes.iter().find(|n| self.image.broker(**n).is_none()) {
                return Err(MetaError::UnknownBroker(*stranger));
            }
        }
        Ok(())
    }

    /// Gives each new partition the next group and each of its replicas the next replica id. Neither
    /// is ever given again, also not after a deletion: old log records carry them.
    fn place(&mut self, assignments: &[Assignment]) -> Vec<Partition> {
        let place_one = |nodes: &Assignment| {
            let group = self.next_group;
            self.next_group.0 += 1;
            let replicas = nodes.iter().map(|node| {
                let id = self.next_replica;
                self.next_replica.0 += 1;
                Replica { id, node: *node }
            });
            Partition { group, replicas: replicas.collect() }
        };
        assignments.iter().map(place_one).collect()
    }

    fn delete_topic(&mut self, id: TopicId) -> Result<(), MetaError> {
        let topic = self.image.topic_by_id(id).ok_or(MetaError::UnknownTopic(id))?.clone();
        Arc::make_mut(&mut self.change().topics).remove(&topic);
        Ok(())
    }

    fn add_partitions(&mut self, more: MorePartitions) -> Result<(), MetaError> {
        let topic =
            self.image.topic_by_id(more.topic).ok_or(MetaError::UnknownTopic(more.topic))?.clone();
        let found = topic.partitions.len() as u32;
        if found != more.expected {
            return Err(MetaError::PartitionCountChanged { expected: more.expected, found });
        }
        self.check_assignments(&topic.name, &more.added)?;
        if more.added.is_empty() {
            return Ok(());
        }
        let added = self.place(&more.added);
        let mut topic = Topic::clone(&topic);
        topic.partitions.extend(added);
        Arc::make_mut(&mut self.change().topics).insert(Arc::new(topic));
        Ok(())
    }

    fn alter_configs(&mut self, altered: AlteredResource) -> Result<(), MetaError> {
        let old = match (&altered.resource, self.image.configs(&altered.resource)) {
            (ConfigResource::Topic(id), None) => return Err(MetaError::UnknownTopic(*id)),
            (_, configs) => configs.cloned().unwrap_or_default(),
        };
        let mut new = if altered.replace { Configs::new() } else { Configs::clone(&old) };
        for change in altered.changes {
            match change.value {
                Some(value) => new.insert(change.name, value),
                None => new.remove(&change.name),
            };
        }
        if new != *old {
            self.put_configs(altered.resource, new);
        }
        Ok(())
    }

    fn put_configs(&mut self, resource: ConfigResource, new: Configs) {
        let image = self.change();
        let version = image.version;
        if let ConfigResource::Topic(id) = resource {
            if let Some(topic) = image.topics.by_id.get(&id) {
                let mut topic = Topic::clone(topic);
                topic.configs = Arc::new(new);
                topic.configs_version = version;
                Arc::make_mut(&mut image.topics).insert(Arc::new(topic));
            }
            return;
        }
        if matches!(resource, ConfigResource::Broker(_) | ConfigResource::AllBrokers) {
            image.broker_configs_version = version;
        }
        let configs = Arc::make_mut(&mut image.configs);
        if new.is_empty() {
            configs.remove(&resource);
        } else {
            configs.insert(resource, Arc::new(new));
        }
    }

    fn allocate_producer_ids(&mut self, node: NodeId) -> Result<Outcome, MetaError> {
        if self.image.broker(node).is_none() {
            return Err(MetaError::UnknownBroker(node));
        }
        let first = self.next_producer_id;
        let next =
            first.checked_add(PRODUCER_ID_BLOCK.into()).ok_or(MetaError::ProducerIdsExhausted)?;
        self.next_producer_id = next;
        Ok(Outcome::ProducerIds { first, count: PRODUCER_ID_BLOCK })
    }
}

fn each<T>(items: Vec<T>, apply: impl FnMut(T) -> Result<(), MetaError>) -> Outcome {
    Outcome::Each(items.into_iter().map(apply).collect())
}
