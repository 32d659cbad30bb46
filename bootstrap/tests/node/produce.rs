//! What a produce is told by one node in a simulated world, where the answer depends on the log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use bytes::Bytes;
use chronik_bootstrap as bootstrap;
use net::builder::BatchBuilder;
use net::client::Client;
use rt::sim::{World, WorldOptions};
use rt::Shard;
use shards::meta::NodeId;
use shards::options::Options;

use crate::talk::{self, connect, create, delete_records, LIMIT, PORT};

async fn broker(shard: Shard) {
    let mut options = Options::new(NodeId(1), PathBuf::from("/data"));
    options.wal_budget_bytes = 64 << 20;
    options.disk_reserve_bytes = 0;
    let started = bootstrap::start(&shard, &Arc::new(options), |_| {}).await;
    let _broker = started.expect("the node starts");
    std::future::pending::<()>().await
}

/// Error code, base offset and log start.
async fn produce(client: &mut Client, batch: Bytes) -> (i16, i64, i64) {
    let told = talk::produce(client, batch).await;
    (told.error_code, told.base_offset, told.log_start_offset)
}

fn batch(builder: BatchBuilder) -> Bytes {
    let builder = builder.record(0, None, Some(b"one")).record(0, None, Some(b"two"));
    builder.build().expect("a batch").bytes
}

async fn conversation(client: &mut Client) {
    create(client).await;
    let good = || batch(BatchBuilder::new());
    assert_eq!(produce(client, good()).await, (0, 0, 0));
    assert_eq!(produce(client, good()).await, (0, 2, 0));
    assert_eq!(delete_records(client, 3).await.error_code, 0);
    assert_eq!(produce(client, good()).await, (0, 4, 3));
    // Found without a look at the log.
    assert_eq!(produce(client, Bytes::new()).await, (87, -1, -1));
    assert_eq!(produce(client, batch(BatchBuilder::new().transactional())).await, (53, -1, -1));
    // Found where Kafka has the log at hand.
    let displaced = batch(BatchBuilder::new().base_offset(1));
    assert_eq!(produce(client, displaced).await, (87, -1, 3));
    let mut late = BatchBuilder::new();
    late.push(i64::MAX, None, None, &[]);
    assert_eq!(produce(client, late.build().expect("a batch").bytes).await, (32, -1, 3));
    let out_of_order = batch(BatchBuilder::new().producer(7, 0, 5));
    assert_eq!(
        produce(client, out_of_order).await,
        (0, 6, 3),
        "an unknown producer starts anywhere"
    );
    let out_of_order = batch(BatchBuilder::new().producer(7, 0, 9));
    assert_eq!(produce(client, out_of_order).await, (45, -1, 3));
}

#[test]
fn a_refusal_tells_the_log_start_when_kafkas_does() {
    let world = World::new(1, WorldOptions::default());
    let node = world.add_node("broker", 2, broker);
    let address = SocketAddr::new(world.address(node), PORT);
    let over = Arc::new(AtomicBool::new(false));
    let flag = over.clone();
    world.add_node("client", 1, move |shard: Shard| {
        let flag = flag.clone();
        async move {
            conversation(&mut connect(&shard, address).await).await;
            flag.store(true, Ordering::SeqCst);
        }
    });
    assert!(world.run_until(|_| over.load(Ordering::SeqCst), LIMIT), "the conversation hangs");
}
