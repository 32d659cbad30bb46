//! Bounded reading of little-endian fields, for this module's own files and checkpoints.
//!
//! Every read may fail, none allocates from a count that it has read, and nothing panics on
//! bytes from the disk. Writing is plain `extend_from_slice`, done by each format itself.
//! Pure; any shard.

use thiserror::Error;

use super::types::PartitionIdentity;

/// Why bytes of one of the log's own formats were refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Fewer bytes than the format needs at this point.
    #[error("cut short")]
    Short,
    /// The first bytes name another format.
    #[error("not a file of this kind (magic {0:#010x})")]
    Magic(u32),
    /// Written by another release.
    #[error("format version {0} is not one that this release understands")]
    Version(u16),
    /// The checksum does not match the bytes.
    #[error("checksum mismatch (stored {stored:#010x}, computed {computed:#010x})")]
    Checksum {
        /// As read.
        stored: u32,
        /// Of the bytes as read.
        computed: u32,
    },
    /// Whole, and that of another partition.
    #[error("belongs to another partition")]
    OtherPartition,
    /// The fields contradict each other, or belong to another segment.
    #[error("inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// A cursor over borrowed bytes.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Fields { rest: bytes }
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        if count > self.rest.len() {
            return Err(FormatError::Short);
        }
        let (head, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        self.bytes(N)?.try_into().map_err(|_| FormatError::Short)
    }

    pub(super) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, FormatError> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, FormatError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A count of items of `item_bytes` each, refused when the bytes left cannot hold them.
    pub(super) fn count(&mut self, item_bytes: usize) -> Result<usize, FormatError> {
        let count = self.u32()? as usize;
        match count.checked_mul(item_bytes) {
            Some(needed) if needed <= self.rest.len() => Ok(count),
            _ => Err(FormatError::Short),
        }
    }

    pub(super) fn end(&self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FormatError::Inconsistent("bytes after the last field"))
        }
    }
}

/// Splits off and checks the crc32c in the last four bytes, which covers all before it.
pub(super) fn checked(bytes: &[u8]) -> Result<&[u8], FormatError> {
    let Some(at) = bytes.len().checked_sub(4) else { return Err(FormatError::Short) };
    let (body, tail) = bytes.split_at(at);
    let stored = Fields::new(tail).u32()?;
    let computed = crc32c::crc32c(body);
    if stored == computed {
        Ok(body)
    } else {
        Err(FormatError::Checksum { stored, computed })
    }
}

/// Appends the crc32c of everything written so far.
pub(super) fn seal(out: &mut Vec<u8>) {
    let crc = crc32c::crc32c(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// The beginning that checkpoints and maps share: magic, version, flags and partition; the
/// partition must be the expected one, if given. Magic and version are judged before the checksum,
/// so that another release is named as one. Gives the flags, and the fields that follow.
pub(super) fn preamble<'a>(
    bytes: &'a [u8],
    magic: u32,
    only: u16,
    identity: Option<&PartitionIdentity>,
) -> Result<(u16, Fields<'a>), FormatError> {
    let mut head = Fields::new(bytes);
    let found = head.u32()?;
    if found != magic {
        return Err(FormatError::Magic(found));
    }
    let version = head.u16()?;
    if version != only {
        return Err(FormatError::Version(version));
    }
    let mut fields = Fields::new(checked(bytes)?);
    fields.bytes(6)?;
    let flags = fields.u16()?;
    let topic: [u8; 16] = fields.array()?;
    let partition = fields.i32()?;
    if identity.is_some_and(|id| id.topic != topic || id.partition != partition) {
        return Err(FormatError::OtherPartition);
    }
    Ok((flags, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_the_bytes_cannot_hold_is_refused() {
        let bytes = [0xff, 0xff, 0xff, 0x7f, 1, 2, 3];
        assert_eq!(Fields::new(&bytes).count(12), Err(FormatError::Short));
        let bytes = [1, 0, 0, 0, 9, 9, 9, 9];
        assert_eq!(Fields::new(&bytes).count(4), Ok(1));
    }

    #[test]
    fn a_sealed_body_is_read_back_and_a_flipped_bit_is_found() {
        let mut out = b"body".to_vec();
        seal(&mut out);
        assert_eq!(checked(&out), Ok(&b"body"[..]));
        out[1] ^= 0x10;
        assert!(matches!(checked(&out), Err(FormatError::Checksum { .. })));
        assert_eq!(checked(&[1, 2, 3]), Err(FormatError::Short));
    }
}
