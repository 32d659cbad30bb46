//! `chronik-server topic`: list, describe, create, alter and delete topics of a running cluster.
//!
//! Output and names of the flags are an interface. Every change is one request; the broker answers
//! it when it is durable and the partitions take records.

use std::fmt::Write as _;

use clap::{value_parser, Arg, ArgAction, ArgMatches, Command};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
};
use net::ErrorCode;

use super::connect::{
    checked, in_session, no_answer, text, topic_name, with_bootstrap, Session, EARLIEST, LATEST,
    REQUEST_TIMEOUT_MS,
};
use super::output::{list, or_dash, print, Table};
use crate::failure::{Exit, Failure};

/// Kafka's number for a topic among the resources that have configurations.
const TOPIC_RESOURCE: i8 = 2;
/// `config_source` of a value that was set on the topic itself.
const SET_ON_TOPIC: i8 = 1;
const SET: i8 = 0;
const UNSET: i8 = 1;

pub fn command() -> Command {
    let topics = || Arg::new("topic").value_name("TOPIC").num_args(1..);
    let describe = Command::new("describe")
        .about("Show partitions, leaders, replicas, offsets and what is set")
        .arg(topics().help("The topics to show [default: all]"))
        .arg(flag("all", "Show every option, not only those that are set on the topic"));
    let create = Command::new("create")
        .about("Create topics")
        .arg(topics().required(true).help("Their names"))
        .arg(
            number("partitions", "Partitions of each [default: num_partitions of the broker]")
                .short('p'),
        )
        .arg(
            Arg::new("replication-factor")
                .long("replication-factor")
                .value_name("N")
                .value_parser(value_parser!(i16).range(1..))
                .help("Replicas of each partition [default: that of the cluster]"),
        )
        .arg(setting("config", "Set an option of the topic; may be repeated"))
        .arg(flag("if-not-exists", "Do nothing about a topic that exists"));
    let alter = Command::new("alter")
        .about("Add partitions to a topic, or change its options")
        .arg(Arg::new("topic").value_name("TOPIC").required(true).help("Its name"))
        .arg(number("partitions", "How many partitions it shall have in all").short('p'))
        .arg(setting("set", "Set an option of the topic; may be repeated"))
        .arg(
            Arg::new("unset")
                .long("unset")
                .value_name("NAME")
                .action(ArgAction::Append)
                .help("Return an option to the cluster's default; may be repeated"),
        );
    let delete = Command::new("delete")
        .about("Delete topics and all their records")
        .arg(topics().required(true).help("Their names"))
        .arg(flag("if-exists", "Do nothing about a topic that does not exist"));
    with_bootstrap(Command::new("topic"))
        .about("List, describe, create, alter and delete topics")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("list").about("Print the names of all topics, one a line"))
        .subcommand(describe)
        .subcommand(create)
        .subcommand(alter)
        .subcommand(delete)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn number(name: &'static str, help: &'static str) -> Arg {
    let parser = value_parser!(i32).range(1..);
    Arg::new(name).long(name).value_name("N").value_parser(parser).help(help)
}

fn setting(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("NAME=VALUE")
        .action(ArgAction::Append)
        .value_parser(name_and_value)
        .help(help)
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("NAME=VALUE is wanted, for example retention.ms=60000".into()),
    }
}

pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("list", matches)) => in_session(matches, list_topics),
        Some(("describe", matches)) => {
            let (names, all) = (names(matches), matches.get_flag("all"));
            in_session(matches, move |session| describe(session, names, all))
        }
        Some(("create", matches)) => {
            let (topics, lenient) = (new_topics(matches), matches.get_flag("if-not-exists"));
            in_session(matches, move |session| create(session, topics, lenient))
        }
        Some(("alter", matches)) => {
            let change = Change::read(matches)?;
            in_session(matches, move |session| alter(session, change))
        }
        Some(("delete", matches)) => {
            let (names, lenient) = (names(matches), matches.get_flag("if-exists"));
            in_session(matches, move |session| delete(session, names, lenient))
        }
        other => unreachable!("clap knows no such subcommand: {other:?}"),
    }
}

fn names(matches: &ArgMatches) -> Vec<String> {
    matches.get_many::<String>("topic").unwrap_or_default().cloned().collect()
}

fn settings(matches: &ArgMatches, name: &str) -> Vec<(String, String)> {
    matches.get_many(name).unwrap_or_default().cloned().collect()
}

async fn list_topics(mut session: Session) -> Result<(), Failure> {
    let answer = session.metadata(None, false).await?;
    let mut names: Vec<String> =
        answer.topics.into_iter().filter_map(|topic| Some(topic.name?.to_string())).collect();
    names.sort();
    print(&names.into_iter().fold(String::new(), |text, name| text + &name + "\n"));
    Ok(())
}

