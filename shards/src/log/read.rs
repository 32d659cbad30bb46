//! Reading batches: from memory, from the WAL, from segment files, in that order of preference.
//!
//! Everything that comes from a segment is verified before it is handed out: the batch's checksum,
//! its base offset against the chain, its epoch against the history (both lie outside the
//! checksum), its magic. Damage is refused, never served. Lives on one shard.

use bytes::Bytes;
use net::batch::HEADER_BYTES;
use thiserror::Error;

use super::batch::{BatchFault, BatchHead};
use super::index::{find, find_stored, Seek};
use super::origin::Foreign;
use super::partition::{PartitionInner, PartitionLog};
use super::scan::rebuild_index;
use super::state::{ReadBound, SegmentPart, Source};
use super::types::{Offset, Position};

/// Largest single read of a segment.
const CHUNK_BYTES_MAX: u64 = 2 << 20;
/// Smallest, unless the segment ends.
const CHUNK_BYTES_MIN: u64 = 16 << 10;
/// A closed segment this short is searched without an index.
const INDEX_NEEDED_BYTES: u64 = 1 << 20;

/// What to read.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest {
    /// The first offset wanted; the batch that contains it comes whole.
    pub from: Offset,
    /// High watermark or last stable offset: batches end at or below it.
    pub up_to: Offset,
    /// Room for batches.
    pub max_bytes: u64,
    /// Give one batch even when it is larger than `max_bytes` (KIP-74).
    pub at_least_one: bool,
}

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct ReadAnswer {
    /// Whole batches in order, ready for a Fetch answer.
    pub batches: Vec<Bytes>,
    /// Their length together.
    pub bytes: u64,
    /// The offset after the last record; the requested one when nothing was read.
    pub next_offset: Offset,
    /// Some of it came from a segment file.
    pub from_disk: bool,
}

