//! Raft's own part of a group checkpoint.
//!
//! The body of a checkpoint record is this head, then the machine's bytes. A head holds term, vote,
//! commit and membership as they were when the checkpoint was written, so that a group can be
//! recovered from its newest checkpoint alone. Pure; format 1:
//!
//! | position | bytes | field                                   |
//! |----------|-------|-----------------------------------------|
//! | 0        | 1     | format: 1                               |
//! | 1        | 3     | 0                                       |
//! | 4        | 4     | length of the membership, little-endian |
//! | 8        | 8     | term                                    |
//! | 16       | 8     | vote                                    |
//! | 24       | 8     | commit                                  |
//! | 32       | 8     | index as of which the membership stands |
//! | 40       | n     | membership (`eraftpb.ConfState`)        |

use bytes::Bytes;
use prost::Message as _;
use raft_proto::eraftpb::ConfState;
use wal::{HardState, Index, ReplicaId, Term};

const FORMAT: u8 = 1;
const FIXED_BYTES: usize = 40;

/// Raft's part of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct RaftHead {
    pub hard_state: HardState,
    /// The entry that made the membership; it may lie above the checkpoint's own index.
    pub membership_index: Index,
    pub membership: ConfState,
}

/// A checkpoint's body that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Fewer bytes than the head says, or than any head has.
    #[error("the checkpoint ends after {0} bytes")]
    Short(usize),
    /// Written by a later version of this program.
    #[error("the checkpoint has format {0}, this version knows {FORMAT}")]
    Format(u8),
    /// The membership is no `ConfState`.
    #[error("the checkpoint's membership cannot be decoded")]
    Membership,
}

impl RaftHead {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let membership = self.membership.encode_to_vec();
        let mut bytes = Vec::with_capacity(FIXED_BYTES + membership.len());
        bytes.extend_from_slice(&[FORMAT, 0, 0, 0]);
        bytes.extend_from_slice(&(membership.len() as u32).to_le_bytes());
        let HardState { term, vote, commit } = self.hard_state;
        for number in [term.0, vote.0, commit.0, self.membership_index.0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&membership);
        bytes
    }
}

/// Takes the body of a checkpoint record apart: Raft's head, and the machine's bytes.
pub fn decode_checkpoint(body: &Bytes) -> Result<(RaftHead, Bytes), HeadError> {
    let short = || HeadError::Short(body.len());
    let fixed: &[u8; FIXED_BYTES] =
        body.get(..FIXED_BYTES).and_then(|fixed| fixed.try_into().ok()).ok_or_else(short)?;
    if fixed[0] != FORMAT {
        return Err(HeadError::Format(fixed[0]));
    }
    let membership_length = u32::from_le_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]) as usize;
    let end = FIXED_BYTES.checked_add(membership_length).ok_or_else(short)?;
    let membership = body.get(FIXED_BYTES..end).ok_or_else(short)?;
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| fixed[at + byte]));
    let head = RaftHead {
        hard_state: HardState {
            term: Term(number(8)),
            vote: ReplicaId(number(16)),
            commit: Index(number(24)),
        },
        membership_index: Index(number(32)),
        membership: ConfState::decode(membership).map_err(|_| HeadError::Membership)?,
    };
    Ok((head, body.slice(end..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> RaftHead {
        RaftHead {
            hard_state: HardState { term: Term(7), vote: ReplicaId(3), commit: Index(0x0102) },
            membership_index: Index(5),
            membership: ConfState::from((vec![3, 4], vec![])),
        }
    }

    #[test]
    fn the_layout_is_pinned() {
        let mut bytes = vec![1, 0, 0, 0, 4, 0, 0, 0];
        bytes.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([2, 1, 0, 0, 0, 0, 0, 0]);
        bytes.extend([5, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([0x0a, 2, 3, 4]);
        assert_eq!(head().encode(), bytes);
        bytes.extend(b"application");
        let (decoded, application) = decode_checkpoint(&bytes.into()).expect("decodes");
        assert_eq!((decoded, &application[..]), (head(), &b"application"[..]));
    }

    #[test]
    fn every_cut_and_a_later_format_are_refused() {
        let bytes = head().encode();
        for length in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..length]);
            assert_eq!(decode_checkpoint(&cut), Err(HeadError::Short(length)));
        }
        let mut later = bytes.clone();
        later[0] = 2;
        assert_eq!(decode_checkpoint(&later.into()), Err(HeadError::Format(2)));
        let mut lying = bytes;
        lying[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode_checkpoint(&lying.into()), Err(HeadError::Short(_))));
    }
}
