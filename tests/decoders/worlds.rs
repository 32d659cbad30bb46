//! Decoders that sit behind files and sockets: a data folder, a segment, a log, a connection, each
//! with the bytes of a fuzzer in it, in the simulator.
//!
//! Where a checksum stands before the decoder it is made right, so that what lies behind is met.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bootstrap::Identity as NodeIdentity;
use bytes::{Bytes, BytesMut};
use net::{
    serve_connection, Answer, HttpAnswer, HttpRequest, Limits, LocalFuture, Network, Request,
    Service,
};
use raft::{Committed, Groups, GroupsOptions, Leadership, Machine};
use rt::{Dir, Shard, ShardId};
use shards::log::{inspect_list, inspect_segment};
use wal::format::{
    record_bytes, FileHeader, FrameHeader, RecordHeader, RecordKind, BLOCK_BYTES,
    FRAME_HEADER_BYTES,
};
use wal::inspect::InspectOptions;
use wal::layout::Layout;
use wal::{
    FileSequence, Flush, FrameNumber, GroupId, Identity, Index, Owner, ReplicaId, Term, Wal,
    WalOptions,
};

/// The small files of a data folder, by the first byte: who the node is, its layout, the probe, and
/// how far a log reaches.
pub fn folder(bytes: &[u8]) {
    let Some((which, content)) = bytes.split_first() else { return };
    let name = FILES[usize::from(*which) % FILES.len()];
    let checked = if name == REACHED { reached(content) } else { with_checksum(content) };
    for content in [content.to_vec(), checked] {
        rt::sim::run(1, move |shard| async move {
            let data = shard.create_dir("/data").await.expect("a folder");
            data.replace(name, &content).await.expect("a file");
            match name {
                REACHED => read_log(&shard, &data).await,
                _ => read_folder(&shard, &data).await,
            }
        });
    }
}

/// A log without a file that may be said to have come far.
async fn read_log(shard: &Shard, dir: &Dir) {
    let _ = wal::inspect::inspect(shard, dir, InspectOptions::default(), |_| ()).await;
    if let Ok((wal, _)) = Wal::open(shard, dir.clone(), WAL_OPTIONS, IDENTITY).await {
        wal.stop().await;
    }
}

/// The file `reached`, with its checksum and this log's identity made right (wal/FORMAT.md).
fn reached(content: &[u8]) -> Vec<u8> {
    let mut file = content.to_vec();
    file.resize(REACHED_BYTES, 0);
    file[16..32].copy_from_slice(&IDENTITY.node);
    file[32..34].copy_from_slice(&IDENTITY.shard.0.to_le_bytes());
    file[36..40].copy_from_slice(&IDENTITY.generation.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&file[..12]), &file[16..]);
    file[12..16].copy_from_slice(&crc.to_le_bytes());
    file
}

async fn read_folder(shard: &Shard, data: &Dir) {
    if let Ok(layout) = Layout::open(shard, data, 1).await {
        let again = Layout::load(data).await.expect("what was read is read again");
        assert_eq!(again, Some(layout));
        let node = uuid::Uuid::from_bytes(layout.node);
        let _ = NodeIdentity::load_or_create(shard, data, 1, node).await;
    }
    // Made anew where it cannot be read, which takes its time.
    if data.exists("wal-probe").await.expect("a folder") {
        let probe = wal::probe::probe(shard, data).await.expect("a result, kept or new");
        let _ = probe.cost();
    }
}

/// A text whose last line is its checksum, which is made right.
fn with_checksum(content: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(content) else { return content.to_vec() };
    for key in ["crc32c = ", "crc "] {
        if let Some((body, _)) = text.rsplit_once(key) {
            let crc = crc32c::crc32c(body.as_bytes());
            return format!("{body}{key}{crc:08x}\n").into_bytes();
        }
    }
    content.to_vec()
}

