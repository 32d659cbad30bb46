//! Cuts the byte stream of a connection into request frames.
//!
//! Owns the read buffer. A frame is a 32-bit length and so many bytes; key and version stand at
//! its start and are judged before the rest is read. Nothing is reserved on the word of a length
//! field beyond what this connection has already proved to send: the buffer grows with the bytes
//! that arrive. Frames are slices of the buffer, never copies of it; reads end at the end of the
//! frame under way, so that big frames are not copied when the next one begins.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use crate::header::{self, HeaderError};
use crate::limits::Network;
use crate::stats::add;

/// Why a connection has no next frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The client closed between two frames. Normal.
    #[error("the client closed the connection")]
    Eof,
    #[error("the client closed the connection inside a frame")]
    CutFrame,
    #[error("reading: {0}")]
    Io(#[from] std::io::Error),
    #[error("frame length {0}")]
    BadLength(i32),
    #[error("a frame of {length} bytes for an API that takes {max}")]
    TooLong { length: u32, max: u32 },
    #[error("{0}")]
    Header(HeaderError),
    #[error("a request body that cannot be decoded")]
    BadBody,
    #[error("idle for too long")]
    Idle,
    #[error("a frame that arrives too slowly")]
    Slow,
    #[error("closed by the broker: {0}")]
    Stopped(&'static str),
}

/// Bytes of a length field.
const LENGTH_BYTES: usize = 4;
/// First read of a connection that has sent nothing yet.
const READ_MIN_BYTES: usize = 16 * 1024;
/// Largest buffer kept ready for a next frame like the last one.
const READ_AHEAD_MAX_BYTES: usize = 2 * 1024 * 1024;
/// Frames above this wait for room in the shard's memory budget.
const LARGE_FRAME_BYTES: usize = 64 * 1024;
/// What a waiting connection keeps after [`SHRINK_AFTER`].
const IDLE_BUFFER_BYTES: usize = 1024;
const SHRINK_AFTER: Duration = Duration::from_secs(5);

const _: () = assert!(READ_MIN_BYTES <= LARGE_FRAME_BYTES);
const _: () = assert!(LARGE_FRAME_BYTES <= READ_AHEAD_MAX_BYTES);

pub(crate) struct FrameReader {
    shard: rt::Shard,
    stream: rt::Stream,
    network: Network,
    buffer: BytesMut,
    /// Bytes of the last frame: the next is taken to be alike.
    last_frame_bytes: usize,
}

/// Whether a wait for the first byte of a frame may end the connection.
pub(crate) trait Idleness {
    /// Nothing is in flight.
    fn is_idle(&self) -> bool;
}

impl FrameReader {
    pub(crate) fn new(shard: &rt::Shard, stream: &rt::Stream, network: &Network) -> FrameReader {
        FrameReader {
            shard: shard.clone(),
            stream: stream.clone(),
            network: network.clone(),
            buffer: BytesMut::new(),
            last_frame_bytes: 0,
        }
    }

    /// The first bytes of the connection, at least four, left in the buffer.
    pub(crate) async fn first_bytes(&mut self, idleness: &impl Idleness) -> Result<[u8; 4], Ended> {
        self.begin(idleness).await?;
        let mut first = [0; 4];
        first.copy_from_slice(&self.buffer[..4]);
        Ok(first)
    }

    /// What was read and not yet cut into frames.
    pub(crate) fn take_buffer(&mut self) -> Bytes {
        std::mem::take(&mut self.buffer).freeze()
    }

    /// The next frame, without its length field. Header errors are returned once the frame is
    /// whole when they need an answer, else as soon as they are seen.
    pub(crate) async fn next(&mut self, idleness: &impl Idleness) -> Result<Bytes, Ended> {
        let started = self.begin(idleness).await?;
        let length = (&self.buffer[..LENGTH_BYTES]).get_i32();
        let max = self.network.limits.frame_max_bytes;
        if length <= 0 {
            return Err(Ended::BadLength(length));
        }
        if length as u32 > max {
            return Err(Ended::BadLength(length));
        }
        let whole = LENGTH_BYTES + length as usize;
        self.fill(whole.min(LENGTH_BYTES + header::PEEK_BYTES), whole, started).await?;
        let peeked = &self.buffer[LENGTH_BYTES..whole.min(LENGTH_BYTES + header::PEEK_BYTES)];
        match header::peek(peeked) {
            Ok((api, ..)) if length as u32 > api.frame_max_bytes => {
                let max = api.frame_max_bytes;
                return Err(Ended::TooLong { length: length as u32, max });
            }
            Ok(_) | Err(HeaderError::UnknownApiVersions { .. }) => {}
            Err(error) => return Err(Ended::Header(error)),
        }
        if whole > LARGE_FRAME_BYTES && self.buffer.len() < whole {
            if self.network.memory.is_full() {
                add(&self.network.stats.memory_waits, 1);
            }
            self.network.memory.room().await;
        }
        // Waiting for memory is no fault of the client.
        self.fill(whole, whole, self.shard.now()).await?;
        self.last_frame_bytes = whole;
        self.buffer.advance(LENGTH_BYTES);
        Ok(self.buffer.split_to(length as usize).freeze())
    }

    /// Waits for the length field of the next frame; gives the time when its first byte was there.
    async fn begin(&mut self, idleness: &impl Idleness) -> Result<rt::Instant, Ended> {
        if self.buffer.is_empty() {
            self.wait_for_frame(idleness).await?;
        }
        let started = self.shard.now();
        self.fill(LENGTH_BYTES, LENGTH_BYTES + self.last_frame_bytes, started).await?;
        Ok(started)
    }

    async fn wait_for_frame(&mut self, idleness: &impl Idleness) -> Result<(), Ended> {
        let idle_max = self.network.limits.idle;
        let ready = self.last_frame_bytes.clamp(READ_MIN_BYTES, READ_AHEAD_MAX_BYTES);
        let mut since = self.shard.now();
        let mut reserve = ready;
        let mut patience = SHRINK_AFTER.min(idle_max);
        loop {
            self.buffer.reserve(reserve);
            let read = self.stream.read_into(&mut self.buffer);
            match self.shard.timeout(patience, read).await {
                Ok(Ok(0)) => return Err(Ended::Eof),
                Ok(Ok(bytes)) => {
                    add(&self.network.stats.bytes_in, bytes as u64);
                    return Ok(());
                }
                Ok(Err(error)) => return Err(Ended::Io(error)),
                Err(rt::Elapsed) => {}
            }
            let now = self.shard.now();
            if !idleness.is_idle() {
                since = now;
            }
            let waited = now.saturating_since(since);
            if waited >= idle_max {
                return Err(Ended::Idle);
            }
            // A connection that is quiet for a while gives its buffer back.
            self.buffer = BytesMut::new();
            reserve = IDLE_BUFFER_BYTES;
            patience = idle_max - waited;
        }
    }

    /// Reads until `want` bytes are in the buffer, towards a frame of `whole` bytes.
    async fn fill(&mut self, want: usize, whole: usize, started: rt::Instant) -> Result<(), Ended> {
        while self.buffer.len() < want {
            self.grow(whole);
            let patience = self.patience(started)?;
            let read = self.stream.read_into(&mut self.buffer);
            match self.shard.timeout(patience, read).await {
                Ok(Ok(0)) => return Err(Ended::CutFrame),
                Ok(Ok(bytes)) => add(&self.network.stats.bytes_in, bytes as u64),
                Ok(Err(error)) => return Err(Ended::Io(error)),
                Err(rt::Elapsed) => return Err(Ended::Slow),
            }
        }
        Ok(())
    }

    /// Makes room for the rest of the frame as far as this connection is trusted: a frame like
    /// the last one, twice what has arrived, or a small buffer.
    fn grow(&mut self, whole: usize) {
        let have = self.buffer.len();
        let missing = whole.saturating_sub(have).max(1);
        let trusted = self.last_frame_bytes.max(have).max(LARGE_FRAME_BYTES);
        let wanted = missing.min(trusted);
        if self.buffer.capacity() - have < wanted {
            self.buffer.reserve(wanted);
        }
    }

    /// What is left of a frame's time: its grace, and more with every byte that came.
    fn patience(&self, started: rt::Instant) -> Result<Duration, Ended> {
        let limits = &self.network.limits;
        let earned = self.buffer.len() as u64 / u64::from(limits.frame_bytes_per_s.max(1));
        let allowed = limits.frame_grace + Duration::from_secs(earned);
        let waited = self.shard.now().saturating_since(started);
        allowed.checked_sub(waited).filter(|left| !left.is_zero()).ok_or(Ended::Slow)
    }
}
