//! Every decoder of bytes that somebody else wrote (a client, a peer, a disk that rots), as one
//! function each.
//!
//! `main.rs` beside it drives them with seeded mutations in `cargo test`; `fuzz/` hands them to
//! libFuzzer. A decoder may refuse; it must not panic, hang, or allocate by a number that it read.
//! What is read is written again where there is an encoder, and must be the same.

use bytes::Bytes;
use net::batch::Batches;
use net::compress::Codec;
use net::records::Unfolded;
use net::scan::{recompress, scan, Target};
use net::{header, schema, RequestKind};
use shards::groups::records::Record;
use shards::groups::subscription;
use shards::log::{
    find_stored, BatchHead, IndexBlock, LogCheckpoint, Offset, PartitionIdentity, Seek, SegmentMap,
    INDEX_BLOCK_BYTES,
};
use shards::meta::{Command, State};
use shards::partition::control::Control;
use shards::partition::producers::ProducerStates;
use wal::format::{FileHeader, Laxness, Pointer, BLOCK_BYTES};
use wal::{FrameNumber, Scan, Step};

#[path = "worlds.rs"]
pub mod worlds;

pub type Decoder = fn(&[u8]);

pub const DECODERS: &[(&str, Decoder)] = &[
    ("request", request),
    ("batch", batch),
    ("wal", wal_file),
    ("checkpoint", checkpoint),
    ("map", map),
    ("raft_checkpoint", raft_checkpoint),
    ("raft_message", raft_message),
    ("command", command),
    ("snapshot", snapshot),
    ("offsets", offsets),
    ("index", index),
    ("producers", producers),
    ("control", control),
    ("subscription", subscription),
    ("folder", worlds::folder),
    ("segment", worlds::segment),
    ("replay", worlds::replay),
    ("connection", worlds::connection),
];

/// Bytes that a batch may unfold to here.
const UNFOLDED_BYTES: usize = 1 << 20;

/// A request frame without its length.
pub fn request(bytes: &[u8]) {
    let mut body = Bytes::copy_from_slice(bytes);
    let Ok(header) = header::decode_request_header(&mut body) else { return };
    if schema::check(header.api, header.version, &body).is_ok() {
        let _ = RequestKind::decode(header.api.key, &mut body, header.version);
    }
}

/// Record batches as a Produce carries them.
pub fn batch(bytes: &[u8]) {
    if let Ok(head) = BatchHead::parse(bytes) {
        let whole = bytes.get(..head.length as usize).unwrap_or(bytes);
        assert!(head.next_offset() > head.base_offset);
        let _ = head.verify_crc(whole);
    }
    for batch in Batches::new(Bytes::copy_from_slice(bytes)).flatten() {
        let _ = (batch.check_crc(), batch.check_fields());
        let mut seen = 0;
        let scanned = scan(&batch, UNFOLDED_BYTES, |_| {
            seen += 1;
            std::ops::ControlFlow::Continue(())
        });
        if let Ok(unfolded) = Unfolded::new(&batch, UNFOLDED_BYTES) {
            let read = unfolded.iter().map_while(Result::ok);
            let sound = read.take_while(|record| record.check_headers().is_ok()).count();
            assert_eq!(seen, sound, "{scanned:?}");
        }
        let target = Target { codec: Codec::Lz4, level: None, batch_max_bytes: 2 * UNFOLDED_BYTES };
        let _ = recompress(&batch, target, UNFOLDED_BYTES, |_| ());
    }
}

/// A file of the write-ahead log from its beginning on.
pub fn wal_file(bytes: &[u8]) {
    let _ = Pointer::decode(bytes);
    let block = bytes.get(..BLOCK_BYTES as usize).unwrap_or(bytes);
    let Ok(header) = FileHeader::decode(block) else { return };
    let mut scan = Scan::new(vec![header], Laxness::default());
    let mut last = FrameNumber(0);
    loop {
        match scan.step() {
            Step::Read { file, position, length } => {
                let from = usize::try_from(position).map_or(bytes.len(), |at| at.min(bytes.len()));
                let to = from.saturating_add(length as usize).min(bytes.len());
                scan.supply(file, position, Bytes::copy_from_slice(&bytes[from..to]));
            }
            Step::Frame(frame) => {
                assert!(frame.header.number > last, "frames rise");
                last = frame.header.number;
                let _ = frame.records().count();
            }
            Step::Finished(_) => return,
        }
    }
}

/// Calls `decode` with the bytes as they are, and with their checksum made right.
fn sealed(bytes: &[u8], decode: impl Fn(&Bytes)) {
    decode(&Bytes::copy_from_slice(bytes));
    let body = &bytes[..bytes.len().saturating_sub(4)];
    decode(&[body, &crc32c::crc32c(body).to_le_bytes()].concat().into());
}

