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
use shards::broker::{shard_of, Broker};
use shards::config::{batches, BrokerView};
use shards::meta::{Command, Endpoint, NodeId, FEATURE_LEVEL};
use shards::options::{FlushMode, Options};
use shards::{listen, node};
use thiserror::Error;
use uuid::Uuid;
use wal::layout::{Layout, LayoutError};
use wal::{Flush, Owner, RecoveryReport, Wal, WalError};

pub use identity::{Identity, IdentityError};

/// Why a node did not start. Every text says what to do about it.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("data folder: {0}")]
    Folder(#[from] io::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("write-ahead log: {0}")]
    Wal(#[from] WalError),
    #[error("write-ahead log: {0}")]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Shard(#[from] node::StartError),
    #[error("metadata: {0}")]
    Submit(#[from] shards::api::SubmitError),
    #[error("the Kafka port cannot be bound: {0}")]
    Port(io::Error),
    #[error("admin_port {port} cannot be bound: {error}; choose another")]
    AdminPort { port: u16, error: io::Error },
}

impl StartError {
    /// The disk has no room for what a start must write.
    pub fn is_no_space(&self) -> bool {
        match self {
            StartError::Folder(error) => error.kind() == io::ErrorKind::StorageFull,
            StartError::Layout(LayoutError::Disk(error))
            | StartError::Wal(WalError::Disk(error) | WalError::Poisoned(error)) => {
                error.is_no_space()
            }
            StartError::Wal(WalError::NoRoom { .. }) => true,
            _ => false,
        }
    }
}

/// What the operator is told once the broker serves.
#[derive(Clone, Debug)]
pub struct Ready {
    pub node_id: i32,
    pub cluster_id: String,
    pub kafka_port: u16,
    pub admin_port: Option<u16>,
    pub flush: Flush,
    /// What the start-up probe measured, in words.
    pub flush_cost: String,
    pub newly_founded: bool,
}

/// What shard 0 tells the others before they open anything.
#[derive(Clone, Debug)]
struct Prepared {
    identity: Identity,
    layout: Layout,
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
        warn_of_batches(&broker);
        let admin_port = open_ports(&broker).await?;
        let cluster_id = broker.image().cluster_id();
        on_ready(Ready {
            node_id: prepared.identity.node_id,
            cluster_id,
            kafka_port: broker.port(),
            admin_port,
            flush: prepared.flush,
            flush_cost,
            newly_founded,
        });
    }
    Ok(broker)
}

/// What is done once per node, by shard 0, before any shard opens its log.
async fn prepare(
    shard: &Shard,
    data: &Dir,
    options: &Options,
) -> Result<(Prepared, String), StartError> {
    let layout = Layout::open(shard, data, shard.count()).await?;
    let node_uuid = Uuid::from_bytes(layout.node);
    let node_id = options.settings.node().0;
    let identity = Identity::load_or_create(shard, data, node_id, node_uuid).await?;
    if identity.founded {
        layout.require_logs(data).await?;
    }
    let (flush, cost) = match options.wal_flush {
        FlushMode::Dsync => (Flush::Dsync, "as configured".to_owned()),
        FlushMode::Fdatasync => (Flush::Fdatasync, "as configured".to_owned()),
        FlushMode::Probed => {
            let probe = wal::probe::probe(shard, data).await?;
            (probe.flush, format!("{} us per durable 4 KiB write", probe.cost().as_micros()))
        }
    };
    let layout = if layout.shards == shard.count() {
        layout
    } else {
        let (was, is) = (layout.shards, shard.count());
        tracing::info!("the data folder was written by {was} shards and moves to {is}");
        let wal_options = options.wal_options(is, flush);
        let place = move |owner: Owner| shard_of(owner.group, is);
        layout.change(shard, data, is, wal_options, place).await?
    };
    for id in 0..shard.count() {
        // Made here, one after the other: the shards would race for the folder above them.
        layout.wal_dir(data, ShardId(id)).await?;
    }
    Ok((Prepared { identity, layout, flush }, cost))
}

async fn start_shard(
    shard: &Shard,
    options: &Arc<Options>,
    data: &Dir,
    prepared: &Prepared,
) -> Result<Broker, StartError> {
    let layout = &prepared.layout;
    let folder = layout.wal_dir(data, shard.id()).await?;
    let wal_options = options.wal_options(shard.count(), prepared.flush);
    let (wal, recovered) =
        Wal::open(shard, folder, wal_options, layout.identity(shard.id())).await?;
    report(shard, &recovered.report);
    let start = node::Start {
        shard: shard.clone(),
        options: options.clone(),
        data: data.clone(),
        wal,
        recovered: recovered.replicas,
        lost: recovered.report.lost,
        founded: prepared.identity.founded,
    };
    Ok(node::start(start).await?)
}

/// What an operator should know of the log that was read back.
fn report(shard: &Shard, report: &RecoveryReport) {
    for damage in &report.damage {
        tracing::error!(
            "the log of shard {} has lost something: {damage}; `chronik-server inspect wal` shows \
             what is left",
            shard.id()
        );
    }
    if !report.fresh {
        let ended = if report.stopped { "stopped in order" } else { "not stopped in order" };
        let (records, files, took) = (report.records, report.files, report.took);
        tracing::info!(
            "log of shard {}: {records} records in {files} files read back in {took:.1?}, {ended}",
            shard.id()
        );
    }
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
        // Each shard answers when it has opened its log: from then on all of them must be there.
        broker.call_all(|_| std::future::ready(())).await;
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

/// Topics may stand from a time with a larger log, or fewer shards: they work, but for what no
/// longer fits.
fn warn_of_batches(broker: &Broker) {
    let (options, image) = (broker.options(), broker.image());
    let shards = broker.shard().count();
    let limit = options.batch_max_bytes(shards);
    let beyond = batches::beyond(&image, &BrokerView::new(&options.settings, &image), limit);
    if !beyond.is_empty() {
        tracing::warn!(
            "the write-ahead log takes batches of up to {limit} bytes (wal_budget_bytes is {} over \
             {shards} shards), and these topics allow larger ones, which are refused with \
             MESSAGE_TOO_LARGE: {}",
            options.wal_budget_bytes,
            beyond.join(", ")
        );
    }
}

/// Opens the Kafka port on every shard, and the admin port on this one, if there is to be one; gives
/// its number. Every partition that is placed here leads by now.
async fn open_ports(broker: &Broker) -> Result<Option<u16>, StartError> {
    let admin = |port| {
        let bound = listen::open_admin(broker, port);
        bound.map_err(|error| StartError::AdminPort { port, error })
    };
    let admin_port = broker.options().admin_port.map(admin).transpose()?;
    let port = broker.options().kafka_port;
    let opened = broker.call_all(move |broker| async move { listen::open(&broker, port) }).await;
    for one in opened {
        one.map_err(StartError::Port)?;
    }
    tracing::info!("Bootstrap complete for node {}", broker.node_id());
    Ok(admin_port)
}
