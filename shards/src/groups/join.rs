//! Joining: newcomers, returning members, static members that come back under a new id, and the
//! rebalance that makes one generation of them (KIP-62, KIP-345, KIP-394, KIP-814). Part of the
//! coordinator; pure.
//!
//! Departures from Kafka: a join that the same member repeats on another connection is answered
//! with REBALANCE_IN_PROGRESS (Kafka never answers it); a static member that stayed silent through
//! a rebalance is kept until its session ends, and not dropped for missing the sync.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::alarms::{Alarm, AlarmKey};
use super::coordinator::Turn;
use super::group::{duration, InitialDelay, Member, State};
use super::types::*;

/// `-` and a UUID.
pub(super) const MEMBER_ID_SUFFIX_BYTES: usize = 37;

/// The least time between two looks at a group of which nobody joined again.
const POSTPONE_MIN: Duration = Duration::from_secs(1);

impl Turn<'_> {
    pub(super) fn join(&mut self, token: Token, mut request: Join) {
        keep_first_of_each_name(&mut request.protocols);
        if !self.has_room_for(&request.member_id) {
            self.expel(&request.member_id);
            return self.refuse_join(token, "", GroupError::GroupMaxSizeReached);
        }
        if !self.group.supports(&request.protocol_type, &request.protocols) {
            let error = GroupError::InconsistentGroupProtocol;
            return self.refuse_join(token, &request.member_id, error);
        }
        match request.member_id.is_empty() {
            true => self.join_newcomer(token, request),
            false => self.join_known(token, request),
        }
    }

    fn refuse_join(&mut self, token: Token, member_id: &str, error: GroupError) {
        self.out.answers.push(Answer::Join(token, JoinAnswer::error(member_id, error)));
    }

    /// While preparing, those who wait already count, so that the last to come back go; else all
    /// members do.
    fn has_room_for(&self, member_id: &str) -> bool {
        let member = self.group.members().get(member_id);
        match self.group.state() {
            State::Empty => true,
            State::Preparing { .. } => {
                member.is_some_and(|member| member.waiting().0.is_some())
                    || self.group.waiting_joins() < self.config.max_size
            }
            State::Completing | State::Stable => {
                member.is_some() || self.group.members().len() < self.config.max_size
            }
        }
    }

    /// Removes a member that found no room, if it was one.
    fn expel(&mut self, member_id: &str) {
        if let Some(mut alarm) = self.group.pending.remove(member_id) {
            self.alarms.cancel(&mut alarm);
        }
        self.remove_member(member_id);
        self.complete_if_all_joined();
    }

    fn join_newcomer(&mut self, token: Token, request: Join) {
        let member_id = self.new_member_id(&request);
        let known = request.instance_id.as_deref().and_then(|id| self.group.static_member(id));
        if let Some(old_id) = known {
            return self.join_returning_static(token, request, &old_id, member_id);
        }
        if request.instance_id.is_none() && request.member_id_required {
            let due = self.now.mono + duration(request.session_timeout_ms);
            let mut alarm = Alarm::default();
            let key = || AlarmKey::Session(self.group.id.clone(), member_id.clone());
            self.alarms.set(&mut alarm, due, key);
            self.group.pending.insert(member_id.clone(), alarm);
            return self.refuse_join(token, &member_id, GroupError::MemberIdRequired);
        }
        self.add_member(token, request, member_id);
    }

    /// `<client id>-<uuid>`, for a static member `<instance id>-<uuid>`.
    fn new_member_id(&mut self, request: &Join) -> Rc<str> {
        let name = request.instance_id.as_ref().unwrap_or(&request.client_id);
        let uuid = uuid::Builder::from_random_bytes((self.new_uuid)()).into_uuid();
        let room = super::coordinator::STRING_MAX_BYTES - MEMBER_ID_SUFFIX_BYTES;
        format!("{}-{uuid}", cut(name, room)).into()
    }

    fn join_known(&mut self, token: Token, request: Join) {
        let member_id: Rc<str> = request.member_id.as_str().into();
        // Ids are reserved for dynamic members only.
        if request.instance_id.is_none() && self.group.pending.contains_key(&member_id) {
            return self.add_member(token, request, member_id);
        }
        if let Err(error) = self.group.validate(&member_id, request.instance_id.as_deref()) {
            return self.refuse_join(token, &member_id, error);
        }
        let unchanged = self.group.members()[&member_id].protocols == request.protocols;
        match self.group.state() {
            // A leader may ask for a rebalance by joining: what it assigns may have changed.
            State::Completing if unchanged => self.join_again(token, &member_id),
            State::Stable if unchanged && !self.group.is_leader(&member_id) => {
                self.join_again(token, &member_id)
            }
            _ => {
                self.update_member(token, request, &member_id);
                self.rebalance();
            }
        }
    }

    /// Tells the current generation once more.
    fn join_again(&mut self, token: Token, member_id: &Rc<str>) {
        let answer = self.joined(member_id);
        self.heard_from(member_id);
        self.out.answers.push(Answer::Join(token, answer));
    }

    fn add_member(&mut self, token: Token, request: Join, member_id: Rc<str>) {
        if let Some(mut alarm) = self.group.pending.remove(&member_id) {
            self.alarms.cancel(&mut alarm);
        }
        let client_id = cut(&request.client_id, super::coordinator::STRING_MAX_BYTES).to_owned();
        let timeouts =
            (duration(request.rebalance_timeout_ms), duration(request.session_timeout_ms));
        let member = Member::new(
            request.instance_id,
            (client_id, request.client_host),
            timeouts,
            request.protocols,
        );
        if let State::Preparing { initial: Some(delay) } = self.group.state() {
            let initial = Some(InitialDelay { newcomer: true, ..delay });
            self.group.set_state(State::Preparing { initial }, self.now.wall_ms);
        }
        self.group.insert(member_id.clone(), &request.protocol_type, member);
        self.group.await_join(&member_id, token);
        self.set_session(&member_id, self.now.mono + self.config.new_member_timeout);
        self.rebalance();
    }

    fn update_member(&mut self, token: Token, request: Join, member_id: &Rc<str>) {
        self.group.set_protocols(member_id, request.protocols);
        let member = self.group.member_mut(member_id).expect("the caller found it");
        member.rebalance_timeout = duration(request.rebalance_timeout_ms);
        member.session_timeout = duration(request.session_timeout_ms);
        if let Some(before) = self.group.await_join(member_id, token) {
            self.refuse_join(before, member_id, GroupError::RebalanceInProgress);
        }
    }

    /// KIP-345: the instance is known, its member id is not. The newcomer takes its place, and
    /// whoever still waits under the old id is fenced.
    fn join_returning_static(
        &mut self,
        token: Token,
        request: Join,
        old_id: &Rc<str>,
        new_id: Rc<str>,
    ) {
        let was_leader = self.group.leader.clone();
        let can_skip_assignment = request.can_skip_assignment;
        let old = self.group.member_mut(old_id).expect("statics name members");
        self.alarms.cancel(&mut old.session);
        let (join, sync) = self.group.rename(old_id, new_id.clone());
        if let Some(token) = join {
            self.refuse_join(token, old_id, GroupError::FencedInstanceId);
        }
        if let Some(token) = sync {
            let answer = SyncAnswer::error(GroupError::FencedInstanceId);
            self.out.answers.push(Answer::Sync(token, answer));
        }
        self.update_member(token, request, &new_id);
        self.heard_from(&new_id);
        match self.group.state() {
            State::Stable if self.group.elect_protocol() == self.group.protocol => {
                self.store();
                self.group.end_join(&new_id);
                let mut answer = self.joined(&new_id);
                if can_skip_assignment {
                    answer.skip_assignment = self.group.is_leader(&new_id);
                } else {
                    answer.members.clear();
                    answer.leader = was_leader.map(|id| id.to_string()).unwrap_or_default();
                }
                self.out.answers.push(Answer::Join(token, answer));
            }
            // While the leader assigns, it would assign to the old id.
            _ => self.rebalance(),
        }
    }

    /// Begins a rebalance, or ends the join phase of the one that runs.
    pub(super) fn rebalance(&mut self) {
        match self.group.state() {
            State::Preparing { .. } => self.complete_if_all_joined(),
            State::Completing => {
                self.interrupt_sync();
                self.prepare();
            }
            State::Empty => self.prepare_first(),
            State::Stable => self.prepare(),
        }
    }

    pub(super) fn complete_if_all_joined(&mut self) {
        let waits_for_all = self.group.state() == State::Preparing { initial: None };
        if waits_for_all && self.group.all_joined() {
            self.complete_join();
        }
    }

    /// The first rebalance of an empty group leaves time for others to arrive.
    fn prepare_first(&mut self) {
        let delay = self.config.initial_rebalance_delay;
        let remaining = self.group.rebalance_timeout().saturating_sub(delay);
        let initial = Some(InitialDelay { newcomer: false, delay, remaining });
        self.group.set_state(State::Preparing { initial }, self.now.wall_ms);
        match delay.is_zero() {
            true => self.complete_join(),
            false => self.set_join_alarm(delay),
        }
    }

    fn prepare(&mut self) {
        self.alarms.cancel(&mut self.group.sync_alarm);
        for member_id in self.group.member_ids() {
            self.group.member_mut(&member_id).expect("listed").must_sync = false;
        }
        self.group.set_state(State::Preparing { initial: None }, self.now.wall_ms);
        match self.group.all_joined() {
            true => self.complete_join(),
            false => self.set_join_alarm(self.group.rebalance_timeout()),
        }
    }

    fn set_join_alarm(&mut self, after: Duration) {
        let key = || AlarmKey::Join(self.group.id.clone());
        self.alarms.set(&mut self.group.join_alarm, self.now.mono + after, key);
    }

    pub(super) fn join_time_is_up(&mut self) {
        let State::Preparing { initial } = self.group.state() else { return };
        match initial {
            Some(InitialDelay { newcomer: true, delay, remaining }) if !remaining.is_zero() => {
                let next = self.config.initial_rebalance_delay.min(remaining);
                let initial = Some(InitialDelay {
                    newcomer: false,
                    delay: next,
                    remaining: remaining.saturating_sub(delay),
                });
                self.group.set_state(State::Preparing { initial }, self.now.wall_ms);
                self.set_join_alarm(next);
            }
            _ => self.complete_join(),
        }
    }

    /// Ends the join phase: whoever did not come, and is not static, is no member any more.
    fn complete_join(&mut self) {
        self.alarms.cancel(&mut self.group.join_alarm);
        for member_id in self.group.member_ids() {
            let member = &self.group.members()[&member_id];
            if member.waiting().0.is_none() && member.instance_id.is_none() {
                self.remove_member(&member_id);
            }
        }
        if !self.group.elect_joined_leader() && !self.group.members().is_empty() {
            // Only silent static members are left. Their sessions end, or one of them joins.
            let again = self.group.rebalance_timeout().max(POSTPONE_MIN);
            return self.set_join_alarm(again);
        }
        self.group.next_generation(self.now.wall_ms);
        if self.group.state() == State::Empty {
            return self.store();
        }
        for member_id in self.group.member_ids() {
            let Some(token) = self.group.end_join(&member_id) else { continue };
            let member = self.group.member_mut(&member_id).expect("listed");
            member.is_new = false;
            member.must_sync = true;
            self.heard_from(&member_id);
            let answer = self.joined(&member_id);
            self.out.answers.push(Answer::Join(token, answer));
        }
        let due = self.now.mono + self.group.rebalance_timeout();
        let key = || AlarmKey::Sync(self.group.id.clone());
        self.alarms.set(&mut self.group.sync_alarm, due, key);
    }

    /// The current generation, as this member is told of it.
    fn joined(&self, member_id: &str) -> JoinAnswer {
        let members = match self.group.is_leader(member_id) {
            true => self.group.joined_members(),
            false => Vec::new(),
        };
        JoinAnswer {
            error: None,
            generation: self.group.generation,
            protocol_type: self.group.protocol_type.clone(),
            protocol: self.group.protocol.clone(),
            leader: self.group.leader.as_ref().map(|id| id.to_string()).unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members,
        }
    }
}

/// A protocol named twice counts once.
fn keep_first_of_each_name(protocols: &mut Vec<(String, Bytes)>) {
    let mut seen = std::collections::BTreeSet::new();
    protocols.retain(|(name, _)| seen.insert(name.clone()));
}

/// At most `max_bytes` of the text, whole characters.
fn cut(text: &str, max_bytes: usize) -> &str {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
