//! Every option of the broker, once: name, kind, default, documentation, and where it goes.
//!
//! The file, the environment, the flags, `--help`, `config check` and the reference are all made
//! from [`KEYS`]. A key stands here only when it works. Names are Kafka's own with underscores
//! where Kafka has the setting; the unit is the last word of the name.

use super::value::{Kind, Value};
use super::{Config, Flush, WalSync};

/// The headings of the reference and of `standalone --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    Node,
    Topics,
    Durability,
    Groups,
    Limits,
    Operations,
}

impl Section {
    pub fn title(self) -> &'static str {
        match self {
            Section::Node => "Node and addresses",
            Section::Topics => "Topics",
            Section::Durability => "Durability and disk",
            Section::Groups => "Groups and offsets",
            Section::Limits => "Limits",
            Section::Operations => "Operations",
        }
    }
}

/// What an option is when nobody sets it.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// This text, parsed like any other value.
    Is(&'static str),
    /// Nothing is set; the text says what the broker does then.
    Unset(&'static str),
}

/// One option.
pub struct Key {
    /// As in the file; the flag is this with dashes, the environment variable `CHRONIK_` and this
    /// in capitals.
    pub name: &'static str,
    /// Further names that the file, and as `CHRONIK_` twins the environment, may use.
    pub aliases: &'static [&'static str],
    /// Further environment variables, complete; they yield to the `CHRONIK_` twin.
    pub environment: &'static [&'static str],
    pub section: Section,
    pub kind: Kind,
    pub default: Default,
    /// Whole sentences; the first is what `--help` shows.
    pub doc: &'static str,
    /// Puts a value that `kind` has checked into the configuration.
    pub set: fn(&mut Config, &Value),
}

impl Key {
    pub fn flag(&self) -> String {
        self.name.replace(['_', '.'], "-")
    }

    /// Every environment variable that sets this option, the strongest first.
    pub fn variables(&self) -> Vec<String> {
        let twins = std::iter::once(&self.name).chain(self.aliases).map(|name| twin(name));
        twins.chain(self.environment.iter().map(|name| name.to_string())).collect()
    }

    pub fn summary(&self) -> &'static str {
        self.doc.split_inclusive(". ").next().unwrap_or(self.doc).trim_end()
    }
}

fn twin(name: &str) -> String {
    format!("CHRONIK_{}", name.replace('.', "_").to_ascii_uppercase())
}

/// The option with this name or alias.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name || key.aliases.contains(&name))
}

/// The known name nearest to `name`, if any is near enough to be what was meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    let wanted = name.to_ascii_lowercase().replace(['-', '.'], "_");
    let names = KEYS.iter().flat_map(|key| std::iter::once(&key.name).chain(key.aliases));
    let (distance, found) =
        names.map(|candidate| (edit_distance(&wanted, candidate), *candidate)).min()?;
    (distance <= wanted.len().max(found.len()).div_ceil(3)).then_some(found)
}

/// Levenshtein distance in bytes.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

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
    Key { name, aliases: &[], environment: &[], section, kind, default, doc, set }
}

