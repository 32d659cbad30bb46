//! What a produce request allocates on the shard that serves it, from socket to log, under a
//! counting allocator.
//!
//! The figures of a request do not depend on how many records its batch holds, and the payload gets
//! memory twice: in the socket's buffer and in the log's. A test binary of its own with one test,
//! so that nothing else runs on the shard that is counted. `--nocapture` prints the figures.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{mpsc, Arc};
use std::time::Duration;

use bytes::Bytes;
use chronik_bootstrap as bootstrap;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{MetadataRequest, ProduceRequest, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use net::builder::BatchBuilder;
use net::client::encode_frame;
use rt::uring;
use rt::Shard;
use shards::meta::NodeId;
use shards::options::Options;

/// Counts the allocations of threads that asked for it.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: usize) {
    // A thread that ends allocates when its variables are gone.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system allocator with its own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the pointer came from `alloc` above with this layout.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TOPIC: TopicName = TopicName(StrBytes::from_static_str("counted"));
const PATIENCE: Duration = Duration::from_secs(60);
/// Record bytes of a request, however many records they are cut into.
const PAYLOAD_BYTES: usize = 512_000;
const ROUNDS: usize = 12;
const REQUESTS_PER_ROUND: u64 = 25;

/// A node of one shard on io_uring; it ends with the process of this test.
fn start_node(folder: &std::path::Path) -> u16 {
    let mut options = Options::new(NodeId(1), folder.to_path_buf());
    options.bind_addr = Ipv4Addr::LOCALHOST.into();
    // The binary claims a port before any shard listens; here a free one is good enough.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    options.kafka_port = free.expect("a free port").port();
    options.wal_budget_bytes = 256 << 20;
    options.disk_reserve_bytes = 0;
    let options = Arc::new(options);
    let (ready, heard) = mpsc::channel();
    let main = move |shard: Shard| {
        let (options, ready) = (options.clone(), ready.clone());
        async move {
            IS_COUNTED.set(true);
            let on_ready = move |started: bootstrap::Ready| {
                ready.send(started.kafka_port).expect("the test waits");
            };
            let started = bootstrap::start(&shard, &options, on_ready).await;
            let _broker = started.expect("the node starts");
            std::future::pending::<()>().await
        }
    };
    let launch = uring::Options { shards: Some(1), cpus: Some(Vec::new()) };
    let running = uring::launch(launch, main).expect("io_uring is there");
    std::thread::spawn(move || running.join());
    heard.recv_timeout(PATIENCE).expect("the node is ready")
}

fn frame<R: Request>(request: &R, version: i16) -> Bytes {
    encode_frame(&StrBytes::from_static_str("count"), 0, request, version).expect("a request")
}

fn exchange<R: Request>(stream: &mut TcpStream, frame: &[u8], version: i16) -> R::Response {
    stream.write_all(frame).expect("sent");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("a whole answer");
    let mut answer = Bytes::from(answer);
    ResponseHeader::decode(&mut answer, R::Response::header_version(version)).expect("a header");
    R::Response::decode(&mut answer, version).expect("an answer that can be decoded")
}

fn create(stream: &mut TcpStream) {
    let asked = MetadataRequestTopic::default().with_name(Some(TOPIC));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![asked]))
        .with_allow_auto_topic_creation(true);
    let answer = exchange::<MetadataRequest>(stream, &frame(&request, 9), 9);
    assert_eq!(answer.topics[0].error_code, 0);
}

/// A produce of one batch with so many records.
fn produce(records: usize, payload_bytes: usize) -> Bytes {
    let value = vec![b'x'; payload_bytes / records];
    let batch = (0..records)
        .fold(BatchBuilder::new(), |batch, _| batch.record(1_000, None, Some(&value)))
        .build();
    let data = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(batch.expect("a batch").bytes));
    let topic = TopicProduceData::default().with_name(TOPIC).with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    frame(&request, 9)
}

/// What one request costs the shard.
#[derive(Clone, Copy, Debug)]
struct Cost {
    allocations: f64,
    bytes: f64,
}

/// The cheapest of some rounds: flush rounds and other background work fall into some of them.
fn cost(stream: &mut TcpStream, records: usize, payload_bytes: usize) -> Cost {
    let frame = produce(records, payload_bytes);
    let round = || {
        let before = (ALLOCATIONS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
        for _ in 0..REQUESTS_PER_ROUND {
            let answer = exchange::<ProduceRequest>(stream, &frame, 9);
            let told = &answer.responses[0].partition_responses[0];
            assert_eq!(told.error_code, 0, "{told:?}");
        }
        let after = (ALLOCATIONS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
        let each = |before, after| (after - before) as f64 / REQUESTS_PER_ROUND as f64;
        Cost { allocations: each(before.0, after.0), bytes: each(before.1, after.1) }
    };
    let rounds: Vec<Cost> = std::iter::repeat_with(round).take(ROUNDS).skip(1).collect();
    let least = |of: fn(&Cost) -> f64| rounds.iter().map(of).fold(f64::INFINITY, f64::min);
    let cost = Cost { allocations: least(|c| c.allocations), bytes: least(|c| c.bytes) };
    println!(
        "produce of {records} records in {} bytes: {:.1} allocations, {:.2} bytes for each byte",
        frame.len(),
        cost.allocations,
        cost.bytes / frame.len() as f64
    );
    cost
}

#[test]
fn a_produce_allocates_nothing_per_record_and_has_room_for_its_payload_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = start_node(folder.path());
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.set_nodelay(true).expect("an option");
    create(&mut stream);
    cost(&mut stream, 1, 100);
    let one = cost(&mut stream, 1, PAYLOAD_BYTES);
    let many = cost(&mut stream, 4_000, PAYLOAD_BYTES);
    // How many reads and wake-ups a request takes varies a little.
    let more = many.allocations - one.allocations;
    assert!(more < 100.0, "3,999 records more cost {more} allocations more");
    let copies = many.bytes / PAYLOAD_BYTES as f64;
    assert!(copies < 2.5, "memory for {copies} payloads: one copy too many");
}
