//! A group's log in memory: descriptors for raft-rs, payloads beside them.
//!
//! Owns: one slot per entry above the checkpoint, and raft-rs' `Storage` over them. A slot's
//! payload is held as the proposer's slices until its frame is durable, then as a slice of that
//! frame, and once given to the machine only as a location in the write-ahead log.
//! Assumes: entries are put here in the order in which they will be appended to the journal, before
//! raft-rs is told of them (`advance_append_async` demands that they can be read).
//! Invariant: `slots[i]` has index `compacted.0 + 1 + i`; terms never fall.

use std::collections::VecDeque;

use bytes::Bytes;
use raft_rs::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft_rs::{GetEntriesContext, RaftState, Storage, StorageError};
use wal::{FrameNumber, Index, Pointer, Term};

use super::journal::Placed;
use crate::entry::{self, Descriptor, EntryKind, DESCRIPTOR_BYTES};
use crate::{Payload, StagedBytes};

/// An entry's payload, as far as it is in memory.
#[derive(Debug, Clone)]
pub(crate) enum SlotPayload {
    /// Not durable yet; the bytes are the proposer's.
    Gathered(Vec<Bytes>),
    /// A slice of the durable frame.
    Durable(Bytes),
    /// In the write-ahead log only; the beginning as far as recovery kept it.
    Logged { prefix: Bytes },
}

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub term: Term,
    pub kind: EntryKind,
    pub descriptor: Descriptor,
    /// Where its record went, once the log has it; frame 0 for a recovered entry.
    pub placed: Option<Placed>,
    pub payload: SlotPayload,
    /// The payload is staged, and the record in the log a pointer.
    pub pointer: Option<Pointer>,
    /// What holds a staged payload in memory, until its frame is durable.
    pub staged: Option<StagedBytes>,
}

/// The log of one group.
#[derive(Debug)]
pub(crate) struct GroupLog {
    compacted: (Index, Term),
    slots: VecDeque<Slot>,
    /// How many leading slots are known durable, that is have no `Gathered` payload.
    durable_slots: usize,
    /// Sum of the payloads' lengths, committed or not.
    payload_bytes: u64,
    initial: (HardState, ConfState),
}

impl GroupLog {
    /// An empty log that begins after `compacted`.
    pub fn new(compacted: (Index, Term), initial: (HardState, ConfState)) -> GroupLog {
        GroupLog { compacted, slots: VecDeque::new(), durable_slots: 0, payload_bytes: 0, initial }
    }

    /// Puts back an entry that recovery found durable.
    pub fn restore(&mut self, slot: Slot) {
        self.payload_bytes += u64::from(slot.descriptor.length);
        self.slots.push_back(slot);
        self.durable_slots = self.slots.len();
    }

    pub fn first(&self) -> Index {
        self.compacted.0.next()
    }

    /// The last index, which is that of the compaction when the log is empty.
    pub fn last(&self) -> Index {
        Index(self.compacted.0 .0 + self.slots.len() as u64)
    }

    pub fn slot(&self, index: Index) -> Option<&Slot> {
        let at = index.0.checked_sub(self.first().0)?;
        self.slots.get(usize::try_from(at).ok()?)
    }

    pub fn term_of(&self, index: Index) -> Option<Term> {
        if index == self.compacted.0 {
            return Some(self.compacted.1);
        }
        self.slot(index).map(|slot| slot.term)
    }

    /// Cuts everything from `from` on. Answers how many payload bytes went.
    pub fn truncate(&mut self, from: Index) -> u64 {
        assert!(from >= self.first(), "entry {from} is below the checkpoint {}", self.compacted.0);
        let keep = (from.0 - self.first().0) as usize;
        let cut: u64 =
            self.slots.iter().skip(keep).map(|slot| u64::from(slot.descriptor.length)).sum();
        self.slots.truncate(keep);
        self.durable_slots = self.durable_slots.min(keep);
        self.payload_bytes -= cut;
        cut
    }

    /// Adds the entry after the last one.
    pub fn push(
        &mut self,
        term: Term,
        kind: EntryKind,
        descriptor: Descriptor,
        slices: Vec<Bytes>,
        staged: Option<(Pointer, StagedBytes)>,
    ) {
        let (pointer, staged) = staged.unzip();
        self.payload_bytes += u64::from(descriptor.length);
        self.slots.push_back(Slot {
            term,
            kind,
            descriptor,
            placed: None,
            payload: SlotPayload::Gathered(slices),
            pointer,
            staged,
        });
    }

    /// The journal has the record of an entry.
    pub fn place(&mut self, index: Index, placed: Placed) {
        let at = (index.0 - self.first().0) as usize;
        self.slots[at].placed = Some(placed);
    }

