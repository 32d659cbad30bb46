//! DescribeProducers (key 61), version 0. KIP-664: the producers that a partition remembers.

use kafka_protocol::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, ProducerId, ResponseKind, TopicName};
use net::{Answer, ErrorCode, Request};

use super::errors::Refusal;
use super::names::check_topic_name;
use super::scatter::{Ask, Scatter};
use crate::broker::Broker;
use crate::partition::producers::ActiveProducer;

type Found = Result<Vec<ActiveProducer>, Refusal>;

pub async fn handle(broker: Broker, _: Request, body: DescribeProducersRequest) -> Answer {
    let image = broker.image();
    let mut scatter = Scatter::default();
    for topic in &body.topics {
        let known = image.topic(&topic.name.0);
        let legal = check_topic_name(&topic.name.0);
        for number in &topic.partition_indexes {
            match (&legal, known.and_then(|topic| topic.partition(*number))) {
                (Err(refusal), _) => scatter.answer(Err(refusal.clone())),
                (Ok(()), None) => scatter.answer(Err(unknown())),
                (Ok(()), Some(located)) => scatter.ask(&broker, located.group, ()),
            }
        }
    }
    let mut found = scatter.send(&broker, look_up).await.into_iter();
    let mut response = DescribeProducersResponse::default();
    for topic in &body.topics {
        let mut answered = TopicResponse::default();
        answered.name = TopicName(topic.name.0.clone());
        for (number, found) in topic.partition_indexes.iter().zip(&mut found) {
            let partition = PartitionResponse::default().with_partition_index(*number);
            answered.partitions.push(match found {
                Ok(producers) => {
                    partition.with_active_producers(producers.iter().map(shown).collect())
                }
                Err(refusal) => partition
                    .with_error_code(refusal.code.code())
                    .with_error_message(refusal.text()),
            });
        }
        response.topics.push(answered);
    }
    Answer::Message(ResponseKind::DescribeProducers(response))
}

fn unknown() -> Refusal {
    let message = "This server does not host this topic-partition.";
    Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
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
            (ask.slot, Ok(partition.producers().active().collect()))
        }
        None => (ask.slot, Err(unknown())),
    };
    asks.into_iter().map(look).collect()
}
