//! Frames between replicas: a Raft message, and the payloads of its entries beside it.
//!
//! Owns: the byte layout and every check that needs nothing but the frame. What passes can be
//! stepped without a panic as far as its form goes; what depends on the receiver's log is checked
//! by the group. Assumes: a connection between nodes that has proved cluster and node.
//! Never does: I/O, or allocate by a number that the peer sent. Pure, on any shard.
//!
//! Frame, little-endian:
//!
//! | position | bytes | field                                                         |
//! |----------|-------|---------------------------------------------------------------|
//! | 0        | 4     | length of what follows                                        |
//! | 4        | 4     | format: 1                                                     |
//! | 8        | 8     | group                                                         |
//! | 16       | 8     | replica that sends                                            |
//! | 24       | 8     | replica that is meant                                         |
//! | 32       | 4     | length of the message                                         |
//! | 36       | n     | message (`eraftpb.Message`)                                   |
//! | 36 + n   | m     | payloads, one after the other; lengths are in the descriptors |
//!
//! Group and replicas stand before the message so that a frame can be routed to its shard without
//! being decoded; they must agree with the message.

use bytes::Bytes;
use prost::Message as _;
use raft_proto::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};
use wal::{GroupId, ReplicaId};

use crate::entry::{self, EntryKind};

const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 36;

/// The bytes before which the length of a frame is not known.
pub const LENGTH_BYTES: usize = 4;

/// A message that has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    pub group: GroupId,
    pub message: Message,
    /// One per entry; empty for entries without payload.
    pub payloads: Vec<Bytes>,
}

/// Where a frame is to go, read without decoding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub group: GroupId,
    pub from: ReplicaId,
    pub to: ReplicaId,
}

/// A frame that is refused; the connection that brought it is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    #[error("the frame has {0} bytes, too few for what it says")]
    Short(usize),
    #[error("the frame has {0} bytes more than its payloads")]
    Long(usize),
    #[error("the frame has format {0}, this version knows {FORMAT}")]
    Format(u32),
    #[error("the message cannot be decoded")]
    Message,
    /// Local to a node, or not spoken between ours.
    #[error("messages of kind {0} are not taken from peers")]
    Kind(i32),
    #[error("sender or receiver differ between frame and message")]
    Replica,
    /// Not following each other, of falling terms, or with data that is no descriptor.
    #[error("entry {0} of the message is malformed")]
    Entry(usize),
}

/// Encodes a frame as slices for a vectored send; payload slices are not copied. `payloads` has
/// one list of slices per entry.
///
/// # Panics
/// If a payload's length is not the one in its entry's descriptor.
pub fn encode(group: GroupId, message: &Message, payloads: &[Vec<Bytes>]) -> Vec<Bytes> {
    assert_eq!(message.entries.len(), payloads.len(), "one payload per entry");
    let mut payload_bytes = 0;
    for (entry, payload) in message.entries.iter().zip(payloads) {
        let length: usize = payload.iter().map(Bytes::len).sum();
        assert_eq!(Some(length), payload_length(entry).map(|length| length as usize));
        payload_bytes += length;
    }
    let message_bytes = message.encoded_len();
    let mut head = Vec::with_capacity(HEADER_BYTES + message_bytes);
    let length = HEADER_BYTES - LENGTH_BYTES + message_bytes + payload_bytes;
    let length = u32::try_from(length).expect("messages are split far below 4 GiB");
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&FORMAT.to_le_bytes());
    for number in [group.0, message.from, message.to] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.extend_from_slice(&(message_bytes as u32).to_le_bytes());
    head.extend_from_slice(&message.encode_to_vec());
    std::iter::once(head.into()).chain(payloads.iter().flatten().cloned()).collect()
}

/// The length of a whole frame, from its first bytes.
pub fn frame_bytes(start: [u8; LENGTH_BYTES]) -> usize {
    LENGTH_BYTES + u32::from_le_bytes(start) as usize
}

/// Reads the route of a whole frame.
pub fn route(frame: &[u8]) -> Result<Route, TransportError> {
    let header: &[u8; HEADER_BYTES] = frame
        .get(..HEADER_BYTES)
        .and_then(|header| header.try_into().ok())
        .ok_or(TransportError::Short(frame.len()))?;
    let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
    if u32_at(4) != FORMAT {
        return Err(TransportError::Format(u32_at(4)));
    }
    Ok(Route { group: GroupId(u64_at(8)), from: ReplicaId(u64_at(16)), to: ReplicaId(u64_at(24)) })
}

