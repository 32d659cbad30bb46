//! The shell around the coordinator, in simulated time, against a log in memory that takes its
//! time, is full, or is lost.

use super::*;
use crate::groups::records::Record;
use net::batch::Batches;
use net::records::Unfolded;
use std::cell::Cell;

const P: i32 = 7;

/// The log's fault model: each append takes `delay`; while `busy` it is refused; once `lost`
/// everything fails. Reads are always right.
struct MemoryLog {
    shard: Shard,
    delay: Cell<Duration>,
    busy: Cell<bool>,
    lost: Cell<bool>,
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    batches: Vec<Batch>,
    next_offset: i64,
    log_start: i64,
}

impl MemoryLog {
    fn new(shard: &Shard) -> Rc<MemoryLog> {
        Rc::new(MemoryLog {
            shard: shard.clone(),
            delay: Cell::new(Duration::from_millis(5)),
            busy: Cell::new(false),
            lost: Cell::new(false),
            state: Rc::default(),
        })
    }

    fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for batch in &self.state.borrow().batches {
            let unfolded = Unfolded::new(batch, 1 << 20).unwrap();
            for record in &unfolded {
                let record = record.unwrap();
                records.push(Record::decode(record.key.unwrap(), record.value).unwrap());
            }
        }
        records
    }

    fn batches(&self) -> usize {
        self.state.borrow().batches.len()
    }
}

impl OffsetsLog for MemoryLog {
    fn append(&self, batch: Batch) -> LocalFuture<Result<i64, AppendError>> {
        let (shard, delay, state) = (self.shard.clone(), self.delay.get(), self.state.clone());
        if self.busy.get() {
            return Box::pin(async { Err(AppendError::Busy("full".into())) });
        }
        let lost = self.lost.get();
        Box::pin(async move {
            shard.sleep(delay).await;
            if lost {
                return Err(AppendError::Lost("another leads".into()));
            }
            let mut state = state.borrow_mut();
            let base_offset = state.next_offset;
            let mut header = batch.header;
            header.place(base_offset, 3);
            let body = batch.body();
            let bytes = [&header.encode()[..], &body].concat().into();
            state.next_offset = header.next_offset();
            state.batches.push(Batch { header, bytes });
            Ok(base_offset)
        })
    }

    fn read(&self, offset: i64, max_bytes: usize) -> LocalFuture<Result<Vec<Bytes>, String>> {
        let state = self.state.borrow();
        let mut size = 0;
        let from = state.batches.iter().filter(|batch| batch.header.next_offset() > offset);
        let chunk: Vec<Bytes> = from
            .map(|batch| batch.bytes.clone())
            .take_while(|bytes| {
                let fits = size == 0 || size < max_bytes;
                size += bytes.len();
                fits
            })
            .collect();
        assert!(chunk.iter().all(|bytes| Batches::new(bytes.clone()).all(|batch| batch.is_ok())));
        Box::pin(async move { Ok(chunk) })
    }

    fn log_start(&self) -> i64 {
        self.state.borrow().log_start
    }

    fn move_log_start(&self, offset: i64) -> LocalFuture<Result<(), AppendError>> {
        let mut state = self.state.borrow_mut();
        state.log_start = offset;
        state.batches.retain(|batch| batch.header.next_offset() > offset);
        Box::pin(async { Ok(()) })
    }

    fn size_bytes(&self) -> u64 {
        self.state.borrow().batches.iter().map(|batch| batch.bytes.len() as u64).sum()
    }
}

fn sim<F: std::future::Future<Output = ()> + 'static>(test: impl FnOnce(Shard) -> F + 'static) {
    rt::sim::run(1, test);
}

async fn ready(shard: &Shard, coordinators: &Coordinators) {
    while !coordinators.is_ready(P) {
        shard.sleep(Duration::from_millis(1)).await;
    }
}

async fn led(shard: &Shard, log: &Rc<MemoryLog>) -> Coordinators {
    let coordinators = Coordinators::new(shard, GroupsConfig::default());
    coordinators.lead(P, log.clone());
    ready(shard, &coordinators).await;
    coordinators
}

fn commit(group: &str, offset: i64) -> Commit {
    Commit {
        group: group.to_owned(),
        generation: -1,
        member_id: String::new(),
        instance_id: None,
        retention_ms: None,
        knows_group_id_not_found: true,
        offsets: vec![CommittedOffset {
            topic: "t".to_owned(),
            partition: 0,
            offset,
            leader_epoch: -1,
            metadata: None,
        }],
    }
}

