//! Long payloads of a group: asked of its staging area, given to it, read back.
//!
//! Assumes: an entry is asked for ([`Group::would_stage`]) when everything before it is written, so
//! that the staging area decides with the same log in sight when it is placed. Never places
//! anything while a truncation is not durable.

use bytes::Bytes;
use wal::Index;

use super::super::log::records_of;
use super::Group;
use crate::entry::{Descriptor, EntryKind};
use crate::{Appending, PayloadRead, Staged, StagingRef};

impl Group {
    /// Where long payloads go from now on.
    pub fn set_staging(&mut self, staging: StagingRef) {
        self.staging = Some(staging);
    }

    pub fn is_long(&self, payload_bytes: usize) -> bool {
        let least = self.staging.as_ref().map(|staging| staging.min_bytes() as usize);
        least.is_some_and(|least| payload_bytes >= least)
    }

    /// Whether an entry that is proposed now, after a turn, finds a place outside of the log.
    pub fn would_stage(&self, kind: EntryKind, descriptor: Descriptor) -> bool {
        let index = Index(self.raw.raft.raft_log.last_index() + 1);
        self.pending.is_empty()
            && self.staging_for(kind, &descriptor).is_some_and(|staging| {
                let before = &|index| self.log().slot(index).and_then(records_of);
                staging.would_place(&Appending { index, descriptor, before })
            })
    }

    fn staging_for(&self, kind: EntryKind, descriptor: &Descriptor) -> Option<&StagingRef> {
        let wanted = kind == EntryKind::Data && self.truncation.is_none();
        let staging = self.staging.as_ref().filter(|_| wanted)?;
        (descriptor.length >= staging.min_bytes()).then_some(staging)
    }

    /// Begins to read the payload of an entry, if it is staged.
    pub fn read_staged(&self, index: Index) -> Option<PayloadRead> {
        let slot = self.log().slot(index)?;
        let staging = self.staging.as_ref()?;
        Some(staging.read(index, slot.placed?.location, slot.pointer?))
    }

    /// Gives a long payload to the staging area, if there is one that takes it.
    pub(super) fn stage(
        &self,
        index: Index,
        kind: EntryKind,
        descriptor: Descriptor,
        payload: &[Bytes],
    ) -> Option<Staged> {
        let staging = self.staging_for(kind, &descriptor)?;
        let before = &|index| self.log().slot(index).and_then(records_of);
        staging.place(&Appending { index, descriptor, before }, payload)
    }
}
