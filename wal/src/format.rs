//! Bytes of the log: file headers, frame headers, record headers, and the bodies that the log
//! itself defines. FORMAT.md is the specification; the golden test below holds both together.
//!
//! Pure: encodes into and decodes from slices, knows no file. Trusts nothing it decodes: every
//! length is checked against the bytes that are there. All integers are little-endian.

use crate::types::{
    FileSequence, FrameNumber, GroupId, Identity, Index, Location, Owner, ReplicaId, Term,
};

/// Frames begin on, and files are written in, blocks of this size.
pub const BLOCK_BYTES: u64 = 4096;
/// The version in every file header. A larger one is refused, never guessed at.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of a file header that carry meaning; the rest of its block is zero.
pub const FILE_HEADER_BYTES: usize = 128;
/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Bytes of a record header.
pub const RECORD_HEADER_BYTES: usize = 48;
/// Record headers stand on multiples of this.
pub const RECORD_ALIGN_BYTES: usize = 8;

// A header must fit one 512-byte sector, the unit that a disk writes whole.
const _: () = assert!(FILE_HEADER_BYTES <= 512);
// The first record header follows the frame header without a gap.
const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(RECORD_ALIGN_BYTES));
const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN_BYTES));

const FILE_MAGIC: &[u8; 8] = b"CHRONWAL";
const FRAME_MAGIC: &[u8; 4] = b"CFRM";

const FILE_FLAG_BASE_KNOWN: u16 = 1;
const FILE_FLAG_DAMAGE_FOUND: u16 = 2;
const FRAME_FLAG_STOP: u32 = 1;
const RECORD_FLAG_RELOCATED: u8 = 1;

/// Rounds a length up to whole blocks.
pub const fn blocks(length: u64) -> u64 {
    length.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

/// Bytes that a record with a body of this length takes in a frame.
pub const fn record_bytes(body_length: usize) -> usize {
    RECORD_HEADER_BYTES + body_length.next_multiple_of(RECORD_ALIGN_BYTES)
}

/// The first block of a file (FORMAT.md, "File header").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    pub identity: Identity,
    pub sequence: FileSequence,
    /// Random; mixed into the checksum of every frame of this file.
    pub salt: u64,
    /// Size of the file, this header included.
    pub file_bytes: u64,
    /// Set by recovery: the last frame it replayed. Frames above it in older files are void, and
    /// frames up to it are durable. `None` in a file prepared ahead.
    pub base: Option<FrameNumber>,
    /// The recovery that opened this file found damage in older ones: every replica known up to
    /// here is fenced.
    pub damage_found: bool,
}

/// Why the first block of a file is not a header of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("it is not a file of this log, or its header is damaged")]
    Unreadable,
    #[error("its format is {0}, and this program knows formats up to {FORMAT_VERSION}")]
    NewerFormat(u32),
}

impl FileHeader {
    /// The whole first block.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        let mut flags = 0;
        if self.base.is_some() {
            flags |= FILE_FLAG_BASE_KNOWN;
        }
        if self.damage_found {
            flags |= FILE_FLAG_DAMAGE_FOUND;
        }
        block[0..8].copy_from_slice(FILE_MAGIC);
        put_u32(&mut block, 8, FORMAT_VERSION);
        block[16..32].copy_from_slice(&self.identity.node);
        put_u16(&mut block, 32, self.identity.shard.0);
        put_u16(&mut block, 34, flags);
        put_u32(&mut block, 36, self.identity.generation);
        put_u64(&mut block, 40, self.sequence.0);
        put_u64(&mut block, 48, self.salt);
        put_u64(&mut block, 56, self.file_bytes);
        put_u64(&mut block, 64, self.base.unwrap_or_default().0);
        let crc = file_header_crc(&block);
        put_u32(&mut block, 12, crc);
        block
    }

    pub fn decode(block: &[u8]) -> Result<FileHeader, HeaderError> {
        if block.len() < FILE_HEADER_BYTES || &block[0..8] != FILE_MAGIC {
            return Err(HeaderError::Unreadable);
        }
        let version = u32_at(block, 8);
        if u32_at(block, 12) != file_header_crc(block) {
            return Err(HeaderError::Unreadable);
        }
        if version != FORMAT_VERSION {
            return Err(HeaderError::NewerFormat(version));
        }
        let flags = u16_at(block, 34);
        let mut node = [0; 16];
        node.copy_from_slice(&block[16..32]);
        let base = FrameNumber(u64_at(block, 64));
        Ok(FileHeader {
            identity: Identity {
                node,
                shard: rt::ShardId(u16_at(block, 32)),
                generation: u32_at(block, 36),
            },
            sequence: FileSequence(u64_at(block, 40)),
            salt: u64_at(block, 48),
            file_bytes: u64_at(block, 56),
            base: (flags & FILE_FLAG_BASE_KNOWN != 0).then_some(base),
            damage_found: flags & FILE_FLAG_DAMAGE_FOUND != 0,
        })
    }
}

