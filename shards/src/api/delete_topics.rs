//! DeleteTopics (key 20), versions 1 to 6. KIP-4, KIP-516 (by id from version 6), KIP-599.
//!
//! Answers when no shard serves the topics any more. Departures: Metadata has forgotten them by
//! then (Kafka's lags behind); the answers stand in the request's order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use kafka_protocol::messages::delete_topics_response::{
    DeletableTopicResult, DeleteTopicsResponse,
};
use net::ErrorCode;
use uuid::Uuid;

use super::admin::Admin;
use super::create_topics::results_of;
use super::errors::Refusal;
use super::names::topic_name;
use crate::config::BrokerConfig;
use crate::meta::{Command, Image, Topic, TopicId};

/// A topic as the client named it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    name: Option<String>,
    id: Uuid,
}

pub async fn handle<A: Admin>(
    admin: &A,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let image = admin.image();
    let mut planned: Vec<(Named, Result<Arc<Topic>, Refusal>)> =
        plan(admin, &image, version, &request);
    let ids: Vec<TopicId> =
        planned.iter().filter_map(|(_, found)| found.as_ref().ok()).map(|topic| topic.id).collect();
    if !ids.is_empty() {
        let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
        let count = ids.len();
        let outcome = admin.submit(Command::DeleteTopics { topics: ids }, timeout).await;
        let mut results = results_of(outcome, count).into_iter();
        for (_, found) in planned.iter_mut().filter(|(_, found)| found.is_ok()) {
            if let Some(Err(refusal)) = results.next() {
                *found = Err(refusal);
            }
        }
    }
    let responses = planned.into_iter().map(|(named, found)| result(version, named, found));
    DeleteTopicsResponse::default().with_responses(responses.collect())
}

fn plan<A: Admin>(
    admin: &A,
    image: &Image,
    version: i16,
    request: &DeleteTopicsRequest,
) -> Vec<(Named, Result<Arc<Topic>, Refusal>)> {
    let named = named(version, request);
    let enabled = BrokerConfig::resolve(admin.settings(), image).delete_topics;
    let mut times: BTreeMap<&Named, usize> = BTreeMap::new();
    let mut by_name = BTreeSet::new();
    for each in &named {
        *times.entry(each).or_default() += 1;
        if let Some(topic) = each.name.as_ref().and_then(|name| image.topic(name)) {
            by_name.insert(topic.id);
        }
    }
    let by_id: BTreeSet<TopicId> = named.iter().map(|each| TopicId(each.id)).collect();
    let mut planned: Vec<(Named, Result<Arc<Topic>, Refusal>)> = Vec::new();
    let mut seen = BTreeSet::new();
    for each in &named {
        if !seen.insert(each) {
            continue;
        }
        let found = if request.timeout_ms <= 0 {
            Err(Refusal::bare(ErrorCode::RequestTimedOut))
        } else if !enabled {
            Err(deletion_disabled(version))
        } else {
            find(image, each)
        };
        let mut answered = each.clone();
        let found = match found {
            Ok(_) if times[each] > 1 => {
                let what = if each.name.is_some() { "name" } else { "id" };
                let message = format!("Duplicate topic {what}.");
                Err(Refusal::new(ErrorCode::InvalidRequest, message))
            }
            // Named in both ways: answered once, with both.
            Ok(topic) if each.name.is_some() && by_id.contains(&topic.id) => {
                answered.id = topic.id.0;
                let message = "The provided topic name maps to an ID that was already supplied.";
                Err(Refusal::new(ErrorCode::InvalidRequest, message))
            }
            Ok(topic) if each.name.is_none() && by_name.contains(&topic.id) => continue,
            other => other,
        };
        planned.push((answered, found));
    }
    planned
}

fn named(version: i16, request: &DeleteTopicsRequest) -> Vec<Named> {
    if version < 6 {
        let by_name = |name: &str| Named { name: Some(name.to_owned()), id: Uuid::nil() };
        return request.topic_names.iter().map(|name| by_name(name)).collect();
    }
    request
        .topics
        .iter()
        .map(|t| Named { name: t.name.as_ref().map(|name| name.to_string()), id: t.topic_id })
        .collect()
}

fn find(image: &Image, named: &Named) -> Result<Arc<Topic>, Refusal> {
    match (&named.name, named.id.is_nil()) {
        (Some(_), false) => Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "You may not specify both topic name and topic id.",
        )),
        (None, true) => Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "Neither topic name nor id were specified.",
        )),
        (Some(name), true) => image.topic(name).cloned().ok_or_else(|| {
            let message = "This server does not host this topic-partition.";
            Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
        }),
        (None, false) => image.topic_by_id(TopicId(named.id)).cloned().ok_or_else(|| {
            let message = "This server does not host this topic ID.";
            Refusal::new(ErrorCode::UnknownTopicId, message)
        }),
    }
}

fn deletion_disabled(version: i16) -> Refusal {
    let code =
        if version < 3 { ErrorCode::InvalidRequest } else { ErrorCode::TopicDeletionDisabled };
    Refusal::new(code, "Topic deletion is disabled.")
}

fn result(version: i16, named: Named, found: Result<Arc<Topic>, Refusal>) -> DeletableTopicResult {
    let answer = DeletableTopicResult::default().with_error_message(None);
    match found {
        Ok(topic) => answer
            .with_name(Some(topic_name(&topic.name)))
            .with_topic_id(if version >= 6 { topic.id.0 } else { Uuid::nil() }),
        Err(refusal) => answer
            .with_name(named.name.as_deref().map(topic_name))
            .with_topic_id(named.id)
            .with_error_code(refusal.code.code())
            .with_error_message(if version >= 5 { refusal.text() } else { None }),
    }
}
