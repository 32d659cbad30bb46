//! All Raft groups of a shard, driven: the procedure around [`crate::driver::Driver`].
//!
//! Owns: the loop that feeds durable frames, proposals and ticks to the driver, and calls machines
//! and the outbound side with what comes out. One per shard, a cheap handle, `!Send`.
//! Assumes: it is the one consumer of the log's durable frames. Never does: hold the driver
//! borrowed while a machine is called, or across an await.
//!
//! Data is taken only while the log has room for it, which is asked before Raft is: what Raft has
//! accepted cannot be given back. If the log fails, nothing that was decided can be made durable: the loop ends, every call is
//! refused, and whoever waits in [`Groups::failure`] stops the process.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rt::{Mutation, Notify, Shard, Task};
use wal::{
    FrameNumber, GroupId, Index, Owner, PayloadDurable, RecordRef, RecoveredReplica, ReplicaId,
    Term, Wal, WalError,
};

use crate::driver::{
    Awaited, Broken, Call, Driver, DriverOptions, Effects, Journal, JournalError, MachineRef,
    OpenError, Opened, Outgoing, Placed, ProposeError, Status, TICK_SLOTS,
};
use crate::transport::Incoming;
use crate::{
    payload_of, Descriptor, EntryKind, PayloadError, Proposal, StagingRef, DESCRIPTOR_BYTES,
};

/// Proposed bytes after which a turn is taken at once, so that the room that was seen in the log
/// is still there when they are written. Half a record of the log, if that is less.
const TURN_MAX_BYTES: u64 = 1 << 20;

/// More than the edges of a staged payload take in the log.
const EDGES_MAX_BYTES: usize = 3 * 4096;

/// What an entry takes in the log besides its payload, about.
const RECORD_BYTES: usize = DESCRIPTOR_BYTES + wal::format::RECORD_HEADER_BYTES;

/// Settings of a shard's groups.
#[derive(Debug, Clone)]
pub struct GroupsOptions {
    pub driver: DriverOptions,
    /// The unit of election timeouts and heartbeats.
    pub tick: Duration,
}

impl Default for GroupsOptions {
    fn default() -> Self {
        GroupsOptions { driver: DriverOptions::default(), tick: Duration::from_millis(100) }
    }
}

/// Takes messages for other replicas. It must not block; what it cannot send it drops.
pub trait Outbound {
    fn send(&self, messages: Vec<Outgoing>);
}

/// The groups of a shard; see the module's text.
#[derive(Clone)]
pub struct Groups {
    inner: Rc<Inner>,
}

struct Inner {
    shard: Shard,
    wal: Wal,
    tick: Duration,
    driver: RefCell<Driver>,
    outbound: RefCell<Option<Rc<dyn Outbound>>>,
    /// There is something to do in a turn.
    work: Notify,
    /// Some group may have begun to tick.
    clock: Notify,
    /// Entries were committed.
    commits: Notify,
    turn_max_bytes: u64,
    /// What was proposed since the last turn, as records.
    proposed_bytes: Cell<u64>,
    /// See [`Groups::close`].
    closed: Cell<bool>,
    failed: RefCell<Option<String>>,
    failure: Notify,
    tasks: RefCell<Vec<Task<()>>>,
}

/// The longest payload of an entry in a log whose records have bodies of at most so many bytes.
pub const fn payload_max_bytes(body_max_bytes: u64) -> u64 {
    body_max_bytes - DESCRIPTOR_BYTES as u64
}

impl Groups {
    /// The groups of a shard over its log, none yet. Nothing happens before [`Groups::start`].
    pub fn new(shard: &Shard, wal: Wal, mut options: GroupsOptions) -> Groups {
        let body_max_bytes = wal.body_max_bytes();
        let entry_max_bytes = &mut options.driver.entry_max_bytes;
        *entry_max_bytes = (*entry_max_bytes).min(payload_max_bytes(body_max_bytes));
        let generator = shard.clone();
        let driver = Driver::new(options.driver, Box::new(move || generator.random()));
        let inner = Inner {
            shard: shard.clone(),
            wal,
            tick: options.tick,
            driver: RefCell::new(driver),
            outbound: RefCell::default(),
            work: Notify::new(),
            clock: Notify::new(),
            commits: Notify::new(),
            turn_max_bytes: TURN_MAX_BYTES.min(body_max_bytes / 2),
            proposed_bytes: Cell::new(0),
            closed: Cell::new(false),
            failed: RefCell::default(),
            failure: Notify::new(),
            tasks: RefCell::default(),
        };
        Groups { inner: Rc::new(inner) }
    }

