//! Clients that lie, stumble or attack: each is answered or closed as Kafka does it, the broker
//! lives on, and a client beside them notices nothing.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};

use crate::clients::read_all;
use crate::support::http::get;
use crate::support::memory::Memory;
use crate::support::wire::{encode, Wire};
use crate::support::Broker;

const TOPIC: &str = "beside";

/// A broker with a topic, and a connection that must go on working whatever others do.
pub struct Scene {
    pub broker: Broker,
    neighbour: Wire,
    produced: i64,
}

impl Scene {
    pub fn new() -> Scene {
        Scene::with(&[])
    }

    pub fn with(arguments: &[&str]) -> Scene {
        let broker = Broker::start_with(arguments);
        let mut neighbour = Wire::connect(broker.port());
        create(&mut neighbour, TOPIC, &[]);
        Scene { broker, neighbour, produced: 0 }
    }

    pub fn stranger(&self) -> Wire {
        Wire::connect(self.broker.port())
    }

    /// The neighbour produces one more record, on the connection it always had.
    pub fn undisturbed(&mut self) {
        self.broker.assert_alive();
        let answer = produce(&mut self.neighbour, TOPIC, batch(&[b"fine"]));
        assert_eq!(answer, (0, self.produced));
        self.produced += 1;
    }
}

impl Scene {
    /// Prints what the neighbour waits for an acknowledged record, with whatever others do; the
    /// figures of scorecard R23, judged by nobody here.
    pub fn print_waits(&mut self, beside: &str) {
        let mut waits: Vec<Duration> = (0..300)
            .map(|_| {
                let began = std::time::Instant::now();
                self.undisturbed();
                began.elapsed()
            })
            .collect();
        waits.sort();
        let (median, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
        println!("R23 {beside}: a neighbour's produce p50 {median:.1?}, p99 {p99:.1?}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.undisturbed();
            let read = read_all(&self.broker.address(), TOPIC);
            assert_eq!(read[&0].len() as i64, self.produced);
        }
    }
}

pub fn create(wire: &mut Wire, topic: &str, configs: &[(&str, &str)]) {
    use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string(name.to_string()))
            .with_value(Some(StrBytes::from_string(value.to_string())))
    });
    let wanted = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
    let answer: CreateTopicsResponse = wire.ask(ApiKey::CreateTopics, 7, &request);
    assert_eq!(answer.topics[0].error_code, 0, "{:?}", answer.topics[0]);
}

pub fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_string()))
}

/// A batch of records without keys, magic 2, uncompressed; the CRC is right.
pub fn batch(values: &[&[u8]]) -> Vec<u8> {
    let mut records = Vec::new();
    for (delta, value) in values.iter().enumerate() {
        let mut record = vec![0]; // attributes
        varint(&mut record, 0); // timestamp delta
        varint(&mut record, delta as i64);
        varint(&mut record, -1); // no key
        varint(&mut record, value.len() as i64);
        record.extend_from_slice(value);
        varint(&mut record, 0); // headers
        varint(&mut records, record.len() as i64);
        records.extend_from_slice(&record);
    }
    batch_of(&records, 0, values.len() as i32)
}

/// A batch around bytes that may be anything; the CRC is right.
pub fn batch_of(records: &[u8], attributes: i16, count: i32) -> Vec<u8> {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&0i64.to_be_bytes()); // base offset
    bytes.extend_from_slice(&(49 + records.len() as i32).to_be_bytes());
    bytes.extend_from_slice(&(-1i32).to_be_bytes()); // partition leader epoch
    bytes.push(2); // magic
    bytes.extend_from_slice(&[0; 4]); // crc
    bytes.extend_from_slice(&attributes.to_be_bytes());
    bytes.extend_from_slice(&(count - 1).to_be_bytes());
    bytes.extend_from_slice(&now.to_be_bytes());
    bytes.extend_from_slice(&now.to_be_bytes());
    bytes.extend_from_slice(&(-1i64).to_be_bytes()); // producer id
    bytes.extend_from_slice(&(-1i16).to_be_bytes()); // producer epoch
    bytes.extend_from_slice(&(-1i32).to_be_bytes()); // base sequence
    bytes.extend_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(records);
    sign(&mut bytes);
    bytes
}

/// Makes the CRC right for whatever the batch says.
fn sign(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

pub fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub fn produce_request(topic: &str, records: Option<Vec<u8>>, acks: i16) -> ProduceRequest {
    let partition =
        PartitionProduceData::default().with_index(0).with_records(records.map(Bytes::from));
    let data =
        TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![data])
}

