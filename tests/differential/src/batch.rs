//! Record batches: made as scripts want them, lies included, and taken apart for comparison.
//!
//! Written from the format's description alone, so that a mistake in the broker's own code is not
//! repeated here. Compression is the codec crate's.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::compression::{self, Compressor, Decompressor};

use crate::tree::Node;

const HEADER_BYTES: usize = 61;
/// The checksum covers everything from here on.
const CRC_COVERS_FROM: usize = 21;

/// A record batch in the making. What is `None` is computed.
#[derive(Debug, Clone)]
pub struct Batch {
    pub base_offset: i64,
    pub length: Option<i32>,
    pub leader_epoch: i32,
    pub magic: i8,
    pub crc: Option<u32>,
    pub attributes: i16,
    pub last_offset_delta: Option<i32>,
    pub base_timestamp: i64,
    pub max_timestamp: Option<i64>,
    pub producer: (i64, i16, i32),
    pub count: Option<i32>,
    pub records: Vec<Record>,
    /// Bytes after the last record, inside the batch.
    pub trailing: Vec<u8>,
}

/// One record of a batch. What is `None` is computed.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub offset_delta: Option<i64>,
    pub timestamp_delta: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, Option<&'static str>)>,
    /// What the record says of its own length.
    pub length: Option<i64>,
    pub header_count: Option<i64>,
}

pub const GZIP: i16 = 1;
pub const SNAPPY: i16 = 2;
pub const LZ4: i16 = 3;
pub const ZSTD: i16 = 4;

impl Batch {
    /// One record without key for each value, at `time`.
    pub fn of(values: &[&str], time: i64) -> Batch {
        let record =
            |value: &&str| Record { value: Some(value.as_bytes().to_vec()), ..Record::default() };
        Batch {
            base_offset: 0,
            length: None,
            leader_epoch: -1,
            magic: 2,
            crc: None,
            attributes: 0,
            last_offset_delta: None,
            base_timestamp: time,
            max_timestamp: None,
            producer: (-1, -1, -1),
            count: None,
            records: values.iter().map(record).collect(),
            trailing: Vec::new(),
        }
    }

    /// The same with a key in every record.
    pub fn keyed(pairs: &[(&str, &str)], time: i64) -> Batch {
        let mut batch = Batch::of(&[], time);
        batch.records = pairs
            .iter()
            .map(|(key, value)| Record {
                key: Some(key.as_bytes().to_vec()),
                value: Some(value.as_bytes().to_vec()),
                ..Record::default()
            })
            .collect();
        batch
    }

    pub fn with(mut self, change: impl FnOnce(&mut Batch)) -> Batch {
        change(&mut self);
        self
    }

    pub fn compressed(self, codec: i16) -> Batch {
        self.with(|batch| batch.attributes = (batch.attributes & !7) | codec)
    }

    pub fn idempotent(self, id: i64, epoch: i16, sequence: i32) -> Batch {
        self.with(|batch| batch.producer = (id, epoch, sequence))
    }

    pub fn bytes(&self) -> Bytes {
        let mut records = BytesMut::new();
        for (i, record) in self.records.iter().enumerate() {
            record.write(i as i64, &mut records);
        }
        records.extend_from_slice(&self.trailing);
        let payload = compress(self.attributes & 7, &records);
        let latest = self.records.iter().map(|record| record.timestamp_delta).max().unwrap_or(0);
        let mut out = BytesMut::new();
        out.put_i64(self.base_offset);
        out.put_i32(self.length.unwrap_or((HEADER_BYTES - 12 + payload.len()) as i32));
        out.put_i32(self.leader_epoch);
        out.put_i8(self.magic);
        out.put_u32(0);
        out.put_i16(self.attributes);
        out.put_i32(self.last_offset_delta.unwrap_or(self.records.len() as i32 - 1));
        out.put_i64(self.base_timestamp);
        out.put_i64(self.max_timestamp.unwrap_or(self.base_timestamp + latest));
        out.put_i64(self.producer.0);
        out.put_i16(self.producer.1);
        out.put_i32(self.producer.2);
        out.put_i32(self.count.unwrap_or(self.records.len() as i32));
        out.extend_from_slice(&payload);
        let crc = self.crc.unwrap_or_else(|| crc32c::crc32c(&out[CRC_COVERS_FROM..]));
        out[CRC_COVERS_FROM - 4..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
        out.freeze()
    }
}

impl Record {
    fn write(&self, position: i64, out: &mut BytesMut) {
        let mut body = BytesMut::new();
        body.put_i8(0);
        put_varint(&mut body, self.timestamp_delta);
        put_varint(&mut body, self.offset_delta.unwrap_or(position));
        for part in [&self.key, &self.value] {
            put_varint(&mut body, part.as_ref().map_or(-1, |part| part.len() as i64));
            body.extend_from_slice(part.as_deref().unwrap_or_default());
        }
        put_varint(&mut body, self.header_count.unwrap_or(self.headers.len() as i64));
        for (key, value) in &self.headers {
            put_varint(&mut body, key.len() as i64);
            body.extend_from_slice(key.as_bytes());
            put_varint(&mut body, value.map_or(-1, |value| value.len() as i64));
            body.extend_from_slice(value.unwrap_or_default().as_bytes());
        }
        put_varint(out, self.length.unwrap_or(body.len() as i64));
        out.extend_from_slice(&body);
    }
}

/// Zigzag, seven bits a byte.
fn put_varint(out: &mut BytesMut, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        out.put_u8(left as u8 | 0x80);
        left >>= 7;
    }
    out.put_u8(left as u8);
}

fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

fn compress(codec: i16, records: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    macro_rules! with {
        ($codec:ident) => {
            compression::$codec::compress(&mut out, |to| {
                to.put_slice(records);
                Ok(())
            })
        };
    }
    match codec {
        GZIP => with!(Gzip),
        SNAPPY => with!(Snappy),
        LZ4 => with!(Lz4),
        ZSTD => with!(Zstd),
        // An unknown codec: whatever the bytes are.
        _ => with!(None),
    }
    .expect("compression");
    out.freeze()
}

fn decompress(codec: i16, payload: &[u8]) -> Option<Vec<u8>> {
    let mut payload = Bytes::copy_from_slice(payload);
    macro_rules! with {
        ($codec:ident) => {
            compression::$codec::decompress(&mut payload, |from| Ok(from.to_vec())).ok()
        };
    }
    match codec {
        0 => with!(None),
        GZIP => with!(Gzip),
        SNAPPY => with!(Snappy),
        LZ4 => with!(Lz4),
        ZSTD => with!(Zstd),
        _ => None,
    }
}

/// The records of a Fetch answer, batch by batch. A cut last batch is legal, and left out.
pub fn taken_apart(mut bytes: &[u8]) -> Node {
    let mut batches = Vec::new();
    while bytes.len() >= HEADER_BYTES {
        let length = i32::from_be_bytes(bytes[8..12].try_into().expect("4 bytes")) as usize + 12;
        if bytes.len() < length {
            break;
        }
        batches.push(one(&bytes[..length]));
        bytes = &bytes[length..];
    }
    Node::List(batches)
}

fn one(bytes: &[u8]) -> Node {
    let number = |at: usize, width: usize| {
        let mut value = if bytes[at] & 0x80 != 0 { -1i64 } else { 0 };
        for byte in &bytes[at..at + width] {
            value = value << 8 | i64::from(*byte);
        }
        value
    };
    let crc = crc32c::crc32c(&bytes[CRC_COVERS_FROM..]);
    let stored = u32::from_be_bytes(bytes[17..21].try_into().expect("4 bytes"));
    let attributes = number(21, 2) as i16;
    let base_timestamp = number(27, 8);
    let records = decompress(attributes & 7, &bytes[HEADER_BYTES..]);
    let token = |value: i64| Node::Token(value.to_string());
    let fields = [
        ("base_offset", token(number(0, 8))),
        ("partition_leader_epoch", token(number(12, 4))),
        ("magic", token(number(16, 1))),
        ("crc_is_right", Node::Token((crc == stored).to_string())),
        ("attributes", token(i64::from(attributes))),
        ("last_offset_delta", token(number(23, 4))),
        ("base_timestamp", token(base_timestamp)),
        ("max_timestamp", token(number(35, 8))),
        ("producer_id", token(number(43, 8))),
        ("producer_epoch", token(number(51, 2))),
        ("base_sequence", token(number(53, 4))),
        ("count", token(number(57, 4))),
        ("records", records.map_or(Node::Text("unreadable".into()), |r| each(&r, base_timestamp))),
    ];
    Node::Fields(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

fn each(mut bytes: &[u8], base_timestamp: i64) -> Node {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let Some(record) = read_record(&mut bytes, base_timestamp) else {
            records.push(Node::Text("unreadable".into()));
            break;
        };
        records.push(record);
    }
    Node::List(records)
}

fn read_record(bytes: &mut &[u8], base_timestamp: i64) -> Option<Node> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    let (mut body, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    body = body.get(1..)?;
    let timestamp = base_timestamp.wrapping_add(varint(&mut body)?);
    let offset_delta = varint(&mut body)?;
    let key = part(&mut body)?;
    let value = part(&mut body)?;
    let fields = [
        ("timestamp", Node::Token(timestamp.to_string())),
        ("offset_delta", Node::Token(offset_delta.to_string())),
        ("key", key),
        ("value", value),
        ("headers", Node::Bytes(body.to_vec())),
    ];
    Some(Node::Fields(fields.map(|(name, value)| (name.to_owned(), value)).into()))
}

fn part(body: &mut &[u8]) -> Option<Node> {
    let Ok(length) = usize::try_from(varint(body)?) else {
        return Some(Node::Token("null".into()));
    };
    let (part, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(Node::Text(String::from_utf8_lossy(part).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_read_again_with_every_codec() {
        for codec in [0, GZIP, SNAPPY, LZ4, ZSTD] {
            let batch = Batch::keyed(&[("k", "one"), ("k", "two")], 1_000).compressed(codec);
            let node = taken_apart(&batch.bytes());
            let leaves = node.leaves();
            let value = |path: &str| leaves.iter().find(|(known, _)| known == path).unwrap();
            assert_eq!(value("[0].crc_is_right").1, "true");
            assert_eq!(value("[0].attributes").1, codec.to_string());
            assert_eq!(value("[0].records[1].value").1, "\"two\"");
            assert_eq!(value("[0].records[1].offset_delta").1, "1");
        }
    }

    #[test]
    fn numbers_of_every_size_survive() {
        for value in [0, -1, 1, 63, -64, 64, i64::MAX, i64::MIN] {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            assert_eq!(varint(&mut &out[..]), Some(value));
        }
    }
}
