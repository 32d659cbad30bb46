//! Staging: long batches go straight to their place in a segment, and are not written again.
//!
//! A batch that is about to be appended gets the place where the log's order puts it. Its whole
//! blocks are written there at once, beyond everything that is flushed; what it shares a block
//! with its neighbours for, its *edges*, stands in the WAL beside the pointer, and goes to the
//! segment with the neighbours in a flush round. The WAL writes the pointer when the blocks are
//! durable. Nothing but the pointer leads there until a checkpoint has passed the batch.
//!
//! Staging writes only into *room*: a file that is there, named durably, with space allocated
//! ahead. So it never meets a full disk, and a batch for which there is no room goes to the WAL
//! like all others, while room is made for the next. Lives on one shard.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use rt::{Buf, File};
use wal::{DiskError, Index, Location, PayloadDurable};

use super::checkpoint::BLOCK;
use super::flush::remove_strays;
use super::partition::{OpenError, PartitionInner, PartitionLog, Strays};
use super::placing::{Pin, Upcoming};
use super::plan::PlanInput;
use super::types::{Offset, Position, StagedAt};

/// So much of a batch's beginning stands beside its pointer, whatever the alignment, so that its
/// header is there.
pub const STAGED_HEAD_BYTES: usize = 136;
/// What [`Layout`] takes at least, whatever is asked for.
const STAGED_LEAST_BYTES: u32 = BLOCK as u32 + STAGED_HEAD_BYTES as u32;
/// The error of a sync that nobody saw the end of.
const EIO: i32 = 5;
/// So many bytes of a shard's staged batches are with the disk at once, or a single batch. The log's
/// next frame waits for all that the disk was given before it, and a few MB keep the disk as busy as
/// many (`perf/runs/2026-11-22-stall.md`).
pub(super) const STAGED_IN_FLIGHT_BYTES: u64 = 2 << 20;
/// Room is made in steps of this many batches, or of half of what the segment holds, whichever is
/// more, within these bounds.
const ROOM_BATCHES: u64 = 16;
const ROOM_MIN_BYTES: u64 = 4 << 20;
const ROOM_MAX_BYTES: u64 = 64 << 20;
/// Room is made only while the disk keeps so much besides: what a round, a log file or a checkpoint
/// needs comes first. And `fallocate` that fails on ext4 keeps what it got, the last block included.
const LEFT_ON_DISK_BYTES: u64 = 64 << 20;

/// How a staged batch lies on the blocks of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    start: u64,
    end: u64,
}

impl Layout {
    pub fn new(position: Position, length: u32) -> Layout {
        Layout { start: position.0, end: position.0 + u64::from(length) }
    }

    /// The blocks that it has to itself.
    pub fn blocks(&self) -> Range<u64> {
        let first = self.start.next_multiple_of(BLOCK);
        first..(self.end / BLOCK * BLOCK).max(first)
    }

    /// The part of the batch that stands before the tail in its edges.
    fn head(&self) -> Range<usize> {
        let shared = self.blocks().start - self.start;
        0..shared.max(STAGED_HEAD_BYTES as u64).min(self.end - self.start) as usize
    }

    /// The part of the batch behind its last whole block.
    fn tail(&self) -> Range<usize> {
        (self.blocks().end - self.start) as usize..(self.end - self.start) as usize
    }

    fn edges_bytes(&self) -> usize {
        self.head().len() + self.tail().len()
    }

    /// A part of the batch that lies within its head or its tail; `None` if the edges are another
    /// batch's.
    pub fn edge(&self, edges: &Bytes, part: &Range<usize>) -> Option<Bytes> {
        let (head, tail) = (self.head(), self.tail());
        let within = match part.end <= head.end {
            true => part.clone(),
            false => part.start + head.end - tail.start..part.end + head.end - tail.start,
        };
        (edges.len() == self.edges_bytes()).then(|| edges.slice(within))
    }
}

/// Where staging may write now.
pub(super) struct Room {
    pub segment: Offset,
    /// End of the allocated space.
    upto: u64,
    file: Rc<StagingFile>,
}

/// A segment file with the syncs of its staged batches, which one sync answers together.
struct StagingFile {
    file: File,
    written: Cell<u64>,
    synced: Cell<u64>,
}

