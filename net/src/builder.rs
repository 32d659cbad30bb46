//! Builds record batches: for internal topics, the command line client, and tests.
//!
//! Owns the encoding of records and control records. A batch is built in one go from records in
//! order; offsets are dense from the base. Assumes the caller keeps within the limits it will be
//! checked against. Pure; on any shard.

use bytes::BufMut;

use crate::batch::{Batch, BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use crate::compress::{self, Codec};
use crate::records;

/// A batch that cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("a batch needs at least one record")]
    Empty,
    #[error("a batch of {0} bytes passes what its length field can say")]
    TooLarge(usize),
    #[error("compressing a batch: {0}")]
    Compress(#[from] std::io::Error),
}

/// What a control record says (`ControlRecordType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Marker {
    Abort = 0,
    Commit = 1,
}

/// Collects records. Builder methods return the builder; [`BatchBuilder::build`] ends it.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    header: BatchHeader,
    codec: Codec,
    level: Option<i32>,
    records: Vec<u8>,
    scratch: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::new()
    }
}

impl BatchBuilder {
    /// An empty, uncompressed batch at offset 0 without a producer.
    pub fn new() -> BatchBuilder {
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            crc: 0,
            attributes: 0,
            last_offset_delta: -1,
            base_timestamp: -1,
            max_timestamp: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 0,
        };
        let (records, scratch) = (Vec::new(), Vec::new());
        BatchBuilder { header, codec: Codec::None, level: None, records, scratch }
    }

    pub fn codec(mut self, codec: Codec) -> BatchBuilder {
        self.codec = codec;
        self
    }

    pub fn level(mut self, level: i32) -> BatchBuilder {
        self.level = Some(level);
        self
    }

    pub fn base_offset(mut self, base_offset: i64) -> BatchBuilder {
        self.header.base_offset = base_offset;
        self
    }

    pub fn leader_epoch(mut self, leader_epoch: i32) -> BatchBuilder {
        self.header.partition_leader_epoch = leader_epoch;
        self
    }

    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> BatchBuilder {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    pub fn transactional(mut self) -> BatchBuilder {
        self.header.attributes |= 1 << 4;
        self
    }

    /// Appends a record without headers.
    pub fn record(self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> BatchBuilder {
        self.record_with_headers(timestamp, key, value, &[])
    }

    /// Appends a record.
    pub fn record_with_headers(
        mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> BatchBuilder {
        self.push(timestamp, key, value, headers);
        self
    }

    /// Appends a record in place, for loops.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        if self.header.record_count == 0 {
            self.header.base_timestamp = timestamp;
            self.header.max_timestamp = timestamp;
        }
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        self.header.record_count += 1;
        self.header.last_offset_delta += 1;
        let delta = timestamp.wrapping_sub(self.header.base_timestamp);
        let mut fields = std::mem::take(&mut self.scratch);
        fields.clear();
        fields.put_i8(0);
        put_varlong(&mut fields, delta);
        put_varlong(&mut fields, i64::from(self.header.last_offset_delta));
        put_field(&mut fields, key);
        put_field(&mut fields, value);
        put_varlong(&mut fields, headers.len() as i64);
        for (name, value) in headers {
            put_field(&mut fields, Some(name.as_bytes()));
            put_field(&mut fields, *value);
        }
        put_varlong(&mut self.records, fields.len() as i64);
        self.records.extend_from_slice(&fields);
        self.scratch = fields;
    }

    /// Records so far.
    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// Bytes of the batch so far, before compression.
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The finished batch, with its checksum.
    pub fn build(mut self) -> Result<Batch, BuildError> {
        if self.header.record_count == 0 {
            return Err(BuildError::Empty);
        }
        let folded = match self.codec {
            Codec::None => self.records,
            codec => compress::compress(codec, self.level, &self.records)?,
        };
        let length = folded.len() + HEADER_BYTES - LENGTH_PREFIX_BYTES;
        self.header.batch_length =
            i32::try_from(length).map_err(|_| BuildError::TooLarge(length))?;
        self.header.set_codec(self.codec);
        Ok(records::seal(self.header, &folded))
    }

    /// The batch that ends a transaction in one partition: one control record.
    pub fn marker(
        marker: Marker,
        producer_id: i64,
        producer_epoch: i16,
        coordinator_epoch: i32,
        timestamp: i64,
    ) -> Result<Batch, BuildError> {
        let mut key = Vec::with_capacity(4);
        key.put_i16(0);
        key.put_i16(marker as i16);
        let mut value = Vec::with_capacity(6);
        value.put_i16(0);
        value.put_i32(coordinator_epoch);
        let mut builder =
            BatchBuilder::new().producer(producer_id, producer_epoch, -1).transactional();
        builder.header.attributes |= 1 << 5;
        builder.record(timestamp, Some(&key), Some(&value)).build()
    }
}

fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varlong(out, -1),
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}
