//! The fixed 61-byte header of a Kafka record batch (magic 2), as far as a log needs it: where a
//! batch ends, which offsets and times it covers, and whether its bytes are whole.
//!
//! It never looks at records; finding a record by time is the caller's (`RecordSearch`), because
//! it may have to decompress. Pure; any shard. Layout: Kafka's message format, KIP-98; big endian.

use super::types::Offset;

/// Bytes of a batch before its records.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Base offset and length: the 12 bytes that the length field does not count.
pub const BATCH_PREFIX_BYTES: usize = 12;
/// The only format that is stored.
pub const BATCH_MAGIC: u8 = 2;
/// Where the part of a batch begins that its checksum covers.
const CHECKED_FROM: usize = 21;

/// What the log reads of a batch header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHead {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Whole length in bytes, the 12 bytes of offset and length included.
    pub length: u32,
    /// Leader epoch stamped at the append.
    pub epoch: i32,
    /// crc32c of everything from the attributes on.
    pub crc: u32,
    /// Offset of the last record less the base offset.
    pub last_offset_delta: u32,
    /// Largest timestamp in milliseconds; -1 when the batch has none.
    pub max_timestamp: i64,
}

/// Why bytes at a batch boundary are not the batch that should be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchFault {
    /// Fewer bytes than the header or the length asks for.
    #[error("cut short")]
    Short,
    /// Another magic than 2.
    #[error("magic {0}")]
    Magic(u8),
    /// A length or a count that no batch has.
    #[error("nonsense length or count")]
    Length,
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
    /// The base offset is not the one that follows the batch before.
    #[error("base offset {found} where {expected} is due")]
    BaseOffset {
        /// As stored.
        found: i64,
        /// By the chain.
        expected: i64,
    },
    /// The leader epoch is not the one of the epoch history.
    #[error("leader epoch {found} where the history says {expected}")]
    Epoch {
        /// As stored.
        found: i32,
        /// By the history.
        expected: i32,
    },
}

impl BatchHead {
    /// Reads a header; the batch itself may reach beyond `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<BatchHead, BatchFault> {
        let Some(head) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(BatchFault::Short);
        };
        if head[16] != BATCH_MAGIC {
            return Err(BatchFault::Magic(head[16]));
        }
        let length = i64::from(int(head, 8)) + BATCH_PREFIX_BYTES as i64;
        let last_offset_delta = int(head, 23);
        if length < BATCH_HEADER_BYTES as i64 || last_offset_delta < 0 {
            return Err(BatchFault::Length);
        }
        let base_offset = long(head, 0);
        if base_offset < 0 || base_offset.checked_add(i64::from(last_offset_delta) + 1).is_none() {
            return Err(BatchFault::Length);
        }
        Ok(BatchHead {
            base_offset: Offset(base_offset),
            length: u32::try_from(length).map_err(|_| BatchFault::Length)?,
            epoch: int(head, 12),
            crc: int(head, 17) as u32,
            last_offset_delta: last_offset_delta as u32,
            max_timestamp: long(head, 35),
        })
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        Offset(self.base_offset.0 + i64::from(self.last_offset_delta) + 1)
    }

    /// Checks that `bytes`, the whole batch, has the checksum of its header.
    pub fn verify_crc(&self, bytes: &[u8]) -> Result<(), BatchFault> {
        if bytes.len() != self.length as usize {
            return Err(BatchFault::Short);
        }
        if crc32c::crc32c(&bytes[CHECKED_FROM..]) == self.crc {
            Ok(())
        } else {
            Err(BatchFault::Checksum)
        }
    }
}

fn int(head: &[u8; BATCH_HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

fn long(head: &[u8; BATCH_HEADER_BYTES], at: usize) -> i64 {
    i64::from(int(head, at)) << 32 | i64::from(int(head, at + 4) as u32)
}

#[cfg(test)]
pub(super) mod testing {
    //! Batches for tests: one call makes a valid one, sealed with its checksum.
    use super::*;
    use bytes::Bytes;

    /// A batch of `records` records that all have the time `timestamp`, with `payload` bytes of
    /// opaque content.
    pub fn batch(base: i64, records: u32, epoch: i32, timestamp: i64, payload: &[u8]) -> Bytes {
        let length = BATCH_HEADER_BYTES + payload.len();
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&base.to_be_bytes());
        out.extend_from_slice(&((length - BATCH_PREFIX_BYTES) as i32).to_be_bytes());
        out.extend_from_slice(&epoch.to_be_bytes());
        out.push(BATCH_MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&0i16.to_be_bytes());
        out.extend_from_slice(&(records as i32 - 1).to_be_bytes());
        out.extend_from_slice(&timestamp.to_be_bytes());
        out.extend_from_slice(&timestamp.to_be_bytes());
        out.extend_from_slice(&(-1i64).to_be_bytes());
        out.extend_from_slice(&(-1i16).to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
        out.extend_from_slice(&(records as i32).to_be_bytes());
        out.extend_from_slice(payload);
        let crc = crc32c::crc32c(&out[CHECKED_FROM..]);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_and_its_checksum_holds() {
        let bytes = testing::batch(1_000_000_000_007, 3, 9, 1_700_000_000_123, b"payload");
        let head = BatchHead::parse(&bytes).unwrap();
        assert_eq!(head.base_offset, Offset(1_000_000_000_007));
        assert_eq!(head.next_offset(), Offset(1_000_000_000_010));
        assert_eq!((head.epoch, head.length as usize), (9, bytes.len()));
        assert_eq!(head.max_timestamp, 1_700_000_000_123);
        assert_eq!(head.verify_crc(&bytes), Ok(()));
        let mut torn = bytes.to_vec();
        *torn.last_mut().unwrap() ^= 1;
        assert_eq!(head.verify_crc(&torn), Err(BatchFault::Checksum));
        assert_eq!(head.verify_crc(&bytes[1..]), Err(BatchFault::Short));
    }

    #[test]
    fn nonsense_is_refused_without_a_panic() {
        let good = testing::batch(5, 1, 1, 1, b"x").to_vec();
        assert_eq!(BatchHead::parse(&good[..60]), Err(BatchFault::Short));
        for (at, value, fault) in [
            (16, 1, BatchFault::Magic(1)),
            (8, 0x80, BatchFault::Length),
            (23, 0xff, BatchFault::Length),
            (0, 0xff, BatchFault::Length),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(BatchHead::parse(&bad), Err(fault), "byte {at}");
        }
        assert!(matches!(BatchHead::parse(&[0; 61]), Err(BatchFault::Magic(0))));
    }
}
