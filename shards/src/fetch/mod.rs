//! Reading partitions for consumers: what happens on the shard that owns the data.
//!
//! A Fetch is split by owning shard (`api/fetch.rs`); each shard checks epochs and offsets,
//! reads whole batches, and can wait for the moment at which one of the partitions has more.

pub mod sessions;

use bytes::Bytes;
use net::batch::BatchHeader;
use net::ErrorCode;
use wal::GroupId;

use crate::broker::Broker;
use crate::log::{Offset, ReadError, ReadRequest};
use crate::partition::Partition;
use sessions::Ask;

/// What a shard is asked to read of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Place of the partition in the whole request.
    pub slot: usize,
    pub group: GroupId,
    pub ask: Ask,
    /// True if offsets stop at the last stable offset instead of the high watermark.
    pub read_committed: bool,
}

/// What was found for one item.
#[derive(Clone, Debug)]
pub struct Found {
    pub slot: usize,
    pub error: ErrorCode,
    /// -1 with an error, as the two below.
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start: i64,
    /// (epoch, end offset) where the client's log parts from ours (KIP-595).
    pub diverging: Option<(i32, i64)>,
    /// Whole batches in slices; a slice holds one batch or more.
    pub records: Vec<Bytes>,
}

impl Found {
    pub fn failed(slot: usize, error: ErrorCode) -> Found {
        Found {
            slot,
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start: -1,
            diverging: None,
            records: Vec::new(),
        }
    }

    pub fn bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }

    /// A client that waits for data must hear of this now: it has to do something first.
    pub fn ends_wait(&self) -> bool {
        self.diverging.is_some()
            || !matches!(self.error, ErrorCode::None | ErrorCode::UnknownTopicOrPartition)
    }
}

/// Reads `items` in order, `max_bytes` over all of them; the first one that has data gives at
/// least one batch even if that is more (KIP-74).
pub async fn read(broker: Broker, items: Vec<Item>, max_bytes: usize) -> Vec<Found> {
    let mut left = max_bytes;
    let mut empty = true;
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        let one = read_partition(&broker, &item, left, empty).await;
        left = left.saturating_sub(one.bytes());
        empty &= one.records.is_empty();
        found.push(one);
    }
    found
}

async fn read_partition(broker: &Broker, item: &Item, left: usize, at_least_one: bool) -> Found {
    let Some(partition) = broker.partition(item.group) else {
        return Found::failed(item.slot, broker.placement().absent(item.group));
    };
    let checked = check(&partition.borrow(), item);
    let (mut found, up_to) = match checked {
        Ok(checked) => checked,
        Err(found) => return found,
    };
    let max_bytes = left.min(usize::try_from(item.ask.max_bytes).unwrap_or(0));
    if found.diverging.is_some() || item.ask.fetch_offset >= up_to {
        return found;
    }
    if max_bytes == 0 && !at_least_one {
        return found;
    }
    let log = partition.borrow().log().clone();
    let request = ReadRequest {
        from: Offset(item.ask.fetch_offset),
        up_to: Offset(up_to),
        max_bytes: max_bytes as u64,
        at_least_one,
    };
    match log.read(request).await {
        Ok(answer) => {
            found.records = answer.batches;
            partition.borrow().traffic().read(found.bytes() as u64);
        }
        // Retention overtook the read: the same answer as a moment later.
        Err(ReadError::OutOfRange { .. }) => {
            return Found::failed(item.slot, ErrorCode::OffsetOutOfRange)
        }
        Err(error) => {
            let partition = partition.borrow();
            let identity = partition.identity();
            tracing::error!(
                topic = %identity.topic,
                partition = identity.partition,
                offset = item.ask.fetch_offset,
                "read refused: {error}"
            );
            return Found::failed(item.slot, ErrorCode::KafkaStorageError);
        }
    }
    found
}

