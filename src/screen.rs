//! The one screen that a start prints on standard output, and the line that scripts wait for.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use bootstrap::Ready;
use wal::Flush;

/// What is known before the broker starts; the rest comes with [`Ready`].
#[derive(Clone, Debug)]
pub struct Screen {
    pub shards: u16,
    pub cpus: Vec<usize>,
    pub data_dir: PathBuf,
    /// As configured, with the port that was bound.
    pub bind: SocketAddr,
    pub dual_stack: bool,
    /// `None`: each client is told the address that its own connection reached.
    pub advertised: Option<String>,
    /// Most connections that the limit of open files allows.
    pub connections_max: u32,
    pub relaxed: bool,
    pub http_on_kafka_port: bool,
}

impl Screen {
    /// Prints the screen, and logs that the broker serves.
    pub fn show(&self, ready: &Ready) {
        // Who starts the broker without a standard output wants none.
        let _ = std::io::stdout().lock().write_all(self.text(ready).as_bytes());
        let advertised = self.advertised.as_deref().unwrap_or("the address each client reached");
        tracing::info!("Chronik server ready on {} (advertised: {advertised})", self.bind);
    }

    fn text(&self, ready: &Ready) -> String {
        let mut out = format!("chronik-server {}\n", env!("CARGO_PKG_VERSION"));
        let mut line = |name: &str, text: String| {
            let _ = writeln!(out, "  {name:<11} {text}");
        };
        let new = if ready.newly_founded { ", new" } else { "" };
        line("node", format!("{}, cluster {}{new}", ready.node_id, ready.cluster_id));
        line("shards", format!("{}, {}", self.shards, self.placement()));
        line("data", self.data_dir.display().to_string());
        line("durability", self.durability(ready));
        let both = if self.dual_stack { " (IPv4 and IPv6)" } else { "" };
        line("kafka", format!("{}{both}", self.bind));
        let told = self.advertised.clone();
        line("advertised", told.unwrap_or("the address that each client reached".into()));
        line("connections", format!("{} at most (limit of open files)", self.connections_max));
        line("metrics", self.metrics(ready));
        out
    }

    fn placement(&self) -> String {
        if usize::from(self.shards) > self.cpus.len() {
            return format!("sharing {} CPUs unbound", self.cpus.len());
        }
        let cpus: Vec<_> =
            self.cpus.iter().take(self.shards.into()).map(usize::to_string).collect();
        format!("on CPU {}", cpus.join(", "))
    }

    fn durability(&self, ready: &Ready) -> String {
        let answered = match self.relaxed {
            false => "always: a write is answered when it is on disk",
            true => "relaxed: a write is answered BEFORE it is on disk",
        };
        let way = match ready.flush {
            Flush::Dsync => "O_DSYNC",
            Flush::Fdatasync => "fdatasync",
        };
        match ready.flush_cost.is_empty() {
            true => format!("{answered} ({way})"),
            false => format!("{answered} ({way}, {})", ready.flush_cost),
        }
    }

    fn metrics(&self, ready: &Ready) -> String {
        let kafka = self.http_on_kafka_port.then_some(self.bind.port());
        match ready.admin_port.or(kafka) {
            Some(port) => format!("http://{}/metrics", self.local(port)),
            None => "nowhere: http_on_kafka_port is false, and there is no admin_port".into(),
        }
    }

    /// Where this machine itself reaches a port.
    fn local(&self, port: u16) -> String {
        match self.bind.ip().is_unspecified() {
            true => format!("localhost:{port}"),
            false => SocketAddr::new(self.bind.ip(), port).to_string(),
        }
    }
}
