//! Compressed batches that unfold to hundreds of megabytes: refused where the broker must look
//! inside, kept where it need not, and either way it stays small and serves others.

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, ListOffsetsRequest, ListOffsetsResponse};
use net::compress::{Codec, Folding};

use crate::hostile::{name, produce, varint, Scene};
use crate::support::memory::Memory;
use crate::support::wire::Wire;

/// More than the broker unfolds of such batches, by far.
const UNFOLDED_BYTES: usize = 128 << 20;
/// Of the topics: snappy makes 6 MiB of the above, the other codecs below one.
const MESSAGE_MAX: &str = "8388608";
/// What all of it together may cost the broker (scorecard R22).
const MEMORY_BYTES: u64 = 64 << 20;

/// A batch of one record without a key, whose value is zeros.
fn bomb(codec: Codec) -> Vec<u8> {
    let mut head = vec![0, 0, 0]; // attributes, timestamp delta, offset delta
    varint(&mut head, -1); // no key
    varint(&mut head, UNFOLDED_BYTES as i64);
    let mut folding = Folding::new(codec, Some(1), usize::MAX).unwrap();
    let mut length = Vec::new();
    varint(&mut length, (head.len() + UNFOLDED_BYTES + 1) as i64);
    folding.write(&length).unwrap();
    folding.write(&head).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..UNFOLDED_BYTES / zeros.len() {
        folding.write(&zeros).unwrap();
    }
    folding.write(&[0]).unwrap(); // headers
    crate::hostile::batch_of(&folding.finish().unwrap(), codec as i16, 1)
}

/// The error code and offset of a look-up by time.
fn offset_at(wire: &mut Wire, topic: &str, timestamp: i64) -> (i16, i64) {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
    let asked = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
    let answer: ListOffsetsResponse = wire.ask(ApiKey::ListOffsets, 7, &request);
    let partition = &answer.topics[0].partitions[0];
    (partition.error_code, partition.offset)
}

#[test]
fn decompression_bombs_cost_little_and_disturb_nobody() {
    // With files of the log that take batches of that size.
    let mut scene = Scene::with(&["--wal-budget-bytes", "512MiB"]);
    let mut wire = scene.stranger();
    let limit = ("max.message.bytes", MESSAGE_MAX);
    for (topic, config) in [
        ("plain", ("compression.type", "uncompressed")),
        ("zstd", ("compression.type", "zstd")),
        ("gzip", ("compression.type", "gzip")),
        ("keyed", ("cleanup.policy", "compact")),
        ("kept", ("compression.type", "producer")),
    ] {
        crate::hostile::create(&mut wire, topic, &[limit, config]);
    }
    let bombs: Vec<_> = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd]
        .map(|codec| (codec, bomb(codec)))
        .into();
    let before = Memory::of(scene.broker.process()).peak_resident_bytes;
    for (offset, (codec, bomb)) in bombs.iter().enumerate() {
        let anew = if *codec == Codec::Zstd { "gzip" } else { "zstd" };
        for (topic, expected) in [
            ("plain", 10), // MESSAGE_TOO_LARGE: that is what it is without compression
            (anew, 2),     // CORRUPT_MESSAGE
            ("keyed", 2),
        ] {
            let answer = produce(&mut wire, topic, bomb.clone());
            assert_eq!(answer, (expected, -1), "{codec:?} to {topic}");
        }
        assert_eq!(produce(&mut wire, "kept", bomb.clone()), (0, offset as i64), "{codec:?}");
        scene.undisturbed();
    }
    // The first of them is met by every look-up.
    assert_eq!(offset_at(&mut wire, "kept", 1).0, 56, "KAFKA_STORAGE_ERROR");
    scene.undisturbed();
    let grown = Memory::of(scene.broker.process()).peak_resident_bytes.saturating_sub(before);
    assert!(grown < MEMORY_BYTES, "{} MiB more for bombs", grown >> 20);
}

/// Just below the limit every codec is taken, and stored in the codec of the topic.
#[test]
fn a_batch_that_unfolds_far_but_fits_is_taken() {
    let scene = Scene::new();
    let mut wire = scene.stranger();
    crate::hostile::create(&mut wire, "gzip", &[("compression.type", "gzip")]);
    let value = vec![b'x'; 16 << 20];
    for (offset, codec) in [Codec::Lz4, Codec::Zstd, Codec::Snappy].into_iter().enumerate() {
        let builder = net::builder::BatchBuilder::new().codec(codec);
        let batch = builder.record(1_700_000_000_000, None, Some(&value)).build().unwrap();
        assert!(batch.bytes.len() < 1 << 20, "{codec:?}");
        assert_eq!(produce(&mut wire, "gzip", batch.bytes.to_vec()), (0, offset as i64));
        assert_eq!(offset_at(&mut wire, "gzip", 1), (0, 0), "found inside the batch");
    }
}

/// Of more than 8 MiB, the window that some decoders stop at, and that the broker must look into.
#[test]
fn a_large_zstd_batch_is_taken_and_stored_anew() {
    let scene = Scene::with(&["--wal-budget-bytes", "1GiB"]);
    let mut wire = scene.stranger();
    let configs = [("compression.type", "gzip"), ("max.message.bytes", "12000000")];
    crate::hostile::create(&mut wire, "gzip", &configs);
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let value: Vec<u8> = (0..10 << 20).map(|_| noise()).collect();
    let builder = net::builder::BatchBuilder::new().codec(Codec::Zstd);
    let batch = builder.record(1_700_000_000_000, None, Some(&value)).build().unwrap();
    assert!(batch.bytes.len() > 10 << 20);
    assert_eq!(produce(&mut wire, "gzip", batch.bytes.to_vec()), (0, 0));
    assert_eq!(offset_at(&mut wire, "gzip", 1), (0, 0), "found inside the batch");
}
