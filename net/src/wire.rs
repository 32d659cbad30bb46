//! Produce and Fetch answers, encoded by hand for every served version.
//!
//! The codec would copy the records of a Fetch into one buffer; here they stay slices between
//! small heads and tails, and leave with one vectored write. Fields a version has not are left
//! out silently, so a handler fills everything it knows. Tested byte by byte against the codec.
//! Pure; on the shard of the connection.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::error::ErrorCode;

/// Records up to this size are copied into the head: cheaper than one more slice.
const COPY_MAX_BYTES: usize = 512;

/// The body of a Fetch answer.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchAnswer {
    pub throttle_time_ms: i32,
    pub error: ErrorCode,
    /// 0 without a session.
    pub session_id: i32,
    pub topics: Vec<FetchTopic>,
    pub node_endpoints: Vec<NodeEndpoint>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FetchTopic {
    pub name: StrBytes,
    pub id: Uuid,
    pub partitions: Vec<FetchPartition>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FetchPartition {
    pub index: i32,
    pub error: ErrorCode,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    pub diverging_epoch: Option<EpochEnd>,
    pub current_leader: Option<Leader>,
    /// Null for read_uncommitted.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// -1 for none.
    pub preferred_read_replica: i32,
    /// Whole batches, in order, in as many slices as they happen to lie in. Empty, never null.
    pub records: Vec<Bytes>,
}

impl FetchPartition {
    /// A partition that answers an error: all offsets -1, no records.
    pub fn refused(index: i32, error: ErrorCode) -> FetchPartition {
        FetchPartition {
            index,
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Vec::new(),
        }
    }
}

/// Where an epoch of the leader ends (KIP-595).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    pub epoch: i32,
    pub end_offset: i64,
}

/// Who leads now (KIP-951).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    pub id: i32,
    pub epoch: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

/// Where a current leader is reached (KIP-951).
#[derive(Debug, Clone, PartialEq)]
pub struct NodeEndpoint {
    pub node_id: i32,
    pub host: StrBytes,
    pub port: i32,
    pub rack: Option<StrBytes>,
}