/// Why nothing can be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Below the log start or above the log end.
    #[error("offset {asked} outside of {log_start} to {log_end}")]
    OutOfRange {
        /// The offset asked for.
        asked: Offset,
        /// First readable offset.
        log_start: Offset,
        /// Log end.
        log_end: Offset,
    },
    /// What is on disk is not what was written there. Refused; a peer may have it.
    #[error("segment {base_offset} is damaged at position {position} (offset {offset}): {fault}")]
    Damaged {
        /// The segment.
        base_offset: Offset,
        /// Where in it.
        position: Position,
        /// The offset that should be there.
        offset: Offset,
        /// What is wrong.
        fault: Damage,
    },
    /// The WAL could not give back a batch that is not in a segment yet.
    #[error("reading offset {offset} from the WAL: {what}")]
    Wal {
        /// Base offset of the batch.
        offset: Offset,
        /// As the WAL says it.
        what: String,
    },
    /// The records of a batch could not be searched.
    #[error("searching the batch at offset {offset}: {what}")]
    Search {
        /// Base offset of the batch.
        offset: Offset,
        /// As the searcher says it.
        what: String,
    },
    /// The partition was deleted meanwhile.
    #[error("the partition is deleted")]
    Removed,
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What is wrong with a segment.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Damage {
    /// A batch is not what should be there.
    #[error(transparent)]
    Batch(#[from] BatchFault),
    /// The file ends before its sealed position.
    #[error("the file ends too early")]
    Truncated,
    /// No segment has this offset, though it is above the log start.
    #[error("the segment is missing")]
    Missing,
    /// Another segment stands in its place.
    #[error(transparent)]
    Foreign(#[from] Foreign),
    /// Its `.map` is unreadable, another segment's, or contradicts its neighbours.
    #[error("map: {0}")]
    Map(String),
}

impl PartitionLog {
    /// Reads whole batches, from the one that contains `from` on. Empty when there is nothing
    /// below `up_to`, or no room for the first batch.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadAnswer, ReadError> {
        let inner = &*self.inner;
        {
            let state = inner.state.borrow();
            let (log_start, log_end) = (state.log_start, state.next_offset);
            if request.from < log_start || request.from > log_end {
                return Err(ReadError::OutOfRange { asked: request.from, log_start, log_end });
            }
        }
        let answer = inner.read_from(request).await;
        if inner.removed.get() {
            return Err(ReadError::Removed);
        }
        if matches!(answer, Err(ReadError::Damaged { .. })) {
            inner.context.count(|stats| stats.damaged_reads += 1);
        }
        answer
    }
}

impl PartitionInner {
    /// Like `PartitionLog::read`, also below the log start.
    pub async fn read_from(&self, request: ReadRequest) -> Result<ReadAnswer, ReadError> {
        let mut answer = ReadAnswer { next_offset: request.from, ..ReadAnswer::default() };
        loop {
            let bound = ReadBound {
                limit: request.up_to,
                max_bytes: request.max_bytes.saturating_sub(answer.bytes),
                at_least_one: request.at_least_one && answer.batches.is_empty(),
            };
            let at = answer.next_offset;
            let source = self.state.borrow().source(at, bound);
            let room = bound.max_bytes > 0 || bound.at_least_one;
            match source {
                Source::End => return Ok(answer),
                _ if !room => return Ok(answer),
                Source::Memory(batches, next) => {
                    let bytes: u64 = batches.iter().map(|batch| batch.len() as u64).sum();
                    self.context.count(|stats| stats.read_cache_bytes += bytes);
                    answer.take(batches, bytes, next);
                }
                Source::Wal { index, location, length, next_offset, staged } => {
                    let read = match staged {
                        Some(at) => self.read_staged(index, location, length, at).await,
                        None => {
                            self.context.reader.read(self.identity.owner, index, location).await
                        }
                    };
                    match read {
                        Ok(bytes) if bytes.len() == length as usize => {
                            answer.take(vec![bytes], u64::from(length), next_offset);
                        }
                        // A round may have flushed it meanwhile, and the WAL let go of it.
                        _ if self.state.borrow().flushed.index >= index => {
                            self.evict_flushed(at);
                        }
                        Ok(_) => return Err(wal_error(at, "another length".to_owned())),
                        Err(what) => return Err(wal_error(at, what)),
                    }
                }
                Source::Segment(part) => {
                    let before = answer.next_offset;
                    match self.read_segment(part, bound, &mut answer).await {
                        // What came before the damage is good; the next read meets the damage.
                        Err(ReadError::Damaged { .. }) if answer.next_offset > before => {
                            return Ok(answer);
                        }
                        done => done?,
                    }
                    if answer.next_offset == before {
                        return Ok(answer);
                    }
                }
                Source::Missing => return Err(self.missing(at)),
            }
        }
    }

    fn evict_flushed(&self, offset: Offset) {
        let mut state = self.state.borrow_mut();
        if let Some(base) = state.batch_base(offset) {
            state.evict(base);
        }
    }

    fn missing(&self, offset: Offset) -> ReadError {
        let base_offset = offset;
        ReadError::Damaged { base_offset, position: Position(0), offset, fault: Damage::Missing }
    }

    /// Reads from one segment. When an index led to something else than the chain says, the index
    /// is rebuilt from the segment, once, and the read is done again.
    async fn read_segment(
        &self,
        part: SegmentPart,
        bound: ReadBound,
        answer: &mut ReadAnswer,
    ) -> Result<(), ReadError> {
        let from = answer.next_offset;
        let (start, indexed) = self.locate(part, Seek::Offset(from)).await?;
        let mut walk = SegmentWalk::new(self, part, start);
        match walk.collect(from, bound, answer).await {
            Err(error @ ReadError::Damaged { .. }) if indexed && answer.next_offset == from => {
                if self.rebuilt.borrow().contains(&part.base_offset) {
                    return Err(error);
                }
                let fresh = rebuild_index(self, part, true).await?;
                let start = start_of(part, find(&fresh, Seek::Offset(from)));
                if start == walk.start {
                    return Err(error);
                }
                SegmentWalk::new(self, part, start).collect(from, bound, answer).await
            }
            done => done,
        }
    }

    /// A batch boundary at or before what is sought, and whether an index gave it. Every read of a
    /// segment begins here: its first one finds out whether it is the right segment.
    pub async fn locate(
        &self,
        part: SegmentPart,
        seek: Seek,
    ) -> Result<(BatchStart, bool), ReadError> {
        if !part.closed {
            return self.locate_active(part, seek).await;
        }
        self.check_origin(part).await?;
        if let Some(map) = self.context.files.index(&self.identity, part.base_offset).await? {
            if let Ok(entry) = find_stored(&map, part.base_offset, seek) {
                let entry = entry.filter(|entry| entry.position < part.end);
                return Ok((start_of(part, entry), entry.is_some()));
            }
        } else if part.end.0 <= INDEX_NEEDED_BYTES {
            return Ok((start_of(part, None), false));
        }
        let fresh = rebuild_index(self, part, false).await?;
        Ok((start_of(part, find(&fresh, seek)), false))
    }

    async fn locate_active(
        &self,
        part: SegmentPart,
        seek: Seek,
    ) -> Result<(BatchStart, bool), ReadError> {
        self.load_active_index().await?;
        let state = self.state.borrow();
        // A round may have closed the segment meanwhile; its first batch is always a start.
        let same = state.active.as_ref().is_some_and(|a| a.base_offset == part.base_offset);
        let entries = state.active_index.as_deref().filter(|_| same).unwrap_or_default();
        let entry = find(entries, seek).filter(|entry| entry.position < part.end);
        Ok((start_of(part, entry), entry.is_some()))
    }

    pub fn damaged(
        &self,
        part: SegmentPart,
        at: BatchStart,
        fault: impl Into<Damage>,
    ) -> ReadError {
        ReadError::Damaged {
            base_offset: part.base_offset,
            position: at.position,
            offset: at.offset,
            fault: fault.into(),
        }
    }
}

impl ReadAnswer {
    fn take(&mut self, batches: Vec<Bytes>, bytes: u64, next_offset: Offset) {
        self.batches.extend(batches);
        self.bytes += bytes;
        self.next_offset = next_offset;
    }
}

fn wal_error(offset: Offset, what: String) -> ReadError {
    ReadError::Wal { offset, what }
}

/// A batch boundary in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchStart {
    pub position: Position,
    /// Base offset of the batch that begins there.
    pub offset: Offset,
}

