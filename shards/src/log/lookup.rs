//! Finding offsets by time, and what retention needs to know of the segments.
//!
//! The record inside a batch is found by the caller's `RecordSearch`. A batch header that lies
//! about its largest timestamp costs a look inside the batch and no more. Lives on one shard.

use bytes::Bytes;

use super::batch::BatchHead;
use super::index::Seek;
use super::partition::{PartitionInner, PartitionLog};
use super::read::{Damage, ReadError, ReadRequest, SegmentWalk};
use super::retention::{new_log_start, RetentionConfig, SegmentView};
use super::state::SegmentPart;
use super::types::{Offset, Position, RecordSearch};

/// How far a walk over batch headers reads ahead.
const WALK_BYTES: u64 = 128 << 10;

/// A record found by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeHit {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: i64,
    /// Leader epoch of its batch.
    pub epoch: i32,
}

impl PartitionLog {
    /// The first record with a timestamp of at least `timestamp`, at or above the log start and
    /// below `up_to`; `None` when there is none.
    pub async fn first_at_or_after(
        &self,
        timestamp: i64,
        up_to: Offset,
        search: &dyn RecordSearch,
    ) -> Result<Option<TimeHit>, ReadError> {
        let (log_start, parts) = self.inner.readable_parts();
        for part in parts {
            let newest = self.inner.newest_timestamp(part).await?;
            if newest.0 < timestamp {
                continue;
            }
            let query = Query { timestamp, from: log_start, up_to };
            if let Some(hit) = self.inner.find_in_segment(part, query, search).await? {
                return Ok(hit.filter(|hit| hit.offset < up_to));
            }
        }
        let mut from = self.inner.pending_start();
        while let Some(base) = self.inner.pending_at_or_after(from, timestamp) {
            if base >= up_to {
                break;
            }
            let batch = self.inner.one_batch(base).await?;
            let found = look_inside(&batch, timestamp, log_start, search)?;
            if found.is_some() {
                return Ok(found.filter(|hit| hit.offset < up_to));
            }
            from = parsed(&batch, base)?.next_offset();
        }
        Ok(None)
    }

    /// The first record that has the largest timestamp of all, at or above the log start; `None`
    /// in an empty log.
    pub async fn max_timestamp(
        &self,
        search: &dyn RecordSearch,
    ) -> Result<Option<TimeHit>, ReadError> {
        let (log_start, parts) = self.inner.readable_parts();
        let mut best: Option<(i64, Offset)> = None;
        for part in parts {
            let (mut time, mut base) = self.inner.newest_timestamp(part).await?;
            if part.base_offset < log_start {
                // The batch that has it may lie below the log start.
                let Some(found) = self.inner.newest_above(part, log_start).await? else { continue };
                (time, base) = found;
            }
            if best.is_none_or(|(most, _)| time > most) {
                best = Some((time, base));
            }
        }
        if let Some((time, base)) = self.inner.newest_pending(log_start) {
            if best.is_none_or(|(most, _)| time > most) {
                best = Some((time, base));
            }
        }
        let Some((time, base)) = best else { return Ok(None) };
        let batch = self.inner.one_batch(base).await?;
        let found = look_inside(&batch, time, log_start, search)?;
        match found {
            Some(hit) => Ok(Some(hit)),
            // The header promises more than the records hold.
            None => look_inside(&batch, i64::MIN, log_start, search),
        }
    }

    /// The log start that the retention settings ask for, or `None` when the present one stands.
    /// The leader proposes it as a control entry; nothing moves here.
    pub async fn retention(&self, config: &RetentionConfig) -> Result<Option<Offset>, ReadError> {
        if !config.delete || (config.retention_ms < 0 && config.retention_bytes < 0) {
            return Ok(None);
        }
        let mut views = Vec::new();
        let (_, parts) = self.inner.readable_parts();
        for part in parts.into_iter().filter(|part| part.closed) {
            let facts = self.inner.closed_facts(part.base_offset).await?;
            let newest_ms =
                if facts.max_timestamp < 0 { facts.closed_ms } else { facts.max_timestamp };
            views.push(SegmentView {
                base_offset: part.base_offset,
                next_offset: part.next_offset,
                bytes: part.end.0,
                newest_ms,
            });
        }
        views.extend(self.inner.active_view());
        let now_ms = self.inner.context.shard.wall_ms();
        let start = new_log_start(config, &views, self.log_start(), now_ms);
        Ok(start.map(|start| start.min(self.log_end())))
    }
}

#[derive(Clone, Copy)]
struct Query {
    timestamp: i64,
    from: Offset,
    up_to: Offset,
}

impl PartitionInner {
    /// The log start, and the segments that reach above it.
    fn readable_parts(&self) -> (Offset, Vec<SegmentPart>) {
        let state = self.state.borrow();
        let log_start = state.log_start;
        let parts = state.parts();
        (log_start, parts.into_iter().filter(|part| part.next_offset > log_start).collect())
    }

    fn pending_start(&self) -> Offset {
        self.state.borrow().flushed.next_offset
    }

