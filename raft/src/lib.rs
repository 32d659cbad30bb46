//! Multiplexed Raft groups over raft-rs: one driver per shard for all groups placed there.
//!
//! Owns: the life of a group (create, recover, propose, commit, remove), what of it is written to
//! the write-ahead log and when raft-rs is told, messages between replicas, and the election clock.
//! Assumes: one [`Groups`] per shard, over that shard's log. Everything is `!Send`.
//! Never does: know what a record means (that is the [`Machine`]'s), read a clock, a disk or a
//! random number but through `rt`, or catch a panic of raft-rs: such a panic is a broken invariant,
//! and main's panic hook ends the process.
//!
//! Two layers. [`driver::Driver`] is the state machine: events in, records into a
//! [`driver::Journal`], effects out; it is synchronous and is tested by text scenarios. [`Groups`] is the
//! procedure around it: it feeds the log's durable frames and the clock's ticks to the driver, and
//! calls the machines with what comes out.

pub mod driver;
mod entry;
mod groups;
mod head;
mod machine;
mod staging;
pub mod transport;

pub use entry::{entry_of, payload_of, Descriptor, EntryKind, Proposal, DESCRIPTOR_BYTES};
pub use groups::{payload_max_bytes, Groups, GroupsOptions, Outbound};
pub use head::{decode_checkpoint, HeadError, RaftHead};
pub use machine::{Committed, Leadership, Machine, Payload};
pub use raft_proto::eraftpb;
pub use staging::{
    edges_of, staged_entry, Appending, PayloadError, PayloadRead, Staged, StagedBytes, Staging,
    StagingRef, STAGED_HEAD_MIN_BYTES,
};
