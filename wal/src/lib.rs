//! The write-ahead log of a shard: one durable write for all its Raft groups at once.
//!
//! Call [`Wal::open`] first: it recovers, and what it tells is durable. Then append records with
//! [`Wal::append`] in any turn; whatever was appended while a frame was in flight goes out
//! together as the next one, and comes back through [`Wal::next_durable`]. Bodies are opaque. The
//! log never forgets a record by itself: a checkpoint makes entries dead, a tombstone a replica,
//! and what is live when its file is the oldest is stated again before the file is used anew.
//!
//! The bytes on disk: FORMAT.md. Knows nothing of Kafka, and of Raft only group, replica, index
//! and term. Everything but [`layout`], [`probe`] and [`inspect`] belongs to one shard.

mod background;
mod core;
mod error;
mod files;
pub mod format;
mod gather;
mod histograms;
mod index;
pub mod inspect;
pub mod layout;
mod options;
pub mod probe;
mod reached;
mod record;
mod recover;
mod recycle;
mod replay;
mod scan;
mod types;
mod wal;
mod writer;

pub use crate::core::{DurableFrame, Placed, WalStats};
pub use error::{DiskError, WalError};
pub use format::Pointer;
pub use histograms::WalHistograms;
pub use options::{Flush, WalOptions};
pub use record::{Damage, PayloadDurable, RecordRef};
pub use recover::{Recovered, RecoveredEntry, RecoveredReplica, RecoveryReport};
pub use replay::PREFIX_BYTES;
pub use scan::{Scan, ScannedFrame, Step, Verdict};
pub use types::{
    FileSequence, FrameNumber, GroupId, HardState, Identity, Index, Location, Owner, ReplicaId,
    Term,
};
pub use wal::{Pressure, Wal};
