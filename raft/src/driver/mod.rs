//! The group driver: all Raft groups of one shard as one synchronous state machine.
//!
//! Owns: the groups, the ready set, the frames in flight, the tick wheel.
//! Order of calls: any events (`open`, `create`, `propose`, `receive`, `tick`, `durable`, ...), then
//! [`Driver::turn`], which writes what all ready groups have into the journal, then
//! [`Driver::take_effects`], carried out with the driver not borrowed. [`Driver::durable`] must be
//! given every frame, in order.
//! Never does: wait, read a clock or a disk, or look at a group that nothing happened to.
//!
//! A journal that fails in a turn is the end: the error is answered, and no event may follow. A panic inside
//! raft-rs is not caught.

mod effects;
mod group;
mod journal;
mod log;
mod logger;
mod recover;
mod wheel;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft_rs::eraftpb::ConfState;
use wal::{
    FrameNumber, GroupId, HardState, Index, Owner, RecordRef, RecoveredReplica, ReplicaId, Term,
};

pub use effects::{Awaited, Call, Effects, MachineRef, Outgoing, OutgoingPayload};
use group::{Group, Turn};
pub use journal::{Journal, JournalError, Placed};
pub use recover::Fence;
use wheel::Wheel;
pub use wheel::SLOTS as TICK_SLOTS;

use crate::transport::Incoming;
use crate::{Descriptor, EntryKind, PayloadRead, Proposal, RaftHead, StagingRef};

/// Settings of a driver.
#[derive(Debug, Clone, Copy)]
pub struct DriverOptions {
    /// Ticks without a leader before a replica campaigns; drawn from one to two times this.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Payload bytes of one append message, though always one entry at least.
    pub message_max_bytes: u64,
    /// Append messages on their way to one follower.
    pub messages_in_flight_max: usize,
    /// The longest payload of one entry; at most what a record of the log can hold.
    pub entry_max_bytes: u64,
    /// Payload bytes that a group may have proposed and not committed, though always one entry.
    pub uncommitted_max_bytes: u64,
}

impl Default for DriverOptions {
    fn default() -> Self {
        DriverOptions {
            election_ticks: 10,
            heartbeat_ticks: 2,
            message_max_bytes: 1 << 20,
            messages_in_flight_max: 32,
            entry_max_bytes: u64::from(u32::MAX),
            uncommitted_max_bytes: 64 << 20,
        }
    }
}

/// Ways to break the driver on purpose; see `rt::Mutation`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Broken {
    pub empty_ready_reported_early: bool,
    pub skip_vote_sync: bool,
    pub pointer_before_payload: bool,
}

/// Why a proposal was not taken. Nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    #[error("no such group on this shard")]
    UnknownGroup,
    /// This replica does not lead, or not durably yet, or is giving its leadership away.
    #[error("not the leader")]
    NotLeader { leader: Option<ReplicaId> },
    /// This replica may have lost log and takes no part in its group.
    #[error("the replica is fenced")]
    Fenced,
    /// Try again when some of what was proposed has been committed.
    #[error("too many bytes proposed and not committed")]
    TooMuchUncommitted,
    /// Larger than a record of the log, or a membership change of too many steps.
    #[error("the entry is too large")]
    TooLarge,
    /// The log has no room for data until checkpoints let it recycle files: try again.
    #[error("the write-ahead log has no room for data")]
    LogFull,
    /// The node is stopping and takes no more.
    #[error("the node is stopping")]
    Closed,
    /// The write-ahead log failed; the process is about to end.
    #[error("the write-ahead log failed")]
    LogFailed,
}

/// Why a group was not opened or created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A replica of this group is here already.
    #[error("{0} is here already")]
    Exists(Owner),
    /// The replica was removed from this node.
    #[error("{0} was removed from this node")]
    Removed(Owner),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// How a group was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    Running,
    Fenced(Fence),
}

