//! Appending to a partition that this replica leads: sequence check, offsets, proposal.
//!
//! Called by the produce handler and by the group coordinator, on the shard that owns the
//! partition. The batch was validated before (CRC, counts, sizes, timestamps): what is decided
//! here is what needs the partition's state. An append is done when it is proposed: its place
//! among all appends of the partition is then fixed, and the caller waits for its commit.

use bytes::Bytes;
use net::batch::{Batch, BatchHeader};
use raft::driver::ProposeError;
use raft::{Descriptor, EntryKind, Proposal};
use thiserror::Error;
use wal::{Index, Term};

use super::producers::{BatchInfo, Reject, Verdict};
use super::waiters::Wait;
use super::{epoch_of, Leadership, Partition};

/// An append that was proposed, or the earlier one that it repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The entry whose commit acknowledges this append.
    pub index: Index,
    pub base_offset: i64,
    /// The time that a repeated append answers with: the maximum timestamp of the original
    /// batch, in milliseconds. None for a first append.
    pub duplicate_of_ms: Option<i64>,
}

/// Why a batch was not appended. Nothing of it is in the log then.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    #[error("this replica does not lead the partition")]
    NotLeader,
    #[error("the topic was deleted")]
    Deleted,
    /// The sequence neither follows the producer's last one nor repeats a remembered one.
    #[error("out of order sequence number")]
    OutOfOrderSequence,
    /// The producer has been replaced by one with a higher epoch.
    #[error("producer epoch is older than the latest")]
    FencedProducer,
    /// No more can be taken at this moment.
    #[error("the log cannot take more data now: {0}")]
    Full(Full),
    /// The batch does not fit into a file of the write-ahead log, whatever the topic allows.
    #[error("the batch is larger than a record of the log can be; raise wal_budget_bytes")]
    TooLarge,
    /// The log has failed, and the broker is about to stop.
    #[error("the log has failed: {0}")]
    Failed(String),
}

/// What is full.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Full {
    /// The write-ahead log, until files of it are recycled.
    #[error("the write-ahead log has no room until older data is in its segments")]
    Log,
    /// The group holds as many undecided bytes as it may, until some are committed.
    #[error("too many bytes of the partition are not committed yet")]
    Group,
    /// Too many appends wait for one of the above.
    #[error("too many appends wait for room in the log")]
    Backlog,
}

impl Partition {
    /// Appends one batch in this replica's term, or finds the append that it repeats.
    pub fn append(&mut self, batch: &Batch) -> Result<Appended, AppendError> {
        let term = self.check_open()?;
        let info = producer_of(&batch.header);
        if let Some(info) = &info {
            match self.producers.check(info) {
                Verdict::Append => {}
                Verdict::Duplicate { base_offset, max_timestamp, index } => {
                    return Ok(Appended {
                        index,
                        base_offset,
                        duplicate_of_ms: Some(max_timestamp),
                    });
                }
                Verdict::Reject(Reject::OutOfOrderSequence) => {
                    return Err(AppendError::OutOfOrderSequence)
                }
                Verdict::Reject(Reject::FencedEpoch) => return Err(AppendError::FencedProducer),
            }
        }
        let base_offset = self.next_offset;
        let mut header = batch.header;
        header.place(base_offset, epoch_of(term));
        let descriptor = Descriptor {
            base_offset,
            records: batch.header.record_count as u32,
            // A frame is at most 100 MiB, so this fits.
            length: batch.bytes.len() as u32,
            crc: batch.header.crc,
            max_timestamp: batch.header.max_timestamp,
        };
        let payload = [Bytes::copy_from_slice(&header.encode()), batch.body()];
        let proposal = Proposal { kind: EntryKind::Data, descriptor, payload: &payload };
        let (index, proposed_term) =
            self.groups.propose(self.identity.owner.group, proposal).map_err(append_error)?;
        assert_eq!(proposed_term, term, "the batch carries the term that it was proposed in");
        if let Some(info) = &info {
            self.producers.appended(info, base_offset, index, batch.header.max_timestamp);
        }
        self.next_offset = base_offset + i64::from(batch.header.record_count);
        Ok(Appended { index, base_offset, duplicate_of_ms: None })
    }

    /// The term in which this replica takes appends, if it does.
    pub fn check_open(&self) -> Result<Term, AppendError> {
        match self.leadership {
            _ if self.deleted => Err(AppendError::Deleted),
            Leadership::Leader { term } => Ok(term),
            _ => Err(AppendError::NotLeader),
        }
    }

    /// Proposes a control entry (a new log start); gives its index.
    pub fn propose_control(
        &mut self,
        control: super::control::Control,
    ) -> Result<Index, AppendError> {
        self.check_open()?;
        let payload = [Bytes::copy_from_slice(&control.encode())];
        let proposal = Proposal {
            kind: EntryKind::Control(control.kind()),
            descriptor: Descriptor { base_offset: self.next_offset, ..Descriptor::default() },
            payload: &payload,
        };
        let proposed = self.groups.propose(self.identity.owner.group, proposal);
        proposed.map(|(index, _)| index).map_err(append_error)
    }

    /// A wait for the moment at which the entry at `index` is durable on this replica.
    pub fn wait_for_persist(&mut self, index: Index) -> Wait {
        self.waiters.wait_for_persist(index, self.persisted_index)
    }
}

/// The producer's part of a header; none if the producer is not idempotent.
pub(super) fn producer_of(header: &BatchHeader) -> Option<BatchInfo> {
    let idempotent = header.producer_id >= 0;
    idempotent.then(|| {
        BatchInfo::new(
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
            header.last_offset_delta,
        )
    })
}

fn append_error(error: ProposeError) -> AppendError {
    match error {
        // A node that stops leads no more: its clients look for another leader.
        ProposeError::NotLeader { .. } | ProposeError::UnknownGroup | ProposeError::Closed => {
            AppendError::NotLeader
        }
        ProposeError::LogFull => AppendError::Full(Full::Log),
        ProposeError::TooMuchUncommitted => AppendError::Full(Full::Group),
        ProposeError::TooLarge => AppendError::TooLarge,
        failed @ (ProposeError::Fenced | ProposeError::LogFailed) => {
            AppendError::Failed(failed.to_string())
        }
    }
}
