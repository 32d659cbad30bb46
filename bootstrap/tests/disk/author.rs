//! The run that everything here starts from: a broker with a small log, and clients that produce,
//! commit offsets, delete records, create and delete topics, all at once.
//!
//! Small files and a round of flushes every 64 KiB, so that the run passes log files, recycling,
//! closed and open segments, checkpoints and indexes within a second or two of virtual time. One
//! batch in ten is staged: it goes to its segment at once, and the log only points to it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use chronik_bootstrap as bootstrap;
use rt::sim::{NodeId, World, WorldOptions};
use rt::Shard;
use shards::config::Settings;
use shards::meta;
use shards::options::{FlushMode, Options};

use crate::known::{Known, Life, PARTITIONS, TOPIC};
use crate::wire::{self, Broken};

pub const PORT: u16 = 9092;
pub const SHARDS: u16 = 2;
const IN_FLIGHT: usize = 5;
/// Three of the longer records, or one of the longest.
const STAGED_MIN_BYTES: u32 = 12_000;
const LONGER: usize = 5_000;
const LONGEST: usize = 12_000;
/// Batches that follow for each partition when [`Known::more`] is set.
const MORE: u32 = 8;
/// Timestamps of the first records: a segment is closed after 40 records.
pub const FIRST_MS: i64 = 1_700_000_000_000;

pub type Shared = Rc<RefCell<Known>>;

/// How much is written.
#[derive(Clone, Copy)]
pub struct Size {
    pub records: u32,
    pub commits: i64,
    pub topics: u32,
    /// Changes of the topic's configuration: 512 commands make a metadata snapshot.
    pub alterations: u32,
}

/// What a broker said when it did not start.
pub type Refusal = Rc<RefCell<Option<String>>>;

pub fn broker_options() -> Options {
    let mut options = Options::new(meta::NodeId(1), PathBuf::from("/data"));
    let settings = [("offsets.topic.num.partitions", "2")];
    options.settings =
        settings.iter().fold(Settings::new(meta::NodeId(1)), |settings, (name, value)| {
            settings.with(name, value).expect("a known setting")
        });
    options.wal_flush = FlushMode::Fdatasync;
    options.wal_file_bytes = Some(128 << 10);
    options.wal_budget_bytes = 2 << 20;
    options.cache_bytes = 64 << 10;
    options.staged_min_bytes = STAGED_MIN_BYTES;
    options.disk_reserve_bytes = 0;
    options
}

pub async fn broker(shard: Shard, refusal: Refusal) {
    match bootstrap::start(&shard, &Arc::new(broker_options()), |_| {}).await {
        Ok(_broker) => std::future::pending::<()>().await,
        Err(error) => {
            refusal.borrow_mut().get_or_insert(error.to_string());
            shard.stop_node();
        }
    }
}

pub fn options() -> WorldOptions {
    // One poll at a time: every boundary of the disk is seen.
    WorldOptions { disk_bytes: 1 << 30, tasks_per_turn_max: 1, ..WorldOptions::default() }
}

/// A world with a broker and the clients of a run; `Known::ended` reaches [`CLIENTS`] at its end,
/// and one more for each partition when those are through that `Known::more` lets go.
pub fn world(seed: u64, size: Size) -> (World, NodeId, Shared) {
    let world = World::new(seed, options());
    let refusal = Refusal::default();
    let node = world.add_node("broker", SHARDS, move |shard| broker(shard, refusal.clone()));
    let address = SocketAddr::new(world.address(node), PORT);
    let known = Shared::default();
    let shared = known.clone();
    world.add_node("clients", 1, move |shard| clients(shard, address, size, shared.clone()));
    (world, node, known)
}

pub const CLIENTS: usize = PARTITIONS + 3;

