//! Every version that the broker advertises is served: a plain request gets an answer that decodes.
//!
//! The codec refuses to encode a field that a version lacks, and then the connection closes; only
//! asking for each version shows it.

use bytes::BytesMut;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use crate::clients::{consumer, producer};
use crate::support::wire::Wire;
use crate::support::Broker;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::producer::{BaseRecord, Producer};
use std::time::{Duration, Instant};
use uuid::Uuid;

const TOPIC: &str = "asked";
const GROUP: &str = "asking";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

fn topic() -> TopicName {
    TopicName(text(TOPIC))
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

#[test]
fn every_advertised_version_is_answered() {
    let broker = Broker::start();
    populate(&broker);
    let mut wire = Wire::connect(broker.port());
    let software = ApiVersionsRequest::default()
        .with_client_software_name(text("test"))
        .with_client_software_version(text("1"));
    let advertised: ApiVersionsResponse = wire.ask(ApiKey::ApiVersions, 4, &software);
    assert!(advertised.api_keys.len() > 40, "{} APIs", advertised.api_keys.len());
    let all: MetadataResponse =
        wire.ask(ApiKey::Metadata, 12, &MetadataRequest::default().with_topics(None));
    let known = all.topics.iter().find(|topic| topic.name == Some(self::topic()));
    let id = known.expect("the topic").topic_id;
    let mut problems = Vec::new();
    for api in &advertised.api_keys {
        let key = ApiKey::try_from(api.api_key).unwrap();
        // Produce 0 to 2 are advertised for the codec check of librdkafka, and not served.
        let first = if key == ApiKey::Produce { 3 } else { api.min_version };
        for version in first..=api.max_version {
            if let Err(problem) = ask(&broker, key, version, id) {
                problems.push(format!("{key:?} version {version}: {problem}"));
            }
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// A topic with records, and a group that has committed.
fn populate(broker: &Broker) {
    let producer = producer(&broker.address(), &[("enable.idempotence", "true")]);
    for i in 0..10 {
        let value = i.to_string();
        let record = BaseRecord::<(), str>::to(TOPIC).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    let consumer = consumer(&broker.address(), GROUP);
    consumer.subscribe(&[TOPIC]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !matches!(consumer.poll(Duration::from_millis(100)), Some(Ok(_))) {
        assert!(Instant::now() < deadline, "the group gets nothing");
    }
    consumer.commit_consumer_state(CommitMode::Sync).unwrap();
}

fn ask(broker: &Broker, key: ApiKey, version: i16, id: Uuid) -> Result<(), String> {
    let request = request(key, version, id).ok_or("no request is written for it here")?;
    let mut body = BytesMut::new();
    request.encode(&mut body, version).map_err(|error| format!("request: {error}"))?;
    let mut wire = Wire::connect(broker.port());
    let mut answer = wire.call_with(key, version, &body).ok_or("closed")?;
    ResponseKind::decode(key, &mut answer, version).map_err(|error| format!("answer: {error}"))?;
    match answer.is_empty() {
        true => Ok(()),
        false => Err(format!("{} bytes after the answer", answer.len())),
    }
}

/// A plain request that a client could send in this version.
fn request(key: ApiKey, version: i16, id: Uuid) -> Option<RequestKind> {
    data(key, version, id).or_else(|| groups(key, version)).or_else(|| admin(key, version))
}

fn data(key: ApiKey, version: i16, id: Uuid) -> Option<RequestKind> {
    Some(match key {
        ApiKey::Produce => {
            use produce_request::{PartitionProduceData, TopicProduceData};
            let partition = PartitionProduceData::default()
                .with_records(Some(crate::hostile::batch(&[b"one more"]).into()));
            let data = TopicProduceData::default().with_partition_data(vec![partition]);
            let data = match version {
                13.. => data.with_topic_id(id),
                _ => data.with_name(topic()),
            };
            let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(5_000);
            RequestKind::Produce(request.with_topic_data(vec![data]))
        }
        ApiKey::Fetch => {
            use fetch_request::{FetchPartition, FetchTopic};
            let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
            let wanted = FetchTopic::default().with_partitions(vec![partition]);
            let wanted = match version {
                13.. => wanted.with_topic_id(id),
                _ => wanted.with_topic(topic()),
            };
            let request = FetchRequest::default().with_max_wait_ms(100).with_min_bytes(1);
            RequestKind::Fetch(request.with_max_bytes(1 << 20).with_topics(vec![wanted]))
        }
        ApiKey::ListOffsets => {
            use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
            let partition = ListOffsetsPartition::default().with_timestamp(-1);
            let wanted = ListOffsetsTopic::default().with_name(topic());
            let wanted = wanted.with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1));
            RequestKind::ListOffsets(request.with_topics(vec![wanted]))
        }
        ApiKey::Metadata => {
            use metadata_request::MetadataRequestTopic;
            let wanted = MetadataRequestTopic::default().with_name(Some(topic()));
            let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
            RequestKind::Metadata(request)
        }
        ApiKey::ApiVersions => {
            let request = ApiVersionsRequest::default();
            RequestKind::ApiVersions(match version {
                3.. => request
                    .with_client_software_name(text("test"))
                    .with_client_software_version(text("1")),
                _ => request,
            })
        }
        ApiKey::InitProducerId => {
            let request = InitProducerIdRequest::default().with_transaction_timeout_ms(60_000);
            RequestKind::InitProducerId(request)
        }
        ApiKey::OffsetForLeaderEpoch => {
            use offset_for_leader_epoch_request::*;
            let partition = OffsetForLeaderPartition::default().with_leader_epoch(1);
            let wanted = OffsetForLeaderTopic::default().with_topic(topic());
            let wanted = wanted.with_partitions(vec![partition]);
            let request = OffsetForLeaderEpochRequest::default().with_topics(vec![wanted]);
            RequestKind::OffsetForLeaderEpoch(match version {
                3.. => request.with_replica_id(BrokerId(-1)),
                _ => request,
            })
        }
        ApiKey::DeleteRecords => {
            use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
            let partition = DeleteRecordsPartition::default().with_offset(1);
            let wanted = DeleteRecordsTopic::default().with_name(topic());
            let wanted = wanted.with_partitions(vec![partition]);
            let request = DeleteRecordsRequest::default().with_timeout_ms(5_000);
            RequestKind::DeleteRecords(request.with_topics(vec![wanted]))
        }
        ApiKey::DescribeProducers => {
            let wanted = describe_producers_request::TopicRequest::default()
                .with_name(topic())
                .with_partition_indexes(vec![0]);
            let request = DescribeProducersRequest::default().with_topics(vec![wanted]);
            RequestKind::DescribeProducers(request)
        }
        _ => return None,
    })
}

fn groups(key: ApiKey, version: i16) -> Option<RequestKind> {
    let member = text("nobody");
    Some(match key {
        ApiKey::FindCoordinator => {
            let request = FindCoordinatorRequest::default();
            RequestKind::FindCoordinator(match version {
                4.. => request.with_coordinator_keys(vec![text(GROUP)]),
                _ => request.with_key(text(GROUP)),
            })
        }
        ApiKey::JoinGroup => {
            use join_group_request::JoinGroupRequestProtocol;
            let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
            let request = JoinGroupRequest::default()
                .with_group_id(GroupId(text(&format!("joined-{version}"))))
                .with_session_timeout_ms(10_000)
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol]);
            RequestKind::JoinGroup(match version {
                1.. => request.with_rebalance_timeout_ms(10_000),
                _ => request,
            })
        }
        ApiKey::SyncGroup => RequestKind::SyncGroup(
            SyncGroupRequest::default().with_group_id(group()).with_member_id(member),
        ),
        ApiKey::Heartbeat => RequestKind::Heartbeat(
            HeartbeatRequest::default().with_group_id(group()).with_member_id(member),
        ),
        ApiKey::LeaveGroup => {
            let request = LeaveGroupRequest::default().with_group_id(group());
            RequestKind::LeaveGroup(match version {
                3.. => {
                    use leave_group_request::MemberIdentity;
                    request.with_members(vec![MemberIdentity::default().with_member_id(member)])
                }
                _ => request.with_member_id(member),
            })
        }
        ApiKey::OffsetCommit => {
            use offset_commit_request::*;
            let partition = OffsetCommitRequestPartition::default().with_committed_offset(3);
            let wanted = OffsetCommitRequestTopic::default().with_name(topic());
            let wanted = wanted.with_partitions(vec![partition]);
            let request = OffsetCommitRequest::default().with_group_id(GroupId(text("other")));
            RequestKind::OffsetCommit(request.with_topics(vec![wanted]))
        }
        ApiKey::OffsetFetch => {
            use offset_fetch_request::*;
            let request = OffsetFetchRequest::default();
            RequestKind::OffsetFetch(match version {
                8.. => {
                    let wanted = OffsetFetchRequestTopics::default().with_name(topic());
                    let wanted = wanted.with_partition_indexes(vec![0]);
                    let wanted = OffsetFetchRequestGroup::default()
                        .with_group_id(group())
                        .with_topics(Some(vec![wanted]));
                    request.with_groups(vec![wanted])
                }
                _ => {
                    let wanted = OffsetFetchRequestTopic::default().with_name(topic());
                    let wanted = wanted.with_partition_indexes(vec![0]);
                    request.with_group_id(group()).with_topics(Some(vec![wanted]))
                }
            })
        }
        ApiKey::OffsetDelete => {
            use offset_delete_request::*;
            let wanted = OffsetDeleteRequestTopic::default()
                .with_name(topic())
                .with_partitions(vec![OffsetDeleteRequestPartition::default()]);
            let request = OffsetDeleteRequest::default().with_group_id(GroupId(text("other")));
            RequestKind::OffsetDelete(request.with_topics(vec![wanted]))
        }
        ApiKey::DescribeGroups => RequestKind::DescribeGroups(
            DescribeGroupsRequest::default().with_groups(vec![group(), GroupId(text("unknown"))]),
        ),
        ApiKey::ListGroups => RequestKind::ListGroups(ListGroupsRequest::default()),
        ApiKey::DeleteGroups => RequestKind::DeleteGroups(
            DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text("unknown"))]),
        ),
        _ => return None,
    })
}

