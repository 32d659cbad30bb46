//! Random events against what must always hold: nothing panics; a generation never goes back; at
//! most one member leads each generation; every waiting request is answered once, and at the
//! latest when the timers have run; and reading the log gives the state that wrote it.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const GROUPS: [&str; 2] = ["g", "h"];

/// Member ids are chosen by number (`Model::member`).
#[derive(Debug, Clone)]
enum Event {
    Join { group: usize, member: usize, instance: usize, protocols: usize, v: i16, session: i32 },
    Sync { group: usize, member: usize, instance: usize, old: bool, assigns: bool },
    Heartbeat { group: usize, member: usize, old: bool },
    Leave { group: usize, member: usize, instance: usize },
    Commit { group: usize, member: usize, old: bool, partition: i32, offset: i64, keep: bool },
    DeleteOffsets { group: usize, partition: i32 },
    DeleteGroup { group: usize },
    DeleteTopic,
    Expire,
    Advance(u16),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    // Mostly one group and its last few members, so that the rarer states are reached.
    let group = prop::bool::weighted(0.15).prop_map(usize::from);
    let member = prop_oneof![1 => Just(0usize), 6 => 1..5usize, 1 => 5..9usize];
    let joining = prop_oneof![Just(0usize), 1..6usize];
    let time = prop_oneof![4 => 0..2_000u16, 1 => 0..30_000u16];
    let instance = prop_oneof![5 => Just(0usize), 1 => 2..4usize];
    prop_oneof![
        48 => (group.clone(), joining, instance.clone(), 0..8usize, prop_oneof![Just(3i16), Just(9)],
            prop_oneof![1 => Just(5i32), 9 => 6..20]).prop_map(
            |(group, member, instance, protocols, v, session)|
                Event::Join { group, member, instance, protocols, v, session }),
        48 => (group.clone(), member.clone(), instance.clone(), prop::bool::weighted(0.1), any::<bool>())
            .prop_map(|(group, member, instance, old, assigns)|
                Event::Sync { group, member, instance, old, assigns }),
        24 => (group.clone(), member.clone(), prop::bool::weighted(0.1))
            .prop_map(|(group, member, old)| Event::Heartbeat { group, member, old }),
        24 => (group.clone(), member.clone(), instance)
            .prop_map(|(group, member, instance)| Event::Leave { group, member, instance }),
        24 => (group.clone(), member, prop::bool::weighted(0.1), 0..3i32, any::<i64>(), any::<bool>())
            .prop_map(|(group, member, old, partition, offset, keep)|
                Event::Commit { group, member, old, partition, offset, keep }),
        6 => (group.clone(), 0..3i32)
            .prop_map(|(group, partition)| Event::DeleteOffsets { group, partition }),
        6 => group.prop_map(|group| Event::DeleteGroup { group }),
        3 => Just(Event::DeleteTopic),
        3 => Just(Event::Expire),
        30 => time.prop_map(Event::Advance),
        1 => Just(Event::Restart),
    ]
}

struct Model {
    world: World,
    /// Ids that the coordinator gave out, the newest last.
    member_ids: Vec<String>,
    waiting: BTreeSet<Token>,
    next_token: u64,
    /// The last generation told in a group; forgotten when the group is.
    generations: BTreeMap<String, i32>,
    /// Who leads a generation of a group, by (group, generation).
    leaders: BTreeMap<(String, i32), String>,
    groups_of: BTreeMap<Token, String>,
    restarts: u8,
}

impl Model {
    fn new(config: GroupsConfig) -> Model {
        Model {
            world: World::new(config),
            member_ids: Vec::new(),
            waiting: BTreeSet::new(),
            next_token: 0,
            generations: BTreeMap::new(),
            leaders: BTreeMap::new(),
            groups_of: BTreeMap::new(),
            restarts: 0,
        }
    }

