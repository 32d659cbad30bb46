//! The requests of the clients in these worlds, as short as they can be.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest,
    FindCoordinatorRequest, GroupId, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
    TopicName,
};
use kafka_protocol::protocol::{Request, StrBytes};
use net::builder::BatchBuilder;
use net::client::Client;
use rt::Shard;

pub const PRODUCE_VERSION: i16 = 9;
/// Virtual time in which a broker without faults must have answered.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing usable came back, and what did.
#[derive(Debug)]
pub struct Broken(pub String);

pub fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn group() -> GroupId {
    GroupId(StrBytes::from_static_str("readers"))
}

pub async fn connect(shard: &Shard, address: SocketAddr) -> Client {
    loop {
        let connecting = Client::connect(shard, address, "disk");
        if let Ok(Ok(client)) = shard.timeout(PATIENCE, connecting).await {
            return client;
        }
        shard.sleep(Duration::from_millis(20)).await;
    }
}

pub async fn call<R: Request>(
    shard: &Shard,
    client: &mut Client,
    request: &R,
    version: i16,
) -> Result<R::Response, Broken> {
    match shard.timeout(PATIENCE, client.call(request, version)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Broken(error.to_string())),
        Err(_) => Err(Broken("no answer".to_owned())),
    }
}

pub async fn create_topic(
    shard: &Shard,
    client: &mut Client,
    topic: &str,
    partitions: i32,
    configs: &[(&'static str, &'static str)],
) -> Result<i16, Broken> {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_static_str(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let answer = call(shard, client, &request, 5).await?;
    let topic = answer.topics.first().ok_or(Broken("no topic".to_owned()))?;
    Ok(topic.error_code)
}

pub async fn alter_topic(
    shard: &Shard,
    client: &mut Client,
    topic: &str,
    config: &'static str,
    value: &'static str,
) -> Result<i16, Broken> {
    const TOPIC_RESOURCE: i8 = 2;
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(config))
        .with_value(Some(StrBytes::from_static_str(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(StrBytes::from_string(topic.to_owned()))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = call(shard, client, &request, 0).await?;
    let resource = answer.responses.first().ok_or(Broken("no resource".to_owned()))?;
    Ok(resource.error_code)
}

pub async fn delete_topic(shard: &Shard, client: &mut Client, topic: &str) -> Result<i16, Broken> {
    let request =
        DeleteTopicsRequest::default().with_topic_names(vec![name(topic)]).with_timeout_ms(30_000);
    let answer = call(shard, client, &request, 5).await?;
    let topic = answer.responses.first().ok_or(Broken("no topic".to_owned()))?;
    Ok(topic.error_code)
}

/// All topics, by name.
pub async fn topics(shard: &Shard, client: &mut Client) -> Result<Vec<String>, Broken> {
    let request = MetadataRequest::default().with_topics(None);
    let answer = call(shard, client, &request, 9).await?;
    let names = answer.topics.iter().filter_map(|topic| topic.name.clone());
    Ok(names.map(|name| name.0.to_string()).collect())
}

/// First offset whose records are deleted no more, and error.
pub async fn delete_records(
    shard: &Shard,
    client: &mut Client,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<(i16, i64), Broken> {
    let partition =
        DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
    let topic =
        DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let answer = call(shard, client, &request, 1).await?;
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    let partition = partition.ok_or(Broken("no partition".to_owned()))?;
    Ok((partition.error_code, partition.low_watermark))
}

pub async fn init_producer(shard: &Shard, client: &mut Client) -> Result<i64, Broken> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let answer = call(shard, client, &request, 2).await?;
    match answer.error_code {
        0 => Ok(answer.producer_id.0),
        code => Err(Broken(format!("InitProducerId: {code}"))),
    }
}

/// A batch whose records say `<first> <partition> …`, `<first + 1> <partition> …`.
pub fn batch(
    id: i64,
    partition: usize,
    first: u32,
    count: u32,
    padding: usize,
    timestamp: i64,
) -> Bytes {
    let mut builder = BatchBuilder::new().producer(id, 0, first as i32);
    for sequence in first..first + count {
        let value = format!("{sequence} {partition} {:padding$}", "");
        builder.push(timestamp, None, Some(value.as_bytes()), &[]);
    }
    builder.build().expect("a batch").bytes
}

pub fn produce(topic: &str, partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// The next answer to a pipelined Produce: code and base offset.
pub async fn produced(shard: &Shard, client: &mut Client) -> Result<(i16, i64), Broken> {
    let answer =
        match shard.timeout(PATIENCE, client.receive::<ProduceRequest>(PRODUCE_VERSION)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Broken(error.to_string())),
            Err(_) => return Err(Broken("no answer".to_owned())),
        };
    let partition = answer.responses.first().and_then(|t| t.partition_responses.first());
    let partition = partition.ok_or(Broken("no partition".to_owned()))?;
    Ok((partition.error_code, partition.base_offset))
}

/// Code and offset; -2 asks for the first one, -1 for the end.
pub async fn list_offset(
    shard: &Shard,
    client: &mut Client,
    topic: &str,
    partition: i32,
    timestamp: i64,
) -> Result<(i16, i64), Broken> {
    let partition =
        ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let answer = call(shard, client, &request, 5).await?;
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    let partition = partition.ok_or(Broken("no partition".to_owned()))?;
    Ok((partition.error_code, partition.offset))
}

/// Code, high watermark and records.
pub async fn fetch(
    shard: &Shard,
    client: &mut Client,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<(i16, i64, Bytes), Broken> {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_partition_max_bytes(256 << 10);
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let answer = call(shard, client, &request, 12).await?;
    let partition = answer.responses.first().and_then(|topic| topic.partitions.first());
    let partition = partition.ok_or(Broken(format!("fetch: {}", answer.error_code)))?;
    let records = partition.records.clone().unwrap_or_default();
    Ok((partition.error_code, partition.high_watermark, records))
}

pub async fn commit(
    shard: &Shard,
    client: &mut Client,
    topic: &str,
    offset: i64,
) -> Result<i16, Broken> {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset);
    let topic =
        OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let answer = call(shard, client, &request, 8).await?;
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    partition.map(|partition| partition.error_code).ok_or(Broken("no partition".to_owned()))
}

/// The group's offset: code and offset.
/// Asks for the group's coordinator, which makes the topic of offsets where there is none.
pub async fn find_coordinator(shard: &Shard, client: &mut Client) -> Result<i16, Broken> {
    let request = FindCoordinatorRequest::default().with_key(group().0);
    Ok(call(shard, client, &request, 3).await?.error_code)
}

pub async fn committed(
    shard: &Shard,
    client: &mut Client,
    topic: &str,
) -> Result<(i16, i64), Broken> {
    let topic =
        OffsetFetchRequestTopic::default().with_name(name(topic)).with_partition_indexes(vec![0]);
    let request =
        OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![topic]));
    let answer = call(shard, client, &request, 6).await?;
    if answer.error_code != 0 {
        return Ok((answer.error_code, -1));
    }
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    let partition = partition.ok_or(Broken("no partition".to_owned()))?;
    Ok((partition.error_code, partition.committed_offset))
}
