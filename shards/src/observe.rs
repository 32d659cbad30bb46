//! What a scrape sees: the counts of every shard, as metric families.
//!
//! The names of this file are read by dashboards; `tests/golden/metrics.txt` pins them.

use wal::GroupId;

use crate::broker::Broker;
use crate::meta::META_GROUP;
use crate::metrics::Samples;

/// Samples of all shards of this node.
pub async fn all_shards(broker: &Broker) -> Samples {
    let mut all = Samples::default();
    for samples in broker.call_all(|broker| async move { one_shard(&broker) }).await {
        all.merge(samples);
    }
    node(broker, &mut all);
    all
}

/// What belongs to the node and not to a shard.
fn node(broker: &Broker, samples: &mut Samples) {
    let image = broker.image();
    let members = image.brokers().len() as f64;
    samples.gauge("cluster_size", "Members of the cluster.", &[], members);
    // One node without peers reaches itself.
    let reachable = members.min(1.0);
    samples.gauge("cluster_quorum_size", "Members that are reachable now.", &[], reachable);
    samples.gauge(
        "chronik_topics",
        "Topics, internal ones included.",
        &[],
        image.topics().len() as f64,
    );
}

fn one_shard(broker: &Broker) -> Samples {
    let mut samples = Samples::default();
    shard(broker, &mut samples);
    if broker.shard().id() == crate::broker::META_SHARD {
        group(broker, &mut samples, META_GROUP, "__meta", 0, 1);
    }
    for partition in broker.placement().partitions() {
        let partition = partition.borrow();
        let identity = partition.identity();
        let group_id = identity.owner.group;
        group(broker, &mut samples, group_id, &identity.topic, identity.partition, 1);
    }
    crate::observe_io::io(broker, &mut samples);
    samples
}

fn shard(broker: &Broker, samples: &mut Samples) {
    let id = broker.shard().id().0.to_string();
    let labels: &[(&str, &str)] = &[("shard", &id)];
    let stats = broker.stats();
    let partitions = broker.placement().partitions().len() as f64;
    samples.gauge(
        "chronik_shard_partitions",
        "Partitions that the shard owns.",
        labels,
        partitions,
    );
    samples.counter(
        "chronik_bytes_in_total",
        "Bytes of batches appended.",
        labels,
        stats.bytes_in(),
    );
    samples.counter("chronik_records_in_total", "Records appended.", labels, stats.records_in());
    samples.counter("chronik_batches_in_total", "Batches appended.", labels, stats.batches_in());
    samples.counter("chronik_bytes_out_total", "Bytes of batches sent.", labels, stats.bytes_out());
    let offline = broker.placement().offline().len() as f64;
    samples.gauge(
        "chronik_offline_partitions",
        "Partitions that cannot be served.",
        labels,
        offline,
    );
    let sessions = broker.sessions().borrow().len() as f64;
    samples.gauge("chronik_fetch_sessions", "Incremental fetch sessions.", labels, sessions);
}

/// The Raft families, in the text form that operators' scripts match: topic, then partition.
fn group(
    broker: &Broker,
    samples: &mut Samples,
    group: GroupId,
    topic: &str,
    partition: i32,
    isr: i32,
) {
    let Some(status) = broker.groups().status(group) else { return };
    let partition = partition.to_string();
    let labels: &[(&str, &str)] = &[("topic", topic), ("partition", &partition)];
    let leads = f64::from(u8::from(status.is_leader));
    samples.gauge("raft_leader", "1 if this node leads the partition.", labels, leads);
    samples.gauge("raft_is_leader", "1 if this node leads the partition.", labels, leads);
    samples.gauge("raft_term", "Raft term.", labels, status.term.0 as f64);
    samples.gauge("raft_commit_index", "Last committed index.", labels, status.commit.0 as f64);
    samples.gauge("raft_applied_index", "Last applied index.", labels, status.applied.0 as f64);
    samples.gauge("partition_isr_size", "In-sync replicas.", labels, f64::from(isr));
    samples.gauge("partition_has_min_isr", "1 if acks=all is accepted.", labels, leads);
}