/// What a group looks like from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub replica: ReplicaId,
    pub term: Term,
    pub leader: Option<ReplicaId>,
    pub is_leader: bool,
    pub commit: Index,
    pub applied: Index,
    /// Everything up to here is durable on this replica.
    pub persisted: Index,
    /// The first entry that raft-rs still knows; entries below are in the checkpoint.
    pub first_index: Index,
    pub last_index: Index,
    pub entries_in_memory: usize,
    pub uncommitted_bytes: u64,
    pub role: &'static str,
    /// Why the replica takes no part, if so; then the numbers above are zero.
    pub fence: Option<Fence>,
}

enum Member {
    Running(Box<Group>),
    Fenced(Owner, Fence),
}

/// All groups of a shard.
pub struct Driver {
    options: DriverOptions,
    random: Box<dyn FnMut() -> u64>,
    logger: slog::Logger,
    broken: Broken,
    members: Vec<Option<Member>>,
    free: Vec<usize>,
    keys: BTreeMap<GroupId, usize>,
    ready: Vec<usize>,
    touched: VecDeque<(FrameNumber, Vec<usize>)>,
    wheel: Wheel,
    effects: Effects,
    /// Entries wait for payloads before them that are on their way, until the driver is closed.
    waits: bool,
    /// What entries that wait will take in the log, about.
    waiting_bytes: u64,
    /// The least that any staging area here takes.
    staged_min_bytes: u32,
}

impl Driver {
    /// A driver without groups. `random` is the shard's generator.
    pub fn new(options: DriverOptions, random: Box<dyn FnMut() -> u64>) -> Driver {
        Driver {
            options,
            random,
            logger: logger::root(),
            broken: Broken::default(),
            members: Vec::new(),
            free: Vec::new(),
            keys: BTreeMap::new(),
            ready: Vec::new(),
            touched: VecDeque::new(),
            wheel: Wheel::default(),
            effects: Effects::default(),
            waits: true,
            waiting_bytes: 0,
            staged_min_bytes: u32::MAX,
        }
    }

    /// Sets what is broken on purpose from now on.
    pub fn set_broken(&mut self, broken: Broken) {
        self.broken = broken;
    }

    // Events: groups come and go.

    /// A replica that the write-ahead log has recovered. A sole voter campaigns in the next turn.
    pub fn open(
        &mut self,
        owner: Owner,
        replica: &RecoveredReplica,
        machine: MachineRef,
    ) -> Result<Opened, OpenError> {
        if replica.tombstone {
            return Err(OpenError::Removed(owner));
        }
        match recover::recover(replica) {
            Ok(recovered) => {
                self.insert(owner, recovered, machine)?;
                Ok(Opened::Running)
            }
            Err(fence) => {
                let key = self.free_key(owner)?;
                self.members[key] = Some(Member::Fenced(owner, fence.clone()));
                Ok(Opened::Fenced(fence))
            }
        }
    }

    /// A new replica. Every voter of the group begins with the same `voters`, `index` and `term`;
    /// entries follow after `index`. Answers the frame with which it is durable.
    pub fn create(
        &mut self,
        journal: &mut dyn Journal,
        owner: Owner,
        voters: &[ReplicaId],
        (index, term): (Index, Term),
        machine: MachineRef,
    ) -> Result<FrameNumber, OpenError> {
        let head = RaftHead {
            hard_state: HardState { term, vote: ReplicaId(0), commit: index },
            membership_index: index,
            membership: ConfState::from((voters.iter().map(|voter| voter.0), [])),
        };
        let head = head.encode();
        let replica = RecoveredReplica {
            checkpoint: Some((index, term, head.clone().into())),
            ..RecoveredReplica::default()
        };
        let recovered = recover::recover(&replica).expect("a first checkpoint is whole");
        if self.keys.contains_key(&owner.group) {
            return Err(OpenError::Exists(owner));
        }
        let body: &[&[u8]] = &[&head];
        let placed = journal.append(RecordRef::Checkpoint { owner, index, term, body })?;
        self.insert(owner, recovered, machine)?;
        Ok(placed.frame)
    }

