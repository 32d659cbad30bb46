//! Requests of the simulated clients, as short as they can be, and the partitions they are about.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest,
    FetchResponse, FindCoordinatorRequest, GroupId, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::{Request, StrBytes};
use net::client::Client;
use rt::Shard;

/// How long a client waits for an answer before it gives up the connection.
const PATIENCE: Duration = Duration::from_secs(8);
pub const PRODUCE_VERSION: i16 = 9;
pub const NO_ERROR: i16 = 0;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const EARLIEST: i64 = -2;

/// A partition of the world, by its number: of the topic `t`, which keeps everything, but for the
/// last one, which is the only partition of `d`, where records are deleted.
pub type Place = usize;
/// Partitions of `t`.
pub const KEPT: usize = 3;
pub const PLACES: usize = KEPT + 1;
/// The partition of `d`.
pub const DELETED: Place = KEPT;
/// `retention.bytes` of `d`.
pub const RETENTION_BYTES: u64 = 60_000;
/// What stands first in the topics' configurations: data is younger than this, whatever the
/// broker's clock says.
const RETENTION_MS: &str = "7200000";

/// Nothing usable came back: the connection is given up and everything tried again.
#[derive(Debug)]
pub struct Broken;

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn topic_of(place: Place) -> (TopicName, i32) {
    match place < KEPT {
        true => (topic_name("t"), place as i32),
        false => (topic_name("d"), 0),
    }
}

/// The place of a partition in an answer.
pub fn place_of(topic: &str, partition: i32) -> Option<Place> {
    match (topic, usize::try_from(partition).ok()?) {
        ("t", partition) if partition < KEPT => Some(partition),
        ("d", 0) => Some(DELETED),
        _ => None,
    }
}

pub fn name_of(place: Place) -> String {
    let (topic, partition) = topic_of(place);
    format!("{}-{partition}", topic.0)
}

