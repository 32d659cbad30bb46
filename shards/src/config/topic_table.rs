//! The 33 topic configurations of Kafka 4.1. Constant data.

use super::definition::{Definition, Effect, Rule, Type};

/// A topic configuration and where its default comes from when the topic does not set it.
#[derive(Clone, Copy, Debug)]
pub struct TopicKey {
    pub definition: Definition,
    /// Broker keys that give the default, strongest first. Empty: the table's default only.
    pub synonyms: &'static [Synonymous],
}

/// A broker key and what one unit of it is in the topic key's unit.
#[derive(Clone, Copy, Debug)]
pub struct Synonymous {
    pub name: &'static str,
    pub factor: i64,
}

const fn same(name: &'static str) -> Synonymous {
    Synonymous { name, factor: 1 }
}
const fn minutes(name: &'static str) -> Synonymous {
    Synonymous { name, factor: 60_000 }
}
const fn hours(name: &'static str) -> Synonymous {
    Synonymous { name, factor: 3_600_000 }
}

const COMPACTION: Effect =
    Effect::None("compacted topics are kept whole; cleaning is not built yet");
const DURABLE: Effect = Effect::None(
    "every acknowledged record is durable already, which is stronger than any interval",
);
const TIERED: Effect = Effect::None("there is no tiered storage");
const THROTTLE: Effect = Effect::None("replication is not throttled");
const FILES: Effect = Effect::None("segment files and indexes are laid out by the broker itself");

const MAX: Option<&str> = Some("9223372036854775807");

