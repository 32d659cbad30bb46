//! Records as callers give them, and the reasons for which a replica is fenced.
//!
//! Bodies are opaque here: slices that are gathered and copied once into a frame. Pure values.

use crate::core::Class;
use crate::error::DiskError;
use crate::format::{u64_at, Pointer, RecordKind, POINTER_BYTES};
use crate::types::{FileSequence, FrameNumber, HardState, Index, Owner, Term};

/// Answers when the payload that a pointer names is durable, or why it never will be.
pub type PayloadDurable = rt::local::oneshot::Receiver<Result<(), DiskError>>;

/// One record to append. Bodies come as several slices, written one after the other.
#[derive(Debug, Clone, Copy)]
pub enum RecordRef<'a> {
    /// An entry; every entry of the owner from `index` on is cut.
    Append {
        owner: Owner,
        index: Index,
        term: Term,
        body: &'a [&'a [u8]],
    },
    /// Cuts every entry from `from` on; `term` is for the reader of a dump only.
    Truncate {
        owner: Owner,
        from: Index,
        term: Term,
    },
    HardState {
        owner: Owner,
        state: HardState,
    },
    /// The membership as of `index`; the newest one stands.
    Membership {
        owner: Owner,
        index: Index,
        term: Term,
        body: &'a [&'a [u8]],
    },
    /// Entries up to `index` are durable elsewhere and die with this record; entries above it
    /// of a lower term are cut.
    Checkpoint {
        owner: Owner,
        index: Index,
        term: Term,
        body: &'a [&'a [u8]],
    },
    /// The replica is gone from this node: all it has dies, and it takes no further records.
    Tombstone {
        owner: Owner,
    },
    /// An entry whose payload the caller puts into a segment's staging area; `prefix` is what it
    /// wants back at recovery. See [`crate::Wal::append_pointer`].
    Pointer {
        owner: Owner,
        index: Index,
        term: Term,
        pointer: Pointer,
        prefix: &'a [&'a [u8]],
    },
}

impl RecordRef<'_> {
    pub fn owner(&self) -> Owner {
        match *self {
            RecordRef::Append { owner, .. }
            | RecordRef::Truncate { owner, .. }
            | RecordRef::HardState { owner, .. }
            | RecordRef::Membership { owner, .. }
            | RecordRef::Checkpoint { owner, .. }
            | RecordRef::Tombstone { owner }
            | RecordRef::Pointer { owner, .. } => owner,
        }
    }

    pub(crate) fn class(&self) -> Class {
        match self {
            RecordRef::Append { .. } | RecordRef::Pointer { .. } => Class::Data,
            RecordRef::HardState { .. }
            | RecordRef::Membership { .. }
            | RecordRef::Truncate { .. }
            | RecordRef::Checkpoint { .. }
            | RecordRef::Tombstone { .. } => Class::Needed,
        }
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        let owner = self.owner();
        let plain = |kind, index, term, slices| Parts {
            kind,
            relocated: false,
            owner,
            index,
            term,
            head: Head::default(),
            slices,
        };
        match *self {
            RecordRef::Append { index, term, body, .. } => {
                plain(RecordKind::Append, index, term, body)
            }
            RecordRef::Truncate { from, term, .. } => plain(RecordKind::Truncate, from, term, &[]),
            RecordRef::HardState { state, .. } => Parts {
                head: Head::of(&state.vote.0.to_le_bytes()),
                ..plain(RecordKind::HardState, state.commit, state.term, &[])
            },
            RecordRef::Membership { index, term, body, .. } => {
                plain(RecordKind::Membership, index, term, body)
            }
            RecordRef::Checkpoint { index, term, body, .. } => {
                plain(RecordKind::Checkpoint, index, term, body)
            }
            RecordRef::Tombstone { .. } => plain(RecordKind::Tombstone, Index(0), Term(0), &[]),
            RecordRef::Pointer { index, term, pointer, prefix, .. } => Parts {
                head: Head::of(&pointer.encode()),
                ..plain(RecordKind::Pointer, index, term, prefix)
            },
        }
    }
}

/// A record taken apart: what its header says, and the slices of its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub kind: RecordKind,
    pub relocated: bool,
    pub owner: Owner,
    pub index: Index,
    pub term: Term,
    /// Bytes of the body that the log itself defines; they come before the slices.
    pub head: Head,
    pub slices: &'a [&'a [u8]],
}

impl Parts<'_> {
    pub fn body_length(&self) -> usize {
        let slices: usize = self.slices.iter().map(|slice| slice.len()).sum();
        self.head.bytes().len() + slices
    }
}

/// A few bytes kept inline.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head {
    bytes: [u8; POINTER_BYTES],
    length: u8,
}

