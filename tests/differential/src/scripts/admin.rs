//! kafka.md sections 2 and 11: the other questions that tools ask, and what is answered without
//! the feature behind them.

use bytes::Bytes;
use kafka_protocol::messages::{
    alter_partition_reassignments_request as moving, create_acls_request, delete_acls_request,
    describe_client_quotas_request as quota_filter, describe_log_dirs_request,
    describe_quorum_request, describe_user_scram_credentials_request, elect_leaders_request,
    list_partition_reassignments_request, update_features_request,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, CreateAclsRequest, CreateDelegationTokenRequest,
    DeleteAclsRequest, DescribeAclsRequest, DescribeClientQuotasRequest,
    DescribeDelegationTokenRequest, DescribeLogDirsRequest, DescribeQuorumRequest,
    DescribeTransactionsRequest, DescribeUserScramCredentialsRequest, ElectLeadersRequest,
    ExpireDelegationTokenRequest, ListPartitionReassignmentsRequest, ListTransactionsRequest,
    ProducerId, RenewDelegationTokenRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
    TransactionalId, UnregisterBrokerRequest, UpdateFeaturesRequest,
};

use super::{create, produce, T0, TIMEOUT_MS};
use crate::batch::Batch;
use crate::message;
use crate::message::{text, Value};
use crate::pair::Pair;

pub fn script(pair: &mut Pair) {
    create(pair, "ad", 2, &[("retention.ms", "-1")]);
    produce(pair, "a record", "ad", Batch::of(&["x"], T0).bytes());
    folders(pair);
    quorum(pair);
    elections(pair);
    reassignments(pair);
    acls(pair);
    quotas_and_credentials(pair);
    transactions(pair);
    tokens_and_sasl(pair);
    brokers_and_features(pair);
}

fn folders(pair: &mut Pair) {
    use describe_log_dirs_request::DescribableLogDirTopic;
    let asking = |topics: &[(&str, &[i32])]| {
        let topic = |(name, partitions): &(&str, &[i32])| {
            message!(DescribableLogDirTopic { topic: *name, partitions: partitions.to_vec() })
        };
        message!(DescribeLogDirsRequest {
            topics: Some(topics.iter().map(topic).collect::<Vec<_>>()),
        })
    };
    pair.ask_every("folders of a topic", |_, _| asking(&[("ad", &[0, 1])]));
    pair.ask_every("folders of nothing", |_, _| asking(&[]));
    pair.ask("folders of unknown partitions", 4, |_| asking(&[("ad", &[7]), ("ad-nope", &[0])]));
    pair.ask("folders of no partitions", 4, |_| asking(&[("ad", &[])]));
}

fn quorum(pair: &mut Pair) {
    use describe_quorum_request::{PartitionData, TopicData};
    let asking = |topic: &str, partition: i32| {
        message!(DescribeQuorumRequest {
            topics: vec![message!(TopicData {
                topic_name: topic,
                partitions: vec![message!(PartitionData { partition_index: partition })],
            })],
        })
    };
    pair.ask_every("quorum", |_, _| asking("__cluster_metadata", 0));
    pair.ask("quorum of another partition", 2, |_| asking("__cluster_metadata", 1));
    pair.ask("quorum of another topic", 2, |_| asking("ad", 0));
    pair.ask("quorum of nothing", 2, |_| message!(DescribeQuorumRequest {}));
}

fn elections(pair: &mut Pair) {
    use elect_leaders_request::TopicPartitions;
    let asking = |version: i16, kind: i8, topics: Option<&[(&str, &[i32])]>| {
        let topics = topics.map(|topics| {
            let topic = |(name, partitions): &(&str, &[i32])| {
                message!(TopicPartitions { topic: *name, partitions: partitions.to_vec() })
            };
            topics.iter().map(topic).collect::<Vec<_>>()
        });
        let mut request =
            message!(ElectLeadersRequest { topic_partitions: topics, timeout_ms: TIMEOUT_MS });
        if version >= 1 {
            request.election_type = kind;
        }
        request
    };
    for kind in [0, 1, 7] {
        pair.ask_every(&format!("elections of type {kind}"), |_, version| {
            asking(version, kind, Some(&[("ad", &[0, 9]), ("ad-nope", &[0])]))
        });
    }
    pair.ask("elections everywhere", 2, |_| asking(2, 0, None));
    pair.ask("elections nowhere", 2, |_| asking(2, 0, Some(&[])));
    pair.ask("elections everywhere, of type 7", 2, |_| asking(2, 7, None));
    pair.ask("elections nowhere, of type 7", 2, |_| asking(2, 7, Some(&[])));
}