    /// A frame is durable: entries that it carries now hold slices of its bytes.
    pub fn frame_durable(&mut self, frame: FrameNumber, bytes: &Bytes) {
        while let Some(slot) = self.slots.get_mut(self.durable_slots) {
            let Some(placed) = slot.placed.filter(|placed| placed.frame <= frame) else { break };
            if let Some(staged) = slot.staged.take() {
                // Nothing is there if the frame did not wait, which only a mutation makes it do.
                if let Some(bytes) = staged.borrow_mut().take() {
                    slot.payload = SlotPayload::Durable(bytes);
                }
            } else if placed.frame == frame {
                let start = placed.position as usize + DESCRIPTOR_BYTES;
                let end = start + slot.descriptor.length as usize;
                slot.payload = SlotPayload::Durable(bytes.slice(start..end));
            }
            self.durable_slots += 1;
        }
    }

    /// The payload for the machine. With `release` it is not kept here: nobody else will ask.
    pub fn payload(&mut self, index: Index, release: bool) -> Payload {
        let at = (index.0 - self.first().0) as usize;
        let slot = &mut self.slots[at];
        match &slot.payload {
            SlotPayload::Logged { prefix } => Payload::Wal { prefix: prefix.clone() },
            SlotPayload::Gathered(slices) => Payload::Bytes(slices.concat().into()),
            SlotPayload::Durable(bytes) => {
                let payload = Payload::Bytes(bytes.clone());
                if release {
                    slot.payload = SlotPayload::Logged { prefix: Bytes::new() };
                }
                payload
            }
        }
    }

    /// Forgets entries up to `index`, of `term`: they are durable elsewhere.
    pub fn compact(&mut self, index: Index, term: Term) {
        if index <= self.compacted.0 {
            return;
        }
        assert!(index <= self.last(), "compaction to {index} beyond the last entry");
        let gone = (index.0 - self.compacted.0 .0) as usize;
        for slot in self.slots.drain(..gone) {
            self.payload_bytes -= u64::from(slot.descriptor.length);
        }
        self.durable_slots = self.durable_slots.saturating_sub(gone);
        self.compacted = (index, term);
    }

    /// How many entries are held.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The sum of all payload lengths held here.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// The entry as raft-rs sees it; `data` empty unless it is to be sent.
    fn entry(&self, index: u64, slot: &Slot, to_send: bool) -> Entry {
        let entry_type = match slot.kind {
            EntryKind::Membership => EntryType::EntryConfChangeV2,
            _ => EntryType::EntryNormal,
        };
        let mut entry =
            Entry { entry_type: entry_type as i32, term: slot.term.0, index, ..Entry::default() };
        if to_send {
            entry.data = match slot.kind {
                EntryKind::Empty => Bytes::new(),
                EntryKind::Membership => membership_data(slot),
                _ => Bytes::copy_from_slice(&entry::encode(slot.kind, &slot.descriptor)),
            };
        }
        entry
    }
}

/// What an entry that carries records says of them; `None` for every other one.
pub(crate) fn records_of(slot: &Slot) -> Option<Descriptor> {
    (slot.kind == EntryKind::Data).then_some(slot.descriptor)
}

/// A membership change's bytes, which always are in memory.
pub(crate) fn membership_data(slot: &Slot) -> Bytes {
    match &slot.payload {
        SlotPayload::Gathered(slices) => slices.concat().into(),
        SlotPayload::Durable(bytes) => bytes.clone(),
        SlotPayload::Logged { prefix } => prefix.clone(),
    }
}

impl Storage for GroupLog {
    fn initial_state(&self) -> raft_rs::Result<RaftState> {
        Ok(RaftState::new(self.initial.0, self.initial.1.clone()))
    }

    /// Entries for a message are limited by the bytes of their payloads. What raft-rs asks for
    /// otherwise (the committed entries of a Ready, pending membership changes) it reads by index
    /// and type only, so their data is left out.
    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft_rs::Result<Vec<Entry>> {
        if low < self.first().0 {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last().0 + 1, "entries up to {high} of {}", self.last());
        let to_send = context.can_async();
        let limit_bytes = max_size.into().filter(|_| to_send).unwrap_or(u64::MAX);
        let start = (low - self.first().0) as usize;
        let end = (high - self.first().0) as usize;
        let mut sum_bytes = 0u64;
        let mut entries = Vec::with_capacity(end - start);
        for (slot, index) in self.slots.range(start..end).zip(low..) {
            sum_bytes += u64::from(slot.descriptor.length);
            if sum_bytes > limit_bytes && !entries.is_empty() {
                break;
            }
            entries.push(self.entry(index, slot, to_send));
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft_rs::Result<u64> {
        if index < self.compacted.0 .0 {
            return Err(StorageError::Compacted.into());
        }
        self.term_of(Index(index)).map(|term| term.0).ok_or(StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft_rs::Result<u64> {
        Ok(self.first().0)
    }

    fn last_index(&self) -> raft_rs::Result<u64> {
        Ok(self.last().0)
    }

    /// A replica below the first index needs a snapshot, and there are none yet: raft-rs asks
    /// again at the next heartbeat.
    fn snapshot(&self, _request_index: u64, _to: u64) -> raft_rs::Result<Snapshot> {
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}
