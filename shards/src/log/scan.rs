//! Rebuilding what is only a cache: the sparse index of a segment, from its batches; and reading
//! the index and the `.map` of segments when they are first needed after a restart.

use std::io;

use super::files::{file_name, FileKind};
use super::index::{
    encode_block, IndexBlock, IndexCursor, IndexEntry, BLOCK_ENTRIES, INDEX_BLOCK_BYTES,
};
use super::map::ClosedFacts;
use super::partition::PartitionInner;
use super::read::{BatchStart, Damage, ReadError, SegmentWalk};
use super::state::SegmentPart;
use super::types::{Offset, Position};

/// How far a rebuilding scan reads ahead.
const SCAN_BYTES: u64 = 1 << 20;
/// A stretch of the active segment without index entries that is worth a scan.
const GAP_BYTES_MAX: u64 = 8 << 20;

/// Makes the index of a segment anew, from its headers; up to the first damage if there is some.
/// It takes the place of the old one, unless the segment is damaged and the old one `usable`: that
/// still leads behind the damage.
pub(super) async fn rebuild_index(
    inner: &PartitionInner,
    part: SegmentPart,
    usable: bool,
) -> Result<Vec<IndexEntry>, ReadError> {
    inner.context.count(|stats| stats.index_rebuilds += 1);
    inner.rebuilt.borrow_mut().insert(part.base_offset);
    let start = BatchStart { position: Position(0), offset: part.base_offset };
    let cursor = IndexCursor::new(part.base_offset);
    let (entries, whole) = scan_entries(inner, part, start, cursor).await?;
    if usable && !whole {
        return Ok(entries);
    }
    if part.closed {
        let file: Vec<u8> = entries
            .chunks(BLOCK_ENTRIES)
            .enumerate()
            .flat_map(|(number, chunk)| encode_block(part.base_offset, number as u32, chunk))
            .collect();
        let dir = inner.context.files.dir(&inner.identity).await?;
        dir.replace(&file_name(part.base_offset, FileKind::Index), &file).await?;
        inner.context.files.forget_index(&inner.identity, part.base_offset);
    } else {
        let mut state = inner.state.borrow_mut();
        let same = state.active.as_ref().is_some_and(|a| a.base_offset == part.base_offset);
        if same && state.active_part() == Some(part) {
            state.active_index = Some(entries.clone());
        }
    }
    Ok(entries)
}

/// Index entries for the batches from `start` on, and whether it came to the end. Damage ends it
/// early without an error: what is found by the index is verified again when it is read.
async fn scan_entries(
    inner: &PartitionInner,
    part: SegmentPart,
    start: BatchStart,
    mut cursor: IndexCursor,
) -> Result<(Vec<IndexEntry>, bool), ReadError> {
    let interval = inner.config.borrow().index_interval_bytes;
    let mut walk = SegmentWalk::new(inner, part, start);
    let mut entries = Vec::new();
    loop {
        let at = walk.at();
        let head = match walk.head(SCAN_BYTES).await {
            Ok(Some(head)) => head,
            Ok(None) => return Ok((entries, true)),
            Err(ReadError::Damaged { .. }) => return Ok((entries, false)),
            Err(error) => return Err(error),
        };
        entries.extend(cursor.batch(at.offset, at.position, head.max_timestamp, interval));
        walk.pass(&head);
    }
}

impl PartitionInner {
    /// Reads the index of the active segment, once after a restart. Blocks beyond the sealed
    /// position are of a round that no checkpoint names; they will be written again.
    pub async fn load_active_index(&self) -> Result<(), ReadError> {
        let part = {
            let state = self.state.borrow();
            match state.active_part() {
                Some(part) if state.active_index.is_none() => part,
                _ => return Ok(()),
            }
        };
        let dir = self.context.files.dir(&self.identity).await?;
        let bytes = match dir.read(&file_name(part.base_offset, FileKind::Index)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Default::default(),
            read => read?,
        };
        let mut entries = stored_entries(&bytes, part);
        let reached = entries.last().map_or(0, |entry| entry.position.0);
        if part.end.0 - reached.min(part.end.0) > GAP_BYTES_MAX {
            self.context.count(|stats| stats.index_rebuilds += 1);
            let start = BatchStart { position: Position(0), offset: part.base_offset };
            let cursor = IndexCursor::new(part.base_offset);
            (entries, _) = scan_entries(self, part, start, cursor).await?;
        }
        let mut state = self.state.borrow_mut();
        let same = state.active.as_ref().is_some_and(|a| a.base_offset == part.base_offset);
        if same && state.active_index.is_none() {
            state.active_index = Some(entries);
        }
        Ok(())
    }

    /// What the `.map` of a closed segment says, read once.
    pub async fn closed_facts(&self, base_offset: Offset) -> Result<ClosedFacts, ReadError> {
        let part = {
            let mut state = self.state.borrow_mut();
            let Some(segment) = state.closed_segment(base_offset) else {
                return Err(ReadError::Removed);
            };
            if let Some(facts) = segment.facts {
                return Ok(facts);
            }
            segment.part()
        };
        let start = BatchStart { position: Position(0), offset: base_offset };
        let damaged = |damage| self.damaged(part, start, damage);
        let read = self.read_map(base_offset).await?;
        let facts = read.map_err(|fault| damaged(fault.damage()))?;
        if facts.next_offset != part.next_offset || facts.length != part.end.0 {
            return Err(damaged(Damage::Map(format!(
                "ends at offset {} and byte {}; by its neighbours at {} and {}",
                facts.next_offset, facts.length, part.next_offset, part.end
            ))));
        }
        if let Some(segment) = self.state.borrow_mut().closed_segment(base_offset) {
            segment.facts = Some(facts);
        }
        Ok(facts)
    }
}

/// The entries of the valid full blocks at the start of an index file, below the sealed position.
fn stored_entries(bytes: &[u8], part: SegmentPart) -> Vec<IndexEntry> {
    let mut entries: Vec<IndexEntry> = Vec::new();
    for (number, bytes) in bytes.chunks(INDEX_BLOCK_BYTES).enumerate() {
        let Ok(block) = IndexBlock::verify(bytes, part.base_offset, number as u32) else { break };
        let last = block.entry(block.entry_count() - 1);
        if block.entry_count() != BLOCK_ENTRIES || last.position >= part.end {
            break;
        }
        entries.extend(block.iter());
    }
    entries
}
