//! A group's records on their way into the log, and what became durable of them.
//!
//! A record is numbered when the group decides on it; the frame that carries it may be known later.
//! An entry whose payload is on its way to a place of its own waits for it here, and the group's
//! entries after it wait behind it, so that the shard's log waits for nobody's payload: other
//! groups' records go out meanwhile. Whatever is not an entry does not wait, and neither does what
//! stands before it: the log then holds the frame back until the payloads are durable, as it would
//! hold back any pointer. So the order within a group is that of its numbers, come what may.

use std::collections::VecDeque;

use bytes::Bytes;
use wal::{FrameNumber, Index, PayloadDurable, RecordRef};

use super::super::effects::Awaited;
use super::super::journal::{JournalError, Placed};
use super::super::log::{Slot, SlotPayload};
use super::{Group, Turn};
use crate::entry::{self, DESCRIPTOR_BYTES};
use crate::Staged;

/// A record of this group, counted since the group was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct RecordNumber(u64);

/// The records that are not known durable.
#[derive(Default)]
pub(super) struct Records {
    last: RecordNumber,
    durable: RecordNumber,
    /// The last record in each frame that is not durable.
    frames: VecDeque<(FrameNumber, RecordNumber)>,
    /// Entries that the log was not given yet, in order; they are the newest records.
    queued: VecDeque<Queued>,
    last_touched: FrameNumber,
}

struct Queued {
    index: Index,
    number: RecordNumber,
    log_bytes: u64,
    pointer: Option<PointerTo>,
}

/// A payload that has a place of its own.
struct PointerTo {
    edges: Bytes,
    durable: PayloadDurable,
    /// `durable` has answered.
    arrived: bool,
}

impl Records {
    /// The newest record.
    pub fn last(&self) -> RecordNumber {
        self.last
    }

    fn next(&mut self) -> RecordNumber {
        self.last.0 += 1;
        self.last
    }

    fn placed(&mut self, number: RecordNumber, frame: FrameNumber) {
        match self.frames.back_mut() {
            Some((last, newest)) if *last == frame => *newest = number,
            _ => self.frames.push_back((frame, number)),
        }
    }

    /// A frame is durable: up to which record all are.
    pub fn durable_with(&mut self, frame: FrameNumber) -> RecordNumber {
        while let Some((_, number)) = self.frames.front().filter(|(carrier, _)| *carrier <= frame) {
            self.durable = *number;
            self.frames.pop_front();
        }
        self.durable
    }
}

impl Group {
    /// Writes what is no entry, after everything before it.
    pub(super) fn append(
        &mut self,
        turn: &mut Turn<'_>,
        record: RecordRef<'_>,
    ) -> Result<RecordNumber, JournalError> {
        self.place_all(turn)?;
        let placed = turn.journal.append(record)?;
        let number = self.records.next();
        self.placed(number, placed.frame, turn);
        Ok(number)
    }

    /// The entry is the next record. A staged payload is waited for, unless nothing waits now.
    pub(super) fn queue_entry(
        &mut self,
        index: Index,
        staged: Option<Staged>,
        turn: &mut Turn<'_>,
    ) {
        let pointer = staged.map(|Staged { edges, durable, .. }| {
            if !turn.waits {
                return PointerTo { edges, durable, arrived: true };
            }
            let (told, answer) = rt::oneshot();
            let awaited = Awaited { owner: self.owner, index, payload: durable, told };
            turn.effects.payloads.push(awaited);
            PointerTo { edges, durable: answer, arrived: false }
        });
        let beside = match &pointer {
            Some(pointer) => pointer.edges.len(),
            None => self.log().slot(index).map_or(0, |slot| slot.descriptor.length as usize),
        };
        let log_bytes = wal::format::record_bytes(beside + DESCRIPTOR_BYTES) as u64;
        *turn.waiting_bytes += log_bytes;
        let number = self.records.next();
        self.records.queued.push_back(Queued { index, number, log_bytes, pointer });
    }

