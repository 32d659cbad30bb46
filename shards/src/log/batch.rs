//! The header of a stored record batch, as far as a log needs it: where the batch ends, which
//! offsets and times it covers, and whether its bytes are whole. `net::batch` reads the fields.
//!
//! It never looks at records; finding a record by time is the caller's (`RecordSearch`), because
//! it may have to decompress. Pure; any shard.

use net::batch::{checksum, BatchError, BatchHeader};

use super::types::Offset;

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
    /// Largest timestamp in milliseconds, at least the base timestamp; -1 when there is none.
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
    Magic(i8),
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
    /// Its last record is not the segment's any more.
    #[error("goes on to offset {found} where its segment ends at {end}")]
    Beyond {
        /// The offset after its last record.
        found: i64,
        /// That after the last record of the segment.
        end: i64,
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
        let header = BatchHeader::parse(bytes).map_err(|error| match error {
            BatchError::OldMagic(magic) | BatchError::UnknownMagic(magic) => {
                BatchFault::Magic(magic)
            }
            BatchError::ImpossibleLength(_) => BatchFault::Length,
            _ => BatchFault::Short,
        })?;
        let last_offset_delta =
            u32::try_from(header.last_offset_delta).map_err(|_| BatchFault::Length)?;
        let next = header.base_offset.checked_add(i64::from(last_offset_delta) + 1);
        if header.base_offset < 0 || next.is_none() {
            return Err(BatchFault::Length);
        }
        Ok(BatchHead {
            base_offset: Offset(header.base_offset),
            length: u32::try_from(header.size_bytes()).map_err(|_| BatchFault::Length)?,
            epoch: header.partition_leader_epoch,
            crc: header.crc,
            last_offset_delta,
            max_timestamp: header.effective_max_timestamp(),
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
        if checksum(bytes) == self.crc {
            Ok(())
        } else {
            Err(BatchFault::Checksum)
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Batches for tests: one call makes a valid one, sealed with its checksum.
    use super::*;
    use bytes::Bytes;
    use net::batch::{HEADER_BYTES, LENGTH_PREFIX_BYTES};

    /// A batch of `records` records that all have the time `timestamp`, with `payload` bytes of
    /// opaque content.
    pub fn batch(base: i64, records: u32, epoch: i32, timestamp: i64, payload: &[u8]) -> Bytes {
        let length = HEADER_BYTES + payload.len();
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&base.to_be_bytes());
        out.extend_from_slice(&((length - LENGTH_PREFIX_BYTES) as i32).to_be_bytes());
        out.extend_from_slice(&epoch.to_be_bytes());
        out.push(2);
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
        let crc = checksum(&out);
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
        assert_eq!(BatchHead::parse(&[0; 61]), Err(BatchFault::Length));
    }
}
