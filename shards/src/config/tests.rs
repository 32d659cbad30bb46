//! Tests of the configuration tables: Kafka's messages word by word, resolution, sources, and the
//! reference. The expected messages were asked from Apache Kafka 4.1.1.

use std::fmt::Write as _;
use std::sync::Arc;

use uuid::Uuid;

use super::alter::{incremental, replacing, Change, Target, APPEND, DELETE, SET, SUBTRACT};
use super::*;
use crate::meta::{
    AlteredResource, Command, ConfigChange, ConfigResource, Configs, Image, NodeId, State,
};

fn configs(pairs: &[(&str, &str)]) -> Configs {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn settings() -> Settings {
    Settings::new(NodeId(1))
}

/// An image in which these are set on broker 1 and on all brokers.
fn image(own: &[(&str, &str)], all: &[(&str, &str)]) -> Arc<Image> {
    let mut state = State::new();
    let cluster_id = Uuid::from_u128(1);
    state.apply(Command::Found { cluster_id, feature_level: 27 }, 0).unwrap();
    let alter = |resource, pairs: &[(&str, &str)]| AlteredResource {
        resource,
        replace: true,
        changes: pairs
            .iter()
            .map(|(k, v)| ConfigChange { name: (*k).into(), value: Some((*v).into()) })
            .collect(),
    };
    let resources =
        vec![alter(ConfigResource::Broker(NodeId(1)), own), alter(ConfigResource::AllBrokers, all)];
    state.apply(Command::AlterConfigs { resources }, 0).unwrap();
    state.image()
}

fn refused(name: &str, value: &str) -> String {
    topic::validate(&configs(&[(name, value)])).unwrap_err().to_string()
}

#[test]
fn the_tables_are_sorted_and_sound() {
    let topics: Vec<_> = topic::definitions().collect();
    assert_eq!(topics.len(), 33);
    for table in [topics, broker::definitions().collect()] {
        assert!(table.windows(2).all(|pair| pair[0].name < pair[1].name));
        for definition in table {
            if let Some(default) = definition.default {
                assert_eq!(
                    definition.check(default).as_deref(),
                    Ok(default),
                    "{}",
                    definition.name
                );
            }
        }
    }
    let described =
        topic::describe(&Configs::new(), &BrokerView::new(&settings(), &image(&[], &[])));
    for entry in described {
        assert_eq!(entry.value.as_deref(), entry.definition.default, "{}", entry.definition.name);
        assert_eq!(entry.source, Source::Default, "or kafka-topics --describe prints it");
    }
}

#[test]
fn bad_topic_values_are_refused_in_kafkas_words() {
    let throttled = "must be the literal '*' or a list of replicas in the following format: \
                     [partitionId]:[brokerId],[partitionId]:[brokerId],...";
    let cases: &[(&str, &str, &str, &str)] = &[
        ("cleanup.policy", "x", "x", "String must be one of: compact, delete"),
        ("cleanup.policy", "compact,,delete", "", "String must be one of: compact, delete"),
        (
            "compression.type",
            "none",
            "none",
            "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        (
            "compression.type",
            "GZIP",
            "GZIP",
            "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        ("compression.gzip.level", "0", "0", "Value must be between 1 and 9 or equal to -1"),
        ("compression.gzip.level", "x", "x", "Not a number of type INT"),
        ("compression.lz4.level", "0", "0", "Value must be at least 1"),
        ("compression.lz4.level", "18", "18", "Value must be no more than 17"),
        ("compression.zstd.level", "-131073", "-131073", "Value must be at least -131072"),
        ("compression.zstd.level", "23", "23", "Value must be no more than 22"),
        ("delete.retention.ms", "-1", "-1", "Value must be at least 0"),
        (
            "delete.retention.ms",
            "9223372036854775808",
            "9223372036854775808",
            "Not a number of type LONG",
        ),
        ("delete.retention.ms", "1.5", "1.5", "Not a number of type LONG"),
        ("file.delete.delay.ms", "-1", "-1", "Value must be at least 0"),
        ("flush.messages", "0", "0", "Value must be at least 1"),
        ("flush.ms", "-1", "-1", "Value must be at least 0"),
        ("index.interval.bytes", "-1", "-1", "Value must be at least 0"),
        ("local.retention.bytes", "-3", "-3", "Value must be at least -2"),
        ("local.retention.ms", "-3", "-3", "Value must be at least -2"),
        ("max.compaction.lag.ms", "0", "0", "Value must be at least 1"),
        ("max.message.bytes", "2147483648", "2147483648", "Not a number of type INT"),
        ("max.message.bytes", "-1", "-1", "Value must be at least 0"),
        ("message.timestamp.type", "x", "x", "String must be one of: CreateTime, LogAppendTime"),
        ("message.timestamp.before.max.ms", "-1", "-1", "Value must be at least 0"),
        ("message.timestamp.after.max.ms", "-1", "-1", "Value must be at least 0"),
        ("min.cleanable.dirty.ratio", "-0.1", "-0.1", "Value must be at least 0"),
        ("min.cleanable.dirty.ratio", "1.1", "1.1", "Value must be no more than 1"),
        ("min.cleanable.dirty.ratio", "x", "x", "Not a number of type DOUBLE"),
        ("min.compaction.lag.ms", "-1", "-1", "Value must be at least 0"),
        ("min.insync.replicas", "0", "0", "Value must be at least 1"),
        ("preallocate", "yes", "yes", "Expected value to be either true or false"),
        ("remote.storage.enable", "x", "x", "Expected value to be either true or false"),
        ("retention.ms", "abc", "abc", "Not a number of type LONG"),
        ("retention.ms", "", "", "Not a number of type LONG"),
        ("retention.ms", "1_0", "1_0", "Not a number of type LONG"),
        ("retention.ms", "-2", "-2", "Value must be at least -1"),
        ("segment.bytes", "1048575", "1048575", "Value must be at least 1048576"),
        ("segment.index.bytes", "3", "3", "Value must be at least 4"),
        ("segment.jitter.ms", "-1", "-1", "Value must be at least 0"),
        ("segment.ms", "0", "0", "Value must be at least 1"),
        (
            "unclean.leader.election.enable",
            "maybe",
            "maybe",
            "Expected value to be either true or false",
        ),
    ];
    for (name, value, shown, why) in cases {
        let expected = format!("Invalid value {shown} for configuration {name}: {why}");
        assert_eq!(refused(name, value), expected);
    }
    for name in ["follower.replication.throttled.replicas", "leader.replication.throttled.replicas"]
    {
        let expected = format!("Invalid value [1:a] for configuration {name}: {name} {throttled}");
        assert_eq!(refused(name, "1:a"), expected);
    }
    assert_eq!(refused("x", "1"), "Unknown topic config name: x");
    for gone in ["message.format.version", "message.timestamp.difference.max.ms"] {
        assert_eq!(refused(gone, "1"), format!("Unknown topic config name: {gone}"));
    }
    assert_eq!(
        refused("remote.storage.enable", "true"),
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with \
         remote log storage."
    );
    let lags = configs(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")]);
    assert_eq!(
        topic::validate(&lags).unwrap_err().to_string(),
        "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"
    );
    let unknown_first = configs(&[("min.compaction.lag.ms", "x"), ("zzz", "5")]);
    let error = topic::validate(&unknown_first).unwrap_err();
    assert_eq!(error.to_string(), "Unknown topic config name: zzz");
}

#[test]
fn good_topic_values_are_kept_in_canonical_form() {
    let cases = [
        ("cleanup.policy", "compact, delete", "compact,delete"),
        ("cleanup.policy", "", ""),
        ("cleanup.policy", "delete,delete", "delete,delete"),
        ("retention.ms", " 77 ", "77"),
        ("retention.ms", "+5", "5"),
        ("retention.ms", "-1", "-1"),
        ("retention.bytes", "-2", "-2"),
        ("preallocate", "TRUE", "true"),
        ("min.cleanable.dirty.ratio", "1", "1.0"),
        ("min.cleanable.dirty.ratio", ".5", "0.5"),
        ("follower.replication.throttled.replicas", "*", "*"),
        ("follower.replication.throttled.replicas", " 1:1 , 2:2 ", "1:1,2:2"),
        ("min.insync.replicas", "99", "99"),
        ("segment.index.bytes", "4", "4"),
    ];
    for (name, value, kept) in cases {
        assert_eq!(topic::validate(&configs(&[(name, value)])).unwrap()[name], kept, "{name}");
    }
}

#[test]
fn a_topic_resolves_to_typed_values() {
    let settings = settings();
    let nothing = image(&[], &[]);
    let view = BrokerView::new(&settings, &nothing);
    let config = TopicConfig::resolve(&Configs::new(), &view);
    let expected = TopicConfig {
        cleanup: CleanupPolicy { delete: true, compact: false },
        compression: Compression::Producer,
        index_interval_bytes: 4096,
        max_message_bytes: 1_048_588,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        min_insync_replicas: 1,
        retention_bytes: None,
        retention_ms: Some(604_800_000),
        segment_bytes: 1 << 30,
        segment_ms: 604_800_000,
        segment_jitter_ms: 0,
        segment_index_bytes: 10 << 20,
    };
    assert_eq!(config, expected);

    let own = configs(&[
        ("cleanup.policy", "compact,delete"),
        ("compression.type", "gzip"),
        ("compression.gzip.level", "4"),
        ("message.timestamp.type", "LogAppendTime"),
        ("retention.ms", "-1"),
        ("retention.bytes", "1000"),
        ("segment.bytes", "1048576"),
        ("max.message.bytes", "2147483647"),
    ]);
    let config = TopicConfig::resolve(&own, &view);
    assert_eq!(config.cleanup, CleanupPolicy { delete: true, compact: true });
    assert_eq!(config.compression, Compression::Gzip { level: 4 });
    assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
    assert_eq!((config.retention_ms, config.retention_bytes), (None, Some(1000)));
    assert_eq!((config.segment_bytes, config.max_message_bytes), (1 << 20, i32::MAX as u32));
    let neither = TopicConfig::resolve(&configs(&[("cleanup.policy", "")]), &view);
    assert_eq!(neither.cleanup, CleanupPolicy { delete: false, compact: false });
}

#[test]
fn topics_follow_their_brokers_unless_they_say_otherwise() {
    let image = image(&[("log.retention.ms", "200000")], &[("log.retention.ms", "100000")]);
    let settings = settings().with("log.retention.ms", "300000").unwrap();
    let view = BrokerView::new(&settings, &image);
    let entry = |configs: &Configs| {
        let all = topic::describe(configs, &view);
        all.into_iter().find(|d| d.definition.name == "retention.ms").unwrap()
    };
    let chain = |entry: &topic::Described| -> Vec<(&str, String, i8)> {
        entry.synonyms.iter().map(|s| (s.name, s.value.clone(), s.source as i8)).collect()
    };
    let followed = entry(&Configs::new());
    assert_eq!((followed.value.as_deref(), followed.source), (Some("200000"), Source::Broker));
    let from_brokers = [
        ("log.retention.ms", "200000".to_owned(), 2),
        ("log.retention.ms", "100000".to_owned(), 3),
        ("log.retention.ms", "300000".to_owned(), 4),
        ("log.retention.hours", "168".to_owned(), 5),
    ];
    assert_eq!(chain(&followed), from_brokers);
    let own = entry(&configs(&[("retention.ms", "7")]));
    assert_eq!((own.value.as_deref(), own.source), (Some("7"), Source::Topic));
    assert_eq!(chain(&own)[0], ("retention.ms", "7".to_owned(), 1));
    assert_eq!(chain(&own)[1..], from_brokers);
    assert_eq!(TopicConfig::resolve(&Configs::new(), &view).retention_ms, Some(200_000));
}

#[test]
fn retention_in_hours_counts_in_milliseconds() {
    let image = image(&[], &[]);
    let settings = settings().with("log.retention.hours", "2").unwrap();
    let view = BrokerView::new(&settings, &image);
    let described = topic::describe(&Configs::new(), &view);
    let entry = described.iter().find(|d| d.definition.name == "retention.ms").unwrap();
    assert_eq!(entry.value.as_deref(), Some("7200000"));
    assert_eq!(TopicConfig::resolve(&Configs::new(), &view).retention_ms, Some(7_200_000));
}

#[test]
fn synonyms_stand_as_kafka_shows_them() {
    let (settings, image) = (settings(), image(&[], &[]));
    let view = BrokerView::new(&settings, &image);
    let shown = |name: &str| -> Vec<(&str, String, i8)> {
        let all = topic::describe(&Configs::new(), &view);
        let entry = all.into_iter().find(|d| d.definition.name == name).unwrap();
        entry.synonyms.into_iter().map(|s| (s.name, s.value, s.source as i8)).collect()
    };
    assert_eq!(shown("cleanup.policy"), [("log.cleanup.policy", "delete".to_owned(), 5)]);
    assert_eq!(shown("compression.type"), [("compression.type", "producer".to_owned(), 5)]);
    for hidden in
        ["retention.ms", "flush.ms", "segment.ms", "segment.jitter.ms", "remote.storage.enable"]
    {
        assert_eq!(shown(hidden), [], "{hidden}");
    }
}

fn change(name: &str, operation: i8, value: Option<&str>) -> Change {
    Change { name: name.into(), operation, value: value.map(Into::into) }
}

#[test]
fn incremental_changes_of_a_topic() {
    let (settings, image) = (settings(), image(&[], &[]));
    let brokers = &BrokerView::new(&settings, &image);
    let set = Configs::new();
    let run =
        |set: &Configs, changes: &[Change]| incremental(&Target::Topic { set, brokers }, changes);
    let value = |set: &Configs, changes: &[Change]| run(set, changes).unwrap()[0].value.clone();
    let message = |changes: &[Change]| run(&set, changes).unwrap_err().to_string();

    assert_eq!(value(&set, &[change("retention.ms", SET, Some(" 5 "))]), Some("5".into()));
    assert_eq!(value(&set, &[change("retention.ms", DELETE, None)]), None);
    assert_eq!(
        value(&set, &[change("never.heard.of", DELETE, None)]),
        None,
        "not an error in Kafka"
    );
    let policy = |operation, value| [change("cleanup.policy", operation, Some(value))];
    assert_eq!(value(&set, &policy(APPEND, "compact")), Some("delete,compact".into()));
    let both = configs(&[("cleanup.policy", "delete,compact")]);
    assert_eq!(value(&both, &policy(APPEND, "compact")), Some("delete,compact".into()));
    assert_eq!(value(&both, &policy(SUBTRACT, "delete")), Some("compact".into()));
    assert_eq!(value(&both, &policy(SUBTRACT, "zzz")), Some("delete,compact".into()));

    assert_eq!(
        message(&[change("retention.ms", APPEND, Some("1"))]),
        "Can't APPEND to key retention.ms because its type is not LIST."
    );
    assert_eq!(
        message(&[change("retention.ms", SUBTRACT, Some("1"))]),
        "Can't SUBTRACT to key retention.ms because its type is not LIST."
    );
    assert_eq!(
        message(&[change("retention.ms", SET, None)]),
        "Null value not supported for : retention.ms"
    );
    assert_eq!(message(&[change("x", SET, Some("1"))]), "Unknown topic config name: x");
    let twice = [change("retention.ms", SET, Some("5")), change("retention.ms", SET, Some("6"))];
    assert_eq!(message(&twice), "Error due to duplicate config keys");
    assert_eq!(
        run(&set, &[change("retention.ms", 9, Some("5"))]),
        Err(ConfigError::UnknownOperation(9))
    );
    // A rule between keys also binds a new value to one that was set before.
    let before = configs(&[("max.compaction.lag.ms", "5")]);
    let lags = run(&before, &[change("min.compaction.lag.ms", SET, Some("10"))]);
    assert_eq!(lags, Err(ConfigError::CompactionLags { min: 10, max: 5 }));
}

#[test]
fn replacing_forgets_what_was_set_before() {
    let (settings, image) = (settings(), image(&[], &[]));
    let brokers = &BrokerView::new(&settings, &image);
    let set = configs(&[("max.compaction.lag.ms", "5")]);
    let target = Target::Topic { set: &set, brokers };
    let new = [("min.compaction.lag.ms".to_owned(), Some("10".to_owned()))];
    assert!(replacing(&target, &new).is_ok(), "the old maximum does not count any more");
    let null = [("flush.ms".to_owned(), None)];
    assert_eq!(replacing(&target, &null), Err(ConfigError::Null("flush.ms".into())));
}

#[test]
fn what_can_be_changed_on_brokers() {
    let (settings, image) = (settings(), image(&[], &[]));
    let brokers = &BrokerView::new(&settings, &image);
    let set = Configs::new();
    let one = Target::Broker { set: &set, brokers };
    let all = Target::AllBrokers { set: &set };
    let run = |target, name, operation, value: &str| {
        incremental(target, &[change(name, operation, Some(value))]).map_err(|e| e.to_string())
    };
    for target in [&one, &all] {
        for (name, value) in [
            ("log.retention.ms", "-1"),
            ("log.flush.interval.messages", "5"),
            ("max.connections.per.ip", "5"),
            ("min.insync.replicas", "2"),
        ] {
            assert!(run(target, name, SET, value).is_ok(), "{name}");
        }
        for (name, value, message) in [
            (
                "log.retention.ms",
                "x",
                "Invalid value x for configuration log.retention.ms: Not a number of type LONG",
            ),
            (
                "max.connections",
                "-1",
                "Invalid value -1 for configuration max.connections: Value must be at least 0",
            ),
            ("num.partitions", "3", "Cannot update these configs dynamically: Set(num.partitions)"),
            (
                "advertised.listeners",
                "PLAINTEXT://h:9",
                "Cannot update these configs dynamically: Set(advertised.listeners)",
            ),
        ] {
            assert_eq!(run(target, name, SET, value), Err(message.to_owned()));
        }
        let appended = run(target, "log.cleanup.policy", APPEND, "compact").unwrap();
        assert_eq!(appended[0].value.as_deref(), Some("delete,compact"));
        assert_eq!(
            run(target, "log.retention.ms", APPEND, "5"),
            Err("Config value append is not allowed for config key: log.retention.ms".to_owned())
        );
        assert!(
            incremental(target, &[change("num.partitions", DELETE, None)]).is_ok(),
            "as in Kafka"
        );
        assert_eq!(replacing(target, &[]), Ok(vec![]));
    }
    let kerberos = "sasl.kerberos.min.time.before.relogin";
    assert!(run(&one, kerberos, SET, "58000").is_ok());
    let message = format!(
        "Cannot update these configs at default cluster level, broker id must be specified: Set({kerberos})"
    );
    assert_eq!(run(&all, kerberos, SET, "58000"), Err(message));
}

#[test]
fn brokers_describe_where_their_values_come_from() {
    let image = image(&[("log.retention.ms", "5")], &[("log.segment.bytes", "2000000")]);
    let settings = settings().with("num.partitions", "3").unwrap();
    let view = BrokerView::new(&settings, &image);
    let all = broker::describe(&view);
    let shown = |name: &str| {
        let entry = all.iter().find(|d| d.definition.name == name).unwrap();
        (entry.value.as_deref(), entry.source as i8, entry.read_only)
    };
    assert_eq!(shown("node.id"), (Some("1"), 4, true));
    assert_eq!(shown("num.partitions"), (Some("3"), 4, true));
    assert_eq!(shown("log.retention.ms"), (Some("5"), 2, false));
    assert_eq!(shown("log.segment.bytes"), (Some("2000000"), 3, false));
    assert_eq!(shown("log.retention.minutes"), (None, 5, true));
    assert_eq!(shown("listeners"), (Some("PLAINTEXT://:9092"), 5, false));
    let set = broker::describe_all_brokers(image.configs(&ConfigResource::AllBrokers).unwrap());
    assert_eq!(set.len(), 1);
    assert_eq!((set[0].definition.name, set[0].source), ("log.segment.bytes", Source::AllBrokers));

    let config = BrokerConfig::resolve(&settings, &image);
    assert_eq!(config.num_partitions, 3);
    assert!(config.auto_create_topics && config.delete_topics);
    assert_eq!(config.offsets_retention_ms, 604_800_000);
    assert_eq!(config.group_initial_rebalance_delay_ms, 0);
    assert!(self::settings().with("no.such", "1").is_err());
    assert!(self::settings().with("num.partitions", "0").is_err());
}

#[test]
fn groups_and_client_metrics_have_rules_too() {
    let group =
        |name, value| group::validate(&configs(&[(name, value)])).map_err(|e| e.to_string());
    assert!(group("consumer.session.timeout.ms", "50000").is_ok());
    let bounds = [("1", "greater", "min"), ("1000000", "less", "max")];
    for (value, relation, bound) in bounds {
        let message = format!(
            "consumer.session.timeout.ms must be {relation} than or equal to group.consumer.{bound}.session.timeout.ms"
        );
        assert_eq!(group("consumer.session.timeout.ms", value), Err(message));
    }
    assert_eq!(group("x", "1"), Err("Unknown group config name: x".to_owned()));
    assert_eq!(
        group("share.isolation.level", "zz"),
        Err("Invalid value zz for configuration share.isolation.level: String must be one of: \
             read_committed, read_uncommitted"
            .to_owned())
    );
    let metrics = |name, value| {
        client_metrics::validate(&configs(&[(name, value)])).map_err(|e| e.to_string())
    };
    assert!(metrics("match", "client_id=x,client_source_port=9.*").is_ok());
    assert_eq!(metrics("match", "foo=x"), Err("Illegal client matching pattern: foo=x".to_owned()));
    assert_eq!(
        metrics("interval.ms", "5"),
        Err("Invalid value 5 for interval.ms, interval must be between 100 and 3600000 (1 hour)"
            .to_owned())
    );
    assert_eq!(metrics("x", "5"), Err("Unknown client metrics configuration: x".to_owned()));
    let described = group::describe(&configs(&[("streams.num.standby.replicas", "1")]));
    assert_eq!(described.len(), 10);
    let source = |name| described.iter().find(|d| d.definition.name == name).unwrap().source;
    assert_eq!(source("streams.num.standby.replicas"), Source::Group);
    assert_eq!(source("share.isolation.level"), Source::Default);
}

fn reference() -> String {
    let mut text = String::from(
        "# Kafka configurations: the reference\n\n\
         Generated from the tables in this folder by the test `the_reference_is_current`; do not edit.\n\
         A key under \"no effect\" is accepted, checked, kept and described, and changes nothing here.\n",
    );
    let mut section = |title: &str, definitions: Vec<&'static Definition>| {
        let _ = write!(
            text,
            "\n## {title}\n\n| key | type | default | effect | meaning |\n|---|---|---|---|---|\n"
        );
        for d in definitions {
            let effect = match d.effect {
                Effect::Full => "yes".to_owned(),
                Effect::None(why) => format!("no effect: {why}"),
            };
            let default = d.default.map_or("null".to_owned(), |v| format!("`{v}`"));
            let kind = format!("{:?}", d.kind).to_lowercase();
            let _ = writeln!(
                text,
                "| {} | {kind} | {default} | {effect} | {} |",
                d.name, d.documentation
            );
        }
    };
    section("Topics", topic::definitions().collect());
    section("Brokers", broker::definitions().collect());
    section("Groups", group::definitions().collect());
    section("Client metrics", client_metrics::definitions().collect());
    text
}

/// Golden file; `UPDATE_GOLDEN=1 cargo test` rewrites it.
#[test]
fn the_reference_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/reference.md");
    let expected = reference();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &expected).expect("the source folder is writable");
    }
    let found = std::fs::read_to_string(path).expect("reference.md lies beside the tables");
    assert!(found == expected, "config/reference.md is out of date: run with UPDATE_GOLDEN=1");
}
