//! The four codecs of record batches: names, numbers, and folding, with a limit on what comes out.
//!
//! Output is readable by the Java client: LZ4 frames have independent 64 KiB blocks, snappy has
//! the framing of snappy-java. The way back is `unfold.rs`. Pure and synchronous; on any shard.

use std::io::Write;

/// Bytes a batch may unfold to for a reader that wants all of its records at once, as the
/// command line does. Inside the broker `unfold::unfolded_max_bytes` holds.
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

/// Why bytes could not be unfolded or folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompressError {
    /// The bytes are not what the codec writes.
    #[error("the compressed records are damaged")]
    Damaged,
    /// The output passes the limit.
    #[error("the records unfold to more than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    /// The output of the new codec passes the limit.
    #[error("the records take more than {limit_bytes} bytes in the codec of the topic")]
    FoldedTooLarge { limit_bytes: usize },
}

/// Folds `input`. The level is the codec's own number (`compression.gzip.level` and so on);
/// nothing or a level outside its range means Kafka's default.
pub fn compress(codec: Codec, level: Option<i32>, input: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut folding = Folding::new(codec, level, usize::MAX)?;
    folding.write(input)?;
    folding.finish()
}

/// Bytes that are being folded, step by step; what comes out has a limit.
pub struct Folding(Encoder);

enum Encoder {
    Plain(Bounded),
    Gzip(flate2::write::GzEncoder<Bounded>),
    Snappy(Box<Snappy>),
    Lz4(lz4::Encoder<Bounded>),
    Zstd(zstd::stream::write::Encoder<'static, Bounded>),
}

impl Folding {
    /// Fails a later step with [`std::io::ErrorKind::FileTooLarge`] when more than
    /// `folded_max_bytes` come out. The level is as in [`compress`].
    pub fn new(
        codec: Codec,
        level: Option<i32>,
        folded_max_bytes: usize,
    ) -> std::io::Result<Folding> {
        let out = Bounded { bytes: Vec::new(), max_bytes: folded_max_bytes };
        Ok(Folding(match codec {
            Codec::None => Encoder::Plain(out),
            Codec::Gzip => {
                let level = level.filter(|level| (1..=9).contains(level)).unwrap_or(6);
                let level = flate2::Compression::new(level as u32);
                Encoder::Gzip(flate2::write::GzEncoder::new(out, level))
            }
            Codec::Snappy => Encoder::Snappy(Box::new(Snappy::new(out)?)),
            Codec::Lz4 => Encoder::Lz4(lz4_encoder(level, out)?),
            Codec::Zstd => {
                let range = zstd::compression_level_range();
                let level = level.filter(|level| range.contains(level)).unwrap_or(3);
                Encoder::Zstd(zstd::stream::write::Encoder::new(out, level)?)
            }
        }))
    }

    pub fn write(&mut self, input: &[u8]) -> std::io::Result<()> {
        match &mut self.0 {
            Encoder::Plain(out) => out.write_all(input),
            Encoder::Gzip(encoder) => encoder.write_all(input),
            Encoder::Snappy(encoder) => encoder.write(input),
            Encoder::Lz4(encoder) => encoder.write_all(input),
            Encoder::Zstd(encoder) => encoder.write_all(input),
        }
    }

    pub fn finish(self) -> std::io::Result<Vec<u8>> {
        let out = match self.0 {
            Encoder::Plain(out) => out,
            Encoder::Gzip(encoder) => encoder.finish()?,
            Encoder::Snappy(encoder) => (*encoder).finish()?,
            Encoder::Lz4(encoder) => {
                let (out, result) = encoder.finish();
                result?;
                out
            }
            Encoder::Zstd(encoder) => encoder.finish()?,
        };
        Ok(out.bytes)
    }
}

/// Bytes that never become more than a limit.
struct Bounded {
    bytes: Vec<u8>,
    max_bytes: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > self.max_bytes - self.bytes.len() {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What snappy-java writes first: magic, version 1, lowest compatible version 1.
pub(crate) const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// The framing of snappy-java.
struct Snappy {
    encoder: snap::raw::Encoder,
    /// Less than a block of input.
    pending: Vec<u8>,
    out: Bounded,
}

impl Snappy {
    fn new(mut out: Bounded) -> std::io::Result<Snappy> {
        out.write_all(XERIAL_HEADER)?;
        Ok(Snappy { encoder: snap::raw::Encoder::new(), pending: Vec::new(), out })
    }

    fn write(&mut self, mut input: &[u8]) -> std::io::Result<()> {
        while self.pending.len() + input.len() >= XERIAL_BLOCK_BYTES {
            let (now, later) = input.split_at(XERIAL_BLOCK_BYTES - self.pending.len());
            self.pending.extend_from_slice(now);
            self.block()?;
            input = later;
        }
        self.pending.extend_from_slice(input);
        Ok(())
    }

    fn block(&mut self) -> std::io::Result<()> {
        let folded = self.encoder.compress_vec(&self.pending)?;
        self.pending.clear();
        self.out.write_all(&(folded.len() as u32).to_be_bytes())?;
        self.out.write_all(&folded)
    }

    fn finish(mut self) -> std::io::Result<Bounded> {
        if !self.pending.is_empty() {
            self.block()?;
        }
        Ok(self.out)
    }
}

fn lz4_encoder(level: Option<i32>, out: Bounded) -> std::io::Result<lz4::Encoder<Bounded>> {
    let level = level.filter(|level| (1..=17).contains(level)).unwrap_or(9);
    lz4::EncoderBuilder::new()
        .level(level as u32)
        .block_mode(lz4::BlockMode::Independent)
        .block_size(lz4::BlockSize::Max64KB)
        .checksum(lz4::ContentChecksum::NoChecksum)
        .build(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unfold::decompress;
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
