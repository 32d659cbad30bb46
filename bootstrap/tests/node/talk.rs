//! What the clients of these tests say to a broker: one topic, and the requests that most need.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_records_response::DeleteRecordsPartitionResult;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    DeleteRecordsRequest, MetadataRequest, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use net::client::Client;
use rt::Shard;

pub const PORT: u16 = 9092;
/// Of virtual time, for whatever a test waits for.
pub const LIMIT: Duration = Duration::from_secs(120);
pub const PRODUCE_VERSION: i16 = 9;

pub fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

/// Tries until the broker is there.
pub async fn connect(shard: &Shard, address: SocketAddr) -> Client {
    loop {
        if let Ok(client) = Client::connect(shard, address, "test").await {
            return client;
        }
        shard.sleep(Duration::from_millis(20)).await;
    }
}

/// Has the topic created automatically.
pub async fn create(client: &mut Client) {
    let asked = MetadataRequestTopic::default().with_name(Some(topic()));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![asked]))
        .with_allow_auto_topic_creation(true);
    let response = client.call(&request, 9).await.expect("an answer");
    assert_eq!(response.topics[0].error_code, 0);
}

/// With acks=all.
pub fn produce_request(partition: i32, timeout_ms: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(timeout_ms).with_topic_data(vec![topic])
}

/// What is told of the one partition that a produce request named.
pub fn told(mut response: ProduceResponse) -> PartitionProduceResponse {
    response.responses.remove(0).partition_responses.remove(0)
}

/// Produces one batch to partition 0.
pub async fn produce(client: &mut Client, batch: Bytes) -> PartitionProduceResponse {
    let request = produce_request(0, 5000, batch);
    told(client.call(&request, PRODUCE_VERSION).await.expect("an answer"))
}

/// Deletes the records of partition 0 before an offset.
pub async fn delete_records(client: &mut Client, before: i64) -> DeleteRecordsPartitionResult {
    let partition = DeleteRecordsPartition::default().with_offset(before);
    let topic = DeleteRecordsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_timeout_ms(5000).with_topics(vec![topic]);
    let mut response = client.call(&request, 2).await.expect("an answer");
    response.topics.remove(0).partitions.remove(0)
}
