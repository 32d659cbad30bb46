//! The model test: a log under random work is cut off at any await point and at any boundary of a
//! write, sync or directory change, killed or without power, again while it recovers, and must
//! come back exactly as a naive model says. Its budget is another one with some of the starts.
//!
//! The check is exact, not a set of rules: recovery says which frame was the last, and everything
//! it hands back must equal the model after the records up to that frame, which may be no older
//! than the last one acknowledged. So an acknowledged record that is lost, a record that was never
//! written, a forgotten vote and a truncated entry that returns are all the same finding. Some
//! entries have their payloads in another file, whose writes are torn and lost like all others:
//! every pointer that comes back must lead to its payload. A table of mutations shows that the
//! test sees. More seeds: CHRONIK_WAL_SEEDS; one seed: CHRONIK_SEED.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::rc::Rc;
use std::time::Duration;

use chronik_wal::inspect::{inspect, InspectOptions};
use chronik_wal::{
    Flush, FrameNumber, GroupId, HardState, Identity, Index, Owner, PayloadDurable, Pointer,
    RecordRef, Recovered, RecoveredReplica, ReplicaId, Term, Wal, WalError, WalOptions,
};
use rt::sim::{CrashKind, World, WorldOptions};
use rt::{Dir, File, FileOptions, Mutation, Semaphore, Shard, ShardId};

const GROUPS: u64 = 6;
/// What a run that hangs is told; no finding of the model.
const STUCK: &str = "the last recovery did not end";
/// What the segment of every pointer is called here.
const STAGING: u64 = 0x676e_6967_6174_5373;
const PAYLOAD_BLOCKS_MAX: u64 = 8;

#[derive(Debug, Clone)]
enum Op {
    Append {
        index: u64,
        term: u64,
        body: Vec<u8>,
    },
    /// An entry with its payload elsewhere.
    Point {
        index: u64,
        term: u64,
        pointer: Pointer,
        prefix: Vec<u8>,
    },
    Truncate {
        from: u64,
    },
    HardState(HardState),
    Membership {
        index: u64,
        term: u64,
        body: Vec<u8>,
    },
    Checkpoint {
        index: u64,
        term: u64,
        body: Vec<u8>,
    },
    Tombstone,
}

/// What a replica is, told as simply as possible.
#[derive(Debug, Clone, Default, PartialEq)]
struct Replica {
    hard_state: HardState,
    membership: Option<(u64, u64, Vec<u8>)>,
    checkpoint: Option<(u64, u64, Vec<u8>)>,
    /// (index, term, body)
    entries: Vec<(u64, u64, Vec<u8>)>,
    tombstone: bool,
}

impl Replica {
    fn apply(&mut self, op: &Op) {
        match op.clone() {
            Op::Append { index, term, body } => {
                self.entries.retain(|entry| entry.0 < index);
                self.entries.push((index, term, body));
            }
            Op::Point { index, term, pointer, prefix } => {
                let body = [&pointer.encode()[..], &prefix].concat();
                self.apply(&Op::Append { index, term, body });
            }
            Op::Truncate { from } => self.entries.retain(|entry| entry.0 < from),
            Op::HardState(state) => self.hard_state = state,
            Op::Membership { index, term, body } => self.membership = Some((index, term, body)),
            Op::Checkpoint { index, term, body } => {
                self.checkpoint = Some((index, term, body));
                self.entries.retain(|entry| entry.0 > index);
                if self.entries.iter().any(|entry| entry.1 < term) {
                    self.entries.clear();
                }
            }
            Op::Tombstone => *self = Replica { tombstone: true, ..Replica::default() },
        }
    }

    fn first(&self) -> u64 {
        self.checkpoint.as_ref().map_or(5, |checkpoint| checkpoint.0) + 1
    }

    fn last(&self) -> u64 {
        self.entries.last().map_or(self.first() - 1, |entry| entry.0)
    }

    fn commit(&self) -> u64 {
        self.hard_state.commit.0.max(self.first() - 1)
    }

    fn term_at(&self, index: u64) -> u64 {
        let entry = self.entries.iter().find(|entry| entry.0 == index);
        let checkpoint = self.checkpoint.as_ref().map(|checkpoint| checkpoint.1);
        entry.map(|entry| entry.1).or(checkpoint).unwrap_or(5)
    }
}

