//! Record batches (magic 2): the 61-byte header, its checks and its rewriting.
//!
//! Owns everything about a batch that needs no broker state: parsing, the order of checks a
//! produced batch goes through (kafka.md section 5) with the Kafka code of each, the checksum,
//! and the fields a broker may rewrite. Assumes a batch lies in memory as one slice. Never
//! decompresses, never touches a record: that is `records.rs`. Pure; on any shard.
//!
//! Layout, big endian: 0 base offset, 8 length, 12 leader epoch, 16 magic, 17 crc32c of all that
//! follows it, 21 attributes, 23 last offset delta, 27 base timestamp, 35 max timestamp,
//! 43 producer id, 51 producer epoch, 53 base sequence, 57 record count, 61 records.

use bytes::Bytes;

use crate::compress::{Codec, DECOMPRESSED_MAX_BYTES};
use crate::error::ErrorCode;
use crate::reader::{Malformed, Reader};

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length, which the length field does not count.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// Up to and with the magic: what must be there before a batch can be told from garbage.
const MAGIC_END: usize = 17;
/// Where the checksummed part starts.
const CRC_START: usize = 21;
/// A record without key, value and headers: seven fields of one byte.
const RECORD_BYTES_MIN: usize = 7;
/// Smallest length field of any magic (Kafka's oldest record overhead).
const LENGTH_MIN: i32 = 14;

const _: () = assert!(MAGIC_END < CRC_START && CRC_START < HEADER_BYTES);

const COMPRESSION_MASK: i16 = 0b111;
const LOG_APPEND_TIME_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
const DELETE_HORIZON_BIT: i16 = 1 << 6;

/// The header of a batch of magic 2, all fields as they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes after this field; the whole batch has 12 more.
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    /// -1 without idempotence.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

/// Which clock the timestamps of a batch come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`. Checks the length field and the magic only.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let mut reader = Reader::new(bytes);
        let base_offset = reader.i64()?;
        let batch_length = reader.i32()?;
        let partition_leader_epoch = reader.i32()?;
        let magic = reader.i8()?;
        if batch_length < LENGTH_MIN {
            return Err(BatchError::ImpossibleLength(batch_length));
        }
        match magic {
            0 | 1 => return Err(BatchError::OldMagic(magic)),
            2 => {}
            _ => return Err(BatchError::UnknownMagic(magic)),
        }
        if (batch_length as usize) < HEADER_BYTES - LENGTH_PREFIX_BYTES {
            return Err(BatchError::ImpossibleLength(batch_length));
        }
        Ok(BatchHeader {
            base_offset,
            batch_length,
            partition_leader_epoch,
            crc: reader.u32()?,
            attributes: reader.i16()?,
            last_offset_delta: reader.i32()?,
            base_timestamp: reader.i64()?,
            max_timestamp: reader.i64()?,
            producer_id: reader.i64()?,
            producer_epoch: reader.i16()?,
            base_sequence: reader.i32()?,
            record_count: reader.i32()?,
        })
    }

    /// The 61 bytes of this header.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        out[16] = 2;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        out
    }

    /// Bytes of the whole batch. `parse` has made sure that this is at least 61.
    pub fn size_bytes(&self) -> usize {
        LENGTH_PREFIX_BYTES + self.batch_length as usize
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// The base offset of the batch after this one.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    /// The sequence of the last record; sequences go on at 0 after 2147483647.
    pub fn last_sequence(&self) -> i32 {
        sequence_after(self.base_sequence, self.last_offset_delta)
    }

    /// Nothing when the codec bits mean nothing.
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_bits((self.attributes & COMPRESSION_MASK) as u8)
    }

    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes & LOG_APPEND_TIME_BIT {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the base timestamp is a delete horizon, set by compaction (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON_BIT != 0
    }

    /// Whether an idempotent or transactional producer wrote it.
    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    /// The largest timestamp, at least the base: some producers leave the maximum at -1.
    pub fn effective_max_timestamp(&self) -> i64 {
        self.max_timestamp.max(self.base_timestamp)
    }

    /// Stamps what every append sets. Offset and epoch lie before the checksummed part.
    pub fn place(&mut self, base_offset: i64, leader_epoch: i32) {
        self.base_offset = base_offset;
        self.partition_leader_epoch = leader_epoch;
    }

    /// Turns the batch into one of LogAppendTime, with a new checksum.
    pub fn set_log_append_time(&mut self, now_ms: i64) {
        self.change(|header| {
            header.attributes |= LOG_APPEND_TIME_BIT;
            header.max_timestamp = now_ms;
        });
    }

    /// Turns the batch into one of CreateTime whose largest time is `max_timestamp`, with a new
    /// checksum where that changes anything.
    pub fn set_create_time(&mut self, max_timestamp: i64) {
        if self.timestamp_type() == TimestampType::LogAppendTime {
            self.change(|header| header.attributes &= !LOG_APPEND_TIME_BIT);
        }
        let max_timestamp = max_timestamp.max(-1);
        if self.max_timestamp != max_timestamp {
            self.change(|header| header.max_timestamp = max_timestamp);
        }
    }

    /// Changes checksummed header fields and derives the new checksum from the old one, without
    /// a pass over the records: crc32c(head || body) is linear in crc32c(head).
    fn change(&mut self, edit: impl FnOnce(&mut BatchHeader)) {
        let of_head = |header: &BatchHeader| crc32c::crc32c(&header.encode()[CRC_START..]);
        let before = of_head(self);
        edit(self);
        let body_bytes = (self.size_bytes() - HEADER_BYTES) as u64;
        self.crc ^= crc_after_bytes(before ^ of_head(self), body_bytes);
    }

    pub(crate) fn set_codec(&mut self, codec: Codec) {
        self.attributes = (self.attributes & !COMPRESSION_MASK) | codec as i16;
    }
}

