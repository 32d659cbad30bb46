//! How long does a fetch at the tail take? A client in this process asks a whole broker over
//! loopback, and what it asks for lies in the tail cache: one small batch, and a megabyte.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{mpsc, Arc};
use std::time::Duration;

use bytes::Bytes;
use criterion::Criterion;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, MetadataRequest, ProduceRequest, ResponseHeader,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use net::client::encode_frame;
use rt::{uring, Shard};
use shards::meta::NodeId;
use shards::options::Options;

use crate::batch::of_values;

const TOPIC: TopicName = TopicName(StrBytes::from_static_str("fetched"));
const PATIENCE: Duration = Duration::from_secs(60);
const BATCH_BYTES: usize = 16 << 10;
/// More than the largest fetch below, and less than the cache.
const BATCHES: usize = 128;
const METADATA_VERSION: i16 = 9;
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fetch");
    for (name, max_bytes) in [("one batch of 16 KiB", 1), ("1 MiB", 1 << 20)] {
        group.bench_function(name, |bencher| {
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
            let mut client = Client::of_a_filled_broker(folder.path());
            let request = encoded(&fetch(max_bytes), FETCH_VERSION);
            client.check_fetch(&request, max_bytes);
            bencher.iter(|| client.exchange(&request).len());
        });
    }
    group.finish();
}

/// A node of one shard, stopped and joined when dropped.
struct Node(Option<uring::Running>);

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.stop();
            if let Err(error) = running.join() {
                eprintln!("the node ended with: {error}");
            }
        }
    }
}

/// The one connection to a node of its own.
struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
    _node: Node,
}

impl Client {
    fn of_a_filled_broker(folder: &Path) -> Client {
        let (node, port) = start(folder);
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.set_nodelay(true).expect("an option");
        let mut client = Client { stream, answer: Vec::new(), _node: node };
        let asked = MetadataRequestTopic::default().with_name(Some(TOPIC));
        let create = MetadataRequest::default()
            .with_topics(Some(vec![asked]))
            .with_allow_auto_topic_creation(true);
        let created = client.call(&create, METADATA_VERSION);
        assert_eq!(created.topics[0].error_code, 0);
        let request = produce();
        for _ in 0..BATCHES {
            let answer = client.call(&request, PRODUCE_VERSION);
            assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        }
        client
    }

    /// Sends a frame; gives the answer's, without its length.
    fn exchange(&mut self, frame: &[u8]) -> &[u8] {
        self.stream.write_all(frame).expect("sent");
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("an answer");
        self.answer.resize(u32::from_be_bytes(length) as usize, 0);
        self.stream.read_exact(&mut self.answer).expect("a whole answer");
        &self.answer
    }

    fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let mut answer = Bytes::copy_from_slice(self.exchange(&encoded(request, version)));
        let header_version = R::Response::header_version(version);
        ResponseHeader::decode(&mut answer, header_version).expect("a header");
        R::Response::decode(&mut answer, version).expect("an answer")
    }

    /// What is going to be timed brings as much as it should.
    fn check_fetch(&mut self, frame: &[u8], max_bytes: i32) {
        let mut answer = Bytes::copy_from_slice(self.exchange(frame));
        let header_version = FetchResponse::header_version(FETCH_VERSION);
        ResponseHeader::decode(&mut answer, header_version).expect("a header");
        let answer = FetchResponse::decode(&mut answer, FETCH_VERSION).expect("an answer");
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        let bytes = partition.records.as_ref().map_or(0, Bytes::len);
        let (one, most) = (of_values(BATCH_BYTES).bytes.len(), max_bytes as usize);
        // Whole batches, and the first one whatever its size.
        assert!(bytes >= one && bytes + one > most, "{bytes} of {most} bytes");
    }
}

/// Starts a node with an empty folder; gives its port.
fn start(folder: &Path) -> (Node, u16) {
    let mut options = Options::new(NodeId(1), folder.to_path_buf());
    options.bind_addr = Ipv4Addr::LOCALHOST.into();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    options.kafka_port = free.expect("a free port").port();
    options.wal_budget_bytes = 256 << 20;
    options.disk_reserve_bytes = 0;
    let options = Arc::new(options);
    let (ready, heard) = mpsc::channel();
    let main = move |shard: Shard| {
        let (options, ready) = (options.clone(), ready.clone());
        async move {
            let on_ready = move |started: bootstrap::Ready| {
                ready.send(started.kafka_port).expect("the bench waits");
            };
            let started = bootstrap::start(&shard, &options, on_ready).await;
            let _broker = started.expect("the node starts");
            std::future::pending::<()>().await
        }
    };
    let launch = uring::Options { shards: Some(1), cpus: Some(Vec::new()) };
    let node = Node(Some(uring::launch(launch, main).expect("io_uring is there")));
    let port = heard.recv_timeout(PATIENCE).expect("the node is ready");
    (node, port)
}

fn produce() -> ProduceRequest {
    let records = of_values(BATCH_BYTES).bytes;
    let data = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(TOPIC).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// From the first offset, without a session.
fn fetch(max_bytes: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(0)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_partition_max_bytes(max_bytes);
    let topic = FetchTopic::default().with_topic(TOPIC).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(max_bytes)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

fn encoded<R: Request>(request: &R, version: i16) -> Bytes {
    encode_frame(&StrBytes::from_static_str("bench"), 0, request, version).expect("a request")
}
