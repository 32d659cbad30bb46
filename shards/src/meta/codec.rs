//! The bytes of metadata commands and snapshots: little-endian, bounded reads. Any shard.
//!
//! Reading never trusts a count or a length: nothing is reserved beyond the bytes that are left.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// Why bytes are not what this build can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("the bytes end too early")]
    Short,
    /// A count or length is larger than the bytes left.
    #[error("a count of {count} does not fit into the {left} bytes left")]
    Count { count: u32, left: usize },
    /// Bytes are left after the last field.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// A byte that must be 0 or 1 is neither.
    #[error("{0} is neither 0 nor 1")]
    Bool(u8),
    /// The first bytes are not those of this format.
    #[error("these bytes are not a {0}")]
    Magic(&'static str),
    /// Written by a newer (or impossibly old) release.
    #[error("this {what} has version {found}; this release reads up to {known}: it was written by a newer release, run that one")]
    Version { what: &'static str, found: u32, known: u32 },
    /// An unknown kind byte within a known version.
    #[error("unknown kind {found} of {what}")]
    Kind { what: &'static str, found: u8 },
    /// The checksum does not match: the bytes are damaged.
    #[error("checksum {found:#010x} found, {computed:#010x} computed: the bytes are damaged")]
    Checksum { found: u32, computed: u32 },
    /// The parts contradict each other (an id twice, a group above the next one to be given).
    #[error("contradiction: {0}")]
    Contradiction(&'static str),
}

/// Appends fields to a growing buffer.
#[derive(Default)]
pub(super) struct Writer {
    out: BytesMut,
}

impl Writer {
    pub fn u8(&mut self, v: u8) {
        self.out.put_u8(v);
    }
    pub fn bool(&mut self, v: bool) {
        self.out.put_u8(v.into());
    }
    pub fn u16(&mut self, v: u16) {
        self.out.put_u16_le(v);
    }
    pub fn i16(&mut self, v: i16) {
        self.out.put_i16_le(v);
    }
    pub fn u32(&mut self, v: u32) {
        self.out.put_u32_le(v);
    }
    pub fn i32(&mut self, v: i32) {
        self.out.put_i32_le(v);
    }
    pub fn u64(&mut self, v: u64) {
        self.out.put_u64_le(v);
    }
    pub fn i64(&mut self, v: i64) {
        self.out.put_i64_le(v);
    }
    pub fn uuid(&mut self, v: Uuid) {
        self.out.put_slice(v.as_bytes());
    }
    pub fn str(&mut self, v: &str) {
        self.count(v.len());
        self.out.put_slice(v.as_bytes());
    }
    pub fn option<T>(&mut self, v: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        self.bool(v.is_some());
        if let Some(v) = v {
            write(self, v);
        }
    }
    pub fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
        mut write: impl FnMut(&mut Writer, T),
    ) {
        let items = items.into_iter();
        self.count(items.len());
        for item in items {
            write(self, item);
        }
    }
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }
    pub fn written(&self) -> &[u8] {
        &self.out
    }
    pub fn finish(self) -> Bytes {
        self.out.freeze()
    }
    fn count(&mut self, n: usize) {
        self.u32(u32::try_from(n).expect("a request is bounded by its frame, far below 4 GiB"));
    }
}

/// Takes fields from the front of a slice.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }
    pub fn left(&self) -> usize {
        self.rest.len()
    }
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Bool(other)),
        }
    }
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from_bytes(self.array()?))
    }
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        let count = self.count()?;
        std::str::from_utf8(self.take(count)?).map_err(|_| DecodeError::Utf8)
    }
    pub fn string(&mut self) -> Result<String, DecodeError> {
        self.str().map(str::to_owned)
    }
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        self.bool()?.then(|| read(self)).transpose()
    }
    /// Every item takes at least one byte, so the count is bounded by what is left; the vector grows
    /// with what is really there.
    pub fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing(self.rest.len()))
        }
    }
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(head)
    }
    fn count(&mut self) -> Result<usize, DecodeError> {
        let count = self.u32()?;
        let left = self.rest.len();
        usize::try_from(count).ok().filter(|n| *n <= left).ok_or(DecodeError::Count { count, left })
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(*head)
    }
}
