//! The numbers that name things in the log, as newtypes; they mean the same in every crate above.
//!
//! A type lives in the lowest crate that defines its meaning: groups, replicas, Raft indexes and
//! terms are written into frames here, so they are defined here. Pure values, on any shard.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            pub const fn next(self) -> $name {
                $name(self.0 + 1)
            }

            /// The number before this one; zero stays zero.
            pub const fn previous(self) -> $name {
                $name(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A Raft group: one partition, or `__meta` (0). Never used twice in the life of a cluster.
    GroupId
);
number!(
    /// One placement of a group on a node, given once by `__meta`; 0 means none. It is the peer
    /// id that Raft knows, and never a node id.
    ReplicaId
);
number!(
    /// A position in a group's Raft log. Not an offset: entries without records take one too.
    Index
);
number!(
    /// A Raft term; the leader epoch that clients see.
    Term
);
number!(
    /// The number of a group commit: one more than the one before, for the life of a shard's log.
    FrameNumber
);
number!(
    /// The number of a log file: one more than the one before, for the life of a shard's log.
    FileSequence
);

/// Whose record it is; carried by every record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Owner {
    pub group: GroupId,
    pub replica: ReplicaId,
}

/// No replica, but the log: what its fence says is of replicas that it does not know. FORMAT.md,
/// "Fence".
pub(crate) const LOG_ITSELF: Owner = Owner { group: GroupId(0), replica: ReplicaId(0) };

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {} replica {}", self.group, self.replica)
    }
}

/// What a Raft replica must never forget. `vote` is 0 when none was given in `term`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    pub term: Term,
    pub vote: ReplicaId,
    pub commit: Index,
}

/// Where a record's body lies: a file of this log, a byte position in it, a length in bytes.
///
/// Good for [`crate::Wal::read`] while the log is open and the record lives: relocation is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    pub file: FileSequence,
    pub position: u64,
    pub length: u32,
}

/// Which log this is. Stands in every file header; a file with another identity is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The node's UUID.
    pub node: [u8; 16],
    pub shard: rt::ShardId,
    /// The layout generation ([`crate::layout`]): a change of the number of shards makes another.
    pub generation: u32,
}