    /// Starts the loop. Groups that were opened before campaign together, in one frame.
    pub fn start(&self) {
        let shard = &self.inner.shard;
        let tasks = vec![
            shard.spawn(watch_log(self.inner.clone())),
            shard.spawn(take_turns(LetGo(self.inner.clone()))),
            shard.spawn(tick(self.inner.clone())),
        ];
        *self.inner.tasks.borrow_mut() = tasks;
    }

    /// Refuses proposals from now on. Whatever was accepted before has been given to the log when
    /// this returns: it is durable once the log has stopped in order. Machines are called until then.
    pub fn close(&self) {
        self.inner.closed.set(true);
        run(&self.inner);
        let journal = &mut WalJournal(&self.inner.wal);
        let closed = self.inner.driver.borrow_mut().close(journal);
        let _ = self.inner.judge(closed);
    }

    /// Where messages to other replicas go. Without one they are dropped.
    pub fn set_outbound(&self, outbound: Rc<dyn Outbound>) {
        *self.inner.outbound.borrow_mut() = Some(outbound);
    }

    // Groups come and go.

    /// A replica that the log has recovered.
    pub fn open(
        &self,
        owner: Owner,
        replica: &RecoveredReplica,
        machine: MachineRef,
    ) -> Result<Opened, OpenError> {
        self.check_log()?;
        let opened = self.inner.driver.borrow_mut().open(owner, replica, machine)?;
        self.wake();
        Ok(opened)
    }

    /// A new replica, the same on every voter: entries follow after `index`. Answers the frame
    /// with which it is durable ([`Groups::wait_durable`]).
    pub fn create(
        &self,
        owner: Owner,
        voters: &[ReplicaId],
        index: Index,
        term: Term,
        machine: MachineRef,
    ) -> Result<FrameNumber, OpenError> {
        self.check_log()?;
        let journal = &mut WalJournal(&self.inner.wal);
        let mut driver = self.inner.driver.borrow_mut();
        let created = driver.create(journal, owner, voters, (index, term), machine);
        drop(driver);
        if let Err(OpenError::Journal(JournalError::Failed(reason))) = &created {
            self.inner.fail(reason);
        }
        self.wake();
        created
    }

    /// Removes a replica for good; its machine is not called again. Answers the frame with which
    /// its tombstone is durable, `None` if there is no such replica.
    pub fn remove(&self, owner: Owner) -> Result<Option<FrameNumber>, JournalError> {
        self.check_log()?;
        let journal = &mut WalJournal(&self.inner.wal);
        let removed = self.inner.driver.borrow_mut().remove(journal, owner);
        self.inner.judge(removed)
    }

    /// Long payloads of a group are written to `staging` from now on, and not to the log.
    pub fn set_staging(&self, group: GroupId, staging: StagingRef) {
        self.inner.driver.borrow_mut().set_staging(group, staging);
    }

    // Work.

    /// Appends an entry to a group that this replica leads. It is committed when the machine is
    /// given this index with this term, and will not be if the machine is told of a truncation.
    pub fn propose(
        &self,
        group: GroupId,
        proposal: Proposal<'_>,
    ) -> Result<(Index, Term), ProposeError> {
        let inner = &self.inner;
        if inner.failed.borrow().is_some() {
            return Err(ProposeError::LogFailed);
        }
        if inner.closed.get() {
            return Err(ProposeError::Closed);
        }
        let payload_bytes: usize = proposal.payload.iter().map(Bytes::len).sum();
        let long =
            proposal.kind == EntryKind::Data && inner.driver.borrow().is_long(group, payload_bytes);
        if long {
            // A staging area decides with all that comes before in sight, and must find it so
            // when the entry is written: nothing comes between.
            inner.write();
        }
        let logged_bytes = match long && inner.would_stage(group, &proposal, payload_bytes) {
            true => EDGES_MAX_BYTES,
            false => payload_bytes,
        };
        let bytes = inner.proposed_bytes.get() + (logged_bytes + RECORD_BYTES) as u64;
        let waiting = inner.driver.borrow().waiting_bytes();
        if proposal.kind == EntryKind::Data && !inner.wal.has_data_room(waiting + bytes) {
            return Err(ProposeError::LogFull);
        }
        let placed = inner.driver.borrow_mut().propose(group, &proposal)?;
        inner.proposed_bytes.set(bytes);
        if bytes >= inner.turn_max_bytes || long {
            inner.write();
        }
        inner.work.notify_one();
        Ok(placed)
    }

