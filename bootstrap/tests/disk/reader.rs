//! A broker started on what is left of a disk, and everything that clients were told before,
//! asked for again.
//!
//! Three outcomes are right: it is there, whole and unchanged; the broker refuses it with an error;
//! the broker refuses to start. A record that is gone without an error, another one in its place,
//! a panic, an answer that does not come are wrong.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use net::batch::Batch;
use net::client::Client;
use net::compress::DECOMPRESSED_MAX_BYTES;
use net::records::Unfolded;
use rt::sim::{CrashKind, DiskImage, NodeId, World};
use rt::Shard;

use crate::author::{self, Refusal, FIRST_MS, PORT, SHARDS};
use crate::known::{Known, Life, PARTITIONS, TOPIC};
use crate::said;
use crate::wire::{self, Broken};

/// Virtual time in which a node is up and has answered everything, or has refused to start.
const LIMIT: Duration = Duration::from_secs(120);
/// Virtual time in which a recovery is over, and its first upkeep done.
const RECOVERY: Duration = Duration::from_secs(1);
const STORAGE_ERROR: i16 = 56;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC: i16 = 3;

/// What became of one thing that clients knew of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Whole,
    /// An error instead of it, that says so.
    Refused(String),
    /// What must never happen.
    Wrong(String),
}

/// How it went.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The broker did not start, and why.
    NotStarted(String),
    /// It serves; whatever is not whole stands here. The last are the lines it logged.
    Serves {
        fates: Vec<(String, Fate)>,
        said: Vec<String>,
    },
    Wrong(String),
}

impl Outcome {
    /// What must never happen, if it did.
    pub fn wrong(&self) -> Option<String> {
        match self {
            Outcome::NotStarted(_) => None,
            Outcome::Wrong(what) => Some(what.clone()),
            Outcome::Serves { fates, .. } => fates.iter().find_map(|(of, fate)| match fate {
                Fate::Wrong(what) => Some(format!("{of}: {what}")),
                _ => None,
            }),
        }
    }

    pub fn is_whole(&self) -> bool {
        matches!(self, Outcome::Serves { fates, .. }
            if fates.iter().all(|(_, fate)| *fate == Fate::Whole))
    }
}

/// Crashes on the way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// Power goes at this operation of the disk, in the middle of the first recovery.
    pub cut_at: Option<u64>,
    /// Power goes again after everything was read once, and all of it is read once more.
    pub cut_after: bool,
}

type Fates = Rc<RefCell<Option<Vec<(String, Fate)>>>>;

/// Starts a broker on `image` and asks for all that is `known`.
pub fn read(image: &DiskImage, known: &Known, seed: u64, plan: Plan) -> Outcome {
    let lines = said::Lines::default();
    let outcome = said::heard(&lines, || {
        catch_unwind(AssertUnwindSafe(|| read_in_world(image, known, seed, plan)))
    });
    match outcome {
        Ok(Outcome::Serves { fates, .. }) => Outcome::Serves { fates, said: lines.take() },
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
            Outcome::Wrong(format!("panic: {text}"))
        }
    }
}

fn read_in_world(image: &DiskImage, known: &Known, seed: u64, plan: Plan) -> Outcome {
    let world = World::new(seed, author::options());
    let refusal = Refusal::default();
    let inside = refusal.clone();
    let node = world.add_node("broker", SHARDS, move |shard| author::broker(shard, inside.clone()));
    world.disk(node).replace(image);
    if let Some(operation) = plan.cut_at {
        world.crash_at_disk_operation(node, operation, CrashKind::PowerCut);
        world.run_until(|world| !world.is_running(node), RECOVERY);
        if refusal.borrow().is_none() && world.is_running(node) {
            // It was up before it came to that operation.
            world.crash_at_disk_operation(node, u64::MAX, CrashKind::PowerCut);
            world.crash(node, CrashKind::PowerCut);
        }
        if refusal.borrow().is_none() {
            world.restart(node);
        }
    }
    let first = ask(&world, node, known, &refusal);
    if !plan.cut_after || !matches!(&first, Outcome::Serves { .. }) {
        return first;
    }
    world.crash(node, CrashKind::PowerCut);
    world.restart(node);
    let second = ask(&world, node, known, &refusal);
    match first.wrong() {
        Some(_) => first,
        None => second,
    }
}

