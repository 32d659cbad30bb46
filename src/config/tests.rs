//! Tests of the configuration as a whole: precedence, mistakes, the golden reference.

use super::*;

fn sources(flags: &[(&str, &str)], environment: &[(&str, &str)]) -> Sources {
    let own = |(name, text): &(&str, &str)| (name.to_string(), text.to_string());
    Sources {
        flags: flags.iter().map(own).collect(),
        environment: environment.iter().map(own).collect(),
        file: None,
    }
}

fn with_file(text: &str, mut sources: Sources) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chronik.toml");
    std::fs::write(&path, text).unwrap();
    sources.file = Some(path);
    (folder, sources)
}

fn mistakes(sources: &Sources) -> Vec<String> {
    resolve(sources).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_flag_beats_the_environment_and_the_environment_beats_the_file() {
    let file = "kafka_port = 1\nnum_partitions = 1\n[cluster]\nnode_id = 7\n";
    let environment = [("CHRONIK_KAFKA_PORT", "2"), ("CHRONIK_NUM_PARTITIONS", "2")];
    let (_folder, sources) = with_file(file, sources(&[("kafka_port", "3")], &environment));
    let resolved = resolve(&sources).unwrap();
    let config = resolved.config;
    assert_eq!((config.kafka_port, config.node_id), (3, 7));
    assert_eq!(config.kafka.get("num.partitions").map(String::as_str), Some("2"));
    let origin = |name| resolved.values.iter().find(|(n, ..)| *n == name).unwrap().2.to_string();
    assert_eq!(origin("kafka_port"), "flag --kafka-port");
    assert_eq!(origin("num_partitions"), "environment CHRONIK_NUM_PARTITIONS");
    assert!(origin("node_id").ends_with("chronik.toml:4"));
    assert_eq!(origin("data_dir"), "default");
}

#[test]
fn the_environment_can_name_the_file_and_a_flag_can_name_another() {
    let (_one, first) = with_file("node_id = 1\n", Sources::default());
    let (_two, second) = with_file("node_id = 2\n", Sources::default());
    let name = |sources: &Sources| sources.file.clone().unwrap().display().to_string();
    let mut chosen = sources(&[], &[("CHRONIK_CLUSTER_CONFIG", &name(&first))]);
    assert_eq!(resolve(&chosen).unwrap().config.node_id, 1);
    chosen.file = second.file;
    assert_eq!(resolve(&chosen).unwrap().config.node_id, 2);
}

#[test]
fn every_mistake_is_named_with_its_place_and_the_nearest_option() {
    let file = "num_partition = 3\nshards = 0\nkafka_port = 9092\n[cluster]\nkafka_port = 9093\n";
    let (_folder, sources) = with_file(file, sources(&[], &[("CHRONIK_FLUSH", "never")]));
    let found = mistakes(&sources);
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].contains(":1: unknown option `num_partition`"), "{}", found[0]);
    assert!(found[0].contains("did you mean `num_partitions`?"), "{}", found[0]);
    assert!(found[1].contains(":2: `shards`: `0` is not an integer from 1"), "{}", found[1]);
    assert!(found[2].contains("set twice"), "{}", found[2]);
    assert!(found[3].contains("environment CHRONIK_FLUSH: `flush`: `never`"), "{}", found[3]);
}

#[test]
fn a_missing_file_and_a_broken_file_are_mistakes() {
    let mut sources = Sources { file: Some("/nonexistent/x.toml".into()), ..Sources::default() };
    assert!(mistakes(&sources)[0].contains("/nonexistent/x.toml: cannot be read"));
    let (_folder, broken) = with_file("node_id = \n", Sources::default());
    sources.file = broken.file;
    assert!(mistakes(&sources)[0].contains("chronik.toml:1: not valid TOML"));
}

#[test]
fn strangers_in_the_environment_are_warned_about_and_service_links_explained() {
    let environment = [("CHRONIK_NODEID", "3"), ("CHRONIK_SERVICE_HOST", "10.0.0.1")];
    let resolved = resolve(&sources(&[], &environment)).unwrap();
    assert_eq!(resolved.warnings.len(), 2);
    assert!(resolved.warnings[0].contains("did you mean CHRONIK_NODE_ID?"));
    let linked = sources(&[], &[("CHRONIK_KAFKA_PORT", "tcp://10.0.0.1:9092")]);
    assert!(mistakes(&linked)[0].contains("enableServiceLinks"));
}

#[test]
fn settings_of_a_cluster_are_refused_and_never_ignored() {
    let file = "[cluster]\nenabled = true\nnode_id = 1\n[raft]\nelection_timeout_ms = 300\n\
                [[peers]]\nid = 1\n";
    let environment = [("CHRONIK_DISCOVERY_SRV", "chronik.local"), ("OBJECT_STORE_BACKEND", "s3")];
    let (_folder, sources) = with_file(file, sources(&[], &environment));
    let found = mistakes(&sources);
    assert_eq!(found.len(), 5, "{found:#?}");
    assert!(
        found[0].contains(":2: `enabled` belongs to clusters of several nodes"),
        "{}",
        found[0]
    );
    assert!(found[1].contains("`raft.election_timeout_ms` belongs"), "{}", found[1]);
    assert!(found[2].contains("`peers` belongs"), "{}", found[2]);
    assert!(found[3].contains("CHRONIK_DISCOVERY_SRV: `discovery_srv` belongs"), "{}", found[3]);
    assert!(found[4].contains("`object_store_backend` belongs to tiered storage"), "{}", found[4]);
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let wildcard = mistakes(&sources(&[("advertised_addr", "0.0.0.0")], &[]));
    assert!(wildcard[0].contains("no client can connect to"));
    let sessions = mistakes(&sources(&[("group_min_session_timeout_ms", "1d")], &[]));
    assert!(sessions[0].contains("above group_max_session_timeout_ms"));
    let batch = mistakes(&sources(&[("socket_request_max_bytes", "1 MiB")], &[]));
    assert!(batch[0].contains("could never arrive"));
}

