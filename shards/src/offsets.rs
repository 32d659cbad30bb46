//! The partitions of `__consumer_offsets` as the group coordinators see them, and the way from a
//! handler to the coordinators of the owning shard.
//!
//! A partition of that topic is like any other; what is special is that the broker itself appends
//! to it, on the shard that owns it.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use net::batch::Batch;
use net::LocalFuture;
use wal::GroupId;

use crate::api::groups::{Groups, OFFSETS_TOPIC};
use crate::broker::Broker;
use crate::config::BrokerConfig;
use crate::groups::coordinator::GroupsConfig;
use crate::groups::runtime::{AppendError, Coordinators, OffsetsLog};
use crate::log::{Offset, ReadRequest};
use crate::partition::control::Control;
use crate::partition::{self, Outcome, PartitionRef, Wait};

/// A partition of `__consumer_offsets` that this shard leads.
struct OffsetsPartition {
    partition: PartitionRef,
}

impl OffsetsLog for OffsetsPartition {
    fn append(&self, batch: Batch) -> LocalFuture<Result<i64, AppendError>> {
        let mut partition = self.partition.borrow_mut();
        let appended = partition.append(&batch).map_err(refused);
        let started =
            appended.map(|done| (done.base_offset, partition.wait_for_commit(done.index)));
        Box::pin(async move {
            let (base_offset, commit) = started?;
            committed(commit).await?;
            Ok(base_offset)
        })
    }

    fn read(&self, offset: i64, max_bytes: usize) -> LocalFuture<Result<Vec<Bytes>, String>> {
        let partition = self.partition.borrow();
        let request = ReadRequest {
            from: Offset(offset),
            up_to: Offset(partition.high_watermark()),
            max_bytes: max_bytes as u64,
            at_least_one: true,
        };
        let log = partition.log().clone();
        Box::pin(async move {
            let answer = log.read(request).await.map_err(|error| error.to_string())?;
            Ok(answer.batches)
        })
    }

    fn log_start(&self) -> i64 {
        self.partition.borrow().log_start()
    }

    fn move_log_start(&self, offset: i64) -> LocalFuture<Result<(), AppendError>> {
        let mut partition = self.partition.borrow_mut();
        let proposed = partition.propose_control(Control::LogStart(offset)).map_err(refused);
        let started = proposed.map(|index| partition.wait_for_commit(index));
        Box::pin(async move { committed(started?).await })
    }

    fn size_bytes(&self) -> u64 {
        self.partition.borrow().log().size_bytes()
    }
}

fn refused(error: partition::AppendError) -> AppendError {
    match error {
        full @ partition::AppendError::Full(_) => AppendError::Busy(full.to_string()),
        other => AppendError::Lost(other.to_string()),
    }
}

async fn committed(commit: Wait) -> Result<(), AppendError> {
    match commit.await {
        Outcome::Done => Ok(()),
        Outcome::LeadershipLost => Err(AppendError::Lost("leadership was lost".to_owned())),
        Outcome::Deleted => Err(AppendError::Lost("the topic was deleted".to_owned())),
    }
}

impl Broker {
    /// Gives the coordinators a partition that this shard has begun to lead, if it is theirs.
    pub fn lead_offsets(&self, partition: PartitionRef) {
        let identity = partition.borrow().identity().clone();
        if &*identity.topic == OFFSETS_TOPIC {
            let log = Rc::new(OffsetsPartition { partition });
            self.coordinators().lead(identity.partition, log);
        }
    }
}

impl Groups for Broker {
    fn on_coordinator<T, F, Fut>(&self, partition: GroupId, call: F) -> impl Future<Output = T>
    where
        T: Send + 'static,
        F: FnOnce(Coordinators) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let owner = self.shard_of(partition);
        self.call(owner, move |broker| call(broker.coordinators().clone()))
    }

    async fn on_all_coordinators<T, F, Fut>(&self, call: F) -> Vec<T>
    where
        T: Send + 'static,
        F: Fn(Coordinators) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.call_all(move |broker| call(broker.coordinators().clone())).await
    }
}

/// The coordinators' settings among the broker's.
pub fn groups_config(config: &BrokerConfig) -> GroupsConfig {
    let ms = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    GroupsConfig {
        min_session_timeout_ms: config.group_min_session_timeout_ms,
        max_session_timeout_ms: config.group_max_session_timeout_ms,
        initial_rebalance_delay: ms(config.group_initial_rebalance_delay_ms),
        max_size: config.group_max_size as usize,
        offset_metadata_max: config.offset_metadata_max_bytes as usize,
        offsets_retention_ms: config.offsets_retention_ms,
        retention_check_interval: ms(config.offsets_retention_check_interval_ms),
        ..GroupsConfig::default()
    }
}
