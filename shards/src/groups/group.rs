//! One group: its members, its generation, its committed offsets, and the bookkeeping that keeps
//! them consistent. Data and small rules only; what events do to a group stands in `join`, `sync`,
//! `leave` and `offsets`. Pure; it lives inside its coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;

use super::alarms::Alarm;
use super::records::{GroupValue, MemberValue, OffsetValue};
use super::subscription;
use super::types::{GroupError, JoinedMember, Token};

/// The protocol type whose members subscribe to topics in a form that the broker can read.
const CONSUMER: &str = "consumer";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No members: nothing, or offsets only.
    Empty,
    /// Members are asked to join again, and are waited for.
    Preparing {
        /// Set when the group was empty before (`group.initial.rebalance.delay.ms`).
        initial: Option<InitialDelay>,
    },
    /// The generation is known; the leader's assignment is awaited.
    Completing,
    Stable,
}

/// The delay of a first rebalance, prolonged by newcomers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InitialDelay {
    pub(super) newcomer: bool,
    /// The delay running now.
    pub(super) delay: Duration,
    /// How much longer newcomers may prolong it.
    pub(super) remaining: Duration,
}

impl State {
    /// Kafka's name for it; a group that does not exist is "Dead".
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Preparing { .. } => "PreparingRebalance",
            State::Completing => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout: Duration,
    pub(super) session_timeout: Duration,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// Its first join has not been answered, so it knows no id to send heartbeats with.
    pub(super) is_new: bool,
    /// It was told the generation and has not synced yet.
    pub(super) must_sync: bool,
    pub(super) session: Alarm,
    /// Waiting requests. Private: the group counts the joins.
    join: Option<Token>,
    sync: Option<Token>,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: Rc<str>,
    state: State,
    /// Wall clock of the last change of state; -1 if unknown.
    pub(super) state_since_ms: i64,
    /// None: only keeps offsets.
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) generation: i32,
    /// A key of `members`; None exactly when there are none.
    pub(super) leader: Option<Rc<str>>,
    /// In order of joining.
    members: IndexMap<Rc<str>, Member>,
    /// Instance id to member id; the values are keys of `members`.
    statics: BTreeMap<String, Rc<str>>,
    /// How many members support a protocol.
    supported: BTreeMap<String, usize>,
    /// Members with a waiting join: joins <= members.len().
    joins: usize,
    /// Ids given out and not used yet (KIP-394). Disjoint from `members`.
    pub(super) pending: BTreeMap<Rc<str>, Alarm>,
    pub(super) join_alarm: Alarm,
    pub(super) sync_alarm: Alarm,
    /// Topics that the members of this generation read; None if that cannot be known.
    subscribed: Option<BTreeSet<String>>,
    /// Committed offsets; no topic without partitions.
    pub(super) offsets: BTreeMap<String, BTreeMap<i32, OffsetValue>>,
    /// The group's last record in the log.
    pub(super) stored: Option<GroupValue>,
}

