//! Fetch (key 1), versions 4 to 18.
//!
//! KIP-74 (limits of the whole answer), KIP-227 (sessions), KIP-320 (epochs), KIP-516 (topic ids
//! from version 13), KIP-595 (diverging epoch), KIP-951 (current leader).
//!
//! Departures: only whole batches are sent. `preferred_read_replica` is always -1 and followers'
//! fetches do not exist: replication has its own port.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::{FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use net::limits::Charge;
use net::wire::{encode_fetch, EpochEnd, FetchAnswer, FetchPartition, FetchTopic};
use net::{Answer, ApiKey, ErrorCode, Request};
use rt::ShardId;
use uuid::Uuid;

use crate::broker::Broker;
use crate::fetch::sessions::{Ask, Plan, SessionRequest, Told, TopicKey};
use crate::fetch::{self, Found, Item};
use crate::meta::{Image, Topic, TopicId};

/// From this version on topics are named by id.
const TOPIC_IDS_SINCE: i16 = 13;
/// `replica_id` of ordinary consumers, and of the debugging consumer.
const CONSUMER_IDS: [i32; 2] = [-1, -2];

pub async fn handle(broker: Broker, request: Request, body: FetchRequest) -> Answer {
    let version = request.version;
    let replica = if version >= 15 { body.replica_state.replica_id } else { body.replica_id };
    let stranger = !CONSUMER_IDS.contains(&replica.0);
    if !(0..=1).contains(&body.isolation_level) {
        return refuse(&broker, ErrorCode::InvalidRequest, version);
    }
    let by_id = version >= TOPIC_IDS_SINCE;
    let now = broker.shard().now();
    let random = broker.shard().random();
    let plan = broker.sessions().borrow_mut().plan(session_request(&body, by_id), now, random);
    let plan = match plan {
        Ok(plan) => plan,
        Err(refused) => return refuse(&broker, refused.0, version),
    };
    let limits = Limits::of(&body, broker.config().fetch_max_bytes);
    let read_committed = body.isolation_level == 1;
    let mut slots = Slots::resolve(&broker, &plan, read_committed, stranger);
    // Held until the answer leaves here: the connection charges it when it writes, in this turn.
    let _held = slots.read_until_enough(&broker, &limits).await;
    let found = slots.fit(limits.max_bytes);
    answer(&broker, version, &plan, found, read_committed)
}

/// An answer of one top-level error and no topics.
fn refuse(broker: &Broker, error: ErrorCode, version: i16) -> Answer {
    broker.stats().told(ApiKey::Fetch, error.code());
    let answer = FetchAnswer { error, ..empty(0) };
    Answer::Encoded(encode_fetch(answer, version))
}

fn empty(session_id: i32) -> FetchAnswer {
    FetchAnswer {
        throttle_time_ms: 0,
        error: ErrorCode::None,
        session_id,
        topics: Vec::new(),
        node_endpoints: Vec::new(),
    }
}

/// Puts what was found into an answer; an incremental one leaves out what is not news.
fn answer(
    broker: &Broker,
    version: i16,
    plan: &Plan,
    found: Vec<Found>,
    read_committed: bool,
) -> Answer {
    let mut answer = empty(plan.session_id);
    let mut bytes = 0;
    for ((topic, partition, _), found) in plan.partitions.iter().zip(found) {
        let told = Told { high_watermark: found.high_watermark, log_start: found.log_start };
        let has_news = !found.records.is_empty() || found.ends_wait() || !found.error.is_none();
        let mut sessions = broker.sessions().borrow_mut();
        let changed = sessions.note(plan.session_id, topic, *partition, told, has_news);
        if plan.incremental && !changed {
            continue;
        }
        bytes += found.bytes();
        broker.stats().told(ApiKey::Fetch, found.error.code());
        let data = partition_data(*partition, found, read_committed);
        match answer.topics.last_mut().filter(|last| is_topic(last, topic)) {
            Some(last) => last.partitions.push(data),
            None => {
                let (name, id) = match topic {
                    TopicKey::Name(name) => (StrBytes::from_string(name.clone()), Uuid::nil()),
                    TopicKey::Id(id) => (StrBytes::default(), *id),
                };
                answer.topics.push(FetchTopic { name, id, partitions: vec![data] });
            }
        }
    }
    broker.stats().fetched(bytes as u64);
    Answer::Encoded(encode_fetch(answer, version))
}

