//! The partitions of one shard: which ones it owns, and how they come and go.
//!
//! A partition is opened from what the write-ahead log recovered, or created if `__meta` placed
//! it here since. It is served once its group leads and has committed in its own term. A group
//! that `__meta`'s checkpoint knows but the log does not is damage: creating it again would
//! forget votes and records, so it stays offline and says so. The same holds for one that the
//! checkpoint does not know yet, if the log is found to have lost something.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use net::ErrorCode;
use raft::driver::Opened;
use raft::Groups;
use rt::{Mutation, Shard};
use wal::{Damage, GroupId, Index, Owner, RecoveredReplica, ReplicaId, Term};

use crate::api::groups::OFFSETS_TOPIC;
use crate::broker::{shard_of, Broker};
use crate::config::TopicConfig;
use crate::log::{PartitionIdentity, PartitionLog};
use crate::meta::{Image, NodeId, Topic};
use crate::partition::producers::ProducerStates;
use crate::partition::staging::{staged_entries, LogStaging};
use crate::partition::{Identity, Partition, PartitionRef};
use crate::storage::{segment_config, Storage};

/// Index and term that every replica of a new group starts at, so that a blank replica cannot be
/// taken for a founded one.
pub const FIRST_INDEX: Index = Index(5);
pub const FIRST_TERM: Term = Term(5);

const MISSING: &str = "its replica is missing from the write-ahead log";

#[derive(Clone)]
pub struct Placement {
    inner: Rc<Inner>,
}

struct Inner {
    shard: Shard,
    groups: Groups,
    storage: Storage,
    /// What the log recovered and no image has claimed yet; taken by the first image.
    recovered: RefCell<BTreeMap<Owner, RecoveredReplica>>,
    /// What the log has lost and no start has dealt with; the first image does.
    lost: Cell<Option<Damage>>,
    offline: RefCell<BTreeMap<GroupId, String>>,
}

/// What is left to do once the new image is served.
pub struct Change {
    /// Groups that this shard leads since, with their terms.
    led: Vec<(GroupId, Term)>,
    removed: Vec<PartitionRef>,
}

/// A partition that an image places on this shard.
struct Placed {
    topic: Arc<Topic>,
    number: i32,
    owner: Owner,
    voters: Vec<ReplicaId>,
}

impl Placement {
    pub fn new(
        shard: &Shard,
        groups: &Groups,
        storage: Storage,
        recovered: BTreeMap<Owner, RecoveredReplica>,
        lost: Option<Damage>,
    ) -> Placement {
        let inner = Inner {
            shard: shard.clone(),
            groups: groups.clone(),
            storage,
            recovered: RefCell::new(recovered),
            lost: Cell::new(lost),
            offline: RefCell::new(BTreeMap::new()),
        };
        Placement { inner: Rc::new(inner) }
    }

    pub fn partition(&self, group: GroupId) -> Option<PartitionRef> {
        self.inner.storage.partitions().borrow().get(&group).cloned()
    }

    /// All partitions of this shard, in order of their groups.
    pub fn partitions(&self) -> Vec<PartitionRef> {
        self.inner.storage.partitions().borrow().values().cloned().collect()
    }

    pub fn storage(&self) -> &Storage {
        &self.inner.storage
    }

    /// What to answer for a group that is not among the partitions of this shard.
    pub fn absent(&self, group: GroupId) -> ErrorCode {
        match self.inner.offline.borrow().contains_key(&group) {
            true => ErrorCode::KafkaStorageError,
            false => ErrorCode::UnknownTopicOrPartition,
        }
    }

    /// Groups that are placed here and cannot be served, with the reason.
    pub fn offline(&self) -> BTreeMap<GroupId, String> {
        self.inner.offline.borrow().clone()
    }

