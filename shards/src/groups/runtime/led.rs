//! One partition whose groups this shard answers for: the coordinator, its timers, and the queue
//! of records on their way into the log.
//!
//! One batch is under way at a time, and what arrives meanwhile makes up the next. Records are
//! numbered from 1 in the order in which the coordinator gave them out; whatever is to be told to
//! a client waits until the last number given out by then is committed.
//!
//! ```text
//! committed <= given
//! queue.len() == given - committed, the ones under way included
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use net::builder::BatchBuilder;
use rt::local::{oneshot, Notify};
use rt::{Instant, Shard};

use super::load::now;
use super::{AppendError, OffsetsLog};
use crate::groups::coordinator::{Coordinator, GroupsConfig};
use crate::groups::records::{RawRecord, Record};
use crate::groups::types::*;

/// A batch is closed when it has this many bytes.
const BATCH_BYTES: usize = 256 << 10;
/// Commits are refused while more records than this wait for the log.
const QUEUE_RECORDS_MAX: usize = 65_536;
/// How long to wait before a log that was busy is tried again.
const BUSY_RETRY: Duration = Duration::from_millis(100);
/// A log below this is left as it is.
const COMPACT_MIN_BYTES: u64 = 1 << 20;
/// The log may be this many times as large as what is live in it.
const COMPACT_RATIO: u64 = 4;
/// Records copied at once in a compaction, to the end of the group.
const COMPACT_STEP_RECORDS: usize = 512;

pub(super) struct Led {
    shard: Shard,
    partition: i32,
    log: Rc<dyn OffsetsLog>,
    coordinator: RefCell<Coordinator>,
    /// The requests that wait in the coordinator.
    joins: RefCell<BTreeMap<Token, oneshot::Sender<JoinAnswer>>>,
    syncs: RefCell<BTreeMap<Token, oneshot::Sender<SyncAnswer>>>,
    next_token: Cell<u64>,
    queue: RefCell<Queue>,
    filled: Notify,
    alarm_moved: Notify,
    /// What the clock task sleeps for.
    armed: Cell<Instant>,
    retention_due: Cell<Instant>,
    retention_interval: Cell<Duration>,
    /// No look at compaction before the log has this size.
    compact_at_bytes: Cell<u64>,
    /// Leadership is lost: nobody is answered any more, tasks end when they wake.
    ended: Cell<bool>,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<RawRecord>,
    given: u64,
    committed: u64,
    /// Answers of the coordinator, with the number they wait for; ascending.
    answers: VecDeque<(u64, Answer)>,
    /// Others that wait for a number; ascending.
    waiters: VecDeque<(u64, oneshot::Sender<()>)>,
}

impl Led {
    pub(super) fn start(
        shard: &Shard,
        partition: i32,
        log: Rc<dyn OffsetsLog>,
        coordinator: Coordinator,
    ) -> Rc<Led> {
        let led = Rc::new(Led {
            shard: shard.clone(),
            partition,
            log,
            coordinator: RefCell::new(coordinator),
            joins: RefCell::default(),
            syncs: RefCell::default(),
            next_token: Cell::new(0),
            queue: RefCell::default(),
            filled: Notify::new(),
            alarm_moved: Notify::new(),
            armed: Cell::new(Instant::FAR),
            retention_due: Cell::new(Instant::FAR),
            retention_interval: Cell::new(Duration::MAX),
            compact_at_bytes: Cell::new(COMPACT_MIN_BYTES),
            ended: Cell::new(false),
        });
        // Loading may have given out something to do.
        led.settle();
        let (writer, clock) = (led.clone(), led.clone());
        shard.spawn(async move { writer.write().await }).detach();
        shard.spawn(async move { clock.keep_time().await }).detach();
        led
    }

    pub(super) fn set_config(&self, config: GroupsConfig) {
        let interval = config.retention_check_interval;
        if self.retention_interval.replace(interval) != interval {
            self.retention_due.set(self.shard.now() + interval);
        }
        self.coordinator.borrow_mut().set_config(config);
        self.alarm_moved.notify_one();
    }

    pub(super) fn sizes(&self) -> (usize, usize) {
        self.coordinator.borrow().sizes()
    }

    pub(super) fn committed(&self, at_most: usize) -> (Vec<Committed>, usize) {
        self.coordinator.borrow().committed(at_most)
    }