#[test]
fn the_log_filter_is_read_from_rust_log_and_its_own_variable_is_stronger() {
    let filter = |environment: &[(&str, &str)]| {
        resolve(&sources(&[], environment)).unwrap().config.log_filter
    };
    assert_eq!(filter(&[]), "info");
    assert_eq!(filter(&[("RUST_LOG", "debug")]), "debug");
    assert_eq!(filter(&[("RUST_LOG", "debug"), ("CHRONIK_LOG_FILTER", "warn")]), "warn");
}

/// Each option must reach a field of its own, and its field must hold its whole range.
#[test]
fn every_option_of_our_own_changes_exactly_its_own_field() {
    let defaults = resolve(&Sources::default()).unwrap().config;
    let mut seen = vec![defaults.clone()];
    for key in KEYS {
        let Target::Field(set) = key.target else { continue };
        let texts: Vec<String> = match key.kind {
            Kind::Bool => vec!["true".into(), "false".into()],
            Kind::Integer { min, max }
            | Kind::Bytes { min, max }
            | Kind::Millis { min, max }
            | Kind::Minutes { min, max } => vec![min.to_string(), max.to_string()],
            Kind::Choice(words) => words.iter().map(|word| word.to_string()).collect(),
            Kind::Address => vec!["::1".into(), "127.0.0.2".into()],
            Kind::Host | Kind::Text | Kind::Path => vec!["one".into(), "two".into()],
        };
        let mut changed = 0;
        for text in texts {
            let mut config = defaults.clone();
            set(&mut config, &key.kind.parse(&text).unwrap());
            changed += usize::from(config != defaults);
            assert!(config == defaults || !seen.contains(&config), "{} = {text}", key.name);
            seen.push(config);
        }
        assert!(changed > 0, "{} changes nothing", key.name);
    }
}

/// `UPDATE_GOLDEN=1 cargo test` rewrites the file; review the difference as you would code.
#[test]
fn the_reference_is_the_golden_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/reference.golden.toml");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    assert_eq!(reference(), std::fs::read_to_string(path).unwrap());
}

#[test]
fn the_reference_changes_nothing_and_uncommented_sets_every_default() {
    let (_folder, as_is) = with_file(&reference(), Sources::default());
    let expected = resolve(&Sources::default()).unwrap().config;
    assert_eq!(resolve(&as_is).unwrap().config, expected);
    let set: String = reference()
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| {
            let (name, value) = line.split_once(" = ").unwrap_or_default();
            registry::find(name).is_some() && !value.is_empty()
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let (_folder, uncommented) = with_file(&set, Sources::default());
    let mut resolved = resolve(&uncommented).unwrap();
    let kafka = std::mem::take(&mut resolved.config.kafka);
    let of_kafka = |key: &&Key| matches!(key.target, Target::Kafka(_));
    let with_default = KEYS.iter().filter(of_kafka).filter(|key| key.default_value().is_some());
    assert_eq!(kafka.len(), with_default.count());
    assert_eq!(resolved.config, expected);
    let unset = |values: &[(_, Option<Value>, Origin)]| {
        values.iter().filter(|(.., origin)| *origin == Origin::Default).count()
    };
    assert_eq!(
        unset(&resolved.values),
        KEYS.iter().filter(|k| k.default_value().is_none()).count()
    );
}

/// The broker's own table has the last word on Kafka's settings: the same default, and everything
/// that the registry lets through is legal there.
#[test]
fn kafka_settings_agree_with_the_broker() {
    use shards::config::{broker, BrokerConfig, Settings};
    use shards::meta::{Image, NodeId};
    let settings = || Settings::new(NodeId(1));
    let shown = |settings: &Settings| BrokerConfig::resolve(settings, &Image::empty());
    for key in KEYS {
        let Target::Kafka(name) = key.target else { continue };
        let definition = broker::definition(name);
        assert!(definition.is_some(), "the broker knows no {name}");
        let Some(default) = key.default_value().map(|value| value.to_string()) else {
            assert_eq!(definition.and_then(|definition| definition.default), Some(""), "{name}");
            continue;
        };
        if let Some(theirs) = definition.and_then(|definition| definition.default) {
            assert_eq!(default, theirs, "{name}");
        }
        let set = settings().with(name, &default).unwrap();
        assert_eq!(shown(&set), shown(&settings()), "{name} = {default}");
        let (Kind::Integer { min, max } | Kind::Bytes { min, max } | Kind::Millis { min, max }) =
            key.kind
        else {
            continue;
        };
        for edge in [min, max] {
            let taken = settings().with(name, &edge.to_string());
            assert!(taken.is_ok(), "{name} = {edge}: {taken:?}");
        }
    }
}