fn start_of(part: SegmentPart, entry: Option<super::index::IndexEntry>) -> BatchStart {
    match entry {
        Some(entry) => BatchStart { position: entry.position, offset: entry.offset },
        None => BatchStart { position: Position(0), offset: part.base_offset },
    }
}

/// Goes through a segment batch by batch, verifying each against the chain.
pub(super) struct SegmentWalk<'a> {
    inner: &'a PartitionInner,
    part: SegmentPart,
    start: BatchStart,
    /// The next batch.
    at: BatchStart,
    /// What was read ahead; its first byte is the next batch's.
    chunk: Bytes,
}

impl<'a> SegmentWalk<'a> {
    pub fn new(inner: &'a PartitionInner, part: SegmentPart, start: BatchStart) -> Self {
        SegmentWalk { inner, part, start, at: start, chunk: Bytes::new() }
    }

    /// Where the next batch begins.
    pub fn at(&self) -> BatchStart {
        self.at
    }

    async fn collect(
        &mut self,
        from: Offset,
        bound: ReadBound,
        answer: &mut ReadAnswer,
    ) -> Result<(), ReadError> {
        let mut room = bound.max_bytes;
        while let Some(head) = self.head(room).await? {
            if head.next_offset() <= from {
                self.pass(&head);
                continue;
            }
            let first = bound.at_least_one && answer.batches.is_empty();
            let fits = u64::from(head.length) <= room;
            if head.next_offset() > bound.limit || !(fits || first) {
                break;
            }
            let batch = self.batch(&head).await?;
            room = room.saturating_sub(batch.len() as u64);
            self.inner.context.count(|stats| stats.read_disk_bytes += batch.len() as u64);
            answer.from_disk = true;
            let (bytes, next) = (batch.len() as u64, head.next_offset());
            answer.take(vec![batch], bytes, next);
        }
        Ok(())
    }

