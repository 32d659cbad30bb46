//! What a scrape sees: the counts of every shard, as metric families.
//!
//! Every shard counts for itself; a scrape asks all of them, each gathers what it has without
//! keeping its other tasks waiting, and a plain thread merges and prints. The names are read by
//! dashboards; `tests/golden/metrics.txt` in the root of the repository pins them.

use std::collections::BTreeMap;
use std::sync::Arc;

use wal::GroupId;

use crate::broker::{Broker, META_SHARD};
use crate::groups::types::Committed;
use crate::meta::META_GROUP;
use crate::metrics::{Labels, Samples};
use crate::observe_node::Node;
use crate::partition::Partition;

/// So many partitions are gathered before the other tasks of the shard get their turn.
const PARTITIONS_AT_ONCE: usize = 64;

/// What one shard gathers.
struct Gathered {
    samples: Samples,
    /// Offsets that groups have committed; at most as many as may be shown.
    committed: Vec<Committed>,
    committed_in_all: usize,
    /// High watermarks of the partitions that this shard leads, by topic and number.
    ends: Ends,
}

type Ends = BTreeMap<Arc<str>, BTreeMap<i32, i64>>;

/// The whole text of a scrape.
pub async fn scrape(broker: &Broker) -> String {
    let shards = broker.call_all(|broker| async move { one_shard(&broker).await }).await;
    let node = Node::gather(broker).await;
    let lag_series_max = broker.options().consumer_lag_series_max;
    let print = move || {
        let mut all = Samples::default();
        node.add_to(&mut all);
        lag(&mut all, &shards, lag_series_max);
        shards.into_iter().for_each(|shard| all.merge(shard.samples));
        all.text()
    };
    // It fails only when the process is about to end.
    broker.shard().blocking(print).await.unwrap_or_default()
}

async fn one_shard(broker: &Broker) -> Gathered {
    let mut samples = Samples::default();
    shard(broker, &mut samples);
    crate::observe_io::io(broker, &mut samples);
    if broker.shard().id() == META_SHARD {
        let labels = Labels::of(&[("topic", "__meta"), ("partition", "0")]);
        group(broker, &mut samples, META_GROUP, &labels);
    }
    let mut ends = Ends::new();
    let mut topics = BTreeMap::new();
    for some in broker.placement().partitions().chunks(PARTITIONS_AT_ONCE) {
        for partition in some {
            let partition = partition.borrow();
            one_partition(broker, &mut samples, &partition);
            *topics.entry(partition.identity().topic.clone()).or_default() += traffic(&partition);
            if partition.is_leader() {
                let identity = partition.identity();
                let ends = ends.entry(identity.topic.clone()).or_default();
                ends.insert(identity.partition, partition.high_watermark());
            }
        }
        broker.shard().yield_now().await;
    }
    topics.iter().for_each(|(topic, traffic)| one_topic(&mut samples, topic, traffic));
    let (committed, committed_in_all) =
        broker.coordinators().committed(broker.options().consumer_lag_series_max);
    Gathered { samples, committed, committed_in_all, ends }
}

fn shard(broker: &Broker, samples: &mut Samples) {
    let labels = &shard_labels(broker);
    let stats = broker.stats();
    let mut counter = |name, help, value| samples.counter(name, help, labels, value);
    counter("chronik_bytes_in_total", "Bytes of batches appended.", stats.bytes_in());
    counter("chronik_records_in_total", "Records appended.", stats.records_in());
    counter("chronik_bytes_out_total", "Bytes of batches sent to consumers.", stats.bytes_out());
    let help = "Sizes of the batches appended, as they came.";
    samples.sizes("chronik_batch_bytes", help, labels, &stats.batch_bytes());
    let (groups, members) = broker.coordinators().sizes();
    let placement = broker.placement();
    let mut gauge = |name, help, value: usize| samples.gauge(name, help, labels, value as f64);
    let help = "Partitions that the shard owns.";
    gauge("chronik_shard_partitions", help, placement.partitions().len());
    let help = "Partitions that cannot be served.";
    gauge("chronik_offline_partitions", help, placement.offline().len());
    let help = "Incremental fetch sessions.";
    gauge("chronik_fetch_sessions", help, broker.sessions().borrow().len());
    gauge("chronik_groups", "Consumer groups that the shard coordinates.", groups);
    gauge(
        "chronik_group_members",
        "Members of the consumer groups that the shard coordinates.",
        members,
    );
}

