//! Load with a memory: idempotent producers of small and of large batches, and a group that
//! follows them, while the test does something to the broker; afterwards everything is judged.
//!
//! Every value is sent once and is unlike any other: `key:number:padding`, numbers rising for each
//! key. What the broker said of each record, what the members were given and which of their
//! commits were acknowledged is kept, and compared with the topic as it is read in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use crate::clients::{consumer, producer, read_all, Reporter};

const GROUP: &str = "followers";
const MEMBERS: usize = 2;
/// Keys of each producer.
const KEYS: usize = 16;
/// Values of the producer of large batches are up to so long.
const LARGE_BYTES: usize = 24_000;
/// In which everything that was sent must be answered and read once the broker is left alone.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);

/// What a broker said of a record: its value, and where it is, or why not.
pub type Report = (String, Result<(i32, i64), String>);
/// A topic as it was read: offset, key and value by partition.
pub type Read = BTreeMap<i32, Vec<(i64, String, String)>>;

/// What one member of the group went through.
#[derive(Default)]
struct Diary {
    /// Partition, offset and value of what it was given.
    given: Vec<(i32, i64, String)>,
    anomalies: Vec<String>,
}

#[derive(Default)]
struct Group {
    /// The newest acknowledged commit of each partition. Locked while a member commits, so that
    /// the order of acknowledgements is the order in which they are noted.
    committed: Mutex<BTreeMap<i32, i64>>,
    /// Assignments, of all members together.
    assignments: AtomicUsize,
    /// Members that have partitions now.
    holders: AtomicUsize,
    stop: AtomicBool,
    given: AtomicUsize,
}

/// A load that runs.
pub struct Load {
    address: String,
    topic: String,
    producers: Vec<Arc<ThreadedProducer<Reporter>>>,
    senders: Vec<JoinHandle<usize>>,
    stop: Arc<AtomicBool>,
    group: Arc<Group>,
    members: Vec<JoinHandle<Diary>>,
}

/// What a load came to, and everything that was wrong.
#[derive(Debug)]
pub struct Outcome {
    pub sent: usize,
    pub given: usize,
    pub anomalies: Vec<String>,
}

impl Load {
    pub fn start(address: &str, topic: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let small: [(&str, &str); 1] = [("linger.ms", "2")];
        let large = [("linger.ms", "20"), ("batch.size", "1000000")];
        let producers = [&small[..], &large[..]].map(|own| Arc::new(patient(address, own)));
        let senders = producers.iter().zip([0, LARGE_BYTES]).map(|(producer, padding)| {
            let (producer, topic, stop) = (producer.clone(), topic.to_owned(), stop.clone());
            thread::spawn(move || send(&producer, &topic, padding, &stop))
        });
        let senders = senders.collect();
        let group = Arc::new(Group::default());
        let members = (0..MEMBERS).map(|_| {
            let consumer = member(address, group.clone());
            consumer.subscribe(&[topic]).unwrap();
            let group = group.clone();
            thread::spawn(move || follow(&consumer, &group))
        });
        let members = members.collect();
        let (address, topic) = (address.to_owned(), topic.to_owned());
        Load { address, topic, producers: producers.into(), senders, stop, group, members }
    }

