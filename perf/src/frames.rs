//! Frames of one connection, read into one buffer that is kept.
//!
//! As much as fits is read at once, so small requests share a system call, and a frame larger than
//! the buffer makes it grow for good. Yields each frame without its length field.

use std::io::{self, Read};
use std::net::TcpStream;

use net::registry::FRAME_MAX_BYTES;

/// Holds a few requests of the size that Kafka's producer sends (`max.request.size`, 1 MiB).
const START_BYTES: usize = 2 << 20;

pub struct Frames {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What is read and not yet handed out: `start <= end <= buffer.len()`.
    start: usize,
    end: usize,
}

impl Frames {
    pub fn new(stream: TcpStream) -> Frames {
        Frames { stream, buffer: vec![0; START_BYTES], start: 0, end: 0 }
    }

    /// The next frame; nothing when the client has closed between frames.
    pub fn read(&mut self) -> io::Result<Option<&[u8]>> {
        if !self.fill(4)? {
            return Ok(None);
        }
        let length = self.buffer[self.start..self.start + 4].try_into().expect("four bytes");
        let length = u32::from_be_bytes(length);
        if length > FRAME_MAX_BYTES {
            let message = format!("a frame of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.start += 4;
        if !self.fill(length as usize)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let frame = &self.buffer[self.start..self.start + length as usize];
        self.start += length as usize;
        Ok(Some(frame))
    }

    /// Whether the next frame has been read already, all of it.
    pub fn has_another(&self) -> bool {
        let unread = &self.buffer[self.start..self.end];
        let length = unread.first_chunk().map(|length| u32::from_be_bytes(*length));
        length.is_some_and(|length| unread.len() - 4 >= length as usize)
    }

    /// Reads until so many bytes are there; false when the stream ends before any of them.
    fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        while self.end - self.start < bytes {
            if self.buffer.len() - self.start < bytes {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
                if self.buffer.len() < bytes {
                    self.buffer.resize(bytes, 0);
                }
            }
            match self.stream.read(&mut self.buffer[self.end..])? {
                0 if self.start == self.end => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.end += read,
            }
        }
        Ok(true)
    }
}