/// Everything that is decided without reading, in Kafka's order. Gives what to answer if
/// nothing is read, and the offset that the read must not reach.
fn check(partition: &Partition, item: &Item) -> Result<(Found, i64), Found> {
    let failed = |error| Err(Found::failed(item.slot, error));
    if partition.is_deleted() {
        return failed(ErrorCode::UnknownTopicOrPartition);
    }
    if let Some(error) = epoch_error(partition, item.ask.current_leader_epoch) {
        return failed(error);
    }
    let offset = item.ask.fetch_offset;
    let high_watermark = partition.high_watermark();
    let last_stable_offset = partition.last_stable_offset();
    let mut found = Found {
        high_watermark,
        last_stable_offset,
        log_start: partition.log_start(),
        ..Found::failed(item.slot, ErrorCode::None)
    };
    if item.ask.last_fetched_epoch >= 0 {
        let (epoch, end) = partition.end_of_epoch(item.ask.last_fetched_epoch);
        if epoch < 0 {
            return failed(ErrorCode::OffsetOutOfRange);
        }
        if epoch < item.ask.last_fetched_epoch || end < offset {
            found.diverging = Some((epoch, end));
            return Ok((found, high_watermark));
        }
    }
    if offset < partition.log_start() || offset > partition.log_end() {
        return failed(ErrorCode::OffsetOutOfRange);
    }
    let up_to = if item.read_committed { last_stable_offset } else { high_watermark };
    Ok((found, up_to))
}

/// The error of a client whose idea of the leader epoch is not ours (KIP-320), or of a replica
/// that does not lead.
pub fn epoch_error(partition: &Partition, current_leader_epoch: i32) -> Option<ErrorCode> {
    if current_leader_epoch >= 0 {
        let epoch = partition.leader_epoch();
        if current_leader_epoch < epoch {
            return Some(ErrorCode::FencedLeaderEpoch);
        }
        if current_leader_epoch > epoch {
            return Some(ErrorCode::UnknownLeaderEpoch);
        }
    }
    (!partition.leads()).then_some(ErrorCode::NotLeaderOrFollower)
}

/// Waits until one of `items` can give more than it did, or must answer otherwise.
pub async fn wait(broker: Broker, items: Vec<Item>) {
    let mut waits = Vec::with_capacity(items.len());
    for item in &items {
        let Some(partition) = broker.partition(item.group) else { continue };
        waits.push(partition.borrow_mut().wait_for_data(item.ask.fetch_offset));
    }
    if waits.is_empty() {
        // Nothing here can ever change for the better: the request's own time limit ends it.
        return std::future::pending().await;
    }
    rt::first(waits).await;
}

/// Cuts `records` down to the whole batches that fit into `max_bytes`; with `at_least_one` the
/// first batch stays whatever its size.
pub fn fit(records: &mut Vec<Bytes>, max_bytes: usize, at_least_one: bool) {
    let mut left = max_bytes;
    let mut kept = 0;
    for slice in records.iter_mut() {
        if slice.len() > left {
            let first = kept == 0 && at_least_one;
            let end = whole_batches(slice, left, first);
            slice.truncate(end);
            kept += usize::from(end > 0);
            break;
        }
        left -= slice.len();
        kept += 1;
    }
    records.truncate(kept);
}

/// Length of the longest run of whole batches at the start of `slice` within `max_bytes`.
fn whole_batches(slice: &[u8], max_bytes: usize, at_least_one: bool) -> usize {
    let mut end = 0;
    while let Some(length) = batch_length(&slice[end..]) {
        let next = end + length;
        let forced = end == 0 && at_least_one;
        if next > slice.len() || (next > max_bytes && !forced) {
            break;
        }
        end = next;
    }
    end
}

/// The length that the batch at the start of `bytes` says it has.
fn batch_length(bytes: &[u8]) -> Option<usize> {
    let header = BatchHeader::parse(bytes).ok()?;
    Some(header.size_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::builder::BatchBuilder;

    fn batch(offset: i64) -> Bytes {
        let builder = BatchBuilder::new().base_offset(offset);
        builder.record(0, None, Some(b"0123456789")).build().expect("a batch").bytes
    }

    #[test]
    fn only_whole_batches_fit() {
        let one = batch(0).len();
        let both = Bytes::from([batch(0), batch(1)].concat());
        let cut = |max_bytes, at_least_one| {
            let mut records = vec![both.clone(), batch(2)];
            fit(&mut records, max_bytes, at_least_one);
            records.iter().map(Bytes::len).sum::<usize>() / one
        };
        assert_eq!(cut(3 * one, false), 3);
        assert_eq!(cut(3 * one - 1, false), 2);
        assert_eq!(cut(2 * one - 1, false), 1);
        assert_eq!(cut(one - 1, false), 0);
        assert_eq!(cut(0, true), 1, "the first non-empty partition makes progress");
        assert_eq!(cut(one, true), 1);
    }
}
