//! The client nodes of a world: producers, consumers, a group that commits, a last reader.
//!
//! Each goes on for ever: what fails is tried again over a new connection. They never panic; what
//! must not happen goes to the history.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use net::client::Client;
use rt::Shard;

use crate::history::{History, PARTITIONS};
use crate::wire::{self, Broken};

pub type Shared = Rc<RefCell<History>>;

/// Requests of one producer in flight, as Kafka's own have at most.
const IN_FLIGHT: usize = 5;
const OUT_OF_ORDER: i16 = 45;
const FENCED: i16 = 47;
const OUT_OF_RANGE: i16 = 1;

struct Pending {
    first: u32,
    count: u32,
    bytes: Bytes,
}

pub async fn producer(shard: Shard, address: SocketAddr, number: u32, history: Shared) {
    let (idempotent, partition) = {
        let history = history.borrow();
        let own = &history.producers[number as usize];
        (own.idempotent, own.partition)
    };
    let mut id = None;
    let mut window = VecDeque::new();
    loop {
        let mut client = wire::connect(&shard, address).await;
        if idempotent && id.is_none() {
            id = wire::init_producer(&shard, &mut client).await.ok();
            if id.is_none() {
                continue;
            }
        }
        let plan =
            Plan { number, id, partition, in_flight: if idempotent { IN_FLIGHT } else { 1 } };
        match pump(&shard, &mut client, &plan, &mut window, &history).await {
            Ok(()) => break,
            Err(Broken) => shard.sleep(Duration::from_millis(30)).await,
        }
    }
    history.borrow_mut().finished += 1;
}

struct Plan {
    number: u32,
    id: Option<i64>,
    partition: i32,
    in_flight: usize,
}

/// Sends what is unanswered again, then more, until the clients are to finish.
async fn pump(
    shard: &Shard,
    client: &mut Client,
    plan: &Plan,
    window: &mut VecDeque<Pending>,
    history: &Shared,
) -> Result<(), Broken> {
    let mut sent = 0;
    loop {
        while window.len() < plan.in_flight && !history.borrow().finish {
            window.push_back(next_batch(shard, plan, history));
        }
        while sent < window.len() {
            let request = wire::produce(plan.partition, window[sent].bytes.clone());
            client.send(&request, wire::PRODUCE_VERSION).await.map_err(|_| Broken)?;
            sent += 1;
        }
        let Some(first) = window.front() else { return Ok(()) };
        match wire::produced(shard, client).await? {
            (0, offset) => {
                let mut history = history.borrow_mut();
                history.acknowledge(plan.number, first.first, first.count, offset);
                window.pop_front();
                sent -= 1;
            }
            (code @ (OUT_OF_ORDER | FENCED), _) => {
                let what = format!("producer {} got {code} at {}", plan.number, first.first);
                history.borrow_mut().violate(what);
                return Err(Broken);
            }
            (code, _) => {
                history.borrow_mut().refused = format!("produce {code}");
                return Err(Broken);
            }
        }
        if shard.random().is_multiple_of(4) {
            shard.sleep(Duration::from_micros(shard.random() % 3000)).await;
        }
    }
}

fn next_batch(shard: &Shard, plan: &Plan, history: &Shared) -> Pending {
    let count = 1 + (shard.random() % 3) as u32;
    let padding = match shard.random() % 8 {
        0 => 6000,
        1..4 => 900,
        _ => 20,
    };
    let first = {
        let own = &mut history.borrow_mut().producers[plan.number as usize];
        own.sent += count;
        own.sent - count
    };
    let bytes = wire::batch(plan.number, plan.id, first, count, padding);
    Pending { first, count, bytes }
}

pub async fn consumer(shard: Shard, address: SocketAddr, number: u32, history: Shared) {
    let mut positions = vec![0; PARTITIONS as usize];
    let with_session = number.is_multiple_of(2);
    loop {
        let mut client = wire::connect(&shard, address).await;
        let mut session = (0, if with_session { 0 } else { -1 });
        loop {
            if shard.random().is_multiple_of(16) {
                positions.fill(0);
            }
            let fetched = wire::fetch(&shard, &mut client, &positions, session, 16 << 10).await;
            let Ok(answer) = fetched else { break };
            if answer.error_code != 0 {
                break;
            }
            if with_session {
                session = (answer.session_id, session.1 + 1);
            }
            take(&answer, &mut positions, number, &history);
            let pause = shard.random() % 20_000;
            shard.sleep(Duration::from_micros(pause)).await;
        }
        shard.sleep(Duration::from_millis(25)).await;
    }
}

/// Follows a fetch's answer. True if every partition was read to its high watermark.
fn take(
    answer: &kafka_protocol::messages::FetchResponse,
    positions: &mut [i64],
    reader: u32,
    history: &Shared,
) -> bool {
    let mut history = history.borrow_mut();
    let mut ends = 0;
    for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
        let number = partition.partition_index;
        let Some(position) = positions.get_mut(number as usize) else { continue };
        if partition.error_code == OUT_OF_RANGE {
            history.violate(format!("offset {position} of partition {number} is out of range"));
        }
        if partition.error_code != 0 {
            continue;
        }
        history.watermark(reader, number, partition.high_watermark);
        let bytes = partition.records.clone().unwrap_or_default();
        let (next, values) = history.records(number, *position, bytes);
        if reader == LAST_READER {
            history.whole.entry(number).or_default().extend(values);
        }
        if next > partition.high_watermark {
            history.violate(format!("partition {number} gave records past its watermark"));
        }
        *position = next;
        ends += i32::from(next == partition.high_watermark);
    }
    ends == PARTITIONS
}

const LAST_READER: u32 = u32::MAX;

/// Reads the whole log once.
pub async fn last_reader(shard: Shard, address: SocketAddr, history: Shared) {
    let mut positions = vec![0; PARTITIONS as usize];
    let mut client = wire::connect(&shard, address).await;
    loop {
        match wire::fetch(&shard, &mut client, &positions, (0, -1), 64 << 10).await {
            Ok(answer) if take(&answer, &mut positions, LAST_READER, &history) => break,
            Ok(_) => {}
            Err(Broken) => client = wire::connect(&shard, address).await,
        }
    }
    history.borrow_mut().finished += 1;
}

/// Commits ever larger offsets of one group, and asks for them after every interruption.
pub async fn committer(shard: Shard, address: SocketAddr, history: Shared) {
    loop {
        let mut client = wire::connect(&shard, address).await;
        match commits(&shard, &mut client, &history).await {
            Ok(()) => break,
            Err(Broken) => shard.sleep(Duration::from_millis(40)).await,
        }
    }
    history.borrow_mut().finished += 1;
}

async fn commits(shard: &Shard, client: &mut Client, history: &Shared) -> Result<(), Broken> {
    let code = wire::coordinator(shard, client).await?;
    if code != 0 {
        history.borrow_mut().refused = format!("coordinator {code}");
        return Err(Broken);
    }
    loop {
        let offset = wire::committed(shard, client).await?;
        history.borrow_mut().offset_fetched(offset);
        if history.borrow().finish {
            return Ok(());
        }
        for _ in 0..1 + shard.random() % 4 {
            let next = {
                let mut history = history.borrow_mut();
                history.attempted += 1;
                history.attempted
            };
            let code = wire::commit(shard, client, next).await?;
            if code != 0 {
                history.borrow_mut().refused = format!("commit {code}");
                return Err(Broken);
            }
            history.borrow_mut().committed = next;
            shard.sleep(Duration::from_micros(shard.random() % 8000)).await;
        }
    }
}
