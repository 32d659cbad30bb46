//! Zstandard windows: whatever a client of Kafka may choose is read, also what lies far back in a
//! large batch; beyond that is what Kafka's own decoder refuses as well.

use std::io::Write;

use chronik_net::compress::{Codec, CompressError};
use chronik_net::unfold::decompress;
use zstd::stream::raw::CParameter;

/// Windows are powers of two: 128 MiB is that of level 22, the highest, and the most that decoders
/// take unless they are told to.
const WINDOW_LOG_MAX: u32 = 27;
/// Behind so many bytes the same ones come again.
const DISTANCE_BYTES: usize = 12 << 20;
const LIMIT_BYTES: usize = 64 << 20;

/// Bytes that do not shrink, twice: only a window of more than `DISTANCE_BYTES` finds them again.
fn far_repeated() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(DISTANCE_BYTES)
    .collect();
    bytes.extend_from_within(..);
    bytes
}

/// As a client writes it that does not know the length beforehand.
fn compressed(bytes: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.set_parameter(CParameter::WindowLog(window_log)).unwrap();
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(true)).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_window_that_a_client_may_choose_is_read() {
    let bytes = far_repeated();
    for window_log in [10, 21, 23, 24, 25, WINDOW_LOG_MAX] {
        let folded = compressed(&bytes, window_log);
        let reaches_back = folded.len() < bytes.len() * 3 / 4;
        assert_eq!(reaches_back, 1 << window_log > DISTANCE_BYTES, "window 2^{window_log}");
        let unfolded = decompress(Codec::Zstd, &folded, LIMIT_BYTES);
        assert!(unfolded.is_ok_and(|unfolded| unfolded == bytes), "window 2^{window_log}");
    }
    // The length known beforehand: the window is the content.
    let folded = zstd::bulk::compress(&bytes, 3).unwrap();
    let unfolded = decompress(Codec::Zstd, &folded, LIMIT_BYTES);
    assert!(unfolded.is_ok_and(|unfolded| unfolded == bytes));
}

#[test]
fn a_larger_window_is_refused_as_in_kafka() {
    let folded = compressed(b"small, in a window of 256 MiB", WINDOW_LOG_MAX + 1);
    let refused = decompress(Codec::Zstd, &folded, LIMIT_BYTES);
    assert!(matches!(refused, Err(CompressError::Damaged)), "{refused:?}");
}