/// Produces with acks=all; the error code and base offset of the partition.
pub fn produce(wire: &mut Wire, topic: &str, records: Vec<u8>) -> (i16, i64) {
    let request = produce_request(topic, Some(records), -1);
    let answer: ProduceResponse = wire.ask(ApiKey::Produce, 9, &request);
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

#[test]
fn frames_of_impossible_length_close_the_connection() {
    let scene = Scene::new();
    for length in [0i32, -1, i32::MIN, 104_857_601, i32::MAX] {
        let mut wire = scene.stranger();
        wire.send_raw(&length.to_be_bytes());
        wire.assert_closed(&format!("length {length}"));
    }
}

#[test]
fn requests_that_do_not_parse_close_the_connection() {
    let scene = Scene::new();
    let metadata = encode(ApiKey::Metadata, 9, 1, &MetadataRequest::default());
    // Impossible counts: 2^31 - 1 topics (flexible and not), then nothing.
    let mut compact = encode(ApiKey::Metadata, 9, 1, &MetadataRequest::default()).to_vec();
    let topics = compact.len() - 5;
    compact.splice(topics.., [0xff, 0xff, 0xff, 0xff, 0x07]);
    let mut plain = encode(ApiKey::Metadata, 1, 1, &MetadataRequest::default()).to_vec();
    let topics = plain.len() - 4;
    plain.splice(topics.., i32::MAX.to_be_bytes());
    let mut lying = produce_request(TOPIC, Some(batch(&[b"x"])), -1);
    lying.timeout_ms = 1;
    let produce = encode(ApiKey::Produce, 3, 1, &lying);
    for (what, body) in [
        ("half a header", &metadata[..6]),
        ("half a request", &produce[..produce.len() - 5]),
        ("compact count beyond the frame", &compact),
        ("count beyond the frame", &plain),
        ("noise", b"\x00\x03\x00\x09garbage".as_slice()),
    ] {
        let mut wire = scene.stranger();
        wire.send_frame(body);
        wire.assert_closed(what);
    }
}

#[test]
fn unknown_apis_and_versions_close_but_for_api_versions() {
    let scene = Scene::new();
    for (key, version) in [(999i16, 0i16), (-1, 0), (71, 0), (3, 99), (0, 2), (0, 14), (1, 3)] {
        let mut wire = scene.stranger();
        let mut body = Vec::new();
        body.extend_from_slice(&key.to_be_bytes());
        body.extend_from_slice(&version.to_be_bytes());
        body.extend_from_slice(&7i32.to_be_bytes());
        body.extend_from_slice(&(-1i16).to_be_bytes());
        wire.send_frame(&body);
        wire.assert_closed(&format!("key {key} version {version}"));
    }
    let mut wire = scene.stranger();
    wire.send_frame(&[0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff]);
    let mut answer = wire.receive().expect("an answer in version 0");
    assert_eq!(answer.split_to(4), 7i32.to_be_bytes()[..]);
    let response = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
    assert_eq!(response.error_code, 35);
    let own = response.api_keys.iter().find(|api| api.api_key == 18).unwrap();
    assert_eq!((own.min_version, own.max_version), (0, 4));
    // The connection goes on.
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    let response: ApiVersionsResponse = wire.ask(ApiKey::ApiVersions, 3, &request);
    assert_eq!(response.error_code, 0);
}

#[test]
fn half_a_frame_and_a_disconnect_leave_nothing_behind() {
    let scene = Scene::new();
    let request = produce_request(TOPIC, Some(batch(&[b"never whole"])), -1);
    let body = encode(ApiKey::Produce, 9, 1, &request);
    for cut in [0, 1, body.len() / 2, body.len() - 1] {
        let mut wire = scene.stranger();
        wire.send_raw(&(body.len() as i32).to_be_bytes());
        wire.send_raw(&body[..cut]);
    }
}

#[test]
fn a_batch_that_lies_is_refused_alone() {
    let mut scene = Scene::new();
    let mut wire = scene.stranger();
    let patched = |change: &dyn Fn(&mut Vec<u8>), signed: bool| {
        let mut bytes = batch(&[b"one", b"two"]);
        change(&mut bytes);
        if signed {
            sign(&mut bytes);
        }
        bytes
    };
    let put = |bytes: &mut Vec<u8>, at: usize, value: &[u8]| {
        bytes[at..at + value.len()].copy_from_slice(value)
    };
    for (what, expected, bytes) in [
        ("wrong crc", 2, patched(&|b| put(b, 17, &[1, 2, 3, 4]), false)),
        ("flipped byte", 2, patched(&|b| *b.last_mut().unwrap() ^= 1, false)),
        ("magic 1", 87, patched(&|b| b[16] = 1, false)),
        ("magic 9", 2, patched(&|b| b[16] = 9, false)),
        ("cut", 87, patched(&|b| b.truncate(b.len() - 3), false)),
        ("two batches", 87, patched(&|b| b.extend(batch(&[b"three"])), false)),
        ("nothing", 87, Vec::new()),
        ("base offset 5", 87, patched(&|b| put(b, 0, &5i64.to_be_bytes()), true)),
        ("count too high", 87, patched(&|b| put(b, 57, &1000i32.to_be_bytes()), true)),
        ("count 0", 87, patched(&|b| put(b, 57, &0i32.to_be_bytes()), true)),
        ("count below 0", 87, patched(&|b| put(b, 57, &(-1i32).to_be_bytes()), true)),
        ("last offset delta", 87, patched(&|b| put(b, 23, &i32::MAX.to_be_bytes()), true)),
        ("control batch", 87, patched(&|b| put(b, 21, &0x20i16.to_be_bytes()), true)),
        ("sequence -1", 87, patched(&|b| put(b, 43, &7i64.to_be_bytes()), true)),
        (
            "a record more",
            87,
            patched(&|b| (put(b, 23, &[0, 0, 0, 2]), put(b, 57, &[0, 0, 0, 3])).0, true),
        ),
        ("time of tomorrow", 32, patched(&|b| put(b, 27, &i64::MAX.to_be_bytes()), true)),
        ("a transaction", 53, patched(&|b| put(b, 21, &0x10i16.to_be_bytes()), true)),
        ("length 2^31", 2, patched(&|b| put(b, 8, &i32::MIN.to_be_bytes()), false)),
    ] {
        let (code, offset) = produce(&mut wire, TOPIC, bytes);
        assert_eq!((code, offset), (expected, -1), "{what}");
        scene.undisturbed();
    }
    let null = produce_request(TOPIC, None, -1);
    let answer: ProduceResponse = wire.ask(ApiKey::Produce, 9, &null);
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 87, "null records");
}

