//! OffsetForLeaderEpoch (key 23), versions 2 to 4.
//!
//! KIP-101, KIP-279, KIP-320: where a leader epoch ends in our log, so that a consumer finds out
//! whether what it read before an election is still there.

use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, ResponseKind, TopicName};
use net::{Answer, ErrorCode, Request};

use super::scatter::{Ask, Scatter};
use crate::broker::Broker;
use crate::fetch::epoch_error;

#[derive(Clone, Copy)]
struct What {
    leader_epoch: i32,
    current_leader_epoch: i32,
}

/// (error, epoch, end offset)
type Found = (ErrorCode, i32, i64);

pub async fn handle(broker: Broker, _: Request, body: OffsetForLeaderEpochRequest) -> Answer {
    let image = broker.image();
    let mut scatter = Scatter::default();
    for topic in &body.topics {
        let known = image.topic(&topic.topic.0);
        for asked in &topic.partitions {
            match known.and_then(|topic| topic.partition(asked.partition)) {
                None => scatter.answer((ErrorCode::UnknownTopicOrPartition, -1, -1)),
                Some(located) => {
                    let what = What {
                        leader_epoch: asked.leader_epoch,
                        current_leader_epoch: asked.current_leader_epoch,
                    };
                    scatter.ask(&broker, located.group, what);
                }
            }
        }
    }
    let mut found = scatter.send(&broker, look_up).await.into_iter();
    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in &body.topics {
        let mut answered = OffsetForLeaderTopicResult::default();
        answered.topic = TopicName(topic.topic.0.clone());
        for (asked, (error, epoch, end)) in topic.partitions.iter().zip(&mut found) {
            answered.partitions.push(
                EpochEndOffset::default()
                    .with_partition(asked.partition)
                    .with_error_code(error.code())
                    .with_leader_epoch(epoch)
                    .with_end_offset(end),
            );
        }
        response.topics.push(answered);
    }
    Answer::Message(ResponseKind::OffsetForLeaderEpoch(response))
}

async fn look_up(broker: Broker, asks: Vec<Ask<What>>) -> Vec<(usize, Found)> {
    asks.into_iter().map(|ask| (ask.slot, look_up_one(&broker, &ask))).collect()
}

fn look_up_one(broker: &Broker, ask: &Ask<What>) -> Found {
    let Some(partition) = broker.partition(ask.group) else {
        return (ErrorCode::UnknownTopicOrPartition, -1, -1);
    };
    let partition = partition.borrow();
    if let Some(error) = epoch_error(&partition, ask.what.current_leader_epoch) {
        return (error, -1, -1);
    }
    let (epoch, end) = partition.end_of_epoch(ask.what.leader_epoch);
    (ErrorCode::None, epoch, end)
}