    /// 0 is none; then the group's members in order, and after them the newest ids.
    fn member(&self, group: usize, number: usize) -> String {
        let Some(number) = number.checked_sub(1) else { return String::new() };
        let described = self.world.coordinator.describe(GROUPS[group]);
        let members = described.map_or(Vec::new(), |group| group.members);
        match members.get(number) {
            Some(member) => member.member_id.clone(),
            None => {
                let newest = self.member_ids.iter().rev().nth(number - members.len());
                newest.cloned().unwrap_or_default()
            }
        }
    }

    fn generation(&self, group: usize, old: bool) -> i32 {
        self.generations.get(GROUPS[group]).copied().unwrap_or(0) - i32::from(old)
    }

    fn token(&mut self, group: usize) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.waiting.insert(token);
        self.groups_of.insert(token, GROUPS[group].to_owned());
        token
    }

    fn apply(&mut self, event: Event) {
        let now = self.world.now();
        match event {
            Event::Join { group, member, instance, protocols, v, session } => {
                let token = self.token(group);
                let request = Join {
                    group: GROUPS[group].to_owned(),
                    member_id: self.member(group, member),
                    instance_id: instance_id(instance),
                    protocol_type: "consumer".to_owned(),
                    protocols: some_protocols(protocols),
                    session_timeout_ms: session * 1000,
                    rebalance_timeout_ms: session * 700,
                    client_id: "c".to_owned(),
                    client_host: "/h".to_owned(),
                    member_id_required: v >= 4,
                    can_skip_assignment: v >= 9,
                };
                self.world.coordinator.join(now, token, request);
            }
            Event::Sync { group, member, instance, old, assigns } => {
                let token = self.token(group);
                let everyone = self.member_ids.iter().rev().take(3).filter(|_| assigns);
                let assignment = Bytes::from_static(b"a");
                let request = Sync {
                    group: GROUPS[group].to_owned(),
                    generation: self.generation(group, old),
                    member_id: self.member(group, member),
                    instance_id: instance_id(instance),
                    protocol_type: None,
                    protocol: None,
                    assignments: everyone.map(|id| (id.clone(), assignment.clone())).collect(),
                };
                self.world.coordinator.sync(now, token, request);
            }
            Event::Heartbeat { group, member, old } => {
                let request = Heartbeat {
                    group: GROUPS[group].to_owned(),
                    generation: self.generation(group, old),
                    member_id: self.member(group, member),
                    instance_id: None,
                };
                let _ = self.world.coordinator.heartbeat(now, &request);
            }
            Event::Leave { group, member, instance } => {
                let instance_id = instance_id(instance);
                let leaving = [Leaving { member_id: self.member(group, member), instance_id }];
                let _ = self.world.coordinator.leave(now, GROUPS[group], &leaving);
            }
            Event::Commit { group, member, old, partition, offset, keep } => {
                let member_id = self.member(group, member);
                let is_known = !member_id.is_empty();
                let request = Commit {
                    group: GROUPS[group].to_owned(),
                    generation: if is_known { self.generation(group, old) } else { -1 },
                    member_id,
                    instance_id: None,
                    retention_ms: keep.then_some(20_000),
                    knows_group_id_not_found: true,
                    offsets: vec![CommittedOffset {
                        topic: "t".to_owned(),
                        partition,
                        offset,
                        leader_epoch: if keep { -1 } else { 3 },
                        metadata: None,
                    }],
                };
                let _ = self.world.coordinator.commit(now, request);
            }
            Event::DeleteOffsets { group, partition } => {
                let topics = [("t".to_owned(), vec![partition])];
                let _ = self.world.coordinator.delete_offsets(now, GROUPS[group], &topics);
            }
            Event::DeleteGroup { group } => {
                let _ = self.world.coordinator.delete_group(now, GROUPS[group]);
            }
            Event::DeleteTopic => self.world.coordinator.topic_deleted(now, "t"),
            Event::Expire => self.world.coordinator.expire_offsets(now),
            Event::Advance(ms) => self.advance(Duration::from_millis(ms.into())),
            Event::Restart => self.restart(),
        }
        self.settle();
    }

    fn advance(&mut self, span: Duration) {
        let end = self.world.elapsed + span;
        let mut rounds = 0;
        while let Some(alarm) = self.world.coordinator.next_alarm() {
            let at = Duration::from_nanos(alarm.as_nanos());
            if at > end {
                break;
            }
            self.world.elapsed = self.world.elapsed.max(at);
            let now = self.world.now();
            self.world.coordinator.tick(now);
            self.settle();
            rounds += 1;
            assert!(rounds < 10_000, "timers run without end");
        }
        self.world.elapsed = end;
    }

    /// Requests that waited die with their connections.
    fn restart(&mut self) {
        self.restarts = self.restarts.wrapping_add(40);
        let mut coordinator = self.world.reloaded(self.restarts);
        coordinator.loaded(self.world.now());
        self.world.coordinator = coordinator;
        self.waiting.clear();
        // A generation that was not stored is told again.
        self.generations.clear();
        self.leaders.clear();
    }

    fn settle(&mut self) {
        for answer in self.world.settle().answers {
            let token = match &answer {
                Answer::Join(token, _) | Answer::Sync(token, _) => *token,
            };
            assert!(self.waiting.remove(&token), "{token:?} is answered twice");
            if let Answer::Join(token, answer) = answer {
                self.judge(&self.groups_of[&token].clone(), answer);
            }
        }
        let reloaded = self.world.reloaded(0);
        assert_eq!(reloaded.live_records().collect::<Vec<_>>(), self.world.live());
        for group in GROUPS {
            if self.world.coordinator.describe(group).is_none() {
                self.generations.remove(group);
                self.leaders.retain(|(name, _), _| name != group);
            }
        }
    }

    fn judge(&mut self, group: &str, answer: JoinAnswer) {
        if answer.error.is_some_and(|error| error != GroupError::MemberIdRequired) {
            return;
        }
        if !self.member_ids.contains(&answer.member_id) {
            self.member_ids.push(answer.member_id.clone());
        }
        if answer.error.is_some() {
            return;
        }
        let last = self.generations.entry(group.to_owned()).or_insert(answer.generation);
        assert!(*last <= answer.generation, "generation {} after {last}", answer.generation);
        *last = answer.generation;
        if !answer.members.is_empty() && !answer.skip_assignment {
            let key = (group.to_owned(), answer.generation);
            let leader = self.leaders.entry(key).or_insert(answer.member_id.clone());
            assert_eq!(*leader, answer.member_id, "two leaders of a generation");
            assert_eq!(answer.leader, answer.member_id);
        }
    }
}

