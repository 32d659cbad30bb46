//! From an empty (or a known) data folder to a broker that serves: identity, log, founding.
//!
//! Runs on every shard. Shard 0 reads or makes the node's identity and the layout of its logs, and
//! tells the others; then each brings up its part of the broker, shard 0 founds the cluster if
//! this node has none, and the port opens when every partition that was placed here leads.
//!
//! A node with existing state never founds again: it starts from its disk. Today the only
//! founding is that of a cluster of one; discovery and the quorum gate come before it.

mod identity;

use std::io;
use std::sync::Arc;

use rt::{Dir, Mesh, Shard, ShardId};
use shards::broker::Broker;
use shards::meta::{Command, Endpoint, NodeId, FEATURE_LEVEL};
use shards::options::{FlushMode, Options};
use shards::{listen, node};
use thiserror::Error;
use wal::{Flush, Wal, WalOptions};

pub use identity::{Identity, IdentityError};

/// Why a node did not start. Every text says what to do about it.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("data folder: {0}")]
    Folder(#[from] io::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("write-ahead log: {0}")]
    Wal(#[from] wal::WalError),
    #[error(transparent)]
    Shard(#[from] node::StartError),
    #[error("metadata: {0}")]
    Submit(#[from] shards::api::SubmitError),
    #[error("the Kafka port cannot be bound: {0}")]
    Port(io::Error),
}

/// What the operator is told once the broker serves.
#[derive(Clone, Debug)]
pub struct Ready {
    pub node_id: i32,
    pub cluster_id: String,
    pub kafka_port: u16,
    pub flush: Flush,
    /// What the start-up probe measured, in words.
    pub flush_cost: String,
    pub newly_founded: bool,
}

/// What shard 0 tells the others before they open anything.
#[derive(Clone, Debug)]
struct Prepared {
    identity: Identity,
    generation: u32,
    flush: Flush,
}

/// Starts this shard's part of a node; on shard 0 it ends with the port open on every shard.
/// The broker of this shard comes back, to be stopped with [`node::stop`].
pub async fn start(
    shard: &Shard,
    options: &Arc<Options>,
    on_ready: impl FnOnce(Ready),
) -> Result<Broker, StartError> {
    let data = shard.create_dir(&options.data_dir).await?;
    let mesh = shard.common(|| Mesh::<Prepared>::new(shard.count(), 1));
    let port = mesh.join(shard);
    let (prepared, flush_cost) = if shard.id() == ShardId(0) {
        let (prepared, cost) = prepare(shard, &data, options).await?;
        for other in 1..shard.count() {
            port.sender(ShardId(other)).send(prepared.clone()).await;
        }
        (prepared, cost)
    } else {
        (port.recv().await.1, String::new())
    };
    let broker = start_shard(shard, options, &data, &prepared).await?;
    if shard.id() == ShardId(0) {
        let newly_founded = found(&broker, &data, &prepared.identity).await?;
        register(&broker, &prepared.identity).await?;
        open_port(&broker).await?;
        let cluster_id = broker.image().cluster_id();
        on_ready(Ready {
            node_id: prepared.identity.node_id,
            cluster_id,
            kafka_port: broker.port(),
            flush: prepared.flush,
            flush_cost,
            newly_founded,
        });
    }
    Ok(broker)
}

async fn prepare(
    shard: &Shard,
    data: &Dir,
    options: &Options,
) -> Result<(Prepared, String), StartError> {
    let identity = Identity::load_or_create(shard, data, options.settings.node().0).await?;
    let flush = match options.wal_flush {
        FlushMode::Dsync => Flush::Dsync,
        FlushMode::Fdatasync | FlushMode::Probed => Flush::Fdatasync,
    };
    Ok((Prepared { identity, generation: 0, flush }, String::new()))
}

async fn start_shard(
    shard: &Shard,
    options: &Arc<Options>,
    data: &Dir,
    prepared: &Prepared,
) -> Result<Broker, StartError> {
    let folder = format!("wal/{}/{}", prepared.generation, shard.id().0);
    let folder = shard.create_dir(options.data_dir.join(folder)).await?;
    let identity = wal::Identity {
        node: *prepared.identity.node_uuid.as_bytes(),
        shard: shard.id(),
        generation: prepared.generation,
    };
    let mut wal_options = WalOptions::for_shards(options.wal_budget_bytes, shard.count());
    wal_options.flush = prepared.flush;
    let (wal, recovered) = Wal::open(shard, folder, wal_options, identity).await?;
    let start = node::Start {
        shard: shard.clone(),
        options: options.clone(),
        data: data.clone(),
        wal,
        recovered: recovered.replicas,
        founded: prepared.identity.founded,
    };
    Ok(node::start(start).await?)
}

/// Founds a cluster of one if this node belongs to none; true if it did.
async fn found(broker: &Broker, data: &Dir, identity: &Identity) -> Result<bool, StartError> {
    let controller = broker.controller();
    controller.ready().await;
    let newly = !controller.image().is_founded();
    if newly {
        let cluster_id = identity.cluster_id;
        let command = Command::Found { cluster_id, feature_level: FEATURE_LEVEL };
        broker.submit(command).await?;
        tracing::info!("Bootstrapped __meta partition with cluster [{}]", identity.node_id);
    }
    if !identity.founded {
        Identity { founded: true, ..identity.clone() }.store(data).await?;
    }
    Ok(newly)
}

async fn register(broker: &Broker, identity: &Identity) -> Result<(), StartError> {
    let options = broker.options();
    let host = options.advertised_addr.clone().unwrap_or_default();
    let port = options.advertised_port.unwrap_or(options.kafka_port);
    let endpoint = Endpoint { name: "PLAINTEXT".to_owned(), host, port };
    let command = Command::RegisterBroker {
        node: NodeId(identity.node_id),
        node_uuid: identity.node_uuid,
        endpoints: vec![endpoint],
        rack: None,
    };
    broker.submit(command).await?;
    let node = identity.node_id;
    tracing::info!("Successfully registered broker {node} in Raft metadata");
    Ok(())
}

/// Opens the Kafka port on every shard. Every partition that is placed here leads by now.
async fn open_port(broker: &Broker) -> Result<(), StartError> {
    let port = broker.options().kafka_port;
    let opened = broker.call_all(move |broker| async move { listen::open(&broker, port) }).await;
    for one in opened {
        one.map_err(StartError::Port)?;
    }
    tracing::info!("Bootstrap complete for node {}", broker.node_id());
    Ok(())
}