fn admin(key: ApiKey, version: i16) -> Option<RequestKind> {
    let named = |what: &str| TopicName(text(&format!("{what}-{version}")));
    Some(match key {
        ApiKey::CreateTopics => {
            let wanted = create_topics_request::CreatableTopic::default()
                .with_name(named("made"))
                .with_num_partitions(1)
                .with_replication_factor(1);
            let request = CreateTopicsRequest::default().with_timeout_ms(5_000);
            RequestKind::CreateTopics(request.with_topics(vec![wanted]))
        }
        ApiKey::DeleteTopics => {
            let request = DeleteTopicsRequest::default().with_timeout_ms(5_000);
            RequestKind::DeleteTopics(match version {
                6.. => {
                    let state = delete_topics_request::DeleteTopicState::default();
                    request.with_topics(vec![state.with_name(Some(named("made")))])
                }
                _ => request.with_topic_names(vec![named("made")]),
            })
        }
        ApiKey::CreatePartitions => {
            let wanted = create_partitions_request::CreatePartitionsTopic::default()
                .with_name(topic())
                .with_count(2 + i32::from(version));
            let request = CreatePartitionsRequest::default().with_timeout_ms(5_000);
            RequestKind::CreatePartitions(request.with_topics(vec![wanted]))
        }
        ApiKey::DescribeConfigs => {
            let wanted = describe_configs_request::DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text(TOPIC))
                .with_configuration_keys(None);
            let request = DescribeConfigsRequest::default().with_resources(vec![wanted]);
            RequestKind::DescribeConfigs(request.with_include_synonyms(true))
        }
        ApiKey::AlterConfigs => {
            use alter_configs_request::*;
            let change = AlterableConfig::default().with_name(text("retention.ms"));
            let wanted = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text(TOPIC))
                .with_configs(vec![change.with_value(Some(text("1000000")))]);
            let request = AlterConfigsRequest::default().with_resources(vec![wanted]);
            RequestKind::AlterConfigs(request)
        }
        ApiKey::IncrementalAlterConfigs => {
            use incremental_alter_configs_request::*;
            let change = AlterableConfig::default().with_name(text("retention.ms"));
            let wanted = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text(TOPIC))
                .with_configs(vec![change.with_value(Some(text("2000000")))]);
            let request = IncrementalAlterConfigsRequest::default().with_resources(vec![wanted]);
            RequestKind::IncrementalAlterConfigs(request)
        }
        ApiKey::DescribeQuorum => {
            use describe_quorum_request::{PartitionData, TopicData};
            let wanted = TopicData::default()
                .with_topic_name(TopicName(text("__cluster_metadata")))
                .with_partitions(vec![PartitionData::default()]);
            RequestKind::DescribeQuorum(DescribeQuorumRequest::default().with_topics(vec![wanted]))
        }
        ApiKey::DescribeTopicPartitions => {
            use describe_topic_partitions_request::TopicRequest;
            let wanted = TopicRequest::default().with_name(topic());
            let request = DescribeTopicPartitionsRequest::default().with_topics(vec![wanted]);
            RequestKind::DescribeTopicPartitions(request)
        }
        ApiKey::DescribeLogDirs => {
            RequestKind::DescribeLogDirs(DescribeLogDirsRequest::default().with_topics(None))
        }
        ApiKey::UnregisterBroker => RequestKind::UnregisterBroker(
            UnregisterBrokerRequest::default().with_broker_id(BrokerId(99)),
        ),
        _ => return plain(key),
    })
}

