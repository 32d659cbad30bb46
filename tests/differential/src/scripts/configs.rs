//! kafka.md section 10: configurations described and altered.

use kafka_protocol::messages::alter_configs_request as replace;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request as change;
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest,
};

use super::create;
use crate::message;
use crate::message::Value;
use crate::pair::Pair;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Broker keys that clients, tools and suites look at, and whose value is the same on both.
const BROKER_KEYS: &[&str] = &[
    "node.id",
    "broker.id",
    "broker.rack",
    "num.partitions",
    "default.replication.factor",
    "auto.create.topics.enable",
    "delete.topic.enable",
    "offsets.topic.num.partitions",
    "offsets.topic.replication.factor",
    "offsets.retention.minutes",
    "offset.metadata.max.bytes",
    "group.initial.rebalance.delay.ms",
    "group.min.session.timeout.ms",
    "group.max.session.timeout.ms",
    "group.max.size",
    "transaction.max.timeout.ms",
    "socket.request.max.bytes",
    "connections.max.idle.ms",
    "fetch.max.bytes",
    "max.incremental.fetch.session.cache.slots",
    "log.retention.hours",
    "log.retention.minutes",
    "log.retention.ms",
    "log.roll.hours",
    "log.retention.check.interval.ms",
    "request.timeout.ms",
    "authorizer.class.name",
    "replica.lag.time.max.ms",
    "log.retention.bytes",
    "log.segment.bytes",
    "message.max.bytes",
    "min.insync.replicas",
    "log.flush.interval.messages",
    "log.flush.interval.ms",
    "log.cleaner.threads",
    "num.io.threads",
    "num.network.threads",
    "max.connections",
    "max.connections.per.ip",
    "producer.id.expiration.ms",
    "compression.type",
    "unclean.leader.election.enable",
    "log.cleanup.policy",
    "log.message.timestamp.type",
    "log.roll.ms",
    "log.index.interval.bytes",
    "log.cleaner.delete.retention.ms",
    "sasl.kerberos.min.time.before.relogin",
    "log.message.timestamp.after.max.ms",
    "advertised.listeners",
    "log.dirs",
    "process.roles",
    "background.threads",
];

pub fn script(pair: &mut Pair) {
    create(pair, "cf", 1, &[("retention.ms", "5000"), ("cleanup.policy", "compact")]);
    described(pair);
    brokers_described(pair);
    validated(pair);
    changed(pair);
    replaced(pair);
    brokers_changed(pair);
    others(pair);
    resources(pair);
}

fn describing(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    message!(DescribeConfigsRequest {
        resources: vec![message!(DescribeConfigsResource {
            resource_type: kind,
            resource_name: name,
            configuration_keys: keys.map(|keys| keys.value()),
        })],
    })
}

fn described(pair: &mut Pair) {
    pair.ask_every("all keys", |_, _| describing(TOPIC, "cf", None));
    pair.ask_every("all keys with synonyms", |_, _| {
        let mut request = describing(TOPIC, "cf", None);
        request.include_synonyms = true;
        request
    });
    let keys: &[&[&str]] = &[&[], &["retention.ms"], &["no.such.key", "retention.ms"], &["x"]];
    for keys in keys {
        pair.ask(&format!("keys {keys:?}"), 4, |_| describing(TOPIC, "cf", Some(keys)));
    }
    for (kind, name) in [
        (TOPIC, "cf-nope"),
        (TOPIC, ""),
        (TOPIC, "a b"),
        (BROKER, "99"),
        (BROKER, "abc"),
        (BROKER, ""),
        (99, "x"),
        (0, "x"),
        (3, "x"),
        (-1, "x"),
        (METRICS, ""),
        (GROUP, ""),
        (METRICS, "cf-metrics"),
        (GROUP, "cf-group"),
        (LOGGER, "99"),
        (LOGGER, ""),
    ] {
        for version in [1, 4] {
            pair.ask(&format!("resource {kind} '{name}'"), version, |_| {
                describing(kind, name, None)
            });
        }
    }
    pair.ask("two resources", 4, |_| {
        let mut request = describing(TOPIC, "cf", Some(&["retention.ms"]));
        request.resources.extend(describing(TOPIC, "cf-nope", None).resources);
        request
    });
    pair.ask("one resource twice", 4, |_| {
        let mut request = describing(TOPIC, "cf", Some(&["retention.ms"]));
        request.resources.push(request.resources[0].clone());
        request
    });
    pair.ask("no resources", 4, |_| message!(DescribeConfigsRequest {}));
}

fn brokers_described(pair: &mut Pair) {
    for key in BROKER_KEYS {
        pair.ask(&format!("broker key {key}"), 4, |_| {
            let mut request = describing(BROKER, "1", Some(&[key]));
            request.include_synonyms = true;
            request
        });
    }
}

