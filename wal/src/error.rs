//! What can go wrong with the log. I/O errors are kept as text beside their code, because a
//! poisoned log hands the same error to everyone who asks.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use crate::format::HeaderError;
use crate::types::{FrameNumber, Identity, Location, Owner};

/// An I/O error that can be cloned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskError {
    message: Rc<str>,
    kind: io::ErrorKind,
    code: Option<i32>,
}

impl DiskError {
    pub fn kind(&self) -> io::ErrorKind {
        self.kind
    }

    /// The operating system's code, if it was the source.
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// The file system is full, or the user's quota is.
    pub fn is_no_space(&self) -> bool {
        matches!(self.kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl From<io::Error> for DiskError {
    fn from(error: io::Error) -> DiskError {
        DiskError {
            kind: error.kind(),
            code: rt::os_code(&error),
            message: error.to_string().into(),
        }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DiskError {}

/// Why an operation on the log did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// A write or sync failed at some time. What is on the disk is no longer known, so nothing is
    /// written or acknowledged any more: the process must stop.
    #[error("the log is poisoned: {0}")]
    Poisoned(DiskError),
    /// [`crate::Wal::stop`] was called.
    #[error("the log is stopped")]
    Stopped,
    /// The budget has no room for data until older files can be recycled: flush the owners of
    /// [`crate::Wal::oldest_live_owners`]. Votes, memberships and checkpoints still have room.
    #[error("the log's budget is used up")]
    Exhausted,
    /// The record cannot fit into a file of the log.
    #[error("a record of {bytes} bytes is larger than the log takes ({max} bytes)")]
    TooLarge { bytes: u64, max: u64 },
    /// The replica was removed; it takes no records.
    #[error("{0} was removed from this node")]
    Tombstoned(Owner),
    /// The record died, and its file was recycled.
    #[error("no live record at file {} position {}", .0.file, .0.position)]
    Gone(Location),
    /// A live record does not read back as it was written.
    #[error("the record at file {} position {} is damaged", .0.file, .0.position)]
    Damaged(Location),
    /// Reading, opening or listing failed. Never taken for the end of the log.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// A start needs a file, the disk has no room for one, and none was prepared before.
    #[error("no room for a log file of {bytes} bytes: {error}")]
    NoRoom { bytes: u64, error: DiskError },
    /// A file that this program must not touch.
    #[error("log file {name}: {reason}")]
    Header { name: String, reason: HeaderError },
    /// A file of another node, shard or generation.
    #[error("log file {name} belongs to another log ({found:?}, this is {expected:?})")]
    Foreign { name: String, found: Identity, expected: Identity },
    /// Not one log file is there, and there were some.
    #[error(
        "its files (*.wal) are gone from {folder}, though the log had reached frame {reached}: put \
         them back, or restore the data folder from a backup"
    )]
    Lost { folder: PathBuf, reached: FrameNumber },
    /// Two files say that they are the same one.
    #[error("log files {first} and {second} have the same sequence number")]
    Duplicate { first: String, second: String },
    /// Settings that contradict each other; the text says which.
    #[error("log options: {0}")]
    Options(String),
}

impl From<io::Error> for WalError {
    fn from(error: io::Error) -> WalError {
        WalError::Disk(error.into())
    }
}
