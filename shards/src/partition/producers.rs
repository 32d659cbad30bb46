//! What a partition remembers of its idempotent producers: which sequence numbers come next, and
//! which batches it has already taken. A pure state machine; it lives with its partition, on the
//! partition's shard.
//!
//! Events: [`ProducerStates::appended`], [`committed`](ProducerStates::committed),
//! [`truncated`](ProducerStates::truncated). Questions: [`check`](ProducerStates::check),
//! [`active`](ProducerStates::active), [`snapshot`](ProducerStates::snapshot). The leader asks
//! `check`, appends the batch to its log, and reports it with `appended` before it looks at another
//! batch, so that batches still in flight count. A follower, and recovery, report what they find
//! in the log. Replaying a log gives the same state as having lived through it.
//!
//! It assumes that committed entries are never truncated. It reads no clock: a producer expires by
//! the log's own time. It never forgets a producer because the producer's records were deleted.

use std::collections::{BTreeMap, VecDeque};

use wal::Index;

mod snapshot;
#[cfg(test)]
mod tests;

pub use snapshot::SnapshotError;

/// How many batches of each producer are remembered. A client may have as many requests in flight
/// (`max.in.flight.requests.per.connection` <= 5), so a retry is always within the window.
pub const WINDOW_BATCHES: usize = 5;

/// The longest list of producers one partition keeps. Beyond it the one that has been silent for
/// longest is forgotten, as if expired: without a limit, a client that invents producer ids could
/// fill the memory (kafka.md section 6: ids never handed out are accepted).
pub const PRODUCERS_MAX: usize = 65_536;

/// The producer's part of a batch header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchInfo {
    pub producer_id: i64,
    pub epoch: i16,
    pub first_sequence: i32,
    /// Sequence of the last record; smaller than `first_sequence` where the numbers wrap.
    pub last_sequence: i32,
}

impl BatchInfo {
    /// `last_offset_delta` is the header's: the number of records less one.
    pub fn new(producer_id: i64, epoch: i16, first_sequence: i32, last_offset_delta: i32) -> Self {
        let last_sequence = sequence_after(first_sequence, last_offset_delta);
        BatchInfo { producer_id, epoch, first_sequence, last_sequence }
    }
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Append,
    /// The log has this batch. Answer with these once the entry at `index` is committed, and with
    /// an error if it is truncated: the retry is acknowledged only with its original.
    Duplicate {
        base_offset: i64,
        max_timestamp: i64,
        index: Index,
    },
    Reject(Reject),
}

/// Why a batch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// A gap, an overlap, a batch older than the window, or a new epoch that does not begin at 0:
    /// OUT_OF_ORDER_SEQUENCE_NUMBER(45).
    OutOfOrderSequence,
    /// A batch of an epoch that a newer one has replaced: INVALID_PRODUCER_EPOCH(47).
    FencedEpoch,
}

/// A row of DescribeProducers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    pub producer_id: i64,
    pub epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp: i64,
    /// -1: no transaction coordinator has written here.
    pub coordinator_epoch: i32,
    /// -1: no transaction is open.
    pub txn_start_offset: i64,
}

