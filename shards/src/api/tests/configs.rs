//! The configuration APIs through their handlers; the rules themselves are tested in `config`.

use kafka_protocol::messages::alter_configs_request as replacing;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest, ResponseKind,
};

use super::topics::topic;
use super::*;

fn cluster_with_topic() -> Cluster {
    let cluster = Cluster::of(1);
    let asked = kafka_protocol::messages::CreateTopicsRequest::default()
        .with_topics(vec![topic("t", 1, 1)])
        .with_timeout_ms(1);
    cluster.ask(7, asked);
    cluster
}

fn describe(
    cluster: &Cluster,
    kind: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
    let asked = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let ResponseKind::DescribeConfigs(mut response) = cluster.ask(4, asked) else { panic!() };
    response.results.remove(0)
}

/// Code and message.
fn outcome(code: i16, message: &Option<StrBytes>) -> (i16, String) {
    (code, message.as_ref().map_or("null".into(), |m| m.to_string()))
}

fn set(
    cluster: &Cluster,
    kind: i8,
    resource: &str,
    key: &str,
    op: i8,
    value: Option<&str>,
) -> (i16, String) {
    let config = incremental::AlterableConfig::default()
        .with_name(text(key))
        .with_config_operation(op)
        .with_value(value.map(text));
    let resource = incremental::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(vec![config]);
    let asked = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let ResponseKind::IncrementalAlterConfigs(response) = cluster.ask(1, asked) else { panic!() };
    outcome(response.responses[0].error_code, &response.responses[0].error_message)
}

fn shown(result: &DescribeConfigsResult, key: &str) -> (Option<String>, i8, bool) {
    let found = result.configs.iter().find(|c| c.name.as_str() == key).unwrap();
    (found.value.as_ref().map(|v| v.to_string()), found.config_source, found.read_only)
}

#[test]
fn topics_are_described() {
    let cluster = cluster_with_topic();
    let all = describe(&cluster, 2, "t", None);
    assert_eq!((all.error_code, all.configs.len()), (0, 33));
    assert!(all
        .configs
        .iter()
        .all(|c| c.config_source == 5 && c.synonyms.is_empty() && c.documentation.is_none()));
    assert_eq!(describe(&cluster, 2, "t", Some(&[])).configs.len(), 33, "no keys are all keys");
    let some = describe(&cluster, 2, "t", Some(&["retention.ms", "no.such"]));
    assert_eq!(some.configs.len(), 1);
    assert_eq!(
        (some.configs[0].config_type, shown(&some, "retention.ms").0),
        (5, Some("604800000".into()))
    );

    let refusal = |kind, name| {
        let result = describe(&cluster, kind, name, None);
        assert!(result.configs.is_empty());
        outcome(result.error_code, &result.error_message)
    };
    assert_eq!(refusal(2, "nope"), (3, "".into()));
    assert_eq!(refusal(2, "").0, 17);
    assert_eq!(
        refusal(4, "99"),
        (42, "Unexpected broker id, expected 1 or empty string, but received 99".into())
    );
    assert_eq!(refusal(4, "abc"), (42, "Broker id must be an integer, but it is: abc".into()));
    assert_eq!(refusal(64, "x").0, 42);
    assert_eq!(refusal(8, "1").0, 42);
    assert_eq!(refusal(16, ""), (42, "Client metrics subscription name must not be empty".into()));
    assert_eq!(refusal(32, ""), (42, "Group name must not be empty".into()));
    assert_eq!(describe(&cluster, 32, "g", None).configs.len(), 10);
    assert_eq!(describe(&cluster, 16, "m", None).configs.len(), 3);
}

#[test]
fn synonyms_and_documentation_come_when_asked_for() {
    let cluster = cluster_with_topic();
    assert_eq!(set(&cluster, 2, "t", "cleanup.policy", 0, Some("compact")), (0, "null".into()));
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configuration_keys(Some(vec![text("cleanup.policy")]));
    let asked = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    let ResponseKind::DescribeConfigs(response) = cluster.ask(4, asked) else { panic!() };
    let entry = &response.results[0].configs[0];
    let synonyms: Vec<_> = entry
        .synonyms
        .iter()
        .map(|s| (s.name.as_str(), s.value.as_ref().unwrap().as_str(), s.source))
        .collect();
    assert_eq!(synonyms, [("cleanup.policy", "compact", 1), ("log.cleanup.policy", "delete", 5)]);
    assert!(entry.documentation.as_ref().is_some_and(|text| !text.is_empty()));
}

