//! `CONFORMANCE.md`: the registry as a user reads it, with what is worth knowing of each API.
//!
//! Owns the notes: why an API is absent, where answers depart from Kafka's on purpose. What is
//! compared with a live Kafka field by field, and every accepted difference, is in
//! `tests/differential`. Tests only.

use std::fmt::Write;

use chronik_net::registry::{advertised, APIS};
use kafka_protocol::messages::ApiKey;

const HEAD: &str = "\
# Conformance with Kafka 4.1

Every API of a Kafka 4.1.1 broker, the versions that Kafka advertises, and those that are served here. A test writes this
file from the table that the broker itself works by (`net/src/registry.rs`; `UPDATE_GOLDEN=1 cargo test -p chronik-net`).
What is absent is not advertised, and a request for it closes the connection, as in Kafka. Numbers in the notes are
Kafka's error codes.

`tests/broker/versions.rs` asks the real binary every version of every API that is served; `tests/differential` sends
thousands of requests to Apache Kafka 4.1.1 and to this broker and compares the answers field by field, and its
`ACCEPTED.md` gives the reason of each difference that stays.

| key | API | Kafka 4.1.1 | served | note |
|---|---|---|---|---|
";

const NO_TRANSACTIONS: &str = "There are no transactions yet.";
const NO_NEW_GROUPS: &str = "The new consumer group protocol (KIP-848) is not there yet.";
const NO_SHARE_GROUPS: &str = "Share groups (KIP-932) are not there.";
const NO_KRAFT: &str = "The metadata quorum is not Kafka's; its voters are not changed this way.";
const NO_QUOTAS: &str = "There are no quotas.";
const NO_SASL: &str = "There is no SASL.";
const NO_ACLS: &str = "There is no authorizer: 54, as in Kafka without one.";
const NO_TOKENS: &str = "Nobody is authenticated, so nobody has tokens: 64, as in Kafka.";
const PLAINTEXT: &str = "There is no SASL: 34, as on a plaintext listener of Kafka.";
const NAMELESS: &str = "A group without a name is refused: 24.";

/// Empty where there is nothing to say.
fn note(key: ApiKey) -> &'static str {
    use ApiKey as K;
    match key {
        K::Produce => {
            "Versions 0 to 2 are advertised (librdkafka looks for them before it compresses), and \
             not served, as in Kafka. Records inside a compressed batch are looked at only where \
             the topic compacts or compresses anew, or the header's times are out of bounds; \
             Kafka looks at all. A batch of a transaction is refused: 53."
        }
        K::Fetch => "Whole batches only; never a preferred read replica.",
        K::Metadata => "A topic is created before the answer. Neither name nor id: 42, not -1.",
        K::OffsetCommit | K::OffsetFetch => NAMELESS,
        K::FindCoordinator => {
            "Of transactions: 53, which no client retries for ever. Of share groups: 42."
        }
        K::InitProducerId => "With a transactional id: 53.",
        K::JoinGroup => {
            "A join that is repeated on another connection ends the first one with 27; Kafka \
             never answers that one."
        }
        K::SaslHandshake | K::SaslAuthenticate => PLAINTEXT,
        K::CreateTopics => {
            "Of two names in one request that differ only in `.` and `_` the second is refused."
        }
        K::DeleteTopics => "Metadata has forgotten the topics when the answer leaves.",
        K::CreatePartitions => {
            "Too many partitions refuse the whole request; Kafka fails in the middle of it."
        }
        K::DescribeConfigs => "Broker loggers have no configurations.",
        K::IncrementalAlterConfigs => "Unknown broker keys are refused; log levels stay.",
        K::ElectLeaders => "One replica of each partition: 84, nothing to elect.",
        K::AlterPartitionReassignments => "One node: nothing moves.",
        K::UpdateFeatures => "`metadata.version` is the one feature, and stays where it is.",
        K::UnregisterBroker => "A broker that is alive or holds replicas is not forgotten.",
        K::DescribeAcls | K::CreateAcls | K::DeleteAcls => NO_ACLS,
        K::CreateDelegationToken
        | K::RenewDelegationToken
        | K::ExpireDelegationToken
        | K::DescribeDelegationToken => NO_TOKENS,
        K::DescribeClientQuotas | K::AlterClientQuotas => NO_QUOTAS,
        K::DescribeUserScramCredentials | K::AlterUserScramCredentials => NO_SASL,
        K::AlterReplicaLogDirs => "There is one data folder, so nothing can move.",
        K::AddPartitionsToTxn
        | K::AddOffsetsToTxn
        | K::EndTxn
        | K::WriteTxnMarkers
        | K::TxnOffsetCommit
        | K::DescribeTransactions
        | K::ListTransactions => NO_TRANSACTIONS,
        K::ConsumerGroupHeartbeat | K::ConsumerGroupDescribe => NO_NEW_GROUPS,
        K::AddRaftVoter | K::RemoveRaftVoter => NO_KRAFT,
        key if format!("{key:?}").contains("Share") => NO_SHARE_GROUPS,
        _ => "",
    }
}

fn versions(from: i16, to: i16) -> String {
    match from == to {
        true => format!("{from}"),
        false => format!("{from}-{to}"),
    }
}

#[test]
fn the_table_for_users_is_up_to_date() {
    let mut text = String::from(HEAD);
    for api in APIS {
        let (key, name, note) = (api.key as i16, api.name(), note(api.key));
        assert!(api.served || !note.is_empty(), "why is {name} absent?");
        let kafka = versions(api.min, api.max);
        let served = match api.served {
            true => versions(api.served_min, api.max),
            false => "absent".to_owned(),
        };
        writeln!(text, "| {key} | {name} | {kafka} | {served} | {note} |").expect("to a string");
    }
    let (served, all) = (advertised().count(), APIS.len());
    writeln!(text, "\n{served} of {all} APIs are served.").expect("to a string");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../CONFORMANCE.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).expect("the golden file is writable");
    }
    let golden = std::fs::read_to_string(path).expect("the golden file exists");
    assert_eq!(golden, text, "CONFORMANCE.md is out of date: run with UPDATE_GOLDEN=1");
}