#[test]
fn a_batch_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let scene = Scene::new();
    let mut wire = scene.stranger();
    create(&mut wire, "small", &[("max.message.bytes", "1000")]);
    let overhead = batch(&[&[0; 500]]).len() - 500;
    let of = |bytes: usize| batch(&[&vec![b'x'; bytes - overhead]]);
    assert_eq!(of(1000).len(), 1000);
    assert_eq!(produce(&mut wire, "small", of(1000)).0, 0);
    assert_eq!(produce(&mut wire, "small", of(1001)).0, 10);
}

#[test]
fn acks_and_places_that_do_not_exist_are_named() {
    let scene = Scene::new();
    let mut wire = scene.stranger();
    let ask = |wire: &mut Wire, request: &ProduceRequest| -> i16 {
        let answer: ProduceResponse = wire.ask(ApiKey::Produce, 9, request);
        answer.responses[0].partition_responses[0].error_code
    };
    let fine = || Some(batch(&[b"x"]));
    assert_eq!(ask(&mut wire, &produce_request(TOPIC, fine(), 2)), 21);
    assert_eq!(ask(&mut wire, &produce_request("unknown", fine(), -1)), 3);
    assert_eq!(ask(&mut wire, &produce_request("a b", fine(), -1)), 3);
    let mut elsewhere = produce_request(TOPIC, fine(), -1);
    elsewhere.topic_data[0].partition_data[0].index = 9;
    assert_eq!(ask(&mut wire, &elsewhere), 3);
    elsewhere.topic_data[0].partition_data[0].index = -1;
    assert_eq!(ask(&mut wire, &elsewhere), 3);
    // Without an answer to put the error in, the connection ends.
    let silent = produce_request("unknown", fine(), 0);
    wire.send_frame(&encode(ApiKey::Produce, 9, 1, &silent));
    wire.assert_closed("acks=0 that failed");
}

