//! Bounded reads of the protocol's primitive types from a slice.
//!
//! The one place that turns lengths and counts from the wire into slices. Every length is
//! checked against the bytes that are left before it is used, and nothing is allocated. Varints
//! longer than Kafka writes them are refused. Pure; on any shard.

/// The bytes end before the value does, or a length or varint is impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message ends too early, or holds an impossible length")]
pub struct Malformed;

/// A position in a message. Methods take what they read, or fail and must not be used again.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, position: 0 }
    }

    /// Bytes taken so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        if length > self.remaining() {
            return Err(Malformed);
        }
        let taken = &self.bytes[self.position..self.position + length];
        self.position += length;
        Ok(taken)
    }

    pub fn skip(&mut self, length: usize) -> Result<(), Malformed> {
        self.take(length).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn i8(&mut self) -> Result<i8, Malformed> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub fn i16(&mut self) -> Result<i16, Malformed> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// An unsigned varint of at most five bytes whose value fits 32 bits.
    pub fn unsigned_varint(&mut self) -> Result<u32, Malformed> {
        let value = self.unsigned_varlong(5)?;
        u32::try_from(value).map_err(|_| Malformed)
    }

    /// A zigzag varint of 32 bits.
    pub fn varint(&mut self) -> Result<i32, Malformed> {
        let value = self.unsigned_varint()?;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    /// A zigzag varint of 64 bits.
    pub fn varlong(&mut self) -> Result<i64, Malformed> {
        let value = self.unsigned_varlong(10)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    #[inline]
    fn unsigned_varlong(&mut self, bytes_max: u32) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for nth in 0..bytes_max {
            let byte = *self.bytes.get(self.position).ok_or(Malformed)?;
            self.position += 1;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds one bit only.
            if nth == 9 && bits > 1 {
                return Err(Malformed);
            }
            value |= bits << (nth * 7);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// A length field of strings, bytes and arrays: `-1` (compact: 0) is null.
    /// A length is not yet compared with the bytes left: an array's count is in elements.
    pub fn length(&mut self, width: LengthWidth) -> Result<Option<usize>, Malformed> {
        let length = match width {
            LengthWidth::Two => i64::from(self.i16()?),
            LengthWidth::Four => i64::from(self.i32()?),
            LengthWidth::Compact => i64::from(self.unsigned_varint()?) - 1,
        };
        match length {
            -1 => Ok(None),
            0.. => Ok(Some(length as usize)),
            _ => Err(Malformed),
        }
    }

    /// A nullable run of bytes behind its length.
    pub fn nullable_bytes(&mut self, width: LengthWidth) -> Result<Option<&'a [u8]>, Malformed> {
        match self.length(width)? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// Skips the tagged fields that end a flexible structure (KIP-482).
    pub fn skip_tagged_fields(&mut self) -> Result<(), Malformed> {
        for _ in 0..self.unsigned_varint()? {
            self.unsigned_varint()?;
            let size = self.unsigned_varint()?;
            self.skip(size as usize)?;
        }
        Ok(())
    }
}

/// How a length stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LengthWidth {
    /// 16 bits, signed: strings of versions that are not flexible.
    Two,
    /// 32 bits, signed: bytes and arrays of versions that are not flexible.
    Four,
    /// Unsigned varint of the length plus one: everything in flexible versions.
    Compact,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length_and_past_it() {
        for (bytes, value) in [
            (&[0u8][..], 0i64),
            (&[1], -1),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], i64::MIN),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], i64::MAX),
        ] {
            assert_eq!(Reader::new(bytes).varlong(), Ok(value));
        }
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint(), Ok(i32::MIN));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint(), Err(Malformed));
        assert_eq!(Reader::new(&[0x80; 11]).varlong(), Err(Malformed));
        let eleven_bits_too_many = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Reader::new(&eleven_bits_too_many).varlong(), Err(Malformed));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(Malformed));
    }

    #[test]
    fn lengths_beyond_the_end_fail() {
        let mut reader = Reader::new(&[0, 0, 0, 5, 1, 2]);
        assert_eq!(reader.nullable_bytes(LengthWidth::Four), Err(Malformed));
        assert_eq!(Reader::new(&[0xff, 0xfe]).length(LengthWidth::Two), Err(Malformed));
        assert_eq!(Reader::new(&[0xff, 0xff]).length(LengthWidth::Two), Ok(None));
        assert_eq!(Reader::new(&[0]).length(LengthWidth::Compact), Ok(None));
        assert_eq!(Reader::new(&[1]).length(LengthWidth::Compact), Ok(Some(0)));
    }

    #[test]
    fn tagged_fields_are_skipped_to_their_end_only() {
        let mut reader = Reader::new(&[2, 0, 1, 9, 7, 2, 9, 9, 42]);
        reader.skip_tagged_fields().expect("well formed");
        assert_eq!(reader.i8(), Ok(42));
        assert_eq!(Reader::new(&[1, 0, 5, 1]).skip_tagged_fields(), Err(Malformed));
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).skip_tagged_fields(),
            Err(Malformed)
        );
    }
}
