//! From what the write-ahead log found of a replica to a group that can run, or the reason why it
//! must not.
//!
//! Pure. A replica that may have lost durable log is fenced: it neither votes, campaigns nor
//! acknowledges. Everything that raft-rs would panic over is judged here first.

use std::collections::BTreeSet;

use prost::Message as _;
use raft_rs::eraftpb::{ConfChangeV2, ConfState, HardState as RaftHardState};
use wal::format::POINTER_BYTES;
use wal::{Damage, FrameNumber, HardState, Index, RecoveredReplica, Term};

use super::journal::Placed;
use super::log::{GroupLog, Slot, SlotPayload};
use crate::entry::{self, EntryKind, DESCRIPTOR_BYTES};
use crate::head::{decode_checkpoint, HeadError};
use crate::staging;

/// Why a replica takes no part in its group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fence {
    /// The log found damage that may have cost this replica entries or votes.
    #[error(transparent)]
    Damaged(Damage),
    /// Every replica begins with a checkpoint, and this one has none.
    #[error("the replica has no checkpoint")]
    NoCheckpoint,
    #[error(transparent)]
    Checkpoint(#[from] HeadError),
    /// The newest membership cannot be decoded, or is none that a group can have.
    #[error("the membership as of entry {0} cannot be decoded or makes no sense")]
    Membership(Index),
    /// An entry's descriptor cannot be decoded.
    #[error("entry {0} cannot be decoded")]
    Entry(Index),
    /// An entry that points into a segment contradicts itself.
    #[error("entry {0} points into a segment, and its pointer cannot be understood")]
    Pointer(Index),
    /// The entries above the checkpoint do not follow each other.
    #[error("entry {expected} is missing: the next one is {found}")]
    Gap { expected: Index, found: Index },
    /// Terms never fall within a log.
    #[error("entry {index} has term {term}, below the one before it")]
    TermFell { index: Index, term: Term },
    /// An entry's term is written with that term or a later one as the replica's own.
    #[error("entry {index} has term {term}, and the replica's own is {own}")]
    TermAhead { index: Index, term: Term, own: Term },
    /// A term or an index that no group reaches: the next one would not fit.
    #[error("term {term} at index {index}")]
    Numbers { term: Term, index: Index },
    /// The commit index that was recorded lies beyond the log.
    #[error("commit index {commit} lies beyond the last entry {last}")]
    CommitBeyondLog { commit: Index, last: Index },
}

/// Above every term and index of a group that lives.
const NUMBER_MAX: u64 = u64::MAX >> 1;

/// A replica that can run.
pub(crate) struct Recovered {
    pub log: GroupLog,
    pub hard_state: HardState,
    pub membership: ConfState,
    pub membership_index: Index,
    /// The checkpoint's index: what is committed above it is given to the machine again.
    pub applied: Index,
}

/// Judges and prepares what the log found.
pub(crate) fn recover(replica: &RecoveredReplica) -> Result<Recovered, Fence> {
    if let Some(damage) = &replica.damaged {
        return Err(Fence::Damaged(*damage));
    }
    let (index, term, body) = replica.checkpoint.as_ref().ok_or(Fence::NoCheckpoint)?;
    let (head, _) = decode_checkpoint(body)?;
    let (membership_index, membership) = newest_membership(replica, &head)?;
    if !is_sound(&membership) {
        return Err(Fence::Membership(membership_index));
    }
    let mut hard_state = merge(head.hard_state, replica.hard_state);
    hard_state.commit = hard_state.commit.max(*index);

    let state = RaftHardState {
        term: hard_state.term.0,
        vote: hard_state.vote.0,
        commit: hard_state.commit.0,
    };
    let mut log = GroupLog::new((*index, *term), (state, membership.clone()));
    restore_entries(&mut log, replica)?;
    let last = log.last();
    if hard_state.commit > last {
        return Err(Fence::CommitBeyondLog { commit: hard_state.commit, last });
    }
    let own = hard_state.term;
    if own.0.max(last.0) > NUMBER_MAX {
        return Err(Fence::Numbers { term: own, index: last });
    }
    if let Some(term) = log.term_of(last).filter(|term| *term > own) {
        return Err(Fence::TermAhead { index: last, term, own });
    }
    Ok(Recovered { log, hard_state, membership, membership_index, applied: *index })
}

