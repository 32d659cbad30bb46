//! Metadata (key 3), versions 0 to 13. KIP-4, KIP-430 (authorised operations), KIP-516 (topic ids).
//!
//! Departures: topics are created before the answer, not behind it; partitions stand in order; a
//! topic entry without name and id is INVALID_REQUEST (Kafka answers -1 and loses the brokers).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use net::{ConnectionContext, ErrorCode};
use uuid::Uuid;

use super::admin::Admin;
use super::create_topics;
use super::names::{broker_id, broker_ids, check_topic_name, text, topic_name, METADATA_LOG};
use crate::config::BrokerConfig;
use crate::meta::{Image, NodeId, Partition, Topic, TopicId, META_GROUP};

/// What everybody may do while there is no authorizer; Kafka's bit sets of ACL operations.
pub(super) const CLUSTER_OPERATIONS: i32 = 8096;
pub(super) const TOPIC_OPERATIONS: i32 = 3576;
/// "Not asked for".
pub(super) const NO_OPERATIONS: i32 = i32::MIN;

pub async fn handle<A: Admin>(
    admin: &A,
    context: &ConnectionContext,
    version: i16,
    request: MetadataRequest,
) -> MetadataResponse {
    if names_by_id_too_early(version, &request) {
        return refused_whole(&request);
    }
    let refused = create_missing(admin, version, &request).await;
    let image = admin.image();
    let builder = Builder { admin, image: &image, version, request: &request };
    let topics = match &request.topics {
        Some(asked) if !(version == 0 && asked.is_empty()) => {
            let mut seen = BTreeSet::new();
            let first = asked.iter().filter(|topic| seen.insert(builder.key(topic)));
            first.map(|topic| builder.asked(topic, &refused)).collect()
        }
        _ => image.topics().map(|topic| builder.topic(topic)).collect(),
    };
    let asked_operations = request.include_cluster_authorized_operations;
    MetadataResponse::default()
        .with_brokers(brokers(admin, &image, context, version))
        .with_cluster_id((version >= 2).then(|| text(&image.cluster_id())))
        .with_controller_id(if version >= 1 { controller(admin) } else { BrokerId(-1) })
        .with_topics(topics)
        .with_cluster_authorized_operations(match version {
            8..=10 if asked_operations => CLUSTER_OPERATIONS,
            _ => NO_OPERATIONS,
        })
}

/// Ids and null names are part of the schema from version 10, and of the protocol from 12.
fn names_by_id_too_early(version: i16, request: &MetadataRequest) -> bool {
    let by_id = |topic: &MetadataRequestTopic| !topic.topic_id.is_nil() || topic.name.is_none();
    (10..12).contains(&version) && request.topics.iter().flatten().any(by_id)
}

/// As Kafka refuses a request as a whole: with each of its topics, and nothing else.
fn refused_whole(request: &MetadataRequest) -> MetadataResponse {
    let topics = request.topics.iter().flatten().map(|topic| {
        MetadataResponseTopic::default()
            .with_error_code(ErrorCode::InvalidRequest.code())
            .with_name(Some(topic.name.clone().unwrap_or_default()))
            .with_topic_id(topic.topic_id)
            .with_topic_authorized_operations(NO_OPERATIONS)
    });
    MetadataResponse::default()
        .with_controller_id(BrokerId(-1))
        .with_topics(topics.collect())
        .with_cluster_authorized_operations(NO_OPERATIONS)
}

/// A live broker that takes admin requests: the leader of `__meta`, or this one while there is none.
pub(super) fn controller<A: Admin>(admin: &A) -> BrokerId {
    let leader = admin.leadership(META_GROUP).leader.filter(|node| admin.is_alive(*node));
    broker_id(leader.unwrap_or(admin.settings().node()))
}

/// Names that could not be created, and why.
type Refused = BTreeMap<String, ErrorCode>;

/// Creates the topics that the client asked for by name, if it and the operator allow that.
async fn create_missing<A: Admin>(admin: &A, version: i16, request: &MetadataRequest) -> Refused {
    let image = admin.image();
    let allowed = version < 4 || request.allow_auto_topic_creation;
    if !allowed || !BrokerConfig::resolve(admin.settings(), &image).auto_create_topics {
        return Refused::new();
    }
    let mut missing: Vec<&str> = request
        .topics
        .iter()
        .flatten()
        .filter(|topic| topic.topic_id.is_nil())
        .filter_map(|topic| topic.name.as_ref().map(|name| name.as_str()))
        .filter(|name| image.topic(name).is_none() && check_topic_name(name).is_ok())
        .filter(|name| *name != METADATA_LOG)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Refused::new();
    }
    let results = create_topics::ensure(admin, &missing).await;
    let failed = missing.into_iter().zip(results).filter_map(|(name, result)| match result {
        Ok(()) => None,
        Err((code, _)) => Some((name.to_owned(), code)),
    });
    failed.collect()
}

pub(super) fn reachable_brokers<'a, A: Admin>(
    admin: &'a A,
    image: &'a Image,
) -> impl Iterator<Item = &'a Arc<crate::meta::Broker>> {
    image.brokers().filter(|broker| admin.is_alive(broker.id))
}