fn ask(world: &World, node: NodeId, known: &Known, refusal: &Refusal) -> Outcome {
    let fates = Fates::default();
    let (inside, all) = (fates.clone(), Rc::new(known.clone()));
    let address = SocketAddr::new(world.address(node), PORT);
    world.add_node("reader", 1, move |shard| reader(shard, address, all.clone(), inside.clone()));
    let over = |_: &World| fates.borrow().is_some() || refusal.borrow().is_some();
    let in_time = world.run_until(over, LIMIT);
    if let Some(refusal) = refusal.borrow_mut().take() {
        return Outcome::NotStarted(refusal);
    }
    if !in_time {
        return Outcome::Wrong("neither an answer nor a refusal to start".to_owned());
    }
    let fates = fates.borrow_mut().take().unwrap_or_default();
    Outcome::Serves { fates, said: Vec::new() }
}

async fn reader(shard: Shard, address: SocketAddr, known: Rc<Known>, fates: Fates) {
    let mut client = wire::connect(&shard, address).await;
    let mut found = Vec::new();
    for number in 0..PARTITIONS {
        let fate = match partition(&shard, &mut client, &known, number).await {
            Ok(fate) => fate,
            Err(Broken(what)) => Fate::Wrong(what),
        };
        found.push((format!("partition {number}"), fate));
    }
    let fate = match offsets(&shard, &mut client, &known).await {
        Ok(fate) => fate,
        Err(Broken(what)) => Fate::Wrong(what),
    };
    found.push(("offsets of the group".to_owned(), fate));
    let fate = match topics(&shard, &mut client, &known).await {
        Ok(fate) => fate,
        Err(Broken(what)) => Fate::Wrong(what),
    };
    found.push(("topics".to_owned(), fate));
    *fates.borrow_mut() = Some(found);
}

fn wrong(what: String) -> Result<Fate, Broken> {
    Ok(Fate::Wrong(what))
}

/// Reads a partition to its end, looks up some of its records by time, and writes to it.
async fn partition(
    shard: &Shard,
    client: &mut Client,
    known: &Known,
    number: usize,
) -> Result<Fate, Broken> {
    let told = &known.partitions[number];
    let asked = number as i32;
    let (code, start) = wire::list_offset(shard, client, TOPIC, asked, -2).await?;
    match code {
        0 => {}
        // Nobody was told that the topic exists.
        UNKNOWN_TOPIC if !known.begun => return Ok(Fate::Whole),
        STORAGE_ERROR => return Ok(Fate::Refused("offline".to_owned())),
        code => return wrong(format!("log start: {code}")),
    }
    if start < told.start || start > told.start_asked.max(told.start) {
        return wrong(format!(
            "log start {start}, told {}, asked {}",
            told.start, told.start_asked
        ));
    }
    let (code, end) = wire::list_offset(shard, client, TOPIC, asked, -1).await?;
    if code != 0 {
        return wrong(format!("log end: {code}"));
    }
    if end < i64::from(told.acknowledged) || end > i64::from(told.sent) {
        let (acknowledged, sent) = (told.acknowledged, told.sent);
        return wrong(format!("log end {end}, acknowledged {acknowledged}, sent {sent}"));
    }
    let mut batches = Vec::new();
    let mut at = start;
    while at < end {
        let (code, _, records) = wire::fetch(shard, client, TOPIC, asked, at).await?;
        match code {
            0 => {}
            STORAGE_ERROR => return Ok(Fate::Refused(format!("offset {at} of {end}"))),
            OFFSET_OUT_OF_RANGE => return wrong(format!("offset {at} of {end} is out of range")),
            code => return wrong(format!("fetch at {at}: {code}")),
        }
        let before = at;
        if let Err(what) = take(records, number, &mut at, &mut batches) {
            return wrong(what);
        }
        if at == before {
            return wrong(format!("nothing at {at} of {end}"));
        }
    }
    times(shard, client, asked, start, &batches).await
}

