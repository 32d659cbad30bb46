//! The immutable picture of the metadata that every shard works from.
//!
//! An [`Image`] is made on shard 0 after each change and shared as `Arc<Image>` with all shards; it
//! never changes afterwards, so a request that took one sees one consistent state to its end.
//! Publication is copy on write: each group of maps is an `Arc`, cloned only when that group changes
//! while an older image is still held, and the values in the maps are `Arc`s themselves. So a change
//! copies pointers (one map of topics), never a topic; a topic's partitions lie in its own value, and
//! groups are found through ranges, so the copy is linear in topics and not in partitions.
//! Maps are ordered: what is listed to a client or encoded is the same on every node.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use uuid::Uuid;

use super::command::{ConfigResource, Endpoint};
use super::ids::{base64url, GroupId, NodeId, ReplicaId, TopicId};

/// The Raft group of `__meta` itself. It is in no image.
pub const META_GROUP: GroupId = GroupId(0);

/// The newest feature level this build works at. Shown to clients as `metadata.version`:
/// 27 is Kafka 4.1.
pub const FEATURE_LEVEL: i16 = 27;

/// Names and values that were set on one resource; defaults are not in here.
pub type Configs = BTreeMap<String, String>;

/// One state of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub(super) version: u64,
    pub(super) cluster_id: Uuid,
    pub(super) feature_level: i16,
    pub(super) brokers: Arc<BTreeMap<NodeId, Arc<Broker>>>,
    pub(super) topics: Arc<Topics>,
    pub(super) configs: Arc<BTreeMap<ConfigResource, Arc<Configs>>>,
    /// Version of the image that last changed a broker's or all brokers' configuration.
    pub(super) broker_configs_version: u64,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: NodeId,
    pub uuid: Uuid,
    pub endpoints: Vec<Endpoint>,
    pub rack: Option<String>,
    pub registered_ms: i64,
}

/// A topic with all its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub id: TopicId,
    pub name: Arc<str>,
    pub created_ms: i64,
    /// By partition number; never empty.
    pub partitions: Vec<Partition>,
    /// What was set on the topic; never a topic of another resource's values.
    pub configs: Arc<Configs>,
    /// Version of the image that last changed `configs`.
    pub configs_version: u64,
}

/// One partition: its Raft group and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub group: GroupId,
    /// Preferred leader first; never empty.
    pub replicas: Vec<Replica>,
}

/// One placement of a partition on a node. The id is the Raft peer id and is given once: a replica
/// that leaves a node and returns is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    pub id: ReplicaId,
    pub node: NodeId,
}

/// The topics under their three keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Topics {
    pub by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    pub by_id: BTreeMap<TopicId, Arc<Topic>>,
    /// Partitions that were created together have consecutive groups: one range each, by its first.
    pub groups: BTreeMap<GroupId, GroupRange>,
    /// Names that hold a `.` or `_`, with every `.` as `_`: such names stand in metrics, so no two
    /// topics may share one.
    pub metric_names: BTreeMap<String, TopicId>,
}

/// Groups `first .. first + count` are partitions `first_partition ..` of `topic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupRange {
    pub topic: TopicId,
    pub first_partition: u32,
    pub count: u32,
}

/// A partition found by its group.
#[derive(Clone, Copy, Debug)]
pub struct AddressedPartition<'a> {
    pub topic: &'a Arc<Topic>,
    pub number: i32,
    pub partition: &'a Partition,
}

impl Image {
    /// The image of a cluster that is not founded yet.
    pub fn empty() -> Image {
        Image {
            version: 0,
            cluster_id: Uuid::nil(),
            feature_level: 0,
            brokers: Arc::default(),
            topics: Arc::default(),
            configs: Arc::default(),
            broker_configs_version: 0,
        }
    }