/// A batch that has its place and is on its way there.
pub struct StagedBatch {
    /// The place.
    pub at: StagedAt,
    /// CRC-32C of the whole batch.
    pub crc: u32,
    /// What stands beside the pointer.
    pub edges: Bytes,
    /// The batch in memory, as soon as it has been written.
    pub bytes: Rc<RefCell<Option<Bytes>>>,
    /// Answers when its blocks are durable.
    pub durable: PayloadDurable,
}

/// A staged batch that recovery found in the WAL.
#[derive(Debug, Clone, Copy)]
pub struct StagedEntry {
    /// Raft index.
    pub index: Index,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Length in bytes.
    pub length: u32,
    /// Its place.
    pub at: StagedAt,
    /// Of its pointer in the WAL.
    pub location: Location,
}

impl PartitionLog {
    /// The shortest batch that is staged. None is without a block boundary in it.
    pub fn staged_min_bytes(&self) -> u32 {
        self.inner.context.options.staged_min_bytes.max(STAGED_LEAST_BYTES)
    }

    /// Whether `stage` would take this batch now. If not, room is made for the next one.
    /// `before` knows the batches that are appended and not committed yet.
    pub fn would_stage(&self, next: &Upcoming, before: &dyn Fn(Index) -> Option<Upcoming>) -> bool {
        let inner = &self.inner;
        let at = inner.with_input(|state, input| {
            let cursor = state.place_before(next.index, before, input)?;
            Some(state.placing.peek(&cursor, next, input))
        });
        at.is_some_and(|at| inner.room_for(at, next.length).is_some())
    }

    /// Takes the batch that is appended next: its blocks are on their way when this returns. What
    /// is taken must be appended, and told if it is taken back.
    pub fn stage(
        &self,
        next: &Upcoming,
        before: &dyn Fn(Index) -> Option<Upcoming>,
        payload: &[Bytes],
    ) -> Option<StagedBatch> {
        let inner = &self.inner;
        let at = inner.with_input(|state, input| {
            let mut cursor = state.place_before(next.index, before, input)?;
            let at = state.placing.step(&mut cursor, next, input);
            state.placing.cursor = Some(cursor);
            Some(at)
        })?;
        let file = inner.room_for(at, next.length)?;
        let Upcoming { index, base_offset, length, .. } = *next;
        inner.state.borrow_mut().placing.pin(Pin { index, base_offset, at });
        inner.context.count(|stats| stats.staged_bytes += u64::from(length));
        Some(inner.submit(file, at, length, payload))
    }

    /// Entries from `from` on are taken back; none of them was committed.
    pub fn unstage(&self, from: Index) {
        let begun = self.inner.state.borrow_mut().unplace(from);
        if let Strays::These(strays) = &mut *self.inner.strays.borrow_mut() {
            strays.extend(begun);
        }
    }

    /// The batch of an entry that is staged there, and that no checkpoint has passed.
    pub async fn read_staged(
        &self,
        index: Index,
        location: Location,
        length: u32,
        at: StagedAt,
    ) -> Result<Bytes, String> {
        self.inner.read_staged(index, location, length, at).await
    }

    /// Makes sure that every pointer which was recovered leads to its batch.
    pub async fn verify_staged(&self, staged: &[StagedEntry]) -> Result<(), OpenError> {
        for entry in staged {
            let StagedEntry { index, length, at, location, .. } = *entry;
            let read = self.inner.read_staged(index, location, length, at).await;
            read.map_err(|what| OpenError::Segment {
                base_offset: at.segment,
                what: format!("the batch of entry {index} at {}: {what}", at.position),
            })?;
        }
        Ok(())
    }
}