impl Head {
    pub fn of(bytes: &[u8]) -> Head {
        let mut head = Head { length: bytes.len() as u8, ..Head::default() };
        head.bytes[..bytes.len()].copy_from_slice(bytes);
        head
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Why a replica may have lost durable log. Such a replica neither votes, campaigns nor
/// acknowledges until it is removed and added again as a new replica; a sole voter stays offline
/// until an operator decides ([`crate::Wal::accept_damage`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A frame that a later one declares durable cannot be read. Whose records it held is not
    /// known, so every replica of the shard is fenced.
    #[error(
        "frame {frame} of the log was durable and is damaged (file {file}, position {position})"
    )]
    CorruptFrame { frame: FrameNumber, file: FileSequence, position: u64 },
    /// A file of the log is gone.
    #[error("log file {file} is missing")]
    MissingFile { file: FileSequence },
    /// The header of a file is damaged, and with it the key to all its frames.
    #[error("the header of log file {file} is damaged")]
    UnreadableHeader { file: FileSequence },
    /// The file in which the log ends is shorter than it was made: frames may have followed.
    #[error("log file {file} was cut short, and the log may have gone on in it")]
    TruncatedFile { file: FileSequence },
    /// The log ends before a frame that was durable: files or blocks at its end are gone.
    #[error("the log ends with frame {last}, and had been durable up to frame {reached}")]
    LostEnd { last: FrameNumber, reached: FrameNumber },
    /// Raft had been told of a commit that the log does not reach.
    #[error("commit index {commit} lies beyond the last entry {last}")]
    CommitBeyondLog { commit: Index, last: Index },
    /// The entries do not follow each other.
    #[error("entry {expected} is missing: the next one is {found}")]
    Gap { expected: Index, found: Index },
    /// A recovery that did not finish had found damage; what it was stands in its log only.
    #[error("an earlier recovery found damage and was interrupted")]
    FoundBefore,
    /// Written by a later version of this program.
    #[error("damage of an unknown kind ({code})")]
    Unknown { code: u64 },
}

const FENCE_BYTES: usize = 24;

impl Damage {
    /// The body of a fence record (FORMAT.md, "Fence").
    pub(crate) fn encode(&self) -> Head {
        let (code, first, second) = match *self {
            Damage::CorruptFrame { frame, file, position } => {
                // Position is a multiple of the block; file numbers stay far below 2^32.
                (1, frame.0, (file.0 << 32) | (position / crate::format::BLOCK_BYTES))
            }
            Damage::MissingFile { file } => (2, file.0, 0),
            Damage::UnreadableHeader { file } => (3, file.0, 0),
            Damage::CommitBeyondLog { commit, last } => (4, commit.0, last.0),
            Damage::Gap { expected, found } => (5, expected.0, found.0),
            Damage::FoundBefore => (6, 0, 0),
            Damage::TruncatedFile { file } => (7, file.0, 0),
            Damage::LostEnd { last, reached } => (8, last.0, reached.0),
            Damage::Unknown { code } => (code, 0, 0),
        };
        fence_body(code, first, second)
    }

    /// `Ok(None)` is the operator's acceptance. `Err` if the body is too short.
    pub(crate) fn decode(body: &[u8]) -> Result<Option<Damage>, ()> {
        if body.len() < FENCE_BYTES {
            return Err(());
        }
        let (code, first, second) = (u64_at(body, 0), u64_at(body, 8), u64_at(body, 16));
        Ok(Some(match code {
            0 => return Ok(None),
            1 => Damage::CorruptFrame {
                frame: FrameNumber(first),
                file: FileSequence(second >> 32),
                position: (second & u64::from(u32::MAX)) * crate::format::BLOCK_BYTES,
            },
            2 => Damage::MissingFile { file: FileSequence(first) },
            3 => Damage::UnreadableHeader { file: FileSequence(first) },
            4 => Damage::CommitBeyondLog { commit: Index(first), last: Index(second) },
            5 => Damage::Gap { expected: Index(first), found: Index(second) },
            6 => Damage::FoundBefore,
            7 => Damage::TruncatedFile { file: FileSequence(first) },
            8 => Damage::LostEnd { last: FrameNumber(first), reached: FrameNumber(second) },
            code => Damage::Unknown { code },
        }))
    }
}

/// The body of a fence record by which an operator accepts what was lost.
pub(crate) fn acceptance() -> Head {
    fence_body(0, 0, 0)
}

fn fence_body(code: u64, first: u64, second: u64) -> Head {
    let mut bytes = [0; FENCE_BYTES];
    bytes[0..8].copy_from_slice(&code.to_le_bytes());
    bytes[8..16].copy_from_slice(&first.to_le_bytes());
    bytes[16..24].copy_from_slice(&second.to_le_bytes());
    Head::of(&bytes)
}
