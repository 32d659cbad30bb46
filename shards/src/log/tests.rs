//! The log under the simulator: a world of its own for partition logs, where the WAL is a list
//! that never forgets what it was given, and the tests see through files and crashes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use rt::Shard;
use wal::{FileSequence, GroupId, Index, Location, Owner, ReplicaId, Term};

use super::batch::testing::batch;
use super::*;

mod behaviour;
mod damage;
mod golden;
mod inspect;
mod origin;
mod power;

/// What survives every crash: the entries of each partition, and the checkpoints.
#[derive(Default)]
pub(super) struct Durable {
    pub entries: RefCell<BTreeMap<Owner, Vec<LogEntry>>>,
    pub checkpoints: RefCell<BTreeMap<Owner, FlushedCheckpoint>>,
    /// Reads of entries that a checkpoint had made dead.
    pub dead_reads: Cell<u64>,
    pub wal_reads: Cell<u64>,
    /// What stands beside the pointers of staged batches.
    pub edges: RefCell<BTreeMap<(Owner, Index), (u32, Bytes)>>,
    /// Batches that were staged.
    pub staged: Cell<u64>,
}

pub(super) struct FakeWal(pub Rc<Durable>);

impl EntryReader for FakeWal {
    fn read(
        &self,
        owner: Owner,
        index: Index,
        location: Location,
    ) -> Local<'static, Result<Bytes, String>> {
        let durable = &self.0;
        assert_eq!(location.position, index.0, "the location of this very entry");
        durable.wal_reads.set(durable.wal_reads.get() + 1);
        let checkpoint = durable.checkpoints.borrow().get(&owner).map(|c| c.index);
        if checkpoint.is_some_and(|flushed| index <= flushed) {
            durable.dead_reads.set(durable.dead_reads.get() + 1);
            return Box::pin(async { Err("dead".to_owned()) });
        }
        let entries = durable.entries.borrow();
        let entry = entries[&owner].iter().find_map(|entry| match entry {
            LogEntry::Batch(batch) if batch.index == index => Some(bytes_of(batch)),
            _ => None,
        });
        Box::pin(async move { entry.ok_or("no such entry".to_owned()) })
    }

    fn read_edges(
        &self,
        owner: Owner,
        index: Index,
        location: Location,
    ) -> Local<'static, Result<(u32, Bytes), String>> {
        assert_eq!(location.position, index.0, "the location of this very entry");
        let durable = &self.0;
        let checkpoint = durable.checkpoints.borrow().get(&owner).map(|c| c.index);
        if checkpoint.is_some_and(|flushed| index <= flushed) {
            durable.dead_reads.set(durable.dead_reads.get() + 1);
            return Box::pin(async { Err("dead".to_owned()) });
        }
        let edges = durable.edges.borrow().get(&(owner, index)).cloned();
        Box::pin(async move { edges.ok_or("no such pointer".to_owned()) })
    }
}

impl CheckpointSink for FakeWal {
    fn producers(&self, _owner: Owner, flushed: Index) -> Bytes {
        Bytes::from(format!("producers at {}", flushed.0))
    }

    fn checkpoint(
        &self,
        checkpoints: Vec<FlushedCheckpoint>,
    ) -> Local<'static, Result<(), String>> {
        let durable = Rc::clone(&self.0);
        Box::pin(async move {
            let mut kept = durable.checkpoints.borrow_mut();
            for checkpoint in checkpoints {
                let owner = checkpoint.identity.owner;
                let before = kept.insert(owner, checkpoint.clone());
                assert!(before.is_none_or(|b| b.index <= checkpoint.index), "never goes back");
            }
            Ok(())
        })
    }
}

fn bytes_of(batch: &CommittedBatch) -> Bytes {
    match &batch.payload {
        Payload::Memory { bytes, .. } => bytes.clone(),
        Payload::Wal(_) => panic!("the test's own entries are in memory"),
    }
}