    /// Largest timestamp of a segment's sealed batches, and the batch that has it.
    async fn newest_timestamp(&self, part: SegmentPart) -> Result<(i64, Offset), ReadError> {
        if !part.closed {
            let state = self.state.borrow();
            let active = state.active.as_ref().filter(|a| a.base_offset == part.base_offset);
            if let Some(active) = active {
                return Ok((active.cursor.max_timestamp, active.cursor.max_timestamp_offset));
            }
        }
        let facts = self.closed_facts(part.base_offset).await?;
        Ok((facts.max_timestamp, facts.max_timestamp_offset))
    }

    /// As `newest_timestamp`, of the batches that reach above `log_start`.
    async fn newest_above(
        &self,
        part: SegmentPart,
        log_start: Offset,
    ) -> Result<Option<(i64, Offset)>, ReadError> {
        let (start, _) = self.locate(part, Seek::Offset(log_start)).await?;
        let mut walk = SegmentWalk::new(self, part, start);
        let mut best: Option<(i64, Offset)> = None;
        while let Some(head) = walk.head(WALK_BYTES).await? {
            let newer = best.is_none_or(|(most, _)| head.max_timestamp > most);
            if head.next_offset() > log_start && newer {
                best = Some((head.max_timestamp, head.base_offset));
            }
            walk.pass(&head);
        }
        Ok(best)
    }

    async fn find_in_segment(
        &self,
        part: SegmentPart,
        query: Query,
        search: &dyn RecordSearch,
    ) -> Result<Option<Option<TimeHit>>, ReadError> {
        let (by_time, _) = self.locate(part, Seek::Time(query.timestamp)).await?;
        let (by_start, _) = self.locate(part, Seek::Offset(query.from)).await?;
        let start = if by_time.offset > by_start.offset { by_time } else { by_start };
        let mut walk = SegmentWalk::new(self, part, start);
        while let Some(head) = walk.head(WALK_BYTES).await? {
            if head.base_offset >= query.up_to {
                return Ok(Some(None));
            }
            if head.max_timestamp < query.timestamp || head.next_offset() <= query.from {
                walk.pass(&head);
                continue;
            }
            let batch = walk.batch(&head).await?;
            let hit = look_inside(&batch, query.timestamp, query.from, search)?;
            if hit.is_some() {
                return Ok(Some(hit));
            }
        }
        Ok(None)
    }

    /// Base offset of the first batch that is not in a segment yet, from `from` on, whose largest
    /// timestamp is at least `timestamp`.
    fn pending_at_or_after(&self, from: Offset, timestamp: i64) -> Option<Offset> {
        let state = self.state.borrow();
        let log_start = state.log_start;
        let mut pending = state.pending().filter(|batch| {
            batch.base_offset >= from
                && batch.next_offset() > log_start
                && batch.max_timestamp >= timestamp
        });
        pending.next().map(|batch| batch.base_offset)
    }

    fn newest_pending(&self, log_start: Offset) -> Option<(i64, Offset)> {
        let state = self.state.borrow();
        let mut best: Option<(i64, Offset)> = None;
        for batch in state.pending().filter(|batch| batch.next_offset() > log_start) {
            if best.is_none_or(|(most, _)| batch.max_timestamp > most) {
                best = Some((batch.max_timestamp, batch.base_offset));
            }
        }
        best
    }

    /// The batch with this base offset, also when it begins below the log start.
    async fn one_batch(&self, base: Offset) -> Result<Bytes, ReadError> {
        let up_to = self.state.borrow().next_offset;
        let request = ReadRequest { from: base, up_to, max_bytes: 0, at_least_one: true };
        let answer = self.read_from(request).await?;
        answer.batches.into_iter().next().ok_or(ReadError::Damaged {
            base_offset: base,
            position: Position(0),
            offset: base,
            fault: Damage::Missing,
        })
    }

    /// The active segment and what is not flushed yet, as retention sees them.
    fn active_view(&self) -> Option<SegmentView> {
        let state = self.state.borrow();
        let first = state.pending().next().map(|batch| batch.base_offset);
        let sealed = state.active.as_ref().filter(|active| active.sealed.0 > 0);
        let base_offset = sealed.map(|active| active.base_offset).or(first)?;
        let pending_bytes: u64 = state.pending().map(|batch| u64::from(batch.length)).sum();
        let pending_newest = state.pending().map(|batch| batch.max_timestamp).max();
        let newest =
            sealed.map_or(-1, |a| a.cursor.max_timestamp).max(pending_newest.unwrap_or(-1));
        Some(SegmentView {
            base_offset,
            next_offset: state.next_offset,
            bytes: sealed.map_or(0, |active| active.sealed.0) + pending_bytes,
            newest_ms: if newest < 0 { state.last_commit_ms } else { newest },
        })
    }
}

fn parsed(batch: &Bytes, offset: Offset) -> Result<BatchHead, ReadError> {
    BatchHead::parse(batch).map_err(|fault| ReadError::Search { offset, what: fault.to_string() })
}

fn look_inside(
    batch: &Bytes,
    timestamp: i64,
    from: Offset,
    search: &dyn RecordSearch,
) -> Result<Option<TimeHit>, ReadError> {
    let head = parsed(batch, from)?;
    let found = search
        .first_at_or_after(batch, timestamp, from)
        .map_err(|what| ReadError::Search { offset: head.base_offset, what })?;
    Ok(found.map(|(offset, timestamp)| TimeHit { offset, timestamp, epoch: head.epoch }))
}
