//! Incremental fetch sessions (KIP-227) of one shard.
//!
//! A session remembers the partitions that a client fetches and what it was last told of each,
//! so that later requests and answers carry changes only. Sessions are a cache: losing one costs
//! the client a full request, nothing else. They belong to the shard on which they were made; a
//! client that reconnects to another shard is told that its session is unknown.
//!
//! Pure: events in, decisions out; time and session ids are arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;
use net::ErrorCode;
use rt::Instant;
use uuid::Uuid;

/// A session that was used more recently than this is not evicted for a new one
/// (`min.incremental.fetch.session.eviction.ms`).
const EVICTION_AGE: Duration = Duration::from_secs(120);
/// The epoch after the last one is this again: 0 and -1 have meanings of their own.
const FIRST_INCREMENTAL_EPOCH: i32 = 1;

/// How a request names a topic: by id from version 13 on, by name before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicKey {
    Name(String),
    Id(Uuid),
}

/// What a client asks of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub fetch_offset: i64,
    /// -1 when the client does not know one.
    pub current_leader_epoch: i32,
    /// -1 when the client does not want divergence to be checked (KIP-595).
    pub last_fetched_epoch: i32,
    pub max_bytes: i32,
}

/// What a client was told last of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub high_watermark: i64,
    pub log_start: i64,
}

impl Told {
    /// Of a partition that has not been answered yet.
    const NOTHING: Told = Told { high_watermark: -1, log_start: -1 };
}

type PartitionKey = (TopicKey, i32);

/// Why a session request is refused at the top level, with no topics in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionError(pub ErrorCode);

/// What to read for one request, in the order in which the answer gives room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The session to answer with; 0 without one.
    pub session_id: i32,
    /// True if only partitions with news are part of the answer.
    pub incremental: bool,
    pub partitions: Vec<(TopicKey, i32, Ask)>,
}

/// One request's session fields and what it asks for.
#[derive(Clone, Debug)]
pub struct SessionRequest {
    pub session_id: i32,
    pub session_epoch: i32,
    /// Whether topics are named by id; one session never changes that.
    pub by_id: bool,
    pub asks: Vec<(TopicKey, i32, Ask)>,
    pub forgotten: Vec<(TopicKey, i32)>,
}

struct Session {
    epoch: i32,
    by_id: bool,
    last_used: Instant,
    partitions: IndexMap<PartitionKey, (Ask, Told)>,
}

/// All sessions of one shard, `slots_max` at most.
pub struct Sessions {
    slots_max: usize,
    sessions: BTreeMap<i32, Session>,
}

impl Sessions {
    pub fn new(slots_max: usize) -> Sessions {
        Sessions { slots_max, sessions: BTreeMap::new() }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Decides what one request reads. `random` is drawn for a new session's id.
    pub fn plan(
        &mut self,
        request: SessionRequest,
        now: Instant,
        random: u64,
    ) -> Result<Plan, SessionError> {
        match (request.session_id, request.session_epoch) {
            (0, -1) => Ok(full(0, request.asks)),
            (id, -1) => {
                self.sessions.remove(&id);
                Ok(full(0, request.asks))
            }
            (id, 0) => {
                self.sessions.remove(&id);
                Ok(self.open(request.by_id, request.asks, now, random))
            }
            (id, epoch) => self.resume(id, epoch, request, now),
        }
    }

    /// Notes what the answer told of one partition; false if an incremental answer leaves the
    /// partition out since there is no news. `has_news`: records, an error or a divergence.
    pub fn note(
        &mut self,
        session_id: i32,
        topic: &TopicKey,
        partition: i32,
        told: Told,
        has_news: bool,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&session_id) else { return true };
        let key = (topic.clone(), partition);
        let Some((at, _, (_, last))) = session.partitions.get_full_mut(&key) else { return true };
        let changed = *last != told;
        *last = told;
        if has_news {
            // Who got data goes to the end, so that the others get room next time.
            let end = session.partitions.len() - 1;
            session.partitions.move_index(at, end);
        }
        has_news || changed
    }

    fn open(
        &mut self,
        by_id: bool,
        asks: Vec<(TopicKey, i32, Ask)>,
        now: Instant,
        random: u64,
    ) -> Plan {
        if asks.is_empty() || !self.make_room(now) {
            return full(0, asks);
        }
        let mut id = (random as i32) & i32::MAX;
        while id == 0 || self.sessions.contains_key(&id) {
            id = id.wrapping_add(1) & i32::MAX;
        }
        let partitions = asks
            .iter()
            .map(|(topic, partition, ask)| ((topic.clone(), *partition), (*ask, Told::NOTHING)))
            .collect();
        let session = Session { epoch: FIRST_INCREMENTAL_EPOCH, by_id, last_used: now, partitions };
        self.sessions.insert(id, session);
        full(id, asks)
    }

    fn resume(
        &mut self,
        id: i32,
        epoch: i32,
        request: SessionRequest,
        now: Instant,
    ) -> Result<Plan, SessionError> {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Err(SessionError(ErrorCode::FetchSessionIdNotFound));
        };
        if session.epoch != epoch {
            return Err(SessionError(ErrorCode::InvalidFetchSessionEpoch));
        }
        if session.by_id != request.by_id {
            return Err(SessionError(ErrorCode::FetchSessionTopicIdError));
        }
        session.epoch = next_epoch(epoch);
        session.last_used = now;
        for (topic, partition) in request.forgotten {
            session.partitions.shift_remove(&(topic, partition));
        }
        for (topic, partition, ask) in request.asks {
            session
                .partitions
                .entry((topic, partition))
                .and_modify(|(known, _)| *known = ask)
                .or_insert((ask, Told::NOTHING));
        }
        let partitions = session
            .partitions
            .iter()
            .map(|((topic, partition), (ask, _))| (topic.clone(), *partition, *ask))
            .collect();
        Ok(Plan { session_id: id, incremental: true, partitions })
    }

    /// Evicts the session that was unused for longest, if one is old enough to go.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.sessions.len() < self.slots_max {
            return true;
        }
        let oldest = self.sessions.iter().min_by_key(|(_, session)| session.last_used);
        match oldest.map(|(id, session)| (*id, session.last_used)) {
            Some((id, used)) if now.saturating_since(used) >= EVICTION_AGE => {
                self.sessions.remove(&id);
                true
            }
            _ => false,
        }
    }
}

