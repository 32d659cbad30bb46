//! One Kafka connection from its first byte to its last.
//!
//! Owns the loop that reads frames, decodes requests, starts them in order and writes answers in
//! order. Reading and writing are two futures polled together by the one task of the connection:
//! reading first, then writing, again as long as writing made room for reading. So the halves need
//! no wakers for each other; what they share is the [`Pipeline`]. Holds no borrow across an await.
//! Closing behaviour is kafka.md section 1: nothing is sent for what cannot be understood.

use std::cell::{Cell, RefCell};
use std::future::{poll_fn, Future};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind};
use rt::Either;

use crate::frames::{Ended, FrameReader, Idleness};
use crate::header::{self, HeaderError, RequestHeader};
use crate::http;
use crate::limits::{Charge, Network};
use crate::pipeline::{Entry, Pipeline, State};
use crate::registry::{self, Api};
use crate::schema;
use crate::service::{Answer, ConnectionContext, Request, Service};
use crate::software;
use crate::stats::add;

/// Serves a connection until either side ends it. Dropping the future ends it at once.
pub async fn serve_connection(
    shard: rt::Shard,
    stream: rt::Stream,
    network: Network,
    service: Rc<dyn Service>,
) {
    add(&network.stats.connections_accepted, 1);
    add(&network.stats.connections_open, 1);
    let open = Open(network.clone());
    let context = Rc::new(ConnectionContext {
        id: network.connection_id(),
        peer: stream.peer_addr(),
        local: stream.local_addr(),
        software: RefCell::new(None),
    });
    let mut frames = FrameReader::new(&shard, &stream, &network);
    let connection = Connection {
        shard,
        stream,
        network,
        service,
        context,
        pipeline: RefCell::default(),
        progress: Cell::new(false),
    };
    let ended = match connection.sniff(&mut frames).await {
        Ok(Speaks::Kafka) => connection.run(frames).await,
        Ok(Speaks::Http) => return connection.serve_http(frames).await,
        Ok(Speaks::Tls) => {
            connection.refuse_tls();
            Ended::BadLength(0)
        }
        Err(ended) => ended,
    };
    connection.report(&ended);
    connection.stream.shutdown();
    drop(open);
}

/// Counts a connection as open while it lives, however it ends.
struct Open(Network);

impl Drop for Open {
    fn drop(&mut self) {
        let open = &self.0.stats.connections_open;
        open.set(open.get() - 1);
    }
}

enum Speaks {
    Kafka,
    Http,
    Tls,
}

struct Connection {
    shard: rt::Shard,
    stream: rt::Stream,
    network: Network,
    service: Rc<dyn Service>,
    context: Rc<ConnectionContext>,
    pipeline: RefCell<Pipeline>,
    /// Set by the writing half when the reading half may find more room than it last saw.
    progress: Cell<bool>,
}

impl Idleness for Connection {
    fn is_idle(&self) -> bool {
        self.pipeline.borrow().is_empty()
    }
}

/// Rounds of reading and writing before other tasks of the shard get their turn.
const ROUNDS_MAX: u32 = 32;

/// Bytes of requests started before other tasks of the shard get their turn: checksums of so much
/// take some 100 us.
const TURN_MAX_BYTES: usize = 512 * 1024;

/// Requests with no more elements than this are not charged for them.
const ELEMENTS_FREE: u32 = 1024;
/// What an element of an array costs decoded and answered, roughly.
const ELEMENT_BYTES: usize = 512;

/// A request that waits longer for its turn has its client watched.
const HANGUP_WATCH_AFTER: Duration = Duration::from_millis(100);

impl Connection {
    async fn sniff(&self, frames: &mut FrameReader) -> Result<Speaks, Ended> {
        let first = frames.first_bytes(self).await?;
        Ok(match &first {
            b"GET " | b"POST" | b"HEAD" if self.network.limits.http_sniffing => Speaks::Http,
            [0x16, 0x03, 0x00..=0x04, _] => Speaks::Tls,
            _ => Speaks::Kafka,
        })
    }

    fn refuse_tls(&self) {
        add(&self.network.stats.tls_hellos, 1);
        if self.network.should_warn_of_tls(self.shard.wall_ms()) {
            tracing::warn!(peer = %self.context.peer, "TLS client on a plaintext port");
        }
    }

    async fn serve_http(&self, mut frames: FrameReader) {
        let first = frames.take_buffer();
        http::serve(&self.shard, &self.stream, first, &self.network, Rc::clone(&self.service))
            .await;
    }