fn file_header_crc(block: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&block[..12]);
    crc32c::crc32c_append(crc, &block[16..FILE_HEADER_BYTES])
}

/// The start of a frame (FORMAT.md, "Frame header"). The checksum is not part of this struct: it
/// depends on the salt and on the record headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    pub number: FrameNumber,
    /// The highest frame that was known durable when this one was written. `durable < number`.
    pub durable: FrameNumber,
    /// The oldest file that the log needs; older ones may be gone.
    pub oldest_file: FileSequence,
    pub file: FileSequence,
    /// Of this header in its file; a frame read at another place is not a frame.
    pub position: u64,
    /// Header and records, without the padding to the block.
    pub length: u32,
    pub records: u32,
    /// The log was stopped in order after this frame: nothing follows in this file.
    pub stop: bool,
}

impl FrameHeader {
    /// Writes the header into the first bytes of a frame. `records_crc` runs over the record
    /// headers in their order ([`RecordHeader::checksum`]).
    pub fn encode_into(&self, frame: &mut [u8], records_crc: u32, salt: u64) {
        let header = &mut frame[..FRAME_HEADER_BYTES];
        header[0..4].copy_from_slice(FRAME_MAGIC);
        put_u64(header, 8, self.number.0);
        put_u64(header, 16, self.durable.0);
        put_u64(header, 24, self.oldest_file.0);
        put_u64(header, 32, self.file.0);
        put_u64(header, 40, self.position);
        put_u32(header, 48, self.length);
        put_u32(header, 52, self.records);
        put_u32(header, 56, if self.stop { FRAME_FLAG_STOP } else { 0 });
        put_u32(header, 60, 0);
        let crc = frame_crc(header, records_crc, salt);
        put_u32(header, 4, crc);
    }

    /// Reads the fields without checking them; `None` if there is no frame magic. What it says
    /// is worth nothing before the checksum has been checked ([`check_frame`]).
    pub fn peek(bytes: &[u8]) -> Option<FrameHeader> {
        if bytes.len() < FRAME_HEADER_BYTES || &bytes[0..4] != FRAME_MAGIC {
            return None;
        }
        Some(FrameHeader {
            number: FrameNumber(u64_at(bytes, 8)),
            durable: FrameNumber(u64_at(bytes, 16)),
            oldest_file: FileSequence(u64_at(bytes, 24)),
            file: FileSequence(u64_at(bytes, 32)),
            position: u64_at(bytes, 40),
            length: u32_at(bytes, 48),
            records: u32_at(bytes, 52),
            stop: u32_at(bytes, 56) & FRAME_FLAG_STOP != 0,
        })
    }
}

/// The records' checksum first, so that it can run along while a frame is gathered, before the
/// file it goes to (and its salt) are known.
fn frame_crc(header: &[u8], records_crc: u32, salt: u64) -> u32 {
    let crc = crc32c::crc32c_append(records_crc, &salt.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &header[0..4]);
    crc32c::crc32c_append(crc, &header[8..FRAME_HEADER_BYTES])
}