fn restore_entries(log: &mut GroupLog, replica: &RecoveredReplica) -> Result<(), Fence> {
    let checkpoint = log.last();
    for found in replica.entries.iter().filter(|found| found.index > checkpoint) {
        let expected = log.last().next();
        if found.index != expected {
            return Err(Fence::Gap { expected, found: found.index });
        }
        if log.term_of(log.last()).is_some_and(|term| found.term < term) {
            return Err(Fence::TermFell { index: found.index, term: found.term });
        }
        let staged = staging::staged_entry(found);
        if found.pointer && staged.is_none() {
            return Err(Fence::Pointer(found.index));
        }
        let skip = staged.map_or(0, |_| POINTER_BYTES);
        let own = found.prefix.slice(skip..);
        let (kind, descriptor) = entry::decode(&own).ok_or(Fence::Entry(found.index))?;
        let prefix = own.slice(DESCRIPTOR_BYTES..);
        let is_whole = || {
            prefix.len() == descriptor.length as usize
                && ConfChangeV2::decode(prefix.clone()).is_ok()
        };
        if kind == EntryKind::Membership && !is_whole() {
            return Err(Fence::Entry(found.index));
        }
        log.restore(Slot {
            term: found.term,
            kind,
            descriptor,
            placed: Some(Placed { frame: FrameNumber(0), position: 0, location: found.location }),
            payload: SlotPayload::Logged { prefix },
            pointer: staged.map(|(pointer, _)| pointer),
            staged: None,
        });
    }
    Ok(())
}

fn newest_membership(
    replica: &RecoveredReplica,
    head: &crate::RaftHead,
) -> Result<(Index, ConfState), Fence> {
    match &replica.membership {
        Some((index, _, body)) if *index > head.membership_index => {
            let membership =
                ConfState::decode(body.clone()).map_err(|_| Fence::Membership(*index))?;
            Ok((*index, membership))
        }
        _ => Ok((head.membership_index, head.membership.clone())),
    }
}

/// Whether a group can have this membership: there are voters, nobody is named twice, and what
/// belongs to a joint configuration stands in one.
fn is_sound(membership: &ConfState) -> bool {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = membership;
    let set = |ids: &[u64]| {
        let set: BTreeSet<u64> = ids.iter().copied().filter(|id| *id != 0).collect();
        (set.len() == ids.len()).then_some(set)
    };
    let all = (set(voters), set(learners), set(voters_outgoing), set(learners_next));
    let (Some(voters), Some(learners), Some(outgoing), Some(next)) = all else { return false };
    let is_joint = !outgoing.is_empty();
    !voters.is_empty()
        && learners.is_disjoint(&voters)
        && learners.is_disjoint(&outgoing)
        && next.is_subset(&outgoing)
        && next.is_disjoint(&voters)
        && (is_joint || !auto_leave)
}