fn join(member_id: &str) -> Join {
    Join {
        group: "g".to_owned(),
        member_id: member_id.to_owned(),
        instance_id: None,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"m"))],
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        member_id_required: false,
        can_skip_assignment: true,
    }
}

fn sync(member_id: &str, generation: i32) -> Sync {
    Sync {
        group: "g".to_owned(),
        generation,
        member_id: member_id.to_owned(),
        instance_id: None,
        protocol_type: None,
        protocol: None,
        assignments: vec![(member_id.to_owned(), Bytes::from_static(b"all"))],
    }
}

async fn fetched(coordinators: &Coordinators, group: &str) -> Option<i64> {
    let asked = Some(vec![("t".to_owned(), vec![0])]);
    let topics = coordinators.fetch(P, group.to_owned(), asked).await.unwrap();
    topics[0].partitions[0].1.as_ref().map(|value| value.offset)
}

#[test]
fn a_commit_and_what_it_changed_are_told_when_it_is_in_the_log() {
    sim(|shard| async move {
        let log = MemoryLog::new(&shard);
        let coordinators = led(&shard, &log).await;
        let (this, watched) = (coordinators.clone(), log.clone());
        let task = shard.spawn(async move {
            let outcome = this.commit(P, commit("g", 5)).await;
            (outcome, watched.records().len())
        });
        shard.yield_now().await;
        let read = fetched(&coordinators, "g").await;
        assert_eq!((read, log.records().len()), (Some(5), 1), "the reader waited as well");
        assert_eq!(task.await, (Ok(vec![Ok(())]), 1));
    });
}

#[test]
fn commits_that_arrive_together_share_a_batch() {
    sim(|shard| async move {
        let log = MemoryLog::new(&shard);
        let coordinators = led(&shard, &log).await;
        let one = |number: i64| {
            let this = coordinators.clone();
            async move { this.commit(P, commit(&format!("g{number}"), number)).await }
        };
        let outcomes = rt::join_all((0..20).map(one)).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Ok(vec![Ok(())])));
        assert!(log.batches() <= 2, "{} batches", log.batches());
        assert_eq!(log.records().len(), 20);
    });
}

#[test]
fn another_leader_reads_what_the_first_one_wrote() {
    sim(|shard| async move {
        let log = MemoryLog::new(&shard);
        let coordinators = led(&shard, &log).await;
        let joined = coordinators.join(P, join("")).await;
        assert_eq!((joined.error, joined.generation), (None, 1));
        let member_id = joined.member_id;
        let synced = coordinators.sync(P, sync(&member_id, 1)).await;
        assert_eq!(synced.assignment, "all");
        coordinators.commit(P, commit("other", 9)).await.unwrap();
        coordinators.cease(P);
        assert_eq!(coordinators.join(P, join("")).await.error, Some(GroupError::NotCoordinator));

        let next = Coordinators::new(&shard, GroupsConfig::default());
        next.lead(P, log.clone());
        let beat = Heartbeat {
            group: "g".to_owned(),
            generation: 1,
            member_id: member_id.clone(),
            instance_id: None,
        };
        let early = next.heartbeat(P, beat.clone()).await;
        assert_eq!(early, Err(GroupError::CoordinatorLoadInProgress));
        assert_eq!(next.list().await, Err(GroupError::CoordinatorLoadInProgress));
        ready(&shard, &next).await;
        assert_eq!(next.heartbeat(P, beat).await, Ok(()));
        assert_eq!(next.sync(P, sync(&member_id, 1)).await.assignment, "all");
        assert_eq!(fetched(&next, "other").await, Some(9));
        assert_eq!(next.list().await.unwrap().len(), 2);
    });
}

#[test]
fn sessions_end_without_any_request() {
    sim(|shard| async move {
        let log = MemoryLog::new(&shard);
        let coordinators = led(&shard, &log).await;
        let first = coordinators.join(P, join("")).await;
        coordinators.sync(P, sync(&first.member_id, 1)).await;
        let start = shard.now();
        // The second waits for the first, whose session ends.
        let second = coordinators.join(P, join("")).await;
        assert_eq!((second.error, second.generation), (None, 2));
        assert_eq!(second.members.len(), 1);
        let waited = shard.now() - start;
        assert!(waited >= Duration::from_secs(9) && waited < Duration::from_secs(11), "{waited:?}");
    });
}