fn crc_of(batch: &Bytes) -> u32 {
    BatchHead::parse(batch).expect("a batch").crc
}

pub(super) const FIRST: Index = Index(5);
pub(super) const FIRST_TERM: Term = Term(5);

pub(super) fn identity(partition: i32) -> PartitionIdentity {
    let group = GroupId(partition as u64 + 1);
    PartitionIdentity {
        topic: [0xab; 16],
        partition,
        owner: Owner { group, replica: ReplicaId(group.0 + 100) },
    }
}

/// One shard's logs, as a broker would hold them.
pub(super) struct Bench {
    pub context: Rc<LogContext>,
    pub durable: Rc<Durable>,
    pub flusher: Flusher,
}

impl Bench {
    pub async fn start(shard: Shard, durable: Rc<Durable>, options: LogOptions) -> Bench {
        Bench::start_in("/data/topics", shard, durable, options).await
    }

    pub async fn start_in(
        folder: &str,
        shard: Shard,
        durable: Rc<Durable>,
        options: LogOptions,
    ) -> Bench {
        let topics = shard.create_dir(folder).await.expect("the folder of topics");
        let wal = Rc::new(FakeWal(Rc::clone(&durable)));
        let reader: Rc<dyn EntryReader> = wal.clone();
        let context = LogContext::new(shard, topics, reader, options);
        let flusher = Flusher::new(&context, wal);
        Bench { context, durable, flusher }
    }

    /// Opens or creates a partition, and replays what is above its checkpoint.
    pub async fn open(&self, partition: i32, config: SegmentConfig) -> Partition {
        self.try_open(partition, config).await.expect("what a checkpoint names is there")
    }

    pub async fn try_open(
        &self,
        partition: i32,
        config: SegmentConfig,
    ) -> Result<Partition, OpenError> {
        let identity = identity(partition);
        let checkpoint = self.durable.checkpoints.borrow().get(&identity.owner).cloned();
        let owner = identity.owner;
        let entries = self.durable.entries.borrow().get(&owner).cloned().unwrap_or_default();
        let above = checkpoint.as_ref().map_or(FIRST, |checkpoint| checkpoint.index);
        let staged: Vec<StagedEntry> =
            entries.iter().filter(|entry| index_of(entry) > above).filter_map(staged_of).collect();
        let context = &self.context;
        let (log, flushed) = match &checkpoint {
            None => {
                let (index, term) = (FIRST, FIRST_TERM);
                let log = PartitionLog::create(context, identity, config, index, term, &staged);
                (log, FIRST)
            }
            Some(checkpoint) => {
                let bytes = &checkpoint.bytes;
                let opened = PartitionLog::open(context, identity, config, bytes, &staged).await?;
                assert_eq!(opened.flushed, checkpoint.index);
                let expected = format!("producers at {}", opened.flushed.0);
                assert_eq!(opened.producers, expected.as_bytes());
                (opened.log, opened.flushed)
            }
        };
        log.verify_staged(&staged).await.expect("every pointer leads to its batch");
        let replayed = entries.into_iter().filter(|entry| index_of(entry) > flushed);
        log.commit(replayed.map(in_wal).collect::<Vec<_>>());
        Ok(Partition { log, durable: Rc::clone(&self.durable), owner })
    }
}

pub(super) fn index_of(entry: &LogEntry) -> Index {
    match entry {
        LogEntry::Batch(batch) => batch.index,
        LogEntry::Empty { index, .. } => *index,
    }
}

/// What recovery tells of an entry whose batch is staged.
fn staged_of(entry: &LogEntry) -> Option<StagedEntry> {
    let LogEntry::Batch(batch) = entry else { return None };
    let CommittedBatch { index, base_offset, length, .. } = *batch;
    let location = location(index, length);
    batch.staged.map(|at| StagedEntry { index, base_offset, length, at, location })
}