impl Group {
    pub(super) fn new(id: Rc<str>) -> Group {
        Group {
            id,
            state: State::Empty,
            state_since_ms: -1,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: IndexMap::new(),
            statics: BTreeMap::new(),
            supported: BTreeMap::new(),
            joins: 0,
            pending: BTreeMap::new(),
            join_alarm: Alarm::default(),
            sync_alarm: Alarm::default(),
            subscribed: None,
            offsets: BTreeMap::new(),
            stored: None,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn set_state(&mut self, state: State, wall_ms: i64) {
        self.state = state;
        self.state_since_ms = wall_ms;
    }

    /// Whether it can be forgotten without a word: nobody has it, and the log does not know it.
    pub(super) fn is_vacant(&self) -> bool {
        self.is_deserted() && self.stored.is_none()
    }

    /// No members, none expected, no offsets.
    pub(super) fn is_deserted(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty() && self.offsets.is_empty()
    }

    pub(super) fn members(&self) -> &IndexMap<Rc<str>, Member> {
        &self.members
    }

    pub(super) fn member_mut(&mut self, member_id: &str) -> Option<&mut Member> {
        self.members.get_mut(member_id)
    }

    pub(super) fn member_ids(&self) -> Vec<Rc<str>> {
        self.members.keys().cloned().collect()
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub(super) fn static_member(&self, instance_id: &str) -> Option<Rc<str>> {
        self.statics.get(instance_id).cloned()
    }

    /// Checks that a request speaks for a member: the fenced one is told so before anything else.
    pub(super) fn validate(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.statics.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(owner) if &**owner != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        match self.members.contains_key(member_id) {
            true => Ok(()),
            false => Err(GroupError::UnknownMemberId),
        }
    }

    /// Whether a newcomer or a returning member fits the others.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let all = self.members.len();
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.supported.get(name) == Some(&all))
    }

    /// The first member leads, and gives an empty group its type.
    pub(super) fn insert(&mut self, member_id: Rc<str>, protocol_type: &str, member: Member) {
        debug_assert!(member.join.is_none() && member.sync.is_none());
        self.pending.remove(&member_id);
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.to_owned());
        }
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), member_id.clone());
        }
        self.count_protocols(&member.protocols, true);
        self.leader.get_or_insert_with(|| member_id.clone());
        let before = self.members.insert(member_id, member);
        assert!(before.is_none(), "member ids are unique");
    }

    /// Takes a member out; its alarm and waiting requests are the caller's to settle.
    pub(super) fn remove(&mut self, member_id: &str) -> Option<Member> {
        let (_, id, member) = self.members.shift_remove_full(member_id)?;
        self.joins -= usize::from(member.join.is_some());
        self.count_protocols(&member.protocols, false);
        if let Some(instance_id) = &member.instance_id {
            self.statics.remove(instance_id);
        }
        if self.leader.as_ref() == Some(&id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// A static member came back under a new id: it keeps place, assignment and leadership.
    /// Gives the requests that waited under the old id; its alarm must be cancelled before.
    pub(super) fn rename(&mut self, old: &str, new: Rc<str>) -> (Option<Token>, Option<Token>) {
        let (place, old, mut member) =
            self.members.shift_remove_full(old).expect("statics name members");
        let waiting = (member.join.take(), member.sync.take());
        self.joins -= usize::from(waiting.0.is_some());
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), new.clone());
        }
        if self.leader.as_ref() == Some(&old) {
            self.leader = Some(new.clone());
        }
        self.members.shift_insert(place, new, member);
        waiting
    }

    pub(super) fn set_protocols(&mut self, member_id: &str, protocols: Vec<(String, Bytes)>) {
        let member = self.members.get_mut(member_id).expect("the caller found it");
        let before = std::mem::replace(&mut member.protocols, protocols.clone());
        self.count_protocols(&before, false);
        self.count_protocols(&protocols, true);
    }

    fn count_protocols(&mut self, protocols: &[(String, Bytes)], more: bool) {
        for (name, _) in protocols {
            let count = self.supported.entry(name.clone()).or_insert(0);
            if more {
                *count += 1;
            } else {
                *count -= 1;
                if *count == 0 {
                    self.supported.remove(name);
                }
            }
        }
    }

    /// Makes a member wait for the join phase to end; gives the request it waited with before.
    pub(super) fn await_join(&mut self, member_id: &str, token: Token) -> Option<Token> {
        let member = self.members.get_mut(member_id).expect("the caller found it");
        let before = member.join.replace(token);
        self.joins += usize::from(before.is_none());
        before
    }

    pub(super) fn end_join(&mut self, member_id: &str) -> Option<Token> {
        let token = self.members.get_mut(member_id)?.join.take();
        self.joins -= usize::from(token.is_some());
        token
    }

    pub(super) fn await_sync(&mut self, member_id: &str, token: Token) -> Option<Token> {
        self.members.get_mut(member_id).expect("the caller found it").sync.replace(token)
    }

    pub(super) fn end_sync(&mut self, member_id: &str) -> Option<Token> {
        self.members.get_mut(member_id)?.sync.take()
    }

    pub(super) fn waiting_joins(&self) -> usize {
        self.joins
    }

    pub(super) fn all_joined(&self) -> bool {
        self.joins == self.members.len() && self.pending.is_empty()
    }

    /// The longest any member may take to join again; zero without members.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    /// A leader among those who joined; false if there is none.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let joined = |member: &Member| member.join.is_some();
        if self.leader.as_ref().and_then(|id| self.members.get(id)).is_some_and(joined) {
            return true;
        }
        let first = self.members.iter().find(|(_, member)| joined(member));
        match first {
            Some((id, _)) => {
                self.leader = Some(id.clone());
                true
            }
            None => false,
        }
    }

    /// Each member votes for its favourite among those that all support. A tie goes to the one
    /// the leader prefers.
    pub(super) fn elect_protocol(&self) -> Option<String> {
        let all = self.members.len();
        let is_common = |name: &str| self.supported.get(name) == Some(&all);
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let favourite = member.protocols.iter().find(|(name, _)| is_common(name));
            if let Some((name, _)) = favourite {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id))?;
        let winner = leader.protocols.iter().find(|(name, _)| votes.get(&**name) == Some(&most));
        // The leader supports every common protocol.
        winner.map(|(name, _)| name.clone())
    }

    /// Begins the next generation of those who are members now.
    pub(super) fn next_generation(&mut self, wall_ms: i64) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.elect_protocol();
        let state = if self.members.is_empty() { State::Empty } else { State::Completing };
        self.set_state(state, wall_ms);
        self.note_subscriptions();
    }

    pub(super) fn note_subscriptions(&mut self) {
        self.subscribed = None;
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            match subscription::topics(&member.metadata(self.protocol.as_deref())) {
                Ok(subscribed) => topics.extend(subscribed),
                Err(_) => return,
            }
        }
        self.subscribed = Some(topics);
    }

    /// A consumer group whose subscriptions cannot be read counts as reading everything.
    pub(super) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.protocol_type.as_deref() == Some(CONSUMER),
        }
    }

    pub(super) fn knows_subscriptions(&self) -> bool {
        self.subscribed.is_some()
    }

    pub(super) fn is_consumer_group(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    pub(super) fn joined_members(&self) -> Vec<JoinedMember> {
        let shown = |(id, member): (&Rc<str>, &Member)| JoinedMember {
            member_id: id.to_string(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(self.protocol.as_deref()),
        };
        self.members.iter().map(shown).collect()
    }

    /// The group as its next record says it.
    pub(super) fn value(&self) -> GroupValue {
        let members = self.members.iter().map(|(id, member)| MemberValue {
            member_id: id.to_string(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: millis(member.rebalance_timeout),
            session_timeout_ms: millis(member.session_timeout),
            subscription: member.metadata(self.protocol.as_deref()),
            assignment: member.assignment.clone(),
        });
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.as_ref().map(|id| id.to_string()),
            state_timestamp: self.state_since_ms,
            members: members.collect(),
        }
    }

    /// Takes over what the log says; sessions are the caller's to start. A record whose leader
    /// is no member gets the first member as leader.
    pub(super) fn restore(&mut self, value: GroupValue) {
        self.members.clear();
        self.statics.clear();
        self.supported.clear();
        self.leader = None;
        for member in &value.members {
            if self.members.contains_key(member.member_id.as_str()) {
                continue;
            }
            let protocol = value.protocol.clone().unwrap_or_default();
            let restored = Member::restored(member, protocol);
            self.insert(member.member_id.as_str().into(), &value.protocol_type, restored);
        }
        if let Some(leader) = value.leader.as_deref() {
            if let Some((id, _)) = self.members.get_key_value(leader) {
                self.leader = Some(id.clone());
            }
        }
        self.protocol_type = Some(value.protocol_type.clone()).filter(|name| !name.is_empty());
        self.protocol = value.protocol.clone();
        self.generation = value.generation;
        self.state_since_ms = value.state_timestamp;
        self.state = if self.members.is_empty() { State::Empty } else { State::Stable };
        self.note_subscriptions();
        self.stored = Some(value);
    }
}

impl Member {
    pub(super) fn new(
        instance_id: Option<String>,
        client: (String, String),
        timeouts: (Duration, Duration),
        protocols: Vec<(String, Bytes)>,
    ) -> Member {
        let (client_id, client_host) = client;
        let (rebalance_timeout, session_timeout) = timeouts;
        Member {
            instance_id,
            client_id,
            client_host,
            rebalance_timeout,
            session_timeout,
            protocols,
            assignment: Bytes::new(),
            is_new: true,
            must_sync: false,
            session: Alarm::default(),
            join: None,
            sync: None,
        }
    }

    fn restored(value: &MemberValue, protocol: String) -> Member {
        let mut member = Member::new(
            value.instance_id.clone(),
            (value.client_id.clone(), value.client_host.clone()),
            (duration(value.rebalance_timeout_ms), duration(value.session_timeout_ms)),
            vec![(protocol, value.subscription.clone())],
        );
        member.assignment = value.assignment.clone();
        member.is_new = false;
        member
    }

    pub(super) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let chosen = self.protocols.iter().find(|(name, _)| Some(name.as_str()) == protocol);
        chosen.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// The requests a removed member waited with: join and sync.
    pub(super) fn waiting(&self) -> (Option<Token>, Option<Token>) {
        (self.join, self.sync)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.join.is_some() || self.sync.is_some()
    }
}

/// Negative timeouts count as none.
pub(super) fn duration(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