fn reassignments(pair: &mut Pair) {
    let asking = |topic: &str, partition: i32, replicas: Option<&[i32]>| {
        let replicas =
            replicas.map(|replicas| replicas.iter().copied().map(BrokerId).collect::<Vec<_>>());
        message!(AlterPartitionReassignmentsRequest {
            timeout_ms: TIMEOUT_MS,
            topics: vec![message!(moving::ReassignableTopic {
                name: topic,
                partitions: vec![message!(moving::ReassignablePartition {
                    partition_index: partition,
                    replicas: replicas,
                })],
            })],
        })
    };
    let asked: &[(&str, &str, i32, Option<&[i32]>)] = &[
        ("the same replicas", "ad", 0, Some(&[1])),
        ("a cancellation", "ad", 0, None),
        ("an unknown broker", "ad", 0, Some(&[9])),
        ("a broker twice", "ad", 0, Some(&[1, 1])),
        ("no replicas", "ad", 0, Some(&[])),
        ("a negative broker", "ad", 0, Some(&[-1])),
        ("an unknown partition", "ad", 9, Some(&[1])),
        ("an unknown topic", "ad-nope", 0, Some(&[1])),
    ];
    for (what, topic, partition, replicas) in asked {
        pair.ask_every(&format!("move: {what}"), |_, _| asking(topic, *partition, *replicas));
    }
    pair.ask("move nothing", 0, |_| {
        message!(AlterPartitionReassignmentsRequest { timeout_ms: TIMEOUT_MS })
    });
    pair.ask("moves under way", 0, |_| {
        message!(ListPartitionReassignmentsRequest { topics: None })
    });
    for (topic, partition) in [("ad", 0), ("ad", 9), ("ad-nope", 0)] {
        use list_partition_reassignments_request::ListPartitionReassignmentsTopics;
        pair.ask(&format!("moves of {topic} {partition}"), 0, |_| {
            message!(ListPartitionReassignmentsRequest {
                topics: Some(vec![message!(ListPartitionReassignmentsTopics {
                    name: topic,
                    partition_indexes: vec![partition],
                })]),
            })
        });
    }
}

fn acls(pair: &mut Pair) {
    pair.ask_every("ACLs", |_, _| {
        message!(DescribeAclsRequest {
            resource_type_filter: 1,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
        })
    });
    pair.ask_every("an ACL", |_, _| {
        message!(CreateAclsRequest {
            creations: vec![message!(create_acls_request::AclCreation {
                resource_type: 2,
                resource_name: "ad",
                resource_pattern_type: 3,
                principal: "User:a",
                host: "*",
                operation: 3,
                permission_type: 3,
            })],
        })
    });
    pair.ask_every("ACLs deleted", |_, _| {
        message!(DeleteAclsRequest {
            filters: vec![message!(delete_acls_request::DeleteAclsFilter {
                resource_type_filter: 2,
                pattern_type_filter: 3,
                operation: 3,
                permission_type: 3,
            })],
        })
    });
}

fn quotas_and_credentials(pair: &mut Pair) {
    let asking = |entity: &str, kind: i8, name: Option<&str>, strict: bool| {
        let mut component =
            message!(quota_filter::ComponentData { entity_type: entity, match_type: kind });
        component._match = name.map(Value::value);
        message!(DescribeClientQuotasRequest { components: vec![component], strict: strict })
    };
    pair.ask_every("quotas", |_, _| message!(DescribeClientQuotasRequest {}));
    for (entity, kind, name, strict) in [
        ("user", 0, Some("a"), false),
        ("user", 1, None, true),
        ("client-id", 2, None, false),
        ("ip", 0, Some("127.0.0.1"), false),
        ("ip", 0, Some("not an address"), false),
        ("nonsense", 2, None, false),
        ("", 2, None, false),
        ("user", 7, None, false),
    ] {
        let what = format!("quotas of {entity} {kind} {name:?} {strict}");
        pair.ask_every(&what, |_, _| asking(entity, kind, name, strict));
    }
    pair.ask("quotas of one entity twice", 1, |_| {
        let mut request = asking("user", 2, None, false);
        request.components.push(request.components[0].clone());
        request
    });
    pair.ask("quotas of address and user", 1, |_| {
        let mut request = asking("user", 2, None, false);
        request.components.extend(asking("ip", 2, None, false).components);
        request
    });
    use describe_user_scram_credentials_request::UserName;
    let users: &[Option<&[&str]>] =
        &[None, Some(&[]), Some(&["a"]), Some(&["a", "a"]), Some(&[""])];
    for users in users {
        pair.ask(&format!("credentials of {users:?}"), 0, |_| {
            let users = users.map(|users| {
                users.iter().map(|name| message!(UserName { name: *name })).collect::<Vec<_>>()
            });
            message!(DescribeUserScramCredentialsRequest { users: users })
        });
    }
}

