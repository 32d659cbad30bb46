//! The coordinator of the groups of one partition of `__consumer_offsets`: a synchronous state
//! machine of the classic group protocol and of committed offsets. The heart of `groups`; it lives
//! on the shard that leads the partition.
//!
//! **Events** take the time as an argument and return their answer: [`Coordinator::heartbeat`],
//! [`leave`](Coordinator::leave), [`commit`](Coordinator::commit), the deletions, and
//! [`tick`](Coordinator::tick), which the owner calls when [`next_alarm`](Coordinator::next_alarm)
//! has come. [`join`](Coordinator::join) and [`sync`](Coordinator::sync) may wait: they are
//! answered under their token. **Actions** are collected: after every event the owner takes them
//! with [`take_output`](Coordinator::take_output). **Getters** change nothing.
//!
//! State changes when the event happens, before its records are in the log. So no answer may leave
//! until all records given out up to then are committed; and if an append fails, the owner drops
//! the coordinator and loads another from the log. Loading: [`replay`](Coordinator::replay) each
//! record, then [`loaded`](Coordinator::loaded) once. What the log holds is then exactly
//! [`live_records`](Coordinator::live_records) of the coordinator that wrote it.
//!
//! It reads no clock, draws no random number, and iterates in the order of ids or of joining.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use rt::Instant;

use super::alarms::{AlarmKey, Alarms};
use super::group::Group;
use super::records::{OffsetKey, Record};
use super::types::*;

/// The broker's settings for groups; Kafka's names, and its defaults but for the delay, which is
/// the 0 of its shipped server.properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupsConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`
    pub max_size: usize,
    /// How long a newcomer may wait for its first answer. Nobody can tell whether it still waits:
    /// it knows no id to send heartbeats with.
    pub new_member_timeout: Duration,
    /// `offset.metadata.max.bytes`, counted like Kafka in UTF-16 units.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub retention_check_interval: Duration,
}

impl Default for GroupsConfig {
    fn default() -> GroupsConfig {
        GroupsConfig {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay: Duration::ZERO,
            max_size: usize::MAX,
            new_member_timeout: Duration::from_secs(300),
            offset_metadata_max: 4096,
            offsets_retention_ms: 10_080 * 60_000,
            retention_check_interval: Duration::from_secs(600),
        }
    }
}

/// The longest string that a record can hold.
pub(super) const STRING_MAX_BYTES: usize = i16::MAX as usize;

/// What a record takes beside its key and value: lengths, deltas, and its part of a header.
const RECORD_BYTES: u64 = 16;

/// Sixteen random bytes for a member id.
pub type UuidSource = Box<dyn FnMut() -> [u8; 16]>;

pub struct Coordinator {
    pub(super) config: GroupsConfig,
    pub(super) groups: BTreeMap<Rc<str>, Group>,
    pub(super) alarms: Alarms,
    pub(super) out: Output,
    new_uuid: UuidSource,
}

/// One group during one event, with all it may touch.
pub(super) struct Turn<'a> {
    pub(super) group: &'a mut Group,
    pub(super) alarms: &'a mut Alarms,
    pub(super) out: &'a mut Output,
    pub(super) config: &'a GroupsConfig,
    pub(super) new_uuid: &'a mut UuidSource,
    pub(super) now: Now,
}

impl Coordinator {
    pub fn new(config: GroupsConfig, new_uuid: UuidSource) -> Coordinator {
        let (groups, alarms, out) = (BTreeMap::new(), Alarms::default(), Output::default());
        Coordinator { config, groups, alarms, out, new_uuid }
    }

    /// Takes effect with the next event.
    pub fn set_config(&mut self, config: GroupsConfig) {
        self.config = config;
    }

    /// A record of the log, in order; before [`loaded`](Self::loaded).
    pub fn replay(&mut self, record: Record) {
        match record {
            Record::Offset(OffsetKey { group, topic, partition }, Some(value)) => {
                let group = self.group_or_new(&group);
                group.offsets.entry(topic).or_default().insert(partition, value);
            }
            Record::Offset(OffsetKey { group, topic, partition }, None) => {
                if let Some(found) = self.groups.get_mut(group.as_str()) {
                    found.forget_offset(&topic, partition);
                }
                self.drop_if_vacant(&group);
            }
            Record::Group(group, Some(value)) => self.group_or_new(&group).restore(value),
            Record::Group(group, None) => {
                if let Some(found) = self.groups.remove(group.as_str()) {
                    let mut bare = Group::new(found.id);
                    bare.offsets = found.offsets;
                    self.groups.insert(bare.id.clone(), bare);
                }
                self.drop_if_vacant(&group);
            }
        }
    }