#[test]
fn a_lost_log_sends_everybody_away() {
    sim(|shard| async move {
        let log = MemoryLog::new(&shard);
        let coordinators = led(&shard, &log).await;
        let first = coordinators.join(P, join("")).await;
        coordinators.sync(P, sync(&first.member_id, 1)).await;
        let this = coordinators.clone();
        let waiting = shard.spawn(async move { this.join(P, join("")).await });
        shard.yield_now().await;
        log.lost.set(true);
        let outcome = coordinators.commit(P, commit("h", 1)).await;
        assert_eq!(outcome, Err(GroupError::NotCoordinator));
        assert_eq!(waiting.await.error, Some(GroupError::NotCoordinator));
        let after = coordinators.describe(P, "g".to_owned()).await;
        assert_eq!(after, Err(GroupError::NotCoordinator));
        // Leading again, it begins with what the log holds.
        log.lost.set(false);
        coordinators.lead(P, log.clone());
        ready(&shard, &coordinators).await;
        assert_eq!(fetched(&coordinators, "h").await, None);
    });
}

#[test]
fn a_busy_log_is_tried_again() {
    sim(|shard| async move {
        let log = MemoryLog::new(&shard);
        let coordinators = led(&shard, &log).await;
        log.busy.set(true);
        let this = coordinators.clone();
        let waiting = shard.spawn(async move { this.commit(P, commit("g", 1)).await });
        shard.sleep(Duration::from_secs(3)).await;
        assert_eq!(log.batches(), 0);
        log.busy.set(false);
        assert_eq!(waiting.await, Ok(vec![Ok(())]));
    });
}

#[test]
fn the_log_stays_small_and_loses_nothing_live() {
    sim(|shard| async move {
        let log = MemoryLog::new(&shard);
        log.delay.set(Duration::from_micros(50));
        let coordinators = led(&shard, &log).await;
        for group in 0..50 {
            coordinators.commit(P, commit(&format!("idle{group}"), group)).await.unwrap();
        }
        coordinators.commit(P, commit("gone", 1)).await.unwrap();
        coordinators.delete_group(P, "gone".to_owned()).await.unwrap();
        let mut largest = 0;
        for offset in 0..30_000 {
            coordinators.commit(P, commit("busy", offset)).await.unwrap();
            largest = largest.max(log.size_bytes());
        }
        assert!(log.log_start() > 0);
        assert!(largest < 3 << 19, "{largest} bytes");
        let next = led(&shard, &log).await;
        assert_eq!(fetched(&next, "busy").await, Some(29_999));
        for group in 0..50 {
            assert_eq!(fetched(&next, &format!("idle{group}")).await, Some(group));
        }
        let names = next.list().await.unwrap();
        assert_eq!(names.len(), 51);
    });
}

#[test]
fn offsets_expire_in_the_background() {
    sim(|shard| async move {
        let log = MemoryLog::new(&shard);
        let coordinators = Coordinators::new(&shard, GroupsConfig::default());
        coordinators.set_config(GroupsConfig {
            offsets_retention_ms: 60_000,
            retention_check_interval: Duration::from_secs(10),
            ..GroupsConfig::default()
        });
        coordinators.lead(P, log.clone());
        ready(&shard, &coordinators).await;
        coordinators.commit(P, commit("g", 1)).await.unwrap();
        shard.sleep(Duration::from_secs(45)).await;
        assert_eq!(fetched(&coordinators, "g").await, Some(1));
        shard.sleep(Duration::from_secs(30)).await;
        assert_eq!(coordinators.list().await, Ok(Vec::new()));
        assert_eq!(log.records().len(), 2, "the commit and its tombstone");
    });
}

#[test]
fn a_deleted_topic_takes_its_offsets_along_even_while_loading() {
    sim(|shard| async move {
        let log = MemoryLog::new(&shard);
        let coordinators = led(&shard, &log).await;
        coordinators.commit(P, commit("g", 1)).await.unwrap();
        let next = Coordinators::new(&shard, GroupsConfig::default());
        next.lead(P, log.clone());
        next.topic_deleted("t".to_owned()).await;
        assert_eq!(fetched(&next, "g").await, None);
        assert_eq!(log.records().len(), 2, "committed when it returned");
    });
}
