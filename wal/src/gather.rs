//! Frames being gathered, and the plan of where they will stand.
//!
//! The place of a record is known when it is appended, so frames are laid out as they are
//! gathered: one after the other in a file, then in the next file. Body bytes are copied here and
//! nowhere else. A frame never grows by moving: one that is full is closed, and the next one gets
//! a larger buffer, so that a burst finds its frame size within a few commits. Pure but for the
//! buffers; one per shard.

use std::collections::VecDeque;

use rt::{Buf, Shard};

use crate::format::{
    blocks, record_bytes, FrameHeader, RecordHeader, BLOCK_BYTES, FRAME_HEADER_BYTES,
    RECORD_HEADER_BYTES,
};
use crate::record::{Parts, PayloadDurable};
use crate::types::{FileSequence, FrameNumber, Location};

/// Buffers begin at this size, and fall back to it when traffic is small.
const CAPACITY_MIN_BYTES: u64 = 16 << 10;

/// A frame that takes records.
pub(crate) struct Frame {
    pub number: FrameNumber,
    pub file: FileSequence,
    pub position: u64,
    pub stop: bool,
    pub records: u32,
    records_crc: u32,
    /// The frame's share of its file; the buffer has at least this capacity.
    limit_bytes: u64,
    /// Payloads that its pointers name: the frame is written when all of them are durable.
    pub payloads: Vec<PayloadDurable>,
    buf: Buf,
}

/// Where a record went.
pub(crate) struct Pushed {
    pub header: RecordHeader,
    pub frame: FrameNumber,
    /// Of the body in the frame.
    pub offset: u32,
    pub location: Location,
}

/// The frames not yet handed to the writer, oldest first; the last one takes records.
pub(crate) struct Gather {
    frames: VecDeque<Frame>,
    /// Where the next frame will stand.
    file: FileSequence,
    position: u64,
    file_bytes: u64,
    next_number: FrameNumber,
    next_file_bytes: u64,
    frame_max_bytes: u64,
    capacity_bytes: u64,
    accept_stale: bool,
}

/// Where the plan stands when a log is opened.
pub(crate) struct Start {
    pub file: FileSequence,
    pub file_bytes: u64,
    pub next_number: FrameNumber,
    pub next_file_bytes: u64,
    pub frame_max_bytes: u64,
    /// A mutation: checksums do not depend on the file.
    pub accept_stale: bool,
}

