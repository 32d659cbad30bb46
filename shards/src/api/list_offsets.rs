//! ListOffsets (key 2), versions 1 to 10.
//!
//! KIP-79 (times), KIP-98 (isolation), KIP-320 (epochs), KIP-405 (-4), KIP-734 (-3), KIP-1005 (-5).
//! A time is answered with the record that has it, inside compressed batches too.
//!
//! Departures: there is no tiered storage, so -5 is answered with -1, as Kafka does without it.

use std::collections::BTreeSet;

use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ResponseKind, TopicName};
use net::{Answer, ErrorCode, Request};
use wal::GroupId;

use super::scatter::{Ask, Scatter};
use crate::broker::Broker;
use crate::fetch::epoch_error;
use crate::log::{Offset, ReadError, TimeHit};
use crate::storage::Search;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// The version that introduced each special timestamp; none for those that do not exist.
fn since(timestamp: i64) -> Option<i16> {
    match timestamp {
        LATEST | EARLIEST => Some(0),
        MAX_TIMESTAMP => Some(7),
        EARLIEST_LOCAL => Some(8),
        LATEST_TIERED => Some(9),
        negative if negative < 0 => None,
        _ => Some(0),
    }
}

#[derive(Clone, Copy)]
struct What {
    timestamp: i64,
    current_leader_epoch: i32,
    read_committed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    error: ErrorCode,
    timestamp: i64,
    offset: i64,
    epoch: i32,
}

impl Found {
    const NONE: Found = Found { error: ErrorCode::None, timestamp: -1, offset: -1, epoch: -1 };

    fn failed(error: ErrorCode) -> Found {
        Found { error, ..Found::NONE }
    }

    fn at(offset: i64, timestamp: i64, epoch: i32) -> Found {
        Found { error: ErrorCode::None, timestamp, offset, epoch }
    }
}

pub async fn handle(broker: Broker, request: Request, body: ListOffsetsRequest) -> Answer {
    let version = request.version;
    let image = broker.image();
    let duplicates = duplicates(&body);
    let mut scatter = Scatter::default();
    for topic in &body.topics {
        let known = image.topic(&topic.name.0);
        for partition in &topic.partitions {
            let key = (topic.name.0.as_str(), partition.partition_index);
            let located = known.and_then(|topic| topic.partition(partition.partition_index));
            let Some(located) = located else {
                scatter.answer(Found::failed(ErrorCode::UnknownTopicOrPartition));
                continue;
            };
            if duplicates.contains(&key) || !(0..=1).contains(&body.isolation_level) {
                scatter.answer(Found::failed(ErrorCode::InvalidRequest));
            } else if since(partition.timestamp).is_none_or(|first| version < first) {
                scatter.answer(Found::failed(ErrorCode::UnsupportedVersion));
            } else {
                let what = What {
                    timestamp: partition.timestamp,
                    current_leader_epoch: partition.current_leader_epoch,
                    read_committed: body.isolation_level == 1,
                };
                scatter.ask(&broker, located.group, what);
            }
        }
    }
    let found = scatter.send(&broker, look_up).await;
    answer(&body, version, found)
}

fn duplicates(body: &ListOffsetsRequest) -> BTreeSet<(&str, i32)> {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in &body.topics {
        for partition in &topic.partitions {
            let key = (topic.name.0.as_str(), partition.partition_index);
            if !seen.insert(key) {
                twice.insert(key);
            }
        }
    }
    twice
}

fn answer(body: &ListOffsetsRequest, version: i16, found: Vec<Found>) -> Answer {
    let mut found = found.into_iter();
    let mut response = ListOffsetsResponse::default();
    for topic in &body.topics {
        let mut answered = ListOffsetsTopicResponse::default();
        answered.name = TopicName(topic.name.0.clone());
        for partition in &topic.partitions {
            let Some(one) = found.next() else { break };
            // The codec refuses an epoch in a version that has no field for it.
            let epoch = if version >= 4 { one.epoch } else { -1 };
            answered.partitions.push(
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(one.error.code())
                    .with_timestamp(one.timestamp)
                    .with_offset(one.offset)
                    .with_leader_epoch(epoch),
            );
        }
        response.topics.push(answered);
    }
    Answer::Message(ResponseKind::ListOffsets(response))
}

/// On the shard that owns the partitions.
async fn look_up(broker: Broker, asks: Vec<Ask<What>>) -> Vec<(usize, Found)> {
    let mut all = Vec::with_capacity(asks.len());
    for ask in asks {
        all.push((ask.slot, look_up_one(&broker, ask.group, &ask.what).await));
    }
    all
}

async fn look_up_one(broker: &Broker, group: GroupId, ask: &What) -> Found {
    let Some(partition) = broker.partition(group) else {
        return Found::failed(broker.placement().absent(group));
    };
    let (log, end, epoch) = {
        let partition = partition.borrow();
        if let Some(error) = epoch_error(&partition, ask.current_leader_epoch) {
            return Found::failed(error);
        }
        if !partition.is_leader() {
            // Elected, but what earlier leaders committed is not known yet.
            return Found::failed(ErrorCode::OffsetNotAvailable);
        }
        let end = if ask.read_committed {
            partition.last_stable_offset()
        } else {
            partition.high_watermark()
        };
        (partition.log().clone(), end, partition.leader_epoch())
    };
    let hit = match ask.timestamp {
        LATEST => return Found::at(end, -1, epoch),
        EARLIEST | EARLIEST_LOCAL => {
            let start = log.log_start();
            return Found::at(start.0, -1, log.epoch_at(start).unwrap_or(epoch));
        }
        LATEST_TIERED => return Found::NONE,
        MAX_TIMESTAMP => log.max_timestamp(&Search).await,
        time => log.first_at_or_after(time, Offset(end), &Search).await,
    };
    match hit {
        Ok(Some(TimeHit { offset, timestamp, epoch })) => Found::at(offset.0, timestamp, epoch),
        Ok(None) => Found::NONE,
        Err(error) => {
            storage_error(&partition.borrow(), &error);
            Found::failed(ErrorCode::KafkaStorageError)
        }
    }
}

fn storage_error(partition: &crate::partition::Partition, error: &ReadError) {
    let identity = partition.identity();
    tracing::error!(
        topic = %identity.topic,
        partition = identity.partition,
        "look-up by time refused: {error}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_have_their_first_version() {
        assert_eq!([-1, -2, 0, 5].map(since), [Some(0); 4]);
        assert_eq!([-3, -4, -5].map(since), [Some(7), Some(8), Some(9)]);
        assert_eq!(since(-6), None);
    }
}
