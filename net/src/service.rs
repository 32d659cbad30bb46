//! The seam between the wire and the broker: what a connection hands over, and what it takes back.
//!
//! A connection decodes a frame into a [`Request`] and calls the [`Service`] of its shard; the
//! service answers with an [`Answer`]. Everything here lives on the shard of the connection and
//! never crosses shards: the service moves what other shards need.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, RequestKind, ResponseKind};
use kafka_protocol::protocol::StrBytes;

/// A future on one shard.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// One decoded Kafka request.
///
/// Strings and byte fields of `client_id` and `body` are slices of the socket buffer: whoever
/// keeps one beyond the answer copies it, or pins the whole buffer.
#[derive(Debug)]
pub struct Request {
    pub api_key: ApiKey,
    /// Within the served range of the registry.
    pub version: i16,
    pub correlation_id: i32,
    /// Null and empty are different, and both legal.
    pub client_id: Option<StrBytes>,
    pub body: RequestKind,
    /// Length of the frame, without its length field.
    pub size_bytes: u32,
    pub context: Rc<ConnectionContext>,
}

/// What a service gives back for one request. The connection adds length and response header.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "an answer is moved once; boxing it would allocate per request"
)]
pub enum Answer {
    /// Encoded by the codec at the request's version.
    Message(ResponseKind),
    /// The encoded body in slices, sent without a copy.
    Encoded(Vec<Bytes>),
    /// Nothing is sent (Produce with acks=0 that succeeded).
    None,
    /// The connection ends after the answers before this one, without an answer to this one.
    Close { reason: &'static str },
}

/// The broker as a connection sees it. One per shard.
pub trait Service {
    /// Answers one request. Requests of one connection are started in order of arrival, each when
    /// the one before is answered; only Produce after Produce starts earlier. The future is polled
    /// once at that moment, so everything that must keep the order (enqueuing to shards) stands
    /// before its first await; after that it is polled when it is the oldest unanswered one.
    /// When the client goes away, the future is dropped at an await (Fetch), or polled to its end
    /// for a bounded time and its answer discarded (everything else).
    fn call(&self, request: Request) -> LocalFuture<Answer>;

    /// Answers one HTTP request that arrived on the Kafka port or on the admin listener.
    fn http(&self, request: HttpRequest) -> LocalFuture<HttpAnswer>;
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct ConnectionContext {
    /// Unique on this shard, for logs.
    pub id: u64,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Name and version of the client, from the last well-formed ApiVersions of version 3 and up.
    pub software: RefCell<Option<Software>>,
}

/// What a client says it is (KIP-511). Copies, not slices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Software {
    pub name: String,
    pub version: String,
}

/// An HTTP request with its whole body.
#[derive(Debug)]
pub struct HttpRequest {
    /// In capitals: `GET`, `POST`, `HEAD`, ...
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What follows `?`, undecoded; empty without one.
    pub query: String,
    /// At most `Limits::http_body_max_bytes`.
    pub body: Bytes,
    pub peer: SocketAddr,
}

/// An HTTP answer. Length, date and connection headers are added when it is sent.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Bytes,
}

impl HttpAnswer {
    /// A plain text answer.
    pub fn text(status: u16, body: impl Into<String>) -> HttpAnswer {
        let body = Bytes::from(body.into());
        HttpAnswer { status, content_type: "text/plain; charset=utf-8", body }
    }
}