/// Every record of a fetch is the one that belongs to its partition and offset.
fn take(
    mut records: Bytes,
    partition: usize,
    at: &mut i64,
    batches: &mut Vec<i64>,
) -> Result<(), String> {
    while !records.is_empty() {
        let Ok(batch) = Batch::split_from(&mut records) else { return Ok(()) };
        batch.check_crc().map_err(|error| format!("served at {at}: {error}"))?;
        let unfolded = Unfolded::new(&batch, DECOMPRESSED_MAX_BYTES);
        let unfolded = unfolded.map_err(|error| format!("served at {at}: {error}"))?;
        for record in &unfolded {
            let record = record.map_err(|error| format!("served at {at}: {error}"))?;
            let value = record.value.unwrap_or_default();
            let expected = format!("{} {partition} ", record.offset);
            if !value.starts_with(expected.as_bytes()) {
                let found = String::from_utf8_lossy(&value[..value.len().min(20)]);
                return Err(format!("served at offset {expected:?}: {found:?}"));
            }
        }
        let base = batch.header.base_offset;
        if base > *at || (base < *at && !batches.is_empty()) {
            return Err(format!("offset {base} where {at} is due"));
        }
        batches.push(base);
        *at = batch.header.next_offset();
    }
    Ok(())
}

/// A batch's records have the timestamp of its first: the first record that is not older than some
/// time is the first of a batch.
async fn times(
    shard: &Shard,
    client: &mut Client,
    partition: i32,
    start: i64,
    batches: &[i64],
) -> Result<Fate, Broken> {
    for asked in batches.iter().step_by((batches.len() / 6).max(1)) {
        let time = FIRST_MS + asked;
        let (code, offset) = wire::list_offset(shard, client, TOPIC, partition, time).await?;
        match code {
            0 if offset == *asked.max(&start) => {}
            STORAGE_ERROR => return Ok(Fate::Refused(format!("time of offset {asked}"))),
            code => return wrong(format!("time of offset {asked}: {code}, offset {offset}")),
        }
    }
    Ok(Fate::Whole)
}

async fn offsets(shard: &Shard, client: &mut Client, known: &Known) -> Result<Fate, Broken> {
    let mut answer = (0, -1);
    if known.commit_sent == 0 {
        // Perhaps there is no topic of offsets yet.
        return Ok(Fate::Whole);
    }
    for _ in 0..50 {
        answer = wire::committed(shard, client, TOPIC).await?;
        match answer.0 {
            // Loading, not available, not here: to be asked again.
            14..=16 => shard.sleep(Duration::from_millis(40)).await,
            _ => break,
        }
    }
    let (committed, sent) = (known.committed, known.commit_sent);
    match answer {
        (0, -1) if committed == 0 => Ok(Fate::Whole),
        (0, offset) if offset >= committed.max(1) && offset <= sent => Ok(Fate::Whole),
        (0, offset) => wrong(format!("offset {offset}, acknowledged {committed}, sent {sent}")),
        (code, _) => Ok(Fate::Refused(format!("code {code}"))),
    }
}

async fn topics(shard: &Shard, client: &mut Client, known: &Known) -> Result<Fate, Broken> {
    let there = wire::topics(shard, client).await?;
    for (name, life) in &known.others {
        let found = there.contains(name);
        match life {
            Life::There if !found => return wrong(format!("{name} is gone")),
            Life::Gone if found => return wrong(format!("{name} is back")),
            _ => {}
        }
    }
    if known.begun && !there.contains(&TOPIC.to_owned()) {
        return wrong(format!("{TOPIC} is gone"));
    }
    Ok(Fate::Whole)
}