fn changing(
    kind: i8,
    name: &str,
    ops: &[(&str, i8, Option<&str>)],
) -> IncrementalAlterConfigsRequest {
    let op = |(key, operation, to): &(&str, i8, Option<&str>)| {
        let mut op = message!(change::AlterableConfig { name: *key, config_operation: *operation });
        op.value = to.map(Value::value);
        op
    };
    message!(IncrementalAlterConfigsRequest {
        resources: vec![message!(change::AlterConfigsResource {
            resource_type: kind,
            resource_name: name,
            configs: ops.iter().map(op).collect::<Vec<_>>(),
        })],
    })
}

/// The bounds and the words of every topic key.
fn validated(pair: &mut Pair) {
    let longs = [
        "retention.ms",
        "retention.bytes",
        "segment.ms",
        "segment.jitter.ms",
        "flush.ms",
        "flush.messages",
        "delete.retention.ms",
        "file.delete.delay.ms",
        "min.compaction.lag.ms",
        "max.compaction.lag.ms",
        "local.retention.ms",
        "local.retention.bytes",
        "message.timestamp.before.max.ms",
        "message.timestamp.after.max.ms",
    ];
    let ints = [
        "segment.bytes",
        "segment.index.bytes",
        "max.message.bytes",
        "min.insync.replicas",
        "index.interval.bytes",
        "compression.gzip.level",
        "compression.lz4.level",
        "compression.zstd.level",
    ];
    let others = [
        "min.cleanable.dirty.ratio",
        "cleanup.policy",
        "compression.type",
        "preallocate",
        "message.timestamp.type",
        "unclean.leader.election.enable",
        "remote.storage.enable",
        "remote.log.copy.disable",
        "remote.log.delete.on.disable",
        "leader.replication.throttled.replicas",
        "follower.replication.throttled.replicas",
        "message.format.version",
        "message.timestamp.difference.max.ms",
    ];
    let numbers = [
        "-3",
        "-2",
        "-1",
        "0",
        "1",
        "10",
        "23",
        "2147483648",
        "9223372036854775808",
        "1.5",
        "",
        " 7 ",
    ];
    let words = [
        "",
        "true",
        "FALSE",
        "yes",
        "0.5",
        "1.5",
        "-0.1",
        "compact",
        "delete,compact",
        "compact,x",
        "gzip",
        "GZIP",
        "producer",
        "none",
        "uncompressed",
        "CreateTime",
        "LogAppendTime",
        "*",
        "0:1,1:1",
        "0:1:2",
        "nonsense",
    ];
    let mut ask = |key: &str, value: &str| {
        pair.ask(&format!("set {key} to '{value}'"), 1, |_| {
            let mut request = changing(TOPIC, "cf", &[(key, SET, Some(value))]);
            request.validate_only = true;
            request
        });
    };
    for key in longs.iter().chain(&ints) {
        numbers.iter().for_each(|value| ask(key, value));
    }
    for key in others {
        words.iter().for_each(|value| ask(key, value));
    }
    for key in ["segment.bytes", "segment.ms", "segment.jitter.ms"] {
        ["1048575", "1048576", "604800001"].iter().for_each(|value| ask(key, value));
    }
}

fn show(pair: &mut Pair, what: &str) {
    pair.settle(&format!("after {what}"), 4, |_| {
        let mut request = describing(TOPIC, "cf", None);
        request.include_synonyms = true;
        request
    });
}

