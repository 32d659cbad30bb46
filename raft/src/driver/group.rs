//! One Raft group on this shard: raft-rs' node, and what has left it but is not durable yet.
//!
//! Owns: the order of things within a group. A Ready is written into the journal as hard state,
//! truncation, entries; its messages and its report to raft-rs wait for the frames that carry it.
//! Assumes: the driver calls [`Group::handle_ready`] after every event, before it is asked to
//! propose again, and [`Group::frame_durable`] for every frame this group has written into, in
//! order. Never does: step, propose or campaign between `ready()` and `advance_append_async`.
//!
//! The rules that no test of a healthy disk would find broken:
//! - `on_persist_ready(n)` covers every earlier number too. A Ready that wrote nothing is therefore
//!   reported with the group's latest unfinished record, or at once if there is none.
//! - A candidate's and a follower's messages are promises: they leave with that record as well.
//! - A leader's messages leave at once, except while its own term and vote are not durable: a sole
//!   voter becomes leader inside `campaign`, and any leader may be elected by one Ready.
//! - Nobody is told of a leadership before its term and vote are durable.

mod records;
mod staged;

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message as _;
use raft_rs::eraftpb::{ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType};
use raft_rs::{Config, RawNode, Ready, StateRole};
use wal::{FrameNumber, HardState, Index, Owner, RecordRef, ReplicaId, Term};

use self::records::{RecordNumber, Records};
use super::effects::{Call, Effects, MachineRef, Outgoing, OutgoingPayload};
use super::journal::{Journal, JournalError};
use super::log::{membership_data, GroupLog, SlotPayload};
use super::recover::Recovered;
use super::{Broken, DriverOptions, ProposeError, Status};
use crate::entry::{self, Descriptor, EntryKind, MEMBERSHIP_MAX_BYTES};
use crate::{transport, Committed, Leadership, Proposal, RaftHead, StagingRef};

/// What a turn lends to its groups.
pub(crate) struct Turn<'a> {
    pub journal: &'a mut dyn Journal,
    pub effects: &'a mut Effects,
    pub random: &'a mut dyn FnMut() -> u64,
    /// Frames written into and not yet durable, with the groups that did.
    pub touched: &'a mut VecDeque<(FrameNumber, Vec<usize>)>,
    /// Entries wait for payloads before them that are on their way.
    pub waits: bool,
    /// What entries that wait will take in the log, about.
    pub waiting_bytes: &'a mut u64,
    pub broken: Broken,
}

/// The payload of an entry that raft-rs has taken and no Ready has brought out yet.
struct Pending {
    index: u64,
    term: u64,
    payload: Vec<Bytes>,
    proposed: bool,
}

/// Readies up to `number` are durable with `record`.
struct InFlight {
    number: u64,
    record: RecordNumber,
}

pub(crate) struct Group {
    key: usize,
    owner: Owner,
    machine: MachineRef,
    raw: RawNode<GroupLog>,
    membership: ConfState,
    membership_index: Index,
    pending: VecDeque<Pending>,
    pending_bytes: u64,
    /// Payload bytes of entries above the applied index, pending ones apart.
    uncommitted_bytes: u64,
    records: Records,
    /// Records never fall from front to back.
    in_flight: VecDeque<InFlight>,
    held: Vec<(RecordNumber, Outgoing)>,
    /// The newest term or vote, while it is not durable.
    vote_record: Option<RecordNumber>,
    /// Term and vote as last written.
    written: (u64, u64),
    checkpoints: VecDeque<(FrameNumber, Index, Term)>,
    announced: Leadership,
    /// The term that this replica leads or led last, and its first index.
    led: (u64, Index),
    persisted: Index,
    /// Where long payloads go, if anywhere.
    staging: Option<StagingRef>,
    /// The last truncation, while it is not durable: what the entries taken back point to may be
    /// replayed yet, so nothing may be put in its place.
    truncation: Option<RecordNumber>,
    election_ticks: usize,
    message_max_bytes: u64,
    /// Term, role and leader when the election timeout was drawn.
    standing: (u64, StateRole, u64),
    campaign: bool,
    pub queued: bool,
    pub quiescent: bool,
}