impl Gather {
    pub fn new(start: Start) -> Gather {
        Gather {
            frames: VecDeque::new(),
            file: start.file,
            position: BLOCK_BYTES,
            file_bytes: start.file_bytes,
            next_number: start.next_number,
            next_file_bytes: start.next_file_bytes,
            frame_max_bytes: start.frame_max_bytes,
            capacity_bytes: CAPACITY_MIN_BYTES,
            accept_stale: start.accept_stale,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The frame that the next record goes to, unless it is full.
    pub fn gathering(&self) -> FrameNumber {
        self.frames.back().map_or(self.next_number, |frame| frame.number)
    }

    /// The last frame that has a record in it.
    pub fn newest(&self) -> FrameNumber {
        self.next_number.previous()
    }

    /// The next frame that the writer will take.
    pub fn next_written(&self) -> FrameNumber {
        self.frames.front().map_or(self.next_number, |frame| frame.number)
    }

    pub fn backlog_bytes(&self) -> u64 {
        self.frames.iter().map(|frame| frame.buf.len() as u64).sum()
    }

    /// The file that the last planned frame stands in.
    pub fn file(&self) -> FileSequence {
        self.file
    }

    /// Whether a record with such a body would begin a new file.
    pub fn switches_file(&self, body_length: usize) -> bool {
        let bytes = record_bytes(body_length) as u64;
        if self.frames.back().is_some_and(|frame| self.fits(frame, bytes)) {
            return false;
        }
        let start = self.end_of_plan();
        start + blocks(FRAME_HEADER_BYTES as u64 + bytes) > self.file_bytes
    }

    /// Whether a frame without records would begin a new file.
    pub fn empty_switches_file(&self) -> bool {
        self.end_of_plan() + BLOCK_BYTES > self.file_bytes
    }

    /// Bytes of the planned file behind everything that is planned.
    pub fn room_in_file(&self) -> u64 {
        self.file_bytes - self.end_of_plan()
    }

    /// So many bytes of records come at once: the next frame is to hold them all.
    pub fn expect(&mut self, record_bytes: u64) {
        let wanted = blocks(FRAME_HEADER_BYTES as u64 + record_bytes).min(self.frame_max_bytes);
        self.capacity_bytes = self.capacity_bytes.max(wanted);
    }

    /// Copies a record into the frame that gathers, or begins a new one for it.
    pub fn push(&mut self, shard: &Shard, parts: &Parts<'_>) -> Pushed {
        let bytes = record_bytes(parts.body_length()) as u64;
        if !self.frames.back().is_some_and(|frame| self.fits(frame, bytes)) {
            if let Some(full) = self.frames.back() {
                if full.limit_bytes >= self.capacity_bytes {
                    self.capacity_bytes = (self.capacity_bytes * 4).min(self.frame_max_bytes);
                }
            }
            self.begin(shard, bytes);
        }
        let frame = self.frames.back_mut().expect("a frame was begun above");
        frame.push(parts)
    }

    /// The frame that took the last record waits for this payload.
    pub fn await_payload(&mut self, payload: PayloadDurable) {
        let frame = self.frames.back_mut().expect("a record was pushed just now");
        frame.payloads.push(payload);
    }

    /// Begins a frame without records, to confirm or to declare. Only when nothing is gathered.
    pub fn push_empty(&mut self, shard: &Shard, stop: bool) {
        assert!(self.frames.is_empty(), "an empty frame says nothing beside a gathered one");
        self.begin(shard, 0);
        let frame = self.frames.back_mut().expect("a frame was begun above");
        frame.stop = stop;
    }

    /// The next frame to write; it takes no further records.
    pub fn take(&mut self) -> Option<Frame> {
        let end = self.end_of_plan();
        let frame = self.frames.pop_front()?;
        if self.frames.is_empty() {
            self.position = end;
            if (frame.buf.len() as u64) < frame.limit_bytes / 4 {
                self.capacity_bytes = (self.capacity_bytes / 2).max(CAPACITY_MIN_BYTES);
            }
        }
        Some(frame)
    }

    fn fits(&self, frame: &Frame, record_bytes: u64) -> bool {
        let length = frame.buf.len() as u64 + record_bytes;
        !frame.stop && length <= frame.limit_bytes
    }

    /// Where a frame after the gathering one begins.
    fn end_of_plan(&self) -> u64 {
        match self.frames.back() {
            Some(frame) => frame.position + blocks(frame.buf.len() as u64),
            None => self.position,
        }
    }

    fn begin(&mut self, shard: &Shard, record_bytes: u64) {
        self.position = self.end_of_plan();
        let needed = FRAME_HEADER_BYTES as u64 + record_bytes;
        if self.position + blocks(needed) > self.file_bytes {
            self.file = self.file.next();
            self.position = BLOCK_BYTES;
            self.file_bytes = self.next_file_bytes;
        }
        let room = self.file_bytes - self.position;
        assert!(blocks(needed) <= room, "a record is checked to fit a file before it gets here");
        let capacity = blocks(needed).max(self.capacity_bytes.min(room)).min(room);
        let mut buf = shard.buffer(capacity as usize);
        buf.resize_zeroed(FRAME_HEADER_BYTES);
        self.frames.push_back(Frame {
            number: self.next_number,
            file: self.file,
            position: self.position,
            stop: false,
            records: 0,
            records_crc: 0,
            limit_bytes: capacity,
            payloads: Vec::new(),
            buf,
        });
        self.next_number = self.next_number.next();
    }

    /// The salt that goes into a frame's checksum.
    pub fn salt(&self, salt: u64) -> u64 {
        if self.accept_stale {
            0
        } else {
            salt
        }
    }
}

impl Frame {
    fn push(&mut self, parts: &Parts<'_>) -> Pushed {
        let start = self.buf.len();
        let body_length = parts.body_length();
        self.buf.resize_zeroed(start + RECORD_HEADER_BYTES);
        let head = parts.head.bytes();
        self.buf.extend_from_slice(head);
        let mut body_crc = crc32c::crc32c(head);
        for slice in parts.slices {
            self.buf.extend_from_slice(slice);
            body_crc = crc32c::crc32c_append(body_crc, slice);
        }
        self.buf.resize_zeroed(start + record_bytes(body_length));
        let header = RecordHeader {
            kind: parts.kind,
            relocated: parts.relocated,
            owner: parts.owner,
            index: parts.index,
            term: parts.term,
            body_length: body_length as u32,
            body_crc,
        };
        let encoded = header.encode();
        self.buf[start..start + RECORD_HEADER_BYTES].copy_from_slice(&encoded);
        self.records_crc = RecordHeader::checksum(&encoded, self.records_crc);
        self.records += 1;
        let offset = start + RECORD_HEADER_BYTES;
        let position = self.position + offset as u64;
        let location = Location { file: self.file, position, length: body_length as u32 };
        Pushed { header, frame: self.number, offset: offset as u32, location }
    }

    /// The finished frame, padded to whole blocks.
    pub fn seal(mut self, durable: FrameNumber, oldest_file: FileSequence, salt: u64) -> Buf {
        assert!(durable < self.number, "a frame cannot know itself durable");
        let length = self.buf.len();
        let header = FrameHeader {
            number: self.number,
            durable,
            oldest_file,
            file: self.file,
            position: self.position,
            length: length as u32,
            records: self.records,
            stop: self.stop,
        };
        header.encode_into(&mut self.buf, self.records_crc, salt);
        self.buf.resize_zeroed(blocks(length as u64) as usize);
        self.buf
    }
}
