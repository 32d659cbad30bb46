//! `chronik-server group`: list, describe and delete consumer groups, and reset their offsets.
//!
//! A group is asked at its coordinator, which is found anew for every command. Offsets are written
//! as a consumer without a group membership would, which the coordinator allows while the group has
//! no members.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Buf;
use clap::{value_parser, Arg, ArgAction, ArgMatches, Command};
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest,
    GroupId, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::Decodable;
use net::ErrorCode;

use super::connect::{
    checked, in_session, no_answer, text, topic_name, with_bootstrap, Session, EARLIEST, LATEST,
};
use super::output::{or_dash, print, Table};
use crate::failure::{Exit, Failure};

/// How often a coordinator is asked for that is being made or is moving.
const COORDINATOR_ATTEMPTS: u32 = 50;
const COORDINATOR_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

pub fn command() -> Command {
    let group = || Arg::new("group").value_name("GROUP").required(true).help("Its name");
    let reset = Command::new("reset-offsets")
        .about("Set where a group without consumers goes on")
        .arg(group())
        .arg(
            Arg::new("topic")
                .long("topic")
                .value_name("TOPIC")
                .action(ArgAction::Append)
                .help("The topics to reset; may be repeated [default: those with offsets]"),
        )
        .arg(
            Arg::new("partition")
                .long("partition")
                .value_name("N")
                .value_parser(value_parser!(i32).range(0..))
                .help("Only this partition [default: all]"),
        )
        .arg(
            Arg::new("to")
                .long("to")
                .value_name("WHERE")
                .required(true)
                .value_parser(Target::parse)
                .help("earliest, latest, an offset, or @MS: the first record at or after that time")
                .long_help(
                    "earliest: the first record there is; latest: behind the last; a number: that \
                     offset, or the nearest that exists; @MS: the first record with a timestamp at \
                     or after so many milliseconds since 1970.",
                ),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Show what would be set, and set nothing"),
        );
    with_bootstrap(Command::new("group"))
        .about("List, describe and delete consumer groups, and reset their offsets")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("list").about("List all groups with their states"))
        .subcommand(
            Command::new("describe").about("Show offsets, lag and members of a group").arg(group()),
        )
        .subcommand(
            Command::new("delete").about("Delete groups without consumers, and their offsets").arg(
                Arg::new("group")
                    .value_name("GROUP")
                    .num_args(1..)
                    .required(true)
                    .help("Their names"),
            ),
        )
        .subcommand(reset)
}

pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("list", matches)) => in_session(matches, list_groups),
        Some(("describe", matches)) => {
            let group = names(matches).remove(0);
            in_session(matches, move |session| describe(session, group))
        }
        Some(("delete", matches)) => {
            let groups = names(matches);
            in_session(matches, move |session| delete(session, groups))
        }
        Some(("reset-offsets", matches)) => {
            let reset = Reset::read(matches);
            in_session(matches, move |session| reset_offsets(session, reset))
        }
        other => unreachable!("clap knows no such subcommand: {other:?}"),
    }
}

fn names(matches: &ArgMatches) -> Vec<String> {
    matches.get_many::<String>("group").unwrap_or_default().cloned().collect()
}

fn group_id(name: &str) -> GroupId {
    GroupId(text(name))
}

/// Every broker knows the groups that it coordinates.
async fn list_groups(mut session: Session) -> Result<(), Failure> {
    let brokers = session.metadata(Some(&[]), false).await?.brokers;
    let mut rows = BTreeMap::new();
    for broker in brokers {
        let node = broker.node_id.0;
        let answer = session.at(node, &ListGroupsRequest::default(), 4).await?;
        checked(&format!("groups of broker {node}"), answer.error_code, None)?;
        for group in answer.groups {
            let name = group.group_id.to_string();
            rows.insert(name, (group.group_state.to_string(), group.protocol_type.to_string()));
        }
    }
    let mut table = Table::new(&["GROUP", "STATE", "TYPE"]);
    for (name, (state, kind)) in rows {
        table.row([name, state, or_dash((!kind.is_empty()).then_some(kind))]);
    }
    print(&table.to_string());
    Ok(())
}

