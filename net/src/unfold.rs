//! Unfolding compressed records step by step, with a limit on what comes out.
//!
//! A compressed batch is input from a stranger: a few kilobytes can unfold to gigabytes. So the
//! broker looks at what is inside in passing (`scan.rs`), and never holds it whole. What a step
//! holds is what the codec needs for its window: with zstd up to the limit, with the others less
//! than 8 MiB, but for one raw block of snappy, which is unfolded whole. Pure and synchronous; on
//! any shard.

use std::io::Read;

use crate::batch::Batch;
use crate::compress::{Codec, CompressError, XERIAL_HEADER};

/// What a small batch may unfold to where the broker looks inside it.
const UNFOLDED_MIN_BYTES: usize = 32 * 1024 * 1024;
/// And a large one, in multiples of its size.
const UNFOLDED_RATIO: usize = 8;

/// Bytes that the records of this batch may unfold to where the broker looks inside it. A batch
/// is at most `max.message.bytes` long: this bounds memory and time by the same number.
pub fn unfolded_max_bytes(batch: &Batch) -> usize {
    UNFOLDED_MIN_BYTES.max(batch.bytes.len().saturating_mul(UNFOLDED_RATIO))
}

/// Compressed bytes that are being unfolded.
pub struct Unfolding<'a> {
    from: Decoder<'a>,
    left_bytes: usize,
    limit_bytes: usize,
}

enum Decoder<'a> {
    Plain(&'a [u8]),
    Gzip(Box<flate2::read::MultiGzDecoder<&'a [u8]>>),
    Snappy(Snappy<'a>),
    Lz4(lz4::Decoder<&'a [u8]>),
    Zstd(zstd::stream::read::Decoder<'static, &'a [u8]>),
}

impl<'a> Unfolding<'a> {
    /// Unfolds `input` to at most `limit_bytes`.
    pub fn new(
        codec: Codec,
        input: &'a [u8],
        limit_bytes: usize,
    ) -> Result<Unfolding<'a>, CompressError> {
        let damaged = |_| CompressError::Damaged;
        let from = match codec {
            Codec::None => Decoder::Plain(input),
            Codec::Gzip => Decoder::Gzip(Box::new(flate2::read::MultiGzDecoder::new(input))),
            Codec::Snappy => Decoder::Snappy(Snappy::new(input)?),
            Codec::Lz4 => Decoder::Lz4(lz4::Decoder::new(input).map_err(damaged)?),
            Codec::Zstd => {
                Decoder::Zstd(zstd::stream::read::Decoder::with_buffer(input).map_err(damaged)?)
            }
        };
        Ok(Unfolding { from, left_bytes: limit_bytes, limit_bytes })
    }

    /// The next bytes; 0 of them at the end.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, CompressError> {
        if self.left_bytes == 0 {
            return match self.step(&mut [0])? {
                0 => Ok(0),
                _ => Err(CompressError::TooLarge { limit_bytes: self.limit_bytes }),
            };
        }
        let room = out.len().min(self.left_bytes);
        let read = self.step(&mut out[..room])?;
        self.left_bytes -= read;
        Ok(read)
    }

    fn step(&mut self, out: &mut [u8]) -> Result<usize, CompressError> {
        let read = match &mut self.from {
            Decoder::Plain(rest) => rest.read(out),
            Decoder::Gzip(from) => from.read(out),
            Decoder::Lz4(from) => from.read(out),
            Decoder::Zstd(from) => from.read(out),
            Decoder::Snappy(from) => return from.read(out, self.left_bytes, self.limit_bytes),
        };
        read.map_err(|_| CompressError::Damaged)
    }
}

/// Unfolds `input` into memory, at most `limit_bytes`. Memory follows the bytes that come out.
pub fn decompress(
    codec: Codec,
    input: &[u8],
    limit_bytes: usize,
) -> Result<Vec<u8>, CompressError> {
    let mut unfolding = Unfolding::new(codec, input, limit_bytes)?;
    let (mut out, mut step) = (Vec::new(), vec![0; STEP_BYTES]);
    loop {
        match unfolding.read(&mut step)? {
            0 => return Ok(out),
            read => out.extend_from_slice(&step[..read]),
        }
    }
}

/// What is unfolded at a time.
pub(crate) const STEP_BYTES: usize = 32 * 1024;

/// The two forms of snappy: the blocks of snappy-java behind a header, or one raw block.
struct Snappy<'a> {
    /// Blocks that are still folded: each behind its length, or all of it one block.
    rest: &'a [u8],
    is_framed: bool,
    block: Vec<u8>,
    position: usize,
}

/// What snappy-java's magic takes of its header.
const XERIAL_MAGIC_BYTES: usize = 8;
/// A raw block names its own output length, of which snappy expands at most about 64 times: a
/// greater claim is a lie, and is not allocated.
const SNAPPY_RATIO_MAX: usize = 64;

impl<'a> Snappy<'a> {
    fn new(input: &'a [u8]) -> Result<Snappy<'a>, CompressError> {
        let is_framed = input.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]);
        let rest = match is_framed {
            true => input.get(XERIAL_HEADER.len()..).ok_or(CompressError::Damaged)?,
            // Nothing at all is no block.
            false if input.is_empty() => return Err(CompressError::Damaged),
            false => input,
        };
        Ok(Snappy { rest, is_framed, block: Vec::new(), position: 0 })
    }

    fn read(
        &mut self,
        out: &mut [u8],
        left_bytes: usize,
        limit_bytes: usize,
    ) -> Result<usize, CompressError> {
        while self.position == self.block.len() {
            if self.rest.is_empty() {
                return Ok(0);
            }
            let folded = self.next_block()?;
            self.unfold(folded, left_bytes, limit_bytes)?;
        }
        let read = out.len().min(self.block.len() - self.position);
        out[..read].copy_from_slice(&self.block[self.position..self.position + read]);
        self.position += read;
        Ok(read)
    }

    fn next_block(&mut self) -> Result<&'a [u8], CompressError> {
        if !self.is_framed {
            return Ok(std::mem::take(&mut self.rest));
        }
        let (length, after) = self.rest.split_first_chunk::<4>().ok_or(CompressError::Damaged)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, after) = after.split_at_checked(length).ok_or(CompressError::Damaged)?;
        self.rest = after;
        Ok(block)
    }

    fn unfold(
        &mut self,
        folded: &[u8],
        left_bytes: usize,
        limit_bytes: usize,
    ) -> Result<(), CompressError> {
        let length = snap::raw::decompress_len(folded).map_err(|_| CompressError::Damaged)?;
        if length > left_bytes {
            return Err(CompressError::TooLarge { limit_bytes });
        }
        if length > folded.len().saturating_mul(SNAPPY_RATIO_MAX) {
            return Err(CompressError::Damaged);
        }
        self.position = 0;
        self.block.resize(length, 0);
        match snap::raw::Decoder::new().decompress(folded, &mut self.block) {
            Ok(written) if written == length => Ok(()),
            _ => Err(CompressError::Damaged),
        }
    }
}
