//! Committed offsets: commit, fetch, deletion, and expiry (KIP-211). Part of the coordinator; pure.

use std::rc::Rc;

use super::coordinator::{check_group_id, Coordinator, Turn};
use super::group::{Group, State};
use super::records::{OffsetKey, OffsetValue, Record};
use super::types::*;

impl Coordinator {
    /// The outcome for each offset, in order; or why none was taken.
    pub fn commit(
        &mut self,
        now: Now,
        request: Commit,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_group_id(&request.group)?;
        if !self.groups.contains_key(request.group.as_str()) {
            if request.generation >= 0 {
                return Err(match request.knows_group_id_not_found {
                    true => GroupError::GroupIdNotFound,
                    false => GroupError::IllegalGeneration,
                });
            }
            self.group_or_new(&request.group);
        }
        let group = request.group.clone();
        let outcome = self.turn(&group, now).expect("just made").commit(request);
        self.drop_if_vacant(&group);
        outcome
    }

    /// Offsets of the partitions asked for, or of all that have one. An unknown group has none.
    pub fn fetch(&self, group: &str, asked: Option<&[(String, Vec<i32>)]>) -> Vec<FetchedTopic> {
        let found = self.groups.get(group);
        match asked {
            Some(asked) => asked
                .iter()
                .map(|(topic, partitions)| {
                    let known = found.and_then(|group| group.offsets.get(topic));
                    let offset = |p: &i32| (*p, known.and_then(|known| known.get(p).cloned()));
                    let partitions = partitions.iter().map(offset).collect();
                    FetchedTopic { topic: topic.clone(), partitions }
                })
                .collect(),
            None => found
                .into_iter()
                .flat_map(|group| &group.offsets)
                .map(|(topic, known)| {
                    let offset = |(p, value): (&i32, &OffsetValue)| (*p, Some(value.clone()));
                    let partitions = known.iter().map(offset).collect();
                    FetchedTopic { topic: topic.clone(), partitions }
                })
                .collect(),
        }
    }

    /// OffsetDelete: one topic's outcome each, in order; or why nothing was done.
    pub fn delete_offsets(
        &mut self,
        now: Now,
        group: &str,
        topics: &[(String, Vec<i32>)],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_group_id(group)?;
        let mut turn = self.turn(group, now).ok_or(GroupError::GroupIdNotFound)?;
        if turn.group.state() != State::Empty && !turn.group.is_consumer_group() {
            return Err(GroupError::NonEmptyGroup);
        }
        let mut outcome = Vec::with_capacity(topics.len());
        for (topic, partitions) in topics {
            if turn.group.is_subscribed_to(topic) && turn.group.state() != State::Empty {
                outcome.push(Err(GroupError::GroupSubscribedToTopic));
                continue;
            }
            for partition in partitions {
                turn.forget_offset(topic, *partition);
            }
            outcome.push(Ok(()));
        }
        self.drop_if_vacant(group);
        Ok(outcome)
    }

    /// DeleteGroups: only a group without members can be deleted; its offsets go with it.
    pub fn delete_group(&mut self, now: Now, group: &str) -> Result<(), GroupError> {
        check_group_id(group)?;
        let mut turn = self.turn(group, now).ok_or(GroupError::GroupIdNotFound)?;
        if turn.group.state() != State::Empty {
            return Err(GroupError::NonEmptyGroup);
        }
        turn.forget_all_offsets();
        turn.delete();
        self.groups.remove(group);
        Ok(())
    }

    /// A topic is gone: so are its committed offsets, also for a later topic of that name.
    pub fn topic_deleted(&mut self, now: Now, topic: &str) {
        for id in self.group_ids() {
            let mut turn = self.turn(&id, now).expect("listed");
            let partitions = turn.group.offsets.get(topic).map(|known| known.keys().copied());
            for partition in partitions.into_iter().flatten().collect::<Vec<_>>() {
                turn.forget_offset(topic, partition);
            }
            self.drop_if_vacant(&id);
        }
    }

    /// Removes offsets that are past their retention, and groups of which nothing is left. To be
    /// called each `retention_check_interval`.
    pub fn expire_offsets(&mut self, now: Now) {
        for id in self.group_ids() {
            let mut turn = self.turn(&id, now).expect("listed");
            for (topic, partition) in turn.expired() {
                turn.forget_offset(&topic, partition);
            }
            if turn.group.is_deserted() {
                turn.delete();
                self.groups.remove(&id);
            }
        }
    }

    fn group_ids(&self) -> Vec<Rc<str>> {
        self.groups.keys().cloned().collect()
    }
}