    /// Grows by one with every command that changed the image.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn is_founded(&self) -> bool {
        !self.cluster_id.is_nil()
    }

    /// The cluster id as clients see it: 22 characters of base64url.
    pub fn cluster_id(&self) -> String {
        base64url(self.cluster_id)
    }

    pub fn feature_level(&self) -> i16 {
        self.feature_level
    }

    /// Registered brokers by id.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }

    pub fn broker(&self, node: NodeId) -> Option<&Arc<Broker>> {
        self.brokers.get(&node)
    }

    /// All topics by name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.topics.by_name.values()
    }

    /// The topics whose name is `first` or comes after it, by name.
    pub fn topics_from<'a>(
        &'a self,
        first: &str,
    ) -> impl Iterator<Item = &'a Arc<Topic>> + use<'a> {
        let bounds = (Bound::Included(first), Bound::Unbounded);
        self.topics.by_name.range::<str, _>(bounds).map(|(_, topic)| topic)
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.by_name.get(name)
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.by_id.get(&id)
    }

    /// The topic whose name differs from `name` in `.` and `_` only, if there is one.
    pub fn colliding_topic(&self, name: &str) -> Option<&Arc<Topic>> {
        let id = self.topics.metric_names.get(&metric_name(name)?)?;
        self.topic_by_id(*id).filter(|topic| &*topic.name != name)
    }

    /// The partition of a group; none once its topic is deleted.
    pub fn partition_by_group(&self, group: GroupId) -> Option<AddressedPartition<'_>> {
        let (first, range) = self.topics.groups.range(..=group).next_back()?;
        let within = u32::try_from(group.0 - first.0).ok().filter(|n| *n < range.count)?;
        let topic = self.topics.by_id.get(&range.topic)?;
        let number = range.first_partition + within;
        let partition = topic.partitions.get(number as usize)?;
        Some(AddressedPartition { topic, number: i32::try_from(number).ok()?, partition })
    }

    /// What was set on a resource; `None` if nothing (or no such topic).
    pub fn configs(&self, resource: &ConfigResource) -> Option<&Arc<Configs>> {
        match resource {
            ConfigResource::Topic(id) => self.topic_by_id(*id).map(|topic| &topic.configs),
            other => self.configs.get(other),
        }
    }

    /// Brokers, groups and client metrics that have configurations, in order of kind and name.
    pub fn configured(&self) -> impl Iterator<Item = (&ConfigResource, &Arc<Configs>)> {
        self.configs.iter()
    }

    /// Version of the image that last changed the configuration of a broker or of all of them.
    /// With [`Topic::configs_version`] it tells a partition whether to resolve its configuration anew.
    pub fn broker_configs_version(&self) -> u64 {
        self.broker_configs_version
    }
}

impl Topics {
    /// Enters a new topic, or a changed one in the place of the old.
    pub fn insert(&mut self, topic: Arc<Topic>) {
        self.forget_groups(&topic);
        self.add_groups(&topic);
        if let Some(name) = metric_name(&topic.name) {
            self.metric_names.insert(name, topic.id);
        }
        self.by_name.insert(Arc::clone(&topic.name), Arc::clone(&topic));
        self.by_id.insert(topic.id, topic);
    }

    pub fn remove(&mut self, topic: &Topic) {
        self.forget_groups(topic);
        if let Some(name) = metric_name(&topic.name) {
            self.metric_names.remove(&name);
        }
        self.by_name.remove(&topic.name);
        self.by_id.remove(&topic.id);
    }

    /// A new range starts wherever a group does not follow the one before, so equal topics give
    /// equal ranges whatever their history.
    fn add_groups(&mut self, topic: &Topic) {
        let mut open: Option<(GroupId, GroupRange)> = None;
        for (number, partition) in (0..).zip(&topic.partitions) {
            match &mut open {
                Some((first, range)) if first.0 + u64::from(range.count) == partition.group.0 => {
                    range.count += 1;
                }
                _ => {
                    let range = GroupRange { topic: topic.id, first_partition: number, count: 1 };
                    self.groups.extend(open.replace((partition.group, range)));
                }
            }
        }
        self.groups.extend(open);
    }

    /// Groups are never shared, so a range that starts at one of this topic's is its own.
    fn forget_groups(&mut self, topic: &Topic) {
        for partition in &topic.partitions {
            self.groups.remove(&partition.group);
        }
    }
}

/// The name as metrics show it, if another name could look the same there.
fn metric_name(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

impl Topic {
    /// The partition of a number from the wire, which may be negative.
    pub fn partition(&self, number: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(number).ok()?)
    }

    /// The number of replicas that partitions of this topic were created with.
    pub fn replication_factor(&self) -> i16 {
        let replicas = self.partitions.first().map_or(0, |p| p.replicas.len());
        i16::try_from(replicas).unwrap_or(i16::MAX)
    }

    /// Topics that the broker itself writes; clients may read them but not produce to them.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }
}

/// Whether topics of this name belong to the broker.
fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

impl Partition {
    pub fn replica_on(&self, node: NodeId) -> Option<Replica> {
        self.replicas.iter().copied().find(|r| r.node == node)
    }

    pub fn is_on(&self, node: NodeId) -> bool {
        self.replica_on(node).is_some()
    }
}