    /// Opens or creates what `new` adds to this shard, and reconfigures what it changes. `known`
    /// is the metadata that `__meta`'s checkpoint held when the node started.
    pub async fn prepare(
        &self,
        broker: &Broker,
        old: &Image,
        new: &Image,
        known: &Image,
    ) -> Change {
        let node = broker.node_id();
        let defaults_changed = old.broker_configs_version() != new.broker_configs_version();
        let mut added = Vec::new();
        for topic in new.topics() {
            let before = old.topic_by_id(topic.id);
            if before.is_some_and(|before| Arc::ptr_eq(before, topic)) && !defaults_changed {
                continue;
            }
            let Some(config) = broker.topic_config(topic.id) else { continue };
            for placed in self.placed_here(topic, node) {
                match self.partition(placed.owner.group) {
                    Some(partition) => partition.borrow_mut().configure(config.clone()),
                    None => added.push((placed, config.clone())),
                }
            }
        }
        let groups: Vec<GroupId> = added.iter().map(|(placed, _)| placed.owner.group).collect();
        self.add(broker, added, known).await;
        let led = groups.into_iter().filter_map(|group| {
            let partition = self.partition(group)?;
            let partition = partition.borrow();
            partition.is_leader().then(|| (group, partition.term()))
        });
        let led: Vec<(GroupId, Term)> = led.collect();
        for (group, _) in &led {
            self.partition(*group).into_iter().for_each(|led| broker.lead_offsets(led));
        }
        self.drop_unclaimed(broker);
        // What is created from now on was never in the log.
        if self.inner.lost.take().is_some() {
            // Refused only if the log has failed, and then the process is about to end.
            let _ = broker.wal().loss_is_settled();
        }
        let mut removed = Vec::new();
        for topic in old.topics().filter(|topic| new.topic_by_id(topic.id).is_none()) {
            for placed in self.placed_here(topic, node) {
                self.inner.offline.borrow_mut().remove(&placed.owner.group);
                removed.extend(
                    self.inner.storage.partitions().borrow_mut().remove(&placed.owner.group),
                );
            }
        }
        Change { led, removed }
    }

    /// Gives up what the image that is now served has no more; gives the groups led since.
    pub fn finish(&self, broker: &Broker, change: Change) -> Vec<(GroupId, Term)> {
        for partition in change.removed {
            let (owner, log) = {
                let mut partition = partition.borrow_mut();
                partition.mark_deleted();
                broker.backlog().look_again();
                if &*partition.identity().topic == OFFSETS_TOPIC {
                    broker.coordinators().cease(partition.identity().partition);
                }
                (partition.identity().owner, partition.log().clone())
            };
            let Ok(removed) = self.inner.groups.remove(owner) else { continue };
            let groups = self.inner.groups.clone();
            // The files go once the tombstone is durable; nobody waits for that.
            let files = async move {
                if let Some(frame) = removed {
                    if groups.wait_durable(frame).await.is_err() {
                        return;
                    }
                }
                if let Err(error) = log.remove().await {
                    tracing::warn!("files of a deleted partition remain: {error}");
                }
            };
            broker.shard().spawn(files).detach();
        }
        change.led
    }

    fn placed_here(&self, topic: &Arc<Topic>, node: NodeId) -> Vec<Placed> {
        let here = |group| shard_of(group, self.inner.shard.count()) == self.inner.shard.id();
        let partitions = topic.partitions.iter().enumerate();
        partitions
            .filter(|(_, partition)| here(partition.group))
            .filter_map(|(number, partition)| {
                let replica = partition.replica_on(node)?;
                Some(Placed {
                    topic: topic.clone(),
                    number: number as i32,
                    owner: Owner { group: partition.group, replica: replica.id },
                    voters: partition.replicas.iter().map(|replica| replica.id).collect(),
                })
            })
            .collect()
    }

    /// Opens or creates partitions, all of them in as few frames as possible, and waits until
    /// they accept appends.
    async fn add(&self, broker: &Broker, added: Vec<(Placed, Arc<TopicConfig>)>, known: &Image) {
        // A task each: thousands of partitions may come at once.
        let open = |(placed, config): (Placed, _)| {
            let known = known.partition_by_group(placed.owner.group).is_some();
            let (this, broker) = (self.clone(), broker.clone());
            let open = async move { this.open(&broker, placed, config, known).await };
            self.inner.shard.spawn(open)
        };
        let opening: Vec<_> = added.into_iter().map(open).collect();
        for one in opening {
            one.await;
        }
    }

    /// `known`: the metadata's checkpoint had this partition when the node started.
    async fn open(&self, broker: &Broker, placed: Placed, config: Arc<TopicConfig>, known: bool) {
        let owner = placed.owner;
        let recovered = self.inner.recovered.borrow_mut().remove(&owner);
        let refused = match &recovered {
            None if known => Some(MISSING.to_owned()),
            None => self.fence_if_lost(broker, owner).await,
            Some(replica) => replica.damaged.as_ref().map(|damage| damage.to_string()),
        };
        let result = match refused {
            Some(reason) => Err(reason),
            None => self.start(broker, &placed, config, recovered).await,
        };
        if let Err(reason) = result {
            tracing::error!(
                topic = %placed.topic.name,
                partition = placed.number,
                "partition stays offline: {reason}; restore its data folder from a backup, or \
                 delete the topic and create it again"
            );
            self.inner.offline.borrow_mut().insert(owner.group, reason);
        }
    }