    /// The log is read to its end: sessions begin, and a group that outgrew `group.max.size`
    /// rebalances.
    pub fn loaded(&mut self, now: Now) {
        let ids: Vec<Rc<str>> = self.groups.keys().cloned().collect();
        for id in ids {
            let mut turn = self.turn(&id, now).expect("listed");
            for member_id in turn.group.member_ids() {
                turn.heard_from(&member_id);
            }
            if turn.group.members().len() > turn.config.max_size {
                turn.rebalance();
            }
        }
    }

    /// When the owner has to call [`tick`](Self::tick), if no other event comes before.
    pub fn next_alarm(&self) -> Option<Instant> {
        self.alarms.next()
    }

    /// Handles all alarms that are due.
    pub fn tick(&mut self, now: Now) {
        while let Some(key) = self.alarms.pop(now.mono) {
            let group = match &key {
                AlarmKey::Session(group, _) | AlarmKey::Join(group) | AlarmKey::Sync(group) => {
                    group.clone()
                }
            };
            if let Some(mut turn) = self.turn(&group, now) {
                turn.alarm(key);
            }
            self.drop_if_vacant(&group);
        }
    }

    /// Records to append and answers to give since the last call.
    pub fn take_output(&mut self) -> Output {
        std::mem::take(&mut self.out)
    }

    /// The records that make this state, groups by id: what compaction has to keep. It is the
    /// fold of all records given out so far, and holds nothing of what only memory knows.
    pub fn live_records(&self) -> impl Iterator<Item = Record> + '_ {
        self.groups.values().flat_map(Group::live_records)
    }

    /// The live records of the groups after `group`, whole groups until there are `enough`; with
    /// the last group, unless there are no more.
    pub fn live_records_after(
        &self,
        group: Option<&str>,
        enough: usize,
    ) -> (Vec<Record>, Option<String>) {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut records = Vec::new();
        let after = group.map_or(Unbounded, Excluded);
        for group in self.groups.range::<str, _>((after, Unbounded)).map(|(_, group)| group) {
            records.extend(group.live_records());
            if records.len() >= enough {
                return (records, Some(group.id.to_string()));
            }
        }
        (records, None)
    }

    /// About how many bytes the live records take in a log.
    pub fn live_bytes(&self) -> u64 {
        let size = |record: Record| {
            let (key, value) = record.encode();
            key.len() as u64 + value.map_or(0, |value| value.len() as u64) + RECORD_BYTES
        };
        self.live_records().map(size).sum()
    }

    pub fn join(&mut self, now: Now, token: Token, request: Join) {
        if let Err(error) = self.check_join(&request) {
            let answer = JoinAnswer::error(&request.member_id, error);
            return self.out.answers.push(Answer::Join(token, answer));
        }
        let is_unknown = request.member_id.is_empty();
        if !is_unknown && !self.groups.contains_key(request.group.as_str()) {
            let answer = JoinAnswer::error(&request.member_id, GroupError::UnknownMemberId);
            return self.out.answers.push(Answer::Join(token, answer));
        }
        let id = request.group.clone();
        self.group_or_new(&id);
        self.turn(&id, now).expect("just made").join(token, request);
        self.drop_if_vacant(&id);
    }

    fn check_join(&self, request: &Join) -> Result<(), GroupError> {
        let limits = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        check_group_and_session(request, limits)?;
        let instance_bytes = request.instance_id.as_ref().map_or(0, String::len);
        let longest = request.protocols.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        // The member id is made of the instance id, and all must fit into a record.
        let fits = instance_bytes.max(longest).max(request.protocol_type.len())
            <= STRING_MAX_BYTES - super::join::MEMBER_ID_SUFFIX_BYTES;
        fits.then_some(()).ok_or(GroupError::InconsistentGroupProtocol)
    }

    pub fn sync(&mut self, now: Now, token: Token, request: Sync) {
        let error = match check_group_id(&request.group) {
            Err(error) => error,
            Ok(()) => match self.turn(&request.group, now) {
                Some(mut turn) => return turn.sync(token, request),
                None => GroupError::UnknownMemberId,
            },
        };
        self.out.answers.push(Answer::Sync(token, SyncAnswer::error(error)));
    }

    pub fn heartbeat(&mut self, now: Now, request: &Heartbeat) -> Result<(), GroupError> {
        check_group_id(&request.group)?;
        self.turn(&request.group, now).ok_or(GroupError::UnknownMemberId)?.heartbeat(request)
    }

    /// The outcome for each member, in order.
    pub fn leave(
        &mut self,
        now: Now,
        group: &str,
        members: &[Leaving],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_group_id(group)?;
        let Some(mut turn) = self.turn(group, now) else {
            return Ok(vec![Err(GroupError::UnknownMemberId); members.len()]);
        };
        let outcome = turn.leave(members);
        self.drop_if_vacant(group);
        Ok(outcome)
    }

    /// A group as DescribeGroups shows it; None: there is no such group.
    pub fn describe(&self, group: &str) -> Option<Description> {
        self.groups.get(group).map(Group::description)
    }

    /// All groups by id; those that only keep offsets too.
    pub fn list(&self) -> Vec<Listing> {
        let listing = |group: &Group| Listing {
            group: group.id.to_string(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state().name(),
        };
        self.groups.values().map(listing).collect()
    }

    /// How many groups and how many members there are, for metrics.
    pub fn sizes(&self) -> (usize, usize) {
        (self.groups.len(), self.groups.values().map(|group| group.members().len()).sum())
    }

    /// The first `at_most` committed offsets in order of group, topic and partition, and how many
    /// there are in all; for metrics.
    pub fn committed(&self, at_most: usize) -> (Vec<Committed>, usize) {
        let all = self.groups.iter().flat_map(|(group, state)| {
            state.offsets.iter().flat_map(move |(topic, known)| {
                known.iter().map(move |(partition, value)| (group, topic, *partition, value.offset))
            })
        });
        let committed = |(group, topic, partition, offset): (&Rc<str>, &String, i32, i64)| {
            Committed { group: group.to_string(), topic: topic.clone(), partition, offset }
        };
        let first = all.take(at_most).map(committed).collect();
        let in_all = self.groups.values().flat_map(|group| group.offsets.values());
        (first, in_all.map(BTreeMap::len).sum())
    }

    pub(super) fn turn(&mut self, group: &str, now: Now) -> Option<Turn<'_>> {
        Some(Turn {
            group: self.groups.get_mut(group)?,
            alarms: &mut self.alarms,
            out: &mut self.out,
            config: &self.config,
            new_uuid: &mut self.new_uuid,
            now,
        })
    }

    pub(super) fn group_or_new(&mut self, group: &str) -> &mut Group {
        let id: Rc<str> = group.into();
        self.groups.entry(id.clone()).or_insert_with(|| Group::new(id))
    }

    /// A group that the log does not know leaves no trace once its last newcomer is gone.
    pub(super) fn drop_if_vacant(&mut self, group: &str) {
        if self.groups.get(group).is_some_and(Group::is_vacant) {
            self.groups.remove(group);
        }
    }
}

