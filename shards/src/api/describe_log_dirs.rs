//! DescribeLogDirs (key 35), versions 1 to 4. KIP-113; KIP-827 (sizes of the disk, version 4).
//!
//! There is one directory, the data folder. The size of a partition counts its records on disk
//! and those that are still in the write-ahead log.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, ResponseKind, TopicName};
use kafka_protocol::protocol::StrBytes;
use net::{Answer, ErrorCode, Request};

use super::scatter::{Ask, Scatter};
use crate::broker::Broker;

pub async fn handle(broker: Broker, _: Request, body: DescribeLogDirsRequest) -> Answer {
    let image = broker.image();
    let mut scatter = Scatter::default();
    let mut names: Vec<(StrBytes, i32)> = Vec::new();
    let mut ask = |name: StrBytes, number: i32| {
        let Some(located) = image.topic(&name).and_then(|topic| topic.partition(number)) else {
            return;
        };
        names.push((name, number));
        scatter.ask(&broker, located.group, ());
    };
    match &body.topics {
        None => {
            for topic in image.topics() {
                let name = StrBytes::from_string(topic.name.to_string());
                for number in 0..topic.partitions.len() {
                    ask(name.clone(), number as i32);
                }
            }
        }
        Some(topics) => {
            for topic in topics {
                for number in &topic.partitions {
                    ask(topic.topic.0.clone(), *number);
                }
            }
        }
    }
    let sizes = scatter.send(&broker, measure).await;
    let mut topics: BTreeMap<StrBytes, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for ((name, number), size) in names.into_iter().zip(sizes) {
        let partition = DescribeLogDirsPartition::default()
            .with_partition_index(number)
            .with_partition_size(size);
        topics.entry(name).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        DescribeLogDirsTopic::default().with_name(TopicName(name)).with_partitions(partitions)
    });
    let mut result = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_string(broker.data_folder()))
        .with_topics(topics.collect());
    match broker.space().await {
        Ok(space) => {
            result.total_bytes = i64::try_from(space.total_bytes).unwrap_or(i64::MAX);
            result.usable_bytes = i64::try_from(space.available_bytes).unwrap_or(i64::MAX);
        }
        Err(error) => {
            tracing::warn!("the size of the disk is not known: {error}");
            result.error_code = ErrorCode::KafkaStorageError.code();
        }
    }
    let response = DescribeLogDirsResponse::default().with_results(vec![result]);
    Answer::Message(ResponseKind::DescribeLogDirs(response))
}

async fn measure(broker: Broker, asks: Vec<Ask<()>>) -> Vec<(usize, i64)> {
    let size = |ask: Ask<()>| {
        let bytes = broker.partition(ask.group).map_or(0, |p| p.borrow().log().size_bytes());
        (ask.slot, i64::try_from(bytes).unwrap_or(i64::MAX))
    };
    asks.into_iter().map(size).collect()
}
