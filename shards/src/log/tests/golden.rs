//! The bytes of FORMAT.md, written out: what must never change by accident.

use super::*;
use crate::log::index::{encode_block, IndexEntry};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden_identity() -> PartitionIdentity {
    PartitionIdentity { topic: *b"0123456789abcdef", partition: 7, owner: Owner::default() }
}

#[test]
fn checkpoint() {
    let mut epochs = EpochList::new();
    epochs.assign(6, Offset(1));
    let checkpoint = LogCheckpoint {
        flushed_index: Index(0x11),
        flushed_term: Term(0x12),
        next_offset: Offset(0x13),
        log_start: Offset(0x01),
        active: Some(ActiveCheckpoint {
            base_offset: Offset(0x21),
            first_index: Index(0x22),
            first_term: Term(0x23),
            sealed: Position(0x0ff0),
            written: Position(0x1000),
            batches: 0x26,
            first_timestamp: 0x27,
            max_timestamp: -1,
            max_timestamp_offset: Offset(0x29),
            last: Some(LastBatch { position: Position(0x2a), crc: 0x2b }),
        }),
        epochs,
        producers: Bytes::from_static(b"P"),
    };
    assert_eq!(hex(&checkpoint.encode(&golden_identity())), CHECKPOINT.concat());
}

#[rustfmt::skip]
const CHECKPOINT: [&str; 13] = [
    "434b4c4302000100", // magic, version, flags
    "30313233343536373839616263646566", // topic
    "07000000", // partition
    "11000000000000001200000000000000", // flushed index and term
    "13000000000000000100000000000000", // next offset, log start
    "210000000000000022000000000000002300000000000000", // active: base offset, first index and term
    "f00f0000000000000010000000000000", // sealed, written
    "260000002700000000000000", // batches, first timestamp
    "ffffffffffffffff2900000000000000", // largest timestamp, its batch
    "2a000000000000002b000000", // last batch: position, checksum
    "01000000060000000100000000000000", // one epoch: 6 from offset 1
    "0100000050", // producers
    "23dbb3c6", // CRC
];

#[test]
fn map() {
    let map = SegmentMap {
        base_offset: Offset(0x21),
        first_index: Index(0x22),
        first_term: Term(0x23),
        closed: Some(ClosedFacts {
            length: 0x24,
            next_offset: Offset(0x25),
            last_index: Index(0x26),
            last_term: Term(0x27),
            batches: 0x28,
            max_timestamp: -1,
            max_timestamp_offset: Offset(0x2a),
            closed_ms: 0x1b,
            last: LastBatch { position: Position(0x1c), crc: 0x1d },
        }),
        empties: vec![EmptyEntry { index: Index(0x31), term: Term(0x32), offset: Offset(0x33) }],
    };
    assert_eq!(hex(&map.encode(&golden_identity())), MAP.concat());
}

#[rustfmt::skip]
const MAP: [&str; 11] = [
    "434b4d5002000100", // magic, version, flags
    "30313233343536373839616263646566", // topic
    "07000000", // partition
    "210000000000000022000000000000002300000000000000", // base offset, first index and term
    "24000000000000002500000000000000", // length, next offset
    "26000000000000002700000000000000", // last index and term
    "28000000ffffffffffffffff", // batches, largest timestamp
    "2a000000000000001b00000000000000", // its batch, closed
    "1c000000000000001d000000", // last batch: position, checksum
    "01000000310000000000000032000000000000003300000000000000", // one entry without records
    "3a268e46", // CRC
];

#[test]
fn index_block() {
    let entry = IndexEntry {
        offset: Offset(0x31),
        position: Position(0x2000),
        max_timestamp_before: -1,
        ordinal: 0x33,
    };
    let block = encode_block(Offset(0x21), 5, &[entry]);
    assert_eq!(block.len(), 4096);
    assert!(block[56..].iter().all(|byte| *byte == 0));
    assert_eq!(hex(&block[..56]), INDEX.concat());
}

#[rustfmt::skip]
const INDEX: [&str; 5] = [
    "434b49588541b7c4", // magic, CRC
    "0100010005000000", // version, entries, number
    "21000000000000000000000000000000", // base offset, reserved
    "1000000000200000", // offset and position
    "ffffffffffffffff3300000000000000", // largest timestamp before, ordinal, reserved
];