    /// Whether the log does not keep up.
    pub(super) fn is_behind(&self) -> bool {
        self.queue.borrow().records.len() > QUEUE_RECORDS_MAX
    }

    /// Everyone who waits is told NOT_COORDINATOR: their senders are dropped.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.queue.take();
        self.joins.take();
        self.syncs.take();
        self.filled.notify_one();
        self.alarm_moved.notify_one();
    }

    /// One event, and its outcome once all it wrote is committed.
    pub(super) async fn event<T>(
        &self,
        event: impl FnOnce(&mut Coordinator, Now) -> T,
    ) -> Result<T, GroupError> {
        let now = now(&self.shard);
        let outcome = event(&mut self.coordinator.borrow_mut(), now);
        self.settle();
        self.all_committed().await?;
        Ok(outcome)
    }

    pub(super) async fn join(&self, request: Join) -> Result<JoinAnswer, GroupError> {
        let (sender, receiver) = rt::oneshot();
        let token = self.new_token()?;
        self.joins.borrow_mut().insert(token, sender);
        let now = now(&self.shard);
        self.coordinator.borrow_mut().join(now, token, request);
        self.settle();
        receiver.await.map_err(|_| GroupError::NotCoordinator)
    }

    pub(super) async fn sync(&self, request: Sync) -> Result<SyncAnswer, GroupError> {
        let (sender, receiver) = rt::oneshot();
        let token = self.new_token()?;
        self.syncs.borrow_mut().insert(token, sender);
        let now = now(&self.shard);
        self.coordinator.borrow_mut().sync(now, token, request);
        self.settle();
        receiver.await.map_err(|_| GroupError::NotCoordinator)
    }

    fn new_token(&self) -> Result<Token, GroupError> {
        if self.ended.get() {
            return Err(GroupError::NotCoordinator);
        }
        let token = self.next_token.get();
        self.next_token.set(token + 1);
        Ok(Token(token))
    }

    /// Takes what the coordinator gave out: records into the queue, answers behind them.
    fn settle(&self) {
        if self.ended.get() {
            return;
        }
        let output = self.coordinator.borrow_mut().take_output();
        let mut queue = self.queue.borrow_mut();
        queue.give(output.records.iter().map(Record::encode));
        let last = queue.given;
        queue.answers.extend(output.answers.into_iter().map(|answer| (last, answer)));
        let has_records = !queue.records.is_empty();
        drop(queue);
        if has_records {
            self.filled.notify_one();
        }
        self.release();
        let next = self.coordinator.borrow().next_alarm();
        if next.is_some_and(|next| next < self.armed.get()) {
            self.alarm_moved.notify_one();
        }
    }

    /// Lets go of answers whose records are committed.
    fn release(&self) {
        loop {
            let mut queue = self.queue.borrow_mut();
            let committed = queue.committed;
            let is_due = |at: Option<u64>| at.is_some_and(|at| at <= committed);
            if is_due(queue.answers.front().map(|(at, _)| *at)) {
                let (_, answer) = queue.answers.pop_front().expect("looked at");
                drop(queue);
                self.deliver(answer);
            } else if is_due(queue.waiters.front().map(|(at, _)| *at)) {
                let (_, waiter) = queue.waiters.pop_front().expect("looked at");
                drop(queue);
                // Whoever waited may have gone.
                let _ = waiter.send(());
            } else {
                return;
            }
        }
    }

    fn deliver(&self, answer: Answer) {
        match answer {
            Answer::Join(token, answer) => {
                let waiting = self.joins.borrow_mut().remove(&token);
                if let Some(waiting) = waiting {
                    // Its client may have gone.
                    let _ = waiting.send(answer);
                }
            }
            Answer::Sync(token, answer) => {
                let waiting = self.syncs.borrow_mut().remove(&token);
                if let Some(waiting) = waiting {
                    let _ = waiting.send(answer);
                }
            }
        }
    }

    async fn all_committed(&self) -> Result<(), GroupError> {
        if self.ended.get() {
            return Err(GroupError::NotCoordinator);
        }
        let receiver = {
            let mut queue = self.queue.borrow_mut();
            let given = queue.given;
            if queue.committed == given {
                return Ok(());
            }
            let (sender, receiver) = rt::oneshot();
            queue.waiters.push_back((given, sender));
            receiver
        };
        receiver.await.map_err(|_| GroupError::NotCoordinator)
    }

    /// The clock task: sessions, rebalances, retention.
    async fn keep_time(&self) {
        while !self.ended.get() {
            let alarm = self.coordinator.borrow().next_alarm().unwrap_or(Instant::FAR);
            let due = alarm.min(self.retention_due.get());
            self.armed.set(due);
            rt::either(self.shard.sleep_until(due), self.alarm_moved.notified()).await;
            if self.ended.get() {
                return;
            }
            let now = now(&self.shard);
            self.coordinator.borrow_mut().tick(now);
            if self.retention_due.get() <= now.mono {
                self.retention_due.set(now.mono + self.retention_interval.get());
                self.coordinator.borrow_mut().expire_offsets(now);
            }
            self.settle();
        }
    }

    /// The writer task: the queue into the log, one batch at a time.
    async fn write(&self) {
        loop {
            let Some((batch, records)) = self.next_batch() else {
                if self.ended.get() {
                    return;
                }
                self.filled.notified().await;
                continue;
            };
            if self.append(batch, records).await.is_none() {
                return;
            }
            if self.needs_compaction() && self.compact().await.is_none() {
                return;
            }
        }
    }

    /// Appends until the log takes it; None: the partition is lost.
    async fn append(&self, batch: net::batch::Batch, records: usize) -> Option<i64> {
        let base_offset = loop {
            match self.log.append(batch.clone()).await {
                Ok(base_offset) => break base_offset,
                Err(AppendError::Busy(why)) => {
                    tracing::warn!(partition = self.partition, "group records wait: {why}");
                    self.shard.sleep(BUSY_RETRY).await;
                }
                Err(AppendError::Lost(why)) => {
                    tracing::info!(partition = self.partition, "groups are lost: {why}");
                    self.end();
                }
            }
            if self.ended.get() {
                return None;
            }
        };
        if self.ended.get() {
            return None;
        }
        self.queue.borrow_mut().take(records);
        self.release();
        Some(base_offset)
    }

    /// The front of the queue as a batch, and how many records it holds.
    fn next_batch(&self) -> Option<(net::batch::Batch, usize)> {
        let queue = self.queue.borrow();
        let wall_ms = self.shard.wall_ms();
        let mut builder = BatchBuilder::new();
        let mut count = 0;
        for (key, value) in &queue.records {
            if count > 0 && builder.size_bytes() >= BATCH_BYTES {
                break;
            }
            builder.push(wall_ms, Some(key), value.as_deref(), &[]);
            count += 1;
        }
        if count == 0 {
            return None;
        }
        let batch = builder.build().expect("a frame's worth of records fits into a batch");
        Some((batch, count))
    }

    fn needs_compaction(&self) -> bool {
        let size = self.log.size_bytes();
        if size < self.compact_at_bytes.get() {
            return false;
        }
        let live = self.coordinator.borrow().live_bytes();
        let limit = live.saturating_mul(COMPACT_RATIO).max(COMPACT_MIN_BYTES);
        self.compact_at_bytes.set(limit);
        size > limit
    }

    /// Writes all live records again, group by group between other records, and deletes what was
    /// before them. A key that is live when its group is copied has that copy or a later record;
    /// one that is not has a tombstone before the copy, or needs none. None: the partition is lost.
    async fn compact(&self) -> Option<()> {
        let mut start = None;
        let mut after: Option<String> = None;
        loop {
            let (records, last) = self
                .coordinator
                .borrow()
                .live_records_after(after.as_deref(), COMPACT_STEP_RECORDS);
            self.queue.borrow_mut().give(records.iter().map(Record::encode));
            while let Some((batch, count)) = self.next_batch() {
                let base_offset = self.append(batch, count).await?;
                start.get_or_insert(base_offset);
            }
            if self.ended.get() {
                return None;
            }
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        let Some(start) = start else { return Some(()) };
        match self.log.move_log_start(start).await {
            Ok(()) => tracing::debug!(partition = self.partition, start, "compacted the groups"),
            // The next look tries again.
            Err(error) => {
                tracing::warn!(partition = self.partition, "cannot delete old groups: {error}");
            }
        }
        Some(())
    }
}

impl Queue {
    fn give(&mut self, records: impl Iterator<Item = RawRecord>) {
        let before = self.records.len();
        self.records.extend(records);
        self.given += (self.records.len() - before) as u64;
    }

    fn take(&mut self, records: usize) {
        self.records.drain(..records);
        self.committed += records as u64;
    }
}