fn location(index: Index, length: u32) -> Location {
    Location { file: FileSequence(1), position: index.0, length }
}

/// The entry as recovery gives it: without its bytes.
fn in_wal(entry: LogEntry) -> LogEntry {
    match entry {
        LogEntry::Batch(batch) => {
            let payload = Payload::Wal(location(batch.index, batch.length));
            LogEntry::Batch(CommittedBatch { payload, ..batch })
        }
        empty => empty,
    }
}

/// A partition of the bench, with what was committed to it.
pub(super) struct Partition {
    pub log: PartitionLog,
    durable: Rc<Durable>,
    owner: Owner,
}

impl Partition {
    fn add(&self, entry: LogEntry) {
        let mut entries = self.durable.entries.borrow_mut();
        entries.entry(self.owner).or_default().push(entry.clone());
        drop(entries);
        self.log.commit([entry]);
    }

    /// Commits a batch; its payload is made of its offset and its partition. Answers its bytes.
    pub fn batch(&self, records: u32, payload_bytes: usize, timestamp: i64) -> Bytes {
        let (index, term) = self.log.last_entry();
        self.batch_in(index.next(), term, records, payload_bytes, timestamp)
    }

    pub fn batch_in(
        &self,
        index: Index,
        term: Term,
        records: u32,
        payload_bytes: usize,
        timestamp: i64,
    ) -> Bytes {
        let base = self.log.log_end();
        let salt = base.0 as u64 * 7 + self.owner.group.0 * 3;
        let payload: Vec<u8> = (0..payload_bytes as u64).map(|at| (at * 31 + salt) as u8).collect();
        let bytes = batch(base.0, records, term.0 as i32, timestamp, &payload);
        let (length, crc) = (bytes.len() as u32, crc_of(&bytes));
        let payload =
            Payload::Memory { bytes: bytes.clone(), location: Some(location(index, length)) };
        self.add(LogEntry::Batch(CommittedBatch {
            index,
            term,
            base_offset: base,
            records,
            length,
            max_timestamp: timestamp,
            crc,
            payload,
            staged: None,
        }));
        bytes
    }

    /// Appends batches one after the other, long ones staged if there is room; takes all after the
    /// first `kept` back again; commits the others together when all are durable. Answers how many
    /// were staged. With `hasty` the WAL does not wait for what its pointers name.
    pub async fn pipeline(
        &self,
        payloads: &[usize],
        timestamp: i64,
        kept: usize,
        hasty: bool,
    ) -> u64 {
        let (last, term) = self.log.last_entry();
        let first = last.next();
        let mut base = self.log.log_end();
        let mut appended: Vec<(Upcoming, Bytes, Option<StagedBatch>)> = Vec::new();
        for (payload_bytes, index) in payloads.iter().zip(first.0..) {
            let payload: Vec<u8> = (0..*payload_bytes)
                .map(|at| (at as u64 * 31 + at as u64 / 256 + base.0 as u64 * 7) as u8)
                .collect();
            let bytes = batch(base.0, 1, term.0 as i32, timestamp, &payload);
            let length = bytes.len() as u32;
            let next = Upcoming {
                index: Index(index),
                base_offset: base,
                records: 1,
                length,
                max_timestamp: timestamp,
            };
            let known: Vec<Upcoming> = appended.iter().map(|(next, ..)| *next).collect();
            let before = |index: Index| known.iter().find(|next| next.index == index).copied();
            let long = length >= self.log.staged_min_bytes();
            let staged = long && self.log.would_stage(&next, &before);
            let parts = [bytes.slice(..61), bytes.slice(61..)];
            let staged = staged.then(|| {
                self.log.stage(&next, &before, &parts).expect("as it was asked just before")
            });
            base = Offset(base.0 + 1);
            appended.push((next, bytes, staged));
        }
        let taken_back = appended.split_off(kept.min(appended.len()));
        if let Some((first, ..)) = taken_back.first() {
            self.log.unstage(first.index);
        }
        let mut count = 0;
        for (next, bytes, staged) in appended {
            let mut kept = bytes.clone();
            let at = staged.as_ref().map(|staged| staged.at);
            if let Some(staged) = staged {
                let edges = (staged.crc, staged.edges.clone());
                self.durable.edges.borrow_mut().insert((self.owner, next.index), edges);
                count += 1;
                if !hasty {
                    staged.durable.await.expect("it answers").expect("it is written");
                    kept = staged.bytes.borrow_mut().take().expect("it is in memory");
                    assert!(kept == bytes, "the batch in memory");
                }
            }
            let place = Some(location(next.index, next.length));
            self.add(LogEntry::Batch(CommittedBatch {
                index: next.index,
                term,
                base_offset: next.base_offset,
                records: 1,
                length: next.length,
                max_timestamp: timestamp,
                crc: crc_of(&bytes),
                payload: Payload::Memory { bytes: kept, location: place },
                staged: at,
            }));
        }
        // Nothing is staged again before their truncation is durable, and so are they before it.
        for staged in taken_back.into_iter().filter_map(|(.., staged)| staged) {
            staged.durable.await.expect("it answers").expect("it is written");
        }
        self.durable.staged.set(self.durable.staged.get() + count);
        count
    }