/// The sequence `delta` records after `base`.
pub fn sequence_after(base: i32, delta: i32) -> i32 {
    ((i64::from(base) + i64::from(delta)) & i64::from(i32::MAX)) as i32
}

/// CRC-32C's polynomial, bit-reversed: bit 31 is x^0.
const CRC_POLYNOMIAL: u32 = 0x82f6_3b78;

/// x^(2^n) modulo the polynomial, for n = 0 and up.
const CRC_SQUARES: [u32; 64] = {
    let mut squares = [1 << 30; 64];
    let mut n = 1;
    while n < 64 {
        squares[n] = crc_product(squares[n - 1], squares[n - 1]);
        n += 1;
    }
    squares
};

/// The product of two polynomials over GF(2), modulo CRC-32C's.
const fn crc_product(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        let carry = if b & 1 != 0 { CRC_POLYNOMIAL } else { 0 };
        b = (b >> 1) ^ carry;
        bit >>= 1;
    }
    product
}

/// What a difference of two checksums becomes when the same `bytes` bytes follow both messages:
/// its product with x^(8 * bytes). Some 0.5 us; `crc32c_combine` of the crate takes 13.
fn crc_after_bytes(difference: u32, bytes: u64) -> u32 {
    let mut shifted = difference;
    let mut rest = bytes;
    for square in &CRC_SQUARES[3..] {
        if rest == 0 {
            break;
        }
        if rest & 1 != 0 {
            shifted = crc_product(*square, shifted);
        }
        rest >>= 1;
    }
    shifted
}

/// The checksum of a whole batch, as its header should say.
pub fn checksum(batch: &[u8]) -> u32 {
    crc32c::crc32c(batch.get(CRC_START..).unwrap_or_default())
}

/// Why a batch is refused. Messages are for the client's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("the partition's data has no record batch")]
    NoBatch,
    #[error("the record batch is cut short")]
    Truncated,
    #[error("Produce requests with version 3 and above must contain exactly one record batch")]
    MoreThanOneBatch,
    #[error("record format {0} is not accepted, only 2 is")]
    OldMagic(i8),
    #[error("unknown record format {0}")]
    UnknownMagic(i8),
    #[error("impossible length {0} in a record batch")]
    ImpossibleLength(i32),
    #[error("Produce requests below version 7 must not use ZStandard compression")]
    ZstdTooEarly,
    #[error("unknown compression codec {0}")]
    UnknownCodec(u8),
    #[error("the record batch's checksum is {stored:#010x}, its bytes give {computed:#010x}")]
    WrongCrc { stored: u32, computed: u32 },
    #[error("the record batch has {size_bytes} bytes, the topic takes {max_message_bytes}")]
    TooLarge { size_bytes: usize, max_message_bytes: i32 },
    #[error("the record batch has {size_bytes} bytes, a segment of the topic {segment_bytes}")]
    LargerThanSegment { size_bytes: usize, segment_bytes: i32 },
    #[error("the base offset of a record batch from a client must be 0, not {0}")]
    BaseOffset(i64),
    #[error("{record_count} records do not fit a last offset delta of {last_offset_delta}")]
    RecordCount { record_count: i32, last_offset_delta: i32 },
    #[error("clients are not allowed to write control records")]
    Control,
    #[error("sequence {base_sequence} with producer id {producer_id}")]
    Sequence { producer_id: i64, base_sequence: i32 },
    #[error("{record_count} records do not fit into {body_bytes} bytes")]
    NoRoomForRecords { record_count: i32, body_bytes: usize },
}