/// Groups what is asked of places by topic, as requests want it.
fn by_topic<T>(items: impl IntoIterator<Item = (Place, T)>) -> Vec<(TopicName, Vec<(i32, T)>)> {
    let mut topics: Vec<(TopicName, Vec<(i32, T)>)> = Vec::new();
    for (place, item) in items {
        let (topic, partition) = topic_of(place);
        match topics.iter_mut().find(|(name, _)| *name == topic) {
            Some((_, partitions)) => partitions.push((partition, item)),
            None => topics.push((topic, vec![(partition, item)])),
        }
    }
    topics
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

/// A connection to a broker that has the topics.
pub async fn connect(shard: &Shard, address: SocketAddr) -> Client {
    loop {
        let connecting = Client::connect(shard, address, "simulated");
        if let Ok(Ok(mut client)) = shard.timeout(PATIENCE, connecting).await {
            if has_topics(shard, &mut client).await.unwrap_or(false) {
                return client;
            }
        }
        shard.sleep(Duration::from_millis(20)).await;
    }
}

async fn has_topics(shard: &Shard, client: &mut Client) -> Result<bool, Broken> {
    if topics(shard, client, &["t", "d"]).await?.len() == 2 {
        return Ok(true);
    }
    let kept = create_topic(shard, client, "t", KEPT as i32, &[("segment.ms", "1500")]).await?;
    let small = [("segment.ms", "300"), ("retention.bytes", &RETENTION_BYTES.to_string())];
    let deleted = create_topic(shard, client, "d", 1, &small).await?;
    Ok([kept, deleted].iter().all(|code| matches!(*code, NO_ERROR | TOPIC_ALREADY_EXISTS)))
}

/// Those of the named topics that exist.
pub async fn topics(
    shard: &Shard,
    client: &mut Client,
    names: &[&str],
) -> Result<Vec<String>, Broken> {
    let asked = names.iter().map(|name| {
        let name = Some(topic_name(name));
        MetadataRequestTopic::default().with_name(name)
    });
    let request = MetadataRequest::default()
        .with_topics(Some(asked.collect()))
        .with_allow_auto_topic_creation(false);
    let answer = call(shard, client, &request, 9).await?;
    let known = answer.topics.iter().filter(|topic| topic.error_code == NO_ERROR);
    Ok(known.filter_map(|topic| Some(topic.name.as_ref()?.0.to_string())).collect())
}

pub async fn create_topic(
    shard: &Shard,
    client: &mut Client,
    name: &str,
    partitions: i32,
    configs: &[(&'static str, &str)],
) -> Result<i16, Broken> {
    let config = |(name, value): &(&'static str, &str)| {
        let value = Some(text(*value));
        CreatableTopicConfig::default().with_name(text(*name)).with_value(value)
    };
    let all = [("retention.ms", RETENTION_MS)].iter().chain(configs).map(config).collect();
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(all);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(3000);
    let answer = call(shard, client, &request, 5).await?;
    answer.topics.first().map(|topic| topic.error_code).ok_or(Broken)
}

pub async fn delete_topic(shard: &Shard, client: &mut Client, name: &str) -> Result<i16, Broken> {
    let names = vec![topic_name(name)];
    let request = DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(3000);
    let answer = call(shard, client, &request, 5).await?;
    answer.responses.first().map(|topic| topic.error_code).ok_or(Broken)
}

pub async fn init_producer(shard: &Shard, client: &mut Client) -> Result<i64, Broken> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let answer = call(shard, client, &request, 2).await?;
    match answer.error_code {
        NO_ERROR => Ok(answer.producer_id.0),
        _ => Err(Broken),
    }
}

/// One batch for each of some partitions.
pub fn produce(batches: Vec<(Place, Bytes)>) -> ProduceRequest {
    let topics = by_topic(batches).into_iter().map(|(topic, batches)| {
        let data = batches.into_iter().map(|(partition, records)| {
            let records = Some(records);
            PartitionProduceData::default().with_index(partition).with_records(records)
        });
        TopicProduceData::default().with_name(topic).with_partition_data(data.collect())
    });
    ProduceRequest::default().with_acks(-1).with_timeout_ms(5000).with_topic_data(topics.collect())
}

/// The next answer to a pipelined Produce: partition, code and base offset.
pub async fn produced(
    shard: &Shard,
    client: &mut Client,
) -> Result<Vec<(Place, i16, i64)>, Broken> {
    let receive = client.receive::<ProduceRequest>(PRODUCE_VERSION);
    let answer = match shard.timeout(PATIENCE, receive).await {
        Ok(Ok(answer)) => answer,
        _ => return Err(Broken),
    };
    let mut told = Vec::new();
    for topic in &answer.responses {
        for one in &topic.partition_responses {
            let place = place_of(&topic.name.0, one.index).ok_or(Broken)?;
            told.push((place, one.error_code, one.base_offset));
        }
    }
    Ok(told)
}

/// Fetches every partition from its position.
pub async fn fetch(
    shard: &Shard,
    client: &mut Client,
    positions: &[(Place, i64)],
    session: (i32, i32),
    max_bytes: i32,
) -> Result<FetchResponse, Broken> {
    let topics = by_topic(positions.iter().copied()).into_iter().map(|(topic, positions)| {
        let partitions = positions.into_iter().map(|(partition, position)| {
            FetchPartition::default()
                .with_partition(partition)
                .with_fetch_offset(position)
                .with_current_leader_epoch(-1)
                .with_last_fetched_epoch(-1)
                .with_partition_max_bytes(max_bytes)
        });
        FetchTopic::default().with_topic(topic).with_partitions(partitions.collect())
    });
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(50)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(topics.collect());
    call(shard, client, &request, 12).await
}

/// The first offset of a partition, or the error.
pub async fn log_start(
    shard: &Shard,
    client: &mut Client,
    place: Place,
) -> Result<Result<i64, i16>, Broken> {
    let (topic, partition) = topic_of(place);
    let asked = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_current_leader_epoch(-1)
        .with_timestamp(EARLIEST);
    let topic = ListOffsetsTopic::default().with_name(topic).with_partitions(vec![asked]);
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let answer = call(shard, client, &request, 5).await?;
    let told = answer.topics.first().and_then(|topic| topic.partitions.first()).ok_or(Broken)?;
    Ok(match told.error_code {
        NO_ERROR => Ok(told.offset),
        code => Err(code),
    })
}

/// Deletes what lies before the offset; the first offset that is left, or the error.
pub async fn delete_records(
    shard: &Shard,
    client: &mut Client,
    place: Place,
    offset: i64,
) -> Result<Result<i64, i16>, Broken> {
    let (topic, partition) = topic_of(place);
    let asked =
        DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
    let topic = DeleteRecordsTopic::default().with_name(topic).with_partitions(vec![asked]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(3000);
    let answer = call(shard, client, &request, 2).await?;
    let told = answer.topics.first().and_then(|topic| topic.partitions.first()).ok_or(Broken)?;
    Ok(match told.error_code {
        NO_ERROR => Ok(told.low_watermark),
        code => Err(code),
    })
}

pub fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

pub async fn coordinator(shard: &Shard, client: &mut Client, group: &str) -> Result<i16, Broken> {
    let request = FindCoordinatorRequest::default().with_key(text(group));
    Ok(call(shard, client, &request, 3).await?.error_code)
}

/// Who commits: (generation, member id), or none for a client without membership.
pub type Membership<'a> = Option<(i32, &'a str)>;

pub async fn commit(
    shard: &Shard,
    client: &mut Client,
    group: &str,
    membership: Membership<'_>,
    (place, offset): (Place, i64),
) -> Result<i16, Broken> {
    let (topic, partition) = topic_of(place);
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset);
    let topic =
        OffsetCommitRequestTopic::default().with_name(topic).with_partitions(vec![partition]);
    let (generation, member) = membership.unwrap_or((-1, ""));
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(vec![topic]);
    let answer = call(shard, client, &request, 8).await?;
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    partition.map(|partition| partition.error_code).ok_or(Broken)
}

/// A group's offset of a partition, -1 for none, once the coordinator answers for it.
pub async fn committed(
    shard: &Shard,
    client: &mut Client,
    group: &str,
    place: Place,
) -> Result<i64, Broken> {
    let (topic, partition) = topic_of(place);
    let topic =
        OffsetFetchRequestTopic::default().with_name(topic).with_partition_indexes(vec![partition]);
    let request =
        OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(Some(vec![topic]));
    let answer = call(shard, client, &request, 6).await?;
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    match partition {
        Some(partition) if answer.error_code == NO_ERROR && partition.error_code == NO_ERROR => {
            Ok(partition.committed_offset)
        }
        _ => Err(Broken),
    }
}