    /// A message from another node.
    pub fn receive(&self, incoming: Incoming) {
        if self.inner.failed.borrow().is_none() {
            self.inner.driver.borrow_mut().receive(incoming);
            self.wake();
        }
    }

    /// Gives the leadership of a group to another replica.
    pub fn transfer_leader(&self, group: GroupId, to: ReplicaId) {
        self.inner.driver.borrow_mut().transfer_leader(group, to);
        self.wake();
    }

    /// Writes a checkpoint: everything of the group up to `index`, whose entry has `term`, is
    /// durable in its segments. Answers the frame with which the checkpoint is durable; `None` if
    /// the group is not here any more.
    ///
    /// # Panics
    /// If `index` was not given to the machine yet, or its entry has another term.
    pub fn checkpoint(
        &self,
        group: GroupId,
        index: Index,
        term: Term,
        application: &[u8],
    ) -> Result<Option<FrameNumber>, JournalError> {
        self.check_log()?;
        let journal = &mut WalJournal(&self.inner.wal);
        let mut driver = self.inner.driver.borrow_mut();
        let written = driver.checkpoint(journal, group, (index, term), application);
        drop(driver);
        self.inner.judge(written)
    }

    /// Waits until a frame and all before it are durable.
    pub async fn wait_durable(&self, frame: FrameNumber) -> Result<(), WalError> {
        self.inner.wal.wait_durable(frame).await
    }

    /// Reads the payload of an entry back, wherever it stands now; `None` if a checkpoint has
    /// passed it.
    pub async fn read_payload(
        &self,
        owner: Owner,
        index: Index,
    ) -> Result<Option<Bytes>, PayloadError> {
        let inner = &self.inner;
        let staged = inner.driver.borrow().read_staged(owner.group, index);
        let Some(read) = staged else {
            let body = inner.wal.read_entry(owner, index).await?;
            return Ok(body.as_ref().map(payload_of));
        };
        match read.await {
            Ok(payload) => Ok(Some(payload)),
            Err(_) if inner.wal.locate(owner, index).is_none() => Ok(None),
            Err(what) => Err(PayloadError::Staged(index, what)),
        }
    }

    // Getters.

    pub fn status(&self, group: GroupId) -> Option<Status> {
        self.inner.driver.borrow().status(group)
    }

    /// Resolves when entries are committed: a group that had too many undecided may take more.
    pub async fn commits(&self) {
        self.inner.commits.notified().await;
    }

    /// Resolves when the log has failed, with the reason. The process must stop then.
    pub async fn failure(&self) -> String {
        loop {
            let bell = self.inner.failure.notified();
            if let Some(reason) = self.inner.failed.borrow().clone() {
                return reason;
            }
            bell.await;
        }
    }

    fn wake(&self) {
        self.inner.work.notify_one();
    }

    fn check_log(&self) -> Result<(), JournalError> {
        match &*self.inner.failed.borrow() {
            Some(reason) => Err(JournalError::Failed(reason.clone())),
            None => Ok(()),
        }
    }
}

/// Durable frames, in order.
async fn watch_log(inner: Rc<Inner>) {
    loop {
        match inner.wal.next_durable().await {
            Ok(frame) => {
                inner.driver.borrow_mut().durable(frame.number, &frame.bytes);
                run(&inner);
            }
            Err(WalError::Stopped) => return,
            Err(error) => return inner.fail(&error.to_string()),
        }
    }
}

/// Proposals, messages, new groups.
async fn take_turns(groups: LetGo) {
    let LetGo(inner) = &groups;
    loop {
        inner.work.notified().await;
        // Whatever else is runnable now may add to the same turn, and so to the same frame.
        inner.shard.yield_now().await;
        run(inner);
    }
}

/// Time, for as long as any group needs it.
async fn tick(inner: Rc<Inner>) {
    loop {
        let bell = inner.clock.notified();
        if inner.driver.borrow().is_ticking() {
            inner.shard.sleep(inner.tick / TICK_SLOTS as u32).await;
            // A leader whose log does not answer falls silent, and another is elected.
            if inner.wal.stalled().is_none() {
                inner.driver.borrow_mut().tick();
                run(&inner);
            }
        } else {
            bell.await;
        }
    }
}