impl Turn<'_> {
    fn commit(&mut self, request: Commit) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.check_commit(&request)?;
        if matches!(self.group.state(), State::Stable | State::Preparing { .. }) {
            self.heard_from(&request.member_id.as_str().into());
        }
        let expire_timestamp = match request.retention_ms {
            Some(retention_ms) => self.now.wall_ms.saturating_add(retention_ms.max(0)).max(0),
            None => -1,
        };
        let mut outcome = Vec::with_capacity(request.offsets.len());
        for offset in request.offsets {
            let metadata = offset.metadata.unwrap_or_default();
            if metadata.encode_utf16().count() > self.config.offset_metadata_max
                || metadata.len() > super::coordinator::STRING_MAX_BYTES
            {
                outcome.push(Err(GroupError::OffsetMetadataTooLarge));
                continue;
            }
            let value = OffsetValue {
                offset: offset.offset,
                leader_epoch: offset.leader_epoch,
                metadata,
                commit_timestamp: self.now.wall_ms,
                expire_timestamp,
            };
            self.remember_offset(offset.topic, offset.partition, value);
            outcome.push(Ok(()));
        }
        Ok(outcome)
    }

    /// Who may commit: anybody without a generation while there are no members (an administrator,
    /// or a client that manages its partitions itself); else members of this generation.
    fn check_commit(&self, request: &Commit) -> Result<(), GroupError> {
        if request.generation < 0 && self.group.state() == State::Empty {
            return Ok(());
        }
        let instance_id = request.instance_id.as_deref();
        if request.generation < 0 && request.member_id.is_empty() && instance_id.is_none() {
            return Err(GroupError::UnknownMemberId);
        }
        self.group.validate(&request.member_id, instance_id)?;
        if request.generation != self.group.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.group.state() {
            // It knows the new generation, so it has to take its new partitions first.
            State::Completing => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    fn remember_offset(&mut self, topic: String, partition: i32, value: OffsetValue) {
        let key = OffsetKey { group: self.group.id.to_string(), topic: topic.clone(), partition };
        self.out.records.push(Record::Offset(key, Some(value.clone())));
        self.group.offsets.entry(topic).or_default().insert(partition, value);
    }

    fn forget_offset(&mut self, topic: &str, partition: i32) {
        if self.group.forget_offset(topic, partition) {
            let (group, topic) = (self.group.id.to_string(), topic.to_owned());
            self.out.records.push(Record::Offset(OffsetKey { group, topic, partition }, None));
        }
    }

    fn forget_all_offsets(&mut self) {
        let all = self.group.offsets.iter().flat_map(|(topic, known)| {
            known.keys().map(|partition| (topic.clone(), *partition)).collect::<Vec<_>>()
        });
        for (topic, partition) in all.collect::<Vec<_>>() {
            self.forget_offset(&topic, partition);
        }
    }

    /// The tombstone of the group, and no more alarms; the caller takes it out.
    fn delete(&mut self) {
        if self.group.stored.take().is_some() {
            self.out.records.push(Record::Group(self.group.id.to_string(), None));
        }
        for alarm in std::mem::take(&mut self.group.pending).values_mut() {
            self.alarms.cancel(alarm);
        }
    }

    /// KIP-211: a group without members keeps offsets for the retention after it became empty, a
    /// group that never had any from each commit; topics that a live group reads never expire.
    fn expired(&self) -> Vec<(String, i32)> {
        let group = &self.group;
        let empty_since = match group.state() {
            State::Empty if group.protocol_type.is_some() && group.state_since_ms >= 0 => {
                Some(group.state_since_ms)
            }
            State::Empty => None,
            State::Stable if group.is_consumer_group() && group.knows_subscriptions() => None,
            _ => return Vec::new(),
        };
        let is_expired = |value: &OffsetValue| match value.expire_timestamp {
            -1 => {
                let since = empty_since.unwrap_or(value.commit_timestamp);
                self.now.wall_ms.saturating_sub(since) >= self.config.offsets_retention_ms
            }
            expire_timestamp => self.now.wall_ms >= expire_timestamp,
        };
        let mut expired = Vec::new();
        for (topic, known) in &group.offsets {
            if group.state() != State::Empty && group.is_subscribed_to(topic) {
                continue;
            }
            let past = known.iter().filter(|(_, value)| is_expired(value));
            expired.extend(past.map(|(partition, _)| (topic.clone(), *partition)));
        }
        expired
    }
}

impl Group {
    /// Whether there was one.
    pub(super) fn forget_offset(&mut self, topic: &str, partition: i32) -> bool {
        let Some(known) = self.offsets.get_mut(topic) else { return false };
        let found = known.remove(&partition).is_some();
        if known.is_empty() {
            self.offsets.remove(topic);
        }
        found
    }

    /// The group's own record, then its offsets.
    pub(super) fn live_records(&self) -> impl Iterator<Item = Record> + '_ {
        let own = self.stored.clone().map(|value| Record::Group(self.id.to_string(), Some(value)));
        let offsets = self.offsets.iter().flat_map(move |(topic, known)| {
            known.iter().map(move |(partition, value)| {
                let (group, topic) = (self.id.to_string(), topic.clone());
                let key = OffsetKey { group, topic, partition: *partition };
                Record::Offset(key, Some(value.clone()))
            })
        });
        own.into_iter().chain(offsets)
    }

    pub(super) fn description(&self) -> Description {
        let is_stable = self.state() == State::Stable;
        let protocol = self.protocol.as_deref().filter(|_| is_stable);
        let members = self.members().iter().map(|(id, member)| DescribedMember {
            member_id: id.to_string(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: member.metadata(protocol),
            assignment: member.assignment.clone(),
        });
        Description {
            state: self.state().name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default().to_owned(),
            members: members.collect(),
        }
    }
}
