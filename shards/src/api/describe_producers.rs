//! DescribeProducers (key 61), version 0. KIP-664: the producers that a partition remembers.

use kafka_protocol::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, ProducerId, ResponseKind, TopicName};
use net::{Answer, ErrorCode, Request};

use super::scatter::{Ask, Scatter};
use crate::broker::Broker;
use crate::partition::producers::ActiveProducer;

type Found = (ErrorCode, Vec<ActiveProducer>);

pub async fn handle(broker: Broker, _: Request, body: DescribeProducersRequest) -> Answer {
    let image = broker.image();
    let mut scatter = Scatter::default();
    for topic in &body.topics {
        let known = image.topic(&topic.name.0);
        for number in &topic.partition_indexes {
            match known.and_then(|topic| topic.partition(*number)) {
                None => scatter.answer((ErrorCode::UnknownTopicOrPartition, Vec::new())),
                Some(located) => scatter.ask(&broker, located.group, ()),
            }
        }
    }
    let mut found = scatter.send(&broker, look_up).await.into_iter();
    let mut response = DescribeProducersResponse::default();
    for topic in &body.topics {
        let mut answered = TopicResponse::default();
        answered.name = TopicName(topic.name.0.clone());
        for (number, (error, producers)) in topic.partition_indexes.iter().zip(&mut found) {
            answered.partitions.push(
                PartitionResponse::default()
                    .with_partition_index(*number)
                    .with_error_code(error.code())
                    .with_active_producers(producers.iter().map(shown).collect()),
            );
        }
        response.topics.push(answered);
    }
    Answer::Message(ResponseKind::DescribeProducers(response))
}

fn shown(producer: &ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.producer_id))
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.txn_start_offset)
}

async fn look_up(broker: Broker, asks: Vec<Ask<()>>) -> Vec<(usize, Found)> {
    let look = |ask: Ask<()>| match broker.partition(ask.group) {
        Some(partition) => {
            let partition = partition.borrow();
            (ask.slot, (ErrorCode::None, partition.producers().active().collect()))
        }
        None => (ask.slot, (ErrorCode::UnknownTopicOrPartition, Vec::new())),
    };
    asks.into_iter().map(look).collect()
}