/// The broker that coordinates a group.
async fn coordinator(session: &mut Session, group: &str) -> Result<i32, Failure> {
    session.metadata(Some(&[]), false).await?;
    let request = FindCoordinatorRequest::default().with_key(text(group)).with_key_type(0);
    let mut attempts = 1;
    loop {
        let answer = session.any(&request, 3).await?;
        // The first use of any group makes the topic of the offsets.
        let passing = ErrorCode::from_code(answer.error_code).is_some_and(ErrorCode::is_retriable);
        if passing && attempts < COORDINATOR_ATTEMPTS {
            attempts += 1;
            session.shard().clone().sleep(COORDINATOR_PAUSE).await;
            continue;
        }
        let what = format!("coordinator of group `{group}`");
        checked(&what, answer.error_code, answer.error_message.as_ref())?;
        return Ok(answer.node_id.0);
    }
}

/// Committed offsets by topic and partition.
type Offsets = BTreeMap<String, BTreeMap<i32, i64>>;

async fn committed(session: &mut Session, node: i32, group: &str) -> Result<Offsets, Failure> {
    let wanted =
        OffsetFetchRequestGroup::default().with_group_id(group_id(group)).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![wanted]);
    let answer = session.at(node, &request, 8).await?;
    let what = format!("offsets of group `{group}`");
    let answer = answer.groups.into_iter().next().ok_or_else(|| no_answer(&what))?;
    checked(&what, answer.error_code, None)?;
    let mut offsets = Offsets::new();
    for topic in answer.topics {
        let partitions = offsets.entry(topic.name.to_string()).or_default();
        for partition in topic.partitions {
            checked(&what, partition.error_code, None)?;
            partitions.insert(partition.partition_index, partition.committed_offset);
        }
    }
    Ok(offsets)
}

async fn described(
    session: &mut Session,
    node: i32,
    group: &str,
) -> Result<DescribedGroup, Failure> {
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
    let answer = session.at(node, &request, 5).await?;
    let what = format!("group `{group}`");
    let found = answer.groups.into_iter().next().ok_or_else(|| no_answer(&what))?;
    checked(&what, found.error_code, found.error_message.as_ref())?;
    Ok(found)
}

async fn describe(mut session: Session, group: String) -> Result<(), Failure> {
    let node = coordinator(&mut session, &group).await?;
    let found = described(&mut session, node, &group).await?;
    let offsets = committed(&mut session, node, &group).await?;
    // Kafka describes a group that nobody knows as a dead one.
    if found.group_state.as_str() == "Dead" && offsets.is_empty() {
        return Err(Failure::new(Exit::Failed, format!("there is no group `{group}`"))
            .hint("`chronik-server group list` shows the groups"));
    }
    let owners = owners(&found.members);
    let topics: BTreeSet<String> =
        offsets.keys().cloned().chain(owners.keys().map(|(topic, _)| topic.clone())).collect();
    let columns = ["TOPIC", "PARTITION", "OFFSET", "END", "LAG", "MEMBER", "CLIENT", "HOST"];
    let mut table = Table::new(&columns);
    for topic in topics {
        let ends = ends(&mut session, &topic).await?;
        let committed = offsets.get(&topic);
        let assigned = owners.keys().filter(|(name, _)| *name == topic).map(|(_, number)| *number);
        let known = committed.into_iter().flatten().map(|(number, _)| *number);
        let partitions: BTreeSet<i32> = assigned.chain(known).collect();
        for number in partitions {
            let offset = committed.and_then(|offsets| offsets.get(&number)).copied();
            let offset = offset.filter(|offset| *offset >= 0);
            let end = ends.get(&number).copied();
            let owner = owners.get(&(topic.clone(), number));
            table.row([
                topic.clone(),
                number.to_string(),
                or_dash(offset),
                or_dash(end),
                or_dash(lag(offset, end)),
                or_dash(owner.map(|member| &member.member_id)),
                or_dash(owner.map(|member| &member.client_id)),
                or_dash(owner.map(|member| &member.client_host)),
            ]);
        }
    }
    print(&format!(
        "group {group}\n  state        {}\n  coordinator  {node}\n  assignor     {}\n  members      \
         {}\n{table}",
        found.group_state,
        or_dash((!found.protocol_data.is_empty()).then_some(found.protocol_data)),
        found.members.len(),
    ));
    Ok(())
}