type State = BTreeMap<Owner, Replica>;

#[derive(Default)]
struct Model {
    /// As the last finished recovery told it.
    base: State,
    /// What was appended since, and in which frame.
    ops: Vec<(FrameNumber, Owner, Op)>,
    /// `base` with all `ops`.
    head: State,
    acknowledged: FrameNumber,
    forgotten: BTreeSet<Owner>,
    /// Finish instead of working on.
    finish: bool,
    finished: bool,
    violation: Option<String>,
    /// The disk failed and the log refused to go on, as it must.
    poisoned: u64,
    recoveries: u64,
    recycled: u64,
    relocated: u64,
    /// Where the next payload goes: no place is used twice.
    staged_to: u64,
    /// Payloads that were found again by their pointers.
    followed: u64,
}

impl Model {
    fn push(&mut self, frame: FrameNumber, owner: Owner, op: Op) {
        self.head.entry(owner).or_default().apply(&op);
        self.ops.push((frame, owner, op));
    }

    /// The log ends with this frame, before a recovery. What was to stand in later ones is gone:
    /// a recovery that is interrupted may have written other frames of those numbers.
    fn ends_with(&mut self, last: FrameNumber) -> Result<(), String> {
        if last < self.acknowledged {
            let acknowledged = self.acknowledged;
            return Err(format!("frame {acknowledged} was acknowledged, the log ends with {last}"));
        }
        self.ops.retain(|(frame, _, _)| *frame <= last);
        Ok(())
    }

    /// Compares what recovery tells, and takes it as the new base.
    fn recovered(&mut self, recovered: &Recovered) -> Result<(), String> {
        let last = recovered.report.last_frame;
        self.ends_with(last)?;
        if !recovered.report.damage.is_empty() {
            return Err(format!("damage without a fault: {:?}", recovered.report.damage));
        }
        let mut expected = std::mem::take(&mut self.base);
        for (frame, owner, op) in std::mem::take(&mut self.ops) {
            if frame <= last {
                expected.entry(owner).or_default().apply(&op);
            }
        }
        for owner in &self.forgotten {
            let both = expected.get(owner).is_some_and(|replica| replica.tombstone);
            if both && !recovered.replicas.contains_key(owner) {
                expected.remove(owner);
            }
        }
        let owners: BTreeSet<Owner> =
            expected.keys().chain(recovered.replicas.keys()).copied().collect();
        for owner in owners {
            let model = expected.get(&owner).ok_or(format!("{owner} was invented"))?;
            let told = recovered.replicas.get(&owner).ok_or(format!("{owner} is gone"))?;
            compare(owner, model, told)?;
        }
        self.acknowledged = last;
        self.head = expected.clone();
        self.base = expected;
        self.recoveries += 1;
        Ok(())
    }
}

fn compare(owner: Owner, model: &Replica, told: &RecoveredReplica) -> Result<(), String> {
    if let Some(damage) = told.damaged {
        return Err(format!("{owner} is fenced: {damage}"));
    }
    let state = HardState { commit: told_commit(model), ..model.hard_state };
    let plain = |mark: &(Index, Term, bytes::Bytes)| (mark.0 .0, mark.1 .0, mark.2.to_vec());
    let entry = |entry: &(u64, u64, Vec<u8>)| {
        (entry.0, entry.1, entry.2[..entry.2.len().min(chronik_wal::PREFIX_BYTES)].to_vec())
    };
    let entries: Vec<_> = model.entries.iter().map(entry).collect();
    let told_entries: Vec<_> = told
        .entries
        .iter()
        .map(|entry| (entry.index.0, entry.term.0, entry.prefix.to_vec()))
        .collect();
    let same = told.tombstone == model.tombstone
        && told.hard_state == state
        && told.membership.as_ref().map(plain) == model.membership
        && told.checkpoint.as_ref().map(plain) == model.checkpoint
        && told_entries == entries;
    if same {
        return Ok(());
    }
    let short = |entries: &[(u64, u64, Vec<u8>)]| -> Vec<(u64, u64, usize)> {
        entries.iter().map(|entry| (entry.0, entry.1, entry.2.len())).collect()
    };
    Err(format!(
        "{owner}: expected {state:?} {:?} {:?} tombstone {}, got {:?} {:?} {:?} tombstone {}",
        model.checkpoint.as_ref().map(|mark| (mark.0, mark.1)),
        short(&entries),
        model.tombstone,
        told.hard_state,
        told.checkpoint.as_ref().map(|mark| (mark.0, mark.1)),
        short(&told_entries),
        told.tombstone,
    ))
}