/// Every option, in the order of the reference.
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
    key(
        Section::Topics,
        "auto_create_topics_enable",
        Kind::Bool,
        Default::Is("true"),
        "Whether a topic comes into being when a client first asks for it.",
        |config, value| config.auto_create_topics_enable = value.bool(),
    ),
    key(
        Section::Topics,
        "num_partitions",
        Kind::Integer { min: 1, max: INT },
        Default::Is("1"),
        "Partitions of a topic that is created without saying how many.",
        |config, value| config.num_partitions = value.number(),
    ),
    Key {
        aliases: &["default_replication_factor"],
        ..key(
            Section::Topics,
            "replication_factor",
            Kind::Integer { min: 1, max: i16::MAX as i64 },
            Default::Is("1"),
            "Replicas of a topic that is created without saying how many.",
            |config, value| config.replication_factor = value.number(),
        )
    },
    key(
        Section::Topics,
        "min_insync_replicas",
        Kind::Integer { min: 1, max: INT },
        Default::Is("1"),
        "How many replicas must be in sync before a write with acks=all is taken. What counts is \
         the smaller of this and the topic's number of replicas.",
        |config, value| config.min_insync_replicas = value.number(),
    ),
    key(
        Section::Topics,
        "message_max_bytes",
        Kind::Bytes { min: 0, max: INT },
        Default::Is("1048588"),
        "The largest record batch that a topic takes unless it has its own max.message.bytes. It \
         is counted as it travels, compressed.",
        |config, value| config.message_max_bytes = value.number(),
    ),
    key(
        Section::Topics,
        "log_segment_bytes",
        Kind::Bytes { min: MIB, max: INT },
        Default::Is("1073741824"),
        "The size at which a partition's segment file is closed and the next one begun.",
        |config, value| config.log_segment_bytes = value.number(),
    ),
    key(
        Section::Topics,
        "log_roll_ms",
        Kind::Millis { min: 1, max: LONG },
        Default::Is("604800000"),
        "The age at which a segment file is closed even when it is not full.",
        |config, value| config.log_roll_ms = value.number(),
    ),
    key(
        Section::Topics,
        "log_retention_ms",
        Kind::Millis { min: -1, max: LONG },
        Default::Is("604800000"),
        "How long records are kept. -1 keeps them for ever.",
        |config, value| config.log_retention_ms = value.number(),
    ),
    key(
        Section::Topics,
        "log_retention_bytes",
        Kind::Bytes { min: -1, max: LONG },
        Default::Is("-1"),
        "How much of each partition is kept. -1 sets no limit.",
        |config, value| config.log_retention_bytes = value.number(),
    ),
    key(
        Section::Topics,
        "log_retention_check_interval_ms",
        Kind::Millis { min: 1, max: LONG },
        Default::Is("300000"),
        "How often the retention limits are applied.",
        |config, value| config.log_retention_check_interval_ms = value.number(),
    ),
    key(
        Section::Durability,
        "flush",
        Kind::Choice(&["always", "relaxed"]),
        Default::Is("always"),
        "When a producer is answered. `always`: its records are durable on disk. `relaxed`: they \
         are in memory on their way there, and a crash of the machine can lose them.",
        |config, value| config.flush = Flush::from_word(&value.text()),
    ),
    key(
        Section::Durability,
        "wal_sync",
        Kind::Choice(&["auto", "dsync", "fdatasync"]),
        Default::Is("auto"),
        "How the write-ahead log is made durable. `auto` measures both ways at the first start and \
         keeps the faster: O_DSYNC writes, or write and fdatasync.",
        |config, value| config.wal_sync = WalSync::from_word(&value.text()),
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
        "disk_reserve_bytes",
        Kind::Bytes { min: 0, max: LONG },
        Default::Is("268435456"),
        "Below this much free space writes are refused with a retriable error; reads, deletes and \
         retention go on.",
        |config, value| config.disk_reserve_bytes = value.number(),
    ),
    key(
        Section::Groups,
        "group_min_session_timeout_ms",
        Kind::Millis { min: 1, max: INT },
        Default::Is("6000"),
        "The shortest session timeout that a consumer may ask for.",
        |config, value| config.group_min_session_timeout_ms = value.number(),
    ),
    key(
        Section::Groups,
        "group_max_session_timeout_ms",
        Kind::Millis { min: 1, max: INT },
        Default::Is("1800000"),
        "The longest session timeout that a consumer may ask for.",
        |config, value| config.group_max_session_timeout_ms = value.number(),
    ),
    key(
        Section::Groups,
        "group_initial_rebalance_delay_ms",
        Kind::Millis { min: 0, max: INT },
        Default::Is("0"),
        "How long an empty group waits for more members before its first assignment.",
        |config, value| config.group_initial_rebalance_delay_ms = value.number(),
    ),
    key(
        Section::Groups,
        "group_max_size",
        Kind::Integer { min: 1, max: INT },
        Default::Is("2147483647"),
        "The most members that one group may have.",
        |config, value| config.group_max_size = value.number(),
    ),
    key(
        Section::Groups,
        "offsets_topic_num_partitions",
        Kind::Integer { min: 1, max: 10_000 },
        Default::Is("50"),
        "Partitions of __consumer_offsets. It takes effect when that topic is created, at the first \
         use of a group; after that it must not change.",
        |config, value| config.offsets_topic_num_partitions = value.number(),
    ),
    key(
        Section::Groups,
        "offsets_retention_minutes",
        Kind::Minutes { min: 1, max: INT },
        Default::Is("10080"),
        "How long the offsets of a group without members are kept.",
        |config, value| config.offsets_retention_minutes = value.number(),
    ),
    key(
        Section::Groups,
        "offset_metadata_max_bytes",
        Kind::Bytes { min: 0, max: INT },
        Default::Is("4096"),
        "The longest text that a consumer may store with an offset.",
        |config, value| config.offset_metadata_max_bytes = value.number(),
    ),
    key(
        Section::Limits,
        "memory_budget_bytes",
        Kind::Bytes { min: 32 * MIB, max: LONG },
        Default::Is("268435456"),
        "Memory for requests in flight and for recent records kept ready for consumers, over all \
         shards. When it is used up the broker stops reading from its clients until it is not.",
        |config, value| config.memory_budget_bytes = value.number(),
    ),
    key(
        Section::Limits,
        "max_connections",
        Kind::Integer { min: 1, max: INT },
        Default::Is("20000"),
        "The most client connections at once; one more is closed at once.",
        |config, value| config.max_connections = value.number(),
    ),
    key(
        Section::Limits,
        "connections_max_idle_ms",
        Kind::Millis { min: 1_000, max: LONG },
        Default::Is("600000"),
        "A connection without a request for this long is closed.",
        |config, value| config.connections_max_idle_ms = value.number(),
    ),
    key(
        Section::Limits,
        "socket_request_max_bytes",
        Kind::Bytes { min: 1_024, max: INT },
        Default::Is("104857600"),
        "The largest request; a larger one closes its connection.",
        |config, value| config.socket_request_max_bytes = value.number(),
    ),
    key(
        Section::Limits,
        "producer_id_expiration_ms",
        Kind::Millis { min: 1, max: INT },
        Default::Is("86400000"),
        "How long a partition remembers an idempotent producer after its last batch.",
        |config, value| config.producer_id_expiration_ms = value.number(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_across_aliases_and_variables() {
        let mut names: Vec<_> =
            KEYS.iter().flat_map(|key| std::iter::once(&key.name).chain(key.aliases)).collect();
        let mut variables: Vec<_> = KEYS.iter().flat_map(Key::variables).collect();
        let (all, all_variables) = (names.len(), variables.len());
        names.sort();
        names.dedup();
        variables.sort();
        variables.dedup();
        assert_eq!((names.len(), variables.len()), (all, all_variables));
    }

    #[test]
    fn the_unit_is_the_last_word_of_the_name() {
        for key in KEYS {
            let expected = match key.kind {
                Kind::Bytes { .. } => Some("_bytes"),
                Kind::Millis { .. } => Some("_ms"),
                Kind::Minutes { .. } => Some("_minutes"),
                _ => None,
            };
            let has = ["_bytes", "_ms", "_minutes"].into_iter().find(|u| key.name.ends_with(u));
            assert_eq!(has, expected, "{}", key.name);
        }
    }

    #[test]
    fn sections_stand_together_and_documentation_is_sentences() {
        let sections: Vec<_> = KEYS.iter().map(|key| key.section).collect();
        assert!(sections.windows(2).all(|pair| pair[0] <= pair[1]));
        for key in KEYS {
            assert!(key.doc.ends_with('.'), "{}", key.name);
            assert!(!key.doc.contains("  "), "{}: {}", key.name, key.doc);
        }
    }

    #[test]
    fn a_typing_error_finds_the_key_that_was_meant() {
        assert_eq!(nearest("num_partition"), Some("num_partitions"));
        assert_eq!(nearest("num.partitions"), Some("num_partitions"));
        assert_eq!(nearest("default.replication.factor"), Some("default_replication_factor"));
        assert_eq!(nearest("kafka_prot"), Some("kafka_port"));
        assert_eq!(nearest("zookeeper"), None);
    }
}
