//! What the encoders of this tree write, as seeds for mutations and fuzzers.
//!
//! The same on every machine: no clock, nothing random. The seeds of `wal` were taken from a running
//! broker once.

use bytes::Bytes;
use net::builder::BatchBuilder;
use net::compress::Codec;
use net::registry;
use net::schema::sample::{sample, Palette};
use raft::eraftpb::{Message, MessageType};
use rt::Shard;
use shards::groups::records::{GroupValue, MemberValue, OffsetKey, OffsetValue, Record};
use shards::log::{
    encode_block, ActiveCheckpoint, ClosedFacts, EmptyEntry, EpochList, IndexEntry, LastBatch,
    LogCheckpoint, Offset, PartitionIdentity, Position, SegmentMap,
};
use shards::meta::{Command, Endpoint, NewTopic, NodeId, State, TopicId};
use shards::partition::control::Control;
use shards::partition::producers::{BatchInfo, ProducerStates};
use uuid::Uuid;
use wal::{GroupId, Index, Term, Wal};

use crate::entries::worlds::{self, FILES, REACHED_BYTES, WAL_OPTIONS};

/// (decoder, name, bytes)
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut seeds = requests();
    seeds.push(("batch", "plain", plain_batch()));
    seeds.push(("checkpoint", "active", checkpoint().encode(&IDENTITY)));
    let closed = LogCheckpoint { active: None, ..checkpoint() };
    seeds.push(("checkpoint", "closed", closed.encode(&IDENTITY)));
    seeds.push(("map", "open", map(None).encode(&IDENTITY)));
    seeds.push(("map", "closed", map(Some(FACTS)).encode(&IDENTITY)));
    seeds.push(("raft_checkpoint", "one-voter", raft_checkpoint()));
    seeds.push(("raft_message", "heartbeat", raft_message()));
    let mut state = State::new();
    for (name, command) in commands() {
        seeds.push(("command", name, command.encode(1_700_000_000_000).to_vec()));
        let _ = state.apply(command, 1_700_000_000_000);
    }
    seeds.push(("snapshot", "small", state.snapshot().to_vec()));
    for (name, record) in offsets() {
        let (key, value) = record.encode();
        let bytes = [&[key.len() as u8][..], &key, &value.unwrap_or_default()].concat();
        seeds.push(("offsets", name, bytes));
    }
    seeds.push(("index", "two-blocks", index()));
    seeds.push(("producers", "two", producers()));
    seeds.push(("control", "log-start", Control::LogStart(42).encode().to_vec()));
    seeds.push(("subscription", "two-topics", subscription()));
    seeds.extend(folder());
    seeds.push(("segment", "closed", segment()));
    seeds.push(("replay", "a-leader-of-one", replay()));
    seeds.extend(connections());
    seeds
}

/// Seeds that another version of a library would write otherwise: stored, and not compared.
pub fn compressed() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let folded = |codec: Codec| {
        let mut builder = BatchBuilder::new().codec(codec).producer(9, 3, 20);
        for nth in 0..20 {
            builder.push(1_700_000_000_000 + nth, Some(b"key"), Some(&[b'v'; 40]), &[]);
        }
        ("batch", codec.name(), builder.build().expect("a batch").bytes.to_vec())
    };
    [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].map(folded).into()
}

const IDENTITY: PartitionIdentity = PartitionIdentity {
    topic: [7; 16],
    partition: 3,
    owner: wal::Owner { group: GroupId(0), replica: wal::ReplicaId(0) },
};

/// The newest version of every request, two of everything.
fn requests() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let blob = plain_batch();
    let palette = Palette { strings: &["topic", "group"], blobs: &[&blob] };
    let request = |api: &'static registry::Api| {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(api.key as i16).to_be_bytes());
        bytes.extend_from_slice(&api.max.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 1, 0, 2, b'i', b'd']);
        if api.is_flexible(api.max) {
            bytes.push(0);
        }
        bytes.extend_from_slice(&sample(api, api.max, &[2, 1], &palette).expect("a shape"));
        ("request", REQUESTS[(api.key as usize) % REQUESTS.len()], bytes)
    };
    registry::advertised().filter(|api| (api.key as usize) < REQUESTS.len()).map(request).collect()
}

/// Names by API key.
const REQUESTS: [&str; 24] = [
    "produce",
    "fetch",
    "list_offsets",
    "metadata",
    "4",
    "5",
    "6",
    "7",
    "offset_commit",
    "offset_fetch",
    "find_coordinator",
    "join_group",
    "heartbeat",
    "leave_group",
    "sync_group",
    "describe_groups",
    "list_groups",
    "sasl_handshake",
    "api_versions",
    "create_topics",
    "delete_topics",
    "delete_records",
    "init_producer_id",
    "offset_for_leader_epoch",
];