    /// Removes a replica for good. Its machine is not called again. Answers the frame with which
    /// its tombstone is durable; `None` if there is no such replica.
    pub fn remove(
        &mut self,
        journal: &mut dyn Journal,
        owner: Owner,
    ) -> Result<Option<FrameNumber>, JournalError> {
        let Some(&key) = self.keys.get(&owner.group) else { return Ok(None) };
        if self.member(key).map(Member::owner) != Some(owner) {
            return Ok(None);
        }
        let placed = journal.append(RecordRef::Tombstone { owner })?;
        if let Some(Some(Member::Running(group))) = self.members.get(key) {
            self.waiting_bytes -= group.waiting_bytes();
        }
        self.keys.remove(&owner.group);
        self.members[key] = None;
        self.free.push(key);
        self.wheel.remove(key);
        self.ready.retain(|ready| *ready != key);
        Ok(Some(placed.frame))
    }

    /// Long payloads of a group go to `staging` from now on.
    pub fn set_staging(&mut self, group: GroupId, staging: StagingRef) {
        self.staged_min_bytes = self.staged_min_bytes.min(staging.min_bytes());
        if let Ok((_, group)) = self.running(group) {
            group.set_staging(staging);
        }
    }

    // Events: work.

    /// Appends an entry to a group that this replica leads. The index and term are final unless
    /// the machine is told of a truncation.
    pub fn propose(
        &mut self,
        group: GroupId,
        proposal: &Proposal<'_>,
    ) -> Result<(Index, Term), ProposeError> {
        let options = self.options;
        let (key, group) = self.running(group).map_err(|fenced| match fenced {
            true => ProposeError::Fenced,
            false => ProposeError::UnknownGroup,
        })?;
        let placed = group.propose(proposal, &options)?;
        self.wake(key);
        Ok(placed)
    }

    /// A message from another node; the transport has checked its form, and here it is checked
    /// that it is meant for the replica that lives here.
    pub fn receive(&mut self, incoming: Incoming) {
        let Incoming { group, message, payloads } = incoming;
        let Ok((key, group)) = self.running(group) else { return };
        if message.to != group.owner().replica.0 {
            tracing::debug!(owner = %group.owner(), to = message.to, "message for another replica");
            return;
        }
        let random = &mut self.random;
        if let Some(Some(Member::Running(group))) = self.members.get_mut(key) {
            group.step(message, payloads, random);
        }
        self.wake(key);
    }

    /// One slot of the wheel: call it [`TICK_SLOTS`] times per tick interval while
    /// [`Driver::is_ticking`].
    pub fn tick(&mut self) {
        for key in self.wheel.turn() {
            let Some(Some(Member::Running(group))) = self.members.get_mut(key) else { continue };
            if group.tick(&mut self.random) {
                self.queue(key);
            }
        }
    }

    /// Makes a replica campaign without waiting for an election timeout.
    pub fn campaign(&mut self, group: GroupId) {
        if let Ok((key, group)) = self.running(group) {
            group.campaign();
            self.wake(key);
        }
    }

    /// Gives leadership to another replica, which must be up to date first.
    pub fn transfer_leader(&mut self, group: GroupId, to: ReplicaId) {
        if let Ok((key, group)) = self.running(group) {
            group.transfer_leader(to);
            self.wake(key);
        }
    }

    /// Stops ticking a group until something happens to it. Only for a settled group
    /// ([`Driver::is_settled`]) whose replicas' nodes are watched in another way.
    pub fn quiesce(&mut self, group: GroupId) {
        if let Ok((key, group)) = self.running(group) {
            group.quiescent = true;
            self.wheel.remove(key);
        }
    }

