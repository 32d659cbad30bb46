//! The records inside a batch, unfolded as a whole and iterated lazily: for who wants their keys
//! and values. Who does not looks in passing (`scan.rs`).
//!
//! What a client put inside a compressed batch is not checked on the produce path, so everything
//! here assumes lies: counts are compared with the bytes that are left, a record must fill exactly
//! the length it names, offsets must lie within the batch and rise. Nothing is allocated from a
//! number in the data; decompression has the caller's limit. Pure; on any shard, and on blocking
//! threads for big batches.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::{checksum, Batch, BatchHeader, TimestampType, HEADER_BYTES};
use crate::compress::{Codec, CompressError};
use crate::reader::{Malformed, Reader};
use crate::unfold;

/// Why the inside of a batch cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A record ends too early, or does not fill its length.
    #[error("a record is malformed")]
    Malformed,
    /// An offset outside the batch, or not above the one before.
    #[error("a record's offset delta {0} does not fit its batch")]
    Offset(i64),
    /// Bytes after the last record.
    #[error("bytes follow the last record")]
    Trailing,
    #[error("unknown compression codec")]
    UnknownCodec,
    #[error(transparent)]
    Compress(#[from] CompressError),
}

impl From<Malformed> for RecordError {
    fn from(_: Malformed) -> RecordError {
        RecordError::Malformed
    }
}

/// One record, its fields as slices of the unfolded batch.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub offset: i64,
    /// By the batch's timestamp type.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    header_count: u32,
    headers: &'a [u8],
}

impl<'a> Record<'a> {
    /// Whether its headers are as many as it counts and end where the record ends.
    pub fn check_headers(&self) -> Result<(), RecordError> {
        let mut headers = self.headers();
        headers.by_ref().try_for_each(|header| header.map(drop))?;
        match headers.reader.remaining() {
            0 => Ok(()),
            _ => Err(RecordError::Malformed),
        }
    }

    /// The record's headers, parsed as they are asked for.
    pub fn headers(&self) -> Headers<'a> {
        Headers { reader: Reader::new(self.headers), left: self.header_count }
    }
}

/// A record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// UTF-8 by convention, not checked.
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// Iterates over the headers of one record; ends after the first error.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<Header<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let header = read_header(&mut self.reader);
        if header.is_err() {
            self.left = 0;
        }
        Some(header)
    }
}

fn read_header<'a>(reader: &mut Reader<'a>) -> Result<Header<'a>, RecordError> {
    let key = read_field(reader)?.ok_or(RecordError::Malformed)?;
    Ok(Header { key, value: read_field(reader)? })
}

/// A nullable field behind a zigzag length.
fn read_field<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, RecordError> {
    match reader.varint()? {
        -1 => Ok(None),
        length @ 0.. => Ok(Some(reader.take(length as usize)?)),
        _ => Err(RecordError::Malformed),
    }
}

/// A batch with its records unfolded, ready to iterate any number of times.
#[derive(Debug, Clone)]
pub struct Unfolded {
    header: BatchHeader,
    records: Bytes,
}

impl Unfolded {
    /// Decompresses where needed, to at most `limit_bytes`. An uncompressed batch is sliced.
    pub fn new(batch: &Batch, limit_bytes: usize) -> Result<Unfolded, RecordError> {
        let records = match batch.header.codec().ok_or(RecordError::UnknownCodec)? {
            Codec::None => batch.body(),
            codec => unfold::decompress(codec, &batch.body(), limit_bytes)?.into(),
        };
        Ok(Unfolded { header: batch.header, records })
    }

    pub fn iter(&self) -> Records<'_> {
        Records {
            header: self.header,
            reader: Reader::new(&self.records),
            left: self.header.record_count.max(0) as u32,
            last_delta: -1,
        }
    }
}

impl<'a> IntoIterator for &'a Unfolded {
    type Item = Result<Record<'a>, RecordError>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}

/// Iterates over the records of a batch, as many as its header counts; ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    header: BatchHeader,
    reader: Reader<'a>,
    left: u32,
    last_delta: i64,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = self.read();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn read(&mut self) -> Result<Record<'a>, RecordError> {
        let length = self.reader.varint()?;
        let length = usize::try_from(length).map_err(|_| RecordError::Malformed)?;
        let mut fields = Reader::new(self.reader.take(length)?);
        fields.i8()?;
        let timestamp_delta = fields.varlong()?;
        let offset_delta = i64::from(fields.varint()?);
        if offset_delta <= self.last_delta
            || offset_delta > i64::from(self.header.last_offset_delta)
        {
            return Err(RecordError::Offset(offset_delta));
        }
        let key = read_field(&mut fields)?;
        let value = read_field(&mut fields)?;
        let header_count = fields.varint()?;
        let headers = fields.take(fields.remaining())?;
        // A header takes at least two bytes.
        if header_count < 0 || header_count as usize > headers.len() / 2 {
            return Err(RecordError::Malformed);
        }
        if header_count == 0 && !headers.is_empty() {
            return Err(RecordError::Malformed);
        }
        if self.left == 0 && self.reader.remaining() > 0 {
            return Err(RecordError::Trailing);
        }
        self.last_delta = offset_delta;
        let timestamp = match self.header.timestamp_type() {
            TimestampType::LogAppendTime => self.header.max_timestamp,
            TimestampType::CreateTime => self.header.base_timestamp.wrapping_add(timestamp_delta),
        };
        Ok(Record {
            offset: self.header.base_offset.wrapping_add(offset_delta),
            timestamp,
            key,
            value,
            header_count: header_count as u32,
            headers,
        })
    }
}

/// Puts header and records together and computes the checksum.
pub(crate) fn seal(mut header: BatchHeader, records: &[u8]) -> Batch {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + records.len());
    bytes.put_slice(&header.encode());
    bytes.put_slice(records);
    header.crc = checksum(&bytes);
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    Batch { header, bytes: bytes.freeze() }
}