/// A partition's folder as `inspect` reads it: two lengths, then `.log`, `.map` and `.index`.
pub fn segment(bytes: &[u8]) {
    let Some((lengths, rest)) = bytes.split_first_chunk::<4>() else { return };
    let length = |at: usize| usize::from(u16::from_le_bytes([lengths[at], lengths[at + 1]]));
    let (log, rest) = rest.split_at(length(0).min(rest.len()));
    let (map, index) = rest.split_at(length(2).min(rest.len()));
    let files = [("log", log.to_vec()), ("map", map.to_vec()), ("index", index.to_vec())];
    rt::sim::run(1, move |shard| async move {
        let dir = shard.create_dir("/segment").await.expect("a folder");
        for (suffix, content) in &files {
            dir.replace(&format!("{:020}.{suffix}", 0), content).await.expect("a file");
        }
        for base in inspect_list(&dir).await.expect("a list") {
            let mut batches = 0;
            let report =
                inspect_segment(&dir, None, base, |_| batches += 1).await.expect("a report");
            assert_eq!(report.batches, batches);
            assert!(report.end.0 <= report.file_bytes);
        }
    });
}

/// The small files of a data folder, and of a log's.
pub const FILES: [&str; 4] = ["node", "layout", "wal-probe", REACHED];
const REACHED: &str = "reached";
/// Of `reached`, the bytes that mean something.
pub const REACHED_BYTES: usize = 64;
const WAL_FILE_BYTES: u64 = 128 << 10;
pub const WAL_OPTIONS: WalOptions = WalOptions {
    file_bytes: WAL_FILE_BYTES,
    first_file_bytes: WAL_FILE_BYTES,
    budget_bytes: 6 * WAL_FILE_BYTES,
    frame_max_bytes: 32 << 10,
    flush: Flush::Fdatasync,
    fill_ahead: false,
};
pub const IDENTITY: Identity = Identity { node: [7; 16], shard: ShardId(0), generation: 1 };

/// A log whose frames are whole and whose records say anything: recovery, and the Raft groups on
/// it. Each record is kind, flags, group and replica, index, term, length of the body, body; kind
/// 255 begins another frame.
pub fn replay(bytes: &[u8]) {
    let file = log_file(bytes);
    rt::sim::run(1, move |shard| async move {
        let dir = shard.create_dir("/data/wal").await.expect("a folder");
        dir.replace(&format!("{:020}.wal", 1), &file).await.expect("a file");
        let opened = Wal::open(&shard, dir, WAL_OPTIONS, IDENTITY).await;
        let Ok((wal, recovered)) = opened else { return };
        let groups = Groups::new(&shard, wal.clone(), GroupsOptions::default());
        for (owner, replica) in &recovered.replicas {
            let _ = groups.open(*owner, replica, Rc::new(RefCell::new(Deaf)));
        }
        groups.start();
        shard.sleep(Duration::from_secs(2)).await;
        groups.close();
        wal.stop().await;
    });
}

/// A machine that takes everything.
struct Deaf;

impl Machine for Deaf {
    fn leadership(&mut self, _: Leadership) {}
    fn truncated(&mut self, _: Index) {}
    fn committed(&mut self, entries: Vec<Committed>) {
        assert!(entries.windows(2).all(|pair| pair[0].index.next() == pair[1].index));
    }
    fn persisted(&mut self, _: Index) {}
}

/// A file of the log around the records that the bytes describe.
fn log_file(bytes: &[u8]) -> Vec<u8> {
    let header = FileHeader {
        identity: IDENTITY,
        sequence: FileSequence(1),
        salt: 9,
        file_bytes: WAL_FILE_BYTES,
        base: None,
        damage_found: false,
    };
    let mut file = header.encode();
    file.resize(BLOCK_BYTES as usize, 0);
    let (mut rest, mut frame, mut number) = (bytes, Frame::new(), 1);
    while let Some((kind, after)) = rest.split_first() {
        rest = after;
        if *kind == 255 {
            number += u64::from(frame.finish(&mut file, header.salt, number));
            frame = Frame::new();
            continue;
        }
        let Some((fields, after)) = rest.split_first_chunk::<5>() else { break };
        let (body, after) = after.split_at(usize::from(fields[4]).min(after.len()));
        rest = after;
        frame.push(*kind, fields, body);
    }
    frame.finish(&mut file, header.salt, number);
    file.resize(WAL_FILE_BYTES as usize, 0);
    file
}

