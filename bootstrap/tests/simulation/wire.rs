//! Requests of the simulated clients, as short as they can be.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, FindCoordinatorRequest, GroupId, InitProducerIdRequest,
    MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::{Request, StrBytes};
use net::builder::BatchBuilder;
use net::client::Client;
use rt::Shard;

use crate::history::PARTITIONS;

const PATIENCE: Duration = Duration::from_secs(8);
pub const PRODUCE_VERSION: i16 = 9;

/// Nothing usable came back: the connection is given up and everything tried again.
pub struct Broken;

pub fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

fn group() -> GroupId {
    GroupId(StrBytes::from_static_str("g"))
}

pub async fn call<R: Request>(
    shard: &Shard,
    client: &mut Client,
    request: &R,
    version: i16,
) -> Result<R::Response, Broken> {
    match shard.timeout(PATIENCE, client.call(request, version)).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(Broken),
    }
}

/// The next answer to a pipelined Produce: code and base offset.
pub async fn produced(shard: &Shard, client: &mut Client) -> Result<(i16, i64), Broken> {
    let receive = client.receive::<ProduceRequest>(PRODUCE_VERSION);
    let answer = match shard.timeout(PATIENCE, receive).await {
        Ok(Ok(answer)) => answer,
        _ => return Err(Broken),
    };
    let partition = answer.responses.first().and_then(|t| t.partition_responses.first());
    partition.map(|partition| (partition.error_code, partition.base_offset)).ok_or(Broken)
}

/// A connection to a broker that has the topic.
pub async fn connect(shard: &Shard, address: SocketAddr) -> Client {
    loop {
        let connecting = Client::connect(shard, address, "simulated");
        if let Ok(Ok(mut client)) = shard.timeout(PATIENCE, connecting).await {
            if has_topic(shard, &mut client).await.unwrap_or(false) {
                return client;
            }
        }
        shard.sleep(Duration::from_millis(20)).await;
    }
}

async fn has_topic(shard: &Shard, client: &mut Client) -> Result<bool, Broken> {
    let asked = MetadataRequestTopic::default().with_name(Some(topic()));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![asked]))
        .with_allow_auto_topic_creation(true);
    let answer = call(shard, client, &request, 9).await?;
    Ok(answer.topics.first().is_some_and(|topic| topic.error_code == 0))
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
        _ => Err(Broken),
    }
}

/// The values `first..first + count` of a producer, in one batch.
pub fn batch(
    producer: u32,
    idempotence: Option<i64>,
    first: u32,
    count: u32,
    padding: usize,
) -> Bytes {
    let mut builder = BatchBuilder::new();
    if let Some(id) = idempotence {
        builder = builder.producer(id, 0, first as i32);
    }
    for sequence in first..first + count {
        let value = format!("{producer} {sequence} {:padding$}", "");
        builder.push(1_000, None, Some(value.as_bytes()), &[]);
    }
    builder.build().expect("a batch").bytes
}

pub fn produce(partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(5000).with_topic_data(vec![topic])
}

/// Fetches all partitions from their positions.
pub async fn fetch(
    shard: &Shard,
    client: &mut Client,
    positions: &[i64],
    session: (i32, i32),
    max_bytes: i32,
) -> Result<FetchResponse, Broken> {
    let partitions = (0..PARTITIONS).zip(positions).map(|(partition, position)| {
        FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(*position)
            .with_current_leader_epoch(-1)
            .with_last_fetched_epoch(-1)
            .with_partition_max_bytes(max_bytes)
    });
    let topic = FetchTopic::default().with_topic(topic()).with_partitions(partitions.collect());
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(50)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(vec![topic]);
    call(shard, client, &request, 12).await
}

pub async fn coordinator(shard: &Shard, client: &mut Client) -> Result<i16, Broken> {
    let request = FindCoordinatorRequest::default().with_key(group().0);
    Ok(call(shard, client, &request, 3).await?.error_code)
}

pub async fn commit(shard: &Shard, client: &mut Client, offset: i64) -> Result<i16, Broken> {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset);
    let topic =
        OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let answer = call(shard, client, &request, 8).await?;
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    partition.map(|partition| partition.error_code).ok_or(Broken)
}

/// The group's offset, once the coordinator answers for it.
pub async fn committed(shard: &Shard, client: &mut Client) -> Result<i64, Broken> {
    let topic =
        OffsetFetchRequestTopic::default().with_name(topic()).with_partition_indexes(vec![0]);
    let request =
        OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![topic]));
    let answer = call(shard, client, &request, 6).await?;
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    match partition {
        Some(partition) if answer.error_code == 0 && partition.error_code == 0 => {
            Ok(partition.committed_offset)
        }
        _ => Err(Broken),
    }
}
