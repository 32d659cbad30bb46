//! The null broker: the part of a Kafka broker that a producer can see, with nothing behind it.
//!
//! One blocking thread per connection; a frame is read into a buffer that is used again and again,
//! and a Produce is parsed only as far as its answer needs (topics and partitions), so that what is
//! left is the cost of the sockets. It checks no checksum, remembers no record and serves no
//! consumer: a fetch is always empty. It can answer late, as a broker does that waits for a disk:
//! what a client reaches then is its ceiling at that latency. Or it can make each Produce durable
//! first: what any broker pays that keeps its word on this disk, and nothing else.

mod answers;
mod durable;
mod produce;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use net::header::{self, HeaderError};

use self::durable::Log;
use crate::frames::Frames;

/// When a request is answered.
#[derive(Debug, Clone)]
pub enum When {
    /// So long after it was read; requests do not wait for the answers before them.
    After(Duration),
    /// A Produce when its bytes are durable in a file in this folder.
    Durable(PathBuf),
}

/// What the connections share: the partitions of the topics that somebody created.
struct Topics {
    default_partitions: i32,
    created: Mutex<BTreeMap<String, i32>>,
}

impl Topics {
    fn create(&self, name: &str, partitions: i32) {
        let partitions = if partitions > 0 { partitions } else { self.default_partitions };
        self.created.lock().expect("no holder panics").insert(name.to_owned(), partitions);
    }

    fn partitions(&self, name: &str) -> i32 {
        let created = self.created.lock().expect("no holder panics");
        created.get(name).copied().unwrap_or(self.default_partitions)
    }

    fn names(&self) -> Vec<String> {
        self.created.lock().expect("no holder panics").keys().cloned().collect()
    }
}

/// Serves until the process ends.
pub fn serve(listener: TcpListener, default_partitions: i32, when: &When) -> io::Result<()> {
    let topics = Arc::new(Topics { default_partitions, created: Mutex::default() });
    let port = listener.local_addr()?.port();
    for (number, stream) in listener.incoming().enumerate() {
        let (stream, topics, when) = (stream?, topics.clone(), when.clone());
        thread::spawn(move || {
            let served = stream.set_nodelay(true).and_then(|()| match when {
                When::After(delay) => serve_connection(stream, &topics, port, delay),
                When::Durable(folder) => {
                    let path = folder.join(format!("connection-{number}"));
                    serve_durably(stream, &topics, port, &path)
                }
            });
            if let Err(error) = served {
                eprintln!("null-broker: {error}");
            }
        });
    }
    Ok(())
}

fn serve_connection(
    stream: TcpStream,
    topics: &Topics,
    port: u16,
    delay: Duration,
) -> io::Result<()> {
    let mut frames = Frames::new(stream.try_clone()?);
    let mut answers = Answers::new(stream, delay);
    let mut out = BytesMut::new();
    while let Some(frame) = frames.read()? {
        answer(frame, topics, port, &mut out)?;
        answers.send(&mut out)?;
    }
    Ok(())
}

/// What has arrived is made durable together, then answered.
fn serve_durably(mut stream: TcpStream, topics: &Topics, port: u16, path: &Path) -> io::Result<()> {
    let mut frames = Frames::new(stream.try_clone()?);
    let mut log = None;
    let mut out = BytesMut::new();
    while let Some(frame) = frames.read()? {
        if answer(frame, topics, port, &mut out)? == ApiKey::Produce {
            let log = match &mut log {
                Some(log) => log,
                none => none.insert(Log::create(path)?),
            };
            log.gather(frame);
        }
        let enough = log.as_ref().is_some_and(Log::is_full);
        if enough || !frames.has_another() {
            log.as_mut().map_or(Ok(()), Log::write)?;
            stream.write_all(&out)?;
            out.clear();
        }
    }
    Ok(())
}

/// The answers of one connection on their way.
enum Answers {
    AtOnce(TcpStream),
    Late { delay: Duration, queue: Sender<(Instant, BytesMut)> },
}

impl Answers {
    fn new(stream: TcpStream, delay: Duration) -> Answers {
        if delay.is_zero() {
            return Answers::AtOnce(stream);
        }
        let (queue, due) = mpsc::channel();
        thread::spawn(move || {
            if let Err(error) = send_when_due(stream, &due) {
                eprintln!("null-broker: {error}");
            }
        });
        Answers::Late { delay, queue }
    }

    /// Takes what is in the buffer.
    fn send(&mut self, out: &mut BytesMut) -> io::Result<()> {
        match self {
            Answers::AtOnce(stream) => {
                stream.write_all(out)?;
                out.clear();
                Ok(())
            }
            Answers::Late { delay, queue } => queue
                .send((Instant::now() + *delay, out.split()))
                .map_err(|_| io::ErrorKind::BrokenPipe.into()),
        }
    }
}

fn send_when_due(mut stream: TcpStream, answers: &Receiver<(Instant, BytesMut)>) -> io::Result<()> {
    for (due, answer) in answers {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(&answer)?;
    }
    Ok(())
}

/// Appends the whole answer to a frame, nothing where none is due; tells what was asked.
fn answer(frame: &[u8], topics: &Topics, port: u16, out: &mut BytesMut) -> io::Result<ApiKey> {
    let (api, version, correlation_id) = match header::peek(frame) {
        Ok(seen) => seen,
        Err(HeaderError::UnknownApiVersions { correlation_id, .. }) => {
            answers::unknown_api_versions(correlation_id, out)?;
            return Ok(ApiKey::ApiVersions);
        }
        Err(error) => return Err(invalid(error)),
    };
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    header::encode_response_header(out, api, version, correlation_id);
    if api.key == ApiKey::Produce {
        if !produce::answer(frame, version, out).map_err(invalid)? {
            out.truncate(start);
            return Ok(api.key);
        }
    } else {
        let mut body = Bytes::copy_from_slice(frame);
        header::decode_request_header(&mut body).map_err(invalid)?;
        answers::encode(api.key, version, body, topics, port, out)?;
    }
    let length = (out.len() - start - 4) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(api.key)
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