impl PartitionInner {
    fn with_input<T>(
        &self,
        act: impl FnOnce(&mut super::state::LogState, &PlanInput<'_>) -> T,
    ) -> T {
        let shard = &self.context.shard;
        let config = self.config.borrow();
        let input = PlanInput { config: &config, now_ms: shard.wall_ms(), random: shard.random() };
        act(&mut self.state.borrow_mut(), &input)
    }

    /// The file to write to, if there is room at this place. More is made when it gets short.
    fn room_for(self: &Rc<Self>, at: StagedAt, length: u32) -> Option<Rc<StagingFile>> {
        let end = Layout::new(at.position, length).blocks().end;
        let step = (u64::from(length) * ROOM_BATCHES).max(end / 2);
        let step = step.clamp(ROOM_MIN_BYTES, ROOM_MAX_BYTES);
        let state = self.state.borrow();
        let room = state.room.as_ref().filter(|room| room.segment == at.segment);
        let upto = room.map_or(0, |room| room.upto);
        let file = room.filter(|_| end <= upto).map(|room| Rc::clone(&room.file));
        if end + step / 2 > upto && !self.making_room.get() {
            // Not far beyond the end of the segment: what is left over is given back at its close.
            let most = self.config.borrow().segment_bytes.next_multiple_of(BLOCK);
            let wanted = (end + step).min(most.max(end));
            if wanted > upto {
                self.making_room.set(true);
                let more = wanted - upto.max(at.position.0.min(wanted));
                let make = make_room(Rc::clone(self), at.segment, wanted, more);
                self.context.shard.spawn(make).detach();
            }
        }
        file
    }

    fn submit(
        self: &Rc<Self>,
        file: Rc<StagingFile>,
        at: StagedAt,
        length: u32,
        payload: &[Bytes],
    ) -> StagedBatch {
        let layout = Layout::new(at.position, length);
        let first = at.position.0 / BLOCK * BLOCK;
        let skip = (at.position.0 - first) as usize;
        let whole = skip + length as usize;
        let mut buf = self.context.shard.buffer(whole);
        buf.resize_zeroed(skip);
        let mut crc = 0;
        for slice in payload {
            buf.extend_from_slice(slice);
            crc = crc32c::crc32c_append(crc, slice);
        }
        assert_eq!(buf.len(), whole, "the payload is as long as it says");
        let batch = &buf[skip..];
        let edges = [&batch[layout.head()], &batch[layout.tail()]].concat().into();
        // The first block may begin with other batches' bytes, and the last one ends with some:
        // the one is written again by a round, which has the edges, the other by it alone.
        buf.set_len((layout.blocks().end - first) as usize);
        let (bytes, kept) = (Rc::new(RefCell::new(None)), skip..whole);
        let (sender, durable) = rt::oneshot();
        let (cell, partition) = (Rc::clone(&bytes), Rc::clone(self));
        let write = async move {
            let written = partition.write_staged(&file, buf, first).await;
            let outcome = written.map(|mut buf| {
                buf.set_len(whole);
                *cell.borrow_mut() = Some(buf.freeze().slice(kept));
            });
            // The log has ended if nobody waits.
            let _ = sender.send(outcome);
        };
        self.context.shard.spawn(write).detach();
        StagedBatch { at, crc, edges, bytes, durable }
    }

    /// Reads a batch that is staged: its blocks from the segment, its edges from the WAL.
    pub async fn read_staged(
        &self,
        index: Index,
        location: Location,
        length: u32,
        at: StagedAt,
    ) -> Result<Bytes, String> {
        let owner = self.identity.owner;
        let (crc, edges) = self.context.reader.read_edges(owner, index, location).await?;
        let layout = Layout::new(at.position, length);
        if edges.len() != layout.edges_bytes() {
            return Err(format!("{} bytes beside its pointer", edges.len()));
        }
        let file = self.context.files.segment(&self.identity, at.segment).await;
        let file = file.map_err(|error| error.to_string())?;
        let (head, tail, blocks) = (layout.head(), layout.tail(), layout.blocks());
        let from = layout.start + head.end as u64;
        let room = (blocks.end - from) as usize;
        let middle = self.context.pace.read(&file, Position(from), room).await;
        let middle = middle.map_err(|error| error.to_string())?;
        let mut batch = BytesMut::with_capacity(length as usize);
        batch.extend_from_slice(&edges[..head.len()]);
        batch.extend_from_slice(&middle);
        batch.extend_from_slice(&edges[edges.len() - tail.len()..]);
        if batch.len() != length as usize || crc32c::crc32c(&batch) != crc {
            return Err("its checksum does not hold".to_owned());
        }
        Ok(batch.freeze())
    }
}

impl PartitionInner {
    /// Makes durable what was written to a file of this partition. All syncs go through here, one
    /// after the other, and none follows a failed one: the kernel may have dropped what that one
    /// was for, and would say of another writer's bytes that they are safe.
    pub async fn sync_file(&self, file: &File) -> io::Result<()> {
        let _turn = self.sync_turn.acquire(1).await;
        self.sync_in_turn(file).await
    }

    async fn sync_in_turn(&self, file: &File) -> io::Result<()> {
        // Failed until it has succeeded: nobody may wait for the end of it.
        if let Some(error) = self.sync_error.replace(Some(EIO)) {
            self.sync_error.set(Some(error));
            return Err(io::Error::from_raw_os_error(error));
        }
        let synced = file.sync().await;
        let error = synced.as_ref().err().map(|error| error.raw_os_error().unwrap_or(EIO));
        self.sync_error.set(error);
        synced
    }