fn brokers<A: Admin>(
    admin: &A,
    image: &Image,
    context: &ConnectionContext,
    version: i16,
) -> Vec<MetadataResponseBroker> {
    reachable_brokers(admin, image)
        .filter_map(|broker| {
            let host = admin.host(broker, context)?;
            let rack = broker.rack.as_deref().filter(|_| version >= 1);
            let answer = MetadataResponseBroker::default()
                .with_node_id(broker_id(broker.id))
                .with_host(StrBytes::from_string(host.name))
                .with_port(host.port.into())
                .with_rack(rack.map(text));
            Some(answer)
        })
        .collect()
}

struct Builder<'a, A> {
    admin: &'a A,
    image: &'a Image,
    version: i16,
    request: &'a MetadataRequest,
}

impl<A: Admin> Builder<'_, A> {
    /// What two entries have in common that ask for the same: one of them is answered.
    fn key(&self, asked: &MetadataRequestTopic) -> (Uuid, Option<TopicName>) {
        if !asked.topic_id.is_nil() {
            return (asked.topic_id, None);
        }
        let known = asked.name.as_ref().and_then(|name| self.image.topic(name));
        known.map_or((Uuid::nil(), asked.name.clone()), |topic| (topic.id.0, None))
    }

    /// One topic that the client named; the id wins over the name.
    fn asked(&self, asked: &MetadataRequestTopic, refused: &Refused) -> MetadataResponseTopic {
        if !asked.topic_id.is_nil() {
            return match self.image.topic_by_id(TopicId(asked.topic_id)) {
                Some(topic) => self.topic(topic),
                None => self.error(None, asked.topic_id, ErrorCode::UnknownTopicId),
            };
        }
        let Some(name) = asked.name.as_ref().map(|name| name.as_str()) else {
            return self.error(None, Uuid::nil(), ErrorCode::InvalidRequest);
        };
        if let Some(topic) = self.image.topic(name) {
            return self.topic(topic);
        }
        let code = match check_topic_name(name) {
            Err(refusal) => refusal.code,
            Ok(()) => refused.get(name).copied().unwrap_or(ErrorCode::UnknownTopicOrPartition),
        };
        self.error(Some(name), Uuid::nil(), code)
    }

    fn error(&self, name: Option<&str>, id: Uuid, code: ErrorCode) -> MetadataResponseTopic {
        let shown = match name {
            Some(name) => Some(topic_name(name)),
            // The name can be null from version 12 only.
            None if self.version < 12 => Some(topic_name("")),
            None => None,
        };
        let operations = match name {
            Some(_) => self.operations(),
            None => NO_OPERATIONS,
        };
        MetadataResponseTopic::default()
            .with_error_code(code.code())
            .with_name(shown)
            .with_topic_id(id)
            .with_topic_authorized_operations(operations)
    }

    fn operations(&self) -> i32 {
        match self.version {
            8.. if self.request.include_topic_authorized_operations => TOPIC_OPERATIONS,
            _ => NO_OPERATIONS,
        }
    }

    fn topic(&self, topic: &Arc<Topic>) -> MetadataResponseTopic {
        let partitions = (0..).zip(&topic.partitions);
        MetadataResponseTopic::default()
            .with_name(Some(topic_name(&topic.name)))
            .with_topic_id(topic.id.0)
            .with_is_internal(topic.is_internal())
            .with_partitions(partitions.map(|(number, p)| self.partition(number, p)).collect())
            .with_topic_authorized_operations(self.operations())
    }

    fn partition(&self, number: i32, partition: &Partition) -> MetadataResponsePartition {
        let status = PartitionStatus::of(self.admin, partition);
        let mut answer = MetadataResponsePartition::default()
            .with_error_code(status.code.code())
            .with_partition_index(number)
            .with_leader_id(status.leader)
            .with_replica_nodes(broker_ids(partition.replicas.iter().map(|r| r.node)))
            .with_isr_nodes(broker_ids(status.in_sync));
        if self.version >= 5 {
            answer = answer.with_offline_replicas(broker_ids(status.offline));
        }
        if self.version >= 7 {
            answer = answer.with_leader_epoch(status.epoch);
        }
        answer
    }
}

/// What clients see of a partition's replicas at this moment.
pub(super) struct PartitionStatus {
    pub code: ErrorCode,
    /// -1 if there is none, or none that can be reached.
    pub leader: BrokerId,
    pub epoch: i32,
    pub in_sync: Vec<NodeId>,
    pub offline: Vec<NodeId>,
}

impl PartitionStatus {
    pub fn of<A: Admin>(admin: &A, partition: &Partition) -> PartitionStatus {
        let leadership = admin.leadership(partition.group);
        let nodes = || partition.replicas.iter().map(|replica| replica.node);
        let leader = leadership.leader.filter(|node| admin.is_alive(*node));
        let code = match leader {
            Some(_) => ErrorCode::None,
            None => ErrorCode::LeaderNotAvailable,
        };
        PartitionStatus {
            code,
            leader: leader.map_or(BrokerId(-1), broker_id),
            epoch: leadership.epoch,
            in_sync: leadership.in_sync,
            offline: nodes().filter(|node| !admin.is_alive(*node)).collect(),
        }
    }
}