impl Group {
    /// Makes the group of a recovered or new replica. A sole voter campaigns in its first turn.
    pub fn new(
        key: usize,
        owner: Owner,
        recovered: Recovered,
        machine: MachineRef,
        options: &DriverOptions,
        logger: &slog::Logger,
    ) -> Group {
        let Recovered { log, hard_state, membership, membership_index, applied } = recovered;
        let uncommitted_bytes = log.payload_bytes();
        let persisted = log.last();
        let logger = logger.new(slog::o!("group" => owner.group.0));
        let config = config(owner.replica, applied, options);
        let raw = RawNode::new(&config, log, &logger)
            .expect("recovery has judged all that raft-rs could refuse");
        let mut group = Group {
            key,
            owner,
            machine,
            raw,
            membership,
            membership_index,
            pending: VecDeque::new(),
            pending_bytes: 0,
            uncommitted_bytes,
            records: Records::default(),
            in_flight: VecDeque::new(),
            held: Vec::new(),
            vote_record: None,
            written: (hard_state.term.0, hard_state.vote.0),
            checkpoints: VecDeque::new(),
            announced: Leadership {
                term: Term(0),
                leader: None,
                is_leader: false,
                first_index: None,
            },
            led: (0, Index(0)),
            persisted,
            staging: None,
            truncation: None,
            election_ticks: options.election_ticks,
            message_max_bytes: options.message_max_bytes,
            standing: (hard_state.term.0, StateRole::Follower, 0),
            campaign: false,
            queued: false,
            quiescent: false,
        };
        group.campaign = group.is_sole_voter();
        group
    }

    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// This replica decides by itself: nobody to ask for votes, nobody to wait for.
    fn is_sole_voter(&self) -> bool {
        let ConfState { voters, voters_outgoing, .. } = &self.membership;
        voters[..] == [self.owner.replica.0] && voters_outgoing.is_empty()
    }

    /// This replica is the only one there is: nobody to send to either.
    fn is_alone(&self) -> bool {
        self.is_sole_voter() && self.membership.learners.is_empty()
    }

    /// Whether time means anything to the group now.
    pub fn needs_ticks(&self) -> bool {
        !self.quiescent && !self.is_alone()
    }

    /// Whether every replica has everything and knows it, so that all may stop ticking.
    pub fn is_settled(&self) -> bool {
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        self.announced.is_leader
            && self.in_flight.is_empty()
            && raft.raft_log.committed == last
            && raft.lead_transferee.is_none()
            && raft
                .prs()
                .iter()
                .all(|(_, progress)| progress.matched == last && progress.committed_index == last)
    }

    // Events.

    pub fn propose(
        &mut self,
        proposal: &Proposal<'_>,
        options: &DriverOptions,
    ) -> Result<(Index, Term), ProposeError> {
        let leads = self.announced.is_leader
            && self.raw.raft.state == StateRole::Leader
            && self.raw.raft.term == self.announced.term.0
            && self.raw.raft.lead_transferee.is_none();
        if !leads {
            return Err(ProposeError::NotLeader { leader: self.announced.leader });
        }
        let length_bytes: usize = proposal.payload.iter().map(Bytes::len).sum();
        let length = u32::try_from(length_bytes).map_err(|_| ProposeError::TooLarge)?;
        // Whether it is staged or not: a place for it may be missing when it is written.
        if u64::from(length) > options.entry_max_bytes {
            return Err(ProposeError::TooLarge);
        }
        let waiting_bytes = self.uncommitted_bytes + self.pending_bytes;
        if waiting_bytes > 0 && waiting_bytes + u64::from(length) > options.uncommitted_max_bytes {
            return Err(ProposeError::TooMuchUncommitted);
        }
        let descriptor = Descriptor { length, ..proposal.descriptor };
        let (entry_type, data, payload) = match proposal.kind {
            EntryKind::Membership => {
                if length_bytes > MEMBERSHIP_MAX_BYTES {
                    return Err(ProposeError::TooLarge);
                }
                (EntryType::EntryConfChangeV2, proposal.payload.concat().into(), Vec::new())
            }
            kind => {
                let data = Bytes::copy_from_slice(&entry::encode(kind, &descriptor));
                (EntryType::EntryNormal, data, proposal.payload.to_vec())
            }
        };
        let index = self.raw.raft.raft_log.last_index() + 1;
        let entry = Entry { entry_type: entry_type as i32, data, ..Entry::default() };
        let message = Message {
            msg_type: MessageType::MsgPropose as i32,
            from: self.owner.replica.0,
            entries: vec![entry],
            ..Message::default()
        };
        if self.raw.raft.step(message).is_err() {
            return Err(ProposeError::NotLeader { leader: None });
        }
        let term = self.raw.raft.term;
        self.pending_bytes += u64::from(length);
        self.pending.push_back(Pending { index, term, payload, proposed: true });
        Ok((Index(index), Term(term)))
    }

