//! CreatePartitions (key 37), versions 0 to 3. KIP-195.
//!
//! Departure: a request for too many partitions is refused as a whole before anything is created
//! (Kafka fails in the middle).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};
use kafka_protocol::messages::TopicName;
use net::ErrorCode;

use super::admin::Admin;
use super::create_topics::{excessive_partitions, results_of, PARTITIONS_MAX};
use super::errors::Refusal;
use super::placement;
use crate::meta::{Assignment, Command, Image, MorePartitions, NodeId};

pub async fn handle<A: Admin>(
    admin: &A,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut planned = plan(&admin.image(), &request);
    let topics: Vec<MorePartitions> =
        planned.iter().filter_map(|(_, more)| more.as_ref().ok()).cloned().collect();
    if !request.validate_only && !topics.is_empty() {
        let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
        let count = topics.len();
        let outcome = admin.submit(Command::CreatePartitions { topics }, timeout).await;
        let mut results = results_of(outcome, count).into_iter();
        for (_, more) in planned.iter_mut().filter(|(_, more)| more.is_ok()) {
            if let Some(Err(refusal)) = results.next() {
                *more = Err(refusal);
            }
        }
    }
    let results = planned.into_iter().map(|(name, planned)| {
        let result =
            CreatePartitionsTopicResult::default().with_name(name).with_error_message(None);
        match planned {
            Ok(_) => result,
            Err(refusal) => {
                result.with_error_code(refusal.code.code()).with_error_message(refusal.text())
            }
        }
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

type Plan = Vec<(TopicName, Result<MorePartitions, Refusal>)>;

fn plan(image: &Image, request: &CreatePartitionsRequest) -> Plan {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.as_str()).or_default() += 1;
    }
    let excessive = asked_partitions(image, &request.topics) > PARTITIONS_MAX;
    let mut seen = BTreeSet::new();
    let mut planned = Plan::new();
    for topic in &request.topics {
        let name = topic.name.as_str();
        if !seen.insert(name) {
            continue;
        }
        let result = if request.timeout_ms <= 0 {
            Err(Refusal::bare(ErrorCode::RequestTimedOut))
        } else if times[name] > 1 {
            Err(Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else if excessive {
            Err(excessive_partitions())
        } else {
            check(image, topic)
        };
        planned.push((topic.name.clone(), result));
    }
    planned
}

fn asked_partitions(image: &Image, topics: &[CreatePartitionsTopic]) -> usize {
    let asked = topics.iter().map(|topic| {
        let now = image.topic(&topic.name).map_or(0, |found| found.partitions.len());
        usize::try_from(topic.count).unwrap_or_default().saturating_sub(now)
    });
    asked.fold(0, usize::saturating_add)
}

fn check(image: &Image, asked: &CreatePartitionsTopic) -> Result<MorePartitions, Refusal> {
    let name = asked.name.as_str();
    let topic =
        image.topic(name).ok_or_else(|| Refusal::bare(ErrorCode::UnknownTopicOrPartition))?;
    let now = topic.partitions.len();
    let refuse = |message| Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    let count = asked.count;
    if count == now as i32 {
        return refuse(format!("Topic already has {now} partition(s)."));
    }
    if count < now as i32 {
        return refuse(format!(
            "The topic {name} currently has {now} partition(s); {count} would not be an increase."
        ));
    }
    let more = count as usize - now;
    let added = match &asked.assignments {
        Some(_) => manual(image, asked, more)?,
        None => placement::place(image, more, topic.replication_factor())?,
    };
    Ok(MorePartitions { topic: topic.id, expected: now as u32, added })
}

fn manual(
    image: &Image,
    asked: &CreatePartitionsTopic,
    more: usize,
) -> Result<Vec<Assignment>, Refusal> {
    let given = asked.assignments.iter().flatten();
    let added: Vec<Assignment> = given
        .map(|assignment| assignment.broker_ids.iter().map(|id| NodeId(id.0)).collect())
        .collect();
    if added.len() != more {
        let message = format!(
            "Attempted to add {more} additional partition(s), but only {} assignment(s) were \
             specified.",
            added.len()
        );
        return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    for nodes in &added {
        placement::check_manual(image, nodes)?;
    }
    Ok(added)
}
