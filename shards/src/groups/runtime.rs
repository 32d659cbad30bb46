//! The coordinators of one shard: which partitions of `__consumer_offsets` it leads, and the way
//! in for requests about their groups. Each shard has one [`Coordinators`], made before it opens
//! partitions; clones share it.
//!
//! The broker says when this shard begins and ceases to lead a partition ([`Coordinators::lead`],
//! [`Coordinators::cease`]) and gives the partition's log as an [`OffsetsLog`]. A request is
//! answered only after every record that the coordinator wrote up to then is committed; so what a
//! client is told survives, and offsets that it reads never go back. While a partition loads its
//! groups answer COORDINATOR_LOAD_IN_PROGRESS; requests that are caught by a loss of leadership
//! answer NOT_COORDINATOR.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use net::batch::Batch;
use net::LocalFuture;
use rt::Shard;
use thiserror::Error;

use super::coordinator::GroupsConfig;
use super::types::*;

mod led;
mod load;
#[cfg(test)]
mod tests;

use led::Led;

/// How long a partition waits before it tries again to read its log.
const LOAD_RETRY: Duration = Duration::from_secs(1);

/// One led partition of `__consumer_offsets`, as the coordinator needs it.
pub trait OffsetsLog {
    /// Appends a batch (its base offset and leader epoch are the log's to set); gives the base
    /// offset once it is committed. There is one call at a time.
    fn append(&self, batch: Batch) -> LocalFuture<Result<i64, AppendError>>;

    /// Committed batches in order, from the one that holds `offset`: whole ones, some `max_bytes`
    /// of them but at least one; nothing at the end of what is committed. Several batches may
    /// stand in one `Bytes`.
    fn read(&self, offset: i64, max_bytes: usize) -> LocalFuture<Result<Vec<Bytes>, String>>;

    /// The first offset that is not deleted.
    fn log_start(&self) -> i64;

    /// Deletes what lies before `offset`; resolves once that is committed.
    fn move_log_start(&self, offset: i64) -> LocalFuture<Result<(), AppendError>>;

    /// Bytes of the batches from the log start on.
    fn size_bytes(&self) -> u64;
}

/// Why nothing more can be said of an append.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AppendError {
    /// Nothing was appended, and it may be tried again: no room on disk or in memory.
    #[error("the log takes no records for now: {0}")]
    Busy(String),
    /// This replica does not lead any more, or cannot tell what became of the batch.
    #[error("the partition is lost: {0}")]
    Lost(String),
}

/// All coordinators of a shard.
#[derive(Clone)]
pub struct Coordinators {
    inner: Rc<Inner>,
}

struct Inner {
    shard: Shard,
    config: RefCell<GroupsConfig>,
    led: RefCell<BTreeMap<i32, Entry>>,
}

enum Entry {
    Loading(rt::Task<()>),
    Ready(Rc<Led>),
}

impl Coordinators {
    pub fn new(shard: &Shard, config: GroupsConfig) -> Coordinators {
        let inner = Inner {
            shard: shard.clone(),
            config: RefCell::new(config),
            led: RefCell::new(BTreeMap::new()),
        };
        Coordinators { inner: Rc::new(inner) }
    }

    /// New settings, for all groups.
    pub fn set_config(&self, config: GroupsConfig) {
        for led in self.ready() {
            led.set_config(config.clone());
        }
        *self.inner.config.borrow_mut() = config;
    }

    /// This shard leads `partition`, and knows its high watermark (an entry of its own term is
    /// committed). Reads the log in the background. A second call loads anew.
    pub fn lead(&self, partition: i32, log: Rc<dyn OffsetsLog>) {
        self.cease(partition);
        let this = self.clone();
        let task = self.inner.shard.spawn(async move { this.load(partition, log).await });
        self.inner.led.borrow_mut().insert(partition, Entry::Loading(task));
    }

    /// This shard does not lead `partition` any more, or it is deleted.
    pub fn cease(&self, partition: i32) {
        let entry = self.inner.led.borrow_mut().remove(&partition);
        if let Some(Entry::Ready(led)) = entry {
            led.end();
        }
    }

    /// The partitions whose groups this shard answers for, those that still load included.
    pub fn partitions(&self) -> Vec<i32> {
        self.inner.led.borrow().keys().copied().collect()
    }

    /// Whether the groups of `partition` can be asked.
    pub fn is_ready(&self, partition: i32) -> bool {
        matches!(self.inner.led.borrow().get(&partition), Some(Entry::Ready(_)))
    }

