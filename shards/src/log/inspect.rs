//! Reading a partition's folder offline, for the command line: every batch, every check, and what
//! the files beside the segment say. Reports what it finds, and never changes a byte.

use std::io;

use net::batch::HEADER_BYTES;
use rt::{Dir, FileOptions};
use wal::Index;

use super::batch::{BatchFault, BatchHead};
use super::files::{file_name, parse_name, FileKind};
use super::index::{IndexBlock, INDEX_BLOCK_BYTES};
use super::map::SegmentMap;
use super::origin::{find_last, Foreign};
use super::types::{Offset, PartitionIdentity, Position};

const READ_BYTES: usize = 1 << 20;

/// One batch of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchReport {
    /// Where it begins.
    pub position: Position,
    /// Its header.
    pub head: BatchHead,
    /// Its Raft index, when the `.map` can be read.
    pub index: Option<Index>,
    /// Its checksum holds.
    pub intact: bool,
}

/// One segment and the files beside it.
#[derive(Debug, Clone)]
pub struct SegmentReport {
    /// Its name.
    pub base_offset: Offset,
    /// Length of the `.log` file.
    pub file_bytes: u64,
    /// Batches that form a chain from the start, and where that chain ends. In the active segment
    /// the chain may reach beyond what is sealed, or end inside a batch: that is normal.
    pub batches: u64,
    /// End of the chain.
    pub end: Position,
    /// Offset after the chain.
    pub next_offset: Offset,
    /// Batches of the chain whose checksum does not hold.
    pub damaged: u64,
    /// Why the chain ends, unless it ends with the file.
    pub stop: Option<BatchFault>,
    /// The `.map`, or why it cannot be read or is of another partition.
    pub map: Result<SegmentMap, String>,
    /// The `.map` of a closed segment speaks of another one.
    pub foreign: Option<Foreign>,
    /// Valid blocks and entries of the `.index`; the first block that is not valid.
    pub index_blocks: u32,
    /// Entries in those blocks.
    pub index_entries: u64,
    /// What is wrong with the first bad block.
    pub index_fault: Option<String>,
}

impl SegmentReport {
    /// A closed segment that is whole: the chain ends where the `.map` says, and it is of this
    /// segment.
    pub fn is_whole(&self) -> bool {
        let closed = self.map.as_ref().ok().and_then(|map| map.closed);
        closed.is_some_and(|facts| {
            self.damaged == 0
                && self.stop.is_none()
                && (facts.length, facts.next_offset) == (self.end.0, self.next_offset)
                && self.foreign.is_none()
        })
    }
}

/// The segments in a partition's folder, oldest first.
pub async fn inspect_list(dir: &Dir) -> io::Result<Vec<Offset>> {
    let entries = dir.list().await?;
    let names = entries.iter().filter_map(|entry| parse_name(&entry.name));
    Ok(names.filter(|(_, kind)| *kind == FileKind::Segment).map(|(base, _)| base).collect())
}

/// Goes through one segment; `each` sees every batch of the chain. Its `.map` must be this
/// partition's, if that is known.
pub async fn inspect_segment(
    dir: &Dir,
    identity: Option<&PartitionIdentity>,
    base_offset: Offset,
    mut each: impl FnMut(&BatchReport),
) -> io::Result<SegmentReport> {
    let file = dir.open_file(&file_name(base_offset, FileKind::Segment), FileOptions::READ).await?;
    let file_bytes = file.size().await?;
    let map = read_map(dir, identity, base_offset).await?;
    let foreign = match map.as_ref().ok().and_then(|map| map.closed) {
        Some(facts) => {
            let end = Position(facts.length.min(file_bytes));
            find_last(&file, None, facts.last, end).await?.err()
        }
        None => None,
    };
    let (index_blocks, index_entries, index_fault) = read_index(dir, base_offset).await?;
    let mut report = SegmentReport {
        base_offset,
        file_bytes,
        batches: 0,
        end: Position(0),
        next_offset: base_offset,
        damaged: 0,
        stop: None,
        map,
        foreign,
        index_blocks,
        index_entries,
        index_fault,
    };
    let mut chunk = bytes::Bytes::new();
    while report.end.0 < file_bytes {
        if chunk.len() < HEADER_BYTES {
            chunk = file.read_at(report.end.0, READ_BYTES).await?;
        }
        let head = match next_head(&chunk, report.next_offset) {
            Ok(head) if report.end.0 + u64::from(head.length) <= file_bytes => head,
            Ok(_) => {
                report.stop = Some(BatchFault::Short);
                break;
            }
            Err(fault) => {
                report.stop = Some(fault);
                break;
            }
        };
        let length = head.length as usize;
        if chunk.len() < length {
            chunk = file.read_at(report.end.0, length.max(READ_BYTES)).await?;
        }
        let batch = chunk.split_to(length.min(chunk.len()));
        let map = report.map.as_ref().ok();
        let seen = BatchReport {
            position: report.end,
            head,
            index: map.map(|map| map.index_of(report.batches, head.base_offset)),
            intact: head.verify_crc(&batch).is_ok(),
        };
        each(&seen);
        report.damaged += u64::from(!seen.intact);
        report.batches += 1;
        report.end = Position(report.end.0 + length as u64);
        report.next_offset = head.next_offset();
    }
    Ok(report)
}

fn next_head(chunk: &[u8], expected: Offset) -> Result<BatchHead, BatchFault> {
    let head = BatchHead::parse(chunk)?;
    let (found, expected) = (head.base_offset.0, expected.0);
    if found == expected {
        Ok(head)
    } else {
        Err(BatchFault::BaseOffset { found, expected })
    }
}

async fn read_map(
    dir: &Dir,
    identity: Option<&PartitionIdentity>,
    base: Offset,
) -> io::Result<Result<SegmentMap, String>> {
    match dir.read(&file_name(base, FileKind::Map)).await {
        Ok(bytes) => Ok(SegmentMap::decode(&bytes, identity).map_err(|error| error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Err("missing".to_owned())),
        Err(error) => Err(error),
    }
}

async fn read_index(dir: &Dir, base: Offset) -> io::Result<(u32, u64, Option<String>)> {
    let bytes = match dir.read(&file_name(base, FileKind::Index)).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0, None)),
        read => read?,
    };
    let (mut blocks, mut entries) = (0, 0);
    for (number, bytes) in bytes.chunks(INDEX_BLOCK_BYTES).enumerate() {
        match IndexBlock::verify(bytes, base, number as u32) {
            Ok(block) => entries += block.entry_count() as u64,
            Err(error) => return Ok((blocks, entries, Some(format!("block {number}: {error}")))),
        }
        blocks += 1;
    }
    Ok((blocks, entries, None))
}
