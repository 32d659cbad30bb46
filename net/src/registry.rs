//! The one table of all Kafka APIs: key, versions Kafka 4.1 advertises, versions served here.
//!
//! Every other place that asks "do we speak this?" asks this table: ApiVersions answers, the
//! check of a request header, header formats. Rows of APIs that Kafka 4.1 has and
//! this broker lacks stay in the table as `absent`, so that the gap is visible; they are neither
//! advertised nor served. The ranges are kafka.md section 2, seen on a live Kafka 4.1.1.
//! Golden files pin the table: `net/tests/golden/apis.txt`, and `CONFORMANCE.md` for users.
//! Constant data, on every shard.

use kafka_protocol::messages::ApiKey;

/// No version of this API is flexible (KIP-482).
const NEVER: i16 = i16::MAX;

/// The largest request frame: Kafka's `socket.request.max.bytes`, for every API as there. What a
/// frame costs decoded is bounded by its elements (`schema`), not by its length.
pub const FRAME_MAX_BYTES: u32 = 100 * 1024 * 1024;

/// One API: `served_min >= min`, and `served_min..=max` is what handlers really answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// The key that opens a request header.
    pub key: ApiKey,
    /// Lowest version Kafka 4.1 advertises.
    pub min: i16,
    /// Highest version Kafka 4.1 advertises.
    pub max: i16,
    /// Lowest version that is answered; above `min` for Produce only, whose versions 0 to 2
    /// librdkafka must see in the range before it compresses.
    pub served_min: i16,
    /// First version with compact lengths and tagged fields, in header and body.
    pub flexible_from: i16,
    /// Whether this broker answers it at all.
    pub served: bool,
}

impl Api {
    /// The API's name, as Kafka spells it.
    pub fn name(&self) -> String {
        format!("{:?}", self.key)
    }

    /// Whether a request of this version gets an answer.
    pub fn serves(&self, version: i16) -> bool {
        self.served && (self.served_min..=self.max).contains(&version)
    }

    /// Whether header and body of this version use compact lengths and tagged fields.
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    /// 0 or 1. ApiVersions stays at 0, since a client reads that answer before it knows what the
    /// broker speaks (KIP-511).
    pub fn response_header_version(&self, version: i16) -> i16 {
        i16::from(self.is_flexible(version) && self.key != ApiKey::ApiVersions)
    }
}

/// Every API of a Kafka 4.1 broker listener, by key.
pub static APIS: &[Api] = &[
    row(ApiKey::Produce, 0, 13, 9).served_from(3),
    row(ApiKey::Fetch, 4, 18, 12),
    row(ApiKey::ListOffsets, 1, 10, 6),
    row(ApiKey::Metadata, 0, 13, 9),
    row(ApiKey::OffsetCommit, 2, 9, 8),
    row(ApiKey::OffsetFetch, 1, 9, 6),
    row(ApiKey::FindCoordinator, 0, 6, 3),
    row(ApiKey::JoinGroup, 0, 9, 6),
    row(ApiKey::Heartbeat, 0, 4, 4),
    row(ApiKey::LeaveGroup, 0, 5, 4),
    row(ApiKey::SyncGroup, 0, 5, 4),
    row(ApiKey::DescribeGroups, 0, 6, 5),
    row(ApiKey::ListGroups, 0, 5, 3),
    row(ApiKey::SaslHandshake, 0, 1, NEVER),
    row(ApiKey::ApiVersions, 0, 4, 3),
    row(ApiKey::CreateTopics, 2, 7, 5),
    row(ApiKey::DeleteTopics, 1, 6, 4),
    row(ApiKey::DeleteRecords, 0, 2, 2),
    row(ApiKey::InitProducerId, 0, 5, 2),
    row(ApiKey::OffsetForLeaderEpoch, 2, 4, 4),
    row(ApiKey::AddPartitionsToTxn, 0, 5, 3).absent(),
    row(ApiKey::AddOffsetsToTxn, 0, 4, 3).absent(),
    row(ApiKey::EndTxn, 0, 5, 3).absent(),
    row(ApiKey::WriteTxnMarkers, 1, 1, 1).absent(),
    row(ApiKey::TxnOffsetCommit, 0, 5, 3).absent(),
    row(ApiKey::DescribeAcls, 1, 3, 2),
    row(ApiKey::CreateAcls, 1, 3, 2),
    row(ApiKey::DeleteAcls, 1, 3, 2),
    row(ApiKey::DescribeConfigs, 1, 4, 4),
    row(ApiKey::AlterConfigs, 0, 2, 2),
    row(ApiKey::AlterReplicaLogDirs, 1, 2, 2).absent(),
    row(ApiKey::DescribeLogDirs, 1, 4, 2),
    row(ApiKey::SaslAuthenticate, 0, 2, 2),
    row(ApiKey::CreatePartitions, 0, 3, 2),
    row(ApiKey::CreateDelegationToken, 1, 3, 2),
    row(ApiKey::RenewDelegationToken, 1, 2, 2),
    row(ApiKey::ExpireDelegationToken, 1, 2, 2),
    row(ApiKey::DescribeDelegationToken, 1, 3, 2),
    row(ApiKey::DeleteGroups, 0, 2, 2),
    row(ApiKey::ElectLeaders, 0, 2, 2),
    row(ApiKey::IncrementalAlterConfigs, 0, 1, 1),
    row(ApiKey::AlterPartitionReassignments, 0, 1, 0),
    row(ApiKey::ListPartitionReassignments, 0, 0, 0),
    row(ApiKey::OffsetDelete, 0, 0, NEVER),
    row(ApiKey::DescribeClientQuotas, 0, 1, 1),
    row(ApiKey::AlterClientQuotas, 0, 1, 1).absent(),
    row(ApiKey::DescribeUserScramCredentials, 0, 0, 0),
    row(ApiKey::AlterUserScramCredentials, 0, 0, 0).absent(),
    row(ApiKey::DescribeQuorum, 0, 2, 0),
    row(ApiKey::UpdateFeatures, 0, 2, 0),
    row(ApiKey::DescribeCluster, 0, 2, 0),
    row(ApiKey::DescribeProducers, 0, 0, 0),
    row(ApiKey::UnregisterBroker, 0, 0, 0),
    row(ApiKey::DescribeTransactions, 0, 0, 0),
    row(ApiKey::ListTransactions, 0, 2, 0),
    row(ApiKey::ConsumerGroupHeartbeat, 0, 1, 0).absent(),
    row(ApiKey::ConsumerGroupDescribe, 0, 1, 0).absent(),
    row(ApiKey::ListConfigResources, 0, 1, 0),
    row(ApiKey::DescribeTopicPartitions, 0, 0, 0),
    row(ApiKey::ShareGroupHeartbeat, 1, 1, 0).absent(),
    row(ApiKey::ShareGroupDescribe, 1, 1, 0).absent(),
    row(ApiKey::ShareFetch, 1, 1, 0).absent(),
    row(ApiKey::ShareAcknowledge, 1, 1, 0).absent(),
    row(ApiKey::AddRaftVoter, 0, 0, 0).absent(),
    row(ApiKey::RemoveRaftVoter, 0, 0, 0).absent(),
    row(ApiKey::InitializeShareGroupState, 0, 0, 0).absent(),
    row(ApiKey::ReadShareGroupState, 0, 0, 0).absent(),
    row(ApiKey::WriteShareGroupState, 0, 0, 0).absent(),
    row(ApiKey::DeleteShareGroupState, 0, 0, 0).absent(),
    row(ApiKey::ReadShareGroupStateSummary, 0, 0, 0).absent(),
    row(ApiKey::DescribeShareGroupOffsets, 0, 0, 0).absent(),
    row(ApiKey::AlterShareGroupOffsets, 0, 0, 0).absent(),
    row(ApiKey::DeleteShareGroupOffsets, 0, 0, 0).absent(),
];

