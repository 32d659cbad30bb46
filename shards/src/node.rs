//! How one shard of the broker starts and stops.
//!
//! Start: log and groups first, then the metadata (on shard 0), then the partitions that the
//! metadata places here, then the port. Stop is the reverse: no new connections, the requests in
//! flight are dropped, data that waits for its segments is flushed, the log confirms its end.
//! A stop saves time at the next start and nothing else: a killed process loses no record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use raft::driver::{OpenError, Opened};
use raft::{Groups, GroupsOptions};
use rt::{Dir, Mesh, Shard};
use thiserror::Error;
use wal::{Damage, Owner, RecoveredReplica, ReplicaId, Wal};

use crate::broker::{Broker, Parts, META_SHARD};
use crate::controller::{Controller, ControllerError};
use crate::meta::META_GROUP;
use crate::options::Options;
use crate::placement::{Placement, FIRST_INDEX, FIRST_TERM};
use crate::router::{Message, Router};
use crate::storage::Storage;

/// Messages that one ring between two shards holds.
const RING_MESSAGES: usize = 4096;
/// The replica of `__meta` on the node that founds a cluster.
pub const META_OWNER: Owner = Owner { group: META_GROUP, replica: ReplicaId(1) };

/// What a shard starts from.
pub struct Start {
    pub shard: Shard,
    pub options: Arc<Options>,
    pub data: Dir,
    pub wal: Wal,
    pub recovered: BTreeMap<Owner, RecoveredReplica>,
    /// What the log has lost, and no start has dealt with.
    pub lost: Option<Damage>,
    /// `__meta` was made durable in an earlier life of this node.
    pub founded: bool,
}

/// Why a shard did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Metadata(#[from] ControllerError),
    #[error(
        "the metadata log is missing from the data folder, though this node has founded its \
         cluster; restore the folder from a backup"
    )]
    MetadataMissing,
    #[error("the metadata log is damaged: {0}; restore the data folder from a backup")]
    MetadataDamaged(String),
    #[error("{0}")]
    Log(String),
}

/// Brings up this shard's log, groups and partitions; on shard 0 the metadata as well.
pub async fn start(start: Start) -> Result<Broker, StartError> {
    let Start { shard, options, data, wal, mut recovered, lost, founded } = start;
    let groups = Groups::new(&shard, wal.clone(), GroupsOptions::default());
    let mesh = shard.common(|| Mesh::<Message<Broker>>::new(shard.count(), RING_MESSAGES));
    let (router, port) = Router::join(&shard, &mesh);
    let controller = match shard.id() {
        META_SHARD => Some(open_metadata(&groups, &data, &mut recovered, founded).await?),
        _ => None,
    };
    let storage = Storage::open(&shard, &data, &groups, &wal, &options)
        .await
        .map_err(|error| StartError::Log(error.to_string()))?;
    let placement = Placement::new(&shard, &groups, storage, recovered, lost);
    let parts = Parts {
        shard: shard.clone(),
        options,
        router: router.clone(),
        groups: groups.clone(),
        placement,
        data: data.clone(),
        wal,
        controller: controller.clone(),
    };
    let broker = Broker::new(parts);
    groups.start();
    shard.spawn(router.serve(port, broker.clone())).detach();
    if let Some(controller) = controller {
        shard.spawn(controller.run(broker.clone(), data)).detach();
    }
    let backlog = broker.backlog().clone();
    shard.spawn(backlog.run(broker.wal().clone(), groups)).detach();
    shard.spawn(stop_on_failure(broker.clone())).detach();
    crate::upkeep::start(&broker);
    Ok(broker)
}

/// A log that failed cannot make anything durable any more: fail-stop. A log that was stopped in
/// order takes no more either, and that is no failure: nobody was promised what still came.
async fn stop_on_failure(broker: Broker) {
    let reason = broker.groups().failure().await;
    if broker.wal().is_stopped() && broker.wal().poisoned().is_none() {
        tracing::warn!("work that came after the log had stopped was dropped: {reason}");
        return;
    }
    fail_stop(&reason)
}

fn fail_stop(reason: &dyn std::fmt::Display) -> ! {
    panic!("the write-ahead log has failed and the broker stops: {reason}");
}

async fn open_metadata(
    groups: &Groups,
    data: &Dir,
    recovered: &mut BTreeMap<Owner, RecoveredReplica>,
    founded: bool,
) -> Result<Controller, StartError> {
    let replica = recovered.remove(&META_OWNER);
    let damage = replica.as_ref().and_then(|replica| replica.damaged.as_ref());
    if let Some(damage) = damage {
        return Err(StartError::MetadataDamaged(damage.to_string()));
    }
    let checkpoint = match replica.as_ref().and_then(|replica| replica.checkpoint.as_ref()) {
        Some((index, term, body)) => {
            let decoded = raft::decode_checkpoint(body);
            let (_, app) =
                decoded.map_err(|error| StartError::MetadataDamaged(error.to_string()))?;
            // The checkpoint of the group's creation names no snapshot.
            Some((*index, *term, app)).filter(|(_, _, app)| !app.is_empty())
        }
        None => None,
    };
    let controller = Controller::open(groups, data, checkpoint).await?;
    let log = |error: OpenError| StartError::Log(error.to_string());
    match replica {
        Some(replica) => {
            let opened = groups.open(META_OWNER, &replica, controller.machine()).map_err(log)?;
            if let Opened::Fenced(fence) = opened {
                return Err(StartError::MetadataDamaged(fence.to_string()));
            }
        }
        None if founded => return Err(StartError::MetadataMissing),
        None => {
            let voters = [META_OWNER.replica];
            let machine = controller.machine();
            let created = groups.create(META_OWNER, &voters, FIRST_INDEX, FIRST_TERM, machine);
            created.map_err(log)?;
        }
    }
    Ok(controller)
}

/// Ends this shard's work in order. Bounded: what is not flushed by `limit` is replayed from the
/// log at the next start.
///
/// # Panics
/// If the log fails on its last steps.
pub async fn stop(broker: Broker, limit: Duration) {
    broker.set_stopping();
    let flush = broker.placement().storage().flush_all();
    match broker.shard().timeout(limit, flush).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("segments were not flushed: {error}"),
        Err(_) => tracing::warn!("segments were not flushed in time; the next start replays more"),
    }
    // A relaxed answer may have gone out before the entry's turn: the log takes it along.
    broker.groups().close();
    broker.wal().stop().await;
    // Whoever is told that the node has stopped in order shall be able to rely on it.
    if let Some(error) = broker.wal().poisoned() {
        fail_stop(&error);
    }
}
