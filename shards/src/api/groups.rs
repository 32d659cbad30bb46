//! What the handlers of group requests need of the broker, and the table of those handlers.
//!
//! A group lives with its partition of `__consumer_offsets`. Handlers turn a request into the
//! coordinator's terms (copies: a slice would pin the socket buffer for as long as the group
//! lives), send it to the shard that owns the partition, and give the answer its wire form.
//! Shard of the connection.

use std::future::Future;
use std::net::IpAddr;

use bytes::Bytes;
use kafka_protocol::messages::{RequestKind, ResponseKind};
use kafka_protocol::protocol::StrBytes;
use net::{ConnectionContext, ErrorCode};

use super::*;
use crate::groups::coordinator::check_group_id;
use crate::groups::partition_of;
use crate::groups::runtime::Coordinators;
use crate::groups::types::GroupError;
use crate::meta::GroupId;

/// The topic that keeps groups and their offsets.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// All operations on a group, as a number of flags: without an authorizer everybody has them.
pub(super) const GROUP_OPERATIONS: i32 = 3400;

/// The broker as the group handlers see it.
pub trait Groups: Admin {
    /// Runs `call` with the coordinators of the shard that owns the Raft group `partition`. The
    /// call is on its way when this returns. Whether that shard leads the partition is for the
    /// coordinators to say.
    fn on_coordinator<T, F, Fut>(&self, partition: GroupId, call: F) -> impl Future<Output = T>
    where
        T: Send + 'static,
        F: FnOnce(Coordinators) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static;

    /// Runs `call` on every shard of this node; in order of shards.
    fn on_all_coordinators<T, F, Fut>(&self, call: F) -> impl Future<Output = Vec<T>>
    where
        T: Send + 'static,
        F: Fn(Coordinators) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = T> + 'static;
}

/// Answers a group request; gives the body back if it is none. Heartbeats, joins and syncs take
/// effect in the order in which they are asked for.
pub async fn answer<G: Groups>(
    groups: &G,
    context: &ConnectionContext,
    client_id: Option<&StrBytes>,
    version: i16,
    body: RequestKind,
) -> Result<ResponseKind, RequestKind> {
    use RequestKind as Q;
    use ResponseKind as R;
    Ok(match body {
        Q::FindCoordinator(q) => {
            R::FindCoordinator(find_coordinator::handle(groups, context, version, q).await)
        }
        Q::JoinGroup(q) => {
            R::JoinGroup(join_group::handle(groups, context, client_id, version, q).await)
        }
        Q::SyncGroup(q) => R::SyncGroup(sync_group::handle(groups, version, q).await),
        Q::Heartbeat(q) => R::Heartbeat(heartbeat::handle(groups, q).await),
        Q::LeaveGroup(q) => R::LeaveGroup(leave_group::handle(groups, version, q).await),
        Q::OffsetCommit(q) => R::OffsetCommit(offset_commit::handle(groups, version, q).await),
        Q::OffsetFetch(q) => R::OffsetFetch(offset_fetch::handle(groups, version, q).await),
        Q::OffsetDelete(q) => R::OffsetDelete(offset_delete::handle(groups, q).await),
        Q::ListGroups(q) => R::ListGroups(list_groups::handle(groups, q).await),
        Q::DescribeGroups(q) => {
            R::DescribeGroups(describe_groups::handle(groups, version, q).await)
        }
        Q::DeleteGroups(q) => R::DeleteGroups(delete_groups::handle(groups, q).await),
        other => return Err(other),
    })
}

/// Where a group lives: the Raft group of its partition, and that partition's number.
pub(super) fn home<G: Groups>(groups: &G, group: &str) -> Result<(GroupId, i32), GroupError> {
    let image = groups.image();
    // Without the topic there is no group anywhere; FindCoordinator makes it.
    let topic = image.topic(OFFSETS_TOPIC).ok_or(GroupError::NotCoordinator)?;
    let number = partition_of(group, topic.partitions.len() as i32);
    Ok((topic.partitions[number as usize].group, number))
}

/// Where a group lives that has or gets members: its name is checked even while there is no topic.
pub(super) fn home_of_members<G: Groups>(
    groups: &G,
    group: &str,
) -> Result<(GroupId, i32), GroupError> {
    check_group_id(group)?;
    home(groups, group)
}

/// Whether a partition exists; offsets are kept for those only.
pub(super) fn exists(image: &crate::meta::Image, topic: &str, partition: i32) -> bool {
    let partitions = image.topic(topic).map_or(0, |topic| topic.partitions.len());
    usize::try_from(partition).is_ok_and(|partition| partition < partitions)
}

pub(super) fn code(error: GroupError) -> i16 {
    use GroupError as E;
    let code = match error {
        E::InvalidGroupId => ErrorCode::InvalidGroupId,
        E::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        E::UnknownMemberId => ErrorCode::UnknownMemberId,
        E::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        E::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        E::MemberIdRequired => ErrorCode::MemberIdRequired,
        E::IllegalGeneration => ErrorCode::IllegalGeneration,
        E::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        E::FencedInstanceId => ErrorCode::FencedInstanceId,
        E::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        E::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        E::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        E::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        E::NotCoordinator => ErrorCode::NotCoordinator,
        E::CoordinatorLoadInProgress => ErrorCode::CoordinatorLoadInProgress,
        E::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
    };
    code.code()
}

/// 0, or the error's code.
pub(super) fn code_of<T>(outcome: &Result<T, GroupError>) -> i16 {
    outcome.as_ref().err().map_or(0, |error| code(*error))
}

/// As Kafka shows a client's address: `/127.0.0.1`, and IPv6 without abbreviation.
pub(super) fn client_host(context: &ConnectionContext) -> String {
    match context.peer.ip().to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => {
            let parts: Vec<String> =
                address.segments().iter().map(|part| format!("{part:x}")).collect();
            format!("/{}", parts.join(":"))
        }
    }
}

pub(super) fn owned(text: &StrBytes) -> String {
    text.as_str().to_owned()
}

pub(super) fn owned_option(text: &Option<StrBytes>) -> Option<String> {
    text.as_ref().map(owned)
}

pub(super) fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub(super) fn wire(text: String) -> StrBytes {
    StrBytes::from_string(text)
}

pub(super) fn wire_option(text: Option<String>) -> Option<StrBytes> {
    text.map(StrBytes::from_string)
}
