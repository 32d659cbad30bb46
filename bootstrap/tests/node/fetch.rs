//! How often a fetch that waits reads its partitions, by one node in a simulated world.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use chronik_bootstrap as bootstrap;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};
use net::builder::BatchBuilder;
use rt::sim::{World, WorldOptions};
use rt::Shard;
use shards::broker::Broker;
use shards::meta::NodeId;
use shards::options::Options;

use crate::talk::{connect, create, produce_request, told, topic, LIMIT, PORT, PRODUCE_VERSION};

/// Partitions of one shard.
const PARTITIONS: [i32; 2] = [1, 3];

/// One of each shard.
type Started = Rc<RefCell<Vec<Broker>>>;

async fn broker(shard: Shard, started: Started) {
    let mut options = Options::new(NodeId(1), PathBuf::from("/data"));
    options.settings = options.settings.with("num.partitions", "4").expect("a known setting");
    options.wal_budget_bytes = 64 << 20;
    options.disk_reserve_bytes = 0;
    let broker = bootstrap::start(&shard, &Arc::new(options), |_| {}).await;
    started.borrow_mut().push(broker.expect("the node starts"));
    std::future::pending::<()>().await
}

fn batch(bytes: usize) -> Bytes {
    BatchBuilder::new().record(0, None, Some(&vec![7; bytes])).build().expect("a batch").bytes
}

/// The partitions from their beginning, the second one for less than its batch is long.
fn request(min_bytes: i32, max_bytes: i32) -> FetchRequest {
    let partition = |number, max_bytes| {
        FetchPartition::default()
            .with_partition(number)
            .with_current_leader_epoch(-1)
            .with_last_fetched_epoch(-1)
            .with_partition_max_bytes(max_bytes)
    };
    let partitions = vec![partition(PARTITIONS[0], 1 << 20), partition(PARTITIONS[1], 100)];
    let topic = FetchTopic::default().with_topic(topic()).with_partitions(partitions);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(min_bytes)
        .with_max_bytes(max_bytes)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// A batch of each partition, and a fetch of both that has room for the first one only. Gives how
/// often that one was read.
fn reads(request: FetchRequest) -> u64 {
    let world = World::new(1, WorldOptions::default());
    let started = Started::default();
    let inside = started.clone();
    let node = world.add_node("broker", 2, move |shard| broker(shard, inside.clone()));
    let address = SocketAddr::new(world.address(node), PORT);
    let answered = Rc::new(Cell::new(false));
    let flag = answered.clone();
    world.add_node("client", 1, move |shard: Shard| {
        let (flag, request) = (flag.clone(), request.clone());
        async move {
            let mut client = connect(&shard, address).await;
            create(&mut client).await;
            for (partition, bytes) in PARTITIONS.into_iter().zip([10, 1000]) {
                let produce = produce_request(partition, 5000, batch(bytes));
                let response = client.call(&produce, PRODUCE_VERSION).await.expect("an answer");
                assert_eq!(told(response).error_code, 0);
            }
            let mut response = client.call(&request, 12).await.expect("an answer");
            let partitions = response.responses.remove(0).partitions;
            let bytes = |n: usize| partitions[n].records.as_ref().map(Bytes::len);
            assert_eq!((bytes(0), bytes(1)), (Some(batch(10).len()), Some(0)));
            flag.set(true);
        }
    });
    let read = |_: &World| {
        let brokers = started.borrow();
        let partitions = brokers.iter().flat_map(|broker| broker.placement().partitions());
        let mut first = partitions.filter(|one| one.borrow().identity().partition == PARTITIONS[0]);
        let bytes = first.next().map_or(0, |one| one.borrow().traffic().bytes_out.get());
        bytes / batch(10).len() as u64
    };
    // Whoever spins over two shards ends here, too; on one alone nothing else would ever run.
    assert!(world.run_until(|world| answered.get() || read(world) > 100, LIMIT), "no answer");
    read(&world)
}

/// Once when it comes, once when its time is over: that there is no room for a batch is no reason
/// to look again.
#[test]
fn a_fetch_waits_for_more_than_it_had_no_room_for() {
    assert_eq!(reads(request(1 << 19, 1 << 20)), 2);
}

/// As Kafka has it: what cannot become more is enough.
#[test]
fn a_fetch_does_not_wait_for_more_than_it_takes() {
    let room = batch(10).len() as i32;
    assert_eq!(reads(request(room + 1, room)), 1);
}