    /// The payload of an entry has arrived at its place, or never will.
    pub fn payload_arrived(&mut self, index: Index) {
        let queued = self.records.queued.iter_mut();
        for pointer in queued.filter(|entry| entry.index == index).flat_map(|e| &mut e.pointer) {
            pointer.arrived = true;
        }
    }

    /// Gives the log all entries that need not wait.
    pub(super) fn place_entries(&mut self, turn: &mut Turn<'_>) -> Result<(), JournalError> {
        let must_wait = |entry: &Queued| entry.pointer.as_ref().is_some_and(|to| !to.arrived);
        while let Some(entry) = self.records.queued.pop_front() {
            if turn.waits && must_wait(&entry) {
                self.records.queued.push_front(entry);
                break;
            }
            self.place(entry, turn)?;
        }
        Ok(())
    }

    /// Gives the log all entries; it waits for their payloads.
    pub fn place_all(&mut self, turn: &mut Turn<'_>) -> Result<(), JournalError> {
        while let Some(entry) = self.records.queued.pop_front() {
            self.place(entry, turn)?;
        }
        Ok(())
    }

    fn place(&mut self, entry: Queued, turn: &mut Turn<'_>) -> Result<(), JournalError> {
        let Queued { index, number, log_bytes, pointer } = entry;
        *turn.waiting_bytes -= log_bytes;
        let slot = self.log().slot(index).expect("a truncation places all that waits before it");
        let placed = self.write(index, slot, pointer, turn)?;
        self.raw.mut_store().place(index, placed);
        self.placed(number, placed.frame, turn);
        Ok(())
    }

    fn write(
        &self,
        index: Index,
        slot: &Slot,
        pointer: Option<PointerTo>,
        turn: &mut Turn<'_>,
    ) -> Result<Placed, JournalError> {
        let (owner, term, journal) = (self.owner, slot.term, &mut *turn.journal);
        let encoded = entry::encode(slot.kind, &slot.descriptor);
        if let Some((PointerTo { edges, durable, .. }, pointer)) = pointer.zip(slot.pointer) {
            let prefix: &[&[u8]] = &[&encoded, &edges];
            let record = RecordRef::Pointer { owner, index, term, pointer, prefix };
            return journal.append_pointer(record, durable);
        }
        let SlotPayload::Gathered(slices) = &slot.payload else {
            unreachable!("entry {index} is not in the log yet")
        };
        let mut append = |body| journal.append(RecordRef::Append { owner, index, term, body });
        match &slices[..] {
            [] => append(&[&encoded]),
            [one] => append(&[&encoded, one]),
            many => {
                let mut body: Vec<&[u8]> = Vec::with_capacity(many.len() + 1);
                body.push(&encoded);
                body.extend(many.iter().map(|slice| &slice[..]));
                append(&body)
            }
        }
    }

    fn placed(&mut self, number: RecordNumber, frame: FrameNumber, turn: &mut Turn<'_>) {
        self.records.placed(number, frame);
        self.touch(frame, turn);
    }

    /// The group has something in this frame, and is told when it is durable.
    pub(super) fn touch(&mut self, written: FrameNumber, turn: &mut Turn<'_>) {
        if written != self.records.last_touched {
            self.records.last_touched = written;
            match turn.touched.back_mut() {
                Some((frame, groups)) if *frame == written => groups.push(self.key),
                _ => turn.touched.push_back((written, vec![self.key])),
            }
        }
    }

    /// The last entry that the log was given.
    pub(super) fn last_placed(&self) -> Index {
        self.records.queued.front().map_or(self.log().last(), |first| first.index.previous())
    }

    /// What its entries that wait will take in the log.
    pub fn waiting_bytes(&self) -> u64 {
        self.records.queued.iter().map(|entry| entry.log_bytes).sum()
    }
}
