//! Produce against a log that is full at times, in the simulator: it waits for room, in order, and
//! is refused only when its time is over.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chronik_bootstrap as bootstrap;
use kafka_protocol::messages::ProduceRequest;
use net::builder::BatchBuilder;
use net::client::Client;
use rt::sim::{CrashKind, NodeId, World, WorldOptions};
use rt::Shard;
use shards::config::Settings;
use shards::meta;
use shards::options::Options;

use crate::talk::{self, create, produce_request, told, LIMIT, PORT, PRODUCE_VERSION};

const DISK_BYTES: u64 = 1 << 30;
const PARTITIONS: i32 = 2;
const TIMEOUT_MS: i32 = 4000;
/// Requests in flight of each producer, as Kafka's own has them.
const IN_FLIGHT: usize = 5;

/// Four files of 128 KiB.
fn options() -> Options {
    let mut options = Options::new(meta::NodeId(1), PathBuf::from("/data"));
    let settings = Settings::new(meta::NodeId(1));
    options.settings = settings.with("num.partitions", "2").expect("a known setting");
    options.wal_file_bytes = Some(128 << 10);
    options.wal_budget_bytes = 512 << 10;
    options.disk_reserve_bytes = 0;
    options
}

/// The most appends that waited at once.
type Waiting = Rc<Cell<usize>>;