fn transactions(pair: &mut Pair) {
    pair.ask_every("transactions", |_, _| message!(ListTransactionsRequest {}));
    for version in 0..=2 {
        pair.ask("transactions filtered", version, |_| {
            message!(ListTransactionsRequest {
                state_filters: &["Ongoing", "nonsense"][..],
                producer_id_filters: vec![ProducerId(5)],
            })
        });
    }
    pair.ask("transactions by pattern", 2, |_| {
        message!(ListTransactionsRequest { transactional_id_pattern: "a.*" })
    });
    pair.ask("transactions by a bad pattern", 2, |_| {
        message!(ListTransactionsRequest { transactional_id_pattern: "a(" })
    });
    for names in [&["a"][..], &["a", "b"], &[""], &[]] {
        pair.ask(&format!("transactions {names:?}"), 0, |_| {
            let ids = names.iter().map(|name| TransactionalId(text(name))).collect::<Vec<_>>();
            message!(DescribeTransactionsRequest { transactional_ids: ids })
        });
    }
}

fn tokens_and_sasl(pair: &mut Pair) {
    pair.ask_every("a token", |_, version| {
        let request = message!(CreateDelegationTokenRequest {});
        match version {
            3.. => request.with_owner_principal_type(None).with_owner_principal_name(None),
            _ => request,
        }
    });
    let hmac = Bytes::from_static(b"secret");
    pair.ask_every("a token renewed", |_, _| {
        message!(RenewDelegationTokenRequest { hmac: hmac.clone(), renew_period_ms: 1 })
    });
    pair.ask_every("a token expired", |_, _| {
        message!(ExpireDelegationTokenRequest { hmac: hmac.clone(), expiry_time_period_ms: 1 })
    });
    pair.ask_every("tokens", |_, _| message!(DescribeDelegationTokenRequest {}));
    for mechanism in ["PLAIN", "NONSENSE", ""] {
        pair.ask_every(&format!("handshake '{mechanism}'"), |_, _| {
            message!(SaslHandshakeRequest { mechanism: mechanism })
        });
    }
    pair.ask_every("authentication", |_, _| {
        message!(SaslAuthenticateRequest { auth_bytes: Bytes::from_static(b"\0a\0b") })
    });
}

fn brokers_and_features(pair: &mut Pair) {
    for id in [9, -1] {
        pair.ask(&format!("unregister broker {id}"), 0, |_| {
            message!(UnregisterBrokerRequest { broker_id: id })
        });
    }
    use update_features_request::FeatureUpdateKey;
    pair.ask_every("no features", |_, _| {
        message!(UpdateFeaturesRequest { timeout_ms: TIMEOUT_MS })
    });
    for (feature, level) in [
        ("no.such.feature", 1),
        ("metadata.version", 27),
        ("metadata.version", 28),
        ("metadata.version", 0),
        ("metadata.version", 6),
        ("metadata.version", -1),
        ("", 1),
    ] {
        for version in 0..=2 {
            pair.ask(&format!("feature '{feature}' to {level}"), version, |_| {
                let mut request = message!(UpdateFeaturesRequest {
                    timeout_ms: TIMEOUT_MS,
                    feature_updates: vec![message!(FeatureUpdateKey {
                        feature: feature,
                        max_version_level: level,
                    })],
                });
                if version >= 1 {
                    request.validate_only = true;
                }
                request
            });
        }
    }
}