fn plain_batch() -> Vec<u8> {
    let builder = BatchBuilder::new().producer(9, 3, 20);
    let builder = builder.record(1_700_000_000_000, Some(b"key"), Some(b"value"));
    let headers: [(&str, Option<&[u8]>); 2] = [("name", Some(b"header")), ("none", None)];
    let builder = builder.record_with_headers(1_700_000_000_005, None, None, &headers);
    builder.build().expect("a batch").bytes.to_vec()
}

fn checkpoint() -> LogCheckpoint {
    let mut epochs = EpochList::new();
    epochs.assign(6, Offset(3));
    epochs.assign(9, Offset(40));
    LogCheckpoint {
        flushed_index: Index(77),
        flushed_term: Term(9),
        next_offset: Offset(50),
        log_start: Offset(3),
        active: Some(ActiveCheckpoint {
            base_offset: Offset(30),
            first_index: Index(60),
            first_term: Term(6),
            sealed: Position(8000),
            written: Position(8192),
            batches: 17,
            first_timestamp: 5,
            max_timestamp: 99,
            max_timestamp_offset: Offset(44),
            last: Some(LastBatch { position: Position(7900), crc: 0x0102_0304 }),
        }),
        epochs,
        producers: Bytes::from_static(b"producers"),
    }
}

const FACTS: ClosedFacts = ClosedFacts {
    length: 12345,
    next_offset: Offset(130),
    last_index: Index(55),
    last_term: Term(7),
    batches: 4,
    max_timestamp: -1,
    max_timestamp_offset: Offset(0),
    closed_ms: 99,
    last: LastBatch { position: Position(12000), crc: 0x0506_0708 },
};

fn map(closed: Option<ClosedFacts>) -> SegmentMap {
    let empty = EmptyEntry { index: Index(50), term: Term(6), offset: Offset(100) };
    SegmentMap {
        base_offset: Offset(100),
        first_index: Index(50),
        first_term: Term(6),
        closed,
        empties: vec![empty, EmptyEntry { index: Index(53), ..empty }],
    }
}

/// Format 1: a membership of one voter behind 40 bytes.
fn raft_checkpoint() -> Vec<u8> {
    let voters = [0x0a, 1, 5];
    let mut bytes = vec![1, 0, 0, 0, voters.len() as u8, 0, 0, 0];
    for number in [9u64, 5, 77, 1] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&voters);
    bytes.extend_from_slice(b"the machine's bytes");
    bytes
}

fn raft_message() -> Vec<u8> {
    let mut message = Message { from: 1, to: 2, term: 3, commit: 4, ..Message::default() };
    message.set_msg_type(MessageType::MsgHeartbeat);
    raft::transport::encode(GroupId(7), &message, &[]).concat()
}

fn commands() -> Vec<(&'static str, Command)> {
    let endpoint =
        |name: &str| Endpoint { name: name.into(), host: "localhost".into(), port: 9092 };
    let topic = TopicId(Uuid::from_u128(0x77));
    vec![
        ("found", Command::Found { cluster_id: Uuid::from_u128(0x1234), feature_level: 1 }),
        (
            "register",
            Command::RegisterBroker {
                node: NodeId(1),
                node_uuid: Uuid::from_u128(0x99),
                endpoints: vec![endpoint("PLAINTEXT"), endpoint("OTHER")],
                rack: Some("rack".into()),
            },
        ),
        (
            "create",
            Command::CreateTopics {
                topics: vec![NewTopic {
                    id: topic,
                    name: "topic".into(),
                    partitions: vec![vec![NodeId(1)], vec![NodeId(1)]],
                    configs: vec![("retention.ms".into(), "7".into())],
                }],
            },
        ),
        ("allocate", Command::AllocateProducerIds { node: NodeId(1) }),
        ("delete", Command::DeleteTopics { topics: vec![TopicId(Uuid::from_u128(0x78))] }),
    ]
}

fn offsets() -> Vec<(&'static str, Record)> {
    let key = OffsetKey { group: "group".into(), topic: "topic".into(), partition: 3 };
    let value = OffsetValue {
        offset: 42,
        leader_epoch: 6,
        metadata: "metadata".into(),
        commit_timestamp: 1_700_000_000_000,
        expire_timestamp: -1,
    };
    let member = MemberValue {
        member_id: "member".into(),
        instance_id: Some("instance".into()),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 45_000,
        subscription: Bytes::from_static(b"subscription"),
        assignment: Bytes::from_static(b"assignment"),
    };
    let group = GroupValue {
        protocol_type: "consumer".into(),
        generation: 5,
        protocol: Some("range".into()),
        leader: Some("member".into()),
        state_timestamp: 1_700_000_000_000,
        members: vec![member],
    };
    vec![
        ("offset", Record::Offset(key, Some(value))),
        ("group", Record::Group("group".into(), Some(group))),
    ]
}