#[test]
fn topics_with_bad_names_are_refused() {
    let mut scene = Scene::new();
    let long = "x".repeat(250);
    for bad in ["", ".", "..", "a b", "ä", "a/b", "../../etc/passwd", &long] {
        use kafka_protocol::messages::create_topics_request::CreatableTopic;
        let wanted = CreatableTopic::default()
            .with_name(name(bad))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let request =
            CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
        let mut wire = scene.stranger();
        let answer: CreateTopicsResponse = wire.ask(ApiKey::CreateTopics, 7, &request);
        assert_eq!(answer.topics[0].error_code, 17, "{bad:?}");
        // Asked for by Metadata, with auto-creation.
        use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
        let topic = MetadataRequestTopic::default().with_name(Some(name(bad)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(true);
        let answer: MetadataResponse = wire.ask(ApiKey::Metadata, 9, &request);
        assert_eq!(answer.topics[0].error_code, 17, "{bad:?}");
        scene.undisturbed();
    }
}

#[test]
fn a_tls_hello_closes_and_the_log_says_what_it_was() {
    let scene = Scene::new();
    let mut wire = scene.stranger();
    let mut hello = vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    hello.resize(517, 0x5a);
    wire.send_raw(&hello);
    wire.assert_closed("a TLS hello");
    scene.broker.wait_for_line("TLS client on a plaintext port");
}

/// Ten thousand connections that say nothing, or as many as this process may open.
#[test]
fn thousands_of_idle_connections_are_cheap() {
    let mut scene = Scene::new();
    let connections = raise_open_files().saturating_sub(600).min(10_000);
    scene.print_waits("alone");
    let before = Memory::of(scene.broker.process()).resident_bytes;
    let wires: Vec<Wire> = (0..connections)
        .map(|nth| {
            Wire::connect_from(Ipv4Addr::new(127, 0, 1, (nth % 5) as u8), scene.broker.port())
        })
        .collect();
    scene.undisturbed();
    let open = || {
        let metrics = get(scene.broker.port(), "/metrics").body;
        let values = metrics.lines().filter_map(|l| l.strip_prefix("chronik_connections{"));
        values.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    // The kernel answers for a listener before its shard accepts.
    let deadline = Instant::now() + Duration::from_secs(20);
    while open() < connections as f64 {
        assert!(Instant::now() < deadline, "{} of {connections}", open());
        thread::sleep(Duration::from_millis(50));
    }
    scene.print_waits(&format!("with {connections} idle connections"));
    let grown = Memory::of(scene.broker.process()).resident_bytes.saturating_sub(before);
    let each = grown / connections;
    println!("{connections} idle connections: {} MiB, {each} bytes each", grown >> 20);
    assert!(each < IDLE_CONNECTION_BYTES, "{each} bytes for each of {connections}");
    drop(wires);
    scene.undisturbed();
}

/// What an idle connection may cost; 30,000 bytes were measured.
const IDLE_CONNECTION_BYTES: u64 = 48 << 10;

/// Raises this process's limit of open files as far as it may; gives the limit.
fn raise_open_files() -> u64 {
    use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    hard.unwrap_or(1 << 20)
}

#[test]
fn clients_that_trickle_or_never_read_disturb_nobody() {
    let mut scene = Scene::new();
    let mut slow: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, scene.broker.port())).unwrap())
        .collect();
    // One frame of 100 MiB announced on each, a few bytes at a time.
    for stream in &mut slow {
        stream.write_all(&104_857_600i32.to_be_bytes()).unwrap();
    }
    for _ in 0..3 {
        for stream in &mut slow {
            stream.write_all(b"x").unwrap();
        }
        scene.undisturbed();
    }
    // Requests without end from one who never reads an answer.
    let mut deaf = TcpStream::connect((Ipv4Addr::LOCALHOST, scene.broker.port())).unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let all = encode(ApiKey::Metadata, 9, 1, &MetadataRequest::default().with_topics(None));
    let mut frame = (all.len() as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(&all);
    let requests = frame.repeat(1000);
    for _ in 0..200 {
        if deaf.write_all(&requests).is_err() {
            break;
        }
    }
    scene.print_waits("with 100 that trickle and one that never reads");
    let resident = Memory::of(scene.broker.process()).resident_bytes;
    assert!(resident < 512 << 20, "{resident} bytes resident");
}

#[test]
fn a_full_disk_refuses_writes_and_serves_reads() {
    let mut broker = Broker::start();
    let mut wire = Wire::connect(broker.port());
    create(&mut wire, TOPIC, &[]);
    assert_eq!(produce(&mut wire, TOPIC, batch(&[b"before"])), (0, 0));
    broker.terminate();
    // More than any disk has: the reserve is always touched.
    broker.restart_with(&["--disk-reserve-bytes", "8000000 TiB"]);
    let mut wire = Wire::connect(broker.port());
    let (code, _) = produce(&mut wire, TOPIC, batch(&[b"refused"]));
    assert_eq!(code, 56, "KAFKA_STORAGE_ERROR, which clients retry");
    assert_eq!(read_all(&broker.address(), TOPIC)[&0].len(), 1);
    broker.terminate();
    broker.restart_with(&[]);
    let mut wire = Wire::connect(broker.port());
    assert_eq!(produce(&mut wire, TOPIC, batch(&[b"after"])), (0, 1));
}
