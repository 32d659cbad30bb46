//! The broker configurations that clients, tools and suites ask for, of the 316 of Kafka 4.1.
//! Constant data.
//!
//! Whoever sets a dynamic key here gets what Kafka gives: success, and the value in Describe with
//! its source. Keys without effect say why.

use super::definition::{Definition, Effect, Rule, Type};
use Rule::{Any, AtLeast, Between, Fraction, OneOf};
use Type::{Boolean, Class, Double, Int, List, Long, Short, String};

/// A broker configuration and who may change it.
#[derive(Clone, Copy, Debug)]
pub struct BrokerKey {
    pub definition: Definition,
    pub mode: Mode,
    /// Keys that stand in when this one is not set, weaker ones last; begins with the key itself.
    pub chain: &'static [&'static str],
}

/// How a broker key can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Read at start.
    ReadOnly,
    /// Kafka changes it while running, this broker reads it at start: shown as changeable, refused.
    Fixed,
    /// Per broker, not for all of them at once.
    PerBroker,
    /// Per broker and for all.
    ClusterWide,
}

use Mode::{ClusterWide, Fixed, PerBroker, ReadOnly};

const THREADS: Effect = Effect::None("every core runs one shard, whatever the number asked for");
const COMPACTION: Effect =
    Effect::None("compacted topics are kept whole; cleaning is not built yet");
const DURABLE: Effect = Effect::None(
    "every acknowledged record is durable already, which is stronger than any interval",
);
const TOPIC_ONLY: Effect =
    Effect::None("it is the default of a topic key that has no effect itself");
const THROTTLE: Effect = Effect::None("replication is not throttled");
const TRANSACTIONS: Effect = Effect::None("transactions are not served yet");
const KERBEROS: Effect = Effect::None("Kerberos is not served");
const MAX: Option<&str> = Some("9223372036854775807");
const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

