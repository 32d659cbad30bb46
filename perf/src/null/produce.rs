//! A Produce request, read only as far as its answer needs.
//!
//! Topics and partition numbers come back, the records are skipped over. Base offsets are always 0:
//! producers report them and do not judge them.

use bytes::BytesMut;
use net::header::PEEK_BYTES;
use net::reader::{LengthWidth, Malformed, Reader};
use net::wire::{encode_produce, ProduceAnswer, ProducePartition, ProduceTopic};
use net::{ErrorCode, StrBytes};
use uuid::Uuid;

/// First version with compact lengths, and the first that names topics by id.
const FLEXIBLE_FROM: i16 = 9;
const TOPIC_IDS_FROM: i16 = 13;

/// Appends the body of the answer; false when the producer wants none (acks=0).
pub fn answer(frame: &[u8], version: i16, out: &mut BytesMut) -> Result<bool, Malformed> {
    let flexible = version >= FLEXIBLE_FROM;
    let (text, count) = match flexible {
        true => (LengthWidth::Compact, LengthWidth::Compact),
        false => (LengthWidth::Two, LengthWidth::Four),
    };
    let mut reader = Reader::new(frame);
    reader.skip(PEEK_BYTES)?;
    reader.nullable_bytes(LengthWidth::Two)?;
    skip_tags(&mut reader, flexible)?;
    reader.nullable_bytes(text)?;
    let acks = reader.i16()?;
    reader.i32()?;
    let mut topics = Vec::new();
    for _ in 0..reader.length(count)?.unwrap_or_default() {
        let (mut name, mut id) = (StrBytes::default(), Uuid::nil());
        if version >= TOPIC_IDS_FROM {
            id = Uuid::from_slice(reader.take(16)?).map_err(|_| Malformed)?;
        } else {
            let bytes = reader.nullable_bytes(text)?.unwrap_or_default();
            name = StrBytes::from_string(String::from_utf8_lossy(bytes).into_owned());
        }
        let mut partitions = Vec::new();
        for _ in 0..reader.length(count)?.unwrap_or_default() {
            partitions.push(taken(reader.i32()?));
            reader.nullable_bytes(count)?;
            skip_tags(&mut reader, flexible)?;
        }
        skip_tags(&mut reader, flexible)?;
        topics.push(ProduceTopic { name, id, partitions });
    }
    skip_tags(&mut reader, flexible)?;
    if acks != 0 {
        let answer = ProduceAnswer { topics, throttle_time_ms: 0, node_endpoints: Vec::new() };
        for part in encode_produce(&answer, version) {
            out.extend_from_slice(&part);
        }
    }
    Ok(acks != 0)
}

fn skip_tags(reader: &mut Reader<'_>, flexible: bool) -> Result<(), Malformed> {
    match flexible {
        true => reader.skip_tagged_fields(),
        false => Ok(()),
    }
}

fn taken(index: i32) -> ProducePartition {
    ProducePartition {
        base_offset: 0,
        log_start_offset: 0,
        ..ProducePartition::refused(index, ErrorCode::None, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
    use kafka_protocol::protocol::Decodable;
    use net::client::encode_frame;

    fn request(version: i16, acks: i16) -> Bytes {
        let partition = |index| {
            PartitionProduceData::default()
                .with_index(index)
                .with_records(Some(Bytes::from_static(&[9; 300])))
        };
        let mut topic =
            TopicProduceData::default().with_partition_data(vec![partition(3), partition(5)]);
        if version >= TOPIC_IDS_FROM {
            topic = topic.with_topic_id(Uuid::from_u128(77));
        } else {
            topic = topic.with_name(TopicName(StrBytes::from_static_str("orders")));
        }
        let body = ProduceRequest::default().with_acks(acks).with_topic_data(vec![topic]);
        let frame = encode_frame(&StrBytes::from_static_str("test"), 7, &body, version).unwrap();
        // The broker's reader has taken the length off.
        frame.slice(4..)
    }

    #[test]
    fn every_version_gets_the_partitions_it_sent() {
        for version in 3..=13 {
            let mut out = BytesMut::new();
            assert_eq!(answer(&request(version, -1), version, &mut out), Ok(true));
            let mut out = out.freeze();
            let decoded = ProduceResponse::decode(&mut out, version).unwrap();
            assert!(out.is_empty(), "version {version}");
            let topic = &decoded.responses[0];
            match version >= TOPIC_IDS_FROM {
                true => assert_eq!(topic.topic_id, Uuid::from_u128(77)),
                false => assert_eq!(topic.name.as_str(), "orders"),
            }
            let seen: Vec<_> =
                topic.partition_responses.iter().map(|p| (p.index, p.error_code)).collect();
            assert_eq!(seen, [(3, 0), (5, 0)], "version {version}");
        }
    }

    #[test]
    fn acks_0_gets_no_answer_and_half_a_frame_none_either() {
        let frame = request(12, 0);
        let mut out = BytesMut::new();
        assert_eq!(answer(&frame, 12, &mut out), Ok(false));
        assert!(out.is_empty());
        for length in 0..frame.len() {
            assert_eq!(answer(&frame[..length], 12, &mut out), Err(Malformed));
        }
    }
}