const fn row(key: ApiKey, min: i16, max: i16, flexible_from: i16) -> Api {
    Api { key, min, max, served_min: min, flexible_from, served: true }
}

impl Api {
    const fn absent(self) -> Api {
        Api { served: false, ..self }
    }

    const fn served_from(self, served_min: i16) -> Api {
        Api { served_min, ..self }
    }
}

/// The row of a key as it came from the wire. Absent rows are found too.
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key as i16).ok().map(|at| &APIS[at])
}

/// The row of a known key.
pub fn api(key: ApiKey) -> Option<&'static Api> {
    find(key as i16)
}

/// What ApiVersions lists.
pub fn advertised() -> impl Iterator<Item = &'static Api> {
    APIS.iter().filter(|api| api.served)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn rows_are_sorted_and_within_the_codec() {
        for pair in APIS.windows(2) {
            assert!((pair[0].key as i16) < pair[1].key as i16);
        }
        for api in APIS {
            let codec = api.key.valid_versions();
            assert!(codec.min <= api.served_min && api.max <= codec.max, "{}", api.name());
            for version in api.served_min..=api.max {
                let header = api.key.request_header_version(version);
                assert_eq!(api.is_flexible(version), header == 2, "{} {version}", api.name());
                assert_eq!(
                    api.response_header_version(version),
                    api.key.response_header_version(version),
                    "{} {version}",
                    api.name()
                );
            }
        }
    }

    #[test]
    fn librdkafka_finds_what_its_codec_checks_look_for() {
        let produce = api(ApiKey::Produce).expect("a row");
        assert_eq!((produce.min, produce.max), (0, 13));
        assert!(!produce.serves(2) && produce.serves(3) && produce.serves(13));
        assert!(api(ApiKey::Fetch).expect("a row").max >= 10);
        assert_eq!(api(ApiKey::JoinGroup).expect("a row").served_min, 0);
    }

    /// Change the golden file only together with a reason: clients choose versions by this table.
    #[test]
    fn golden_table() {
        let mut text = String::new();
        for api in APIS {
            let flexible = if api.flexible_from == NEVER {
                "-".into()
            } else {
                format!("{}", api.flexible_from)
            };
            let served = if api.served {
                format!("{}-{}", api.served_min, api.max)
            } else {
                "absent".into()
            };
            writeln!(
                text,
                "{} {} kafka {}-{} served {served} flexible {flexible}",
                api.key as i16,
                api.name(),
                api.min,
                api.max
            )
            .expect("writing to a string");
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/apis.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &text).expect("the golden file is writable");
        }
        let golden = std::fs::read_to_string(path).expect("the golden file exists");
        assert_eq!(golden, text, "UPDATE_GOLDEN=1 rewrites {path}");
    }
}
