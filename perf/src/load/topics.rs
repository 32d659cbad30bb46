//! What must be there before a load can start: topics, their leaders, offsets, producer ids.

use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use net::ErrorCode;

use super::options::Options;
use crate::connection::Connection;
use crate::error::PerfError;

const METADATA_VERSION: i16 = 9;
const CREATE_TOPICS_VERSION: i16 = 5;
const LIST_OFFSETS_VERSION: i16 = 6;
const INIT_PRODUCER_ID_VERSION: i16 = 4;

/// The longest that all partitions of a new topic may take to have leaders.
const LEADERS_LIMIT: Duration = Duration::from_secs(60);

/// A code that Kafka 4.1 does not know is as good as this one.
pub fn code_of(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

/// Special timestamps of ListOffsets.
#[derive(Debug, Clone, Copy)]
pub enum End {
    Latest = -1,
    Earliest = -2,
}

/// Creates the topics of the load, where they are missing, and waits for their leaders.
pub fn prepare(options: &Options) -> Result<(), PerfError> {
    create(&options.broker, &options.topic_names(), options.partitions, &options.configs)
}

/// Creates topics, where they are missing, and waits for their leaders.
pub fn create(
    broker: &str,
    names: &[String],
    partitions: usize,
    configs: &[(String, String)],
) -> Result<(), PerfError> {
    let mut connection = Connection::open(broker)?;
    let config = |(name, value): &(String, String)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_value(Some(StrBytes::from_string(value.clone())))
    };
    let topics = names.iter().map(|name| {
        CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions as i32)
            .with_replication_factor(1)
            .with_configs(configs.iter().map(config).collect())
    });
    let request =
        CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(60_000);
    for topic in connection.call(&request, CREATE_TOPICS_VERSION)?.topics {
        let code = code_of(topic.error_code);
        if code != ErrorCode::None && code != ErrorCode::TopicAlreadyExists {
            let what = format!("creating topic {}", topic.name.0);
            return Err(PerfError::Refused { what, code });
        }
    }
    wait_for_leaders(&mut connection, names, partitions)
}

fn wait_for_leaders(
    connection: &mut Connection,
    names: &[String],
    partitions: usize,
) -> Result<(), PerfError> {
    let topics =
        names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))));
    let request = MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(false);
    let deadline = Instant::now() + LEADERS_LIMIT;
    loop {
        let answer = connection.call(&request, METADATA_VERSION)?;
        let led = answer.topics.iter().all(|topic| {
            topic.error_code == 0
                && topic.partitions.len() == partitions
                && topic.partitions.iter().all(|p| p.error_code == 0 && p.leader_id.0 >= 0)
        });
        if led {
            return Ok(());
        }
        if Instant::now() > deadline {
            let wanted = format!("{} topics with {partitions} led partitions", names.len());
            return Err(PerfError::Late(format!("no {wanted} within {LEADERS_LIMIT:?}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The first or next offset of each partition of a topic.
pub fn offsets(
    connection: &mut Connection,
    topic: &str,
    partitions: usize,
    end: End,
) -> Result<Vec<i64>, PerfError> {
    let asked = (0..partitions as i32).map(|index| {
        ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_current_leader_epoch(-1)
            .with_timestamp(end as i64)
    });
    let asked =
        ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(asked.collect());
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
    let answer = connection.call(&request, LIST_OFFSETS_VERSION)?;
    let mut found = vec![0; partitions];
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        let code = code_of(partition.error_code);
        if code != ErrorCode::None {
            let what = format!("offsets of {topic}-{}", partition.partition_index);
            return Err(PerfError::Refused { what, code });
        }
        let place = found.get_mut(partition.partition_index as usize);
        *place.ok_or(PerfError::Malformed("ListOffsets"))? = partition.offset;
    }
    Ok(found)
}

/// A producer id of one's own, with its epoch.
pub fn producer_id(connection: &mut Connection) -> Result<(i64, i16), PerfError> {
    let request = InitProducerIdRequest::default().with_transaction_timeout_ms(60_000);
    let answer = connection.call(&request, INIT_PRODUCER_ID_VERSION)?;
    match code_of(answer.error_code) {
        ErrorCode::None => Ok((answer.producer_id.0, answer.producer_epoch)),
        code => Err(PerfError::Refused { what: "a producer id".to_owned(), code }),
    }
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