fn is_topic(answered: &FetchTopic, topic: &TopicKey) -> bool {
    match topic {
        TopicKey::Name(name) => *answered.name == **name,
        TopicKey::Id(id) => answered.id == *id,
    }
}

fn partition_data(index: i32, found: Found, read_committed: bool) -> FetchPartition {
    // Kafka has an empty list instead of none where it did not get as far as the partition.
    let unknown =
        matches!(found.error, ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId);
    let diverging_epoch = found.diverging.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset });
    FetchPartition {
        index,
        error: found.error,
        high_watermark: found.high_watermark,
        last_stable_offset: found.last_stable_offset,
        log_start_offset: found.log_start,
        diverging_epoch,
        current_leader: None,
        aborted_transactions: (read_committed || unknown).then(Vec::new),
        preferred_read_replica: -1,
        records: found.records,
    }
}

/// How much a request wants, and for how long it waits.
struct Limits {
    min_bytes: usize,
    max_bytes: usize,
    max_wait: Duration,
}

impl Limits {
    fn of(body: &FetchRequest, broker_max_bytes: u32) -> Limits {
        let unsigned = |n: i32| usize::try_from(n).unwrap_or(0);
        let max_bytes = unsigned(body.max_bytes).min(broker_max_bytes as usize);
        Limits {
            min_bytes: unsigned(body.min_bytes).min(max_bytes),
            max_bytes,
            max_wait: Duration::from_millis(unsigned(body.max_wait_ms) as u64),
        }
    }
}

fn session_request(body: &FetchRequest, by_id: bool) -> SessionRequest {
    let key = |name: &TopicName, id| {
        if by_id {
            TopicKey::Id(id)
        } else {
            TopicKey::Name(name.0.to_string())
        }
    };
    let mut asks = Vec::new();
    for topic in &body.topics {
        for partition in &topic.partitions {
            let ask = Ask {
                fetch_offset: partition.fetch_offset,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
                max_bytes: partition.partition_max_bytes,
            };
            asks.push((key(&topic.topic, topic.topic_id), partition.partition, ask));
        }
    }
    let mut forgotten = Vec::new();
    for topic in &body.forgotten_topics_data {
        for partition in &topic.partitions {
            forgotten.push((key(&topic.topic, topic.topic_id), *partition));
        }
    }
    SessionRequest {
        session_id: body.session_id,
        session_epoch: body.session_epoch,
        by_id,
        asks,
        forgotten,
    }
}

/// The partitions of one request, in order: either to be read on some shard, or refused already.
struct Slots {
    items: BTreeMap<ShardId, Vec<Item>>,
    found: Vec<Option<Found>>,
    /// With so many the last read was as large as memory allowed.
    room_bytes: usize,
}

impl Slots {
    fn resolve(broker: &Broker, plan: &Plan, read_committed: bool, stranger: bool) -> Slots {
        let image = broker.image();
        let found = vec![None; plan.partitions.len()];
        let mut slots = Slots { items: BTreeMap::new(), found, room_bytes: usize::MAX };
        for (slot, (key, partition, ask)) in plan.partitions.iter().enumerate() {
            let located = topic_of(&image, key).and_then(|topic| topic.partition(*partition));
            match located {
                Some(_) if stranger => {
                    slots.found[slot] = Some(Found::failed(slot, ErrorCode::NotLeaderOrFollower))
                }
                Some(located) => {
                    let group = located.group;
                    let item = Item { slot, group, ask: *ask, read_committed };
                    slots.items.entry(broker.shard_of(group)).or_default().push(item);
                }
                None => {
                    let code = match key {
                        TopicKey::Id(_) if topic_of(&image, key).is_none() => {
                            ErrorCode::UnknownTopicId
                        }
                        _ => ErrorCode::UnknownTopicOrPartition,
                    };
                    slots.found[slot] = Some(Found::failed(slot, code));
                }
            }
        }
        slots
    }

