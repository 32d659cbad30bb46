//! Payloads that are written once: the seam between the group driver and whoever owns segments.
//!
//! A long payload does not go through the write-ahead log. The driver asks the group's
//! [`Staging`] for a place; the staging area writes the payload there, and the log's record is a
//! pointer. It is given to the log when the payload is durable, and a frame with it is never
//! written before. raft-rs sees a descriptor as ever, and every replica decides for itself.
//!
//! The body of a pointer record: the log's pointer (24 bytes), the descriptor, then the *edges*,
//! which are whatever the staging area wants to find again there. They begin with the first bytes
//! of the payload, [`STAGED_HEAD_MIN_BYTES`] at least, so that recovery knows every entry's head.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use wal::format::POINTER_BYTES;
use wal::{Index, Location, PayloadDurable, Pointer, RecoveredEntry, WalError, PREFIX_BYTES};

use crate::entry::{self, Descriptor, EntryKind, DESCRIPTOR_BYTES};

/// So much of a payload's beginning stands in its pointer record at least.
pub const STAGED_HEAD_MIN_BYTES: usize = PREFIX_BYTES - POINTER_BYTES - DESCRIPTOR_BYTES;

/// An entry that is about to be appended after all that the log holds.
#[derive(Clone, Copy)]
pub struct Appending<'a> {
    pub index: Index,
    /// Its length is that of the payload.
    pub descriptor: Descriptor,
    /// The entries before it that were not given to the machine yet; `None` for one that carries
    /// no records.
    pub before: &'a dyn Fn(Index) -> Option<Descriptor>,
}

/// The payload as the staging area keeps it in memory, once it has been written.
pub type StagedBytes = Rc<RefCell<Option<Bytes>>>;

/// A payload that has a place and is on its way there.
pub struct Staged {
    pub pointer: Pointer,
    /// See the module's text.
    pub edges: Bytes,
    /// Filled before `durable` answers.
    pub bytes: StagedBytes,
    pub durable: PayloadDurable,
}

/// Where a group's long payloads go. Called within a turn, with the driver borrowed: it must
/// neither call the driver nor its machine, nor wait.
pub trait Staging {
    /// Shorter payloads are not asked for.
    fn min_bytes(&self) -> u32;
    /// Whether [`Staging::place`] would take this entry, if it were called next.
    fn would_place(&self, entry: &Appending<'_>) -> bool;
    /// Takes the payload, or leaves it to the log. What was placed stays there until a checkpoint
    /// passes the entry or it is taken back.
    fn place(&self, entry: &Appending<'_>, payload: &[Bytes]) -> Option<Staged>;
    /// Entries from `from` on are taken back. Nothing is placed again before that is durable.
    fn truncated(&self, from: Index);
    /// Reads a payload back, whole and checked, which no checkpoint has passed.
    fn read(&self, index: Index, location: Location, pointer: Pointer) -> PayloadRead;
}

/// A payload that is being read back, or why it cannot be.
pub type PayloadRead = Pin<Box<dyn Future<Output = Result<Bytes, String>>>>;

/// Why an entry's payload cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    #[error(transparent)]
    Log(#[from] WalError),
    #[error("the payload of entry {0}, which stands in a segment: {1}")]
    Staged(Index, String),
}

/// A group's staging area, as the driver keeps it.
pub type StagingRef = Rc<dyn Staging>;

/// What recovery found of an entry whose payload is staged; `None` for every other entry, and for
/// one that cannot be decoded.
pub fn staged_entry(entry: &RecoveredEntry) -> Option<(Pointer, Descriptor)> {
    let (pointer, rest) = entry.pointer.then(|| split(&entry.prefix))??;
    let (kind, descriptor) = entry::decode(&rest)?;
    let whole = kind == EntryKind::Data && descriptor.length == pointer.length;
    whole.then_some((pointer, descriptor))
}

/// The pointer and the edges within the body of a pointer record, as `wal::Wal::read` gives it.
pub fn edges_of(body: &Bytes) -> Option<(Pointer, Bytes)> {
    let (pointer, rest) = split(body)?;
    (rest.len() >= DESCRIPTOR_BYTES).then(|| (pointer, rest.slice(DESCRIPTOR_BYTES..)))
}

/// The pointer, and what follows it.
pub(crate) fn split(body: &Bytes) -> Option<(Pointer, Bytes)> {
    Some((Pointer::decode(body)?, body.slice(POINTER_BYTES..)))
}

#[cfg(test)]
mod tests {
    use wal::{FileSequence, Location, Term};

    use super::*;

    fn recovered(pointer: bool, kind: EntryKind, length: u32) -> RecoveredEntry {
        let place = Pointer { segment: 7, position: 4096, length: 300_000, crc: 1 };
        let descriptor = Descriptor { base_offset: 9, records: 2, length, ..Descriptor::default() };
        let prefix = [&place.encode()[..], &entry::encode(kind, &descriptor), b"edges"].concat();
        RecoveredEntry {
            index: Index(8),
            term: Term(5),
            prefix: prefix.into(),
            location: Location { file: FileSequence(1), position: 0, length: 61 },
            pointer,
        }
    }

    #[test]
    fn a_staged_entry_is_recognised() {
        let found = recovered(true, EntryKind::Data, 300_000);
        let (pointer, descriptor) = staged_entry(&found).expect("it is one");
        assert_eq!((pointer.segment, descriptor.base_offset), (7, 9));
        assert_eq!(edges_of(&found.prefix), Some((pointer, Bytes::from_static(b"edges"))));
    }

    #[test]
    fn what_contradicts_itself_is_none() {
        assert_eq!(staged_entry(&recovered(false, EntryKind::Data, 300_000)), None);
        assert_eq!(staged_entry(&recovered(true, EntryKind::Data, 300_001)), None);
        assert_eq!(staged_entry(&recovered(true, EntryKind::Control(1), 300_000)), None);
        let mut short = recovered(true, EntryKind::Data, 300_000);
        short.prefix = short.prefix.slice(..40);
        assert_eq!(staged_entry(&short), None);
        assert_eq!(edges_of(&short.prefix), None);
    }
}
