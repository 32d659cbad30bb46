//! Looking at the records of a batch in passing, and moving them to another codec on the way.
//!
//! For what the broker wants to know of records: offset, time, whether there is a key. Keys,
//! values and headers are checked for their lengths and passed over; compressed records are
//! unfolded into a buffer of fixed size. So a batch costs no more memory than its codec's window,
//! whatever it unfolds to. Assumes lies as `records.rs` does. Pure; on any shard.

use std::io;
use std::ops::{ControlFlow, Range};

use crate::batch::{Batch, BatchHeader, TimestampType, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use crate::compress::{Codec, CompressError, Folding};
use crate::reader::Reader;
use crate::records::{seal, RecordError, Unfolded};
use crate::unfold::{Unfolding, STEP_BYTES};

/// What is seen of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub offset: i64,
    /// By the batch's timestamp type.
    pub timestamp: i64,
    pub has_key: bool,
}

/// Looks at the records of a batch one after the other, until `see` breaks. Fails when the batch
/// cannot be read to there, unfolds to more than `limit_bytes`, or holds other records than its
/// header counts.
pub fn scan(
    batch: &Batch,
    limit_bytes: usize,
    mut see: impl FnMut(Seen) -> ControlFlow<()>,
) -> Result<(), RecordError> {
    let codec = batch.header.codec().ok_or(RecordError::UnknownCodec)?;
    if codec == Codec::None {
        return scan_plain(batch, see);
    }
    let body = batch.body();
    let mut window = Window::new(Unfolding::new(codec, &body, limit_bytes)?, None);
    window.records(&batch.header, &mut see)
}

/// The records of a plain batch lie in memory already.
fn scan_plain(
    batch: &Batch,
    mut see: impl FnMut(Seen) -> ControlFlow<()>,
) -> Result<(), RecordError> {
    for record in &Unfolded::new(batch, 0)? {
        let record = record?;
        record.check_headers()?;
        let (offset, timestamp, has_key) = (record.offset, record.timestamp, record.key.is_some());
        if see(Seen { offset, timestamp, has_key }).is_break() {
            break;
        }
    }
    Ok(())
}

/// How a batch is moved to another codec.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub codec: Codec,
    /// The codec's own, see [`crate::compress::compress`].
    pub level: Option<i32>,
    /// The new batch has at most so many bytes.
    pub batch_max_bytes: usize,
}

/// The same records under another codec, with length and checksum to match; `see` sees them all.
/// Fails as [`scan`] does, and when the new batch would be too large.
pub fn recompress(
    batch: &Batch,
    target: Target,
    limit_bytes: usize,
    mut see: impl FnMut(Seen),
) -> Result<Batch, RecordError> {
    let mut see = |seen| {
        see(seen);
        ControlFlow::Continue(())
    };
    let from = batch.header.codec().ok_or(RecordError::UnknownCodec)?;
    let folded_max_bytes = target.batch_max_bytes.saturating_sub(HEADER_BYTES);
    let folding = Folding::new(target.codec, target.level, folded_max_bytes);
    let mut tap = Tap { folding: folding.map_err(|e| target.fault(&e))?, target };
    let body = batch.body();
    if from == Codec::None {
        scan_plain(batch, see)?;
        tap.write(&body)?;
    } else {
        let unfolding = Unfolding::new(from, &body, limit_bytes)?;
        Window::new(unfolding, Some(&mut tap)).records(&batch.header, &mut see)?;
    }
    let folded = tap.folding.finish().map_err(|e| target.fault(&e))?;
    let length = folded.len() + HEADER_BYTES - LENGTH_PREFIX_BYTES;
    let mut header = batch.header;
    header.batch_length = i32::try_from(length).map_err(|_| target.too_large())?;
    header.set_codec(target.codec);
    Ok(seal(header, &folded))
}

impl Target {
    fn too_large(&self) -> CompressError {
        CompressError::FoldedTooLarge { limit_bytes: self.batch_max_bytes }
    }

    fn fault(&self, error: &io::Error) -> CompressError {
        match error.kind() {
            io::ErrorKind::FileTooLarge => self.too_large(),
            _ => CompressError::Damaged,
        }
    }
}

/// Takes all that is unfolded.
struct Tap {
    folding: Folding,
    target: Target,
}

impl Tap {
    fn write(&mut self, bytes: &[u8]) -> Result<(), CompressError> {
        self.folding.write(bytes).map_err(|error| self.target.fault(&error))
    }
}

/// The part of compressed records that is unfolded now.
struct Window<'a> {
    from: Unfolding<'a>,
    tap: Option<&'a mut Tap>,
    buffer: Vec<u8>,
    /// What of the buffer was not taken yet.
    filled: Range<usize>,
    /// What is left of the record under way: nothing is read beyond its end.
    record_bytes: usize,
}