/// By name.
#[rustfmt::skip]
pub static BROKER_KEYS: &[BrokerKey] = &[
    row("advertised.listeners", String, None, Any, ReadOnly, "Addresses that clients are told to connect to."),
    row("authorizer.class.name", String, Some(""), Any, ReadOnly, "Who decides what a client may do; empty: everybody may do everything."),
    row("auto.create.topics.enable", Boolean, Some("true"), Any, ReadOnly, "Whether asking for the metadata of an unknown topic creates it."),
    row("background.threads", Int, Some("10"), AtLeast(1), ClusterWide, "Threads for background work.").without(THREADS),
    row("broker.id", Int, Some("-1"), Any, ReadOnly, "This broker's id; the same as node.id."),
    row("broker.rack", String, None, Any, ReadOnly, "Where this broker stands; replicas are spread over racks."),
    row("compression.gzip.level", Int, Some("-1"), Rule::GzipLevel, ClusterWide, "Default of the topic key of the same name."),
    row("compression.lz4.level", Int, Some("9"), Between(1, 17), ClusterWide, "Default of the topic key of the same name."),
    row("compression.type", String, Some("producer"), OneOf(CODECS), ClusterWide, "Default of the topic key of the same name."),
    row("compression.zstd.level", Int, Some("3"), Between(-131_072, 22), ClusterWide, "Default of the topic key of the same name."),
    row("connections.max.idle.ms", Long, Some("600000"), Any, ReadOnly, "Time after which a silent connection is closed."),
    row("default.replication.factor", Int, Some("1"), AtLeast(1), ReadOnly, "Replicas of topics that are created without a number."),
    row("delete.topic.enable", Boolean, Some("true"), Any, ReadOnly, "Whether topics can be deleted."),
    row("fetch.max.bytes", Int, Some("57671680"), AtLeast(1024), ReadOnly, "Largest answer to one Fetch, whatever the client allows."),
    row("follower.replication.throttled.rate", Long, MAX, AtLeast(0), PerBroker, "Bytes a second that throttled followers may fetch.").without(THROTTLE),
    row("group.initial.rebalance.delay.ms", Int, Some("0"), Any, ReadOnly, "How long an empty group waits for more members before its first rebalance. Kafka's own default is 3000."),
    row("group.max.session.timeout.ms", Int, Some("1800000"), Any, ReadOnly, "Longest session timeout that a group member may ask for."),
    row("group.max.size", Int, Some("2147483647"), AtLeast(1), ReadOnly, "Most members of one group."),
    row("group.min.session.timeout.ms", Int, Some("6000"), Any, ReadOnly, "Shortest session timeout that a group member may ask for."),
    row("leader.replication.throttled.rate", Long, MAX, AtLeast(0), PerBroker, "Bytes a second that leaders may send to throttled followers.").without(THROTTLE),
    row("listeners", String, Some("PLAINTEXT://:9092"), Any, Fixed, "Addresses this broker listens on."),
    row("log.cleaner.backoff.ms", Long, Some("15000"), AtLeast(0), ClusterWide, "Pause of the cleaner when there is nothing to clean.").without(COMPACTION),
    row("log.cleaner.dedupe.buffer.size", Long, Some("134217728"), Any, ClusterWide, "Memory for the cleaner's map of keys.").without(COMPACTION),
    row("log.cleaner.delete.retention.ms", Long, Some("86400000"), AtLeast(0), ClusterWide, "Default of delete.retention.ms.").without(TOPIC_ONLY),
    row("log.cleaner.io.buffer.load.factor", Double, Some("0.9"), Any, ClusterWide, "How full the cleaner's map of keys may become.").without(COMPACTION),
    row("log.cleaner.io.buffer.size", Int, Some("524288"), AtLeast(0), ClusterWide, "Memory for the cleaner's reads and writes.").without(COMPACTION),
    row("log.cleaner.io.max.bytes.per.second", Double, None, Any, ClusterWide, "Limit of the cleaner's reads and writes.").without(COMPACTION),
    row("log.cleaner.max.compaction.lag.ms", Long, MAX, AtLeast(1), ClusterWide, "Default of max.compaction.lag.ms.").without(TOPIC_ONLY),
    row("log.cleaner.min.cleanable.ratio", Double, Some("0.5"), Fraction, ClusterWide, "Default of min.cleanable.dirty.ratio.").without(TOPIC_ONLY),
    row("log.cleaner.min.compaction.lag.ms", Long, Some("0"), AtLeast(0), ClusterWide, "Default of min.compaction.lag.ms.").without(TOPIC_ONLY),
    row("log.cleaner.threads", Int, Some("1"), AtLeast(0), ClusterWide, "Threads that clean compacted logs.").without(COMPACTION),
    row("log.cleanup.policy", List, Some("delete"), OneOf(&["compact", "delete"]), ClusterWide, "Default of cleanup.policy."),
    row("log.dir", String, Some("./data"), Any, ReadOnly, "The data folder, when log.dirs is not given."),
    row("log.dirs", String, None, Any, ReadOnly, "The data folder."),
    row("log.flush.interval.messages", Long, MAX, AtLeast(1), ClusterWide, "Default of flush.messages.").without(DURABLE),
    row("log.flush.interval.ms", Long, None, Any, ClusterWide, "Default of flush.ms.").without(DURABLE),
    row("log.index.interval.bytes", Int, Some("4096"), AtLeast(0), ClusterWide, "Default of index.interval.bytes."),
    row("log.index.size.max.bytes", Int, Some("10485760"), AtLeast(4), ClusterWide, "Default of segment.index.bytes.").without(TOPIC_ONLY),
    row("log.local.retention.bytes", Long, Some("-2"), AtLeast(-2), ClusterWide, "Default of local.retention.bytes.").without(TOPIC_ONLY),
    row("log.local.retention.ms", Long, Some("-2"), AtLeast(-2), ClusterWide, "Default of local.retention.ms.").without(TOPIC_ONLY),
    row("log.message.timestamp.after.max.ms", Long, Some("3600000"), AtLeast(0), ClusterWide, "Default of message.timestamp.after.max.ms."),
    row("log.message.timestamp.before.max.ms", Long, MAX, AtLeast(0), ClusterWide, "Default of message.timestamp.before.max.ms."),
    row("log.message.timestamp.type", String, Some("CreateTime"), OneOf(&["CreateTime", "LogAppendTime"]), ClusterWide, "Default of message.timestamp.type."),
    row("log.preallocate", Boolean, Some("false"), Any, ClusterWide, "Default of preallocate.").without(TOPIC_ONLY),
    row("log.retention.bytes", Long, Some("-1"), Any, ClusterWide, "Default of retention.bytes."),
    row("log.retention.check.interval.ms", Long, Some("300000"), AtLeast(1), ReadOnly, "Time between two looks for records to delete."),
    row("log.retention.hours", Int, Some("168"), Any, ReadOnly, "Default of retention.ms, in hours, when neither log.retention.ms nor log.retention.minutes is set."),
    row("log.retention.minutes", Int, None, Any, ReadOnly, "Default of retention.ms, in minutes, when log.retention.ms is not set.").or(&["log.retention.minutes", "log.retention.hours"]),
    row("log.retention.ms", Long, None, Any, ClusterWide, "Default of retention.ms.").or(&["log.retention.ms", "log.retention.minutes", "log.retention.hours"]),
    row("log.roll.hours", Int, Some("168"), AtLeast(1), ReadOnly, "Default of segment.ms, in hours, when log.roll.ms is not set."),
    row("log.roll.jitter.hours", Int, Some("0"), AtLeast(0), ReadOnly, "Default of segment.jitter.ms, in hours, when log.roll.jitter.ms is not set."),
    row("log.roll.jitter.ms", Long, None, Any, ClusterWide, "Default of segment.jitter.ms.").or(&["log.roll.jitter.ms", "log.roll.jitter.hours"]),
    row("log.roll.ms", Long, None, Any, ClusterWide, "Default of segment.ms.").or(&["log.roll.ms", "log.roll.hours"]),
    row("log.segment.bytes", Int, Some("1073741824"), AtLeast(1_048_576), ClusterWide, "Default of segment.bytes."),
    row("log.segment.delete.delay.ms", Long, Some("60000"), AtLeast(0), ClusterWide, "Default of file.delete.delay.ms.").without(TOPIC_ONLY),
    row("max.connection.creation.rate", Int, Some("2147483647"), AtLeast(0), ClusterWide, "Most new connections a second; the rest wait to be accepted."),
    row("max.connections", Int, Some("2147483647"), AtLeast(0), ClusterWide, "Most connections to this broker; never more than the limit of open files leaves. One more is closed at once."),
    row("max.connections.per.ip", Int, Some("2147483647"), AtLeast(0), ClusterWide, "Most connections from one address. At the default, half of what the limit of open files leaves."),
    row("max.connections.per.ip.overrides", String, Some(""), Rule::AddressLimits, ClusterWide, "Limits of single addresses, as address:count,address:count. Names are not resolved."),
    row("max.incremental.fetch.session.cache.slots", Int, Some("1000"), AtLeast(0), ReadOnly, "Fetch sessions that are kept."),
    row("message.max.bytes", Int, Some("1048588"), AtLeast(0), ClusterWide, "Default of max.message.bytes."),
    row("min.insync.replicas", Int, Some("1"), AtLeast(1), ClusterWide, "Default of the topic key of the same name."),
    row("node.id", Int, None, AtLeast(0), ReadOnly, "This broker's id."),
    row("num.io.threads", Int, Some("8"), AtLeast(1), ClusterWide, "Threads that work on requests.").without(THREADS),
    row("num.network.threads", Int, Some("3"), AtLeast(1), ClusterWide, "Threads that read and write sockets.").without(THREADS),
    row("num.partitions", Int, Some("1"), AtLeast(1), ReadOnly, "Partitions of topics that are created without a number."),
    row("num.recovery.threads.per.data.dir", Int, Some("2"), AtLeast(1), ClusterWide, "Threads that recover logs at start.").without(THREADS),
    row("num.replica.fetchers", Int, Some("1"), Any, ClusterWide, "Threads that fetch from each other broker.").without(THREADS),
    row("offset.metadata.max.bytes", Int, Some("4096"), Any, ReadOnly, "Longest text that a consumer may commit with an offset."),
    row("offsets.retention.check.interval.ms", Long, Some("600000"), AtLeast(1), ReadOnly, "Time between two looks for committed offsets to forget."),
    row("offsets.retention.minutes", Int, Some("10080"), AtLeast(1), ReadOnly, "How long the offsets of an empty group are kept."),
    row("offsets.topic.num.partitions", Int, Some("50"), AtLeast(1), ReadOnly, "Partitions of __consumer_offsets; fixed once the topic exists."),
    row("offsets.topic.replication.factor", Short, Some("1"), AtLeast(1), ReadOnly, "Replicas of __consumer_offsets; fixed once the topic exists."),
    row("principal.builder.class", Class, Some("org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder"), Any, Fixed, "How a connection gets its principal; the name of Kafka's own builder, for tools that look.").without(Effect::None("there is one way")),
    row("process.roles", List, Some("broker,controller"), OneOf(&["broker", "controller"]), ReadOnly, "Every node is both."),
    row("producer.id.expiration.ms", Int, Some("86400000"), AtLeast(1), ClusterWide, "How long a partition remembers an idle producer's sequence numbers."),
    row("replica.lag.time.max.ms", Long, Some("30000"), Any, ReadOnly, "How long a replica may lag and still count as in sync."),
    row("request.timeout.ms", Int, Some("30000"), Any, ReadOnly, "How long this broker waits for another one's answer."),
    row("sasl.kerberos.min.time.before.relogin", Long, Some("60000"), Any, PerBroker, "Time between two attempts to renew a Kerberos ticket.").without(KERBEROS),
    row("socket.request.max.bytes", Int, Some("104857600"), AtLeast(1), ReadOnly, "Largest request."),
    row("transaction.max.timeout.ms", Int, Some("900000"), AtLeast(1), ReadOnly, "Longest timeout that a transaction may ask for.").without(TRANSACTIONS),
    row("transaction.state.log.num.partitions", Int, Some("50"), AtLeast(1), ReadOnly, "Partitions of __transaction_state.").without(TRANSACTIONS),
    row("transaction.state.log.replication.factor", Short, Some("1"), AtLeast(1), ReadOnly, "Replicas of __transaction_state.").without(TRANSACTIONS),
    row("unclean.leader.election.enable", Boolean, Some("false"), Any, ClusterWide, "Default of the topic key of the same name.").without(TOPIC_ONLY),
];

const fn row(
    name: &'static str,
    kind: Type,
    default: Option<&'static str>,
    rule: Rule,
    mode: Mode,
    documentation: &'static str,
) -> BrokerKey {
    let effect = Effect::Full;
    let definition = Definition { name, kind, default, rule, effect, documentation };
    BrokerKey { definition, mode, chain: &[] }
}

impl BrokerKey {
    const fn without(mut self, effect: Effect) -> BrokerKey {
        self.definition.effect = effect;
        self
    }

    const fn or(mut self, chain: &'static [&'static str]) -> BrokerKey {
        self.chain = chain;
        self
    }
}