fn instance_id(number: usize) -> Option<String> {
    (number > 1).then(|| format!("i{number}"))
}

fn some_protocols(number: usize) -> Vec<(String, Bytes)> {
    let protocol = |name: &str, topics: &[&str]| {
        (name.to_owned(), crate::groups::subscription::encode(topics))
    };
    match number {
        0..=4 => vec![protocol("range", &["t"])],
        5 => vec![protocol("sticky", &["t"]), protocol("range", &["t"])],
        6 => vec![protocol("range", &["u"]), protocol("sticky", &["u"])],
        _ => vec![("sticky".to_owned(), Bytes::from_static(b"!")), protocol("range", &[])],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn random_events(
        events in prop::collection::vec(event(), 0..200),
        delay in prop_oneof![Just(0u64), Just(3)],
        max_size in prop_oneof![Just(2usize), Just(usize::MAX)],
    ) {
        let mut model = Model::new(GroupsConfig {
            initial_rebalance_delay: Duration::from_secs(delay),
            max_size,
            offsets_retention_ms: 60_000,
            ..GroupsConfig::default()
        });
        for event in events {
            model.apply(event);
        }
        model.advance(Duration::from_secs(3600));
        prop_assert!(model.waiting.is_empty(), "never answered: {:?}", model.waiting);
        prop_assert_eq!(model.world.coordinator.sizes().1, 0, "sessions have ended");
    }
}
