//! The settings of a broker, resolved: what the binary's option registry (or a test) hands over.
//!
//! Units come last in the names.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use wal::{Flush, WalOptions};

use crate::config::Settings;
use crate::meta::NodeId;

/// Steps of a shard's share in the budget of the log: beyond the last of them files grow no more.
const WAL_BUDGET_STEP_BYTES: u64 = 64 << 20;
const WAL_BUDGET_STEPS: u64 = 16;

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
    /// Batches from this length on are written once, straight to their segment (`log::staging`);
    /// shorter ones go through the write-ahead log. `u32::MAX` for none.
    pub staged_min_bytes: u32,
    /// Of the whole node: requests that are being received or answered. When it is used up, the
    /// broker stops reading from its connections.
    pub request_memory_bytes: u64,
    /// Most connections at once, whatever `max.connections` says: what the limit of open files
    /// leaves.
    pub connections_ceiling: u32,
    /// Segments that each shard keeps open at most.
    pub open_segments_max: usize,
    /// Produce is refused while the disk has less space left.
    pub disk_reserve_bytes: u64,
    /// How many series of consumer lag the metrics show.
    pub consumer_lag_series_max: u32,
}

impl Options {
    /// The settings of the write-ahead log of each of `shards` shards.
    pub fn wal_options(&self, shards: u16, flush: Flush) -> WalOptions {
        let shared = WalOptions { flush, ..WalOptions::for_shards(self.wal_budget_bytes, shards) };
        match self.wal_file_bytes {
            None => shared,
            Some(file_bytes) => WalOptions {
                file_bytes,
                first_file_bytes: file_bytes,
                budget_bytes: (self.wal_budget_bytes / u64::from(shards)).max(4 * file_bytes),
                frame_max_bytes: file_bytes / 2,
                ..shared
            },
        }
    }

    /// The largest record batch that the log of one of `shards` shards takes, whatever
    /// `max.message.bytes` allows.
    pub fn batch_max_bytes(&self, shards: u16) -> u64 {
        raft::payload_max_bytes(self.wal_options(shards, Flush::Fdatasync).body_max_bytes())
    }

    /// The smallest `wal_budget_bytes`, in steps, with which the log takes batches of so many
    /// bytes; none if there is no such budget.
    pub fn wal_budget_for(batch_bytes: u64, shards: u16) -> Option<u64> {
        let takes = |budget: &u64| {
            let log = WalOptions::for_shards(*budget, shards);
            raft::payload_max_bytes(log.body_max_bytes()) >= batch_bytes
        };
        (1..=WAL_BUDGET_STEPS).map(|n| n * WAL_BUDGET_STEP_BYTES * u64::from(shards)).find(takes)
    }

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
            staged_min_bytes: 128 << 10,
            request_memory_bytes: 512 << 20,
            connections_ceiling: u32::MAX,
            open_segments_max: 512,
            disk_reserve_bytes: 1 << 30,
            consumer_lag_series_max: 10_000,
        }
    }
}
