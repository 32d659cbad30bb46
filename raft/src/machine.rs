//! What a group drives: the replicated state machine of a partition or of `__meta`.
//!
//! The driver calls a machine only from its own loop, after a turn, with nothing borrowed: a
//! machine may ask [`crate::Groups`] for a status or propose from inside a call. It must not block,
//! and whoever owns it must not hold a borrow of it across an await.

use bytes::Bytes;
use wal::{Index, Location, Pointer, ReplicaId, Term};

use crate::{Descriptor, EntryKind};

/// A change of term, leader, or the role of this replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    pub term: Term,
    pub leader: Option<ReplicaId>,
    /// This replica leads, and its term and vote are durable.
    pub is_leader: bool,
    /// While leading: the index of the first entry of this term. Once that entry is committed,
    /// every entry of earlier terms has been given to `committed`, so the machine knows the end
    /// of its log and of what is committed; before that it answers neither.
    pub first_index: Option<Index>,
}

/// Where the bytes of a committed entry are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// In memory: a slice of the durable frame. Holding it holds the frame.
    Bytes(Bytes),
    /// In the log, or staged: read the entry's body by its location and take [`crate::payload_of`]
    /// it, or [`crate::edges_of`] it if there is a pointer. The prefix is the payload's beginning,
    /// up to `wal::PREFIX_BYTES` less what stands before it.
    Wal { prefix: Bytes },
}

/// An entry that will never be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub index: Index,
    pub term: Term,
    pub kind: EntryKind,
    pub descriptor: Descriptor,
    pub payload: Payload,
    /// The payload is staged there; the log has its edges only ([`crate::Staging`]).
    pub pointer: Option<Pointer>,
    /// Where the entry's body stood when it was written or recovered. The log moves live entries
    /// when it recycles files, so a location kept for long is looked up again before it is read.
    pub location: Location,
}

/// A replicated state machine.
pub trait Machine {
    /// Who leads. Called when it changes, before anything committed under it.
    fn leadership(&mut self, leadership: Leadership);
    /// Entries from `from` on were taken back (never committed ones): what was proposed there will
    /// not commit.
    fn truncated(&mut self, from: Index);
    /// Committed entries, in order, without gaps, each once per life of the process; the first one
    /// follows the checkpoint.
    fn committed(&mut self, entries: Vec<Committed>);
    /// Everything up to here is durable on this replica.
    fn persisted(&mut self, index: Index);
}
