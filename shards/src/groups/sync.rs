//! After the join phase: the leader's assignment, heartbeats, leaving, and members that fall
//! silent. Part of the coordinator; pure.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::coordinator::Turn;
use super::group::State;
use super::types::*;

impl Turn<'_> {
    pub(super) fn sync(&mut self, token: Token, request: Sync) {
        if let Err(error) = self.check_sync(&request) {
            return self.refuse_sync(token, error);
        }
        let member_id: Rc<str> = request.member_id.as_str().into();
        self.has_synced(&member_id);
        if self.group.state() == State::Stable {
            self.heard_from(&member_id);
            return self.tell_assignment(token, &member_id);
        }
        if let Some(before) = self.group.await_sync(&member_id, token) {
            self.refuse_sync(before, GroupError::RebalanceInProgress);
        }
        if self.group.is_leader(&member_id) {
            self.assign(request.assignments);
        }
    }

    fn check_sync(&self, request: &Sync) -> Result<(), GroupError> {
        self.group.validate(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.group.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |given: &Option<String>, own: &Option<String>| {
            given.is_some() && given.as_deref() != own.as_deref()
        };
        if differs(&request.protocol_type, &self.group.protocol_type)
            || differs(&request.protocol, &self.group.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match self.group.state() {
            State::Empty => Err(GroupError::UnknownMemberId),
            State::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            State::Completing | State::Stable => Ok(()),
        }
    }

    fn refuse_sync(&mut self, token: Token, error: GroupError) {
        self.out.answers.push(Answer::Sync(token, SyncAnswer::error(error)));
    }

    fn has_synced(&mut self, member_id: &str) {
        self.group.member_mut(member_id).expect("validated").must_sync = false;
        if !self.group.members().values().any(|member| member.must_sync) {
            self.alarms.cancel(&mut self.group.sync_alarm);
        }
    }

    fn tell_assignment(&mut self, token: Token, member_id: &str) {
        let answer = SyncAnswer {
            error: None,
            protocol_type: self.group.protocol_type.clone(),
            protocol: self.group.protocol.clone(),
            assignment: self.group.members()[member_id].assignment.clone(),
        };
        self.out.answers.push(Answer::Sync(token, answer));
    }

    /// The leader has decided. Whoever it left out gets nothing.
    fn assign(&mut self, assignments: Vec<(String, Bytes)>) {
        let mut assignments: BTreeMap<String, Bytes> = assignments.into_iter().collect();
        for member_id in self.group.member_ids() {
            let assignment = assignments.remove(&*member_id).unwrap_or_default();
            self.group.member_mut(&member_id).expect("listed").assignment = assignment;
        }
        self.group.set_state(State::Stable, self.now.wall_ms);
        self.store();
        for member_id in self.group.member_ids() {
            if let Some(token) = self.group.end_sync(&member_id) {
                self.heard_from(&member_id);
                self.tell_assignment(token, &member_id);
            }
        }
    }

    /// A rebalance begins before the leader has assigned.
    pub(super) fn interrupt_sync(&mut self) {
        for member_id in self.group.member_ids() {
            self.group.member_mut(&member_id).expect("listed").assignment = Bytes::new();
            if let Some(token) = self.group.end_sync(&member_id) {
                self.heard_from(&member_id);
                self.refuse_sync(token, GroupError::RebalanceInProgress);
            }
        }
    }

    /// Who was told the generation and did not sync is dropped.
    pub(super) fn sync_time_is_up(&mut self) {
        let late = |member_id: &Rc<str>| self.group.members()[member_id].must_sync;
        let late: Vec<Rc<str>> = self.group.member_ids().into_iter().filter(late).collect();
        if late.is_empty() {
            return;
        }
        for member_id in late {
            self.remove_member(&member_id);
        }
        self.rebalance();
    }

    pub(super) fn heartbeat(&mut self, request: &Heartbeat) -> Result<(), GroupError> {
        self.group.validate(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.group.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.heard_from(&request.member_id.as_str().into());
        match self.group.state() {
            State::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    pub(super) fn leave(&mut self, members: &[Leaving]) -> Vec<Result<(), GroupError>> {
        let before = self.group.members().len();
        let outcome = members.iter().map(|member| self.leave_one(member)).collect();
        match self.group.members().len() < before {
            true => self.rebalance(),
            // A newcomer that was waited for may have gone.
            false => self.complete_if_all_joined(),
        }
        outcome
    }

    fn leave_one(&mut self, leaving: &Leaving) -> Result<(), GroupError> {
        let instance_id = leaving.instance_id.as_deref();
        if leaving.member_id.is_empty() {
            let member_id = instance_id.and_then(|id| self.group.static_member(id));
            self.remove_member(&member_id.ok_or(GroupError::UnknownMemberId)?);
            return Ok(());
        }
        if let Some(mut alarm) = self.group.pending.remove(leaving.member_id.as_str()) {
            self.alarms.cancel(&mut alarm);
            return Ok(());
        }
        self.group.validate(&leaving.member_id, instance_id)?;
        self.remove_member(&leaving.member_id);
        Ok(())
    }

    /// Nothing was heard from a member, or an id given out was not used. A request in flight keeps
    /// a member alive; but of a newcomer nobody knows whether it still waits.
    pub(super) fn session_ended(&mut self, member_id: &Rc<str>) {
        if self.group.pending.remove(member_id).is_some() {
            return self.complete_if_all_joined();
        }
        let member = &self.group.members()[member_id];
        if member.is_waiting() && !member.is_new {
            return;
        }
        self.remove_member(member_id);
        self.rebalance();
    }

    /// Takes a member out and answers what it waited for; the caller sees to the group.
    pub(super) fn remove_member(&mut self, member_id: &str) {
        let Some(mut member) = self.group.remove(member_id) else { return };
        self.alarms.cancel(&mut member.session);
        let (join, sync) = member.waiting();
        if let Some(token) = join {
            let answer = JoinAnswer::error("", GroupError::UnknownMemberId);
            self.out.answers.push(Answer::Join(token, answer));
        }
        if let Some(token) = sync {
            self.refuse_sync(token, GroupError::UnknownMemberId);
        }
    }
}