/// A batch is a record of the write-ahead log: who allows larger ones hears of it, and not the
/// producers.
#[test]
fn batches_that_the_log_does_not_take_cannot_be_allowed() {
    let cluster = cluster_with_topic();
    let (fits, beyond) = (BATCH_MAX_BYTES.to_string(), (BATCH_MAX_BYTES + 1).to_string());
    for (kind, name, key, code) in [
        (2, "t", "max.message.bytes", 40),
        (4, "", "message.max.bytes", 42),
        (4, "1", "message.max.bytes", 42),
    ] {
        assert_eq!(set(&cluster, kind, name, key, 0, Some(&fits)).0, 0, "{kind} {name}");
        let (refused, message) = set(&cluster, kind, name, key, 0, Some(&beyond));
        assert_eq!(refused, code, "{message}");
        assert!(message.contains("batches of up to 4000000 bytes; with a larger"), "{message}");
    }
    let shown = shown(&describe(&cluster, 2, "t", None), "max.message.bytes");
    assert_eq!(shown.0, Some(fits), "what was refused has changed nothing");
}

#[test]
fn what_is_altered_is_described_at_once() {
    let cluster = cluster_with_topic();
    assert_eq!(set(&cluster, 2, "t", "retention.ms", 0, Some("5")).0, 0);
    assert_eq!(
        shown(&describe(&cluster, 2, "t", None), "retention.ms"),
        (Some("5".into()), 1, false)
    );
    assert_eq!(set(&cluster, 4, "1", "log.flush.interval.messages", 0, Some("5")).0, 0);
    assert_eq!(
        shown(&describe(&cluster, 4, "1", None), "log.flush.interval.messages"),
        (Some("5".into()), 2, false)
    );
    assert_eq!(describe(&cluster, 4, "", None).configs.len(), 0, "only what all brokers have");
    assert_eq!(set(&cluster, 4, "", "message.max.bytes", 0, Some("77")).0, 0);
    assert_eq!(
        shown(&describe(&cluster, 4, "", None), "message.max.bytes"),
        (Some("77".into()), 3, false)
    );
    assert_eq!(
        shown(&describe(&cluster, 2, "t", None), "max.message.bytes"),
        (Some("77".into()), 3, false)
    );
    assert_eq!(shown(&describe(&cluster, 4, "1", None), "node.id"), (Some("1".into()), 4, true));
    assert_eq!(set(&cluster, 32, "g", "consumer.session.timeout.ms", 0, Some("50000")).0, 0);
    assert_eq!(
        shown(&describe(&cluster, 32, "g", None), "consumer.session.timeout.ms"),
        (Some("50000".into()), 8, false)
    );
    assert_eq!(set(&cluster, 16, "m", "interval.ms", 0, Some("1000")).0, 0);
    assert_eq!(
        shown(&describe(&cluster, 16, "m", None), "interval.ms"),
        (Some("1000".into()), 7, false)
    );
    assert_eq!(set(&cluster, 2, "t", "retention.ms", 1, None).0, 0);
    assert_eq!(shown(&describe(&cluster, 2, "t", None), "retention.ms").1, 5);
}