    /// Reads, and reads again whenever there is more, until the answer has `min_bytes`, somebody
    /// must hear of an error, or the time is over.
    async fn read_until_enough(&mut self, broker: &Broker, limits: &Limits) -> Charge {
        let deadline = broker.shard().now() + limits.max_wait;
        loop {
            let held = self.read(broker, limits.max_bytes).await;
            let ends_wait = self.found.iter().flatten().any(Found::ends_wait);
            if self.bytes() >= limits.min_bytes.min(self.room_bytes) || ends_wait {
                return held;
            }
            let left = deadline.saturating_since(broker.shard().now());
            if left.is_zero() {
                return held;
            }
            let waits = self.waits(broker);
            let woken = broker.shard().timeout(left, waits).await.is_ok();
            // What is read next takes its place.
            drop(held);
            if !woken {
                // What arrived meanwhile without waking the wait is still worth sending.
                return self.read(broker, limits.max_bytes).await;
            }
        }
    }

    /// Of all records found.
    fn bytes(&self) -> usize {
        self.found.iter().flatten().map(Found::bytes).sum()
    }

    /// Reads what there is room for in the memory of this shard's requests, which may wait for
    /// some. A short answer makes a client ask again; what was found is charged.
    async fn read(&mut self, broker: &Broker, max_bytes: usize) -> Charge {
        let mut held = broker.network().memory.grant(max_bytes).await;
        let granted = held.bytes();
        // Half of it is full enough: the next batch may not have fitted.
        self.room_bytes = if granted < max_bytes { granted / 2 } else { usize::MAX };
        let max_bytes = granted.min(max_bytes);
        let calls: Vec<_> = self
            .items
            .iter()
            .map(|(shard, items)| {
                let items = items.clone();
                broker.call(*shard, move |broker| fetch::read(broker, items, max_bytes))
            })
            .collect();
        for call in calls {
            for found in call.await {
                let slot = found.slot;
                self.found[slot] = Some(found);
            }
        }
        held.set(self.bytes());
        held
    }

    /// Resolves when one of the partitions has more than it gave.
    async fn waits(&self, broker: &Broker) {
        let calls: Vec<_> = self
            .items
            .iter()
            .map(|(shard, items)| {
                let items: Vec<Item> = items.iter().map(|item| self.after_found(item)).collect();
                broker.call(*shard, move |broker| fetch::wait(broker, items))
            })
            .collect();
        if calls.is_empty() {
            std::future::pending::<()>().await;
        }
        rt::first(calls).await
    }

    /// The item with its offset moved behind all that there was to read, so that a wait is for more:
    /// what found no room finds none the next time either.
    fn after_found(&self, item: &Item) -> Item {
        let mut item = *item;
        if let Some(found) = &self.found[item.slot] {
            if found.error.is_none() {
                let end = if item.read_committed {
                    found.last_stable_offset
                } else {
                    found.high_watermark
                };
                item.ask.fetch_offset = item.ask.fetch_offset.max(end);
            }
        }
        item
    }

    /// Applies the limit of the whole answer, in request order and over all shards.
    fn fit(self, max_bytes: usize) -> Vec<Found> {
        let mut left = max_bytes;
        let mut empty = true;
        let mut all = Vec::with_capacity(self.found.len());
        for (slot, found) in self.found.into_iter().enumerate() {
            let mut found =
                found.unwrap_or_else(|| Found::failed(slot, ErrorCode::UnknownTopicOrPartition));
            fetch::fit(&mut found.records, left, empty);
            left = left.saturating_sub(found.bytes());
            empty &= found.records.is_empty();
            all.push(found);
        }
        all
    }
}

fn topic_of<'a>(image: &'a Image, key: &TopicKey) -> Option<&'a Topic> {
    match key {
        TopicKey::Name(name) => image.topic(name).map(|topic| &**topic),
        TopicKey::Id(id) => image.topic_by_id(TopicId(*id)).map(|topic| &**topic),
    }
}