    /// Waits until so many more records have been acknowledged.
    pub fn wait_for_acknowledged(&self, more: usize) {
        let enough = self.acknowledged() + more;
        let deadline = Instant::now() + SETTLE_LIMIT;
        while self.acknowledged() < enough {
            assert!(Instant::now() < deadline, "records are not acknowledged any more");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn acknowledged(&self) -> usize {
        self.producers.iter().map(|producer| producer.context().0.lock().unwrap().len()).sum()
    }

    /// The end of what is acknowledged so far, by partition.
    pub fn acknowledged_ends(&self) -> BTreeMap<i32, i64> {
        let mut ends = BTreeMap::new();
        for producer in &self.producers {
            for (_, place) in producer.context().0.lock().unwrap().iter() {
                if let Ok((partition, offset)) = place {
                    let end = ends.entry(*partition).or_insert(0);
                    *end = (offset + 1).max(*end);
                }
            }
        }
        ends
    }

    /// Waits until every member has partitions and the group reads.
    pub fn wait_for_group(&self) {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let seen = self.group.given.load(Ordering::Relaxed);
        let settled = || self.group.holders.load(Ordering::Relaxed) == MEMBERS;
        while !settled() || self.group.given.load(Ordering::Relaxed) == seen {
            assert!(Instant::now() < deadline, "the group does not read");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How often members were given partitions, all together.
    pub fn assignments(&self) -> usize {
        self.group.assignments.load(Ordering::Relaxed)
    }

    /// Ends the load, lets everything settle, and judges.
    pub fn finish(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.senders.into_iter().map(|sender| sender.join().unwrap()).sum();
        let mut reports = Vec::new();
        for producer in &self.producers {
            producer.flush(SETTLE_LIMIT).unwrap();
            reports.extend(producer.context().0.lock().unwrap().iter().cloned());
        }
        let read = read_all(&self.address, &self.topic);
        let all: usize = read.values().map(Vec::len).sum();
        let deadline = Instant::now() + SETTLE_LIMIT;
        // Duplicates after a rebalance count as well: the judge finds what nobody was given.
        let ends = read.iter().filter(|(_, records)| !records.is_empty());
        let ends: BTreeMap<i32, i64> =
            ends.map(|(id, records)| (*id, records.len() as i64)).collect();
        while *self.group.committed.lock().unwrap() != ends && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        self.group.stop.store(true, Ordering::Relaxed);
        let diaries: Vec<_> =
            self.members.into_iter().map(|member| member.join().unwrap()).collect();
        let mut anomalies = judge_log(sent, &reports, &read);
        let committed = self.group.committed.lock().unwrap().clone();
        let kept = kept_offsets(&self.address, &self.topic, &committed);
        anomalies.extend(judge_group(&diaries, &committed, &kept, &read));
        let assignments = self.group.assignments.load(Ordering::Relaxed);
        let given = diaries.iter().map(|diary| diary.given.len()).sum();
        eprintln!("{sent} records sent, {all} read, {given} given to the group, {assignments} assignments");
        Outcome { sent, given, anomalies }
    }
}

impl Outcome {
    pub fn assert_sound(&self) {
        let anomalies = &self.anomalies;
        let few = &anomalies[..anomalies.len().min(5)];
        assert!(anomalies.is_empty(), "{} anomalies, the first: {few:#?}", anomalies.len());
        assert!(self.sent > 0 && self.given >= self.sent, "{self:?}");
    }
}

/// A producer that tries again for as long as a test may take.
fn patient(address: &str, own: &[(&str, &str)]) -> ThreadedProducer<Reporter> {
    let mut settings = vec![
        ("enable.idempotence", "true"),
        ("message.timeout.ms", "600000"),
        ("reconnect.backoff.max.ms", "100"),
        ("retry.backoff.ms", "20"),
        ("retry.backoff.max.ms", "100"),
        ("queue.buffering.max.messages", "5000"),
    ];
    settings.extend(own);
    producer(address, &settings)
}

/// Sends until told to stop, no faster than the rest of the test can bear.
fn send(
    producer: &ThreadedProducer<Reporter>,
    topic: &str,
    padding: usize,
    stop: &AtomicBool,
) -> usize {
    let kind = if padding > 0 { "large" } else { "small" };
    let (burst, pause) = if padding > 0 { (4, 5) } else { (64, 1) };
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let (key, number) = (format!("{kind}{}", sent % KEYS), sent / KEYS);
        let value = format!("{key}:{number}:{}", ".".repeat(sent * 7919 % (padding + 1)));
        match producer.send(BaseRecord::to(topic).key(&key).payload(&value)) {
            Ok(()) => sent += 1,
            // The queue is full while the broker is away.
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
        if sent.is_multiple_of(burst) {
            thread::sleep(Duration::from_millis(pause));
        }
    }
    sent
}

/// Counts assignments, and says that the next record may stand anywhere.
struct Membership {
    group: Arc<Group>,
    moved: AtomicBool,
    holds: AtomicBool,
}

impl Membership {
    fn hold(&self, holds: bool) {
        match (self.holds.swap(holds, Ordering::Relaxed), holds) {
            (false, true) => self.group.holders.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.group.holders.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }
}

impl ClientContext for Membership {}

impl ConsumerContext for Membership {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.moved.store(true, Ordering::Relaxed);
        if let Rebalance::Assign(_) = rebalance {
            self.group.assignments.fetch_add(1, Ordering::Relaxed);
        }
        let holds = matches!(rebalance, Rebalance::Assign(given) if given.count() > 0);
        self.hold(holds);
    }
}

fn member(address: &str, group: Arc<Group>) -> BaseConsumer<Membership> {
    ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("broker.address.family", "v4")
        .set("group.id", GROUP)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "500")
        .set("topic.metadata.refresh.interval.ms", "200")
        .set("reconnect.backoff.max.ms", "100")
        .set("fetch.error.backoff.ms", "50")
        .create_with_context(Membership { group, moved: false.into(), holds: false.into() })
        .unwrap()
}

/// Takes what comes and commits it, until told to stop.
fn follow(consumer: &BaseConsumer<Membership>, group: &Group) -> Diary {
    let mut diary = Diary::default();
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    let mut open = 0;
    while !group.stop.load(Ordering::Relaxed) {
        let polled = consumer.poll(Duration::from_millis(20));
        if consumer.context().moved.swap(false, Ordering::Relaxed) {
            next.clear();
        }
        // An error is a broker that is away: librdkafka goes on by itself.
        let taken = polled.and_then(Result::ok);
        let idle = taken.is_none();
        if let Some(message) = taken {
            let (partition, offset) = (message.partition(), message.offset());
            let value = message.payload_view::<str>().unwrap().unwrap().to_owned();
            if let Some(expected) = next.insert(partition, offset + 1) {
                if expected != offset {
                    let what = format!("a member at {partition}/{expected} was given {offset}");
                    diary.anomalies.push(what);
                }
            }
            diary.given.push((partition, offset, value));
            group.given.fetch_add(1, Ordering::Relaxed);
            open += 1;
        }
        if open >= 500 || (idle && open > 0) {
            open = 0;
            commit(consumer, group, &next, &mut diary);
        }
    }
    diary
}

fn commit(
    consumer: &BaseConsumer<Membership>,
    group: &Group,
    next: &BTreeMap<i32, i64>,
    diary: &mut Diary,
) {
    let topics = consumer.subscription().unwrap();
    let Some(topic) = topics.elements().first().map(|element| element.topic().to_owned()) else {
        return;
    };
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in next {
        offsets.add_partition_offset(&topic, *partition, Offset::Offset(*offset)).unwrap();
    }
    let mut committed = group.committed.lock().unwrap();
    // Refused: the broker is away, or the group has moved on. Then what was given is given again.
    if consumer.commit(&offsets, CommitMode::Sync).is_err() {
        return;
    }
    for (partition, offset) in next {
        let before = committed.insert(*partition, *offset).unwrap_or(0);
        if *offset < before {
            diary.anomalies.push(format!("commit of {partition}: {offset} after {before}"));
        }
    }
}

/// The group's offsets as the broker keeps them.
fn kept_offsets(address: &str, topic: &str, of: &BTreeMap<i32, i64>) -> BTreeMap<i32, i64> {
    let mut wanted = TopicPartitionList::new();
    for partition in of.keys() {
        wanted.add_partition(topic, *partition);
    }
    let kept = consumer(address, GROUP).committed_offsets(wanted, SETTLE_LIMIT).unwrap();
    let kept = kept.elements();
    let kept = kept.iter().map(|element| (element.partition(), element.offset().to_raw().unwrap()));
    kept.collect()
}

fn number_of(value: &str) -> usize {
    value.split(':').nth(1).and_then(|number| number.parse().ok()).unwrap()
}

/// Values as long as these would fill a screen.
fn short(value: &str) -> &str {
    &value[..value.len().min(24)]
}

/// Lost, doubled, invented, out of order, or not where the acknowledgement said.
pub fn judge_log(sent: usize, reports: &[Report], read: &Read) -> Vec<String> {
    let mut anomalies = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next: BTreeMap<&str, usize> = BTreeMap::new();
    let mut places = BTreeMap::new();
    let mine: BTreeSet<&String> = reports.iter().map(|(value, _)| value).collect();
    for (partition, records) in read {
        for (expected, (offset, key, value)) in (0..).zip(records) {
            let shown = short(value);
            if *offset != expected {
                anomalies.push(format!("partition {partition}: {offset} instead of {expected}"));
            }
            places.insert((*partition, *offset), value);
            if !mine.contains(value) {
                anomalies.push(format!("invented: {shown} at {partition}/{offset}"));
                continue;
            }
            if !seen.insert(value) {
                anomalies.push(format!("doubled: {shown} at {partition}/{offset}"));
                continue;
            }
            let (number, last) = (number_of(value), next.entry(key).or_default());
            if number < *last {
                anomalies.push(format!("out of order: {shown} after {last}"));
            }
            *last = number;
        }
    }
    for (value, place) in reports {
        let shown = short(value);
        match place {
            Err(error) => anomalies.push(format!("refused: {shown}: {error}")),
            Ok(place) if places.get(place) != Some(&value) => {
                let found = places.get(place).map(|value| short(value));
                anomalies.push(format!("lost: {shown} acknowledged at {place:?}, found {found:?}"));
            }
            Ok(_) => {}
        }
    }
    if reports.len() != sent {
        anomalies.push(format!("{} reports for {sent} records", reports.len()));
    }
    anomalies
}

/// What members were given is what the log holds; nothing was left out; and what they were told
/// of their commits is kept.
fn judge_group(
    diaries: &[Diary],
    committed: &BTreeMap<i32, i64>,
    kept: &BTreeMap<i32, i64>,
    read: &Read,
) -> Vec<String> {
    let mut anomalies: Vec<String> =
        diaries.iter().flat_map(|diary| diary.anomalies.iter().cloned()).collect();
    let mut given = BTreeSet::new();
    for (partition, offset, value) in diaries.iter().flat_map(|diary| &diary.given) {
        given.insert((*partition, *offset));
        let found = read.get(partition).and_then(|records| records.get(*offset as usize));
        if found.map(|(_, _, value)| value) != Some(value) {
            let found = found.map(|(_, _, value)| short(value));
            let value = short(value);
            anomalies.push(format!("stale: {partition}/{offset} was {value}, is {found:?}"));
        }
    }
    for (partition, records) in read {
        for (offset, _, value) in records {
            if !given.contains(&(*partition, *offset)) {
                let value = short(value);
                anomalies.push(format!("left out: {value} at {partition}/{offset}"));
            }
        }
    }
    if committed != kept {
        anomalies.push(format!("commits {committed:?} were acknowledged, {kept:?} are kept"));
    }
    anomalies
}

/// The judges must see what they are there to see.
#[test]
fn the_judges_find_each_anomaly() {
    let record = |offset: i64, number: i64| (offset, "a".to_string(), format!("a:{number}:"));
    let report = |number: i64, place| -> Report { (format!("a:{number}:"), place) };
    let read = |records: &[(i64, i64)]| -> Read {
        BTreeMap::from([(0, records.iter().map(|(o, n)| record(*o, *n)).collect::<Vec<_>>())])
    };
    let acknowledged = [report(0, Ok((0, 0))), report(1, Ok((0, 1)))];
    let found = |records: &[(i64, i64)]| judge_log(2, &acknowledged, &read(records)).join("; ");
    assert_eq!(found(&[(0, 0), (1, 1)]), "");
    assert!(found(&[(0, 0)]).contains("lost: a:1:"));
    assert!(found(&[(0, 0), (1, 1), (2, 1)]).contains("doubled: a:1:"));
    assert!(found(&[(0, 0), (1, 1), (2, 2)]).contains("invented: a:2:"));
    assert!(found(&[(0, 1), (1, 0)]).contains("out of order: a:0:"));
    assert!(found(&[(0, 0), (2, 1)]).contains("2 instead of 1"));
    let refused = [report(0, Ok((0, 0))), report(1, Err("timed out".into()))];
    assert!(judge_log(2, &refused, &read(&[(0, 0)])).join(";").contains("refused: a:1:"));

    let log = read(&[(0, 0), (1, 1)]);
    let told = BTreeMap::from([(0, 2)]);
    let group = |given: &[(i64, i64)], kept: i64| {
        let given = given.iter().map(|(offset, number)| (0, *offset, format!("a:{number}:")));
        let diary = Diary { given: given.collect(), ..Diary::default() };
        judge_group(&[diary], &told, &BTreeMap::from([(0, kept)]), &log).join("; ")
    };
    assert_eq!(group(&[(0, 0), (1, 1)], 2), "");
    assert!(group(&[(0, 0), (1, 1)], 1).contains("are kept"));
    assert!(group(&[(0, 0)], 2).contains("left out: a:1:"));
    assert!(group(&[(0, 1), (1, 1)], 2).contains("stale: 0/0"));
}