    /// Entries of `group` up to `index` are durable in its segments. `application` is the
    /// machine's own part of the checkpoint. Answers the frame with which it is durable.
    pub fn checkpoint(
        &mut self,
        journal: &mut dyn Journal,
        group: GroupId,
        (index, term): (Index, Term),
        application: &[u8],
    ) -> Result<Option<FrameNumber>, JournalError> {
        let Ok((key, _)) = self.running(group) else { return Ok(None) };
        self.with(key, journal, |group, turn| group.checkpoint(index, term, application, turn))
    }

    /// A frame is durable; `bytes` are its bytes as positions of [`Placed`] count them.
    pub fn durable(&mut self, frame: FrameNumber, bytes: &Bytes) {
        while self.touched.front().is_some_and(|(touched, _)| *touched <= frame) {
            let Some((touched, keys)) = self.touched.pop_front() else { break };
            assert_eq!(touched, frame, "frame {touched} was never declared durable");
            for key in keys {
                // The key may be another group's by now: to that one, the frame means nothing.
                if let Some(Some(Member::Running(group))) = self.members.get_mut(key) {
                    group.frame_durable(frame, bytes, &mut self.effects);
                    self.queue(key);
                }
            }
        }
    }

    /// A payload of [`Effects::payloads`] has answered.
    pub fn payload_arrived(&mut self, owner: Owner, index: Index) {
        let Ok((key, group)) = self.running(owner.group) else { return };
        if group.owner() == owner {
            group.payload_arrived(index);
            self.queue(key);
        }
    }

    /// Gives the journal every entry that waits, and lets none wait from now on.
    pub fn close(&mut self, journal: &mut dyn Journal) -> Result<(), JournalError> {
        self.waits = false;
        for key in 0..self.members.len() {
            self.with(key, journal, |group, turn| group.place_all(turn))?;
        }
        Ok(())
    }

    /// What entries that wait for payloads will take in the log, about.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// Whether so long a payload may go to the group's staging area.
    pub fn is_long(&self, group: GroupId, payload_bytes: usize) -> bool {
        payload_bytes >= self.staged_min_bytes as usize
            && self.group(group).is_some_and(|group| group.is_long(payload_bytes))
    }

    /// Whether an entry that is proposed now, after a turn, finds a place outside of the log.
    pub fn would_stage(&self, group: GroupId, kind: EntryKind, descriptor: Descriptor) -> bool {
        self.group(group).is_some_and(|group| group.would_stage(kind, descriptor))
    }

    /// Begins to read the payload of an entry, if it is staged.
    pub fn read_staged(&self, group: GroupId, index: Index) -> Option<PayloadRead> {
        self.group(group)?.read_staged(index)
    }

    // The turn.

    /// Writes everything that ready groups have into the journal: one gathering for all of them.
    pub fn turn(&mut self, journal: &mut dyn Journal) -> Result<(), JournalError> {
        for key in std::mem::take(&mut self.ready) {
            self.with(key, journal, |group, turn| {
                group.queued = false;
                group.handle_ready(turn)
            })?;
            self.place_in_wheel(key);
        }
        Ok(())
    }

    /// What is to be carried out now.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    // Getters.

    /// Whether a turn has anything to do.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether any group needs ticks.
    pub fn is_ticking(&self) -> bool {
        !self.wheel.is_empty()
    }

    pub fn status(&self, group: GroupId) -> Option<Status> {
        match self.member(*self.keys.get(&group)?)? {
            Member::Running(group) => Some(group.status()),
            Member::Fenced(owner, fence) => Some(Status {
                replica: owner.replica,
                term: Term(0),
                leader: None,
                is_leader: false,
                commit: Index(0),
                applied: Index(0),
                persisted: Index(0),
                first_index: Index(0),
                last_index: Index(0),
                entries_in_memory: 0,
                uncommitted_bytes: 0,
                role: "fenced",
                fence: Some(fence.clone()),
            }),
        }
    }