#[test]
fn alterations_are_refused_in_kafkas_words() {
    let cluster = cluster_with_topic();
    let version = cluster.image().version();
    type Case = (i8, &'static str, &'static str, i8, Option<&'static str>, i16, &'static str);
    let cases: &[Case] = &[
        (2, "nope", "flush.ms", 0, Some("9"), 3, "The topic 'nope' does not exist."),
        (2, "", "flush.ms", 0, Some("9"), 42, "Default topic resources are not allowed."),
        (2, "t", "x", 0, Some("9"), 40, "Unknown topic config name: x"),
        (
            2,
            "t",
            "retention.ms",
            2,
            Some("9"),
            40,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (2, "t", "retention.ms", 0, None, 42, "Null value not supported for : retention.ms"),
        (2, "t", "retention.ms", 9, Some("1"), 42, "Unknown config operation 9."),
        (
            4,
            "99",
            "log.retention.ms",
            0,
            Some("9"),
            42,
            "Unexpected broker id, expected 1, but received 99",
        ),
        (
            4,
            "abc",
            "log.retention.ms",
            0,
            Some("9"),
            42,
            "Node id must be an integer, but it is: abc",
        ),
        (
            4,
            "1",
            "num.partitions",
            0,
            Some("3"),
            42,
            "Cannot update these configs dynamically: Set(num.partitions)",
        ),
        (
            4,
            "1",
            "log.retention.ms",
            0,
            Some("x"),
            42,
            "Invalid value x for configuration log.retention.ms: Not a number of type LONG",
        ),
        (
            32,
            "",
            "consumer.session.timeout.ms",
            0,
            Some("50000"),
            42,
            "Default group resources are not allowed.",
        ),
        (32, "g", "x", 0, Some("1"), 40, "Unknown group config name: x"),
        (16, "", "interval.ms", 0, Some("1000"), 42, "Subscription name can't be empty"),
        (16, "m", "x", 0, Some("1"), 42, "Unknown client metrics configuration: x"),
        (16, "m", "match", 0, Some("foo=x"), 40, "Illegal client matching pattern: foo=x"),
        (64, "x", "y", 0, Some("1"), 42, "Unknown resource type 64"),
    ];
    for (kind, resource, key, op, value, code, message) in cases {
        let expected = (*code, (*message).to_owned());
        assert_eq!(set(&cluster, *kind, resource, key, *op, *value), expected);
    }
    assert_eq!(cluster.image().version(), version, "nothing was changed");
}

fn replace(
    cluster: &Cluster,
    resources: &[(&str, &[(&str, &str)])],
    validate_only: bool,
) -> Vec<i16> {
    let resources = resources.iter().map(|(resource, pairs)| {
        let configs = pairs.iter().map(|(key, value)| {
            replacing::AlterableConfig::default().with_name(text(key)).with_value(Some(text(value)))
        });
        replacing::AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(resource))
            .with_configs(configs.collect())
    });
    let asked = AlterConfigsRequest::default()
        .with_resources(resources.collect())
        .with_validate_only(validate_only);
    let ResponseKind::AlterConfigs(response) = cluster.ask(2, asked) else { panic!() };
    response.responses.iter().map(|r| r.error_code).collect()
}

#[test]
fn alter_configs_replaces_everything() {
    let cluster = cluster_with_topic();
    set(&cluster, 2, "t", "retention.ms", 0, Some("5"));
    assert_eq!(replace(&cluster, &[("t", &[("flush.ms", "9")])], true), [0]);
    assert_eq!(shown(&describe(&cluster, 2, "t", None), "retention.ms").1, 1, "validated only");
    assert_eq!(replace(&cluster, &[("t", &[("flush.ms", "9")])], false), [0]);
    let after = describe(&cluster, 2, "t", None);
    assert_eq!((shown(&after, "retention.ms").1, shown(&after, "flush.ms").1), (5, 1));
    assert_eq!(replace(&cluster, &[("t", &[]), ("t", &[]), ("nope", &[])], false), [42, 42, 3]);
    assert_eq!(replace(&cluster, &[("t", &[("flush.ms", "1"), ("flush.ms", "2")])], false), [42]);
}

#[test]
fn resources_are_listed_by_type() {
    let cluster = cluster_with_topic();
    set(&cluster, 16, "m", "interval.ms", 0, Some("1000"));
    set(&cluster, 32, "g", "consumer.session.timeout.ms", 0, Some("50000"));
    let list = |version, types: &[i8]| {
        let asked = ListConfigResourcesRequest::default().with_resource_types(types.to_vec());
        let ResponseKind::ListConfigResources(response) = cluster.ask(version, asked) else {
            panic!()
        };
        let shown = response
            .config_resources
            .iter()
            .map(|r| (r.resource_type, r.resource_name.to_string()));
        (response.error_code, shown.collect::<Vec<_>>())
    };
    let names =
        |pairs: &[(i8, &str)]| pairs.iter().map(|(t, n)| (*t, (*n).to_owned())).collect::<Vec<_>>();
    assert_eq!(list(0, &[]).1.iter().map(|(_, n)| n.as_str()).collect::<Vec<_>>(), ["m"]);
    let all = [(2, "t"), (4, "1"), (8, "1"), (16, "m"), (32, "g")];
    assert_eq!(list(1, &[]), (0, names(&all)));
    assert_eq!(list(1, &[32]), (0, names(&[(32, "g")])));
    assert_eq!(list(1, &[2, 7]), (35, vec![]));
}
