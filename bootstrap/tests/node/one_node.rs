//! One node of several shards in a simulated world, and a client that speaks the wire format.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chronik_bootstrap as bootstrap;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest};
use net::builder::BatchBuilder;
use net::client::Client;
use rt::sim::{CrashKind, World, WorldOptions};
use rt::Shard;
use shards::backlog::Begun;
use shards::broker::Broker;
use shards::meta::NodeId;
use shards::node::{self, META_OWNER};
use shards::options::{Acknowledge, Options};
use shards::partition::AppendError;

use crate::talk::{self, connect, create, delete_records, topic, LIMIT, PORT};

async fn start(shard: &Shard, acknowledge: Acknowledge) -> Broker {
    let mut options = Options::new(NodeId(1), PathBuf::from("/data"));
    options.wal_budget_bytes = 64 << 20;
    options.disk_reserve_bytes = 0;
    options.acknowledge = acknowledge;
    let started = bootstrap::start(shard, &Arc::new(options), |_| {}).await;
    started.expect("the node starts")
}

async fn broker(shard: Shard, acknowledge: Acknowledge) {
    let _broker = start(&shard, acknowledge).await;
    std::future::pending::<()>().await
}

async fn produce(client: &mut Client, value: &str) -> (i16, i64) {
    let batch = BatchBuilder::new().record(1_000, None, Some(value.as_bytes()));
    let batch = batch.build().expect("a batch").bytes;
    let told = talk::produce(client, batch).await;
    (told.error_code, told.base_offset)
}

async fn fetch(client: &mut Client, offset: i64) -> Bytes {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic()).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let response = client.call(&request, 12).await.expect("an answer");
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.records.clone().expect("never null")
}

fn world(seed: u64, shards: u16) -> (World, rt::sim::NodeId, SocketAddr) {
    world_that_answers(seed, shards, Acknowledge::Durable)
}

fn world_that_answers(
    seed: u64,
    shards: u16,
    acknowledge: Acknowledge,
) -> (World, rt::sim::NodeId, SocketAddr) {
    let world = World::new(seed, WorldOptions::default());
    let node = world.add_node("broker", shards, move |shard| broker(shard, acknowledge));
    let address = SocketAddr::new(world.address(node), PORT);
    (world, node, address)
}

