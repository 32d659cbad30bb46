//! DeleteRecords (key 21), versions 0 to 2.
//!
//! KIP-107. The new log start is a committed entry of the partition's group, so that every
//! replica agrees and deleted records never come back; the answer comes after its commit.

use std::time::Duration;

use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, ResponseKind, TopicName};
use net::{Answer, ErrorCode, Request};
use wal::GroupId;

use super::scatter::{Ask, Scatter};
use crate::broker::Broker;
use crate::partition::control::Control;
use crate::partition::Outcome;

/// "Up to the high watermark".
const HIGH_WATERMARK: i64 = -1;

/// (error, log start)
type Found = (ErrorCode, i64);

pub async fn handle(broker: Broker, _: Request, body: DeleteRecordsRequest) -> Answer {
    let image = broker.image();
    let timeout_ms = u64::try_from(body.timeout_ms).unwrap_or(0);
    let mut scatter = Scatter::default();
    for topic in &body.topics {
        let known = image.topic(&topic.name.0);
        for asked in &topic.partitions {
            match known.and_then(|topic| topic.partition(asked.partition_index)) {
                None => scatter.answer((ErrorCode::UnknownTopicOrPartition, -1)),
                Some(located) => scatter.ask(&broker, located.group, (asked.offset, timeout_ms)),
            }
        }
    }
    let mut found = scatter.send(&broker, delete).await.into_iter();
    let mut response = DeleteRecordsResponse::default();
    for topic in &body.topics {
        let mut answered = DeleteRecordsTopicResult::default();
        answered.name = TopicName(topic.name.0.clone());
        for (asked, (error, log_start)) in topic.partitions.iter().zip(&mut found) {
            answered.partitions.push(
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(asked.partition_index)
                    .with_error_code(error.code())
                    .with_low_watermark(log_start),
            );
        }
        response.topics.push(answered);
    }
    Answer::Message(ResponseKind::DeleteRecords(response))
}

async fn delete(broker: Broker, asks: Vec<Ask<(i64, u64)>>) -> Vec<(usize, Found)> {
    // All are proposed before the first is awaited: they share a frame of the log.
    let started = asks.into_iter().map(|ask| {
        let (offset, timeout_ms) = ask.what;
        (ask.slot, delete_one(broker.clone(), ask.group, offset, timeout_ms))
    });
    let (slots, deletions): (Vec<_>, Vec<_>) = started.unzip();
    let found = rt::join_all(deletions).await;
    slots.into_iter().zip(found).collect()
}

async fn delete_one(broker: Broker, group: GroupId, offset: i64, timeout_ms: u64) -> Found {
    let Some(partition) = broker.partition(group) else {
        return (ErrorCode::UnknownTopicOrPartition, -1);
    };
    let wait = {
        let mut partition = partition.borrow_mut();
        if !partition.is_leader() {
            return (ErrorCode::NotLeaderOrFollower, -1);
        }
        if !partition.config().cleanup.delete {
            return (ErrorCode::PolicyViolation, -1);
        }
        let high_watermark = partition.high_watermark();
        let target = if offset == HIGH_WATERMARK { high_watermark } else { offset };
        if target < 0 || target > high_watermark {
            return (ErrorCode::OffsetOutOfRange, -1);
        }
        if target <= partition.log_start() {
            return (ErrorCode::None, partition.log_start());
        }
        match partition.propose_control(Control::LogStart(target)) {
            Ok(index) => partition.wait_for_commit(index),
            Err(error) => return (super::produce::code_of(&error), -1),
        }
    };
    let limit = Duration::from_millis(timeout_ms);
    match broker.shard().timeout(limit, wait).await {
        Ok(Outcome::Done) => (ErrorCode::None, partition.borrow().log_start()),
        Ok(Outcome::LeadershipLost) => (ErrorCode::NotLeaderOrFollower, -1),
        Ok(Outcome::Deleted) => (ErrorCode::UnknownTopicOrPartition, -1),
        Err(_) => (ErrorCode::RequestTimedOut, -1),
    }
}