/// All producers of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerStates {
    producers: BTreeMap<i64, Producer>,
    /// Entries above `committed_index`, ascending; one for each uncommitted batch.
    uncommitted: VecDeque<(Index, i64)>,
    /// Producers with a committed batch, by the index of the last: the longest silent first.
    by_last_use: BTreeMap<Index, i64>,
    /// committed_index <= last_index.
    committed_index: Index,
    /// The last entry reported by `appended` or `committed`, or kept by `truncated`.
    last_index: Index,
    /// Highest timestamp of a committed batch: the log's time. Timestamps below 0 do not count.
    log_time_ms: i64,
    expiration_ms: i64,
    producers_max: usize,
    /// Batches of a producer among which a duplicate is looked for.
    window_batches: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Producer {
    /// None: nothing committed, or all of it expired.
    committed: Option<Committed>,
    /// In order of the log.
    uncommitted: VecDeque<Uncommitted>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Committed {
    epoch: i16,
    /// The log's time when the last batch was committed.
    last_use_ms: i64,
    /// 1 <= len <= WINDOW_BATCHES, oldest first, all of `epoch`.
    window: VecDeque<Batch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Uncommitted {
    epoch: i16,
    batch: Batch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Batch {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    max_timestamp: i64,
    index: Index,
}

impl ProducerStates {
    /// `expiration_ms` is `producer.id.expiration.ms`; `first_index` the index before the first
    /// entry of the log.
    pub fn new(first_index: Index, expiration_ms: i64) -> Self {
        ProducerStates {
            producers: BTreeMap::new(),
            uncommitted: VecDeque::new(),
            by_last_use: BTreeMap::new(),
            committed_index: first_index,
            last_index: first_index,
            log_time_ms: -1,
            expiration_ms,
            producers_max: PRODUCERS_MAX,
            window_batches: WINDOW_BATCHES,
        }
    }

    /// Reads what [`snapshot`](Self::snapshot) wrote. Entries up to [`committed_index`]
    /// (Self::committed_index) are in it already; `appended` ignores them.
    pub fn restore(bytes: &[u8], expiration_ms: i64) -> Result<Self, SnapshotError> {
        snapshot::decode(bytes, expiration_ms)
    }

    /// State at the committed index, versioned and checksummed, for a checkpoint at `up_to`. It
    /// may know of entries after `up_to`: they are committed, so they come back as they were.
    pub fn snapshot(&self, up_to: Index) -> Vec<u8> {
        assert!(up_to <= self.committed_index, "a checkpoint lies beyond the commit");
        snapshot::encode(self)
    }

    /// The last entry whose effect no truncation can undo.
    pub fn committed_index(&self) -> Index {
        self.committed_index
    }

    /// Breaks deduplication on purpose, for the simulator.
    pub fn forget_all_but_the_last(&mut self) {
        self.window_batches = 1;
    }

    /// Changes `producer.id.expiration.ms`; has effect with the next commit.
    pub fn set_expiration_ms(&mut self, expiration_ms: i64) {
        self.expiration_ms = expiration_ms;
    }

    pub fn len(&self) -> usize {
        self.producers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Judges the next batch of a producer by the whole log, its uncommitted tail included. The
    /// rules are the table of kafka.md section 6.
    pub fn check(&self, info: &BatchInfo) -> Verdict {
        let Some((epoch, last)) = self.producers.get(&info.producer_id).and_then(Producer::last)
        else {
            return Verdict::Append;
        };
        if info.epoch < epoch {
            return Verdict::Reject(Reject::FencedEpoch);
        }
        if info.epoch > epoch {
            return match info.first_sequence {
                0 => Verdict::Append,
                _ => Verdict::Reject(Reject::OutOfOrderSequence),
            };
        }
        if let Some(batch) = self.original(info) {
            return Verdict::Duplicate {
                base_offset: batch.base_offset,
                max_timestamp: batch.max_timestamp,
                index: batch.index,
            };
        }
        if info.first_sequence == sequence_after(last.last_sequence, 1) {
            return Verdict::Append;
        }
        Verdict::Reject(Reject::OutOfOrderSequence)
    }

    /// The remembered batch with the same sequences, among the last five of the current epoch.
    fn original(&self, info: &BatchInfo) -> Option<Batch> {
        let producer = self.producers.get(&info.producer_id)?;
        producer.newest_first(info.epoch).take(self.window_batches).find(|batch| {
            batch.first_sequence == info.first_sequence && batch.last_sequence == info.last_sequence
        })
    }

    /// A batch of an idempotent producer stands in the log at `index`. Indexes ascend; an index
    /// reported before, or held by a snapshot, is ignored. `max_timestamp` is the stored batch's.
    pub fn appended(
        &mut self,
        info: &BatchInfo,
        base_offset: i64,
        index: Index,
        max_timestamp: i64,
    ) {
        if index <= self.last_index {
            return;
        }
        self.last_index = index;
        let batch = Batch {
            first_sequence: info.first_sequence,
            last_sequence: info.last_sequence,
            base_offset,
            max_timestamp,
            index,
        };
        let producer = self.producers.entry(info.producer_id).or_default();
        producer.uncommitted.push_back(Uncommitted { epoch: info.epoch, batch });
        self.uncommitted.push_back((index, info.producer_id));
    }

    /// All entries up to `index` are committed. This is where producers expire, so that what is
    /// forgotten depends on the log alone.
    pub fn committed(&mut self, index: Index) {
        while let Some(&(first, producer_id)) = self.uncommitted.front() {
            if first > index {
                break;
            }
            self.uncommitted.pop_front();
            self.commit_next(producer_id);
            self.expire();
        }
        self.committed_index = self.committed_index.max(index);
        self.last_index = self.last_index.max(index);
    }

    fn commit_next(&mut self, producer_id: i64) {
        let producer = self.producers.get_mut(&producer_id).expect("has an uncommitted batch");
        let Uncommitted { epoch, batch } =
            producer.uncommitted.pop_front().expect("one for each entry of the common list");
        self.log_time_ms = self.log_time_ms.max(batch.max_timestamp);
        let committed = producer.committed.get_or_insert_with(|| Committed {
            epoch,
            last_use_ms: -1,
            window: VecDeque::with_capacity(1),
        });
        if let Some(previous) = committed.window.back() {
            self.by_last_use.remove(&previous.index);
        }
        if committed.epoch != epoch {
            committed.epoch = epoch;
            committed.window.clear();
        }
        if committed.window.len() == WINDOW_BATCHES {
            committed.window.pop_front();
        }
        committed.window.push_back(batch);
        committed.last_use_ms = self.log_time_ms;
        self.by_last_use.insert(batch.index, producer_id);
    }

    /// Forgets the committed part of producers that have been silent for too long. The log's time
    /// never goes back, so the order of last use is also the order of `last_use_ms`.
    fn expire(&mut self) {
        while let Some((&index, &producer_id)) = self.by_last_use.first_key_value() {
            let producer = self.producers.get_mut(&producer_id).expect("listed");
            let last_use_ms = producer.committed.as_ref().expect("listed").last_use_ms;
            let silent_ms = self.log_time_ms.saturating_sub(last_use_ms);
            let over_the_limit = self.by_last_use.len() > self.producers_max;
            if silent_ms < self.expiration_ms.max(1) && !over_the_limit {
                return;
            }
            self.by_last_use.remove(&index);
            producer.committed = None;
            if producer.uncommitted.is_empty() {
                self.producers.remove(&producer_id);
            }
        }
    }

    /// Entries from `from` on are gone from the log; what they did is undone.
    pub fn truncated(&mut self, from: Index) {
        assert!(from > self.committed_index, "committed entries are never truncated");
        while let Some(&(index, producer_id)) = self.uncommitted.back() {
            if index < from {
                break;
            }
            self.uncommitted.pop_back();
            let producer = self.producers.get_mut(&producer_id).expect("has an uncommitted batch");
            producer.uncommitted.pop_back();
            if producer.uncommitted.is_empty() && producer.committed.is_none() {
                self.producers.remove(&producer_id);
            }
        }
        self.last_index = self.last_index.min(Index(from.0 - 1));
    }

    /// The producers as DescribeProducers shows them, by id; uncommitted batches count.
    pub fn active(&self) -> impl Iterator<Item = ActiveProducer> + '_ {
        self.producers.iter().filter_map(|(&producer_id, producer)| {
            let (epoch, last) = producer.last()?;
            Some(ActiveProducer {
                producer_id,
                epoch,
                last_sequence: last.last_sequence,
                last_timestamp: last.max_timestamp,
                coordinator_epoch: -1,
                txn_start_offset: -1,
            })
        })
    }
}

impl Producer {
    /// Current epoch and last batch, of the log's end.
    fn last(&self) -> Option<(i16, Batch)> {
        match (self.uncommitted.back(), &self.committed) {
            (Some(last), _) => Some((last.epoch, last.batch)),
            (None, Some(committed)) => Some((committed.epoch, *committed.window.back()?)),
            (None, None) => None,
        }
    }

    /// Batches of `epoch`, the newest first.
    fn newest_first(&self, epoch: i16) -> impl Iterator<Item = Batch> + '_ {
        let uncommitted = self.uncommitted.iter().rev().take_while(move |u| u.epoch == epoch);
        let committed = self.committed.iter().filter(move |c| c.epoch == epoch);
        uncommitted.map(|u| u.batch).chain(committed.flat_map(|c| c.window.iter().rev().copied()))
    }
}

/// Sequences count from 0 to 2147483647 and then start again at 0.
fn sequence_after(sequence: i32, steps: i32) -> i32 {
    // Both are non-negative in a valid batch; the mask keeps the result so for any input.
    (sequence as u32).wrapping_add(steps as u32) as i32 & i32::MAX
}