/// What a record says (FORMAT.md, "Record kinds"). Numbers are on disk for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordKind {
    /// An entry of the Raft log, with its payload; cuts every entry from its index on.
    Append = 1,
    /// Cuts every entry from its index on.
    Truncate = 2,
    /// Term, vote and commit.
    HardState = 3,
    Membership = 4,
    /// Entries up to its index are durable elsewhere.
    Checkpoint = 5,
    /// An entry again, moved from an older file; cuts nothing.
    Relocated = 6,
    /// The replica was removed from this node.
    Tombstone = 7,
    /// An entry whose payload stands in a segment's staging area.
    Pointer = 8,
    /// The replica may have lost log, or (code 0) an operator accepted that it has.
    Fence = 9,
}

impl RecordKind {
    pub fn from_code(code: u8) -> Option<RecordKind> {
        Some(match code {
            1 => RecordKind::Append,
            2 => RecordKind::Truncate,
            3 => RecordKind::HardState,
            4 => RecordKind::Membership,
            5 => RecordKind::Checkpoint,
            6 => RecordKind::Relocated,
            7 => RecordKind::Tombstone,
            8 => RecordKind::Pointer,
            9 => RecordKind::Fence,
            _ => return None,
        })
    }
}

/// The start of a record (FORMAT.md, "Record header").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    pub kind: RecordKind,
    /// Restates what an older file said, so that that file can go.
    pub relocated: bool,
    pub owner: Owner,
    pub index: Index,
    pub term: Term,
    pub body_length: u32,
    pub body_crc: u32,
}

impl RecordHeader {
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        put_u32(&mut bytes, 0, self.body_length);
        bytes[4] = self.kind as u8;
        bytes[5] = if self.relocated { RECORD_FLAG_RELOCATED } else { 0 };
        put_u64(&mut bytes, 8, self.owner.group.0);
        put_u64(&mut bytes, 16, self.owner.replica.0);
        put_u64(&mut bytes, 24, self.index.0);
        put_u64(&mut bytes, 32, self.term.0);
        put_u32(&mut bytes, 40, self.body_crc);
        bytes
    }

    /// `None` for a kind that this format does not have.
    pub fn decode(bytes: &[u8]) -> Option<RecordHeader> {
        if bytes.len() < RECORD_HEADER_BYTES {
            return None;
        }
        Some(RecordHeader {
            kind: RecordKind::from_code(bytes[4])?,
            relocated: bytes[5] & RECORD_FLAG_RELOCATED != 0,
            owner: Owner {
                group: GroupId(u64_at(bytes, 8)),
                replica: ReplicaId(u64_at(bytes, 16)),
            },
            index: Index(u64_at(bytes, 24)),
            term: Term(u64_at(bytes, 32)),
            body_length: u32_at(bytes, 0),
            body_crc: u32_at(bytes, 40),
        })
    }

    /// Continues the checksum of a frame's record headers.
    pub fn checksum(encoded: &[u8], records_crc: u32) -> u32 {
        crc32c::crc32c_append(records_crc, &encoded[..RECORD_HEADER_BYTES])
    }
}

/// What a reader is made to overlook. All false but in the simulator's mutations, where it must
/// lead to a violation that a checker finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Laxness {
    pub ignore_checksum: bool,
    pub accept_stale: bool,
}

/// Why the bytes at a block boundary are not the frame that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("no frame begins there")]
    Blank,
    #[error("a frame of the file's former life stands there")]
    Stale,
    #[error("its length runs past the end of the file, or its records do not fill it")]
    Shape,
    #[error("its checksum is wrong")]
    Checksum,
}

/// What stands at a block boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameCheck {
    Valid(FrameHeader),
    /// So many bytes from the boundary on are needed to tell.
    Short(u64),
    Bad(BadFrame),
}

