//! The shard's background work: retention, free space, and a log that cannot go on.

use std::time::Duration;

use crate::broker::{Broker, META_SHARD};
use crate::partition::control::Control;
use crate::partition::PartitionRef;
use crate::storage::retention_config;

/// How often the free space of the disk is looked at.
const SPACE_CHECK: Duration = Duration::from_secs(1);
/// The same while less than [`NEAR_RESERVES`] times the reserve is left: a fast disk takes more in a
/// second than a small reserve holds.
const SPACE_CHECK_NEAR: Duration = Duration::from_millis(50);
const NEAR_RESERVES: u64 = 4;

/// Starts the tasks; they end with the shard.
pub fn start(broker: &Broker) {
    broker.shard().spawn(retention(broker.clone())).detach();
    if broker.shard().id() == META_SHARD {
        broker.shard().spawn(space(broker.clone())).detach();
    }
}

async fn retention(broker: Broker) {
    loop {
        let check_ms = broker.config().log_retention_check_interval_ms;
        let check = Duration::from_millis(u64::try_from(check_ms).unwrap_or(1).max(1));
        broker.shard().sleep(check).await;
        for partition in broker.placement().partitions() {
            expire_records(&partition).await;
        }
    }
}

/// Moves the log start of one partition to where its topic's retention wants it.
async fn expire_records(partition: &PartitionRef) {
    let (log, config) = {
        let partition = partition.borrow();
        if !partition.is_leader() {
            return;
        }
        (partition.log().clone(), retention_config(partition.config()))
    };
    let wanted = log.retention(&config).await;
    let mut partition = partition.borrow_mut();
    let identity = partition.identity().clone();
    let (topic, number) = (&identity.topic, identity.partition);
    match wanted {
        Ok(None) => {}
        Ok(Some(start)) => match partition.propose_control(Control::LogStart(start.0)) {
            Ok(_) => tracing::info!("retention moves the log start of {topic}-{number} to {start}"),
            Err(error) => tracing::warn!("retention of {topic}-{number} waits: {error}"),
        },
        Err(error) => tracing::error!("retention of {topic}-{number} cannot be decided: {error}"),
    }
}

/// Refuses produce on every shard while the disk has less than the reserve left; consumers and
/// deletions go on, and it ends by itself when there is space again.
async fn space(broker: Broker) {
    let reserve = broker.options().disk_reserve_bytes;
    loop {
        let mut pause = SPACE_CHECK;
        match broker.space().await {
            Ok(space) => {
                note_space(&broker, space.available_bytes, reserve).await;
                if space.available_bytes / NEAR_RESERVES < reserve {
                    pause = SPACE_CHECK_NEAR;
                }
            }
            Err(error) => tracing::warn!("the free space of the disk is not known: {error}"),
        }
        broker.shard().sleep(pause).await;
    }
}

async fn note_space(broker: &Broker, available: u64, reserve: u64) {
    let full = available < reserve;
    if full == broker.is_disk_full() {
        return;
    }
    broker.call_all(move |broker| async move { broker.set_disk_full(full) }).await;
    if full {
        tracing::error!(
            "the disk has {available} bytes left, less than disk_reserve_bytes = {reserve}: \
             produce is refused until there is space; delete topics or shorten their retention"
        );
    } else {
        tracing::info!("the disk has space again ({available} bytes): produce is accepted");
    }
}
