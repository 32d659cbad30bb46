//! Produce requests, written straight into the buffer that is sent.
//!
//! Sizes are computed first, so every byte of a record is copied once, and the checksum runs over
//! it while it is warm. Records hold the time they were due, an optional key, and filler.

use std::ops::Range;

use bytes::BufMut;
use net::batch::{checksum, BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES};

use super::options::RECORD_BYTES_MIN;

/// The newest version that names topics.
pub const PRODUCE_VERSION: i16 = 12;
const PRODUCE_KEY: i16 = 0;
const CLIENT_ID: &[u8] = b"loadgen";
const KEY_BYTES: usize = 8;
const FILLER_BYTES: usize = 1 << 16;
const CRC_AT: Range<usize> = 17..21;

/// What is the same in all requests of a producer.
pub struct Encoder {
    pub acks: i16,
    pub record_bytes: usize,
    /// 0: no keys.
    pub keys: u64,
    /// -1 for both without idempotence.
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// Bytes that do not compress, from which values are cut.
    filler: Vec<u8>,
}

/// The records of one partition in a request.
pub struct Batch<'a> {
    pub topic: usize,
    pub partition: i32,
    pub base_sequence: i32,
    pub records: &'a [u64],
}

impl Encoder {
    pub fn new(acks: i16, record_bytes: usize, keys: u64) -> Encoder {
        let mut state = 0;
        let filler = std::iter::repeat_with(|| mixed(&mut state).to_le_bytes())
            .take((FILLER_BYTES + record_bytes).div_ceil(8))
            .flatten()
            .collect();
        Encoder { acks, record_bytes, keys, producer_id: -1, producer_epoch: -1, filler }
    }

    /// The key of a record, which also chooses its partition.
    pub fn key(&self, record: u64) -> u64 {
        let mut state = record;
        mixed(&mut state) % self.keys.max(1)
    }

    /// How many records of this load fill a batch of so many bytes; at least one.
    pub fn records_in(&self, batch_bytes: usize) -> usize {
        // The largest offset delta that such a batch can have decides the length of a record.
        let record = self.record_size(batch_bytes / self.record_bytes.max(1));
        (batch_bytes.saturating_sub(HEADER_BYTES) / record).max(1)
    }