impl Turn<'_> {
    fn alarm(&mut self, key: AlarmKey) {
        let now = self.now.mono;
        match &key {
            AlarmKey::Session(_, member_id) => {
                let member_id = member_id.clone();
                let pending = self.group.pending.get_mut(&member_id);
                let alarm = match pending {
                    Some(alarm) => Some(alarm),
                    None => self.group.member_mut(&member_id).map(|member| &mut member.session),
                };
                if alarm.is_some_and(|alarm| self.alarms.rings(alarm, now, key)) {
                    self.session_ended(&member_id);
                }
            }
            AlarmKey::Join(_) => {
                if self.alarms.rings(&mut self.group.join_alarm, now, key) {
                    self.join_time_is_up();
                }
            }
            AlarmKey::Sync(_) => {
                if self.alarms.rings(&mut self.group.sync_alarm, now, key) {
                    self.sync_time_is_up();
                }
            }
        }
    }

    /// The member is alive: its session begins anew.
    pub(super) fn heard_from(&mut self, member_id: &Rc<str>) {
        let Some(member) = self.group.members().get(member_id) else { return };
        let due = self.now.mono + member.session_timeout;
        self.set_session(member_id, due);
    }

    pub(super) fn set_session(&mut self, member_id: &Rc<str>, due: Instant) {
        let group_id = self.group.id.clone();
        let member = self.group.member_mut(member_id).expect("the caller found it");
        let key = || AlarmKey::Session(group_id, member_id.clone());
        self.alarms.set(&mut member.session, due, key);
    }

    /// Writes the group as it is now.
    pub(super) fn store(&mut self) {
        let value = self.group.value();
        self.out.records.push(Record::Group(self.group.id.to_string(), Some(value.clone())));
        self.group.stored = Some(value);
    }
}

/// What a join must satisfy whatever group it is for.
pub(crate) fn check_group_and_session(
    request: &Join,
    limits_ms: RangeInclusive<i32>,
) -> Result<(), GroupError> {
    check_group_id(&request.group)?;
    match limits_ms.contains(&request.session_timeout_ms) {
        true => Ok(()),
        false => Err(GroupError::InvalidSessionTimeout),
    }
}

/// A group id that can be kept: not empty, and short enough for a record.
pub(crate) fn check_group_id(group: &str) -> Result<(), GroupError> {
    match group.is_empty() || group.len() > STRING_MAX_BYTES {
        true => Err(GroupError::InvalidGroupId),
        false => Ok(()),
    }
}
