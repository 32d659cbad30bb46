//! The four codecs of record batches, with a limit on what comes out.
//!
//! A compressed batch is input from a stranger: a few kilobytes can unfold to gigabytes. So
//! decompression always takes a limit in bytes, grows its output as bytes really appear, and
//! stops at the limit. Output is readable by the Java client: LZ4 frames have independent 64 KiB
//! blocks, snappy has the framing of snappy-java. Pure and synchronous: big batches belong on a
//! blocking thread, which is the caller's decision.

use std::io::{Read, Write};

/// Bytes a batch may unfold to when the caller has no tighter bound.
pub const DECOMPRESSED_MAX_BYTES: usize = 256 * 1024 * 1024;

/// How the records of a batch are compressed: bits 0 to 2 of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The codec of these attribute bits; 5 to 7 mean nothing.
    pub const fn from_bits(bits: u8) -> Option<Codec> {
        match bits {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// The name in `compression.type`; `None` is `uncompressed` there.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "uncompressed",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// The codec of a `compression.type` value; `producer` names none.
    pub fn from_name(name: &str) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

/// Why compressed bytes could not be unfolded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompressError {
    /// The bytes are not what the codec writes.
    #[error("the compressed records are damaged")]
    Damaged,
    /// The output passes the limit.
    #[error("the records unfold to more than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
}

/// Unfolds `input` to at most `limit_bytes`.
pub fn decompress(
    codec: Codec,
    input: &[u8],
    limit_bytes: usize,
) -> Result<Vec<u8>, CompressError> {
    match codec {
        Codec::None if input.len() > limit_bytes => Err(CompressError::TooLarge { limit_bytes }),
        Codec::None => Ok(input.to_vec()),
        Codec::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(input), limit_bytes),
        Codec::Snappy => decompress_snappy(input, limit_bytes),
        Codec::Lz4 => {
            let decoder = lz4::Decoder::new(input).map_err(|_| CompressError::Damaged)?;
            read_bounded(decoder, limit_bytes)
        }
        Codec::Zstd => {
            let decoder = zstd::stream::Decoder::with_buffer(input);
            read_bounded(decoder.map_err(|_| CompressError::Damaged)?, limit_bytes)
        }
    }
}

/// Folds `input`. The level is the codec's own number (`compression.gzip.level` and so on);
/// nothing or a level outside its range means Kafka's default.
pub fn compress(codec: Codec, level: Option<i32>, input: &[u8]) -> std::io::Result<Vec<u8>> {
    match codec {
        Codec::None => Ok(input.to_vec()),
        Codec::Gzip => {
            let level = level.filter(|level| (1..=9).contains(level)).unwrap_or(6);
            let level = flate2::Compression::new(level as u32);
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(input)?;
            encoder.finish()
        }
        Codec::Snappy => compress_snappy(input),
        Codec::Lz4 => compress_lz4(level, input),
        Codec::Zstd => {
            let range = zstd::compression_level_range();
            let level = level.filter(|level| range.contains(level)).unwrap_or(3);
            zstd::bulk::compress(input, level)
        }
    }
}

/// Reads to the end in steps, so that memory follows the bytes that came out.
fn read_bounded(from: impl Read, limit_bytes: usize) -> Result<Vec<u8>, CompressError> {
    let mut out = Vec::new();
    let mut bounded = from.take(limit_bytes as u64 + 1);
    bounded.read_to_end(&mut out).map_err(|_| CompressError::Damaged)?;
    if out.len() > limit_bytes {
        return Err(CompressError::TooLarge { limit_bytes });
    }
    Ok(out)
}

/// What snappy-java writes first: magic, version 1, lowest compatible version 1.
const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";
const XERIAL_MAGIC_BYTES: usize = 8;
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

fn decompress_snappy(input: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressError> {
    let mut out = Vec::new();
    if !input.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) {
        append_snappy_block(&mut out, input, limit_bytes)?;
        return Ok(out);
    }
    let mut rest = input.get(XERIAL_HEADER.len()..).ok_or(CompressError::Damaged)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(CompressError::Damaged)?;
        let length = u32::from_be_bytes(*length) as usize;
        if length > after.len() {
            return Err(CompressError::Damaged);
        }
        let (block, after) = after.split_at(length);
        append_snappy_block(&mut out, block, limit_bytes)?;
        rest = after;
    }
    Ok(out)
}