/// The body of a Produce answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ProduceAnswer {
    pub topics: Vec<ProduceTopic>,
    pub throttle_time_ms: i32,
    pub node_endpoints: Vec<NodeEndpoint>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ProduceTopic {
    pub name: StrBytes,
    pub id: Uuid,
    pub partitions: Vec<ProducePartition>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ProducePartition {
    pub index: i32,
    pub error: ErrorCode,
    /// -1 with an error.
    pub base_offset: i64,
    /// -1 unless the topic has LogAppendTime.
    pub log_append_time_ms: i64,
    /// -1 with an error found before the log was looked at.
    pub log_start_offset: i64,
    pub record_errors: Vec<RefusedRecord>,
    pub error_message: Option<String>,
    pub current_leader: Option<Leader>,
}

impl ProducePartition {
    /// A partition that was not appended to.
    pub fn refused(index: i32, error: ErrorCode, message: Option<String>) -> ProducePartition {
        ProducePartition {
            index,
            error,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: message,
            current_leader: None,
        }
    }
}

/// A record that made its batch be refused (KIP-467).
#[derive(Debug, Clone, PartialEq)]
pub struct RefusedRecord {
    pub batch_index: i32,
    pub message: Option<String>,
}

/// Encodes a Fetch answer; the records are moved, not copied.
pub fn encode_fetch(answer: FetchAnswer, version: i16) -> Vec<Bytes> {
    let mut writer = Writer::new(version >= 12);
    writer.head.put_i32(answer.throttle_time_ms);
    if version >= 7 {
        writer.head.put_i16(answer.error.code());
        writer.head.put_i32(answer.session_id);
    }
    writer.count(answer.topics.len());
    for topic in answer.topics {
        writer.topic(&topic.name, topic.id, version);
        writer.count(topic.partitions.len());
        for partition in topic.partitions {
            writer.fetch_partition(partition, version);
        }
        writer.tags(0);
    }
    writer.node_endpoints(&answer.node_endpoints, version >= 16);
    writer.finish()
}

/// Encodes a Produce answer.
pub fn encode_produce(answer: &ProduceAnswer, version: i16) -> Vec<Bytes> {
    let mut writer = Writer::new(version >= 9);
    writer.count(answer.topics.len());
    for topic in &answer.topics {
        writer.topic(&topic.name, topic.id, version);
        writer.count(topic.partitions.len());
        for partition in &topic.partitions {
            writer.produce_partition(partition, version);
        }
        writer.tags(0);
    }
    writer.head.put_i32(answer.throttle_time_ms);
    writer.node_endpoints(&answer.node_endpoints, version >= 10);
    writer.finish()
}

/// Bytes in order: what is written goes to `head`, slices close it and follow.
struct Writer {
    flexible: bool,
    head: BytesMut,
    parts: Vec<Bytes>,
}

impl Writer {
    fn new(flexible: bool) -> Writer {
        Writer { flexible, head: BytesMut::with_capacity(256), parts: Vec::new() }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.cut();
        self.parts
    }

    fn cut(&mut self) {
        if !self.head.is_empty() {
            self.parts.push(self.head.split().freeze());
        }
    }

    fn count(&mut self, count: usize) {
        match self.flexible {
            true => put_unsigned_varint(&mut self.head, count as u32 + 1),
            false => self.head.put_i32(count as i32),
        }
    }

    fn string(&mut self, text: Option<&str>) {
        match (self.flexible, text) {
            (true, None) => self.head.put_u8(0),
            (false, None) => self.head.put_i16(-1),
            (true, Some(text)) => put_compact(&mut self.head, text),
            (false, Some(text)) => {
                // What does not fit is cut: messages only, names are at most 249 bytes.
                let cut = cut_text(text, i16::MAX as usize);
                self.head.put_i16(cut.len() as i16);
                self.head.put_slice(cut.as_bytes());
            }
        }
    }

    /// The count of tagged fields that ends a flexible structure; the fields follow.
    fn tags(&mut self, count: usize) {
        if self.flexible {
            put_unsigned_varint(&mut self.head, count as u32);
        }
    }

    /// Both messages name topics up to version 12 and identify them from 13.
    fn topic(&mut self, name: &str, id: Uuid, version: i16) {
        match version {
            ..=12 => self.string(Some(name)),
            _ => self.head.put_slice(id.as_bytes()),
        }
    }

    fn fetch_partition(&mut self, partition: FetchPartition, version: i16) {
        self.head.put_i32(partition.index);
        self.head.put_i16(partition.error.code());
        self.head.put_i64(partition.high_watermark);
        self.head.put_i64(partition.last_stable_offset);
        if version >= 5 {
            self.head.put_i64(partition.log_start_offset);
        }
        match &partition.aborted_transactions {
            None if self.flexible => self.head.put_u8(0),
            None => self.head.put_i32(-1),
            Some(aborted) => {
                self.count(aborted.len());
                for transaction in aborted {
                    self.head.put_i64(transaction.producer_id);
                    self.head.put_i64(transaction.first_offset);
                    self.tags(0);
                }
            }
        }
        if version >= 11 {
            self.head.put_i32(partition.preferred_read_replica);
        }
        self.records(partition.records);
        if !self.flexible {
            return;
        }
        let (diverging, leader) = (partition.diverging_epoch, partition.current_leader);
        self.tags(usize::from(diverging.is_some()) + usize::from(leader.is_some()));
        if let Some(EpochEnd { epoch, end_offset }) = diverging {
            self.head.put_slice(&[0, 4 + 8 + 1]);
            self.head.put_i32(epoch);
            self.head.put_i64(end_offset);
            self.tags(0);
        }
        self.leader(1, leader);
    }

    fn records(&mut self, records: Vec<Bytes>) {
        let bytes: usize = records.iter().map(Bytes::len).sum();
        self.count(bytes);
        if bytes <= COPY_MAX_BYTES {
            for slice in &records {
                self.head.put_slice(slice);
            }
            return;
        }
        self.cut();
        self.parts.extend(records.into_iter().filter(|slice| !slice.is_empty()));
    }

    fn produce_partition(&mut self, partition: &ProducePartition, version: i16) {
        self.head.put_i32(partition.index);
        self.head.put_i16(partition.error.code());
        self.head.put_i64(partition.base_offset);
        self.head.put_i64(partition.log_append_time_ms);
        if version >= 5 {
            self.head.put_i64(partition.log_start_offset);
        }
        if version >= 8 {
            self.count(partition.record_errors.len());
            for refused in &partition.record_errors {
                self.head.put_i32(refused.batch_index);
                self.string(refused.message.as_deref());
                self.tags(0);
            }
            self.string(partition.error_message.as_deref());
        }
        let leader = partition.current_leader.filter(|_| version >= 10);
        self.tags(usize::from(leader.is_some()));
        self.leader(0, leader);
    }

    fn leader(&mut self, tag: u8, leader: Option<Leader>) {
        if let Some(Leader { id, epoch }) = leader {
            self.head.put_slice(&[tag, 4 + 4 + 1]);
            self.head.put_i32(id);
            self.head.put_i32(epoch);
            self.tags(0);
        }
    }

    /// Ends the message.
    fn node_endpoints(&mut self, endpoints: &[NodeEndpoint], has_field: bool) {
        if endpoints.is_empty() || !has_field {
            return self.tags(0);
        }
        let mut field = BytesMut::new();
        put_unsigned_varint(&mut field, endpoints.len() as u32 + 1);
        for endpoint in endpoints {
            field.put_i32(endpoint.node_id);
            put_compact(&mut field, &endpoint.host);
            field.put_i32(endpoint.port);
            match &endpoint.rack {
                None => field.put_u8(0),
                Some(rack) => put_compact(&mut field, rack),
            }
            field.put_u8(0);
        }
        self.tags(1);
        self.head.put_u8(0);
        put_unsigned_varint(&mut self.head, field.len() as u32);
        self.head.put_slice(&field);
    }
}

fn put_compact(out: &mut BytesMut, text: &str) {
    put_unsigned_varint(out, text.len() as u32 + 1);
    out.put_slice(text.as_bytes());
}

fn put_unsigned_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The longest start of a text that has at most so many bytes and ends between characters.
fn cut_text(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