impl BatchError {
    /// The code a Produce answer carries for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            BatchError::UnknownMagic(_)
            | BatchError::ImpossibleLength(_)
            | BatchError::WrongCrc { .. } => ErrorCode::CorruptMessage,
            BatchError::ZstdTooEarly | BatchError::UnknownCodec(_) => {
                ErrorCode::UnsupportedCompressionType
            }
            BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            BatchError::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            BatchError::NoBatch
            | BatchError::Truncated
            | BatchError::MoreThanOneBatch
            | BatchError::OldMagic(_)
            | BatchError::BaseOffset(_)
            | BatchError::RecordCount { .. }
            | BatchError::NoRoomForRecords { .. }
            | BatchError::Control
            | BatchError::Sequence { .. } => ErrorCode::InvalidRecord,
        }
    }

    /// Whether Kafka finds it before it looks at the log: such answers have log start -1.
    pub fn hides_log_start(&self) -> bool {
        !matches!(
            self,
            BatchError::BaseOffset(_)
                | BatchError::RecordCount { .. }
                | BatchError::NoRoomForRecords { .. }
                | BatchError::Control
                | BatchError::Sequence { .. }
        )
    }
}

impl From<Malformed> for BatchError {
    fn from(_: Malformed) -> BatchError {
        BatchError::Truncated
    }
}

/// One whole batch and its parsed header; `bytes.len() == header.size_bytes()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub header: BatchHeader,
    pub bytes: Bytes,
}

impl Batch {
    /// Takes one batch off the front of `bytes`, or says why it cannot.
    pub fn split_from(bytes: &mut Bytes) -> Result<Batch, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        if header.size_bytes() > bytes.len() {
            return Err(BatchError::Truncated);
        }
        Ok(Batch { header, bytes: bytes.split_to(header.size_bytes()) })
    }

    /// Check 3 of a Produce: exactly one batch of magic 2, in a codec this version may use.
    /// The steps below come after it, in order; the broker's own checks stand between them.
    pub fn from_produce(records: Option<&Bytes>, version: i16) -> Result<Batch, BatchError> {
        let mut rest = match records {
            None => return Err(BatchError::NoBatch),
            Some(records) if records.is_empty() => return Err(BatchError::NoBatch),
            Some(records) => records.clone(),
        };
        let batch = Batch::split_from(&mut rest)?;
        check_tail(&rest)?;
        match batch.header.codec() {
            Some(Codec::Zstd) if version < 7 => Err(BatchError::ZstdTooEarly),
            Some(_) => Ok(batch),
            None => {
                Err(BatchError::UnknownCodec((batch.header.attributes & COMPRESSION_MASK) as u8))
            }
        }
    }

    /// Check 4: sizes, then the checksum. The one pass over the bytes.
    pub fn check_integrity(
        &self,
        max_message_bytes: i32,
        segment_bytes: i32,
    ) -> Result<(), BatchError> {
        let size_bytes = self.bytes.len();
        if size_bytes as i64 > i64::from(max_message_bytes) {
            return Err(BatchError::TooLarge { size_bytes, max_message_bytes });
        }
        self.check_crc()?;
        if size_bytes as i64 > i64::from(segment_bytes) {
            return Err(BatchError::LargerThanSegment { size_bytes, segment_bytes });
        }
        Ok(())
    }

    /// The checksum alone; what a read from disk verifies.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.header.crc, checksum(&self.bytes));
        match stored == computed {
            true => Ok(()),
            false => Err(BatchError::WrongCrc { stored, computed }),
        }
    }

    /// Check 6: header fields that a client must set so.
    pub fn check_fields(&self) -> Result<(), BatchError> {
        let header = &self.header;
        if header.base_offset != 0 {
            return Err(BatchError::BaseOffset(header.base_offset));
        }
        let BatchHeader { record_count, last_offset_delta, producer_id, base_sequence, .. } =
            *header;
        if record_count < 1 || i64::from(record_count) != i64::from(last_offset_delta) + 1 {
            return Err(BatchError::RecordCount { record_count, last_offset_delta });
        }
        let body_bytes = match header.codec() {
            Some(Codec::None) => self.bytes.len() - HEADER_BYTES,
            _ => DECOMPRESSED_MAX_BYTES,
        };
        if record_count as usize > body_bytes / RECORD_BYTES_MIN {
            return Err(BatchError::NoRoomForRecords { record_count, body_bytes });
        }
        if header.is_control() {
            return Err(BatchError::Control);
        }
        if header.has_producer() && base_sequence < 0 {
            return Err(BatchError::Sequence { producer_id, base_sequence });
        }
        Ok(())
    }

    /// The records as they stand, compressed or not.
    pub fn body(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }
}

/// What may follow the only batch of a Produce: too little to be told from garbage, or another
/// batch that is cut short.
fn check_tail(tail: &[u8]) -> Result<(), BatchError> {
    if tail.len() < MAGIC_END {
        return Ok(());
    }
    match BatchHeader::parse(tail) {
        Ok(header) if header.size_bytes() <= tail.len() => Err(BatchError::MoreThanOneBatch),
        Err(BatchError::OldMagic(_)) => Err(BatchError::MoreThanOneBatch),
        Ok(_) | Err(BatchError::Truncated) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The batches of a run of them, in order. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    pub fn new(bytes: Bytes) -> Batches {
        Batches { rest: bytes }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = Batch::split_from(&mut self.rest);
        if batch.is_err() {
            self.rest = Bytes::new();
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests;