/// Both were true when they were written: the higher term knows its vote, and within one term a
/// vote is given once and stands.
fn merge(left: HardState, right: HardState) -> HardState {
    let (newer, older) = if left.term >= right.term { (left, right) } else { (right, left) };
    let same_term = newer.term == older.term;
    HardState {
        term: newer.term,
        vote: if same_term { newer.vote.max(older.vote) } else { newer.vote },
        commit: newer.commit.max(older.commit),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use wal::{FileSequence, Location, RecoveredEntry, ReplicaId};

    use super::*;
    use crate::{Descriptor, RaftHead};

    fn state(term: u64, vote: u64, commit: u64) -> HardState {
        HardState { term: Term(term), vote: ReplicaId(vote), commit: Index(commit) }
    }

    fn found(index: u64, term: u64) -> RecoveredEntry {
        let prefix = entry::encode(EntryKind::Data, &Descriptor::default());
        RecoveredEntry {
            index: Index(index),
            term: Term(term),
            prefix: Bytes::copy_from_slice(&prefix),
            location: Location { file: FileSequence(1), position: 0, length: 32 },
            pointer: false,
        }
    }

    fn replica(entries: Vec<RecoveredEntry>) -> RecoveredReplica {
        let head = RaftHead {
            hard_state: state(6, 0, 5),
            membership_index: Index(5),
            membership: ConfState::from((vec![1], vec![])),
        };
        RecoveredReplica {
            checkpoint: Some((Index(5), Term(5), head.encode().into())),
            entries,
            ..RecoveredReplica::default()
        }
    }

    fn fence(replica: &RecoveredReplica) -> Fence {
        recover(replica).err().expect("the replica is fenced")
    }

    #[test]
    fn entries_at_or_below_the_checkpoint_are_dropped() {
        let recovered = recover(&replica(vec![found(4, 4), found(5, 5), found(6, 6)]));
        let recovered = recovered.unwrap_or_else(|fence| panic!("{fence}"));
        assert_eq!((recovered.log.first(), recovered.log.last()), (Index(6), Index(6)));
        assert_eq!(recovered.applied, Index(5));
    }

    #[test]
    fn hard_state_is_the_newer_of_the_record_and_the_checkpoint() {
        assert_eq!(merge(state(5, 1, 9), state(6, 0, 7)), state(6, 0, 9));
        assert_eq!(merge(state(6, 0, 9), state(6, 2, 7)), state(6, 2, 9));
        assert_eq!(merge(state(6, 2, 7), state(6, 0, 9)), state(6, 2, 9));
    }

    #[test]
    fn what_may_have_lost_log_is_fenced() {
        let mut damaged = replica(vec![]);
        damaged.damaged = Some(Damage::MissingFile { file: FileSequence(3) });
        assert!(matches!(fence(&damaged), Fence::Damaged(_)));

        let gap = Fence::Gap { expected: Index(6), found: Index(7) };
        assert_eq!(fence(&replica(vec![found(7, 6)])), gap);
        let fell = Fence::TermFell { index: Index(7), term: Term(5) };
        assert_eq!(fence(&replica(vec![found(6, 6), found(7, 5)])), fell);

        let ahead = Fence::TermAhead { index: Index(6), term: Term(7), own: Term(6) };
        assert_eq!(fence(&replica(vec![found(6, 7)])), ahead);

        let mut beyond = replica(vec![found(6, 6)]);
        beyond.hard_state = state(6, 1, 7);
        let expected = Fence::CommitBeyondLog { commit: Index(7), last: Index(6) };
        assert_eq!(fence(&beyond), expected);

        let mut garbled = replica(vec![found(6, 6)]);
        garbled.entries[0].prefix = Bytes::from_static(&[9; 32]);
        assert_eq!(fence(&garbled), Fence::Entry(Index(6)));
        garbled.entries[0].pointer = true;
        assert_eq!(fence(&garbled), Fence::Pointer(Index(6)));
        garbled.entries[0].prefix = Bytes::from_static(&[9; 16]);
        assert_eq!(fence(&garbled), Fence::Pointer(Index(6)));

        let mut headless = replica(vec![]);
        headless.checkpoint = None;
        assert_eq!(fence(&headless), Fence::NoCheckpoint);
    }

    #[test]
    fn the_newer_membership_stands() {
        let mut both = replica(vec![found(6, 6)]);
        let newer = ConfState::from((vec![1, 2], vec![]));
        both.membership = Some((Index(6), Term(6), newer.encode_to_vec().into()));
        let recovered = recover(&both).unwrap_or_else(|fence| panic!("{fence}"));
        assert_eq!((recovered.membership_index, recovered.membership), (Index(6), newer));
        both.membership = Some((Index(6), Term(6), Bytes::from_static(&[0xff])));
        assert_eq!(fence(&both), Fence::Membership(Index(6)));
    }

    #[test]
    fn a_membership_that_no_group_can_have_is_fenced() {
        let joint = ConfState {
            voters: vec![1, 2],
            learners: vec![4],
            voters_outgoing: vec![1, 3],
            learners_next: vec![3],
            auto_leave: true,
        };
        let fenced = |membership: &ConfState| {
            let mut replica = replica(vec![]);
            replica.membership = Some((Index(6), Term(6), membership.encode_to_vec().into()));
            recover(&replica).err()
        };
        assert_eq!(fenced(&joint), None);
        for nonsense in [
            ConfState::default(),
            ConfState::from((vec![0], vec![])),
            ConfState::from((vec![1, 1], vec![])),
            ConfState::from((vec![1], vec![1])),
            ConfState { auto_leave: true, ..ConfState::from((vec![1], vec![])) },
            ConfState { learners_next: vec![2], ..joint.clone() },
            ConfState { learners: vec![3], ..joint.clone() },
        ] {
            let expected = Some(Fence::Membership(Index(6)));
            assert_eq!(fenced(&nonsense), expected, "{nonsense:?}");
        }
    }

    #[test]
    fn entries_and_numbers_that_raft_cannot_take_are_fenced() {
        let descriptor = Descriptor { length: 1, ..Descriptor::default() };
        let mut change = found(6, 6);
        let mut prefix = entry::encode(EntryKind::Membership, &descriptor).to_vec();
        prefix.push(0xff);
        change.prefix = prefix.into();
        assert_eq!(fence(&replica(vec![change])), Fence::Entry(Index(6)));

        let mut endless = replica(vec![]);
        endless.hard_state = state(u64::MAX, 0, 5);
        let numbers = Fence::Numbers { term: Term(u64::MAX), index: Index(5) };
        assert_eq!(fence(&endless), numbers);
    }
}
