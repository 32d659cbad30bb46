//! An entry as raft-rs and the log see it: a descriptor of 32 bytes, the payload beside it.
//!
//! Owns: the kinds of entries, the descriptor's layout, and the body of an append record in the
//! write-ahead log: descriptor, then payload, verbatim. Pure values, on any shard.
//!
//! Descriptor, little-endian (pinned by the tests below):
//!
//! | position | bytes | field                                                       |
//! |----------|-------|-------------------------------------------------------------|
//! | 0        | 1     | kind: 0 empty, 1 data, 2 control, 3 membership              |
//! | 1        | 1     | subkind of a control entry, else 0                          |
//! | 2        | 2     | 0                                                           |
//! | 4        | 4     | records                                                     |
//! | 8        | 8     | base offset                                                 |
//! | 16       | 8     | max timestamp in ms                                         |
//! | 24       | 4     | length of the payload in bytes                              |
//! | 28       | 4     | crc of the payload, as whoever proposed it defines it       |

use bytes::Bytes;
use wal::PREFIX_BYTES;

/// The size of an encoded descriptor.
pub const DESCRIPTOR_BYTES: usize = 32;

/// The longest encoded membership change, so that recovery, which
/// keeps only an entry's beginning in memory, need not read it back.
pub(crate) const MEMBERSHIP_MAX_BYTES: usize = PREFIX_BYTES - DESCRIPTOR_BYTES;

/// What an entry is. Only data takes offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Raft's own: the first entry of a leader's term.
    Empty,
    /// Records.
    Data,
    /// The machine's own, such as a log start; takes an index and no offset.
    Control(u8),
    /// A membership change, encoded as `ConfChangeV2`.
    Membership,
}

/// What raft-rs knows of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Descriptor {
    /// The Kafka offset of the first record.
    pub base_offset: i64,
    /// The number of records, which is the number of offsets taken.
    pub records: u32,
    /// The payload's length in bytes; set by the driver from the payload itself.
    pub length: u32,
    pub crc: u32,
    pub max_timestamp: i64,
}

/// An entry to be appended by the leader. The payload's slices are copied once, into the log's
/// frame, and until that frame is durable they are held.
#[derive(Debug, Clone, Copy)]
pub struct Proposal<'a> {
    pub kind: EntryKind,
    pub descriptor: Descriptor,
    pub payload: &'a [Bytes],
}

/// The payload within the body of an append record, as `wal::Wal::read` gives it for a location.
///
/// # Panics
/// If the body is shorter than a descriptor: the log has checked its checksum, so that is a bug.
pub fn payload_of(body: &Bytes) -> Bytes {
    body.slice(DESCRIPTOR_BYTES..)
}

/// Kind and payload of an entry, from the body of its append record; `None` if it is no entry.
pub fn entry_of(body: &Bytes) -> Option<(EntryKind, Bytes)> {
    let (kind, _) = decode(body)?;
    Some((kind, payload_of(body)))
}

/// Encodes kind and descriptor.
pub(crate) fn encode(kind: EntryKind, descriptor: &Descriptor) -> [u8; DESCRIPTOR_BYTES] {
    let (code, subkind) = match kind {
        EntryKind::Empty => (0, 0),
        EntryKind::Data => (1, 0),
        EntryKind::Control(subkind) => (2, subkind),
        EntryKind::Membership => (3, 0),
    };
    let mut bytes = [0; DESCRIPTOR_BYTES];
    bytes[0] = code;
    bytes[1] = subkind;
    bytes[4..8].copy_from_slice(&descriptor.records.to_le_bytes());
    bytes[8..16].copy_from_slice(&descriptor.base_offset.to_le_bytes());
    bytes[16..24].copy_from_slice(&descriptor.max_timestamp.to_le_bytes());
    bytes[24..28].copy_from_slice(&descriptor.length.to_le_bytes());
    bytes[28..32].copy_from_slice(&descriptor.crc.to_le_bytes());
    bytes
}

/// Decodes what [`encode`] wrote; `None` if the bytes are too few or of no known kind.
pub(crate) fn decode(bytes: &[u8]) -> Option<(EntryKind, Descriptor)> {
    let bytes: &[u8; DESCRIPTOR_BYTES] = bytes.get(..DESCRIPTOR_BYTES)?.try_into().ok()?;
    let kind = match (bytes[0], bytes[1], bytes[2], bytes[3]) {
        (0, 0, 0, 0) => EntryKind::Empty,
        (1, 0, 0, 0) => EntryKind::Data,
        (2, subkind, 0, 0) => EntryKind::Control(subkind),
        (3, 0, 0, 0) => EntryKind::Membership,
        _ => return None,
    };
    let u32_at =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let descriptor = Descriptor {
        base_offset: u64_at(8) as i64,
        records: u32_at(4),
        length: u32_at(24),
        crc: u32_at(28),
        max_timestamp: u64_at(16) as i64,
    };
    Some((kind, descriptor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_layout_is_pinned() {
        let descriptor = Descriptor {
            base_offset: 0x0102_0304_0506_0708,
            records: 0x1112_1314,
            length: 0x2122_2324,
            crc: 0x3132_3334,
            max_timestamp: -2,
        };
        let bytes = encode(EntryKind::Control(9), &descriptor);
        #[rustfmt::skip]
        let expected = [
            2, 9, 0, 0, 0x14, 0x13, 0x12, 0x11,
            8, 7, 6, 5, 4, 3, 2, 1,
            0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0x24, 0x23, 0x22, 0x21, 0x34, 0x33, 0x32, 0x31,
        ];
        assert_eq!(bytes, expected);
        for kind in
            [EntryKind::Empty, EntryKind::Data, EntryKind::Control(7), EntryKind::Membership]
        {
            assert_eq!(decode(&encode(kind, &descriptor)), Some((kind, descriptor)));
        }
    }

    #[test]
    fn unknown_kinds_and_short_bytes_are_refused() {
        let bytes = encode(EntryKind::Data, &Descriptor::default());
        assert_eq!(decode(&bytes[..31]), None);
        for (position, value) in [(0, 4), (1, 1), (2, 1), (3, 1)] {
            let mut wrong = bytes;
            wrong[position] = value;
            assert_eq!(decode(&wrong), None);
        }
    }
}
