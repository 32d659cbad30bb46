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
use crate::limits::{Charge, Network};
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
    #[error("{0}")]
    Header(HeaderError),
    #[error("a request body that cannot be decoded")]
    BadBody,
    #[error("idle for too long")]
    Idle,
    #[error("a frame that arrives too slowly")]
    Slow,
    #[error("a large frame that stopped arriving while memory is short")]
    Stalled,
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
const LARGE_FRAME_BYTES: usize = 16 * 1024;
/// What a connection is trusted to send at least of a large frame.
const FIRST_GROWTH_BYTES: usize = 64 * 1024;
/// What a waiting connection keeps after [`SHRINK_AFTER`].
const IDLE_BUFFER_BYTES: usize = 1024;
const SHRINK_AFTER: Duration = Duration::from_secs(5);

const _: () = assert!(READ_MIN_BYTES <= LARGE_FRAME_BYTES);
const _: () = assert!(FIRST_GROWTH_BYTES <= READ_AHEAD_MAX_BYTES);

pub(crate) struct FrameReader {
    shard: rt::Shard,
    stream: rt::Stream,
    network: Network,
    buffer: BytesMut,
    /// What is in the buffer, and what was made ready for the frame under way.
    charge: Charge,
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
            charge: network.memory.charge(0),
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

    /// The next frame, without its length field, and its charge. Header errors are returned once
    /// the frame is whole when they need an answer, else as soon as they are seen.
    pub(crate) async fn next(
        &mut self,
        idleness: &impl Idleness,
    ) -> Result<(Bytes, Charge), Ended> {
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
        let started = self
            .fill(whole.min(LENGTH_BYTES + header::PEEK_BYTES), whole, started, idleness)
            .await?;
        let peeked = &self.buffer[LENGTH_BYTES..whole.min(LENGTH_BYTES + header::PEEK_BYTES)];
        match header::peek(peeked) {
            Ok(_) | Err(HeaderError::UnknownApiVersions { .. }) => {}
            Err(error) => return Err(Ended::Header(error)),
        }
        self.fill(whole, whole, started, idleness).await?;
        self.last_frame_bytes = whole;
        self.buffer.advance(LENGTH_BYTES);
        let frame = self.buffer.split_to(length as usize).freeze();
        self.charge.set(whole + self.buffer.len());
        let charge = self.charge.split(whole);
        Ok((frame, charge))
    }

    /// Waits for the length field of the next frame; gives the time when its first byte was there.
    async fn begin(&mut self, idleness: &impl Idleness) -> Result<rt::Instant, Ended> {
        if self.buffer.is_empty() {
            self.wait_for_frame(idleness).await?;
        }
        let started = self.shard.now();
        self.fill(LENGTH_BYTES, LENGTH_BYTES, started, idleness).await
    }

    async fn wait_for_frame(&mut self, idleness: &impl Idleness) -> Result<(), Ended> {
        let idle_max = self.network.limits.idle;
        let ready = self.last_frame_bytes.clamp(READ_MIN_BYTES, READ_AHEAD_MAX_BYTES);
        let mut since = self.shard.now();
        let mut reserve = match self.network.memory.has_plenty(ready) {
            true => ready,
            false => READ_MIN_BYTES,
        };
        let mut patience = SHRINK_AFTER.min(idle_max);
        loop {
            self.buffer.reserve(reserve);
            // The least buffers are not counted: there is a limit on connections for them.
            self.charge.set(if reserve > READ_MIN_BYTES { reserve } else { 0 });
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

    /// Reads until `want` bytes are in the buffer, towards a frame of `whole` bytes that began at
    /// `started`. Gives that time, moved on by what the frame had to wait for memory: that is no
    /// fault of the client.
    async fn fill(
        &mut self,
        want: usize,
        whole: usize,
        mut started: rt::Instant,
        idleness: &impl Idleness,
    ) -> Result<rt::Instant, Ended> {
        let is_large = whole > LARGE_FRAME_BYTES;
        while self.buffer.len() < want {
            if is_large && self.network.memory.is_short() {
                let since = self.shard.now();
                self.network.memory.room_for(&mut self.charge, || idleness.is_idle()).await;
                let waited = self.shard.now().saturating_since(since);
                add(&self.network.stats.memory_waits, u64::from(!waited.is_zero()));
                started = started + waited;
            }
            self.grow(whole);
            self.read_some(started, is_large).await?;
        }
        Ok(started)
    }

    /// Reads what is there, waiting as long as the client may make us wait.
    async fn read_some(&mut self, started: rt::Instant, is_large: bool) -> Result<(), Ended> {
        let short = self.network.limits.stall_when_short;
        loop {
            let patience = self.patience(started)?;
            let read = self.stream.read_into(&mut self.buffer);
            match self.shard.timeout(patience.min(short), read).await {
                Ok(Ok(0)) => return Err(Ended::CutFrame),
                Ok(Ok(bytes)) => {
                    add(&self.network.stats.bytes_in, bytes as u64);
                    return Ok(());
                }
                Ok(Err(error)) => return Err(Ended::Io(error)),
                Err(rt::Elapsed) if is_large && self.network.memory.is_short() => {
                    return Err(Ended::Stalled);
                }
                Err(rt::Elapsed) => {}
            }
        }
    }

    /// Makes room for the rest of the frame as far as this connection is trusted: a frame like
    /// the last one, twice what has arrived, or a small buffer.
    fn grow(&mut self, whole: usize) {
        let have = self.buffer.len();
        let missing = whole.saturating_sub(have).max(1);
        let trusted = self.last_frame_bytes.max(have).max(FIRST_GROWTH_BYTES);
        let wanted = missing.min(trusted);
        if self.buffer.capacity() - have < wanted {
            self.buffer.reserve(wanted);
        }
        self.charge.set(have + wanted);
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