/// Checks the frame at `position` of a file; `bytes` begin there and may end early.
pub fn check_frame(file: &FileHeader, position: u64, bytes: &[u8], laxness: Laxness) -> FrameCheck {
    if (bytes.len() as u64) < BLOCK_BYTES {
        return FrameCheck::Short(BLOCK_BYTES);
    }
    let Some(header) = FrameHeader::peek(bytes) else {
        return FrameCheck::Bad(BadFrame::Blank);
    };
    let in_place = header.file == file.sequence && header.position == position;
    if !in_place && !laxness.accept_stale {
        return FrameCheck::Bad(BadFrame::Stale);
    }
    let length = u64::from(header.length);
    if length < FRAME_HEADER_BYTES as u64 || position + length > file.file_bytes {
        return FrameCheck::Bad(BadFrame::Shape);
    }
    if (bytes.len() as u64) < length {
        return FrameCheck::Short(length);
    }
    let salt = if laxness.accept_stale { 0 } else { file.salt };
    let frame = &bytes[..length as usize];
    let Some(sums) = checksums(frame, header.records) else {
        return FrameCheck::Bad(BadFrame::Shape);
    };
    let expected = frame_crc(&frame[..FRAME_HEADER_BYTES], sums.records_crc, salt);
    let intact = sums.bodies_intact && u32_at(frame, 4) == expected;
    if !intact && !laxness.ignore_checksum {
        return FrameCheck::Bad(BadFrame::Checksum);
    }
    FrameCheck::Valid(header)
}

struct Sums {
    records_crc: u32,
    bodies_intact: bool,
}

/// `None` if the record headers do not fill the frame exactly.
fn checksums(frame: &[u8], records: u32) -> Option<Sums> {
    let mut sums = Sums { records_crc: 0, bodies_intact: true };
    let mut seen = 0;
    let mut walk = Records::new(frame);
    for record in &mut walk {
        let (header, body) = (record.header, record.body);
        sums.records_crc = RecordHeader::checksum(&frame[record.start..], sums.records_crc);
        sums.bodies_intact &= crc32c::crc32c(body) == header.body_crc;
        seen += 1;
    }
    (walk.at_end() && seen == records).then_some(sums)
}

/// One record inside the bytes of a frame.
#[derive(Debug, Clone, Copy)]
pub struct RecordAt<'a> {
    pub header: RecordHeader,
    pub body: &'a [u8],
    /// Of the record header in the frame.
    pub start: usize,
}

impl RecordAt<'_> {
    /// Of the body in the frame.
    pub fn body_start(&self) -> usize {
        self.start + RECORD_HEADER_BYTES
    }

    /// Of the body in the file that holds the frame.
    pub fn location(&self, frame: &FrameHeader) -> Location {
        Location {
            file: frame.file,
            position: frame.position + self.body_start() as u64,
            length: self.header.body_length,
        }
    }
}

/// Walks the records of a frame; ends early at the first that is not whole.
pub struct Records<'a> {
    frame: &'a [u8],
    position: usize,
}

impl<'a> Records<'a> {
    /// `frame` begins with the frame header and ends with the last record's padding.
    pub fn new(frame: &'a [u8]) -> Records<'a> {
        Records { frame, position: FRAME_HEADER_BYTES }
    }

    fn at_end(&self) -> bool {
        self.position == self.frame.len()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordAt<'a>;

    fn next(&mut self) -> Option<RecordAt<'a>> {
        let start = self.position;
        let rest = self.frame.get(start..)?;
        let header = RecordHeader::decode(rest)?;
        let length = header.body_length as usize;
        let body = rest.get(RECORD_HEADER_BYTES..)?.get(..length)?;
        let end = start + record_bytes(length);
        if end > self.frame.len() {
            return None;
        }
        self.position = end;
        Some(RecordAt { header, body, start })
    }
}

/// The start of a pointer record's body (FORMAT.md, "Pointer"): where the payload of an entry
/// stands in staging. The entry's own prefix follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pointer {
    /// Base offset of the segment, which names its file.
    pub segment: u64,
    /// Of the payload in the segment file.
    pub position: u64,
    pub length: u32,
    pub crc: u32,
}

/// Bytes of a pointer before the entry's prefix.
pub const POINTER_BYTES: usize = 24;

