//! Ways to break the broker on purpose, which the simulator's checkers must find.
//!
//! A mutation is a switch of the simulated world; `Shard::broken` is constant false on io_uring,
//! so that the shipped code contains the test's hooks but can never take them.

/// One deliberate fault in the broker's logic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// Producers are answered when a frame is submitted, before it is durable.
    AcknowledgeBeforeSync,
    /// An empty Ready is reported persisted while an earlier frame is still in flight.
    EmptyReadyReportedEarly,
    /// Votes and terms are used before they are durable.
    SkipVoteSync,
    /// Recovery does not sync what it replayed before it builds on it.
    RecoverWithoutSync,
    /// A log file is recycled without relocating its live records.
    RecycleWithoutRelocation,
    /// Replay accepts a block of a file's former life.
    AcceptStaleBlock,
    /// Replay and reads ignore checksums.
    IgnoreChecksum,
    /// A group checkpoint is written before its segments are synced.
    CheckpointBeforeSync,
    /// Idempotent produce remembers only the last batch of a producer.
    DedupeWindowOfOne,
    /// A frame with a pointer is durable before the payload it points to.
    PointerBeforePayload,
}

impl Mutation {
    /// Every mutation, in declaration order.
    pub const ALL: [Mutation; 10] = [
        Mutation::AcknowledgeBeforeSync,
        Mutation::EmptyReadyReportedEarly,
        Mutation::SkipVoteSync,
        Mutation::RecoverWithoutSync,
        Mutation::RecycleWithoutRelocation,
        Mutation::AcceptStaleBlock,
        Mutation::IgnoreChecksum,
        Mutation::CheckpointBeforeSync,
        Mutation::DedupeWindowOfOne,
        Mutation::PointerBeforePayload,
    ];

    /// Its bit in a set of mutations.
    pub(crate) fn bit(self) -> u32 {
        1 << self as u32
    }
}