async fn clients(shard: Shard, address: SocketAddr, size: Size, known: Shared) {
    let mut client = wire::connect(&shard, address).await;
    let configs = [
        ("segment.ms", "40"),
        ("segment.bytes", "1048576"),
        ("index.interval.bytes", "256"),
        ("retention.ms", "-1"),
    ];
    let created = wire::create_topic(&shard, &mut client, TOPIC, PARTITIONS as i32, &configs).await;
    if !matches!(created, Ok(0)) {
        known.borrow_mut().failed = Some(format!("creating the topic: {created:?}"));
        return;
    }
    known.borrow_mut().begun = true;
    for number in 0..size.alterations {
        let value = if number % 2 == 0 { "10000000" } else { "20000000" };
        let altered = wire::alter_topic(&shard, &mut client, TOPIC, "retention.bytes", value).await;
        if !matches!(altered, Ok(0)) {
            known.borrow_mut().failed = Some(format!("altering the topic: {altered:?}"));
            return;
        }
    }
    for partition in 0..PARTITIONS {
        let work = produce(shard.clone(), address, partition, size, known.clone());
        run(&shard, &known, work);
        run(&shard, &known, produce_more(shard.clone(), address, partition, known.clone()));
    }
    run(&shard, &known, commit(shard.clone(), address, size, known.clone()));
    run(&shard, &known, delete_records(shard.clone(), address, size, known.clone()));
    run(&shard, &known, come_and_go(shard.clone(), address, size, known.clone()));
    std::future::pending::<()>().await
}

fn run(shard: &Shard, known: &Shared, work: impl Future<Output = Result<(), Broken>> + 'static) {
    let known = known.clone();
    let task = async move {
        let outcome = work.await;
        let mut known = known.borrow_mut();
        known.ended += 1;
        if let Err(Broken(what)) = outcome {
            known.failed.get_or_insert(what);
        }
    };
    shard.spawn(task).detach();
}

fn expect(code: i16, what: &str) -> Result<(), Broken> {
    match code {
        0 => Ok(()),
        code => Err(Broken(format!("{what}: {code}"))),
    }
}