fn world(seed: u64) -> (World, NodeId, SocketAddr, Waiting) {
    let options_of_world = WorldOptions { disk_bytes: DISK_BYTES, ..WorldOptions::default() };
    let world = World::new(seed, options_of_world);
    let most: Waiting = Rc::default();
    let seen = most.clone();
    let node = world.add_node("broker", 1, move |shard| {
        let seen = seen.clone();
        async move {
            let started = bootstrap::start(&shard, &Arc::new(options()), |_| {}).await;
            let broker = started.expect("the node starts");
            loop {
                seen.set(seen.get().max(broker.backlog().waiting()));
                shard.sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let address = SocketAddr::new(world.address(node), PORT);
    (world, node, address, most)
}

async fn connect(shard: &Shard, address: SocketAddr) -> Client {
    let mut client = talk::connect(shard, address).await;
    create(&mut client).await;
    client
}

/// One record of `bytes` bytes, with its sequence as an idempotent producer numbers it.
fn batch(producer: i64, sequence: i32, bytes: usize) -> Bytes {
    let value = vec![sequence as u8; bytes];
    let builder = BatchBuilder::new().producer(producer, 0, sequence);
    builder.record(1_000, None, Some(&value)).build().expect("a batch").bytes
}

/// The next answer: code and offset.
async fn answer(client: &mut Client) -> (i16, i64) {
    let response = client.receive::<ProduceRequest>(PRODUCE_VERSION).await;
    let told = told(response.expect("an answer"));
    (told.error_code, told.base_offset)
}

/// Ten times the budget, pipelined by several producers: what comes too fast waits, nobody is
/// refused, and no sequence is out of order.
#[test]
fn what_comes_too_fast_waits_for_its_turn() {
    for seed in 0..3 {
        let (world, _, address, most) = world(seed);
        let done = Rc::new(Cell::new(0));
        for producer in 0..4 {
            let done = done.clone();
            world.add_node(&format!("producer {producer}"), 1, move |shard: Shard| {
                let done = done.clone();
                async move {
                    let mut client = connect(&shard, address).await;
                    let partition = (producer % i64::from(PARTITIONS)) as i32;
                    let (mut sent, mut last) = (0, -1);
                    for told in 0..40 {
                        while sent < 40 && sent - told < IN_FLIGHT as i32 {
                            let records = batch(producer, sent, 32_000);
                            let request = produce_request(partition, TIMEOUT_MS, records);
                            client.send(&request, PRODUCE_VERSION).await.expect("sent");
                            sent += 1;
                        }
                        let (error, offset) = answer(&mut client).await;
                        assert_eq!(error, 0, "producer {producer}, sequence {told}");
                        assert!(offset > last, "offset {offset} after {last}");
                        last = offset;
                    }
                    done.set(done.get() + 1);
                }
            });
        }
        assert!(world.run_until(|_| done.get() == 4, LIMIT), "seed {seed}: produce hangs");
        assert!(most.get() > 0, "seed {seed}: nothing ever waited");
    }
}

/// With a full disk nothing leaves the log. A produce then ends in its time with an error that
/// says that nothing was appended, and the same sequences are taken when there is space again.
#[test]
fn who_waits_in_vain_is_told_in_time_and_taken_later() {
    let (world, node, address, most) = world(7);
    let refused = Rc::new(RefCell::new(Vec::new()));
    let taken = Rc::new(Cell::new(0));
    let (errors, count) = (refused.clone(), taken.clone());
    world.add_node("producer", 1, move |shard: Shard| {
        let (errors, count) = (errors.clone(), count.clone());
        async move {
            let mut client = connect(&shard, address).await;
            let mut next = 0;
            while next < 60 {
                let began = shard.now();
                let request = produce_request(0, TIMEOUT_MS, batch(9, next, 32_000));
                client.send(&request, PRODUCE_VERSION).await.expect("sent");
                let (error, offset) = answer(&mut client).await;
                match error {
                    0 => {
                        assert_eq!(offset, i64::from(next));
                        next += 1;
                        count.set(next);
                    }
                    _ => {
                        let took = shard.now().saturating_since(began);
                        assert!(took < Duration::from_millis(TIMEOUT_MS as u64), "{took:?}");
                        errors.borrow_mut().push(error);
                    }
                }
            }
        }
    });
    assert!(world.run_until(|_| taken.get() > 0, LIMIT), "produce hangs");
    let space = world.disk(node).space();
    world.disk(node).set_capacity(space.total_bytes - space.available_bytes);
    assert!(world.run_until(|_| refused.borrow().len() >= 2, LIMIT), "nobody is refused");
    assert!(most.get() > 0, "it was refused without a wait");
    world.disk(node).set_capacity(DISK_BYTES);
    assert!(world.run_until(|_| taken.get() == 60, LIMIT), "no data is taken again");
    // NOT_ENOUGH_REPLICAS: retriable, nothing was appended.
    assert!(refused.borrow().iter().all(|error| *error == 19), "{:?}", refused.borrow());
}

/// A log whose files are of another size with every start.
fn world_of_files(partitions: &str) -> (World, NodeId, SocketAddr, Rc<Cell<u64>>) {
    let world = World::new(11, WorldOptions::default());
    let file_bytes = Rc::new(Cell::new(128 << 10));
    let (wanted, partitions) = (file_bytes.clone(), partitions.to_owned());
    let node = world.add_node("broker", 1, move |shard| {
        let mut options = options();
        options.wal_file_bytes = Some(wanted.get());
        options.wal_budget_bytes = 4 * wanted.get();
        options.settings = options.settings.with("num.partitions", &partitions).expect("known");
        async move {
            let started = bootstrap::start(&shard, &Arc::new(options), |_| {}).await;
            let _broker = started.expect("the node starts");
            std::future::pending::<()>().await
        }
    });
    let address = SocketAddr::new(world.address(node), PORT);
    (world, node, address, file_bytes)
}

/// Produces such batches, one after the other, each until it is taken.
fn pour(world: &World, address: SocketAddr, batches: Vec<(i32, usize)>) {
    let done = Rc::new(Cell::new(false));
    let over = done.clone();
    world.add_node("producer", 1, move |shard: Shard| {
        let (over, batches) = (over.clone(), batches.clone());
        async move {
            let mut client = connect(&shard, address).await;
            for (partition, bytes) in batches {
                loop {
                    let records = batch(-1, -1, bytes);
                    let request = produce_request(partition, TIMEOUT_MS, records);
                    client.send(&request, PRODUCE_VERSION).await.expect("sent");
                    match answer(&mut client).await {
                        (0, _) => break,
                        told => assert_eq!(told.0, 19, "NOT_ENOUGH_REPLICAS"),
                    }
                }
            }
            over.set(true);
        }
    });
    assert!(world.run_until(|_| done.get(), LIMIT), "produce is refused for ever");
}

/// The last batch of a partition stays in the log while a part of it fills no block. Here it is
/// longer than the files of the next start.
#[test]
fn a_budget_may_shrink_below_what_is_in_use() {
    let (world, node, address, file_bytes) = world_of_files("2");
    file_bytes.set(1 << 20);
    pour(&world, address, vec![(0, 600_000)]);
    world.crash(node, CrashKind::Kill);
    file_bytes.set(128 << 10);
    world.restart(node);
    pour(&world, address, vec![(1, 32_000); 60]);
    // And grow.
    world.crash(node, CrashKind::Kill);
    file_bytes.set(1 << 20);
    world.restart(node);
    pour(&world, address, vec![(1, 32_000); 200]);
}

/// The last batches of all partitions are more than the budget.
#[test]
fn what_stays_in_the_log_holds_nothing_up() {
    let (world, _, address, _) = world_of_files("40");
    let last = (0..40).map(|partition| (partition, 30_000));
    pour(&world, address, last.chain([(0, 30_000); 40]).collect());
}