/// What is answered the same whatever is asked, or needs nothing to be asked for.
fn plain(key: ApiKey) -> Option<RequestKind> {
    macro_rules! defaults {
        ($($name:ident: $type:ident),* $(,)?) => {
            match key {
                $(ApiKey::$name => Some(RequestKind::$name($type::default())),)*
                _ => None,
            }
        };
    }
    defaults! {
        SaslHandshake: SaslHandshakeRequest,
        SaslAuthenticate: SaslAuthenticateRequest,
        DescribeCluster: DescribeClusterRequest,
        ListConfigResources: ListConfigResourcesRequest,
        DescribeAcls: DescribeAclsRequest,
        CreateAcls: CreateAclsRequest,
        DeleteAcls: DeleteAclsRequest,
        CreateDelegationToken: CreateDelegationTokenRequest,
        RenewDelegationToken: RenewDelegationTokenRequest,
        ExpireDelegationToken: ExpireDelegationTokenRequest,
        DescribeDelegationToken: DescribeDelegationTokenRequest,
        ElectLeaders: ElectLeadersRequest,
        AlterPartitionReassignments: AlterPartitionReassignmentsRequest,
        ListPartitionReassignments: ListPartitionReassignmentsRequest,
        DescribeClientQuotas: DescribeClientQuotasRequest,
        AlterClientQuotas: AlterClientQuotasRequest,
        DescribeUserScramCredentials: DescribeUserScramCredentialsRequest,
        AlterUserScramCredentials: AlterUserScramCredentialsRequest,
        UpdateFeatures: UpdateFeaturesRequest,
        DescribeTransactions: DescribeTransactionsRequest,
        ListTransactions: ListTransactionsRequest,
    }
}