/// A frame that is being put together.
struct Frame {
    bytes: Vec<u8>,
    records: u32,
    crc: u32,
}

impl Frame {
    fn new() -> Frame {
        Frame { bytes: vec![0; FRAME_HEADER_BYTES], records: 0, crc: 0 }
    }

    fn push(&mut self, kind: u8, fields: &[u8; 5], body: &[u8]) {
        let [flags, owner, index, term, _] = *fields;
        let Some(kind) = RecordKind::from_code(kind) else { return };
        let header = RecordHeader {
            kind,
            relocated: flags & 1 != 0,
            owner: Owner {
                group: GroupId(u64::from(owner >> 4)),
                replica: ReplicaId(u64::from(owner & 15)),
            },
            index: Index(u64::from(index)),
            term: Term(u64::from(term)),
            body_length: body.len() as u32,
            body_crc: crc32c::crc32c(body),
        };
        let encoded = header.encode();
        self.crc = RecordHeader::checksum(&encoded, self.crc);
        let end = self.bytes.len() + record_bytes(body.len());
        self.bytes.extend_from_slice(&encoded);
        self.bytes.extend_from_slice(body);
        self.bytes.resize(end, 0);
        self.records += 1;
    }

    /// Puts the frame behind what is in the file; false if there is no room for it.
    fn finish(mut self, file: &mut Vec<u8>, salt: u64, number: u64) -> bool {
        let position = file.len() as u64;
        if self.records == 0 || position + self.bytes.len() as u64 > WAL_FILE_BYTES {
            return false;
        }
        let header = FrameHeader {
            number: FrameNumber(number),
            durable: FrameNumber(number - 1),
            oldest_file: FileSequence(1),
            file: FileSequence(1),
            position,
            length: self.bytes.len() as u32,
            records: self.records,
            stop: false,
        };
        header.encode_into(&mut self.bytes, self.crc, salt);
        file.extend_from_slice(&self.bytes);
        file.resize(file.len().next_multiple_of(BLOCK_BYTES as usize), 0);
        true
    }
}

/// What a client sends on one connection, in two pieces: frames, HTTP, or noise.
pub fn connection(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let (first, second) = bytes.split_at(bytes.len() * usize::from(*cut) / 256);
    let parts = [Bytes::copy_from_slice(first), Bytes::copy_from_slice(second)];
    rt::sim::run(1, move |shard| async move {
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = shard.listen(rt::ListenOptions::new(address)).expect("a listener");
        let client = shard.connect(listener.local_addr()).await.expect("a connection");
        let stream = shard.adopt(listener.accept().await.expect("a client"));
        let network = Network::new(Limits::default(), MEMORY_BYTES);
        let service: Rc<dyn Service> = Rc::new(Echo);
        let serving = serve_connection(shard.clone(), stream, network.clone(), service);
        let serving = shard.spawn(serving);
        for part in parts {
            let _ = client.write_all(&mut vec![part]).await;
            shard.sleep(Duration::from_millis(1)).await;
        }
        let mut answers = BytesMut::new();
        let reading =
            async { while client.read_into(&mut answers).await.is_ok_and(|bytes| bytes > 0) {} };
        let _ = shard.timeout(Duration::from_secs(1), reading).await;
        client.shutdown();
        drop(client);
        // A frame that never ends, and a client that has gone: both have their limits.
        shard.timeout(Duration::from_secs(3600), serving).await.expect("the connection ends");
    });
}

/// Of all requests of the connection together.
const MEMORY_BYTES: usize = 1 << 20;

/// Answers HTTP, and no request.
struct Echo;

impl Service for Echo {
    fn call(&self, request: Request) -> LocalFuture<Answer> {
        Box::pin(async move {
            match request.correlation_id % 2 {
                0 => Answer::None,
                _ => Answer::Encoded(vec![Bytes::from_static(b"fine")]),
            }
        })
    }

    fn http(&self, request: HttpRequest) -> LocalFuture<HttpAnswer> {
        Box::pin(async move { HttpAnswer::text(200, request.path + &request.query) })
    }
}
