//! What goes into a coordinator and comes out of it: requests, answers and errors, free of wire
//! versions. All of it is `Send`, since a request may arrive on another shard than the group's.

use bytes::Bytes;
use rt::Instant;
use thiserror::Error;

use super::records::{OffsetValue, Record};

/// The time of an event: monotonic for sessions and rebalances, wall clock for what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub mono: Instant,
    pub wall_ms: i64,
}

/// Names a request that waits in the coordinator. The caller chooses it, and never twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Why a group request fails. The handlers know the numbers (kafka.md section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GroupError {
    #[error("the group id is empty or too long")]
    InvalidGroupId,
    #[error("the session timeout lies outside the broker's limits")]
    InvalidSessionTimeout,
    #[error("the member is not part of the group")]
    UnknownMemberId,
    #[error("the group's members have another protocol type, or no protocol in common")]
    InconsistentGroupProtocol,
    #[error("the group is full")]
    GroupMaxSizeReached,
    #[error("the member has to join again with the id it was given")]
    MemberIdRequired,
    #[error("the generation is not the group's")]
    IllegalGeneration,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("another member took over this group instance id")]
    FencedInstanceId,
    #[error("there is no such group")]
    GroupIdNotFound,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("the group's members read this topic")]
    GroupSubscribedToTopic,
    #[error("the offset's metadata is too large")]
    OffsetMetadataTooLarge,
    /// The shard does not lead the group's partition, or just lost it.
    #[error("this is not the group's coordinator")]
    NotCoordinator,
    #[error("the group's state is being read")]
    CoordinatorLoadInProgress,
    /// The log takes no records for now.
    #[error("the coordinator cannot write for now")]
    CoordinatorNotAvailable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    pub group: String,
    /// Empty: not yet given one.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub protocol_type: String,
    /// Name and metadata, the most wanted first.
    pub protocols: Vec<(String, Bytes)>,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub client_id: String,
    /// As Kafka shows it: `/127.0.0.1`.
    pub client_host: String,
    /// v4+: a member without id is sent back once to join with the one it was given (KIP-394).
    pub member_id_required: bool,
    /// v9+: a returning static leader may be told to skip the assignment (KIP-814).
    pub can_skip_assignment: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinAnswer {
    pub error: Option<GroupError>,
    /// -1 with an error.
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    pub skip_assignment: bool,
    pub member_id: String,
    /// For the leader; empty for others.
    pub members: Vec<JoinedMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

impl JoinAnswer {
    pub fn error(member_id: &str, error: GroupError) -> JoinAnswer {
        JoinAnswer {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    pub group: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// v5+; checked where given.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// Member id and assignment; heeded from the leader only.
    pub assignments: Vec<(String, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncAnswer {
    pub error: Option<GroupError>,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

impl SyncAnswer {
    pub fn error(error: GroupError) -> SyncAnswer {
        let assignment = Bytes::new();
        SyncAnswer { error: Some(error), protocol_type: None, protocol: None, assignment }
    }
}

/// A member that shows who it is and which generation it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub group: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
}

/// One member to leave; by instance id alone when `member_id` is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    pub member_id: String,
    pub instance_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub group: String,
    /// -1 from clients that manage partitions themselves.
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// v2-v4 may ask for a retention of their own.
    pub retention_ms: Option<i64>,
    /// v9+: an unknown group has an error of its own.
    pub knows_group_id_not_found: bool,
    pub offsets: Vec<CommittedOffset>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub leader_epoch: i32,
    /// Null reads back as "".
    pub metadata: Option<String>,
}

/// Partitions of one topic, in the order asked (or ascending, when all were asked for).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedTopic {
    pub topic: String,
    pub partitions: Vec<(i32, Option<OffsetValue>)>,
}

/// An offset that a group has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub group: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub state: &'static str,
    pub protocol_type: String,
    /// Empty unless the group is stable; so is each member's metadata.
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub group: String,
    pub protocol_type: String,
    pub state: &'static str,
}

/// An answer to a waiting request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Join(Token, JoinAnswer),
    Sync(Token, SyncAnswer),
}

/// What events of a coordinator ask for. Records are to be appended in this order, after all
/// earlier ones. The answers here, and what the event itself returned, may leave only when every
/// record given out so far is committed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub records: Vec<Record>,
    pub answers: Vec<Answer>,
}