fn told_commit(model: &Replica) -> Index {
    let checkpoint = model.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.0);
    Index(model.hard_state.commit.0.max(checkpoint))
}

/// Everything the node's process needs.
struct Job {
    model: Rc<RefCell<Model>>,
    /// Of the next start.
    options: Cell<WalOptions>,
    /// Faults of the disk are switched on.
    faulty: Cell<bool>,
    /// Where payloads are, in this life of the process.
    staging: RefCell<Option<Rc<Staging>>>,
}

struct Staging {
    shard: Shard,
    file: File,
    /// One sync at a time, and none after a failed one: it would answer for lost bytes.
    turn: Semaphore,
    failed: Cell<bool>,
}

/// Why the work ended before its time.
enum End {
    /// An injected fault of the disk was reported; the process must stop.
    Disk(String),
    Violation(String),
}

impl From<String> for End {
    fn from(violation: String) -> End {
        End::Violation(violation)
    }
}

impl From<WalError> for End {
    fn from(error: WalError) -> End {
        match &error {
            WalError::Poisoned(_) | WalError::Disk(_) => End::Disk(error.to_string()),
            other => End::Violation(other.to_string()),
        }
    }
}

async fn node(shard: Shard, job: Rc<Job>) {
    match work(&shard, &job).await {
        Ok(()) => {}
        Err(End::Disk(_)) if job.faulty.get() => job.model.borrow_mut().poisoned += 1,
        Err(End::Disk(violation) | End::Violation(violation)) => {
            job.model.borrow_mut().violation.get_or_insert(violation);
        }
    }
}

async fn work(shard: &Shard, job: &Job) -> Result<(), End> {
    loop {
        job.staging.take();
        let dir = shard.create_dir("/data/wal").await.map_err(WalError::from)?;
        let last = last_frame(shard, &dir).await?;
        job.model.borrow_mut().ends_with(last)?;
        let identity = Identity { node: [7; 16], shard: ShardId(0), generation: 1 };
        let (wal, recovered) = Wal::open(shard, dir, job.options.get(), identity).await?;
        job.model.borrow_mut().recovered(&recovered)?;
        let file = open_staging(shard).await.map_err(WalError::from)?;
        follow_pointers(&file, job, &recovered).await?;
        *job.staging.borrow_mut() = Some(Rc::new(Staging {
            shard: shard.clone(),
            file,
            turn: Semaphore::new(1),
            failed: Cell::new(false),
        }));
        let forgotten = job.model.borrow().forgotten.clone();
        for owner in forgotten {
            wal.forget(owner);
        }
        if shard.random().is_multiple_of(4) || job.model.borrow().finish {
            read_back(&wal, job, &recovered).await?;
        }
        if job.model.borrow().finish {
            wal.stop().await;
            job.model.borrow_mut().finished = true;
            return Ok(());
        }
        let turns = 50 + shard.random() % 400;
        for _ in 0..turns {
            turn(shard, &wal, job).await?;
        }
        wal.stop().await;
        let mut model = job.model.borrow_mut();
        model.acknowledged = wal.durable();
        model.recycled += wal.stats().recycled_files;
        model.relocated += wal.stats().relocated_records;
    }
}

/// Where the log ends, as whoever only reads it is told.
async fn last_frame(shard: &Shard, dir: &Dir) -> Result<FrameNumber, End> {
    let mut last = None;
    let told = inspect(shard, dir, InspectOptions::default(), |line| {
        let number = line.strip_prefix("last frame ").and_then(|rest| rest.split(',').next());
        last = last.or(number.and_then(|number| number.parse().ok()));
    });
    told.await?;
    Ok(FrameNumber(last.ok_or_else(|| "nobody knows the last frame".to_owned())?))
}