    /// Writes a whole frame in place of what `out` holds. Batches of one topic stand together;
    /// `due_ns` says when a record was due.
    pub fn request(
        &self,
        out: &mut Vec<u8>,
        correlation_id: i32,
        topics: &[String],
        batches: &[Batch<'_>],
        now_ms: i64,
        due_ns: impl Fn(u64) -> u64,
    ) {
        out.clear();
        out.put_i32(0);
        out.put_i16(PRODUCE_KEY);
        out.put_i16(PRODUCE_VERSION);
        out.put_i32(correlation_id);
        out.put_i16(CLIENT_ID.len() as i16);
        out.put_slice(CLIENT_ID);
        out.put_u8(0);
        out.put_u8(0); // no transactional id
        out.put_i16(self.acks);
        out.put_i32(30_000);
        let by_topic = || batches.chunk_by(|a, b| a.topic == b.topic);
        put_count(out, by_topic().count());
        for batches in by_topic() {
            let topic = topics[batches[0].topic].as_bytes();
            put_count(out, topic.len());
            out.put_slice(topic);
            put_count(out, batches.len());
            for batch in batches {
                out.put_i32(batch.partition);
                self.batch(out, batch, now_ms, &due_ns);
                out.put_u8(0);
            }
            out.put_u8(0);
        }
        out.put_u8(0);
        let length = (out.len() - 4) as i32;
        out[..4].copy_from_slice(&length.to_be_bytes());
    }

    /// A record batch behind its length.
    fn batch(
        &self,
        out: &mut Vec<u8>,
        batch: &Batch<'_>,
        now_ms: i64,
        due_ns: &impl Fn(u64) -> u64,
    ) {
        let count = batch.records.len();
        let records: usize = (0..count).map(|delta| self.record_size(delta)).sum();
        let size = HEADER_BYTES + records;
        put_count(out, size);
        let start = out.len();
        let header = BatchHeader {
            base_offset: 0,
            batch_length: (size - LENGTH_PREFIX_BYTES) as i32,
            partition_leader_epoch: -1,
            crc: 0,
            attributes: 0,
            last_offset_delta: count as i32 - 1,
            base_timestamp: now_ms,
            max_timestamp: now_ms,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: batch.base_sequence,
            record_count: count as i32,
        };
        out.put_slice(&header.encode());
        for (delta, record) in batch.records.iter().enumerate() {
            self.record(out, delta, *record, due_ns(*record));
        }
        debug_assert_eq!(out.len() - start, size);
        let crc = checksum(&out[start..]);
        out[start..][CRC_AT].copy_from_slice(&crc.to_be_bytes());
    }

    fn record(&self, out: &mut Vec<u8>, delta: usize, record: u64, due_ns: u64) {
        put_varint(out, zigzag(self.body_size(delta)));
        out.put_u8(0); // attributes
        out.put_u8(0); // timestamp delta
        put_varint(out, zigzag(delta));
        if self.keys > 0 {
            put_varint(out, zigzag(KEY_BYTES));
            out.put_u64(self.key(record));
        } else {
            out.put_u8(1); // a length of -1
        }
        put_varint(out, zigzag(self.record_bytes));
        out.put_u64(due_ns);
        let from = record as usize % FILLER_BYTES;
        out.put_slice(&self.filler[from..from + self.record_bytes - RECORD_BYTES_MIN]);
        out.put_u8(0); // no headers
    }

    /// Bytes of a record with its length.
    fn record_size(&self, delta: usize) -> usize {
        let body = self.body_size(delta);
        varint_size(zigzag(body)) + body
    }

    fn body_size(&self, delta: usize) -> usize {
        let key = if self.keys > 0 { 1 + KEY_BYTES } else { 1 };
        let value = varint_size(zigzag(self.record_bytes)) + self.record_bytes;
        1 + 1 + varint_size(zigzag(delta)) + key + value + 1
    }
}

/// A step of splitmix64: well spread numbers from a counter.
fn mixed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn zigzag(length: usize) -> u64 {
    (length as u64) << 1
}

fn varint_size(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// A compact length: one more than it says.
fn put_count(out: &mut Vec<u8>, count: usize) {
    put_varint(out, count as u64 + 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::messages::{ProduceRequest, RequestHeader};
    use kafka_protocol::protocol::Decodable;
    use net::batch::Batch as Checked;
    use net::records::Unfolded;

    /// Encodes two batches of one topic and one of another, and reads them back with the codec.
    fn round_trip(keys: u64, record_bytes: usize) {
        let mut encoder = Encoder::new(-1, record_bytes, keys);
        (encoder.producer_id, encoder.producer_epoch) = (7, 0);
        let topics = ["first".to_owned(), "second".to_owned()];
        let records: Vec<u64> = (0..200).collect();
        let batch =
            |topic, partition, records| Batch { topic, partition, base_sequence: 3, records };
        let batches = [
            batch(0, 4, &records[..150]),
            batch(0, 5, &records[150..151]),
            batch(1, 0, &records[151..]),
        ];
        let mut out = vec![1, 2, 3];
        encoder.request(&mut out, 9, &topics, &batches, 1_000, |record| record * 10);
        let mut frame = Bytes::from(out).split_off(4);
        assert_eq!(RequestHeader::decode(&mut frame, 2).unwrap().correlation_id, 9);
        let request = ProduceRequest::decode(&mut frame, PRODUCE_VERSION).unwrap();
        assert!(frame.is_empty());
        let names: Vec<_> = request.topic_data.iter().map(|t| t.name.0.to_string()).collect();
        assert_eq!(names, topics);
        let partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
        let mut seen = Vec::new();
        for partition in partitions {
            let bytes = partition.records.clone().unwrap();
            let header = BatchHeader::parse(&bytes).unwrap();
            assert_eq!(header.size_bytes(), bytes.len());
            assert_eq!(header.crc, checksum(&bytes));
            let unfolded = Unfolded::new(&Checked { header, bytes }, 0).unwrap();
            for record in unfolded.iter() {
                let record = record.unwrap();
                let value = record.value.unwrap();
                assert_eq!(value.len(), record_bytes);
                let due = u64::from_be_bytes(*value.first_chunk().unwrap());
                let key = encoder.key(due / 10).to_be_bytes();
                assert_eq!(record.key, (keys > 0).then_some(&key[..]));
                seen.push(due / 10);
            }
        }
        assert_eq!(seen, records);
    }

    #[test]
    fn the_codec_reads_what_is_written() {
        for (keys, record_bytes) in [(0, 8), (0, 100), (50, 1_024), (1, 70_000)] {
            round_trip(keys, record_bytes);
        }
    }

    #[test]
    fn a_full_batch_keeps_within_its_size() {
        for (record_bytes, batch_bytes) in [(100, 8_196), (1_024, 16_384), (1_024, 1_000_000)] {
            let encoder = Encoder::new(-1, record_bytes, 0);
            let count = encoder.records_in(batch_bytes);
            let size =
                |count| HEADER_BYTES + (0..count).map(|d| encoder.record_size(d)).sum::<usize>();
            assert!(size(count) <= batch_bytes && size(count + 2) > batch_bytes, "{record_bytes}");
        }
        assert_eq!(Encoder::new(-1, 5_000, 0).records_in(100), 1);
    }
}