    /// A message from another replica, checked by [`crate::transport`]; payloads of its data and
    /// control entries beside it.
    pub fn step(
        &mut self,
        message: Message,
        payloads: Vec<Bytes>,
        random: &mut dyn FnMut() -> u64,
    ) {
        let kind = message.msg_type();
        if let Err(reason) = self.admit(&message) {
            tracing::error!(owner = %self.owner, from = message.from, ?kind, reason, "refused");
            return;
        }
        for (entry, payload) in message.entries.iter().zip(payloads) {
            if payload.is_empty() {
                continue;
            }
            self.pending_bytes += payload.len() as u64;
            let (index, term, payload) = (entry.index, entry.term, vec![payload]);
            self.pending.push_back(Pending { index, term, payload, proposed: false });
        }
        if let Err(error) = self.raw.step(message) {
            tracing::debug!(owner = %self.owner, %error, ?kind, "message not stepped");
        }
        self.redraw(random);
    }

    /// What raft-rs would panic over, and what only a replica with a broken log would send.
    fn admit(&self, message: &Message) -> Result<(), &'static str> {
        let log = &self.raw.raft.raft_log;
        let beyond = |index: u64| index > log.last_index();
        match message.msg_type() {
            MessageType::MsgHeartbeat if beyond(message.commit) => {
                Err("a heartbeat names a commit beyond this replica's log")
            }
            MessageType::MsgAppendResponse if !message.reject && beyond(message.index) => {
                Err("an acknowledgement names an entry beyond the leader's log")
            }
            MessageType::MsgAppend
                if message.index >= log.committed && message.log_term < log.commit_info().1 =>
            {
                Err("entries follow one of a lower term than what is committed here")
            }
            _ => Ok(()),
        }
    }

    pub fn tick(&mut self, random: &mut dyn FnMut() -> u64) -> bool {
        let something = self.raw.tick();
        self.redraw(random);
        something
    }

    /// Campaigns in the next turn, without waiting for an election timeout.
    pub fn campaign(&mut self) {
        self.campaign = true;
    }

    pub fn transfer_leader(&mut self, to: ReplicaId) {
        self.raw.transfer_leader(to.0);
    }

    /// Draws an election timeout from the shard's generator, in place of raft-rs' own.
    pub fn draw(&mut self, random: &mut dyn FnMut() -> u64) {
        let raft = &mut self.raw.raft;
        let base = raft.election_timeout();
        self.election_ticks = base + (random() % base as u64) as usize;
        raft.set_randomized_election_timeout(self.election_ticks);
    }

    /// Called after everything that may reset the node, whereupon raft-rs has drawn an election
    /// timeout from a generator of its own. A reset shows in term, role or leader, and then a
    /// new one is drawn from ours; should one not show, ours is put back. What raft-rs drew
    /// decides nothing, not even by being equal.
    fn redraw(&mut self, random: &mut dyn FnMut() -> u64) {
        let raft = &mut self.raw.raft;
        let standing = (raft.term, raft.state, raft.leader_id);
        if standing == self.standing {
            raft.set_randomized_election_timeout(self.election_ticks);
        } else {
            self.standing = standing;
            self.draw(random);
        }
    }

    // The turn.

    /// Brings out all that raft-rs has ready: into the journal, into the effects.
    pub fn handle_ready(&mut self, turn: &mut Turn<'_>) -> Result<(), JournalError> {
        self.place_entries(turn)?;
        self.drain(turn)?;
        if std::mem::take(&mut self.campaign) {
            // After the first drain: committed membership changes must be applied before.
            if let Err(error) = self.raw.campaign() {
                tracing::warn!(owner = %self.owner, %error, "cannot campaign");
            }
            self.redraw(turn.random);
            self.drain(turn)?;
        }
        self.forget_pending(turn.effects);
        self.announce(turn.effects);
        Ok(())
    }

    fn drain(&mut self, turn: &mut Turn<'_>) -> Result<(), JournalError> {
        while self.raw.has_ready() {
            let ready = self.raw.ready();
            self.handle_one(ready, turn)?;
        }
        Ok(())
    }

    fn handle_one(&mut self, mut ready: Ready, turn: &mut Turn<'_>) -> Result<(), JournalError> {
        assert!(ready.snapshot().is_empty(), "the transport refuses snapshots");
        let number = ready.number();
        let entries = ready.take_entries();
        let mut wrote = self.write_hard_state(&ready, &entries, turn)?;
        if !entries.is_empty() {
            wrote = Some(self.write_entries(entries, turn)?);
        }
        let promises = self.outgoing(ready.take_persisted_messages());
        let messages = self.outgoing(ready.take_messages());
        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);

        let latest = self.in_flight.back().map(|unfinished| unfinished.record);
        let early = wrote.is_none() && turn.broken.empty_ready_reported_early;
        let record = if early { None } else { wrote.or(latest) };
        match record {
            Some(record) => self.report_with(record, number),
            None => self.raw.on_persist_ready(number),
        }
        send_with(record, promises, &mut self.held, turn.effects);
        send_with(self.vote_record, messages, &mut self.held, turn.effects);
        self.announce(turn.effects);
        self.deliver(committed, turn)
    }

    fn report_with(&mut self, record: RecordNumber, number: u64) {
        match self.in_flight.back_mut() {
            Some(back) if back.record == record => back.number = number,
            _ => self.in_flight.push_back(InFlight { number, record }),
        }
    }

    /// Writes term and vote if they changed. A new commit index alone is not worth a record: it
    /// is found again, and goes along with the next vote or checkpoint.
    fn write_hard_state(
        &mut self,
        ready: &Ready,
        entries: &[Entry],
        turn: &mut Turn<'_>,
    ) -> Result<Option<RecordNumber>, JournalError> {
        let Some(state) = ready.hs() else { return Ok(None) };
        if (state.term, state.vote) == self.written {
            return Ok(None);
        }
        self.written = (state.term, state.vote);
        // The commit may cover entries of this very Ready, which a later frame may carry.
        let reach = entries.first().map_or(self.log().last().0, |first| first.index - 1);
        let record = HardState {
            term: Term(state.term),
            vote: ReplicaId(state.vote),
            commit: Index(state.commit.min(reach)),
        };
        let number =
            self.append(turn, RecordRef::HardState { owner: self.owner, state: record })?;
        if turn.broken.skip_vote_sync {
            return Ok(None);
        }
        self.vote_record = Some(number);
        Ok(Some(number))
    }

    fn write_entries(
        &mut self,
        entries: Vec<Entry>,
        turn: &mut Turn<'_>,
    ) -> Result<RecordNumber, JournalError> {
        let first = Index(entries[0].index);
        if first <= self.log().last() {
            let term = Term(self.raw.raft.term);
            let truncate = RecordRef::Truncate { owner: self.owner, from: first, term };
            let number = self.append(turn, truncate)?;
            if let Some(staging) = &self.staging {
                staging.truncated(first);
                self.truncation = Some(number);
            }
            self.uncommitted_bytes -= self.raw.mut_store().truncate(first);
            self.persisted = self.persisted.min(first.previous());
            turn.effects.calls.push((self.machine.clone(), Call::Truncated(first)));
        }
        for entry in entries {
            self.write_entry(entry, turn)?;
        }
        Ok(self.records.last())
    }

    fn write_entry(&mut self, entry: Entry, turn: &mut Turn<'_>) -> Result<(), JournalError> {
        let (index, term) = (Index(entry.index), Term(entry.term));
        let (kind, descriptor, slices) = self.take_apart(entry);
        let length_bytes: usize = slices.iter().map(Bytes::len).sum();
        assert_eq!(length_bytes, descriptor.length as usize, "payload of entry {index}");
        let staged = self.stage(index, kind, descriptor, &slices);
        let leads = self.raw.raft.state == StateRole::Leader && term.0 == self.raw.raft.term;
        if leads && self.led.0 != term.0 {
            self.led = (term.0, index);
        }
        self.uncommitted_bytes += u64::from(descriptor.length);
        let pointer = staged.as_ref().map(|staged| (staged.pointer, staged.bytes.clone()));
        self.raw.mut_store().push(term, kind, descriptor, slices, pointer);
        self.queue_entry(index, staged, turn);
        self.place_entries(turn)
    }

    /// Kind, descriptor and payload of an entry that raft-rs brings out.
    fn take_apart(&mut self, entry: Entry) -> (EntryKind, Descriptor, Vec<Bytes>) {
        if entry.entry_type() != EntryType::EntryNormal {
            let length = entry.data.len() as u32;
            let slices = if length == 0 { Vec::new() } else { vec![entry.data] };
            self.take_pending(entry.index, entry.term);
            return (EntryKind::Membership, Descriptor { length, ..Descriptor::default() }, slices);
        }
        if entry.data.is_empty() {
            // A leader's first entry, or a membership change that raft-rs did not admit.
            self.take_pending(entry.index, entry.term);
            return (EntryKind::Empty, Descriptor::default(), Vec::new());
        }
        let (kind, descriptor) = entry::decode(&entry.data)
            .expect("descriptors are our own or checked by the transport");
        let payload = self.take_pending(entry.index, entry.term);
        (kind, descriptor, payload.unwrap_or_default())
    }

    fn take_pending(&mut self, index: u64, term: u64) -> Option<Vec<Bytes>> {
        // Entries come out in the order in which they went in; what was replaced on the way may
        // stand before them.
        let matches = |pending: &Pending| (pending.index, pending.term) == (index, term);
        let at = self.pending.iter().position(matches)?;
        self.pending.remove(at).map(|pending| pending.payload)
    }

    /// Whatever raft-rs has not brought out by now, it has replaced.
    fn forget_pending(&mut self, effects: &mut Effects) {
        let lost = self.pending.iter().filter(|pending| pending.proposed).map(|lost| lost.index);
        if let Some(first) = lost.min() {
            effects.calls.push((self.machine.clone(), Call::Truncated(Index(first))));
        }
        self.pending.clear();
        self.pending_bytes = 0;
    }

    // Becoming durable.

    /// A frame that this group has written into is durable.
    pub fn frame_durable(&mut self, frame: FrameNumber, bytes: &Bytes, effects: &mut Effects) {
        self.raw.mut_store().frame_durable(frame, bytes);
        let durable = self.records.durable_with(frame);
        let mut reported = None;
        while self.in_flight.front().is_some_and(|unfinished| unfinished.record <= durable) {
            reported = self.in_flight.pop_front().map(|unfinished| unfinished.number);
        }
        if let Some(number) = reported {
            self.raw.on_persist_ready(number);
        }
        if self.vote_record.is_some_and(|waiting| waiting <= durable) {
            self.vote_record = None;
        }
        if self.truncation.is_some_and(|waiting| waiting <= durable) {
            self.truncation = None;
        }
        let released = self.held.iter().take_while(|(waiting, _)| *waiting <= durable).count();
        effects.messages.extend(self.held.drain(..released).map(|(_, message)| message));
        while let Some((written, index, term)) = self.checkpoints.front().copied() {
            if written > frame {
                break;
            }
            self.checkpoints.pop_front();
            self.raw.mut_store().compact(index, term);
        }
        self.announce(effects);
        let persisted = Index(self.raw.raft.raft_log.persisted);
        if persisted > self.persisted {
            self.persisted = persisted;
            effects.calls.push((self.machine.clone(), Call::Persisted(persisted)));
        }
    }

    /// Tells the machine who leads, if that changed.
    fn announce(&mut self, effects: &mut Effects) {
        let raft = &self.raw.raft;
        let durable = self.vote_record.is_none();
        let is_leader = raft.state == StateRole::Leader && durable;
        let known = raft.leader_id != 0 && (raft.leader_id != raft.id || is_leader);
        let leadership = Leadership {
            term: Term(raft.term),
            leader: known.then_some(ReplicaId(raft.leader_id)),
            is_leader,
            first_index: is_leader.then_some(self.led.1),
        };
        // A term that is not durable may be forgotten and given again.
        if durable && leadership != self.announced {
            self.announced = leadership;
            effects.calls.push((self.machine.clone(), Call::Leadership(leadership)));
        }
    }

    /// Gives committed entries to the machine, and applies membership changes among them.
    fn deliver(&mut self, entries: Vec<Entry>, turn: &mut Turn<'_>) -> Result<(), JournalError> {
        let Some(last) = entries.last().map(|last| last.index) else { return Ok(()) };
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            let index = Index(entry.index);
            let slot = self.log().slot(index).expect("committed entries are above the checkpoint");
            let (kind, descriptor, pointer) = (slot.kind, slot.descriptor, slot.pointer);
            let location = slot.placed.expect("committed entries are durable here").location;
            self.uncommitted_bytes -= u64::from(descriptor.length);
            if kind == EntryKind::Membership {
                self.change_membership(index, turn)?;
            }
            // Nobody else asks for the payload if there is nobody to send it to.
            let release = kind != EntryKind::Membership && self.is_alone();
            let payload = self.raw.mut_store().payload(index, release);
            let term = Term(entry.term);
            let committed_entry =
                Committed { index, term, kind, descriptor, payload, pointer, location };
            committed.push(committed_entry);
        }
        self.raw.advance_apply_to(last);
        turn.effects.calls.push((self.machine.clone(), Call::Committed(committed)));
        Ok(())
    }

    /// Applies a committed membership change, unless the membership recovered is past it. The
    /// record stands in the log before any vote that is given or won under the new membership.
    fn change_membership(&mut self, index: Index, turn: &mut Turn<'_>) -> Result<(), JournalError> {
        if index <= self.membership_index {
            return Ok(());
        }
        let slot = self.log().slot(index).expect("the entry is being delivered");
        let (term, data) = (slot.term, membership_data(slot));
        let change =
            ConfChangeV2::decode(data).expect("raft-rs has decoded it when it was proposed");
        match self.raw.apply_conf_change(&change) {
            Ok(membership) => self.membership = membership,
            Err(error) => {
                tracing::warn!(owner = %self.owner, %error, "membership change refused");
                return Ok(());
            }
        }
        self.membership_index = index;
        self.redraw(turn.random);
        let (owner, body) = (self.owner, self.membership.encode_to_vec());
        self.append(turn, RecordRef::Membership { owner, index, term, body: &[&body] })?;
        let state = HardState {
            term: Term(self.written.0),
            vote: ReplicaId(self.written.1),
            commit: index,
        };
        self.append(turn, RecordRef::HardState { owner, state })?;
        Ok(())
    }

    /// Writes a checkpoint: entries up to `index` are durable elsewhere. What is in memory of
    /// them goes when it is durable.
    pub fn checkpoint(
        &mut self,
        index: Index,
        term: Term,
        application: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<FrameNumber, JournalError> {
        let applied = self.raw.raft.raft_log.applied;
        assert!(index.0 <= applied, "checkpoint at {index}, applied {applied}");
        assert_eq!(self.log().term_of(index), Some(term), "term of the checkpoint at {index}");
        let head = self.head().encode();
        let owner = self.owner;
        let body: &[&[u8]] = &[&head, application];
        // It says nothing of entries that wait, and does not wait behind them.
        let record = RecordRef::Checkpoint { owner, index, term, body };
        let placed = turn.journal.append(record)?;
        self.touch(placed.frame, turn);
        self.checkpoints.push_back((placed.frame, index, term));
        Ok(placed.frame)
    }

    fn head(&self) -> RaftHead {
        let raft = &self.raw.raft;
        RaftHead {
            hard_state: HardState {
                term: Term(self.written.0),
                vote: ReplicaId(self.written.1),
                commit: Index(raft.raft_log.committed).min(self.last_placed()),
            },
            membership_index: self.membership_index,
            membership: self.membership.clone(),
        }
    }

    // Getters and helpers.

    pub fn status(&self) -> Status {
        let raft = &self.raw.raft;
        Status {
            replica: self.owner.replica,
            term: self.announced.term,
            leader: self.announced.leader,
            is_leader: self.announced.is_leader,
            commit: Index(raft.raft_log.committed),
            applied: Index(raft.raft_log.applied),
            persisted: Index(raft.raft_log.persisted),
            first_index: self.log().first(),
            last_index: Index(raft.raft_log.last_index()),
            entries_in_memory: self.log().len(),
            uncommitted_bytes: self.uncommitted_bytes + self.pending_bytes,
            role: super::logger::role_name(raft.state),
            fence: None,
        }
    }

    pub fn term_of(&self, index: Index) -> Option<Term> {
        self.log().term_of(index)
    }

    pub fn membership(&self) -> &ConfState {
        &self.membership
    }

    fn log(&self) -> &GroupLog {
        self.raw.store()
    }

    /// What goes out of the messages of a Ready. Appends of a leadership that ended within this
    /// turn may name entries that are gone; losing them is as if the link had.
    fn outgoing(&self, messages: Vec<Message>) -> Vec<Outgoing> {
        let raft = &self.raw.raft;
        let stands = |message: &Message| {
            message.msg_type() != MessageType::MsgAppend
                || (raft.state == StateRole::Leader && raft.term == message.term)
        };
        let split = |message| transport::split_append(message, self.message_max_bytes);
        let outgoing = |message: Message| Outgoing {
            from: self.owner,
            payloads: message.entries.iter().map(|entry| self.payload_to_send(entry)).collect(),
            message,
        };
        let standing = messages.into_iter().filter(stands).map(|message| self.rejoin(message));
        standing.flat_map(split).map(outgoing).collect()
    }

    /// With `batch_append` raft-rs adds entries to an append that waits to be sent, and takes one
    /// without entries for a match wherever it stands: after a rejection the entries may begin
    /// far below it. The append then says that they follow an entry that they do not follow, and
    /// the follower panics. What they do follow is known here.
    fn rejoin(&self, mut message: Message) -> Message {
        if let Some(first) = message.entries.first() {
            let before = Index(first.index - 1);
            if message.index != before.0 {
                let term = self.log().term_of(before).expect("entries to send are in the log");
                (message.index, message.log_term) = (before.0, term.0);
            }
        }
        message
    }

    fn payload_to_send(&self, entry: &Entry) -> OutgoingPayload {
        let nothing = OutgoingPayload::Memory(Vec::new());
        if entry.entry_type() != EntryType::EntryNormal || entry.data.is_empty() {
            return nothing;
        }
        let slot = self.log().slot(Index(entry.index)).expect("raft-rs sends what it has stored");
        match &slot.payload {
            _ if slot.descriptor.length == 0 => nothing,
            SlotPayload::Gathered(slices) => OutgoingPayload::Memory(slices.clone()),
            SlotPayload::Durable(bytes) => OutgoingPayload::Memory(vec![bytes.clone()]),
            SlotPayload::Logged { .. } => OutgoingPayload::Wal(Index(entry.index)),
        }
    }
}

/// Sends now, or holds messages until `record` is durable.
fn send_with(
    record: Option<RecordNumber>,
    messages: Vec<Outgoing>,
    held: &mut Vec<(RecordNumber, Outgoing)>,
    effects: &mut Effects,
) {
    match record {
        Some(record) => held.extend(messages.into_iter().map(|message| (record, message))),
        None => effects.messages.extend(messages),
    }
}

fn config(replica: ReplicaId, applied: Index, options: &DriverOptions) -> Config {
    Config {
        id: replica.0,
        applied: applied.0,
        election_tick: options.election_ticks,
        heartbeat_tick: options.heartbeat_ticks,
        max_size_per_msg: options.message_max_bytes,
        max_inflight_msgs: options.messages_in_flight_max,
        check_quorum: true,
        pre_vote: true,
        skip_bcast_commit: true,
        batch_append: true,
        ..Config::default()
    }
}
