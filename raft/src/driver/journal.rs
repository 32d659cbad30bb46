//! What the driver needs of a write-ahead log.
//!
//! The driver appends records and is told by events ([`super::Driver::durable`]) which frames
//! became durable; it never waits. Tests give it a log in memory.

use wal::{FrameNumber, Location, PayloadDurable, RecordRef};

/// Where a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The frame that carries it. Frames become durable in the order of their numbers.
    pub frame: FrameNumber,
    /// The position of the record's body in that frame's bytes.
    pub position: u32,
    /// Where the body will stand in the log.
    pub location: Location,
}

/// A record that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The log takes no more records. Nothing of this shard may go on: what was decided in memory
    /// cannot be made durable.
    #[error("the write-ahead log failed: {0}")]
    Failed(String),
}

/// A log that gathers records into frames.
pub trait Journal {
    /// Gathers one record. An append record cuts every entry of its owner from its index on.
    fn append(&mut self, record: RecordRef<'_>) -> Result<Placed, JournalError>;
    /// Gathers a pointer record. Its frame becomes durable after `payload`.
    fn append_pointer(
        &mut self,
        record: RecordRef<'_>,
        payload: PayloadDurable,
    ) -> Result<Placed, JournalError>;
}