    /// The header of the next batch, checked against the chain and the epoch history; `None` at
    /// the end of the sealed bytes. Reads about `want` bytes ahead.
    pub async fn head(&mut self, want: u64) -> Result<Option<BatchHead>, ReadError> {
        if self.at.position >= self.part.end {
            // A segment reaches to its neighbour, or the active one to what the checkpoint says:
            // or bytes or a whole segment are gone.
            return match self.at.offset < self.part.next_offset {
                true => Err(self.inner.damaged(self.part, self.at, Damage::Truncated)),
                false => Ok(None),
            };
        }
        self.fill(HEADER_BYTES as u64, want).await?;
        let head = BatchHead::parse(&self.chunk).map_err(|fault| self.fault(fault))?;
        let (found, expected) = (head.base_offset.0, self.at.offset.0);
        if found != expected {
            return Err(self.fault(BatchFault::BaseOffset { found, expected }));
        }
        let (found, end) = (head.next_offset().0, self.part.next_offset.0);
        if found > end {
            return Err(self.fault(BatchFault::Beyond { found, end }));
        }
        let expected = self.inner.state.borrow().epochs.epoch_at(head.base_offset);
        match expected {
            Some(expected) if expected != head.epoch => {
                Err(self.fault(BatchFault::Epoch { found: head.epoch, expected }))
            }
            _ => Ok(Some(head)),
        }
    }

    /// The whole of the batch whose header was just given, its checksum verified; goes past it.
    pub async fn batch(&mut self, head: &BatchHead) -> Result<Bytes, ReadError> {
        let length = u64::from(head.length);
        self.fill(length, length).await?;
        let batch = self.chunk.slice(..head.length as usize);
        head.verify_crc(&batch).map_err(|fault| self.fault(fault))?;
        self.pass(head);
        Ok(batch)
    }

    /// Goes past the batch whose header was just given.
    pub fn pass(&mut self, head: &BatchHead) {
        let length = head.length as usize;
        self.chunk = self.chunk.slice(length.min(self.chunk.len())..);
        let position = Position(self.at.position.0 + u64::from(head.length));
        self.at = BatchStart { position, offset: head.next_offset() };
    }

    /// Makes sure that `chunk` has `need` bytes.
    async fn fill(&mut self, need: u64, want: u64) -> Result<(), ReadError> {
        if self.chunk.len() as u64 >= need {
            return Ok(());
        }
        let left = self.part.end.0.saturating_sub(self.at.position.0);
        if need > left {
            return Err(self.fault(BatchFault::Length));
        }
        let ahead = want.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX).max(need).min(left);
        let length = usize::try_from(ahead).map_err(|_| self.fault(BatchFault::Length))?;
        let (identity, base) = (&self.inner.identity, self.part.base_offset);
        let file = match self.inner.context.files.segment(identity, base).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(self.inner.damaged(self.part, self.at, Damage::Missing));
            }
            opened => opened?,
        };
        self.chunk = self.inner.context.pace.read(&file, self.at.position, length).await?;
        if (self.chunk.len() as u64) < need {
            return Err(self.inner.damaged(self.part, self.at, Damage::Truncated));
        }
        Ok(())
    }

    fn fault(&self, fault: BatchFault) -> ReadError {
        self.inner.damaged(self.part, self.at, fault)
    }
}