    /// A replica that may have been in what the log has lost is never created anew, not by a later
    /// start either.
    async fn fence_if_lost(&self, broker: &Broker, owner: Owner) -> Option<String> {
        let lost = self.inner.lost.get()?;
        let fenced = match broker.wal().fence(owner, lost) {
            Ok(placed) => broker.wal().wait_durable(placed.frame).await,
            Err(error) => Err(error),
        };
        Some(match fenced {
            Ok(()) => format!("{MISSING}: {lost}"),
            Err(error) => error.to_string(),
        })
    }

    async fn start(
        &self,
        broker: &Broker,
        placed: &Placed,
        config: Arc<TopicConfig>,
        recovered: Option<RecoveredReplica>,
    ) -> Result<(), String> {
        let inner = &self.inner;
        let (log, mut producers) =
            self.open_log(broker, placed, &config, recovered.as_ref()).await?;
        if inner.shard.broken(Mutation::DedupeWindowOfOne) {
            producers.forget_all_but_the_last();
        }
        let identity = Identity {
            topic_id: placed.topic.id,
            topic: placed.topic.name.clone(),
            partition: placed.number,
            owner: placed.owner,
        };
        let staging = Rc::new(LogStaging(log.clone()));
        let partition = Partition::new(&inner.groups, identity, config, log, producers);
        let partition = Rc::new(RefCell::new(partition));
        let leads = partition.borrow_mut().wait_for_leadership();
        inner.storage.partitions().borrow_mut().insert(placed.owner.group, partition.clone());
        let (groups, owner) = (&inner.groups, placed.owner);
        match recovered {
            Some(replica) => match groups.open(owner, &replica, partition) {
                Ok(Opened::Running) => {}
                Ok(Opened::Fenced(fence)) => return Err(fence.to_string()),
                Err(error) => return Err(error.to_string()),
            },
            None => groups
                .create(owner, &placed.voters, FIRST_INDEX, FIRST_TERM, partition)
                .map(|_| ())
                .map_err(|error| error.to_string())?,
        }
        groups.set_staging(owner.group, staging);
        if placed.voters.len() == 1 {
            // Its first own entry is committed, so what created it is durable as well.
            leads.await;
        }
        Ok(())
    }

    /// The partition's log and producers: from the checkpoint, or empty.
    async fn open_log(
        &self,
        broker: &Broker,
        placed: &Placed,
        config: &TopicConfig,
        recovered: Option<&RecoveredReplica>,
    ) -> Result<(PartitionLog, ProducerStates), String> {
        let context = self.inner.storage.context();
        let identity = PartitionIdentity {
            topic: *placed.topic.id.0.as_bytes(),
            partition: placed.number,
            owner: placed.owner,
        };
        let segments = segment_config(config);
        let staged = recovered.map(staged_entries).unwrap_or_default();
        let expiration_ms = broker.config().producer_id_expiration_ms;
        let checkpoint = match recovered.and_then(|replica| replica.checkpoint.as_ref()) {
            Some((_, _, body)) => {
                let (_, app) = raft::decode_checkpoint(body).map_err(|error| error.to_string())?;
                // A group's first checkpoint, at its creation, holds nothing of the partition.
                Some(app).filter(|app| !app.is_empty())
            }
            None => None,
        };
        let Some(checkpoint) = checkpoint else {
            let (index, term) = (FIRST_INDEX, FIRST_TERM);
            let log = PartitionLog::create(context, identity, segments, index, term, &staged);
            log.verify_staged(&staged).await.map_err(|error| error.to_string())?;
            return Ok((log, ProducerStates::new(FIRST_INDEX, expiration_ms)));
        };
        let opened = PartitionLog::open(context, identity, segments, &checkpoint, &staged).await;
        let opened = opened.map_err(|error| error.to_string())?;
        opened.log.verify_staged(&staged).await.map_err(|error| error.to_string())?;
        let producers = ProducerStates::restore(&opened.producers, expiration_ms)
            .map_err(|error| format!("its producer snapshot is damaged: {error}"))?;
        Ok((opened.log, producers))
    }

    /// Replicas that the log holds and no image names: their topics were deleted, and a crash cut
    /// off their tombstones. They get them now; a tombstone that is there has done its work.
    fn drop_unclaimed(&self, broker: &Broker) {
        let unclaimed = std::mem::take(&mut *self.inner.recovered.borrow_mut());
        for (owner, replica) in unclaimed {
            if replica.tombstone {
                broker.wal().forget(owner);
            } else {
                // Refused only if the log has failed, and then the process is about to end.
                let _ = self.inner.groups.remove(owner);
            }
        }
    }
}