async fn describe(mut session: Session, names: Vec<String>, all: bool) -> Result<(), Failure> {
    let wanted = (!names.is_empty()).then_some(names.as_slice());
    let mut topics = session.metadata(wanted, false).await?.topics;
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    for (place, topic) in topics.iter().enumerate() {
        let name = topic.name.clone().unwrap_or_default();
        checked(&format!("topic `{}`", name.0), topic.error_code, None)?;
        if place > 0 {
            print("\n");
        }
        print(&describe_one(&mut session, topic, all).await?);
    }
    Ok(())
}

async fn describe_one(
    session: &mut Session,
    topic: &MetadataResponseTopic,
    all: bool,
) -> Result<String, Failure> {
    let name = topic.name.clone().unwrap_or_default().to_string();
    let replicas = topic.partitions.first().map_or(0, |partition| partition.replica_nodes.len());
    let mut out = format!(
        "topic {name}\n  id           {}\n  partitions   {}\n  replication  {replicas}\n",
        topic.topic_id,
        topic.partitions.len(),
    );
    for (option, value) in options(session, &name, all).await? {
        let _ = writeln!(out, "  {option} = {value}");
    }
    let first = session.offsets(topic, EARLIEST).await?;
    let next = session.offsets(topic, LATEST).await?;
    let columns = ["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "FIRST", "NEXT"];
    let mut table = Table::new(&columns);
    let mut partitions: Vec<_> = topic.partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    for partition in partitions {
        let number = partition.partition_index;
        table.row([
            number.to_string(),
            partition.leader_id.0.to_string(),
            partition.leader_epoch.to_string(),
            list(partition.replica_nodes.iter().map(|node| node.0)),
            list(partition.isr_nodes.iter().map(|node| node.0)),
            or_dash(first.get(&number)),
            or_dash(next.get(&number)),
        ]);
    }
    Ok(out + &table.to_string())
}

/// Options of a topic with their values, by name: those that are set on it, or all.
async fn options(
    session: &mut Session,
    name: &str,
    all: bool,
) -> Result<Vec<(String, String)>, Failure> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = session.any(&request, 4).await?;
    let what = format!("options of topic `{name}`");
    let result = answer.results.into_iter().next().ok_or_else(|| no_answer(&what))?;
    checked(&what, result.error_code, result.error_message.as_ref())?;
    let shown = result.configs.into_iter().filter(|c| all || c.config_source == SET_ON_TOPIC);
    let mut shown: Vec<_> = shown
        .map(|config| (config.name.to_string(), config.value.unwrap_or_default().to_string()))
        .collect();
    shown.sort();
    Ok(shown)
}

fn new_topics(matches: &ArgMatches) -> Vec<CreatableTopic> {
    let partitions = matches.get_one::<i32>("partitions").copied().unwrap_or(-1);
    let replicas = matches.get_one::<i16>("replication-factor").copied().unwrap_or(-1);
    let option = |(name, value): &(String, String)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let configs: Vec<_> = settings(matches, "config").iter().map(option).collect();
    let topic = |name: String| {
        CreatableTopic::default()
            .with_name(topic_name(&name))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
            .with_configs(configs.clone())
    };
    names(matches).into_iter().map(topic).collect()
}

async fn create(
    mut session: Session,
    topics: Vec<CreatableTopic>,
    lenient: bool,
) -> Result<(), Failure> {
    let request =
        CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(REQUEST_TIMEOUT_MS);
    let answer = session.any(&request, 7).await?;
    let mut outcome = Ok(());
    for topic in answer.topics {
        let name = topic.name.0;
        let exists = topic.error_code == ErrorCode::TopicAlreadyExists.code();
        if exists && lenient {
            print(&format!("topic {name} exists\n"));
            continue;
        }
        let what = format!("topic `{name}` was not created");
        match checked(&what, topic.error_code, topic.error_message.as_ref()) {
            Ok(()) => print(&format!(
                "topic {name} created: {} partitions, {} replicas\n",
                topic.num_partitions, topic.replication_factor
            )),
            Err(failure) => outcome = first_of(outcome, failure),
        }
    }
    outcome
}

/// Of several refusals the first ends the command; the others are shown as they come.
fn first_of(outcome: Result<(), Failure>, failure: Failure) -> Result<(), Failure> {
    match outcome {
        Ok(()) => Err(failure),
        Err(first) => {
            eprint!("{failure}");
            Err(first)
        }
    }
}

/// What `topic alter` was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    topic: String,
    partitions: Option<i32>,
    set: Vec<(String, String)>,
    unset: Vec<String>,
}

