//! The answers around the produce path: what a producer asks before it sends.
//!
//! Built with the crate's message types; these requests are rare. Every topic exists, this broker
//! leads all its partitions, and a topic's id is a function of its name. A fetch waits as long as
//! the client allows and brings nothing.

use std::io;
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, CreateTopicsRequest, CreateTopicsResponse,
    DescribeClusterResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use net::{registry, ErrorCode};
use uuid::Uuid;

use super::{invalid, Topics};

const NODE: BrokerId = BrokerId(1);
const HOST: StrBytes = StrBytes::from_static_str("127.0.0.1");
const CLUSTER: StrBytes = StrBytes::from_static_str("null-broker-null-broke");

/// What is answered at all; versions as the product's registry has them.
const SERVED: [ApiKey; 9] = [
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::FindCoordinator,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::InitProducerId,
    ApiKey::DescribeCluster,
];

/// Appends the body of the answer to `body`, a request without its header.
pub fn encode(
    key: ApiKey,
    version: i16,
    mut body: Bytes,
    topics: &Topics,
    port: u16,
    out: &mut BytesMut,
) -> io::Result<()> {
    let body = &mut body;
    let done = match key {
        ApiKey::ApiVersions => api_versions(ErrorCode::None).encode(out, version),
        ApiKey::Metadata => {
            metadata(decode(body, version)?, version, topics, port).encode(out, version)
        }
        ApiKey::CreateTopics => create_topics(decode(body, version)?, topics).encode(out, version),
        ApiKey::InitProducerId => {
            let answer = InitProducerIdResponse::default()
                .with_producer_id(ProducerId(1))
                .with_producer_epoch(0);
            answer.encode(out, version)
        }
        ApiKey::FindCoordinator => {
            find_coordinator(decode(body, version)?, version, port).encode(out, version)
        }
        ApiKey::ListOffsets => list_offsets(decode(body, version)?).encode(out, version),
        ApiKey::Fetch => fetch(decode(body, version)?).encode(out, version),
        ApiKey::DescribeCluster => describe_cluster(port).encode(out, version),
        other => return Err(invalid(format!("no answer to {other:?}"))),
    };
    done.map_err(invalid)
}

/// The answer to ApiVersions in a version from the future, in version 0 (KIP-511).
pub fn unknown_api_versions(correlation_id: i32, out: &mut BytesMut) -> io::Result<()> {
    let mut body = BytesMut::new();
    api_versions(ErrorCode::UnsupportedVersion).encode(&mut body, 0).map_err(invalid)?;
    out.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
    out.extend_from_slice(&correlation_id.to_be_bytes());
    out.extend_from_slice(&body);
    Ok(())
}

fn decode<T: Decodable>(body: &mut Bytes, version: i16) -> io::Result<T> {
    T::decode(body, version).map_err(invalid)
}

fn api_versions(error: ErrorCode) -> ApiVersionsResponse {
    let rows = SERVED.iter().filter_map(|key| registry::api(*key)).map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.min)
            .with_max_version(api.max)
    });
    ApiVersionsResponse::default().with_error_code(error.code()).with_api_keys(rows.collect())
}

fn metadata(
    request: MetadataRequest,
    version: i16,
    topics: &Topics,
    port: u16,
) -> MetadataResponse {
    // No list at all asks for every topic; in version 0 an empty one does.
    let asked = request.topics.filter(|asked| version > 0 || !asked.is_empty());
    let names: Vec<String> = match asked {
        None => topics.names(),
        Some(asked) => asked.into_iter().filter_map(|t| Some(t.name?.0.to_string())).collect(),
    };
    let topics = names.into_iter().map(|name| {
        let partitions = (0..topics.partitions(&name)).map(partition).collect();
        MetadataResponseTopic::default()
            .with_topic_id(topic_id(&name))
            .with_name(Some(TopicName(StrBytes::from_string(name))))
            .with_partitions(partitions)
    });
    let topics = topics.collect();
    let broker = MetadataResponseBroker::default()
        .with_node_id(NODE)
        .with_host(HOST)
        .with_port(i32::from(port));
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(CLUSTER))
        .with_controller_id(NODE)
        .with_topics(topics)
}

fn partition(index: i32) -> MetadataResponsePartition {
    MetadataResponsePartition::default()
        .with_partition_index(index)
        .with_leader_id(NODE)
        .with_leader_epoch(0)
        .with_replica_nodes(vec![NODE])
        .with_isr_nodes(vec![NODE])
}

/// Never zero, and the same in every process: FNV-1a over the name.
fn topic_id(name: &str) -> Uuid {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = name.bytes().fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    Uuid::from_u128(hash | 1)
}

fn create_topics(request: CreateTopicsRequest, topics: &Topics) -> CreateTopicsResponse {
    let results = request.topics.into_iter().map(|topic| {
        topics.create(&topic.name, topic.num_partitions);
        CreatableTopicResult::default()
            .with_topic_id(topic_id(&topic.name))
            .with_num_partitions(topics.partitions(&topic.name))
            .with_replication_factor(1)
            .with_name(topic.name)
    });
    CreateTopicsResponse::default().with_topics(results.collect())
}

fn find_coordinator(
    request: FindCoordinatorRequest,
    version: i16,
    port: u16,
) -> FindCoordinatorResponse {
    use kafka_protocol::messages::find_coordinator_response::Coordinator;
    if version < 4 {
        return FindCoordinatorResponse::default()
            .with_node_id(NODE)
            .with_host(HOST)
            .with_port(i32::from(port));
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        Coordinator::default()
            .with_key(key)
            .with_node_id(NODE)
            .with_host(HOST)
            .with_port(i32::from(port))
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

fn list_offsets(request: ListOffsetsRequest) -> ListOffsetsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            ListOffsetsPartitionResponse::default()
                .with_partition_index(partition.partition_index)
                .with_offset(0)
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn fetch(request: FetchRequest) -> FetchResponse {
    thread::sleep(Duration::from_millis(request.max_wait_ms.clamp(0, 5_000) as u64));
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition)
                .with_last_stable_offset(0)
                .with_log_start_offset(0)
                .with_records(Some(Bytes::new()))
        });
        let partitions = partitions.collect();
        FetchableTopicResponse::default()
            .with_topic(topic.topic)
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions)
    });
    FetchResponse::default().with_responses(topics.collect())
}

fn describe_cluster(port: u16) -> DescribeClusterResponse {
    let broker = DescribeClusterBroker::default()
        .with_broker_id(NODE)
        .with_host(HOST)
        .with_port(i32::from(port));
    DescribeClusterResponse::default()
        .with_cluster_id(CLUSTER)
        .with_controller_id(NODE)
        .with_brokers(vec![broker])
}