/// By name.
pub static TOPIC_KEYS: [TopicKey; 33] = [
    row("cleanup.policy", Type::List, Some("delete"), Rule::OneOf(&["compact", "delete"]), &[same("log.cleanup.policy")],
        "What happens to old records: 'delete' removes segments by age and size, 'compact' keeps the last record of each key. Both may be given, separated by a comma; nothing at all keeps everything."),
    row("compression.gzip.level", Type::Int, Some("-1"), Rule::GzipLevel, &[same("compression.gzip.level")],
        "Level used when this topic's records are compressed with gzip by the broker; -1 is the codec's own default."),
    row("compression.lz4.level", Type::Int, Some("9"), Rule::Between(1, 17), &[same("compression.lz4.level")],
        "Level used when this topic's records are compressed with lz4 by the broker."),
    row("compression.type", Type::String, Some("producer"), Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), &[same("compression.type")],
        "Compression of stored batches. 'producer' stores what the producer sent; with another value batches that arrive with another codec are compressed again."),
    row("compression.zstd.level", Type::Int, Some("3"), Rule::Between(-131_072, 22), &[same("compression.zstd.level")],
        "Level used when this topic's records are compressed with zstd by the broker."),
    row("delete.retention.ms", Type::Long, Some("86400000"), Rule::AtLeast(0), &[same("log.cleaner.delete.retention.ms")],
        "How long a compacted topic keeps the marker of a deleted key.").without(COMPACTION),
    row("file.delete.delay.ms", Type::Long, Some("60000"), Rule::AtLeast(0), &[same("log.segment.delete.delay.ms")],
        "How long a file waits between its removal from the log and its deletion.").without(FILES),
    row("flush.messages", Type::Long, MAX, Rule::AtLeast(1), &[same("log.flush.interval.messages")],
        "Number of records after which the log is forced to disk.").without(DURABLE),
    row("flush.ms", Type::Long, MAX, Rule::AtLeast(0), &[same("log.flush.interval.ms")],
        "Time after which the log is forced to disk.").without(DURABLE),
    row("follower.replication.throttled.replicas", Type::List, Some(""), Rule::ThrottledReplicas, &[],
        "Replicas whose fetching as followers is limited: 'partition:broker' elements, or '*' for all.").without(THROTTLE),
    row("index.interval.bytes", Type::Int, Some("4096"), Rule::AtLeast(0), &[same("log.index.interval.bytes")],
        "Bytes of records between two entries of the offset index."),
    row("leader.replication.throttled.replicas", Type::List, Some(""), Rule::ThrottledReplicas, &[],
        "Replicas whose reading from the leader is limited: 'partition:broker' elements, or '*' for all.").without(THROTTLE),
    row("local.retention.bytes", Type::Long, Some("-2"), Rule::AtLeast(-2), &[same("log.local.retention.bytes")],
        "Bytes kept locally when a topic also lies in remote storage; -2 follows retention.bytes.").without(TIERED),
    row("local.retention.ms", Type::Long, Some("-2"), Rule::AtLeast(-2), &[same("log.local.retention.ms")],
        "Time records are kept locally when a topic also lies in remote storage; -2 follows retention.ms.").without(TIERED),
    row("max.compaction.lag.ms", Type::Long, MAX, Rule::AtLeast(1), &[same("log.cleaner.max.compaction.lag.ms")],
        "Longest time that a record may stay uncompacted.").without(COMPACTION),
    row("max.message.bytes", Type::Int, Some("1048588"), Rule::AtLeast(0), &[same("message.max.bytes")],
        "Largest record batch accepted, after compression, with the 12 bytes of its offset and length."),
    row("message.timestamp.after.max.ms", Type::Long, Some("3600000"), Rule::AtLeast(0), &[same("log.message.timestamp.after.max.ms")],
        "How far a record's timestamp may lie ahead of the broker's clock; only with CreateTime."),
    row("message.timestamp.before.max.ms", Type::Long, MAX, Rule::AtLeast(0), &[same("log.message.timestamp.before.max.ms")],
        "How far a record's timestamp may lie behind the broker's clock; only with CreateTime."),
    row("message.timestamp.type", Type::String, Some("CreateTime"), Rule::OneOf(&["CreateTime", "LogAppendTime"]), &[same("log.message.timestamp.type")],
        "Whether records carry the producer's time or the time of their arrival."),
    row("min.cleanable.dirty.ratio", Type::Double, Some("0.5"), Rule::Fraction, &[same("log.cleaner.min.cleanable.ratio")],
        "Share of the log that must be uncompacted before cleaning starts.").without(COMPACTION),
    row("min.compaction.lag.ms", Type::Long, Some("0"), Rule::AtLeast(0), &[same("log.cleaner.min.compaction.lag.ms")],
        "Shortest time that a record stays uncompacted.").without(COMPACTION),
    row("min.insync.replicas", Type::Int, Some("1"), Rule::AtLeast(1), &[same("min.insync.replicas")],
        "In-sync replicas that a write with acks=all needs; never more than the topic has replicas."),
    row("preallocate", Type::Boolean, Some("false"), Rule::Any, &[same("log.preallocate")],
        "Whether a segment file gets its full size when it is created.").without(FILES),
    row("remote.log.copy.disable", Type::Boolean, Some("false"), Rule::Any, &[],
        "Whether a topic in remote storage is only read and expired there.").without(TIERED),
    row("remote.log.delete.on.disable", Type::Boolean, Some("false"), Rule::Any, &[],
        "Whether remote data is deleted when remote storage is switched off.").without(TIERED),
    row("remote.storage.enable", Type::Boolean, Some("false"), Rule::Any, &[],
        "Whether the topic also lies in remote storage. Only false is possible.").without(TIERED),
    row("retention.bytes", Type::Long, Some("-1"), Rule::Any, &[same("log.retention.bytes")],
        "Bytes that a partition may hold before old segments are deleted; a negative value is no limit."),
    row("retention.ms", Type::Long, Some("604800000"), Rule::AtLeast(-1), &[same("log.retention.ms"), minutes("log.retention.minutes"), hours("log.retention.hours")],
        "Age at which records may be deleted; -1 keeps them for ever."),
    row("segment.bytes", Type::Int, Some("1073741824"), Rule::AtLeast(1_048_576), &[same("log.segment.bytes")],
        "Size at which a segment is closed. Records are deleted a segment at a time."),
    row("segment.index.bytes", Type::Int, Some("10485760"), Rule::AtLeast(4), &[same("log.index.size.max.bytes")],
        "Largest size of a segment's index.").without(FILES),
    row("segment.jitter.ms", Type::Long, Some("0"), Rule::AtLeast(0), &[same("log.roll.jitter.ms"), hours("log.roll.jitter.hours")],
        "Random time by which a segment is closed earlier than segment.ms, so that not all are at once."),
    row("segment.ms", Type::Long, Some("604800000"), Rule::AtLeast(1), &[same("log.roll.ms"), hours("log.roll.hours")],
        "Age at which a segment is closed even if it is not full."),
    row("unclean.leader.election.enable", Type::Boolean, Some("false"), Rule::Any, &[same("unclean.leader.election.enable")],
        "Whether a replica that lacks acknowledged records may become leader.")
        .without(Effect::None("leaders are elected by Raft, which never elects such a replica")),
];

const fn row(
    name: &'static str,
    kind: Type,
    default: Option<&'static str>,
    rule: Rule,
    synonyms: &'static [Synonymous],
    documentation: &'static str,
) -> TopicKey {
    let effect = Effect::Full;
    let definition = Definition { name, kind, default, rule, effect, documentation };
    TopicKey { definition, synonyms }
}

impl TopicKey {
    const fn without(mut self, effect: Effect) -> TopicKey {
        self.definition.effect = effect;
        self
    }
}
