//! The Raft messages behind raft-rs, as prost types of our own.
//!
//! Owns: the message types of raft-rs' wire format (package `eraftpb`), the accessors that raft-rs
//! expects of them, and the trait of rust-protobuf 2 through which it encodes configuration changes.
//! Replaces the crates.io crate `raft-proto` by `[patch.crates-io]`, so that nothing here needs
//! protoc or a build script, and bytes fields are `bytes::Bytes`: a clone shares the payload.
//! Assumes: field numbers and types never change (tests/vectors.rs pins the bytes).
//! Never does: parse untrusted input through rust-protobuf; bytes of peers are decoded by prost,
//! whose recursion is bounded. It holds no state and lives on every shard.

mod accessors;
mod confchange;
pub mod eraftpb;
mod legacy;

pub use crate::confchange::{
    conf_state_eq, new_conf_change_single, parse_conf_change, stringify_conf_change, ConfChangeI,
};

/// The names that raft-rs re-exports from its own prelude.
pub mod prelude {
    pub use crate::eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
        ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
    };
}