async fn open_staging(shard: &Shard) -> std::io::Result<File> {
    let dir: Dir = shard.create_dir("/data").await?;
    let made = dir.create_file("staging", FileOptions::READ_WRITE_DIRECT).await;
    dir.sync().await?;
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            dir.open_file("staging", FileOptions::READ_WRITE_DIRECT).await
        }
        made => made,
    }
}

/// The payload for a place, so that it can be told from every other one.
fn payload(position: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at * 13 + position / 512 * 7 + at / 256) as u8).collect()
}

/// Every pointer that was replayed leads to its payload, whole.
async fn follow_pointers(file: &File, job: &Job, recovered: &Recovered) -> Result<(), End> {
    for (owner, replica) in &recovered.replicas {
        for entry in &replica.entries {
            let pointer = Pointer::decode(&entry.prefix).filter(|p| p.segment == STAGING);
            if pointer.is_some() != entry.pointer {
                return Err(format!("{owner} entry {} changed its kind", entry.index).into());
            }
            let Some(Pointer { position, length, crc, .. }) = pointer else { continue };
            let found = file.read_at(position, length as usize).await.map_err(WalError::from)?;
            if crc32c::crc32c(&found) != crc || found[..] != payload(position, length as usize) {
                return Err(format!("{owner} entry {} points to nothing", entry.index).into());
            }
            job.model.borrow_mut().followed += 1;
        }
    }
    Ok(())
}

/// Takes a place for a payload; nothing is written yet.
fn place_payload(shard: &Shard, job: &Job) -> Pointer {
    let length = (1 + shard.random() % PAYLOAD_BLOCKS_MAX) * 4096;
    let mut model = job.model.borrow_mut();
    let position = model.staged_to;
    model.staged_to += length;
    let crc = crc32c::crc32c(&payload(position, length as usize));
    Pointer { segment: STAGING, position, length: length as u32, crc }
}

/// Writes a payload behind the log's back, and says when it is durable.
fn write_payload(job: &Job, pointer: &Pointer) -> PayloadDurable {
    let staging = job.staging.borrow().clone();
    let staging = staging.expect("the file is open while records are appended");
    let (sender, receiver) = rt::oneshot();
    let (position, length) = (pointer.position, pointer.length as usize);
    let inside = Rc::clone(&staging);
    let write = async move {
        let mut buf = inside.shard.buffer(length);
        buf.extend_from_slice(&payload(position, length));
        let mut done = inside.file.write_at(buf, position).await.map(drop);
        let _turn = inside.turn.acquire(1).await;
        if done.is_ok() {
            done = match inside.failed.replace(true) {
                true => Err(std::io::Error::other("an earlier sync failed")),
                false => inside.file.sync().await,
            };
            inside.failed.set(done.is_err());
        }
        let _ = sender.send(done.map_err(Into::into));
    };
    staging.shard.spawn(write).detach();
    receiver
}

/// Bodies come back whole, wherever their records were moved.
async fn read_back(wal: &Wal, job: &Job, recovered: &Recovered) -> Result<(), End> {
    for (owner, replica) in &recovered.replicas {
        for entry in &replica.entries {
            let body = wal.read(entry.location).await;
            let body = body?;
            let model = job.model.borrow();
            let entries = &model.head[owner].entries;
            let expected = entries.iter().find(|expected| expected.0 == entry.index.0);
            if Some(&body[..]) != expected.map(|entry| entry.2.as_slice()) {
                return Err(format!("{owner} entry {} has another body", entry.index).into());
            }
        }
    }
    Ok(())
}

/// One turn of a driver: a few records of one or several replicas, then perhaps a wait.
async fn turn(shard: &Shard, wal: &Wal, job: &Job) -> Result<(), End> {
    let random = |below: u64| shard.random() % below;
    for _ in 0..1 + random(4) {
        // Low groups are busy, high ones idle: their state must be relocated again and again.
        let group = random(GROUPS).min(random(GROUPS));
        let (owner, op) = choose(shard, job, group);
        if append(wal, job, owner, op)?.is_none() {
            relieve(shard, wal, job)?;
        }
    }
    match random(8) {
        0..=2 => {
            let newest = wal.newest();
            wal.wait_durable(newest).await?;
            let mut model = job.model.borrow_mut();
            model.acknowledged = model.acknowledged.max(newest);
        }
        3 => shard.sleep(Duration::from_millis(random(25))).await,
        _ => shard.yield_now().await,
    }
    while let Ok(Ok(frame)) = shard.timeout(Duration::ZERO, wal.next_durable()).await {
        let mut model = job.model.borrow_mut();
        model.acknowledged = model.acknowledged.max(frame.number);
    }
    Ok(())
}