    /// Writes blocks and makes them durable.
    async fn write_staged(
        &self,
        staging: &StagingFile,
        buf: Buf,
        position: u64,
    ) -> Result<Buf, DiskError> {
        let bytes = (buf.len() as u64).min(STAGED_IN_FLIGHT_BYTES);
        let _share = self.context.staging.acquire(bytes).await;
        let buf = staging.file.write_at(buf, position).await?;
        let mine = staging.written.get() + 1;
        staging.written.set(mine);
        let _turn = self.sync_turn.acquire(1).await;
        if staging.synced.get() < mine {
            let covered = staging.written.get();
            self.sync_in_turn(&staging.file).await?;
            staging.synced.set(covered);
        }
        Ok(buf)
    }
}

/// Takes space for staging in a segment that is, or will be, the newest one: up to a position, which
/// is so many bytes more than there are.
async fn make_room(partition: Rc<PartitionInner>, segment: Offset, upto: u64, more: u64) {
    match try_room(&partition, segment, upto, more).await {
        Ok(()) => {}
        // As long as there is none, batches go to the WAL.
        Err(error) if is_refused(&error) => {
            tracing::debug!(%error, "no room for staging");
        }
        Err(_) if partition.removed.get() => {}
        // A name that may not be durable: nothing may be built on it.
        Err(error) => partition.context.fail(error),
    }
    partition.making_room.set(false);
}

fn is_refused(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, Unsupported};
    matches!(error.kind(), FileTooLarge | QuotaExceeded | StorageFull | Unsupported)
}

async fn try_room(
    partition: &Rc<PartitionInner>,
    segment: Offset,
    upto: u64,
    more: u64,
) -> io::Result<()> {
    // A segment that another one follows may be closed at any time, and must not grow then. One
    // that is closed under this turn is followed by one that was decided on before.
    let _turn = partition.files_turn.acquire(1).await;
    let newest = |partition: &PartitionInner| {
        partition.state.borrow().placing.latest() == Some(segment) && !partition.removed.get()
    };
    if !newest(partition) {
        return Ok(());
    }
    remove_strays(partition).await?;
    if partition.context.files.available_bytes().await < more + LEFT_ON_DISK_BYTES {
        return Ok(());
    }
    let known = partition
        .state
        .borrow()
        .room
        .as_ref()
        .and_then(|room| (room.segment == segment).then(|| Rc::clone(&room.file)));
    let file = match known {
        Some(file) => file,
        None => Rc::new(StagingFile::open(partition, segment).await?),
    };
    file.file.allocate(upto).await?;
    if newest(partition) {
        partition.state.borrow_mut().room = Some(Room { segment, upto, file });
    }
    Ok(())
}

impl StagingFile {
    async fn open(partition: &PartitionInner, segment: Offset) -> io::Result<StagingFile> {
        let (files, identity) = (&partition.context.files, &partition.identity);
        let file = files.create_segment(identity, segment).await?;
        // Also of a file that was there: a round may have made it, and not named it durably yet.
        files.dir(identity).await?.sync().await?;
        Ok(StagingFile { file, written: Cell::new(0), synced: Cell::new(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_its_edges_and_its_blocks() {
        for (position, length) in [
            (0, 20_000),
            (1, 20_000),
            (4095, 8193),
            (4096, 8192),
            (100, 12_188),
            (4095, 4232),
            (1, 4232),
        ] {
            let layout = Layout::new(Position(position), length);
            let batch: Bytes = (0..length).map(|at| (at / 7 + at) as u8).collect();
            let (head, tail, blocks) = (layout.head(), layout.tail(), layout.blocks());
            let edges = Bytes::from([&batch[head.clone()], &batch[tail.clone()]].concat());
            assert_eq!(edges.len(), layout.edges_bytes());
            assert!(head.end as u64 >= blocks.start - position && head.end >= 128);
            assert_eq!(tail.start as u64, blocks.end - position);
            assert!(blocks.start % 4096 == 0 && blocks.end % 4096 == 0);
            assert!(blocks.start <= blocks.end);
            let shared = 0..(blocks.start - position) as usize;
            for part in [shared, tail] {
                assert_eq!(layout.edge(&edges, &part), Some(batch.slice(part)));
            }
            assert_eq!(layout.edge(&edges.slice(1..), &(0..1)), None);
        }
    }
}
