//! Whether a segment is the one that was written where it stands, asked before the first of its
//! bytes is believed.
//!
//! A `.log` does not say whose it is, and all that a reader checks batch by batch may hold in
//! another partition's as well: lengths, offsets, epochs, checksums. But no two partitions' batches
//! have the same checksum. So that of a segment's last batch is kept elsewhere: in the `.map` of a
//! closed segment, in the group's checkpoint for the active one. One map and one block are read for
//! each segment and life of the process, and nothing for a segment that was closed in this life.
//!
//! It answers no more than that: what has rotted in a segment of one's own is for those who read
//! it, batch by batch. Lives on one shard.

use std::io;

use net::batch::{checksum, HEADER_BYTES};
use rt::File;
use thiserror::Error;

use super::batch::BatchHead;
use super::codec::FormatError;
use super::context::LogContext;
use super::files::{file_name, FileKind};
use super::map::{ClosedFacts, SegmentMap};
use super::pace::Pace;
use super::partition::{OpenError, PartitionInner};
use super::read::{BatchStart, Damage, ReadError};
use super::state::{ActiveSegment, SegmentPart};
use super::types::{LastBatch, Offset, PartitionIdentity, Position};

/// A segment that is another's, or has lost its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "it is not the segment that was written here: that one's last batch has checksum {:08x} and \
     begins at {}; here is {}",
    .expected.crc, .expected.position, describe(.found)
)]
pub struct Foreign {
    /// What was written.
    pub expected: LastBatch,
    /// The checksum in the header that stands there now, if there is a header.
    pub found: Option<u32>,
}

fn describe(found: &Option<u32>) -> String {
    match found {
        Some(crc) => format!("one with checksum {crc:08x}"),
        None => "no batch".to_owned(),
    }
}

/// Why the `.map` of a closed segment does not describe it.
pub(super) enum MapFault {
    /// It says nothing.
    Unreadable(String),
    /// It is whole, and speaks of another segment.
    Foreign(String),
}

impl MapFault {
    pub fn damage(self) -> Damage {
        let (MapFault::Unreadable(what) | MapFault::Foreign(what)) = self;
        Damage::Map(what)
    }
}

/// Looks for the last batch of a segment, which ends at `end`. One bit that has flipped in it is
/// not taken for another's batch: either the checksum in the header is left, or what it covers.
pub(super) async fn find_last(
    file: &File,
    pace: Option<&Pace>,
    expected: LastBatch,
    end: Position,
) -> io::Result<Result<(), Foreign>> {
    let LastBatch { position, crc } = expected;
    let header = file.read_at(position.0, HEADER_BYTES).await?;
    let found = BatchHead::parse(&header).ok().map(|head| head.crc);
    if found == Some(crc) {
        return Ok(Ok(()));
    }
    let length = usize::try_from(end.0.saturating_sub(position.0)).unwrap_or_default();
    let batch = match pace {
        Some(pace) => pace.read(file, position, length).await?,
        None => file.read_at(position.0, length).await?,
    };
    let intact = batch.len() > HEADER_BYTES && checksum(&batch) == crc;
    Ok(if intact { Ok(()) } else { Err(Foreign { expected, found }) })
}

/// Checks the segment that a checkpoint says is being written.
pub(super) async fn check_active(
    context: &LogContext,
    identity: &PartitionIdentity,
    active: &ActiveSegment,
) -> Result<(), OpenError> {
    let Some(last) = active.last else { return Ok(()) };
    let file = context.files.segment(identity, active.base_offset).await?;
    let found = find_last(&file, Some(&context.pace), last, active.sealed).await?;
    let base_offset = active.base_offset;
    found.map_err(|foreign| OpenError::Segment { base_offset, what: foreign.to_string() })
}

impl PartitionInner {
    /// To be asked before bytes of a closed segment are read. What contradicts its `.map` is refused every
    /// time; without a readable one there is nothing to compare with, and the batches must do.
    pub async fn check_origin(&self, part: SegmentPart) -> Result<(), ReadError> {
        let facts = match self.state.borrow_mut().closed_segment(part.base_offset) {
            Some(segment) if segment.known => return Ok(()),
            segment => segment.and_then(|segment| segment.facts),
        };
        let start = BatchStart { position: Position(0), offset: part.base_offset };
        let opened = self.context.files.segment(&self.identity, part.base_offset).await;
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.damaged(part, start, Damage::Missing));
            }
            opened => opened?,
        };
        let map = match facts {
            Some(facts) => Ok(facts),
            None => self.read_map(part.base_offset).await?,
        };
        match map {
            Ok(facts) => {
                let end = Position(facts.length.min(part.end.0));
                let found = find_last(&file, Some(&self.context.pace), facts.last, end).await?;
                found.map_err(|foreign| self.damaged(part, start, foreign))?;
            }
            Err(MapFault::Unreadable(_)) => {}
            Err(foreign) => return Err(self.damaged(part, start, foreign.damage())),
        }
        if let Some(segment) = self.state.borrow_mut().closed_segment(part.base_offset) {
            segment.known = true;
        }
        Ok(())
    }

    /// What the `.map` of a closed segment says, from the disk.
    pub async fn read_map(&self, base: Offset) -> io::Result<Result<ClosedFacts, MapFault>> {
        let dir = self.context.files.dir(&self.identity).await?;
        let bytes = match dir.read(&file_name(base, FileKind::Map)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Err(MapFault::Unreadable("missing".to_owned())));
            }
            read => read?,
        };
        Ok(match SegmentMap::decode(&bytes, Some(&self.identity)) {
            Err(error @ FormatError::OtherPartition) => Err(MapFault::Foreign(error.to_string())),
            Err(error) => Err(MapFault::Unreadable(error.to_string())),
            Ok(map) if map.base_offset != base => {
                Err(MapFault::Foreign(format!("belongs to segment {}", map.base_offset)))
            }
            Ok(SegmentMap { closed: Some(facts), .. }) => Ok(facts),
            Ok(_) => Err(MapFault::Unreadable("not that of a closed segment".to_owned())),
        })
    }
}
