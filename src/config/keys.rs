//! The table of all options, in the order of the reference.

use shards::options::{Acknowledge, FlushMode};

use super::registry::{Default, Key, Section, Target};
use super::value::{Kind, Value};
use super::Config;

const ACKNOWLEDGE: [(&str, Acknowledge); 2] =
    [("always", Acknowledge::Durable), ("relaxed", Acknowledge::Relaxed)];
const WAL_FLUSH: [(&str, FlushMode); 3] =
    [("auto", FlushMode::Probed), ("dsync", FlushMode::Dsync), ("fdatasync", FlushMode::Fdatasync)];

const MIB: i64 = 1 << 20;
const LONG: i64 = i64::MAX;
const INT: i64 = i32::MAX as i64;

const fn key(
    section: Section,
    name: &'static str,
    kind: Kind,
    default: Default,
    doc: &'static str,
    set: fn(&mut Config, &Value),
) -> Key {
    let target = Target::Field(set);
    Key { name, aliases: &[], environment: &[], section, kind, default, doc, target }
}

const fn kafka(
    section: Section,
    name: &'static str,
    kafka: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Key {
    let (default, target) = (Default::Is(default), Target::Kafka(kafka));
    Key { name, aliases: &[], environment: &[], section, kind, default, doc, target }
}

/// Every option.
pub static KEYS: &[Key] = &[
    key(
        Section::Node,
        "node_id",
        Kind::Integer { min: 0, max: 255 },
        Default::Is("1"),
        "The broker's id, as clients see it. It belongs to the data folder: it is written there at \
         the first start, and a start with another id is refused.",
        |config, value| config.node_id = value.number(),
    ),
    key(
        Section::Node,
        "advertised_addr",
        Kind::Host,
        Default::Unset("each client is told the address that its own connection reached"),
        "The host name or address that clients are told to connect to. Set it when clients reach \
         this broker through a name, a proxy or a container's published port.",
        |config, value| config.advertised_addr = Some(value.text()),
    ),
    key(
        Section::Node,
        "advertised_port",
        Kind::Integer { min: 1, max: 65_535 },
        Default::Unset("the port that the broker listens on"),
        "The port that clients are told to connect to.",
        |config, value| config.advertised_port = Some(value.number()),
    ),
    key(
        Section::Node,
        "kafka_port",
        Kind::Integer { min: 0, max: 65_535 },
        Default::Is("9092"),
        "The port for Kafka clients, metrics and health. 0 takes a free one and prints it.",
        |config, value| config.kafka_port = value.number(),
    ),
    key(
        Section::Node,
        "bind_addr",
        Kind::Address,
        Default::Is("0.0.0.0"),
        "The address to listen on. 0.0.0.0 means every address of this machine, IPv6 included.",
        |config, value| config.bind_addr = value.address(),
    ),
    key(
        Section::Node,
        "admin_port",
        Kind::Integer { min: 0, max: 65_535 },
        Default::Unset("metrics and health have no port of their own"),
        "A port for metrics and health alone, for networks in which the Kafka port is closed to \
         them. 0 takes a free one and prints it.",
        |config, value| config.admin_port = Some(value.number()),
    ),
    key(
        Section::Node,
        "http_on_kafka_port",
        Kind::Bool,
        Default::Is("true"),
        "Whether the Kafka port answers HTTP requests for metrics and health too.",
        |config, value| config.http_on_kafka_port = value.flag(),
    ),
    key(
        Section::Node,
        "data_dir",
        Kind::Path,
        Default::Is("./data"),
        "The folder that holds everything this broker keeps. One process at a time may use it.",
        |config, value| config.data_dir = value.text().into(),
    ),
    key(
        Section::Node,
        "shards",
        Kind::Integer { min: 1, max: 1_024 },
        Default::Unset("one per CPU that this process may use"),
        "How many shards to run. Each is one thread with its own log and listener. The number may \
         change between starts: the logs are moved over at the next start.",
        |config, value| config.shards = Some(value.number()),
    ),
    kafka(
        Section::Topics,
        "auto_create_topics_enable",
        "auto.create.topics.enable",
        Kind::Bool,
        "true",
        "Whether a topic comes into being when a client first asks for it.",
    ),
    kafka(
        Section::Topics,
        "delete_topic_enable",
        "delete.topic.enable",
        Kind::Bool,
        "true",
        "Whether topics can be deleted.",
    ),
    kafka(
        Section::Topics,
        "num_partitions",
        "num.partitions",
        Kind::Integer { min: 1, max: INT },
        "1",
        "Partitions of a topic that is created without saying how many.",
    ),
    Key {
        aliases: &["default_replication_factor"],
        ..kafka(
            Section::Topics,
            "replication_factor",
        "default.replication.factor",
            Kind::Integer { min: 1, max: i16::MAX as i64 },
            "1",
            "Replicas of a topic that is created without saying how many.",
        )
    },
    kafka(
        Section::Topics,
        "min_insync_replicas",
        "min.insync.replicas",
        Kind::Integer { min: 1, max: INT },
        "1",
        "How many replicas must be in sync before a write with acks=all is taken. What counts is \
         the smaller of this and the topic's number of replicas.",
    ),
    kafka(
        Section::Topics,
        "message_max_bytes",
        "message.max.bytes",
        Kind::Bytes { min: 0, max: INT },
        "1048588",
        "The largest record batch that a topic takes unless it has its own max.message.bytes. It \
         is counted as it travels, compressed.",
    ),
    kafka(
        Section::Topics,
        "compression_type",
        "compression.type",
        Kind::Choice(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        "producer",
        "How a topic's batches are kept unless it says otherwise. `producer`: as they came.",
    ),
    kafka(
        Section::Topics,
        "log_message_timestamp_type",
        "log.message.timestamp.type",
        Kind::Choice(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "Whose time a record carries unless its topic says otherwise: its producer's, or the \
         broker's at arrival.",
    ),
    kafka(
        Section::Topics,
        "log_segment_bytes",
        "log.segment.bytes",
        Kind::Bytes { min: MIB, max: INT },
        "1073741824",
        "The size at which a partition's segment file is closed and the next one begun.",
    ),
    kafka(
        Section::Topics,
        "log_roll_ms",
        "log.roll.ms",
        Kind::Millis { min: 1, max: LONG },
        "604800000",
        "The age at which a segment file is closed even when it is not full.",
    ),
    kafka(
        Section::Topics,
        "log_retention_ms",
        "log.retention.ms",
        Kind::Millis { min: -1, max: LONG },
        "604800000",
        "How long records are kept. -1 keeps them for ever.",
    ),
    kafka(
        Section::Topics,
        "log_retention_bytes",
        "log.retention.bytes",
        Kind::Bytes { min: -1, max: LONG },
        "-1",
        "How much of each partition is kept. -1 sets no limit.",
    ),
    kafka(
        Section::Topics,
        "log_retention_check_interval_ms",
        "log.retention.check.interval.ms",
        Kind::Millis { min: 1, max: LONG },
        "300000",
        "How often the retention limits are applied.",
    ),
    key(
        Section::Durability,
        "flush",
        Kind::Choice(&["always", "relaxed"]),
        Default::Is("always"),
        "When a producer is answered. `always`: its records are durable on disk. `relaxed`: they \
         are in memory on their way there, and a crash of the machine can lose them.",
        |config, value| config.acknowledge = value.word(&ACKNOWLEDGE),
    ),
    key(
        Section::Durability,
        "wal_sync",
        Kind::Choice(&["auto", "dsync", "fdatasync"]),
        Default::Is("auto"),
        "How the write-ahead log is made durable. `auto` measures both ways at the first start and \
         keeps the faster: O_DSYNC writes, or write and fdatasync.",
        |config, value| config.wal_flush = value.word(&WAL_FLUSH),
    ),
    key(
        Section::Durability,
        "wal_budget_bytes",
        Kind::Bytes { min: 64 * MIB, max: LONG },
        Default::Is("1073741824"),
        "The disk space of the write-ahead logs of all shards together. It is written in advance, \
         so that the log itself never meets a full disk.",
        |config, value| config.wal_budget_bytes = value.number(),
    ),
    key(
        Section::Durability,
        "staged_min_bytes",
        Kind::Bytes { min: 4_232, max: INT },
        Default::Is("131072"),
        "Batches from this length on are written once, straight to their segment, and the \
         write-ahead log points to them; shorter ones are written to both.",
        |config, value| config.staged_min_bytes = value.number(),
    ),
    key(
        Section::Durability,
        "disk_reserve_bytes",
        Kind::Bytes { min: 0, max: LONG },
        Default::Is("1073741824"),
        "Below this much free space writes are refused with a retriable error; reads, deletes and \
         retention go on.",
        |config, value| config.disk_reserve_bytes = value.number(),
    ),
    kafka(
        Section::Groups,
        "group_min_session_timeout_ms",
        "group.min.session.timeout.ms",
        Kind::Millis { min: 1, max: INT },
        "6000",
        "The shortest session timeout that a consumer may ask for.",
    ),
    kafka(
        Section::Groups,
        "group_max_session_timeout_ms",
        "group.max.session.timeout.ms",
        Kind::Millis { min: 1, max: INT },
        "1800000",
        "The longest session timeout that a consumer may ask for.",
    ),
    kafka(
        Section::Groups,
        "group_initial_rebalance_delay_ms",
        "group.initial.rebalance.delay.ms",
        Kind::Millis { min: 0, max: INT },
        "0",
        "How long an empty group waits for more members before its first assignment.",
    ),
    kafka(
        Section::Groups,
        "group_max_size",
        "group.max.size",
        Kind::Integer { min: 1, max: INT },
        "2147483647",
        "The most members that one group may have.",
    ),
    kafka(
        Section::Groups,
        "offsets_topic_num_partitions",
        "offsets.topic.num.partitions",
        Kind::Integer { min: 1, max: 10_000 },
        "50",
        "Partitions of __consumer_offsets. It takes effect when that topic is created, at the first \
         use of a group; after that it must not change.",
    ),
    kafka(
        Section::Groups,
        "offsets_retention_minutes",
        "offsets.retention.minutes",
        Kind::Minutes { min: 1, max: INT },
        "10080",
        "How long the offsets of a group without members are kept.",
    ),
    kafka(
        Section::Groups,
        "offset_metadata_max_bytes",
        "offset.metadata.max.bytes",
        Kind::Bytes { min: 0, max: INT },
        "4096",
        "The longest text that a consumer may store with an offset.",
    ),
    key(
        Section::Limits,
        "cache_memory_bytes",
        Kind::Bytes { min: 16 * MIB, max: LONG },
        Default::Is("134217728"),
        "Memory, over all shards, for records on their way to segment files and for recent ones \
         kept ready for consumers.",
        |config, value| config.cache_memory_bytes = value.number(),
    ),
    key(
        Section::Limits,
        "request_memory_bytes",
        Kind::Bytes { min: 16 * MIB, max: LONG },
        Default::Is("536870912"),
        "Memory, over all shards, for requests that are being received or answered. When it is \
         used up the broker stops reading from its clients until it is not.",
        |config, value| config.request_memory_bytes = value.number(),
    ),
    kafka(
        Section::Limits,
        "max_connections",
        "max.connections",
        Kind::Integer { min: 1, max: INT },
        "2147483647",
        "The most client connections at once; one more is closed at once. Never more than the \
         limit of open files leaves, which the start screen shows.",
    ),
    kafka(
        Section::Limits,
        "max_connections_per_ip",
        "max.connections.per.ip",
        Kind::Integer { min: 0, max: INT },
        "2147483647",
        "The most client connections from one address; one more is closed at once. By default half \
         of what the limit of open files leaves.",
    ),
    Key {
        default: Default::Unset("no address has a limit of its own"),
        ..kafka(
            Section::Limits,
            "max_connections_per_ip_overrides",
            "max.connections.per.ip.overrides",
            Kind::Text,
            "",
            "Limits of single addresses, as `10.0.0.7:500,::1:50`, instead of \
             max_connections_per_ip.",
        )
    },
    kafka(
        Section::Limits,
        "max_connection_creation_rate",
        "max.connection.creation.rate",
        Kind::Integer { min: 1, max: INT },
        "2147483647",
        "The most new client connections a second; the rest wait to be accepted.",
    ),
    kafka(
        Section::Limits,
        "connections_max_idle_ms",
        "connections.max.idle.ms",
        Kind::Millis { min: 1_000, max: LONG },
        "600000",
        "A connection without a request for this long is closed.",
    ),
    kafka(
        Section::Limits,
        "socket_request_max_bytes",
        "socket.request.max.bytes",
        Kind::Bytes { min: 1_024, max: INT },
        "104857600",
        "The largest request; a larger one closes its connection.",
    ),
    kafka(
        Section::Limits,
        "fetch_max_bytes",
        "fetch.max.bytes",
        Kind::Bytes { min: 1_024, max: INT },
        "57671680",
        "The largest answer to one fetch, whatever the client allows.",
    ),
    kafka(
        Section::Limits,
        "max_incremental_fetch_session_cache_slots",
        "max.incremental.fetch.session.cache.slots",
        Kind::Integer { min: 0, max: INT },
        "1000",
        "How many fetch sessions are remembered.",
    ),
    kafka(
        Section::Limits,
        "producer_id_expiration_ms",
        "producer.id.expiration.ms",
        Kind::Millis { min: 1, max: INT },
        "86400000",
        "How long a partition remembers an idempotent producer after its last batch.",
    ),
    key(
        Section::Operations,
        "consumer_lag_series_max",
        Kind::Integer { min: 0, max: 1_000_000 },
        Default::Is("10000"),
        "How many series of consumer lag /metrics shows, one for each group and partition. Beyond \
         it the rest is counted only; 0 shows none.",
        |config, value| config.consumer_lag_series_max = value.number(),
    ),
    Key {
        environment: &["RUST_LOG"],
        ..key(
            Section::Operations,
            "log_filter",
            Kind::Text,
            Default::Is("info"),
            "Which log lines are written: a level, or a list such as `info,chronik_wal=debug`. A \
             SIGHUP reads it again from the configuration file.",
            |config, value| config.log_filter = value.text(),
        )
    },
];