    /// Numbers of groups and of members, for metrics.
    pub fn sizes(&self) -> (usize, usize) {
        self.ready().iter().map(|led| led.sizes()).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    /// Committed offsets of this shard's groups, at most so many, and how many there are in all.
    pub fn committed(&self, at_most: u32) -> (Vec<Committed>, usize) {
        let (mut first, mut in_all) = (Vec::new(), 0);
        for led in self.ready() {
            let (committed, count) = led.committed(at_most as usize - first.len());
            first.extend(committed);
            in_all += count;
        }
        (first, in_all)
    }

    pub async fn join(&self, partition: i32, request: Join) -> JoinAnswer {
        let answer = match self.led(partition) {
            Ok(led) => led.join(request).await,
            Err(error) => Err(error),
        };
        answer.unwrap_or_else(|error| JoinAnswer::error("", error))
    }

    pub async fn sync(&self, partition: i32, request: Sync) -> SyncAnswer {
        let answer = match self.led(partition) {
            Ok(led) => led.sync(request).await,
            Err(error) => Err(error),
        };
        answer.unwrap_or_else(SyncAnswer::error)
    }

    pub async fn heartbeat(&self, partition: i32, request: Heartbeat) -> Result<(), GroupError> {
        let led = self.led(partition)?;
        led.event(|coordinator, now| coordinator.heartbeat(now, &request)).await?
    }

    /// The outcome for each member, in order.
    pub async fn leave(
        &self,
        partition: i32,
        group: String,
        members: Vec<Leaving>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let led = self.led(partition)?;
        led.event(|coordinator, now| coordinator.leave(now, &group, &members)).await?
    }

    /// The outcome for each offset, in order.
    pub async fn commit(
        &self,
        partition: i32,
        request: Commit,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let led = self.led(partition)?;
        if led.is_behind() {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        led.event(|coordinator, now| coordinator.commit(now, request)).await?
    }

    /// Offsets of the partitions asked for, or (None) of all that have one.
    pub async fn fetch(
        &self,
        partition: i32,
        group: String,
        asked: Option<Vec<(String, Vec<i32>)>>,
    ) -> Result<Vec<FetchedTopic>, GroupError> {
        let led = self.led(partition)?;
        led.event(|coordinator, _| coordinator.fetch(&group, asked.as_deref())).await
    }

    /// The outcome for each topic, in order.
    pub async fn delete_offsets(
        &self,
        partition: i32,
        group: String,
        topics: Vec<(String, Vec<i32>)>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let led = self.led(partition)?;
        led.event(|coordinator, now| coordinator.delete_offsets(now, &group, &topics)).await?
    }

    pub async fn delete_group(&self, partition: i32, group: String) -> Result<(), GroupError> {
        let led = self.led(partition)?;
        led.event(|coordinator, now| coordinator.delete_group(now, &group)).await?
    }

    pub async fn describe(
        &self,
        partition: i32,
        group: String,
    ) -> Result<Option<Description>, GroupError> {
        let led = self.led(partition)?;
        led.event(|coordinator, _| coordinator.describe(&group)).await
    }

    /// All groups of this shard.
    pub async fn list(&self) -> Result<Vec<Listing>, GroupError> {
        let mut groups = Vec::new();
        for partition in self.partitions() {
            let led = match self.led(partition) {
                // It went while another was asked.
                Err(GroupError::NotCoordinator) => continue,
                other => other?,
            };
            groups.extend(led.event(|coordinator, _| coordinator.list()).await?);
        }
        Ok(groups)
    }

    /// A topic is deleted: its committed offsets go, in all groups of this shard. Resolves when
    /// that is committed. Partitions that still load are waited for.
    pub async fn topic_deleted(&self, topic: String) {
        for partition in self.partitions() {
            let led = loop {
                match self.led(partition) {
                    Ok(led) => break led,
                    Err(GroupError::CoordinatorLoadInProgress) => {
                        self.inner.shard.sleep(Duration::from_millis(10)).await;
                    }
                    Err(_) => return,
                }
            };
            // If it is lost meanwhile, the next leader's broker sees the deletion as well.
            let _ = led.event(|coordinator, now| coordinator.topic_deleted(now, &topic)).await;
        }
    }

    fn led(&self, partition: i32) -> Result<Rc<Led>, GroupError> {
        match self.inner.led.borrow().get(&partition) {
            Some(Entry::Ready(led)) => Ok(led.clone()),
            Some(Entry::Loading(_)) => Err(GroupError::CoordinatorLoadInProgress),
            None => Err(GroupError::NotCoordinator),
        }
    }

    fn ready(&self) -> Vec<Rc<Led>> {
        let led = self.inner.led.borrow();
        let ready = led.values().filter_map(|entry| match entry {
            Entry::Ready(led) => Some(led.clone()),
            Entry::Loading(_) => None,
        });
        ready.collect()
    }

    /// Reads the log until it succeeds, and then takes requests. Ends early only by being dropped.
    async fn load(&self, partition: i32, log: Rc<dyn OffsetsLog>) {
        let config = self.inner.config.borrow().clone();
        let coordinator = loop {
            match load::load(&self.inner.shard, log.as_ref(), config.clone()).await {
                Ok(coordinator) => break coordinator,
                Err(error) => {
                    tracing::error!(partition, "cannot load the groups of a partition: {error}");
                    self.inner.shard.sleep(LOAD_RETRY).await;
                }
            }
        };
        let led = Led::start(&self.inner.shard, partition, log, coordinator);
        led.set_config(self.inner.config.borrow().clone());
        let own = self.inner.led.borrow_mut().insert(partition, Entry::Ready(led));
        if let Some(Entry::Loading(task)) = own {
            // Dropping it would cancel this very task.
            task.detach();
        }
    }
}