/// Makes room as a flusher would.
fn relieve(shard: &Shard, wal: &Wal, job: &Job) -> Result<(), End> {
    for owner in wal.oldest_live_owners(2) {
        let (commit, last, term) = {
            let model = job.model.borrow();
            let replica = &model.head[&owner];
            let last = replica.last();
            (replica.commit(), last, replica.term_at(last))
        };
        let state = HardState { commit: Index(last), ..job.model.borrow().head[&owner].hard_state };
        if last > commit {
            append(wal, job, owner, Op::HardState(state))?;
        }
        let body = body(shard, 40);
        append(wal, job, owner, Op::Checkpoint { index: last, term, body })?;
    }
    if shard.random().is_multiple_of(2) {
        wal.nothing_to_flush();
    }
    Ok(())
}

fn body(shard: &Shard, most: u64) -> Vec<u8> {
    let length = shard.random() % most;
    let byte = shard.random() as u8;
    (0..length).map(|place| byte.wrapping_add(place as u8)).collect()
}

fn choose(shard: &Shard, job: &Job, group: u64) -> (Owner, Op) {
    let random = |below: u64| shard.random() % below;
    let model = job.model.borrow();
    let of_group = |owner: &&Owner| owner.group == GroupId(group);
    let newest = model.head.keys().filter(of_group).map(|owner| owner.replica.0).max();
    let mut owner = Owner { group: GroupId(group), replica: ReplicaId(newest.unwrap_or(1)) };
    if model.head.get(&owner).is_some_and(|replica| replica.tombstone) {
        owner.replica = ReplicaId(owner.replica.0 + 1);
    }
    let Some(replica) = model.head.get(&owner) else {
        // A new replica begins with a checkpoint, as a founded group does.
        return (owner, Op::Checkpoint { index: 5, term: 5, body: body(shard, 200) });
    };
    let term = replica.hard_state.term.0.max(5);
    let (first, last, commit) = (replica.first(), replica.last(), replica.commit());
    let state = HardState { term: Term(term), ..replica.hard_state };
    let long = job.options.get().file_bytes / 7;
    let size = if random(20) == 0 { long } else { 900 };
    let append = |index| Op::Append { index, term, body: body(shard, size) };
    if random(12) == 0 {
        drop(model);
        let (pointer, prefix) = (place_payload(shard, job), body(shard, 300));
        return (owner, Op::Point { index: last + 1, term, pointer, prefix });
    }
    let op = match random(100) {
        0..=54 => append(last + 1),
        55..=58 if last > commit => append(commit + 1 + random(last - commit)),
        59..=60 if last > commit => Op::Truncate { from: commit + 1 + random(last - commit) },
        61..=72 => {
            Op::HardState(HardState { commit: Index(commit + random(last - commit + 1)), ..state })
        }
        73..=79 => {
            let (term, vote) = (Term(term + 1), ReplicaId(random(4)));
            Op::HardState(HardState { term, vote, ..state })
        }
        80..=84 => Op::Membership { index: commit, term, body: body(shard, 60) },
        85..=95 if commit >= first => {
            let index = first + random(commit - first + 1);
            Op::Checkpoint { index, term: replica.term_at(index), body: body(shard, 200) }
        }
        // A snapshot that replaces the log.
        96 => {
            let index = last + 1 + random(9);
            Op::Checkpoint { index, term, body: body(shard, 200) }
        }
        97 if random(4) == 0 => Op::Tombstone,
        _ => append(last + 1),
    };
    (owner, op)
}