fn index() -> Vec<u8> {
    let entry = |at: i64| IndexEntry {
        offset: Offset(at * 10),
        position: Position(at as u64 * 5000),
        max_timestamp_before: at * 100 - 1,
        ordinal: at as u32 * 2,
    };
    let entries = [entry(1), entry(2), entry(3)];
    let blocks = [encode_block(Offset(0), 0, &entries), encode_block(Offset(0), 1, &[entry(4)])];
    blocks.concat()
}

fn producers() -> Vec<u8> {
    let mut states = ProducerStates::new(Index(5), i64::MAX);
    for (nth, producer) in [7, 9, 7].into_iter().enumerate() {
        let info = BatchInfo::new(producer, 3, nth as i32 * 10, 9);
        let index = Index(6 + nth as u64);
        states.appended(&info, nth as i64 * 10, index, 1_700_000_000_000);
        states.committed(index);
    }
    states.snapshot(Index(8))
}

/// Version 0: two topics, no user data.
fn subscription() -> Vec<u8> {
    b"\0\0\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff".to_vec()
}

/// What a first start writes, in the simulator.
fn folder() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    async fn write(shard: Shard) -> Vec<(&'static str, &'static str, Vec<u8>)> {
        let data = shard.create_dir("/data").await.expect("a folder");
        let layout = wal::layout::Layout::open(&shard, &data, 1).await.expect("a layout");
        let node = Uuid::from_bytes(layout.node);
        bootstrap::Identity::load_or_create(&shard, &data, 1, node).await.expect("an identity");
        wal::probe::probe(&shard, &data).await.expect("a result");
        let mut seeds = Vec::new();
        let opened = Wal::open(&shard, data.clone(), WAL_OPTIONS, worlds::IDENTITY).await;
        opened.expect("a log").0.stop().await;
        for (which, name) in FILES.into_iter().enumerate() {
            let content = data.read(name).await.expect("a file");
            let content = if name == "reached" { content.slice(..REACHED_BYTES) } else { content };
            seeds.push(("folder", name, [&[which as u8][..], &content].concat()));
        }
        seeds
    }
    rt::sim::run(1, write)
}

fn segment() -> Vec<u8> {
    let mut log = plain_batch();
    let mut second = log.clone();
    // The base offset lies outside of the checksum.
    second[..8].copy_from_slice(&2i64.to_be_bytes());
    log.extend_from_slice(&second);
    let length = log.len() as u64;
    // The checksum of a batch stands at 17, as both batches have it.
    let crc = u32::from_be_bytes([log[17], log[18], log[19], log[20]]);
    let last = LastBatch { position: Position(length / 2), crc };
    let facts = ClosedFacts { length, next_offset: Offset(4), batches: 2, last, ..FACTS };
    let map = SegmentMap { base_offset: Offset(0), empties: Vec::new(), ..map(Some(facts)) };
    let map = map.encode(&IDENTITY);
    let lengths = [(log.len() as u16).to_le_bytes(), (map.len() as u16).to_le_bytes()];
    [&lengths.concat()[..], &log, &map, &index()].concat()
}

/// A replica of one voter with a checkpoint, a vote and two entries; then another frame.
fn replay() -> Vec<u8> {
    const OWNER: u8 = 1 << 4 | 5;
    let record = |kind: u8, index: u8, term: u8, body: &[u8]| {
        [&[kind, 0, OWNER, index, term, body.len() as u8][..], body].concat()
    };
    let mut descriptor = [0; 32];
    descriptor[0] = 1; // data
    descriptor[4] = 1; // records
    descriptor[24] = 4; // length
    let entry = [&descriptor[..], b"data"].concat();
    let vote = 5u64.to_le_bytes();
    [
        record(5, 76, 9, &raft_checkpoint()),
        record(1, 77, 9, &entry),
        record(3, 77, 9, &vote),
        vec![255],
        record(1, 78, 9, &entry),
    ]
    .concat()
}

fn connections() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut frames = vec![100];
    for (_, _, request) in requests().iter().take(3) {
        frames.extend_from_slice(&(request.len() as i32).to_be_bytes());
        frames.extend_from_slice(request);
    }
    let http = b"\x20GET /metrics?x=1 HTTP/1.1\r\nhost: a\r\n\r\nPOST / HTTP/1.1\r\nhost: a\r\n\
        content-length: 2\r\n\r\nokPOST / HTTP/1.1\r\nhost: a\r\n\
        transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    vec![
        ("connection", "frames", frames),
        ("connection", "http", http.to_vec()),
        ("connection", "tls", b"\x80\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec()),
    ]
}