const VARINT_MAX_BYTES: usize = 5;
const VARLONG_MAX_BYTES: usize = 10;

impl<'a> Window<'a> {
    fn new(from: Unfolding<'a>, tap: Option<&'a mut Tap>) -> Window<'a> {
        Window { from, tap, buffer: vec![0; STEP_BYTES], filled: 0..0, record_bytes: 0 }
    }

    fn records(
        &mut self,
        header: &BatchHeader,
        see: &mut impl FnMut(Seen) -> ControlFlow<()>,
    ) -> Result<(), RecordError> {
        let mut last_delta = -1;
        for left in (0..header.record_count.max(0)).rev() {
            let seen = self.record(header, &mut last_delta)?;
            if left == 0 && !self.is_at_end()? {
                return Err(RecordError::Trailing);
            }
            if see(seen).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn record(&mut self, header: &BatchHeader, last_delta: &mut i64) -> Result<Seen, RecordError> {
        self.record_bytes = VARINT_MAX_BYTES;
        self.record_bytes = self.length()?.ok_or(RecordError::Malformed)?;
        self.skip(1)?;
        let timestamp_delta = self.varlong(VARLONG_MAX_BYTES)?;
        let offset_delta = i64::from(self.varint()?);
        if offset_delta <= *last_delta || offset_delta > i64::from(header.last_offset_delta) {
            return Err(RecordError::Offset(offset_delta));
        }
        *last_delta = offset_delta;
        let has_key = self.field()?;
        self.field()?;
        self.headers()?;
        let timestamp = match header.timestamp_type() {
            TimestampType::LogAppendTime => header.max_timestamp,
            TimestampType::CreateTime => header.base_timestamp.wrapping_add(timestamp_delta),
        };
        let offset = header.base_offset.wrapping_add(offset_delta);
        Ok(Seen { offset, timestamp, has_key })
    }

    fn headers(&mut self) -> Result<(), RecordError> {
        let count = self.varint()?;
        // A header takes at least two bytes.
        if count < 0 || count as usize > self.record_bytes / 2 {
            return Err(RecordError::Malformed);
        }
        for _ in 0..count {
            if !self.field()? {
                return Err(RecordError::Malformed);
            }
            self.field()?;
        }
        match self.record_bytes {
            0 => Ok(()),
            _ => Err(RecordError::Malformed),
        }
    }

    /// Passes over a nullable field; whether it is there.
    fn field(&mut self) -> Result<bool, RecordError> {
        let length = self.length()?;
        self.skip(length.unwrap_or(0))?;
        Ok(length.is_some())
    }

    /// A nullable length. Whether it fits its record shows when it is passed over.
    fn length(&mut self) -> Result<Option<usize>, RecordError> {
        match self.varint()? {
            -1 => Ok(None),
            length @ 0.. => Ok(Some(length as usize)),
            _ => Err(RecordError::Malformed),
        }
    }

    fn varint(&mut self) -> Result<i32, RecordError> {
        let value = self.varlong(VARINT_MAX_BYTES)?;
        i32::try_from(value).map_err(|_| RecordError::Malformed)
    }

    /// A zigzag varint of at most so many bytes.
    fn varlong(&mut self, bytes_max: usize) -> Result<i64, RecordError> {
        let (mut bytes, mut taken) = ([0; VARLONG_MAX_BYTES], 0);
        while taken < bytes_max {
            self.ensure(1)?;
            let byte = self.buffer[self.filled.start];
            self.skip(1)?;
            bytes[taken] = byte;
            taken += 1;
            if byte < 0x80 {
                return Ok(Reader::new(&bytes[..taken]).varlong()?);
            }
        }
        Err(RecordError::Malformed)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), RecordError> {
        let mut left = bytes;
        while left > 0 {
            self.ensure(left)?;
            let step = left.min(self.filled.len());
            self.filled.start += step;
            self.record_bytes -= step;
            left -= step;
        }
        Ok(())
    }

    /// Makes sure that the record has so many bytes left by its own word, and that the next of
    /// them is in the buffer.
    fn ensure(&mut self, bytes: usize) -> Result<(), RecordError> {
        if bytes > self.record_bytes || self.is_at_end()? {
            return Err(RecordError::Malformed);
        }
        Ok(())
    }

    fn is_at_end(&mut self) -> Result<bool, RecordError> {
        if self.filled.is_empty() {
            self.filled = 0..self.from.read(&mut self.buffer)?;
            if let Some(tap) = &mut self.tap {
                tap.write(&self.buffer[..self.filled.end])?;
            }
        }
        Ok(self.filled.is_empty())
    }
}
