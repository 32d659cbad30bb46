//! What the group driver tells a partition: leadership, durability, commits, truncation.
//!
//! These run inside the driver's turn: they change state, wake waiters, and never wait, never
//! propose, never call the driver.

use raft::{Committed, EntryKind, Machine, Payload};
use wal::Index;

use super::append::producer_of;
use super::control::Control;
use super::staging::staged_at;
use super::{Leadership, Partition};
use crate::log::{self, CommittedBatch, LogEntry, Offset};

impl Machine for Partition {
    fn leadership(&mut self, change: raft::Leadership) {
        let led = !matches!(self.leadership, Leadership::Follower { .. });
        self.leadership = if let Some(first) = change.first_index.filter(|_| change.is_leader) {
            Leadership::Elected { term: change.term, first_index: first }
        } else {
            Leadership::Follower { term: change.term }
        };
        if led && !change.is_leader {
            self.waiters.leadership_lost();
        }
        self.note_own_term();
    }

    fn truncated(&mut self, from: Index) {
        self.producers.truncated(from);
        self.next_offset = self.log.log_end().0;
    }

    fn persisted(&mut self, index: Index) {
        self.persisted_index = self.persisted_index.max(index);
        self.waiters.persisted(index);
    }

    fn committed(&mut self, entries: Vec<Committed>) {
        let Some(last) = entries.last().map(|entry| entry.index) else { return };
        let mut controls = Vec::new();
        for entry in &entries {
            match entry.kind {
                EntryKind::Data => self.account_for(entry),
                EntryKind::Control(_) => controls.push(self.control_of(entry)),
                _ => {}
            }
        }
        self.log.commit(entries.into_iter().map(log_entry));
        // They speak of records before them, which may be among these entries: after a restart.
        controls.into_iter().for_each(|control| self.obey(control));
        self.next_offset = self.next_offset.max(self.log.log_end().0);
        self.committed_index = last;
        self.producers.committed(last);
        self.note_own_term();
        self.waiters.committed(last);
        self.waiters.data_up_to(self.high_watermark());
    }
}

impl Partition {
    /// Learns the producer's sequence from a batch that this replica did not append itself:
    /// after a restart, and as a follower.
    fn account_for(&mut self, entry: &Committed) {
        let header = match net::batch::BatchHeader::parse(prefix(&entry.payload)) {
            Ok(header) => header,
            // Only validated batches are proposed, and every record of the log has a checksum.
            Err(error) => panic!(
                "committed entry {} of {:?} holds no record batch: {error}",
                entry.index.0, self.identity
            ),
        };
        debug_assert_eq!(header.crc, entry.descriptor.crc, "the descriptor is of this batch");
        if let Some(info) = producer_of(&header) {
            let base_offset = entry.descriptor.base_offset;
            self.producers.appended(&info, base_offset, entry.index, header.max_timestamp);
        }
    }

    fn control_of(&self, entry: &Committed) -> Control {
        match Control::decode(prefix(&entry.payload)) {
            Ok(control) => control,
            Err(error) => panic!(
                "{error}: the log of {:?} was written by a newer version of Chronik",
                self.identity
            ),
        }
    }

    fn obey(&mut self, control: Control) {
        let Control::LogStart(offset) = control;
        self.log.set_log_start(Offset(offset));
    }

    /// With an entry of its own term committed, a leader knows the high watermark.
    fn note_own_term(&mut self) {
        if let Leadership::Elected { term, first_index } = self.leadership {
            if first_index <= self.committed_index {
                self.leadership = Leadership::Leader { term };
                self.waiters.leads();
            }
        }
    }
}

/// The first bytes of a payload, enough for a batch header or a control entry.
fn prefix(payload: &Payload) -> &[u8] {
    match payload {
        Payload::Bytes(bytes) => bytes,
        Payload::Wal { prefix } => prefix,
    }
}

/// A committed entry as the partition's log takes it.
fn log_entry(entry: Committed) -> LogEntry {
    let Committed { index, term, kind, descriptor, payload, pointer, location } = entry;
    if kind != EntryKind::Data {
        return LogEntry::Empty { index, term };
    }
    let payload = match payload {
        Payload::Bytes(bytes) => log::Payload::Memory { bytes, location: Some(location) },
        Payload::Wal { .. } => log::Payload::Wal(location),
    };
    LogEntry::Batch(CommittedBatch {
        index,
        term,
        base_offset: Offset(descriptor.base_offset),
        records: descriptor.records,
        length: descriptor.length,
        max_timestamp: descriptor.max_timestamp,
        crc: descriptor.crc,
        payload,
        staged: pointer.as_ref().map(staged_at),
    })
}