/// A raw block names its own output length, of which snappy expands at most about 64 times: a
/// greater claim is a lie, and is not allocated.
const SNAPPY_RATIO_MAX: usize = 64;

fn append_snappy_block(
    out: &mut Vec<u8>,
    block: &[u8],
    limit_bytes: usize,
) -> Result<(), CompressError> {
    let length = snap::raw::decompress_len(block).map_err(|_| CompressError::Damaged)?;
    if length > limit_bytes - out.len() {
        return Err(CompressError::TooLarge { limit_bytes });
    }
    if length > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(CompressError::Damaged);
    }
    let start = out.len();
    out.resize(start + length, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]);
    match written {
        Ok(written) if written == length => Ok(()),
        _ => Err(CompressError::Damaged),
    }
}

fn compress_snappy(input: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = XERIAL_HEADER.to_vec();
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(XERIAL_BLOCK_BYTES) {
        let length_at = out.len();
        out.resize(length_at + 4 + snap::raw::max_compress_len(block.len()), 0);
        let written = encoder.compress(block, &mut out[length_at + 4..])?;
        out[length_at..length_at + 4].copy_from_slice(&(written as u32).to_be_bytes());
        out.truncate(length_at + 4 + written);
    }
    Ok(out)
}

fn compress_lz4(level: Option<i32>, input: &[u8]) -> std::io::Result<Vec<u8>> {
    let level = level.filter(|level| (1..=17).contains(level)).unwrap_or(9);
    let mut encoder = lz4::EncoderBuilder::new()
        .level(level as u32)
        .block_mode(lz4::BlockMode::Independent)
        .block_size(lz4::BlockSize::Max64KB)
        .checksum(lz4::ContentChecksum::NoChecksum)
        .build(Vec::new())?;
    encoder.write_all(input)?;
    let (out, result) = encoder.finish();
    result.map(|()| out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_codec_gives_back_what_it_took(
            seed in proptest::collection::vec(any::<u8>(), 0..512),
            repeats in 0usize..200,
        ) {
            let input: Vec<u8> = seed.iter().copied().cycle().take(seed.len() * repeats).collect();
            for codec in Codec::ALL {
                let folded = compress(codec, None, &input).expect("compresses");
                prop_assert_eq!(&decompress(codec, &folded, input.len()).expect("unfolds"), &input);
            }
        }

        #[test]
        fn garbage_never_panics(input in proptest::collection::vec(any::<u8>(), 0..256)) {
            for codec in Codec::ALL {
                let _ = decompress(codec, &input, 1 << 16);
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = vec![0u8; 8 << 20];
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let folded = compress(codec, None, &bomb).expect("compresses");
            assert!(folded.len() < 1 << 20, "{codec:?}");
            let error = decompress(codec, &folded, 1 << 20).unwrap_err();
            assert_eq!(error, CompressError::TooLarge { limit_bytes: 1 << 20 }, "{codec:?}");
        }
    }

    #[test]
    fn raw_snappy_is_understood_and_its_lies_are_not_allocated() {
        let folded = snap::raw::Encoder::new().compress_vec(&[7; 1000]).expect("compresses");
        assert_eq!(decompress(Codec::Snappy, &folded, 1000), Ok(vec![7; 1000]));
        // A varint that claims 200 MiB from six bytes.
        let lie = [0x80, 0x80, 0x80, 0x64, 0x00, 0x01];
        assert_eq!(decompress(Codec::Snappy, &lie, 1 << 30), Err(CompressError::Damaged));
    }

    #[test]
    fn a_cut_stream_is_damage_or_shorter_never_longer() {
        let input = b"a record, and another record, and another record".repeat(50);
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let folded = compress(codec, None, &input).expect("compresses");
            for length in 0..folded.len() {
                match decompress(codec, &folded[..length], 1 << 20) {
                    Err(_) => {}
                    Ok(out) => assert!(input.starts_with(&out), "{codec:?} cut at {length}"),
                }
            }
        }
    }

    #[test]
    fn lz4_frames_are_what_the_java_client_reads() {
        let folded = compress(Codec::Lz4, None, b"hello").expect("compresses");
        assert_eq!(&folded[..4], &0x184d_2204u32.to_le_bytes());
        let flags = folded[4];
        assert_eq!(flags >> 6, 1, "version 1");
        assert_ne!(flags & 0x20, 0, "independent blocks");
        assert_eq!((folded[5] >> 4) & 7, 4, "64 KiB blocks");
    }
}