/// How many records the batch has that begins with this one, and their length: in every partition
/// the same, so that their segments agree in all but what the records say.
fn sizes(first: u32) -> (u32, usize) {
    let dice = u64::from(first + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let padding = match dice / 3 % 12 {
        0 => LONGEST,
        1 | 2 => LONGER,
        _ => 300,
    };
    (1 + (dice % 3) as u32, padding)
}

/// Five batches in flight, each of one to three records.
async fn produce(
    shard: Shard,
    address: SocketAddr,
    partition: usize,
    size: Size,
    known: Shared,
) -> Result<(), Broken> {
    let mut client = wire::connect(&shard, address).await;
    let id = wire::init_producer(&shard, &mut client).await?;
    let mut window = VecDeque::new();
    loop {
        let sent = known.borrow().partitions[partition].sent;
        if window.len() < IN_FLIGHT && sent < size.records {
            let (count, padding) = sizes(sent);
            known.borrow_mut().partitions[partition].sent += count;
            let time = FIRST_MS + i64::from(sent);
            let bytes = wire::batch(id, partition, sent, count, padding, time);
            let request = wire::produce(TOPIC, partition as i32, bytes);
            let sending = client.send(&request, wire::PRODUCE_VERSION).await;
            sending.map_err(|error| Broken(error.to_string()))?;
            window.push_back((sent, count));
            continue;
        }
        let Some((first, count)) = window.pop_front() else { return Ok(()) };
        let (code, offset) = wire::produced(&shard, &mut client).await?;
        expect(code, "produce")?;
        assert_eq!(offset, i64::from(first), "an offset is a record's value");
        known.borrow_mut().partitions[partition].acknowledged = first + count;
        if shard.random().is_multiple_of(3) {
            shard.sleep(Duration::from_micros(shard.random() % 8000)).await;
        }
    }
}

/// Batches that are staged, one after the other; the first of them makes room for the others.
async fn produce_more(
    shard: Shard,
    address: SocketAddr,
    partition: usize,
    known: Shared,
) -> Result<(), Broken> {
    while !known.borrow().more {
        shard.sleep(Duration::from_millis(20)).await;
    }
    let mut client = wire::connect(&shard, address).await;
    let id = wire::init_producer(&shard, &mut client).await?;
    for _ in 0..MORE {
        let first = known.borrow().partitions[partition].sent;
        known.borrow_mut().partitions[partition].sent += 1;
        let time = FIRST_MS + i64::from(first);
        let bytes = wire::batch(id, partition, first, 1, LONGEST, time);
        let request = wire::produce(TOPIC, partition as i32, bytes);
        let sending = client.send(&request, wire::PRODUCE_VERSION).await;
        sending.map_err(|error| Broken(error.to_string()))?;
        expect(wire::produced(&shard, &mut client).await?.0, "produce")?;
        known.borrow_mut().partitions[partition].acknowledged = first + 1;
        shard.sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn commit(
    shard: Shard,
    address: SocketAddr,
    size: Size,
    known: Shared,
) -> Result<(), Broken> {
    let mut client = wire::connect(&shard, address).await;
    // A coordinator that is not there yet, or loads, is asked again.
    while wire::find_coordinator(&shard, &mut client).await? != 0 {
        shard.sleep(Duration::from_millis(5)).await;
    }
    while wire::committed(&shard, &mut client, TOPIC).await?.0 != 0 {
        shard.sleep(Duration::from_millis(5)).await;
    }
    for offset in 1..=size.commits {
        known.borrow_mut().commit_sent = offset;
        expect(wire::commit(&shard, &mut client, TOPIC, offset).await?, "commit")?;
        known.borrow_mut().committed = offset;
        shard.sleep(Duration::from_micros(shard.random() % 30_000)).await;
    }
    Ok(())
}

async fn delete_records(
    shard: Shard,
    address: SocketAddr,
    size: Size,
    known: Shared,
) -> Result<(), Broken> {
    let mut client = wire::connect(&shard, address).await;
    // Of one partition only: the others keep all they ever had.
    let done = || known.borrow().partitions[0].acknowledged >= size.records;
    while !done() {
        shard.sleep(Duration::from_millis(60)).await;
        let to = i64::from(known.borrow().partitions[0].acknowledged) / 3;
        known.borrow_mut().partitions[0].start_asked = to;
        let (code, start) = wire::delete_records(&shard, &mut client, TOPIC, 0, to).await?;
        expect(code, "DeleteRecords")?;
        known.borrow_mut().partitions[0].start = start;
    }
    Ok(())
}

/// Topics that live for a moment.
async fn come_and_go(
    shard: Shard,
    address: SocketAddr,
    size: Size,
    known: Shared,
) -> Result<(), Broken> {
    let mut client = wire::connect(&shard, address).await;
    let set = |name: &str, life| known.borrow_mut().others.insert(name.to_owned(), life);
    for number in 0..size.topics {
        let name = format!("passing{number}");
        set(&name, Life::Creating);
        expect(wire::create_topic(&shard, &mut client, &name, 2, &[]).await?, "create")?;
        set(&name, Life::There);
        let id = wire::init_producer(&shard, &mut client).await?;
        for first in 0..3 {
            let request = wire::produce(&name, 1, wire::batch(id, 1, first, 1, 6000, FIRST_MS));
            let sending = client.send(&request, wire::PRODUCE_VERSION).await;
            sending.map_err(|error| Broken(error.to_string()))?;
            expect(wire::produced(&shard, &mut client).await?.0, "produce")?;
        }
        shard.sleep(Duration::from_millis(40)).await;
        if number % 2 == 0 {
            set(&name, Life::Deleting);
            expect(wire::delete_topic(&shard, &mut client, &name).await?, "delete")?;
            set(&name, Life::Gone);
        }
    }
    Ok(())
}