fn changed(pair: &mut Pair) {
    let asked: &[(&str, &[(&str, i8, Option<&str>)])] = &[
        ("set", &[("retention.ms", SET, Some("9000"))]),
        ("set two", &[("segment.ms", SET, Some("9000")), ("flush.ms", SET, Some("1"))]),
        ("delete", &[("segment.ms", DELETE, None)]),
        ("delete with a value", &[("flush.ms", DELETE, Some("1"))]),
        ("delete what is not set", &[("segment.bytes", DELETE, None)]),
        ("append", &[("cleanup.policy", APPEND, Some("delete"))]),
        ("append what is there", &[("cleanup.policy", APPEND, Some("delete"))]),
        ("subtract", &[("cleanup.policy", SUBTRACT, Some("compact"))]),
        ("subtract what is not there", &[("cleanup.policy", SUBTRACT, Some("compact"))]),
        ("subtract the last", &[("cleanup.policy", SUBTRACT, Some("delete"))]),
        ("append to nothing", &[("cleanup.policy", APPEND, Some("compact"))]),
        ("append to a default", &[("leader.replication.throttled.replicas", APPEND, Some("0:1"))]),
        ("append two", &[("leader.replication.throttled.replicas", APPEND, Some("1:1,2:1"))]),
        ("append to no list", &[("retention.ms", APPEND, Some("1"))]),
        ("subtract from no list", &[("retention.ms", SUBTRACT, Some("1"))]),
        ("append a bad value", &[("cleanup.policy", APPEND, Some("shrink"))]),
        ("set null", &[("retention.ms", SET, None)]),
        ("append null", &[("cleanup.policy", APPEND, None)]),
        ("one key twice", &[("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))]),
        (
            "one good, one bad",
            &[("retention.ms", SET, Some("77")), ("segment.ms", SET, Some("abc"))],
        ),
        ("an unknown key", &[("no.such.key", SET, Some("1"))]),
        ("delete an unknown key", &[("no.such.key", DELETE, None)]),
        ("append to an unknown key", &[("no.such.key", APPEND, Some("1"))]),
        ("nothing", &[]),
        ("operation 9", &[("retention.ms", 9, Some("1"))]),
    ];
    for (what, ops) in asked {
        for version in [0, 1] {
            pair.ask(what, version, |_| changing(TOPIC, "cf", ops));
        }
        show(pair, what);
    }
    pair.ask("an unknown topic", 1, |_| {
        changing(TOPIC, "cf-nope", &[("retention.ms", SET, Some("1"))])
    });
    pair.ask("a bad topic", 1, |_| changing(TOPIC, "a b", &[("retention.ms", SET, Some("1"))]));
    pair.ask("no name", 1, |_| changing(TOPIC, "", &[("retention.ms", SET, Some("1"))]));
    pair.ask("a resource twice", 1, |_| {
        let mut request = changing(TOPIC, "cf", &[("retention.ms", SET, Some("1"))]);
        request.resources.push(request.resources[0].clone());
        request
    });
    pair.ask("two resources", 1, |_| {
        let mut request = changing(TOPIC, "cf-nope", &[("retention.ms", SET, Some("1"))]);
        request
            .resources
            .extend(changing(TOPIC, "cf", &[("retention.ms", SET, Some("4444"))]).resources);
        request
    });
    show(pair, "two resources");
}

fn replaced(pair: &mut Pair) {
    let replacing = |kind: i8, name: &str, values: &[(&str, Option<&str>)]| {
        let value = |(key, to): &(&str, Option<&str>)| {
            let mut value = message!(replace::AlterableConfig { name: *key });
            value.value = to.map(Value::value);
            value
        };
        message!(AlterConfigsRequest {
            resources: vec![message!(replace::AlterConfigsResource {
                resource_type: kind,
                resource_name: name,
                configs: values.iter().map(value).collect::<Vec<_>>(),
            })],
        })
    };
    let asked: &[(&str, i8, &str, &[(&str, Option<&str>)])] = &[
        ("replace", TOPIC, "cf", &[("segment.ms", Some("123456"))]),
        ("replace by a bad value", TOPIC, "cf", &[("segment.ms", Some("abc"))]),
        ("replace by null", TOPIC, "cf", &[("segment.ms", None)]),
        ("replace an unknown key", TOPIC, "cf", &[("x", Some("1"))]),
        (
            "replace one key twice",
            TOPIC,
            "cf",
            &[("segment.ms", Some("1000")), ("segment.ms", Some("2000"))],
        ),
        ("replace of an unknown topic", TOPIC, "cf-nope", &[("segment.ms", Some("1"))]),
        ("replace of type 99", 99, "x", &[("segment.ms", Some("1"))]),
        ("replace by nothing", TOPIC, "cf", &[]),
    ];
    for (what, kind, name, values) in asked {
        for version in [0, 2] {
            pair.ask(what, version, |_| replacing(*kind, name, values));
        }
        show(pair, what);
    }
    pair.ask("replace, validated", 2, |_| {
        let mut request = replacing(TOPIC, "cf", &[("segment.ms", Some("99"))]);
        request.validate_only = true;
        request
    });
    show(pair, "a validated replacement");
}

fn brokers_changed(pair: &mut Pair) {
    let key = "log.retention.bytes";
    let asked: &[(&str, i8, &str, &[(&str, i8, Option<&str>)])] = &[
        ("all brokers", BROKER, "", &[(key, SET, Some("12345678"))]),
        ("this broker", BROKER, "1", &[(key, SET, Some("22345678"))]),
        ("a default of topics", BROKER, "1", &[("log.retention.ms", SET, Some("700000"))]),
        ("the same by another name", BROKER, "", &[("message.max.bytes", SET, Some("2000000"))]),
        ("a bad value", BROKER, "1", &[(key, SET, Some("abc"))]),
        ("another broker", BROKER, "99", &[(key, SET, Some("1"))]),
        ("no broker", BROKER, "abc", &[(key, SET, Some("1"))]),
        ("a static key", BROKER, "1", &[("num.partitions", SET, Some("3"))]),
        (
            "two static keys",
            BROKER,
            "1",
            &[("num.partitions", SET, Some("3")), ("node.id", SET, Some("3"))],
        ),
        (
            "a static and a dynamic key",
            BROKER,
            "1",
            &[("num.partitions", SET, Some("3")), (key, SET, Some("5"))],
        ),
        ("a key of one broker for all", BROKER, "", &[("listeners", SET, Some("x://y:1"))]),
        ("append to a list", BROKER, "1", &[("log.cleanup.policy", APPEND, Some("compact"))]),
        ("append to no list", BROKER, "1", &[(key, APPEND, Some("1"))]),
        ("a null", BROKER, "1", &[(key, SET, None)]),
        (
            "a key that librdkafka's suite sets",
            BROKER,
            "1",
            &[("sasl.kerberos.min.time.before.relogin", SET, Some("58000"))],
        ),
        (
            "a key that another suite sets",
            BROKER,
            "1",
            &[("log.flush.interval.messages", SET, Some("500"))],
        ),
    ];
    for (what, kind, name, ops) in asked {
        pair.ask(&format!("broker: {what}"), 1, |_| changing(*kind, name, ops));
    }
    let keys = [
        key,
        "log.retention.ms",
        "message.max.bytes",
        "num.partitions",
        "log.cleanup.policy",
        "sasl.kerberos.min.time.before.relogin",
        "log.flush.interval.messages",
    ];
    let show = |pair: &mut Pair, when: &str| {
        for key in keys {
            pair.settle(&format!("broker key {key} {when}"), 4, |_| {
                let mut request = describing(BROKER, "1", Some(&[key]));
                request.include_synonyms = true;
                request
            });
        }
        pair.settle(&format!("what all brokers have {when}"), 4, |_| describing(BROKER, "", None));
        super::configs::show(pair, when);
    };
    show(pair, "changed");
    for (what, name, key) in [
        ("of this broker", "1", key),
        ("of all brokers", "", key),
        ("of a topic's default", "1", "log.retention.ms"),
        ("of a size", "", "message.max.bytes"),
        ("of the policy", "1", "log.cleanup.policy"),
        ("of the flush interval", "1", "log.flush.interval.messages"),
        ("of what is not set", "1", "log.segment.bytes"),
    ] {
        pair.ask(&format!("broker: a deletion {what}"), 1, |_| {
            changing(BROKER, name, &[(key, DELETE, None)])
        });
    }
    show(pair, "deleted");
}

/// Groups, client metrics, loggers, and types that do not exist.
fn others(pair: &mut Pair) {
    let asked: &[(&str, i8, &str, &[(&str, i8, Option<&str>)])] = &[
        ("a group", GROUP, "cf-group", &[("consumer.session.timeout.ms", SET, Some("50000"))]),
        ("a group badly", GROUP, "cf-group", &[("consumer.session.timeout.ms", SET, Some("1"))]),
        ("a group unknown", GROUP, "cf-group", &[("no.such.key", SET, Some("1"))]),
        ("no group", GROUP, "", &[("consumer.session.timeout.ms", SET, Some("50000"))]),
        ("metrics", METRICS, "cf-metrics", &[("interval.ms", SET, Some("1000"))]),
        ("metrics badly", METRICS, "cf-metrics", &[("interval.ms", SET, Some("1"))]),
        ("metrics match", METRICS, "cf-metrics", &[("match", SET, Some("a=b"))]),
        ("metrics unknown", METRICS, "cf-metrics", &[("no.such.key", SET, Some("1"))]),
        ("no metrics", METRICS, "", &[("interval.ms", SET, Some("1000"))]),
        ("type 99", 99, "x", &[("a", SET, Some("1"))]),
        ("type 0", 0, "x", &[("a", SET, Some("1"))]),
    ];
    for (what, kind, name, ops) in asked {
        pair.ask(&format!("other: {what}"), 1, |_| changing(*kind, name, ops));
    }
    for (kind, name) in [(GROUP, "cf-group"), (METRICS, "cf-metrics")] {
        pair.settle(&format!("other: {name} described"), 4, |_| {
            let mut request = describing(kind, name, None);
            request.include_synonyms = true;
            request
        });
    }
}

fn resources(pair: &mut Pair) {
    pair.ask("resources", 0, |_| message!(ListConfigResourcesRequest {}));
    for types in [
        &[METRICS][..],
        &[GROUP],
        &[BROKER],
        &[LOGGER],
        &[99],
        &[METRICS, GROUP],
        &[0],
        &[METRICS, 99],
    ] {
        pair.ask(&format!("resources of types {types:?}"), 1, |_| {
            message!(ListConfigResourcesRequest { resource_types: types.to_vec() })
        });
    }
}