/// Decodes and checks a whole frame. Payloads are slices of it.
pub fn decode(frame: &Bytes) -> Result<Incoming, TransportError> {
    let Route { group, from, to } = route(frame)?;
    let short = || TransportError::Short(frame.len());
    let length_at =
        |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| frame[at + byte])) as usize;
    let declared = length_at(0) + LENGTH_BYTES;
    if declared != frame.len() {
        return Err(if declared > frame.len() {
            short()
        } else {
            TransportError::Long(frame.len() - declared)
        });
    }
    let end = HEADER_BYTES.checked_add(length_at(32)).filter(|end| *end <= frame.len());
    let end = end.ok_or_else(short)?;
    let message =
        Message::decode(frame.slice(HEADER_BYTES..end)).map_err(|_| TransportError::Message)?;
    check_message(&message)?;
    if (message.from, message.to) != (from.0, to.0) || from.0 == 0 || to.0 == 0 {
        return Err(TransportError::Replica);
    }
    let mut rest = frame.slice(end..);
    let mut payloads = Vec::with_capacity(message.entries.len());
    for (at, entry) in message.entries.iter().enumerate() {
        let length = payload_length(entry).ok_or(TransportError::Entry(at))? as usize;
        if length > rest.len() {
            return Err(short());
        }
        payloads.push(rest.split_to(length));
    }
    if !rest.is_empty() {
        return Err(TransportError::Long(rest.len()));
    }
    Ok(Incoming { group, message, payloads })
}

/// Splits an append whose payloads are together larger than `max_bytes` into several, each with one
/// entry at least. Other messages pass as they are.
pub(crate) fn split_append(mut message: Message, max_bytes: u64) -> Vec<Message> {
    let length = |entry: &Entry| u64::from(payload_length(entry).unwrap_or(0));
    if message.entries.iter().map(length).sum::<u64>() <= max_bytes {
        return vec![message];
    }
    let mut parts = Vec::new();
    let mut sum_bytes = 0;
    for entry in std::mem::take(&mut message.entries) {
        sum_bytes += length(&entry);
        if sum_bytes > max_bytes && !message.entries.is_empty() {
            let last = &message.entries[message.entries.len() - 1];
            let (index, log_term) = (last.index, last.term);
            let next = Message { entries: Vec::new(), index, log_term, ..message.clone() };
            parts.push(std::mem::replace(&mut message, next));
            sum_bytes = length(&entry);
        }
        message.entries.push(entry);
    }
    parts.push(message);
    parts
}

fn check_message(message: &Message) -> Result<(), TransportError> {
    let kind = MessageType::try_from(message.msg_type);
    let carries_entries = match kind {
        Ok(MessageType::MsgAppend) => true,
        Ok(
            MessageType::MsgAppendResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgTimeoutNow,
        ) => false,
        _ => return Err(TransportError::Kind(message.msg_type)),
    };
    if !carries_entries && !message.entries.is_empty() {
        return Err(TransportError::Entry(0));
    }
    // A message of term 0 is raft-rs' mark for a local one.
    if message.term == 0 || message.snapshot.is_some() {
        return Err(TransportError::Kind(message.msg_type));
    }
    let (mut index, mut term) = (message.index, message.log_term);
    for (at, entry) in message.entries.iter().enumerate() {
        let follows = index.checked_add(1) == Some(entry.index) && entry.term >= term;
        if !follows || entry.term > message.term || !entry.context.is_empty() {
            return Err(TransportError::Entry(at));
        }
        (index, term) = (entry.index, entry.term);
    }
    Ok(())
}

/// The length of the payload that travels beside an entry; `None` if the entry is malformed.
fn payload_length(entry: &Entry) -> Option<u32> {
    match EntryType::try_from(entry.entry_type).ok()? {
        EntryType::EntryConfChange => None,
        EntryType::EntryConfChangeV2 => {
            let whole = entry.data.len() <= entry::MEMBERSHIP_MAX_BYTES;
            (whole && ConfChangeV2::decode(entry.data.clone()).is_ok()).then_some(0)
        }
        EntryType::EntryNormal if entry.data.is_empty() => Some(0),
        EntryType::EntryNormal if entry.data.len() != entry::DESCRIPTOR_BYTES => None,
        EntryType::EntryNormal => match entry::decode(&entry.data)? {
            (EntryKind::Data | EntryKind::Control(_), descriptor) => Some(descriptor.length),
            (EntryKind::Empty | EntryKind::Membership, _) => None,
        },
    }
}