impl Pointer {
    pub fn encode(&self) -> [u8; POINTER_BYTES] {
        let mut bytes = [0; POINTER_BYTES];
        put_u64(&mut bytes, 0, self.segment);
        put_u64(&mut bytes, 8, self.position);
        put_u32(&mut bytes, 16, self.length);
        put_u32(&mut bytes, 20, self.crc);
        bytes
    }

    pub fn decode(body: &[u8]) -> Option<Pointer> {
        if body.len() < POINTER_BYTES {
            return None;
        }
        Some(Pointer {
            segment: u64_at(body, 0),
            position: u64_at(body, 8),
            length: u32_at(body, 16),
            crc: u32_at(body, 20),
        })
    }
}

pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

// The readers below index: callers have checked the length of the slice.

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample_header() -> FileHeader {
        FileHeader {
            identity: Identity { node: *b"0123456789abcdef", shard: rt::ShardId(3), generation: 2 },
            sequence: FileSequence(7),
            salt: 0x1122_3344_5566_7788,
            file_bytes: 1 << 16,
            base: Some(FrameNumber(41)),
            damage_found: false,
        }
    }

    /// A frame with the given bodies, as the gatherer lays it out.
    pub(crate) fn frame(
        file: &FileHeader,
        position: u64,
        number: u64,
        bodies: &[&[u8]],
    ) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        let mut crc = 0;
        for (nth, body) in bodies.iter().enumerate() {
            let record = RecordHeader {
                kind: RecordKind::Append,
                relocated: false,
                owner: Owner { group: GroupId(1), replica: ReplicaId(2) },
                index: Index(10 + nth as u64),
                term: Term(5),
                body_length: body.len() as u32,
                body_crc: crc32c::crc32c(body),
            };
            let start = bytes.len();
            bytes.extend_from_slice(&record.encode());
            crc = RecordHeader::checksum(&bytes[start..], crc);
            bytes.extend_from_slice(body);
            bytes.resize(start + record_bytes(body.len()), 0);
        }
        let frame_header = FrameHeader {
            number: FrameNumber(number),
            durable: FrameNumber(number - 1),
            oldest_file: FileSequence(7),
            file: file.sequence,
            position,
            length: bytes.len() as u32,
            records: bodies.len() as u32,
            stop: false,
        };
        frame_header.encode_into(&mut bytes, crc, file.salt);
        bytes.resize(blocks(bytes.len() as u64) as usize, 0);
        bytes
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes of version 1, written down once from FORMAT.md: they may never change.
    #[test]
    fn golden_bytes() {
        let block = sample_header().encode();
        assert_eq!(block.len() as u64, BLOCK_BYTES);
        assert_eq!(
            hex(&block[..80]),
            "4348524f4e57414c01000000fc16a46b30313233343536373839616263646566\
             0300010002000000070000000000000088776655443322110000010000000000\
             29000000000000000000000000000000"
        );
        let bytes = frame(&sample_header(), 4096, 42, &[b"hello"]);
        assert_eq!(
            hex(&bytes[..120]),
            "4346524d128dee922a0000000000000029000000000000000700000000000000\
             0700000000000000001000000000000078000000010000000000000000000000\
             0500000001000000010000000000000002000000000000000a00000000000000\
             05000000000000004cbb719a0000000068656c6c6f000000"
        );
    }

    #[test]
    fn headers_come_back() {
        for base in [None, Some(FrameNumber(0)), Some(FrameNumber(9))] {
            for damage_found in [false, true] {
                let header = FileHeader { base, damage_found, ..sample_header() };
                assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_a_header_is_seen() {
        let block = sample_header().encode();
        for bit in 0..FILE_HEADER_BYTES * 8 {
            let mut broken = block.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHeader::decode(&broken), Err(HeaderError::Unreadable), "bit {bit}");
        }
        assert_eq!(FileHeader::decode(&block[..100]), Err(HeaderError::Unreadable));
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut block = sample_header().encode();
        put_u32(&mut block, 8, 2);
        let crc = file_header_crc(&block);
        put_u32(&mut block, 12, crc);
        assert_eq!(FileHeader::decode(&block), Err(HeaderError::NewerFormat(2)));
    }

    #[test]
    fn a_flipped_bit_in_a_frame_is_seen() {
        let file = sample_header();
        let bytes = frame(&file, 8192, 42, &[b"hello", b"", &[7; 100]]);
        let check = check_frame(&file, 8192, &bytes, Laxness::default());
        let FrameCheck::Valid(header) = check else { panic!("{check:?}") };
        for bit in 0..header.length as usize * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let check = check_frame(&file, 8192, &broken, Laxness::default());
            // Padding between records and reserved bytes of the header carry nothing; reserved
            // bytes of a record header are under the checksum all the same.
            let padding = !covered(&bytes, bit / 8);
            assert_eq!(matches!(check, FrameCheck::Valid(_)), padding, "bit {bit}: {check:?}");
        }
    }

    fn covered(frame: &[u8], byte: usize) -> bool {
        let header = FrameHeader::peek(frame).expect("a frame");
        let mut records = Records::new(&frame[..header.length as usize]);
        let in_record = records
            .any(|record| (record.start..record.body_start() + record.body.len()).contains(&byte));
        byte < FRAME_HEADER_BYTES || in_record
    }

    #[test]
    fn another_place_salt_or_file_is_not_this_frame() {
        let file = sample_header();
        let bytes = frame(&file, 4096, 42, &[b"hello"]);
        let check =
            |file: &FileHeader, position| check_frame(file, position, &bytes, Laxness::default());
        assert!(matches!(check(&file, 4096), FrameCheck::Valid(_)));
        assert_eq!(check(&file, 8192), FrameCheck::Bad(BadFrame::Stale));
        let resalted = FileHeader { salt: file.salt + 1, ..file };
        assert_eq!(check(&resalted, 4096), FrameCheck::Bad(BadFrame::Checksum));
        let recycled = FileHeader { sequence: FileSequence(8), ..file };
        assert_eq!(check(&recycled, 4096), FrameCheck::Bad(BadFrame::Stale));
        let small = FileHeader { file_bytes: 4096 + 100, ..file };
        assert_eq!(check(&small, 4096), FrameCheck::Bad(BadFrame::Shape));
    }

    #[test]
    fn a_short_read_asks_for_more_and_never_panics() {
        let file = sample_header();
        let bytes = frame(&file, 4096, 42, &[&[1; 9000], b"x"]);
        for length in 0..bytes.len() {
            let check = check_frame(&file, 4096, &bytes[..length], Laxness::default());
            let whole = 64 + 48 + 9000 + 48 + 8;
            match check {
                FrameCheck::Short(need) if length < 4096 => assert_eq!(need, 4096),
                FrameCheck::Short(need) => assert_eq!(need, whole),
                FrameCheck::Valid(_) => assert!(length as u64 >= whole),
                FrameCheck::Bad(bad) => panic!("{bad}"),
            }
        }
    }

    #[test]
    fn random_bytes_are_no_frame() {
        proptest::proptest!(|(seed in proptest::collection::vec(0u8.., 4096..4097))| {
            let mut bytes = seed;
            bytes[0..4].copy_from_slice(FRAME_MAGIC);
            put_u64(&mut bytes, 32, 7);
            put_u64(&mut bytes, 40, 4096);
            put_u32(&mut bytes, 48, 4000);
            let check = check_frame(&sample_header(), 4096, &bytes, Laxness::default());
            assert!(matches!(check, FrameCheck::Bad(_)));
        });
    }

    #[test]
    fn pointers_come_back() {
        let pointer = Pointer { segment: 1, position: 2, length: 3, crc: 4 };
        assert_eq!(Pointer::decode(&pointer.encode()), Some(pointer));
        assert_eq!(Pointer::decode(&pointer.encode()[..23]), None);
        assert_eq!(hex(&pointer.encode()), "010000000000000002000000000000000300000004000000");
    }
}
