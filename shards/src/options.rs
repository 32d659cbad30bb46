//! The settings of a broker, resolved: what the binary's option registry (or a test) hands over.
//!
//! Units come last in the names.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use crate::config::Settings;
use crate::meta::NodeId;

/// How the write-ahead log makes a frame durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMode {
    /// What the start-up probe found to be faster on this disk.
    Probed,
    /// Files opened with O_DSYNC: each write is durable when it completes.
    Dsync,
    /// A write, then fdatasync.
    Fdatasync,
}

/// When a client hears that its records are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// When they are durable on a majority. The default.
    Durable,
    /// When they are enqueued (`flush = relaxed`): a crash may lose acknowledged records, never
    /// consistency. Raft, votes and followers stay durable.
    Relaxed,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub data_dir: PathBuf,
    pub bind_addr: IpAddr,
    pub kafka_port: u16,
    /// A listener of its own for metrics and health.
    pub admin_port: Option<u16>,
    /// Whether metrics and health are answered on the Kafka port too.
    pub http_on_kafka_port: bool,
    /// None: the local address that the client's own connection reached.
    pub advertised_addr: Option<String>,
    /// None: the port that is bound.
    pub advertised_port: Option<u16>,
    /// What the operator set under Kafka's names; the effective values are
    /// [`crate::config::BrokerConfig`]. Holds the node id as well.
    pub settings: Settings,
    pub wal_flush: FlushMode,
    pub acknowledge: Acknowledge,
    /// Of the whole node, over all shards.
    pub wal_budget_bytes: u64,
    /// None: a share of the budget. Smaller files hold smaller batches and are recycled sooner,
    /// which tests want.
    pub wal_file_bytes: Option<u64>,
    /// Of the whole node: tail caches, and data that waits for its segments.
    pub cache_bytes: u64,
    /// Of the whole node: requests that are being received or answered. When it is used up, the
    /// broker stops reading from its connections.
    pub request_memory_bytes: u64,
    /// Most connections at once, whatever `max.connections` says: what the limit of open files
    /// leaves.
    pub connections_ceiling: u32,
    /// Produce is refused while the disk has less space left.
    pub disk_reserve_bytes: u64,
    /// How many series of consumer lag the metrics show.
    pub consumer_lag_series_max: u32,
}

impl Options {
    /// The defaults for a node with this data folder.
    pub fn new(node: NodeId, data_dir: PathBuf) -> Options {
        Options {
            data_dir,
            bind_addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            kafka_port: 9092,
            admin_port: None,
            http_on_kafka_port: true,
            advertised_addr: None,
            advertised_port: None,
            settings: Settings::new(node),
            wal_flush: FlushMode::Probed,
            acknowledge: Acknowledge::Durable,
            wal_budget_bytes: 1 << 30,
            wal_file_bytes: None,
            cache_bytes: 128 << 20,
            request_memory_bytes: 512 << 20,
            connections_ceiling: u32::MAX,
            disk_reserve_bytes: 1 << 30,
            consumer_lag_series_max: 10_000,
        }
    }
}