    /// Whether this replica leads, and every replica has everything and knows it.
    pub fn is_settled(&self, group: GroupId) -> bool {
        self.group(group).is_some_and(Group::is_settled)
    }

    /// The term of an entry that is still in memory, or of the checkpoint.
    pub fn term_of(&self, group: GroupId, index: Index) -> Option<Term> {
        self.group(group)?.term_of(index)
    }

    /// The replicas of a group, as of what this replica has applied.
    pub fn membership(&self, group: GroupId) -> Option<&ConfState> {
        Some(self.group(group)?.membership())
    }

    // Helpers.

    fn insert(
        &mut self,
        owner: Owner,
        recovered: recover::Recovered,
        machine: MachineRef,
    ) -> Result<(), OpenError> {
        let key = self.free_key(owner)?;
        let mut group = Group::new(key, owner, recovered, machine, &self.options, &self.logger);
        group.draw(&mut self.random);
        self.members[key] = Some(Member::Running(Box::new(group)));
        self.wake(key);
        Ok(())
    }

    fn free_key(&mut self, owner: Owner) -> Result<usize, OpenError> {
        if self.keys.contains_key(&owner.group) {
            return Err(OpenError::Exists(owner));
        }
        let key = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            self.members.len() - 1
        });
        self.keys.insert(owner.group, key);
        Ok(key)
    }

    fn member(&self, key: usize) -> Option<&Member> {
        self.members.get(key)?.as_ref()
    }

    fn group(&self, group: GroupId) -> Option<&Group> {
        match self.member(*self.keys.get(&group)?)? {
            Member::Running(group) => Some(group),
            Member::Fenced(..) => None,
        }
    }

    /// A running group; `Err(true)` if it is fenced, `Err(false)` if there is none.
    fn running(&mut self, group: GroupId) -> Result<(usize, &mut Group), bool> {
        let key = *self.keys.get(&group).ok_or(false)?;
        match self.members.get_mut(key) {
            Some(Some(Member::Running(group))) => Ok((key, group)),
            Some(Some(Member::Fenced(..))) => Err(true),
            _ => Err(false),
        }
    }

    /// Something happened to the group: it is looked at in the next turn, and ticks again.
    fn wake(&mut self, key: usize) {
        if let Some(Some(Member::Running(group))) = self.members.get_mut(key) {
            group.quiescent = false;
        }
        self.queue(key);
    }

    fn queue(&mut self, key: usize) {
        let Some(Some(Member::Running(group))) = self.members.get_mut(key) else { return };
        if !std::mem::replace(&mut group.queued, true) {
            self.ready.push(key);
        }
    }

    fn place_in_wheel(&mut self, key: usize) {
        match self.member(key) {
            Some(Member::Running(group)) if group.needs_ticks() => self.wheel.insert(key),
            _ => self.wheel.remove(key),
        }
    }

    fn with<T>(
        &mut self,
        key: usize,
        journal: &mut dyn Journal,
        act: impl FnOnce(&mut Group, &mut Turn<'_>) -> Result<T, JournalError>,
    ) -> Result<Option<T>, JournalError> {
        let Some(Some(Member::Running(group))) = self.members.get_mut(key) else { return Ok(None) };
        // What acts before it may is not to run into an entry that waits.
        let early = self.broken.pointer_before_payload || self.broken.empty_ready_reported_early;
        let mut turn = Turn {
            journal,
            effects: &mut self.effects,
            random: &mut self.random,
            touched: &mut self.touched,
            waits: self.waits && !early,
            waiting_bytes: &mut self.waiting_bytes,
            broken: self.broken,
        };
        act(group, &mut turn).map(Some)
    }
}

impl Member {
    fn owner(&self) -> Owner {
        match self {
            Member::Running(group) => group.owner(),
            Member::Fenced(owner, _) => *owner,
        }
    }
}