/// The topic and the partition of a checkpoint or map, where `PREAMBLE` says.
fn identity(bytes: &[u8]) -> PartitionIdentity {
    let topic = bytes[8..24].try_into().expect("16 bytes");
    let partition = i32::from_le_bytes(bytes[24..28].try_into().expect("4 bytes"));
    PartitionIdentity { topic, partition, owner: wal::Owner::default() }
}

/// The log's part of a group checkpoint.
pub fn checkpoint(bytes: &[u8]) {
    sealed(bytes, |bytes| {
        if let Ok(checkpoint) = LogCheckpoint::decode(bytes, None) {
            let again = Bytes::from(checkpoint.encode(&identity(bytes)));
            assert_eq!(LogCheckpoint::decode(&again, None), Ok(checkpoint));
        }
    });
}

/// A `.map` file.
pub fn map(bytes: &[u8]) {
    sealed(bytes, |bytes| {
        if let Ok(map) = SegmentMap::decode(bytes, None) {
            let again = map.encode(&identity(bytes));
            assert_eq!(SegmentMap::decode(&again, None), Ok(map));
        }
    });
}

/// The body of a checkpoint record: Raft's head, and a machine's bytes behind it.
pub fn raft_checkpoint(bytes: &[u8]) {
    let _ = raft::decode_checkpoint(&Bytes::copy_from_slice(bytes));
}

/// A frame between the replicas of a group.
pub fn raft_message(bytes: &[u8]) {
    let _ = raft::transport::decode(&Bytes::copy_from_slice(bytes));
}

/// A command of the metadata group.
pub fn command(bytes: &[u8]) {
    if let Ok((now_ms, command)) = Command::decode(bytes) {
        let again = command.encode(now_ms);
        assert_eq!(Command::decode(&again), Ok((now_ms, command)));
    }
}

/// A snapshot of the metadata group.
pub fn snapshot(bytes: &[u8]) {
    sealed(bytes, |bytes| {
        if let Ok(state) = State::restore(bytes) {
            let again = state.snapshot();
            assert_eq!(State::restore(&again).map(|state| state.snapshot()), Ok(again));
        }
    });
}

/// A record of `__consumer_offsets`: one byte says how long the key is, 255 that there is no value.
pub fn offsets(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (key, value) = match rest.split_at_checked(usize::from(*length)) {
        Some((key, value)) => (key, Some(value)),
        None => (rest, None),
    };
    if let Ok(record) = Record::decode(key, value) {
        let raw = record.encode();
        assert_eq!(Record::decode(&raw.0, raw.1.as_deref()), Ok(record));
    }
}

/// A stored index, whole, as it is and with the checksums of its blocks made right.
pub fn index(bytes: &[u8]) {
    let mut sealed = bytes.to_vec();
    for block in sealed.chunks_exact_mut(INDEX_BLOCK_BYTES) {
        let crc = crc32c::crc32c(&block[8..]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    let Some(base) = bytes.get(16..24).and_then(|base| base.try_into().ok()) else { return };
    // Segments lie where offsets can be: below what 63 bits hold, by more than one segment.
    let base = Offset(i64::from_le_bytes(base).clamp(0, i64::MAX >> 1));
    for bytes in [bytes, &sealed] {
        for (number, block) in bytes.chunks(INDEX_BLOCK_BYTES).enumerate() {
            if let Ok(block) = IndexBlock::verify(block, base, number as u32) {
                assert_eq!(block.iter().count(), block.entry_count());
            }
        }
        for seek in [0, base.0, base.0 + 1000, i64::MAX] {
            let _ = find_stored(bytes, base, Seek::Offset(Offset(seek)));
            let _ = find_stored(bytes, base, Seek::Time(seek));
        }
    }
}

/// A snapshot of a partition's producers.
pub fn producers(bytes: &[u8]) {
    sealed(bytes, |bytes| {
        if let Ok(states) = ProducerStates::restore(bytes, i64::MAX) {
            let again = states.snapshot(states.committed_index());
            let read = ProducerStates::restore(&again, i64::MAX).expect("what was written");
            assert_eq!(read.snapshot(read.committed_index()), again);
        }
    });
}

/// A control entry of a partition.
pub fn control(bytes: &[u8]) {
    if let Ok(control) = Control::decode(bytes) {
        assert_eq!(control.encode(), bytes);
    }
}

/// What a member of a group subscribes to.
pub fn subscription(bytes: &[u8]) {
    if let Ok(topics) = subscription::topics(bytes) {
        assert!(topics.iter().map(String::len).sum::<usize>() <= bytes.len());
    }
}