impl Change {
    fn read(matches: &ArgMatches) -> Result<Change, Failure> {
        let change = Change {
            topic: names(matches).remove(0),
            partitions: matches.get_one("partitions").copied(),
            set: settings(matches, "set"),
            unset: matches.get_many("unset").unwrap_or_default().cloned().collect(),
        };
        if change.partitions.is_none() && change.set.is_empty() && change.unset.is_empty() {
            return Err(Failure::new(Exit::Usage, "nothing to change")
                .hint("--partitions N, --set NAME=VALUE or --unset NAME says what"));
        }
        Ok(change)
    }

    fn configs(&self) -> Vec<AlterableConfig> {
        let config = |name: &str, operation, value: Option<&str>| {
            AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(operation)
                .with_value(value.map(text))
        };
        let set = self.set.iter().map(|(name, value)| config(name, SET, Some(value)));
        set.chain(self.unset.iter().map(|name| config(name, UNSET, None))).collect()
    }
}

/// Options first: they are refused more often, and partitions cannot be taken back.
async fn alter(mut session: Session, change: Change) -> Result<(), Failure> {
    let name = &change.topic;
    let configs = change.configs();
    if !configs.is_empty() {
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(text(name))
            .with_configs(configs);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = session.any(&request, 1).await?;
        let what = format!("topic `{name}` was not changed");
        let result = answer.responses.into_iter().next().ok_or_else(|| no_answer(&what))?;
        checked(&what, result.error_code, result.error_message.as_ref())?;
        print(&format!("topic {name}: options changed\n"));
    }
    if let Some(count) = change.partitions {
        let topic = CreatePartitionsTopic::default()
            .with_name(topic_name(name))
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(REQUEST_TIMEOUT_MS);
        let answer = session.any(&request, 3).await?;
        let what = format!("topic `{name}` got no partitions");
        let result = answer.results.into_iter().next().ok_or_else(|| no_answer(&what))?;
        checked(&what, result.error_code, result.error_message.as_ref())?;
        print(&format!("topic {name}: {count} partitions\n"));
    }
    Ok(())
}

async fn delete(mut session: Session, names: Vec<String>, lenient: bool) -> Result<(), Failure> {
    let topic = |name: &String| DeleteTopicState::default().with_name(Some(topic_name(name)));
    let request = DeleteTopicsRequest::default()
        .with_topics(names.iter().map(topic).collect())
        .with_timeout_ms(REQUEST_TIMEOUT_MS);
    let answer = session.any(&request, 6).await?;
    let mut outcome = Ok(());
    for topic in answer.responses {
        let name = topic.name.unwrap_or_default().0;
        let missing = topic.error_code == ErrorCode::UnknownTopicOrPartition.code();
        if missing && lenient {
            print(&format!("topic {name} does not exist\n"));
            continue;
        }
        let what = format!("topic `{name}` was not deleted");
        match checked(&what, topic.error_code, topic.error_message.as_ref()) {
            Ok(()) => print(&format!("topic {name} deleted\n")),
            Err(failure) => outcome = first_of(outcome, failure),
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<ArgMatches, clap::Error> {
        command().try_get_matches_from(std::iter::once("topic").chain(arguments.iter().copied()))
    }

    fn matches(arguments: &[&str]) -> ArgMatches {
        parse(arguments).unwrap().remove_subcommand().unwrap().1
    }

    #[test]
    fn a_new_topic_has_what_was_asked_for_and_the_brokers_defaults() {
        let topics = new_topics(&matches(&["create", "a", "b"]));
        assert_eq!(topics.len(), 2);
        assert_eq!((topics[0].num_partitions, topics[0].replication_factor), (-1, -1));
        let asked = ["create", "a", "-p", "3", "--config", "retention.ms=1=2", "--config", "x="];
        let topic = new_topics(&matches(&asked)).remove(0);
        assert_eq!(topic.num_partitions, 3);
        let configs: Vec<_> = topic
            .configs
            .iter()
            .map(|config| (config.name.to_string(), config.value.clone().unwrap().to_string()))
            .collect();
        assert_eq!(
            configs,
            [("retention.ms".to_string(), "1=2".to_string()), ("x".to_string(), String::new())]
        );
        for wrong in [
            ["create", "a", "-p", "0"].as_slice(),
            &["create", "a", "--config", "retention.ms"],
            &["create"],
            &["delete"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_change_must_change_something() {
        let failure = Change::read(&matches(&["alter", "a"])).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        let asked = ["alter", "a", "--set", "retention.ms=5", "--unset", "segment.ms"];
        let change = Change::read(&matches(&asked)).unwrap();
        let configs = change.configs();
        assert_eq!((configs[0].config_operation, configs[1].config_operation), (SET, UNSET));
        assert_eq!(configs[1].value, None);
    }

    #[test]
    fn the_bootstrap_broker_is_named_before_or_after_the_verb() {
        for asked in [["list", "-b", "h:1"], ["--bootstrap", "h:1", "list"]] {
            let matches = matches(&asked);
            assert_eq!(super::super::connect::bootstrap(&matches), "h:1");
        }
    }
}
