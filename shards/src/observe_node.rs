//! What a scrape sees of the node as a whole: cluster, build, durability, disk, process.
//!
//! Gathered on the shard that answers the scrape. The process's own figures have the names that
//! Prometheus client libraries give them.

use rt::{ProcessUsage, Space};

use crate::broker::Broker;
use crate::metrics::{Kind, Labels, Samples};
use crate::options::Acknowledge;

pub struct Node {
    members: usize,
    topics: usize,
    acknowledge: Acknowledge,
    disk_full: bool,
    /// Unknown where the file system does not tell.
    space: Option<Space>,
    usage: Option<ProcessUsage>,
}

impl Node {
    pub async fn gather(broker: &Broker) -> Node {
        let image = broker.image();
        let (members, topics) = (image.brokers().len(), image.topics().len());
        Node {
            members,
            topics,
            acknowledge: broker.options().acknowledge,
            disk_full: broker.is_disk_full(),
            space: broker.space().await.ok(),
            usage: broker.shard().process_usage().await,
        }
    }

    pub fn add_to(&self, samples: &mut Samples) {
        let none = &Labels::none();
        let mut gauge = |name, help, value: f64| samples.gauge(name, help, none, value);
        let members = self.members as f64;
        gauge("cluster_size", "Members of the cluster.", members);
        // One node without peers reaches itself.
        gauge("cluster_quorum_size", "Members that are reachable now.", members.min(1.0));
        gauge("chronik_topics", "Topics, internal ones included.", self.topics as f64);
        let help = "1 while produce is refused because of disk_reserve_bytes.";
        gauge("chronik_disk_full", help, f64::from(u8::from(self.disk_full)));
        if let Some(space) = &self.space {
            let help = "Size of the file system of the data folder.";
            gauge("chronik_disk_size_bytes", help, space.total_bytes as f64);
            let help = "Space left on the file system of the data folder.";
            gauge("chronik_disk_available_bytes", help, space.available_bytes as f64);
        }
        let version = Labels::of(&[("version", env!("CARGO_PKG_VERSION"))]);
        samples.gauge("chronik_build_info", "The running version.", &version, 1.0);
        let mode = match self.acknowledge {
            Acknowledge::Durable => "always",
            Acknowledge::Relaxed => "relaxed",
        };
        let help = "When producers are answered: always (what they sent is on disk) or relaxed.";
        samples.gauge("chronik_flush_info", help, &Labels::of(&[("flush", mode)]), 1.0);
        if let Some(usage) = &self.usage {
            process(samples, usage);
        }
    }
}

fn process(samples: &mut Samples, usage: &ProcessUsage) {
    let none = &Labels::none();
    let (name, help) = ("process_cpu_seconds_total", "Processor time of all threads.");
    samples.add(name, help, Kind::Counter, none, usage.cpu.as_secs_f64());
    let mut gauge = |name, help, value: f64| samples.gauge(name, help, none, value);
    gauge("process_resident_memory_bytes", "Resident memory.", usage.resident_bytes as f64);
    gauge("process_virtual_memory_bytes", "Virtual memory.", usage.virtual_bytes as f64);
    gauge("process_open_fds", "Open file descriptors.", usage.open_fds as f64);
    gauge("process_max_fds", "The limit of open file descriptors.", usage.max_fds as f64);
    gauge("process_threads", "Threads.", usage.threads as f64);
    let help = "Start of the process, in seconds since 1970.";
    gauge("process_start_time_seconds", help, usage.start_ms as f64 / 1e3);
}