/// Records that are still to be consumed, as far as that is known.
fn lag(offset: Option<i64>, end: Option<i64>) -> Option<i64> {
    Some(end?.saturating_sub(offset?).max(0))
}

/// The end offsets of a topic; none if it was deleted since.
async fn ends(session: &mut Session, topic: &str) -> Result<BTreeMap<i32, i64>, Failure> {
    let answer = session.metadata(Some(&[topic.to_owned()]), false).await?;
    match answer.topics.first() {
        Some(topic) if topic.error_code == 0 => session.offsets(topic, LATEST).await,
        _ => Ok(BTreeMap::new()),
    }
}

/// Who consumes which partition.
fn owners(members: &[DescribedGroupMember]) -> BTreeMap<(String, i32), &DescribedGroupMember> {
    let mut owners = BTreeMap::new();
    for member in members {
        for topic in assignment(member.member_assignment.clone()) {
            for number in topic.partitions {
                owners.insert((topic.topic.to_string(), number), member);
            }
        }
    }
    owners
}

/// What a member was assigned. Groups of other protocols (Connect, say) carry other bytes there:
/// they own no partitions.
fn assignment(
    mut bytes: bytes::Bytes,
) -> Vec<kafka_protocol::messages::consumer_protocol_assignment::TopicPartition> {
    if bytes.len() < 2 {
        return Vec::new();
    }
    let version = bytes.get_i16().clamp(0, 3);
    let decoded = ConsumerProtocolAssignment::decode(&mut bytes, version);
    decoded.map(|assignment| assignment.assigned_partitions).unwrap_or_default()
}

async fn delete(mut session: Session, groups: Vec<String>) -> Result<(), Failure> {
    for group in groups {
        let node = coordinator(&mut session, &group).await?;
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(&group)]);
        let answer = session.at(node, &request, 2).await?;
        let what = format!("group `{group}` was not deleted");
        let result = answer.results.into_iter().next().ok_or_else(|| no_answer(&what))?;
        checked(&what, result.error_code, None)?;
        print(&format!("group {group} deleted\n"));
    }
    Ok(())
}

/// Where a group shall go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Earliest,
    Latest,
    Offset(i64),
    Timestamp(i64),
}

impl Target {
    fn parse(text: &str) -> Result<Target, String> {
        let number = |digits: &str| digits.parse().ok().filter(|number: &i64| *number >= 0);
        let target = match text {
            "earliest" => Some(Target::Earliest),
            "latest" => Some(Target::Latest),
            _ => match text.strip_prefix('@') {
                Some(milliseconds) => number(milliseconds).map(Target::Timestamp),
                None => number(text).map(Target::Offset),
            },
        };
        target.ok_or_else(|| "earliest, latest, an offset or @MILLISECONDS is wanted".into())
    }

