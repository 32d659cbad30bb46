//! What the clients of a run were told, and what they asked for: nothing else may be read later.

use std::collections::BTreeMap;

pub const TOPIC: &str = "kept";
pub const PARTITIONS: usize = 3;

/// One producer per partition, whose records carry 0, 1, 2, …; so an offset is a record's value.
#[derive(Debug, Clone, Default)]
pub struct Partition {
    /// Records that were sent: values below.
    pub sent: u32,
    /// Records that were acknowledged: values below.
    pub acknowledged: u32,
    /// Log start that DeleteRecords was answered with, and the largest that was asked for.
    pub start: i64,
    pub start_asked: i64,
}

/// How far a topic's life got. In flight: asked for and not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Creating,
    There,
    Deleting,
    Gone,
}

#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The topic was created, and the client knows it.
    pub begun: bool,
    pub partitions: [Partition; PARTITIONS],
    /// The group's offset: the last one acknowledged and the last one sent; from 1 on.
    pub committed: i64,
    pub commit_sent: i64,
    /// Topics that come and go meanwhile.
    pub others: BTreeMap<String, Life>,
    /// Asks for some further batches of each partition.
    pub more: bool,
    /// Clients that have nothing more to do.
    pub ended: usize,
    /// Why a client could not go on; a run that is used is one without.
    pub failed: Option<String>,
}
