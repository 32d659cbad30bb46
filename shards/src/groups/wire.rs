//! The primitive types of Kafka's message format, as far as the offsets topic needs them: fixed
//! and compact strings, bytes, counts, and tagged fields, which are skipped. Strings are written
//! in the fixed form only. A reader borrows its bytes and never allocates by a number it read.

use bytes::{BufMut, Bytes, BytesMut};

use super::records::RecordError;

pub(in crate::groups) struct Writer(BytesMut);

impl Writer {
    pub(in crate::groups) fn new() -> Writer {
        Writer(BytesMut::new())
    }

    pub(in crate::groups) fn finish(self) -> Bytes {
        self.0.freeze()
    }

    pub(in crate::groups) fn i16(&mut self, value: i16) {
        self.0.put_i16(value);
    }

    pub(in crate::groups) fn i32(&mut self, value: i32) {
        self.0.put_i32(value);
    }

    pub(in crate::groups) fn i64(&mut self, value: i64) {
        self.0.put_i64(value);
    }

    /// Longer strings never arrive: requests carry them with a 16-bit length, and compact ones
    /// are checked by the coordinator.
    pub(in crate::groups) fn string(&mut self, value: &str) {
        let length = i16::try_from(value.len()).expect("strings are at most 32767 bytes");
        self.i16(length);
        self.0.put_slice(value.as_bytes());
    }

    pub(in crate::groups) fn nullable(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None => self.i16(-1),
        }
    }

    pub(in crate::groups) fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.0.put_slice(value);
    }

    pub(in crate::groups) fn count(&mut self, count: usize) {
        self.i32(i32::try_from(count).expect("bounded by the frame limit"));
    }
}

pub(in crate::groups) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(in crate::groups) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(in crate::groups) fn finish(self) -> Result<(), RecordError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(RecordError::Trailing(left)),
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(RecordError::Truncated(what))?;
        self.0 = rest;
        Ok(*head)
    }

    fn slice(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(RecordError::Truncated(what))?;
        self.0 = rest;
        Ok(head)
    }

    pub(in crate::groups) fn i16(&mut self, what: &'static str) -> Result<i16, RecordError> {
        self.array(what).map(i16::from_be_bytes)
    }

    pub(in crate::groups) fn i32(&mut self, what: &'static str) -> Result<i32, RecordError> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub(in crate::groups) fn i64(&mut self, what: &'static str) -> Result<i64, RecordError> {
        self.array(what).map(i64::from_be_bytes)
    }

    fn varint(&mut self, what: &'static str) -> Result<u32, RecordError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array(what)?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Length(what))
    }

    /// `None` for null: -1, or 0 in the compact form, where lengths are one more than they say.
    fn length(
        &mut self,
        compact: bool,
        short: bool,
        what: &'static str,
    ) -> Result<Option<usize>, RecordError> {
        let length = match (compact, short) {
            (true, _) => i64::from(self.varint(what)?) - 1,
            (false, true) => i64::from(self.i16(what)?),
            (false, false) => i64::from(self.i32(what)?),
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| RecordError::Length(what)),
        }
    }

    pub(in crate::groups) fn nullable(
        &mut self,
        compact: bool,
        what: &'static str,
    ) -> Result<Option<String>, RecordError> {
        let Some(length) = self.length(compact, true, what)? else { return Ok(None) };
        let bytes = self.slice(length, what)?;
        let text = std::str::from_utf8(bytes).map_err(|_| RecordError::NotUtf8(what))?;
        Ok(Some(text.to_owned()))
    }

    pub(in crate::groups) fn string(
        &mut self,
        compact: bool,
        what: &'static str,
    ) -> Result<String, RecordError> {
        self.nullable(compact, what)?.ok_or(RecordError::Length(what))
    }

    pub(in crate::groups) fn bytes(
        &mut self,
        compact: bool,
        what: &'static str,
    ) -> Result<Bytes, RecordError> {
        let length = self.length(compact, false, what)?.ok_or(RecordError::Length(what))?;
        Ok(Bytes::copy_from_slice(self.slice(length, what)?))
    }

    /// The number of elements of an array; each takes at least one byte.
    pub(in crate::groups) fn count(
        &mut self,
        compact: bool,
        what: &'static str,
    ) -> Result<usize, RecordError> {
        let count = self.length(compact, false, what)?.ok_or(RecordError::Length(what))?;
        if count > self.0.len() {
            return Err(RecordError::Truncated(what));
        }
        Ok(count)
    }

    pub(in crate::groups) fn skip_tags(&mut self) -> Result<(), RecordError> {
        for _ in 0..self.varint("tagged fields")? {
            self.varint("tag")?;
            let length = self.varint("tagged field")?;
            self.slice(length as usize, "tagged field")?;
        }
        Ok(())
    }
}