    /// The offset between the ends of a log; `at_time` is that of the timestamp, if there is one.
    fn resolve(self, first: i64, next: i64, at_time: Option<i64>) -> i64 {
        match self {
            Target::Earliest => first,
            Target::Latest => next,
            Target::Offset(offset) => offset.clamp(first, next.max(first)),
            Target::Timestamp(_) => at_time.filter(|offset| *offset >= 0).unwrap_or(next),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Reset {
    group: String,
    topics: Vec<String>,
    partition: Option<i32>,
    to: Target,
    dry_run: bool,
}

impl Reset {
    fn read(matches: &ArgMatches) -> Reset {
        Reset {
            group: names(matches).remove(0),
            topics: matches.get_many("topic").unwrap_or_default().cloned().collect(),
            partition: matches.get_one("partition").copied(),
            to: *matches.get_one("to").expect("required"),
            dry_run: matches.get_flag("dry-run"),
        }
    }
}

async fn reset_offsets(mut session: Session, reset: Reset) -> Result<(), Failure> {
    let group = &reset.group;
    let node = coordinator(&mut session, group).await?;
    let before = committed(&mut session, node, group).await?;
    let topics = match reset.topics.is_empty() {
        true => before.keys().cloned().collect(),
        false => reset.topics.clone(),
    };
    if topics.is_empty() {
        return Err(Failure::new(Exit::Failed, format!("group `{group}` has no offsets"))
            .hint("--topic names the topics to set offsets for"));
    }
    let mut table = Table::new(&["TOPIC", "PARTITION", "OFFSET", "NEW OFFSET"]);
    let mut request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1);
    for name in topics {
        let topic = session.topic(&name).await?;
        let new = new_offsets(&mut session, &topic, &reset).await?;
        let mut partitions = Vec::new();
        for (number, offset) in new {
            let old = before.get(&name).and_then(|offsets| offsets.get(&number));
            let old = old.filter(|offset| **offset >= 0);
            table.row([name.clone(), number.to_string(), or_dash(old), offset.to_string()]);
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(number)
                .with_committed_offset(offset)
                .with_committed_metadata(Some(text("")));
            partitions.push(partition);
        }
        let topic = OffsetCommitRequestTopic::default().with_name(topic_name(&name));
        request.topics.push(topic.with_partitions(partitions));
    }
    if !reset.dry_run {
        let answer = session.at(node, &request, 8).await?;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let what = format!("the offsets of group `{group}` were not set");
            checked(&what, partition.error_code, None)?;
        }
    }
    print(&table.to_string());
    if reset.dry_run {
        print("nothing was set (--dry-run)\n");
    }
    Ok(())
}

async fn new_offsets(
    session: &mut Session,
    topic: &MetadataResponseTopic,
    reset: &Reset,
) -> Result<BTreeMap<i32, i64>, Failure> {
    let first = session.offsets(topic, EARLIEST).await?;
    let next = session.offsets(topic, LATEST).await?;
    let at_time = match reset.to {
        Target::Timestamp(timestamp) => session.offsets(topic, timestamp).await?,
        _ => BTreeMap::new(),
    };
    let chosen = |number: &i32| reset.partition.is_none_or(|only| only == *number);
    let new: BTreeMap<i32, i64> = next
        .into_iter()
        .filter(|(number, _)| chosen(number))
        .map(|(number, next)| {
            let first = first.get(&number).copied().unwrap_or_default();
            (number, reset.to.resolve(first, next, at_time.get(&number).copied()))
        })
        .collect();
    match (new.is_empty(), reset.partition) {
        (true, Some(number)) => {
            let name = topic.name.clone().unwrap_or_default();
            let message = format!("topic `{}` has no partition {number}", name.0);
            Err(Failure::new(Exit::Failed, message).hint("`topic describe` shows its partitions"))
        }
        _ => Ok(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_stay_within_the_log() {
        assert_eq!(Target::parse("earliest").unwrap().resolve(5, 9, None), 5);
        assert_eq!(Target::parse("latest").unwrap().resolve(5, 9, None), 9);
        let offset = Target::parse("7").unwrap();
        assert_eq!(offset.resolve(5, 9, None), 7);
        assert_eq!((offset.resolve(8, 9, None), offset.resolve(0, 3, None)), (8, 3));
        let time = Target::parse("@1700000000000").unwrap();
        assert_eq!(time, Target::Timestamp(1_700_000_000_000));
        // No record is that young: the group waits for the next one.
        assert_eq!((time.resolve(5, 9, Some(6)), time.resolve(5, 9, Some(-1))), (6, 9));
        for wrong in ["-1", "@", "@-3", "first", ""] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lag_is_known_when_both_ends_are() {
        assert_eq!(lag(Some(3), Some(10)), Some(7));
        assert_eq!(lag(None, Some(10)), None);
        assert_eq!(lag(Some(12), Some(10)), Some(0));
    }

    #[test]
    fn an_assignment_of_a_consumer_is_read_and_others_own_nothing() {
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4];
        bytes.extend([0xff; 4]);
        let topics = assignment(bytes.into());
        assert_eq!((topics[0].topic.to_string(), &topics[0].partitions), ("t".into(), &vec![0, 4]));
        assert!(assignment(bytes::Bytes::from_static(b"{\"a\":1}")).is_empty());
        assert!(assignment(bytes::Bytes::new()).is_empty());
    }
}