fn full(session_id: i32, partitions: Vec<(TopicKey, i32, Ask)>) -> Plan {
    Plan { session_id, incremental: false, partitions }
}

fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(FIRST_INCREMENTAL_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn ask(offset: i64) -> Ask {
        Ask {
            fetch_offset: offset,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            max_bytes: 1 << 20,
        }
    }

    fn topic() -> TopicKey {
        TopicKey::Name("t".to_owned())
    }

    fn request(id: i32, epoch: i32, asks: &[(i32, i64)], forgotten: &[i32]) -> SessionRequest {
        SessionRequest {
            session_id: id,
            session_epoch: epoch,
            by_id: false,
            asks: asks.iter().map(|(p, offset)| (topic(), *p, ask(*offset))).collect(),
            forgotten: forgotten.iter().map(|p| (topic(), *p)).collect(),
        }
    }

    #[test]
    fn a_session_carries_changes_only() {
        let mut sessions = Sessions::new(2);
        let plan = sessions.plan(request(0, 0, &[(0, 5), (1, 6)], &[]), at(0), 7).unwrap();
        assert_eq!((plan.session_id, plan.incremental), (7, false));
        let told = Told { high_watermark: 9, log_start: 0 };
        assert!(sessions.note(7, &topic(), 0, told, true));
        assert!(sessions.note(7, &topic(), 1, told, false));

        // Nothing is asked again: both are read, the one that gave data comes last.
        let plan = sessions.plan(request(7, 1, &[(0, 8)], &[]), at(1), 0).unwrap();
        assert!(plan.incremental);
        let order: Vec<_> = plan.partitions.iter().map(|(_, p, a)| (*p, a.fetch_offset)).collect();
        assert_eq!(order, [(1, 6), (0, 8)]);
        assert!(!sessions.note(7, &topic(), 1, told, false), "no news, left out");
        let moved = Told { high_watermark: 10, log_start: 0 };
        assert!(sessions.note(7, &topic(), 0, moved, false), "a new high watermark is news");

        let plan = sessions.plan(request(7, 2, &[], &[0]), at(2), 0).unwrap();
        assert_eq!(plan.partitions.len(), 1);
    }

    #[test]
    fn wrong_epochs_and_ids_are_refused() {
        let mut sessions = Sessions::new(2);
        sessions.plan(request(0, 0, &[(0, 0)], &[]), at(0), 7).unwrap();
        let refused = |r: Result<Plan, SessionError>| r.unwrap_err().0;
        let skipped = sessions.plan(request(7, 2, &[], &[]), at(0), 0);
        assert_eq!(refused(skipped), ErrorCode::InvalidFetchSessionEpoch);
        let unknown = sessions.plan(request(8, 1, &[], &[]), at(0), 0);
        assert_eq!(refused(unknown), ErrorCode::FetchSessionIdNotFound);
        sessions.plan(request(7, 1, &[], &[]), at(0), 0).unwrap();
        let repeated = sessions.plan(request(7, 1, &[], &[]), at(0), 0);
        assert_eq!(refused(repeated), ErrorCode::InvalidFetchSessionEpoch);
    }

    #[test]
    fn closing_and_reopening_frees_the_slot() {
        let mut sessions = Sessions::new(1);
        sessions.plan(request(0, 0, &[(0, 0)], &[]), at(0), 7).unwrap();
        assert_eq!(sessions.plan(request(7, -1, &[(0, 0)], &[]), at(0), 0).unwrap().session_id, 0);
        assert!(sessions.is_empty());
        sessions.plan(request(0, 0, &[(0, 0)], &[]), at(0), 8).unwrap();
        let reopened = sessions.plan(request(8, 0, &[(0, 0)], &[]), at(0), 9).unwrap();
        assert_eq!((reopened.session_id, sessions.len()), (9, 1));
    }

    #[test]
    fn a_full_cache_serves_without_a_session_until_one_is_old() {
        let mut sessions = Sessions::new(1);
        sessions.plan(request(0, 0, &[(0, 0)], &[]), at(0), 7).unwrap();
        let second = sessions.plan(request(0, 0, &[(0, 0)], &[]), at(60), 8).unwrap();
        assert_eq!(second.session_id, 0);
        let third = sessions.plan(request(0, 0, &[(0, 0)], &[]), at(180), 9).unwrap();
        assert_eq!(third.session_id, 9);
    }

    #[test]
    fn a_session_does_not_mix_names_and_ids() {
        let mut sessions = Sessions::new(1);
        sessions.plan(request(0, 0, &[(0, 0)], &[]), at(0), 7).unwrap();
        let mixed = SessionRequest { by_id: true, ..request(7, 1, &[], &[]) };
        let refused = sessions.plan(mixed, at(0), 0).unwrap_err();
        assert_eq!(refused, SessionError(ErrorCode::FetchSessionTopicIdError));
    }
}