#[test]
fn what_was_acknowledged_is_read_back_after_a_power_cut() {
    for seed in 0..4 {
        let (world, node, address) = world(seed, 2);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let count = acknowledged.clone();
        world.add_node("producer", 1, move |shard: Shard| {
            let count = count.clone();
            async move {
                let mut client = connect(&shard, address).await;
                create(&mut client).await;
                for n in 0..50 {
                    let (error, offset) = produce(&mut client, &format!("value {n}")).await;
                    assert_eq!((error, offset), (0, n));
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let done = acknowledged.clone();
        assert!(world.run_until(|_| done.load(Ordering::SeqCst) == 50, LIMIT), "produce hangs");
        world.crash(node, CrashKind::PowerCut);
        world.run_for(Duration::from_millis(100));
        world.restart(node);
        let read = Arc::new(AtomicU64::new(0));
        let reading = read.clone();
        world.add_node("consumer", 1, move |shard: Shard| {
            let read = reading.clone();
            async move {
                let mut client = connect(&shard, address).await;
                while read.load(Ordering::SeqCst) < 50 {
                    let offset = read.load(Ordering::SeqCst) as i64;
                    let mut records = fetch(&mut client, offset).await;
                    while !records.is_empty() {
                        let batch = net::batch::Batch::split_from(&mut records).expect("whole");
                        batch.check_crc().expect("intact");
                        assert_eq!(batch.header.base_offset as u64, read.load(Ordering::SeqCst));
                        read.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        });
        let all = read.clone();
        assert!(world.run_until(|_| all.load(Ordering::SeqCst) == 50, LIMIT), "records missing");
    }
}

#[test]
fn the_port_is_reachable_only_when_the_node_serves() {
    let (world, _, address) = world(1, 1);
    assert_eq!(address.ip().is_ipv4(), IpAddr::V4(Ipv4Addr::LOCALHOST).is_ipv4());
    let served = Arc::new(AtomicU64::new(0));
    let flag = served.clone();
    world.add_node("client", 1, move |shard: Shard| {
        let flag = flag.clone();
        async move {
            let mut client = connect(&shard, address).await;
            create(&mut client).await;
            flag.store(1, Ordering::SeqCst);
        }
    });
    assert!(world.run_until(|_| served.load(Ordering::SeqCst) == 1, LIMIT));
}

/// How long one write to the disk takes in the test below.
const SLOW: Duration = Duration::from_secs(1);

/// Produces one record on a disk that is slow from then on. Gives how long its answer took, and how
/// many bytes could be read behind the record before it, half a second after the answer.
fn produce_on_a_slow_disk(
    world: &World,
    node: rt::sim::NodeId,
    address: SocketAddr,
) -> (Duration, usize) {
    // 0: not yet. 1: the first record is in. 2: the disk is slow. 3: done.
    let stage = Arc::new(AtomicU64::new(0));
    let (took_ns, readable) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let shared = (stage.clone(), took_ns.clone(), readable.clone());
    world.add_node("producer", 1, move |shard: Shard| {
        let (stage, took_ns, readable) = shared.clone();
        async move {
            let mut client = connect(&shard, address).await;
            create(&mut client).await;
            assert_eq!(produce(&mut client, "before").await, (0, 0));
            stage.store(1, Ordering::SeqCst);
            while stage.load(Ordering::SeqCst) < 2 {
                shard.sleep(Duration::from_millis(1)).await;
            }
            let began = shard.now();
            assert_eq!(produce(&mut client, "slow").await, (0, 1));
            took_ns.store((shard.now() - began).as_nanos() as u64, Ordering::SeqCst);
            readable.store(fetch(&mut client, 1).await.len() as u64, Ordering::SeqCst);
            stage.store(3, Ordering::SeqCst);
        }
    });
    let reached = |wanted| {
        let stage = stage.clone();
        move |_: &World| stage.load(Ordering::SeqCst) == wanted
    };
    assert!(world.run_until(reached(1), LIMIT), "the first produce hangs");
    let mut faults = world.disk(node).faults();
    faults.slow_by_ns = SLOW.as_nanos() as u64;
    world.disk(node).set_faults(faults);
    stage.store(2, Ordering::SeqCst);
    assert!(world.run_until(reached(3), LIMIT), "the produce hangs");
    let took = Duration::from_nanos(took_ns.load(Ordering::SeqCst));
    (took, readable.load(Ordering::SeqCst) as usize)
}

#[test]
fn a_durable_answer_waits_for_the_disk_and_a_relaxed_one_does_not() {
    let (world, node, address) = world(3, 1);
    let (took, readable) = produce_on_a_slow_disk(&world, node, address);
    assert!(took >= SLOW, "answered after {took:?}");
    assert!(readable > 0, "what is answered is committed");

    for seed in 0..4 {
        let (world, node, address) = world_that_answers(seed, 1, Acknowledge::Relaxed);
        let (took, readable) = produce_on_a_slow_disk(&world, node, address);
        assert!(took < SLOW, "answered after {took:?}");
        // Raft is told what is durable and nothing else, so consumers wait.
        assert_eq!(readable, 0, "a record that is not durable was shown");
        let mut faults = world.disk(node).faults();
        faults.slow_by_ns = 0;
        world.disk(node).set_faults(faults);
        // The answered record may be lost. What is there afterwards is a log without a gap.
        world.crash(node, CrashKind::PowerCut);
        world.restart(node);
        let read = Arc::new(AtomicU64::new(0));
        let reading = read.clone();
        world.add_node("reader", 1, move |shard: Shard| {
            let read = reading.clone();
            async move {
                let mut client = connect(&shard, address).await;
                let (error, next) = produce(&mut client, "after").await;
                assert!(error == 0 && (next == 1 || next == 2), "{error} {next}");
                let mut batches = 0;
                while batches <= next {
                    let mut records = fetch(&mut client, batches).await;
                    while !records.is_empty() {
                        let batch = net::batch::Batch::split_from(&mut records).expect("whole");
                        batch.check_crc().expect("intact");
                        assert_eq!(batch.header.base_offset, batches);
                        batches += 1;
                    }
                }
                read.store(1, Ordering::SeqCst);
            }
        });
        let done = read.clone();
        assert!(world.run_until(|_| done.load(Ordering::SeqCst) == 1, LIMIT), "seed {seed}");
    }
}

/// Replay gives a partition many entries at once: a log start among them moves it past records
/// that came just before.
#[test]
fn deleted_records_stay_deleted_after_a_power_cut() {
    let (world, node, address) = world(2, 1);
    let deleted = Arc::new(AtomicU64::new(0));
    let flag = deleted.clone();
    world.add_node("deleter", 1, move |shard: Shard| {
        let flag = flag.clone();
        async move {
            let mut client = connect(&shard, address).await;
            create(&mut client).await;
            for offset in 0..3 {
                assert_eq!(produce(&mut client, "value").await, (0, offset));
            }
            let answer = delete_records(&mut client, 2).await;
            assert_eq!((answer.error_code, answer.low_watermark), (0, 2));
            flag.store(1, Ordering::SeqCst);
        }
    });
    assert!(world.run_until(|_| deleted.load(Ordering::SeqCst) == 1, LIMIT));
    world.crash(node, CrashKind::PowerCut);
    world.restart(node);
    let flag = deleted.clone();
    world.add_node("reader", 1, move |shard: Shard| {
        let flag = flag.clone();
        async move {
            let mut client = connect(&shard, address).await;
            assert_eq!(log_start(&mut client).await, 2);
            flag.store(2, Ordering::SeqCst);
        }
    });
    assert!(world.run_until(|_| deleted.load(Ordering::SeqCst) == 2, LIMIT));
}

async fn log_start(client: &mut Client) -> i64 {
    let partition = ListOffsetsPartition::default().with_timestamp(-2);
    let topic = ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let response = client.call(&request, 5).await.expect("an answer");
    let answer = &response.topics[0].partitions[0];
    assert_eq!(answer.error_code, 0);
    answer.offset
}

/// The broker of a node that has stopped.
type Stopped = Rc<Cell<Option<Broker>>>;

/// A node that starts, and stops in order when it is told to; then its broker is handed over.
fn world_that_stops() -> (World, rt::sim::NodeId, Rc<Cell<bool>>, Stopped) {
    let world = World::new(5, WorldOptions::default());
    let (asked, stopped) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(None)));
    let (stop, broker) = (asked.clone(), stopped.clone());
    let node = world.add_node("broker", 1, move |shard| {
        let (stop, stopped) = (stop.clone(), broker.clone());
        async move {
            let broker = start(&shard, Acknowledge::Durable).await;
            while !stop.get() {
                shard.sleep(Duration::from_millis(10)).await;
            }
            node::stop(broker.clone(), Duration::from_secs(2)).await;
            stopped.set(Some(broker));
            std::future::pending::<()>().await
        }
    });
    (world, node, asked, stopped)
}

#[test]
fn work_that_comes_after_a_stop_in_order_is_no_failure() {
    let (world, _, asked, stopped) = world_that_stops();
    world.run_for(Duration::from_secs(1));
    asked.set(true);
    world.run_for(Duration::from_secs(3));
    let broker = stopped.take().expect("it has stopped");
    broker.groups().remove(META_OWNER).expect_err("the log takes no more");
    // A node that took this for a failure would panic.
    world.run_for(Duration::from_secs(1));
}

/// With `flush = relaxed` a producer may be answered before the entry had its turn.
#[test]
fn what_was_taken_just_before_a_stop_in_order_is_there_after_it() {
    let world = World::new(6, WorldOptions::default());
    let (asked, stopped) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let (stop, done) = (asked.clone(), stopped.clone());
    let node = world.add_node("broker", 1, move |shard| {
        let (stop, done) = (stop.clone(), done.clone());
        async move {
            let broker = start(&shard, Acknowledge::Relaxed).await;
            while !stop.get() {
                shard.sleep(Duration::from_millis(10)).await;
            }
            let partition = broker.placement().partitions().remove(0);
            let batch = BatchBuilder::new().record(1_000, None, Some(b"last")).build();
            let begun = broker.backlog().append(&partition, &batch.expect("a batch"));
            assert!(matches!(begun, Ok(Begun::Appended(at)) if at.base_offset == 1));
            node::stop(broker.clone(), Duration::from_secs(2)).await;
            let late = BatchBuilder::new().record(1_000, None, Some(b"late")).build();
            let refused = broker.backlog().append(&partition, &late.expect("a batch"));
            assert!(matches!(refused, Err(AppendError::NotLeader)));
            done.set(true);
            std::future::pending::<()>().await
        }
    });
    let address = SocketAddr::new(world.address(node), PORT);
    let steps = Arc::new(AtomicU64::new(0));
    let reached = |step| {
        let steps = steps.clone();
        move |_: &World| steps.load(Ordering::SeqCst) == step
    };
    let flag = steps.clone();
    world.add_node("client", 1, move |shard: Shard| {
        let flag = flag.clone();
        async move {
            let mut client = connect(&shard, address).await;
            create(&mut client).await;
            assert_eq!(produce(&mut client, "first").await, (0, 0));
            flag.store(1, Ordering::SeqCst);
            while flag.load(Ordering::SeqCst) == 1 {
                shard.sleep(Duration::from_millis(10)).await;
            }
            let mut client = connect(&shard, address).await;
            assert!(!fetch(&mut client, 1).await.is_empty(), "the last record is lost");
            flag.store(3, Ordering::SeqCst);
        }
    });
    assert!(world.run_until(reached(1), LIMIT));
    asked.set(true);
    assert!(world.run_until(|_| stopped.get(), LIMIT), "the node does not stop");
    world.crash(node, CrashKind::PowerCut);
    asked.set(false);
    world.restart(node);
    steps.store(2, Ordering::SeqCst);
    assert!(world.run_until(reached(3), LIMIT), "the record is not served");
}

#[test]
fn a_flush_that_does_not_end_in_time_does_not_harm_the_stop() {
    let (world, node, asked, stopped) = world_that_stops();
    let address = SocketAddr::new(world.address(node), PORT);
    let produced = Arc::new(AtomicU64::new(0));
    let flag = produced.clone();
    world.add_node("producer", 1, move |shard: Shard| {
        let flag = flag.clone();
        async move {
            let mut client = connect(&shard, address).await;
            create(&mut client).await;
            assert_eq!(produce(&mut client, &"x".repeat(9000)).await, (0, 0));
            flag.store(1, Ordering::SeqCst);
        }
    });
    assert!(world.run_until(|_| produced.load(Ordering::SeqCst) == 1, LIMIT));
    let mut faults = world.disk(node).faults();
    faults.slow_by_ns = 3 * SLOW.as_nanos() as u64;
    world.disk(node).set_faults(faults);
    // A round begins by itself, and does not end before the log has stopped.
    world.run_for(Duration::from_secs(6));
    asked.set(true);
    world.run_for(Duration::from_secs(60));
    assert!(stopped.take().is_some(), "the node does not stop");
}

#[test]
fn a_log_that_fails_while_the_node_stops_is_a_failure() {
    let (world, node, asked, stopped) = world_that_stops();
    world.run_for(Duration::from_secs(1));
    let mut faults = world.disk(node).faults();
    faults.fail_next_write = Some(5);
    world.disk(node).set_faults(faults);
    asked.set(true);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run_for(Duration::from_secs(3))));
    let panic = ended.expect_err("it must not end as if all were well");
    let text = panic.downcast_ref::<String>().map_or("", String::as_str);
    assert!(text.contains("the write-ahead log has failed"), "{text}");
    assert!(stopped.take().is_none());
}
