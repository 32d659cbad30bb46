//! What the admin handlers need of the broker, and the table of those handlers.
//!
//! [`answer`] takes every request that needs no more than [`Admin`]. Shard of the connection.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{RequestKind, ResponseKind};
use net::ConnectionContext;
use uuid::Uuid;

use super::*;
use crate::config::Settings;
use crate::meta::{Broker, Command, GroupId, Image, MetaError, NodeId, Outcome};

/// The broker as the admin handlers see it.
pub trait Admin {
    /// The operator's settings of this node.
    fn settings(&self) -> &Settings;

    /// The metadata that this shard serves now.
    fn image(&self) -> Arc<Image>;

    /// Has `__meta` carry out a command. Resolves when every shard serves the new image and
    /// * created partitions have a leader and accept Produce;
    /// * deleted topics' waiting requests have ended and their committed offsets are forgotten.
    ///
    /// After `timeout` the outcome is unknown: the command may still take place.
    fn submit(
        &self,
        command: Command,
        timeout: Duration,
    ) -> impl Future<Output = Result<Outcome, SubmitError>>;

    /// Who leads a group (`__meta` as well) as far as this shard knows; never waits.
    fn leadership(&self, group: GroupId) -> Leadership;

    /// Whether a registered broker can be reached; this node always can.
    fn is_alive(&self, node: NodeId) -> bool;

    /// The address that a client at the other end of `context` is to use for `broker`; `None` if
    /// the broker has none for it.
    fn host(&self, broker: &Broker, context: &ConnectionContext) -> Option<Host>;

    /// The largest record batch that the logs of this node take, whatever a topic allows.
    fn batch_max_bytes(&self) -> u64;

    /// Sixteen random bytes for a topic id.
    fn entropy(&self) -> [u8; 16];

    /// The replicas of `__meta`; may ask shard 0.
    fn quorum(&self) -> impl Future<Output = Quorum>;
}

/// The leader of a group. Of a group that nobody knows: no leader, epoch -1, nobody in sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<NodeId>,
    /// The Raft term, -1 if unknown.
    pub epoch: i32,
    /// Sorted by id.
    pub in_sync: Vec<NodeId>,
}

/// Where a client finds a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub port: u16,
}

/// The group of `__meta`, for DescribeQuorum. Offsets are Raft indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    pub leader: Option<NodeId>,
    pub epoch: i32,
    pub high_watermark: i64,
    pub voters: Vec<Voter>,
    pub observers: Vec<Voter>,
}

/// One replica of `__meta`. Times are -1 if unknown; the leader's own are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub node: NodeId,
    /// The node's UUID: a node has one data folder.
    pub directory: Uuid,
    pub log_end: i64,
    pub last_fetch_ms: i64,
    pub last_caught_up_ms: i64,
}

/// Why a command brought no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The state machine refused the whole command.
    #[error(transparent)]
    Refused(#[from] MetaError),
    /// The time allowed is over; the command may still take place.
    #[error("the metadata change was not confirmed in time")]
    TimedOut,
    /// This node cannot order metadata changes now; the client tries again.
    #[error("the metadata log is not available: {0}")]
    Unavailable(String),
}

/// How long a command may take that comes without a timeout of its own.
pub(crate) const SUBMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers a request of this folder's admin APIs; gives the body back if it is another's.
pub async fn answer<A: Admin>(
    admin: &A,
    context: &ConnectionContext,
    version: i16,
    body: RequestKind,
) -> Result<ResponseKind, RequestKind> {
    use RequestKind as Q;
    use ResponseKind as R;
    Ok(match body {
        Q::ApiVersions(q) => R::ApiVersions(api_versions::handle(admin, version, &q)),
        Q::Metadata(q) => R::Metadata(metadata::handle(admin, context, version, q).await),
        Q::CreateTopics(q) => R::CreateTopics(create_topics::handle(admin, version, q).await),
        Q::DeleteTopics(q) => R::DeleteTopics(delete_topics::handle(admin, version, q).await),
        Q::CreatePartitions(q) => R::CreatePartitions(create_partitions::handle(admin, q).await),
        Q::DescribeConfigs(q) => R::DescribeConfigs(describe_configs::handle(admin, version, &q)),
        Q::AlterConfigs(q) => R::AlterConfigs(alter_configs::handle(admin, q).await),
        Q::IncrementalAlterConfigs(q) => {
            R::IncrementalAlterConfigs(incremental_alter_configs::handle(admin, q).await)
        }
        Q::ListConfigResources(q) => {
            R::ListConfigResources(list_config_resources::handle(admin, version, &q))
        }
        Q::DescribeCluster(q) => {
            R::DescribeCluster(describe_cluster::handle(admin, context, version, &q))
        }
        Q::DescribeTopicPartitions(q) => {
            R::DescribeTopicPartitions(describe_topic_partitions::handle(admin, q))
        }
        Q::DescribeQuorum(q) => {
            R::DescribeQuorum(describe_quorum::handle(admin, context, version, q).await)
        }
        Q::ElectLeaders(q) => R::ElectLeaders(elect_leaders::handle(admin, q)),
        Q::AlterPartitionReassignments(q) => R::AlterPartitionReassignments(
            alter_partition_reassignments::handle_alter(admin, version, q),
        ),
        Q::ListPartitionReassignments(_) => {
            R::ListPartitionReassignments(alter_partition_reassignments::handle_list())
        }
        Q::UnregisterBroker(q) => R::UnregisterBroker(unregister_broker::handle(admin, &q).await),
        Q::UpdateFeatures(q) => R::UpdateFeatures(update_features::handle(admin, version, &q)),
        other => return answer_without_feature(other).map_err(|body| *body),
    })
}

/// APIs of features that are not here: answered as Kafka does when the feature is off, since tools
/// ask for them on their way to something else.
fn answer_without_feature(body: RequestKind) -> Result<ResponseKind, Box<RequestKind>> {
    use RequestKind as Q;
    use ResponseKind as R;
    Ok(match body {
        Q::DescribeAcls(_) => R::DescribeAcls(acls::describe()),
        Q::CreateAcls(q) => R::CreateAcls(acls::create(&q)),
        Q::DeleteAcls(q) => R::DeleteAcls(acls::delete(&q)),
        Q::DescribeClientQuotas(_) => {
            R::DescribeClientQuotas(quotas_and_credentials::describe_quotas())
        }
        Q::DescribeUserScramCredentials(q) => {
            R::DescribeUserScramCredentials(quotas_and_credentials::describe_scram(&q))
        }
        Q::ListTransactions(q) => R::ListTransactions(transactions::list(&q)),
        Q::DescribeTransactions(q) => R::DescribeTransactions(transactions::describe(q)),
        Q::CreateDelegationToken(_) => R::CreateDelegationToken(delegation_tokens::create()),
        Q::RenewDelegationToken(_) => R::RenewDelegationToken(delegation_tokens::renew()),
        Q::ExpireDelegationToken(_) => R::ExpireDelegationToken(delegation_tokens::expire()),
        Q::DescribeDelegationToken(_) => R::DescribeDelegationToken(delegation_tokens::describe()),
        Q::SaslHandshake(_) => R::SaslHandshake(sasl::handshake()),
        Q::SaslAuthenticate(_) => R::SaslAuthenticate(sasl::authenticate()),
        other => return Err(Box::new(other)),
    })
}