/// Machines hold the groups that hold them. The loop that owns this lives as long as the shard:
/// whatever ends it, a stop, a crash or a panic, also before its first turn, ends that circle.
struct LetGo(Rc<Inner>);

impl Drop for LetGo {
    fn drop(&mut self) {
        self.0.closed.set(true);
        let nobody = Driver::new(DriverOptions::default(), Box::new(|| 0));
        // Dropped when nothing is borrowed: what a machine drops may ask the groups.
        drop(self.0.driver.replace(nobody));
        drop(self.0.outbound.take());
    }
}

/// Turns and their effects, until nothing is left to do now.
fn run(inner: &Rc<Inner>) {
    loop {
        inner.write();
        let effects = inner.driver.borrow_mut().take_effects();
        if effects.is_empty() {
            return;
        }
        inner.carry_out(effects);
    }
}

/// Waits for a payload that entries wait for, and lets them go on.
async fn await_payload(inner: Rc<Inner>, awaited: Awaited) {
    let Awaited { owner, index, payload, told } = awaited;
    if let Ok(answer) = payload.await {
        // Nobody waits for it if the replica was removed.
        let _ = told.send(answer);
    }
    inner.driver.borrow_mut().payload_arrived(owner, index);
    run(&inner);
}

impl Inner {
    /// One turn: into the log, without effects.
    fn write(&self) {
        if self.failed.borrow().is_some() {
            return;
        }
        self.proposed_bytes.set(0);
        let mut driver = self.driver.borrow_mut();
        if !driver.is_ready() {
            return;
        }
        driver.set_broken(Broken {
            empty_ready_reported_early: self.shard.broken(Mutation::EmptyReadyReportedEarly),
            skip_vote_sync: self.shard.broken(Mutation::SkipVoteSync),
            pointer_before_payload: self.shard.broken(Mutation::PointerBeforePayload),
        });
        let turned = driver.turn(&mut WalJournal(&self.wal));
        let is_ticking = driver.is_ticking();
        drop(driver);
        if let Err(error) = turned {
            self.fail(&error.to_string());
        }
        if is_ticking {
            self.clock.notify_one();
        }
    }

    fn would_stage(&self, group: GroupId, proposal: &Proposal<'_>, payload_bytes: usize) -> bool {
        let Ok(length) = u32::try_from(payload_bytes) else { return false };
        let descriptor = Descriptor { length, ..proposal.descriptor };
        self.driver.borrow().would_stage(group, proposal.kind, descriptor)
    }

    fn carry_out(self: &Rc<Self>, effects: Effects) {
        let Effects { calls, messages, payloads } = effects;
        for awaited in payloads {
            self.shard.spawn(await_payload(Rc::clone(self), awaited)).detach();
        }
        let committed = calls.iter().any(|(_, call)| matches!(call, Call::Committed(_)));
        for (machine, call) in calls {
            call.make(&machine);
        }
        if committed {
            self.commits.notify_all();
        }
        let outbound = self.outbound.borrow().clone();
        if let Some(outbound) = outbound.filter(|_| !messages.is_empty()) {
            outbound.send(messages);
        }
    }

    fn judge<T>(&self, result: Result<T, JournalError>) -> Result<T, JournalError> {
        result.inspect_err(|JournalError::Failed(reason)| self.fail(reason))
    }

    fn fail(&self, reason: &str) {
        let mut failed = self.failed.borrow_mut();
        if failed.is_none() {
            tracing::error!(shard = %self.shard.id(), reason, "the write-ahead log failed");
            *failed = Some(reason.to_owned());
            drop(failed);
            self.failure.notify_all();
        }
    }
}

/// The shard's log as the driver's journal.
struct WalJournal<'a>(&'a Wal);

impl Journal for WalJournal<'_> {
    /// Entries are never refused for want of room: they were admitted while there was some, and
    /// raft-rs cannot give them back.
    fn append(&mut self, record: RecordRef<'_>) -> Result<Placed, JournalError> {
        judged(self.0.append_reserved(record))
    }

    fn append_pointer(
        &mut self,
        record: RecordRef<'_>,
        payload: PayloadDurable,
    ) -> Result<Placed, JournalError> {
        judged(self.0.append_pointer(record, payload))
    }
}

fn judged(placed: Result<wal::Placed, WalError>) -> Result<Placed, JournalError> {
    let placed = placed.map_err(|error| JournalError::Failed(error.to_string()))?;
    Ok(Placed { frame: placed.frame, position: placed.offset, location: placed.location })
}