/// The labels of everything that is counted by shard.
pub(crate) fn shard_labels(broker: &Broker) -> Labels {
    Labels::of(&[("shard", &broker.shard().id().to_string())])
}

fn one_partition(broker: &Broker, samples: &mut Samples, partition: &Partition) {
    let identity = partition.identity();
    let number = identity.partition.to_string();
    let labels = Labels::of(&[("topic", &identity.topic), ("partition", &number)]);
    group(broker, samples, identity.owner.group, &labels);
    let mut gauge = |name, help, value: f64| samples.gauge(name, help, &labels, value);
    let help = "Offset of the first record that is not deleted.";
    gauge("chronik_partition_log_start_offset", help, partition.log_start() as f64);
    let help = "Offset behind the last committed record.";
    gauge("chronik_partition_high_watermark", help, partition.high_watermark() as f64);
    let help = "Bytes of the partition's batches.";
    gauge("chronik_partition_size_bytes", help, partition.log().size_bytes() as f64);
}

/// The Raft families, in the text form that operators' scripts match: topic, then partition.
fn group(broker: &Broker, samples: &mut Samples, group: GroupId, labels: &Labels) {
    let Some(status) = broker.groups().status(group) else { return };
    let leads = f64::from(u8::from(status.is_leader));
    let mut gauge = |name, help, value: f64| samples.gauge(name, help, labels, value);
    gauge("raft_leader", "1 if this node leads the partition.", leads);
    gauge("raft_is_leader", "1 if this node leads the partition.", leads);
    gauge("raft_term", "Raft term.", status.term.0 as f64);
    gauge("raft_commit_index", "Last committed index.", status.commit.0 as f64);
    gauge("raft_applied_index", "Last applied index.", status.applied.0 as f64);
    // A group has one voter for now, and that one is in sync.
    gauge("partition_isr_size", "In-sync replicas.", 1.0);
    gauge("partition_has_min_isr", "1 if acks=all is accepted.", leads);
}

/// What a topic's partitions counted.
#[derive(Clone, Copy, Default)]
struct Traffic {
    bytes_in: u64,
    records_in: u64,
    bytes_out: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.bytes_in += other.bytes_in;
        self.records_in += other.records_in;
        self.bytes_out += other.bytes_out;
    }
}

fn traffic(partition: &Partition) -> Traffic {
    let counted = partition.traffic();
    Traffic {
        bytes_in: counted.bytes_in.get(),
        records_in: counted.records_in.get(),
        bytes_out: counted.bytes_out.get(),
    }
}

fn one_topic(samples: &mut Samples, topic: &str, traffic: &Traffic) {
    let labels = Labels::of(&[("topic", topic)]);
    let mut counter = |name, help, value| samples.counter(name, help, &labels, value);
    let help = "Bytes of batches appended, by topic.";
    counter("chronik_topic_bytes_in_total", help, traffic.bytes_in);
    counter("chronik_topic_records_in_total", "Records appended, by topic.", traffic.records_in);
    let help = "Bytes of batches read for consumers, by topic.";
    counter("chronik_topic_bytes_out_total", help, traffic.bytes_out);
}

/// How far groups are behind the ends of their partitions. A group is coordinated on one shard and
/// its partitions are owned by all, so the two are put together here.
fn lag(samples: &mut Samples, shards: &[Gathered], series_max: u32) {
    let mut ends = BTreeMap::new();
    for (topic, of_shard) in shards.iter().flat_map(|shard| &shard.ends) {
        let of_topic: &mut BTreeMap<i32, i64> = ends.entry(topic.as_ref()).or_default();
        of_topic.extend(of_shard);
    }
    let shown = shards.iter().flat_map(|shard| &shard.committed).take(series_max as usize);
    let mut count = 0;
    for committed in shown {
        count += 1;
        let end = ends.get(committed.topic.as_str()).and_then(|of| of.get(&committed.partition));
        let Some(end) = end else { continue };
        let labels = Labels::of(&[
            ("group", &committed.group),
            ("topic", &committed.topic),
            ("partition", &committed.partition.to_string()),
        ]);
        let help = "Records between a group's committed offset and the partition's end.";
        let behind = (end - committed.offset).max(0);
        samples.gauge("chronik_consumer_lag_records", help, &labels, behind as f64);
    }
    let all: usize = shards.iter().map(|shard| shard.committed_in_all).sum();
    let help = "Committed offsets without a lag series, because of consumer_lag_series_max.";
    let omitted = (all - count) as f64;
    samples.gauge("chronik_consumer_lag_omitted_series", help, &Labels::none(), omitted);
}