    /// Runs both halves until reading has ended and what is in flight is answered, or its time
    /// is over.
    async fn run(&self, frames: FrameReader) -> Ended {
        let ended = Cell::new(None);
        let halves = async {
            let mut reading = pin!(async {
                ended.set(Some(self.read_requests(frames).await));
                self.pipeline.borrow_mut().closed = true;
            });
            let mut writing = pin!(self.write_answers());
            let (mut is_reading, mut is_writing) = (true, true);
            poll_fn(|context| {
                for _ in 0..ROUNDS_MAX {
                    self.progress.set(false);
                    if is_reading && reading.as_mut().poll(context).is_ready() {
                        is_reading = false;
                    }
                    if is_writing && writing.as_mut().poll(context).is_ready() {
                        is_writing = false;
                    }
                    if !is_reading && !is_writing {
                        return Poll::Ready(());
                    }
                    if !self.progress.get() {
                        return Poll::Pending;
                    }
                }
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        };
        // Polled after the halves in the same wake-up, so it sees the moment reading ends, or the
        // client is found gone while a request still waits for its turn.
        let lingering = async {
            poll_fn(|_| {
                let pipeline = self.pipeline.borrow();
                match pipeline.closed || pipeline.hung_up {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            self.shard.sleep(self.network.limits.linger).await;
        };
        rt::either(halves, lingering).await;
        let stopped = self.pipeline.borrow().stopped.map(Ended::Stopped);
        stopped.or(ended.take()).unwrap_or(Ended::Eof)
    }

    // ---- Reading ----

    async fn read_requests(&self, mut frames: FrameReader) -> Ended {
        let mut bytes_in_turn = 0;
        loop {
            if bytes_in_turn >= TURN_MAX_BYTES {
                bytes_in_turn = 0;
                self.shard.yield_now().await;
            }
            let (frame, charge) = match frames.next(self).await {
                Ok(next) => next,
                Err(ended) => {
                    let gone = matches!(ended, Ended::Eof | Ended::CutFrame | Ended::Io(_));
                    self.pipeline.borrow_mut().hung_up |= gone;
                    return ended;
                }
            };
            bytes_in_turn += frame.len();
            if let Err(ended) = self.start(frame, charge).await {
                return ended;
            }
        }
    }

    async fn start(&self, frame: Bytes, mut charge: Charge) -> Result<(), Ended> {
        let size_bytes = frame.len();
        let mut body = frame;
        let header = match header::decode_request_header(&mut body) {
            Ok(header) => header,
            Err(HeaderError::UnknownApiVersions { correlation_id, .. }) => {
                return self.answer_unknown_api_versions(correlation_id, size_bytes, charge).await;
            }
            Err(error) => return Err(Ended::Header(error)),
        };
        let RequestHeader { api, version, correlation_id, client_id } = header;
        let elements = schema::check(api, version, &body).map_err(|_| Ended::BadBody)?;
        self.afford(&mut charge, elements).await;
        let body = RequestKind::decode(api.key, &mut body, version).map_err(|_| Ended::BadBody)?;
        if let RequestKind::ApiVersions(request) = &body {
            let software = software::from_request(request, version);
            if software.is_some() {
                self.context.software.replace(software);
            }
        }
        let is_produce = api.key == ApiKey::Produce;
        self.turn(is_produce, size_bytes).await?;
        if api.key == ApiKey::Fetch && self.pipeline.borrow().hung_up {
            // It would end at once, and what it reads on other shards would not.
            return Ok(());
        }
        let started = self.shard.now();
        let request = Request {
            api_key: api.key,
            version,
            correlation_id,
            client_id,
            body,
            size_bytes: size_bytes as u32,
            context: Rc::clone(&self.context),
        };
        let mut answer = self.service.call(request);
        // Polled here, in order of arrival, and by the writing half from then on.
        let state = match poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await {
            Poll::Ready(answer) => State::Done(answer),
            Poll::Pending => State::Running(answer),
        };
        let entry = Entry { api, version, correlation_id, size_bytes, started, state, charge };
        self.pipeline.borrow_mut().started(entry, is_produce);
        Ok(())
    }

    async fn answer_unknown_api_versions(
        &self,
        correlation_id: i32,
        size_bytes: usize,
        charge: Charge,
    ) -> Result<(), Ended> {
        self.turn(false, size_bytes).await?;
        let Some(api) = registry::api(ApiKey::ApiVersions) else {
            return Err(Ended::BadBody);
        };
        let state = State::Done(Answer::Encoded(vec![software::unknown_version_body()]));
        let started = self.shard.now();
        let entry = Entry { api, version: 0, correlation_id, size_bytes, started, state, charge };
        self.pipeline.borrow_mut().started(entry, false);
        Ok(())
    }

    /// Decoded, a request of many elements takes many times its frame: that is counted, and waits
    /// for room where it is much.
    async fn afford(&self, charge: &mut Charge, elements: u32) {
        if elements > ELEMENTS_FREE {
            self.network.memory.room_for(charge, || self.is_idle()).await;
            charge.set(charge.bytes() + elements as usize * ELEMENT_BYTES);
        }
    }

    /// Waits until the request may start. A client that hangs up meanwhile ends the Fetch it
    /// waits behind.
    async fn turn(&self, is_produce: bool, size_bytes: usize) -> Result<(), Ended> {
        let admitted = || {
            let pipeline = self.pipeline.borrow();
            match pipeline.stopped {
                Some(reason) => Some(Err(Ended::Stopped(reason))),
                None => {
                    pipeline.admits(is_produce, size_bytes, &self.network.limits).then_some(Ok(()))
                }
            }
        };
        if let Some(result) = admitted() {
            return result;
        }
        let turn = || {
            poll_fn(|_| match admitted() {
                Some(result) => Poll::Ready(result),
                None => Poll::Pending,
            })
        };
        // Most waits are short; watching for a hang-up takes a descriptor and system calls.
        if let Ok(result) = self.shard.timeout(HANGUP_WATCH_AFTER, turn()).await {
            return result;
        }
        if !self.pipeline.borrow().hung_up {
            match rt::either(turn(), self.stream.closed()).await {
                Either::Left(result) => return result,
                Either::Right(()) => self.pipeline.borrow_mut().hung_up = true,
            }
        }
        turn().await
    }

    // ---- Writing ----

    /// Ends when no request is in flight and none will come, or when the broker stops.
    async fn write_answers(&self) {
        let mut scratch = BytesMut::new();
        let mut parts = Vec::new();
        let mut written = Vec::new();
        while let Some(entry) = self.next_entry().await {
            let (entry, answer) = self.answer_of(entry).await;
            let mut bytes = self.encode(&entry, answer, &mut scratch, &mut parts);
            written.push(entry);
            while bytes < self.network.limits.write_together_max_bytes {
                let Some((entry, answer)) = self.next_if_done().await else { break };
                bytes += self.encode(&entry, answer, &mut scratch, &mut parts);
                written.push(entry);
            }
            self.send(&mut parts, bytes).await;
            for entry in written.drain(..) {
                self.finish(entry);
            }
            self.progress.set(true);
            if self.pipeline.borrow().stopped.is_some() {
                self.stream.shutdown();
                return;
            }
        }
    }

    async fn next_entry(&self) -> Option<Entry> {
        poll_fn(|_| {
            let mut pipeline = self.pipeline.borrow_mut();
            match pipeline.take() {
                Some(entry) => Poll::Ready(Some(entry)),
                None if pipeline.closed => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Waits for the answer. A Fetch nobody will read is dropped; the rest runs to its end.
    async fn answer_of(&self, mut entry: Entry) -> (Entry, Answer) {
        let answer = match std::mem::replace(&mut entry.state, State::Done(Answer::None)) {
            State::Done(answer) => answer,
            State::Running(mut answer) => {
                let answered = poll_fn(|context| {
                    let hung_up = self.pipeline.borrow().hung_up;
                    if hung_up && entry.api.key == ApiKey::Fetch {
                        return Poll::Ready(Answer::None);
                    }
                    answer.as_mut().poll(context)
                });
                match entry.charge.is_overdraft() {
                    false => answered.await,
                    true => {
                        let linger = self.network.limits.linger;
                        let too_long = "it waits while others need its memory";
                        let answer = self.shard.timeout(linger, answered).await;
                        answer.unwrap_or(Answer::Close { reason: too_long })
                    }
                }
            }
        };
        (entry, answer)
    }

    /// The next answer when it is there already; the request keeps its place when it is not.
    async fn next_if_done(&self) -> Option<(Entry, Answer)> {
        if self.pipeline.borrow().stopped.is_some() {
            return None;
        }
        let mut entry = self.pipeline.borrow_mut().take()?;
        let answer = match &mut entry.state {
            State::Done(answer) => Poll::Ready(std::mem::replace(answer, Answer::None)),
            State::Running(answer) => {
                poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await
            }
        };
        match answer {
            Poll::Ready(answer) => {
                entry.state = State::Done(Answer::None);
                Some((entry, answer))
            }
            Poll::Pending => {
                self.pipeline.borrow_mut().put_back(entry);
                None
            }
        }
    }

    /// Appends the answer's frame to `parts`; gives its length.
    fn encode(
        &self,
        entry: &Entry,
        answer: Answer,
        scratch: &mut BytesMut,
        parts: &mut Vec<Bytes>,
    ) -> usize {
        if self.pipeline.borrow().stopped.is_some() {
            return 0;
        }
        let encoded = match answer {
            Answer::None => return 0,
            Answer::Close { reason } => Err(reason),
            Answer::Encoded(body) => Ok(frame_encoded(entry, body, scratch, parts)),
            Answer::Message(message) => frame_message(entry, &message, scratch, parts),
        };
        match encoded {
            Ok(bytes) => bytes,
            Err(reason) => {
                self.pipeline.borrow_mut().stopped = Some(reason);
                0
            }
        }
    }

    async fn send(&self, parts: &mut Vec<Bytes>, bytes: usize) {
        if bytes > 0 && !self.pipeline.borrow().hung_up {
            let held = self.network.memory.charge(bytes);
            match self.write(parts).await {
                Ok(()) => add(&self.network.stats.bytes_out, bytes as u64),
                Err(_) => {
                    self.pipeline.borrow_mut().hung_up = true;
                    // Ends the reading half too.
                    self.stream.shutdown();
                }
            }
            drop(held);
        }
        parts.clear();
    }

    /// Writes all parts, as long as the client takes some of them now and then.
    async fn write(&self, parts: &mut Vec<Bytes>) -> std::io::Result<()> {
        let limits = &self.network.limits;
        let look = limits.stall_when_short.min(limits.write_stall);
        let (mut left, mut stalled) = (usize::MAX, Duration::ZERO);
        loop {
            if let Ok(written) = self.shard.timeout(look, self.stream.write_all(parts)).await {
                return written;
            }
            let left_now = parts.iter().map(Bytes::len).sum();
            stalled = if left_now < left { Duration::ZERO } else { stalled + look };
            left = left_now;
            let given_up = stalled >= limits.write_stall;
            if given_up || (!stalled.is_zero() && self.network.memory.is_short()) {
                add(&self.network.stats.connections_stalled_closed, 1);
                return Err(std::io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn finish(&self, entry: Entry) {
        let latency = self.shard.now().saturating_since(entry.started);
        self.network.stats.answered(entry.api.key, latency);
        let is_produce = entry.api.key == ApiKey::Produce;
        self.pipeline.borrow_mut().finished(is_produce, entry.size_bytes);
        drop(entry.charge);
    }

    // ---- Ending ----

    fn report(&self, ended: &Ended) {
        let stats = &self.network.stats;
        match ended {
            Ended::Eof | Ended::CutFrame | Ended::Io(_) | Ended::Stopped(_) => {}
            Ended::Idle => add(&stats.connections_idle_closed, 1),
            Ended::BadLength(_) | Ended::Header(_) | Ended::BadBody => {
                add(&stats.connections_refused, 1)
            }
            Ended::Slow | Ended::Stalled => add(&stats.connections_stalled_closed, 1),
        }
        let context = &self.context;
        tracing::debug!(id = context.id, peer = %context.peer, "connection ended: {ended}");
    }
}

/// Length field, header and body in slices: nothing of the body is copied.
fn frame_encoded(
    entry: &Entry,
    body: Vec<Bytes>,
    scratch: &mut BytesMut,
    parts: &mut Vec<Bytes>,
) -> usize {
    let body_bytes: usize = body.iter().map(Bytes::len).sum();
    scratch.put_i32(0);
    header::encode_response_header(scratch, entry.api, entry.version, entry.correlation_id);
    let length = scratch.len() - 4 + body_bytes;
    scratch[..4].copy_from_slice(&(length as u32).to_be_bytes());
    parts.push(scratch.split().freeze());
    parts.extend(body.into_iter().filter(|part| !part.is_empty()));
    4 + length
}

fn frame_message(
    entry: &Entry,
    message: &crate::ResponseKind,
    scratch: &mut BytesMut,
    parts: &mut Vec<Bytes>,
) -> Result<usize, &'static str> {
    scratch.put_i32(0);
    header::encode_response_header(scratch, entry.api, entry.version, entry.correlation_id);
    if let Err(error) = message.encode(scratch, entry.version) {
        // A handler filled a field this version has not: a bug here, not the client's fault.
        let Api { key, .. } = entry.api;
        tracing::error!("answer to {key:?} version {} cannot be encoded: {error}", entry.version);
        scratch.clear();
        return Err("an answer could not be encoded");
    }
    let bytes = scratch.len();
    scratch[..4].copy_from_slice(&((bytes - 4) as u32).to_be_bytes());
    parts.push(scratch.split().freeze());
    Ok(bytes)
}