/// As [`append`], for an entry whose payload goes elsewhere.
fn append_pointer(wal: &Wal, job: &Job, owner: Owner, op: Op) -> Result<Option<()>, End> {
    let Op::Point { index, term, pointer, prefix } = &op else {
        return Err("not a pointer".to_owned().into());
    };
    let (index, term) = (Index(*index), Term(*term));
    let (pointer, prefix): (_, &[&[u8]]) = (*pointer, &[prefix]);
    let written = write_payload(job, &pointer);
    let record = RecordRef::Pointer { owner, index, term, pointer, prefix };
    match wal.append_pointer(record, written) {
        Ok(placed) => {
            job.model.borrow_mut().push(placed.frame, owner, op);
            Ok(Some(()))
        }
        Err(WalError::Exhausted) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `None` if there is no room for data.
fn append(wal: &Wal, job: &Job, owner: Owner, op: Op) -> Result<Option<()>, End> {
    if matches!(op, Op::Point { .. }) {
        return append_pointer(wal, job, owner, op);
    }
    let record = |body: &[&[u8]], place: &mut dyn FnMut(RecordRef<'_>)| match &op {
        Op::Append { index, term, .. } => {
            place(RecordRef::Append { owner, index: Index(*index), term: Term(*term), body })
        }
        Op::Truncate { from } => {
            place(RecordRef::Truncate { owner, from: Index(*from), term: Term(0) })
        }
        Op::HardState(state) => place(RecordRef::HardState { owner, state: *state }),
        Op::Membership { index, term, .. } => {
            place(RecordRef::Membership { owner, index: Index(*index), term: Term(*term), body })
        }
        Op::Checkpoint { index, term, .. } => {
            place(RecordRef::Checkpoint { owner, index: Index(*index), term: Term(*term), body })
        }
        Op::Tombstone => place(RecordRef::Tombstone { owner }),
        Op::Point { .. } => {}
    };
    let bytes: &[u8] = match &op {
        Op::Append { body, .. } | Op::Membership { body, .. } | Op::Checkpoint { body, .. } => body,
        _ => &[],
    };
    let (left, right) = bytes.split_at(bytes.len() / 3);
    let mut placed = None;
    record(&[left, right], &mut |record| placed = Some(wal.append(record)));
    match placed {
        Some(Ok(placed)) => {
            let mut model = job.model.borrow_mut();
            if matches!(op, Op::Tombstone) {
                model.forgotten.insert(owner);
            }
            model.push(placed.frame, owner, op);
            Ok(Some(()))
        }
        Some(Err(WalError::Exhausted)) => Ok(None),
        Some(Err(error)) => Err(error.into()),
        None => Err("no record was made".to_owned().into()),
    }
}

/// A budget, and with it a size of files; the longest entries do not fit into the smallest ones.
fn settings(world: &World) -> WalOptions {
    let file_bytes = [16 << 10, 96 << 10, 96 << 10, 240 << 10][world.random() as usize % 4];
    WalOptions {
        file_bytes,
        first_file_bytes: file_bytes.min(32 << 10),
        budget_bytes: (5 + world.random() % 3) * file_bytes,
        frame_max_bytes: file_bytes / 4,
        flush: if world.random().is_multiple_of(2) { Flush::Dsync } else { Flush::Fdatasync },
        fill_ahead: world.random().is_multiple_of(2),
    }
}

/// One life of a log under one seed. `Err` is what the checker found.
fn life(seed: u64, mutation: Option<Mutation>) -> Result<[u64; 6], String> {
    let world = World::new(seed, WorldOptions::default());
    if let Some(mutation) = mutation {
        world.set_mutation(mutation, true);
    }
    let model = Rc::new(RefCell::new(Model::default()));
    let faulty = world.random().is_multiple_of(4);
    let options = Cell::new(settings(&world));
    let job =
        Job { model: Rc::clone(&model), options, faulty: Cell::new(faulty), staging: None.into() };
    let job = Rc::new(job);
    let inside = Rc::clone(&job);
    let node = world.add_node("node", 1, move |shard| node(shard, Rc::clone(&inside)));
    let violated = |model: &Rc<RefCell<Model>>| model.borrow().violation.clone();
    for _ in 0..10 {
        if faulty {
            let mut faults = world.disk(node).faults();
            faults.write_error_per_million = 3_000;
            faults.sync_error_per_million = 3_000;
            world.disk(node).set_faults(faults);
        }
        let kind =
            if world.random().is_multiple_of(3) { CrashKind::Kill } else { CrashKind::PowerCut };
        match world.random() % 4 {
            0 => world.crash_after_polls(node, 1 + world.random() % 3_000, kind),
            // Soon: in the middle of the recovery from the crash before.
            1 => world.crash_after_polls(node, 1 + world.random() % 60, kind),
            2 => {
                let next = world.disk(node).operations() + 1 + world.random() % 40;
                world.crash_at_disk_operation(node, next, kind);
            }
            _ => {
                let next = world.disk(node).operations() + 1 + world.random() % 600;
                world.crash_at_disk_operation(node, next, kind);
            }
        }
        world.run_until(|world| !world.is_running(node), Duration::from_secs(20));
        if let Some(violation) = violated(&model) {
            return Err(violation);
        }
        if world.is_running(node) {
            world.crash(node, kind);
        }
        if world.random().is_multiple_of(3) {
            job.options.set(settings(&world));
        }
        world.restart(node);
    }
    world.disk(node).set_faults(Default::default());
    job.faulty.set(false);
    model.borrow_mut().finish = true;
    // The last start checks everything; a crash that was planned before may still come first.
    for _ in 0..3 {
        if world.is_running(node) {
            world.crash(node, CrashKind::PowerCut);
        }
        world.restart(node);
        world.run_until(|world| !world.is_running(node), Duration::from_secs(20));
        if model.borrow().finished {
            break;
        }
    }
    if let Some(violation) = violated(&model) {
        return Err(violation);
    }
    let model = model.borrow();
    if !model.finished {
        return Err(STUCK.to_owned());
    }
    let hash = world.trace_hash();
    let Model { recoveries, recycled, relocated, poisoned, followed, .. } = *model;
    Ok([recoveries, recycled, relocated, poisoned, followed, hash])
}

fn seeds() -> u64 {
    std::env::var("CHRONIK_WAL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(120)
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_invented() {
    let sums = RefCell::new([0; 5]);
    rt::sim::for_seeds("-p chronik-wal --test power_cut", seeds(), |seed| {
        let counts =
            life(seed, None).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        for (sum, count) in sums.borrow_mut().iter_mut().zip(counts) {
            *sum += count;
        }
    });
    let [recoveries, recycled, relocated, poisoned, followed] = *sums.borrow();
    println!(
        "{recoveries} recoveries, {recycled} files recycled, {relocated} records relocated, \
         {poisoned} times poisoned, {followed} pointers followed"
    );
    if std::env::var_os("CHRONIK_SEED").is_none() {
        assert!(recycled > 10 && relocated > 10, "the work must reach recycling");
        assert!(poisoned > 0, "faults of the disk must be met");
        assert!(followed > 100, "pointers must come back");
    }
}

#[test]
fn a_seed_replays_to_the_last_bit() {
    for seed in 0..3 {
        assert_eq!(life(seed, None), life(seed, None), "seed {seed}");
    }
}

/// Ways to break the log, and the seeds within which the model must tell.
const MUTATIONS: [(Mutation, u64); 6] = [
    (Mutation::AcknowledgeBeforeSync, 20),
    (Mutation::PointerBeforePayload, 20),
    (Mutation::AcceptStaleBlock, 20),
    (Mutation::RecycleWithoutRelocation, 20),
    (Mutation::RecoverWithoutSync, 100),
    (Mutation::IgnoreChecksum, 40),
];

/// The first seed under which the model tells, and what. That a run hangs, or that the log trips
/// over an assertion of its own, is not counted.
fn found_within(mutation: Mutation, at_most: u64) -> Option<(u64, String)> {
    (0..at_most).find_map(|seed| {
        let life = catch_unwind(AssertUnwindSafe(|| life(seed, Some(mutation))));
        let violation = life.ok()?.err()?;
        (violation != STUCK).then_some((seed, violation))
    })
}

#[test]
fn every_mutation_is_found() {
    let found = MUTATIONS.map(|(mutation, seeds)| (mutation, seeds, found_within(mutation, seeds)));
    println!("{:<26} {:>6} {:>6}  found", "mutation", "within", "seed");
    for (mutation, seeds, outcome) in &found {
        let (name, nothing) = (format!("{mutation:?}"), (0, "nothing".to_owned()));
        let (seed, violation) = outcome.as_ref().unwrap_or(&nothing);
        println!("{name:<26} {seeds:>6} {seed:>6}  {violation}");
    }
    assert!(found.iter().all(|(_, _, outcome)| outcome.is_some()), "a mutation was not found");
}