    /// Commits an entry without records, under the next term.
    pub fn election(&self) {
        let (index, term) = self.log.last_entry();
        self.add(LogEntry::Empty { index: index.next(), term: term.next() });
    }

    /// All batches ever committed, with their base offsets.
    pub fn committed(&self) -> Vec<(Offset, Offset, Bytes)> {
        let entries = self.durable.entries.borrow();
        let entries = entries.get(&self.owner).map(Vec::as_slice).unwrap_or_default();
        let batches = entries.iter().filter_map(|entry| match entry {
            LogEntry::Batch(batch) => {
                Some((batch.base_offset, batch.next_offset(), bytes_of(batch)))
            }
            LogEntry::Empty { .. } => None,
        });
        batches.collect()
    }

    /// Reads from `from` to the end in pieces of `max_bytes`; every piece must be what was
    /// committed.
    pub async fn check_from(&self, from: Offset, max_bytes: u64) -> Result<(), ReadError> {
        let end = self.log.log_end();
        let mut expected =
            self.committed().into_iter().filter(|(_, next, _)| *next > from).peekable();
        let mut at = from;
        while at < end {
            let request = ReadRequest { from: at, up_to: end, max_bytes, at_least_one: true };
            let answer = self.log.read(request).await?;
            assert!(!answer.batches.is_empty(), "nothing at {at} below {end}");
            for bytes in &answer.batches {
                let (base, next, committed) = expected.next().expect("nothing is invented");
                assert!(*bytes == committed, "the batch at {base} differs");
                at = next;
            }
            assert_eq!(answer.next_offset, at);
            let more = answer.batches.len() > 1;
            assert!(!more || answer.bytes <= max_bytes, "{} over {max_bytes}", answer.bytes);
        }
        assert!(expected.peek().is_none(), "everything came");
        Ok(())
    }
}

/// Finds records of the tests' batches: they all have their batch's largest timestamp.
pub(super) struct WholeBatches;

impl RecordSearch for WholeBatches {
    fn first_at_or_after(
        &self,
        batch: &Bytes,
        timestamp: i64,
        from: Offset,
    ) -> Result<Option<(Offset, i64)>, String> {
        let head = BatchHead::parse(batch).map_err(|fault| fault.to_string())?;
        let offset = head.base_offset.max(from);
        let inside = head.max_timestamp >= timestamp && offset < head.next_offset();
        Ok(inside.then_some((offset, head.max_timestamp)))
    }
}

pub(super) fn small_segments() -> SegmentConfig {
    SegmentConfig { segment_bytes: 40_000, index_interval_bytes: 512, ..SegmentConfig::default() }
}
