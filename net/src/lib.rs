//! Bytes to requests and back: the Kafka wire protocol without the broker behind it.
//!
//! Owns the API registry, error codes, framing and header formats, record batches and their
//! compression, and the connection loop. Reads and writes through `rt` only, and knows nothing of
//! logs, groups or topics: it hands a decoded [`Request`] to the [`Service`] of its shard.
//! Everything runs on the shard that owns the connection.

pub mod batch;
pub mod builder;
pub mod client;
pub mod compress;
pub mod connection;
pub mod error;
mod frames;
pub mod header;
pub mod http;
pub mod limits;
mod pipeline;
pub mod reader;
pub mod records;
pub mod registry;
pub mod scan;
pub mod schema;
pub mod service;
pub mod software;
pub mod stats;
pub mod unfold;
pub mod wire;

pub use connection::serve_connection;
pub use error::ErrorCode;
pub use kafka_protocol::messages::{ApiKey, RequestKind, ResponseKind};
pub use kafka_protocol::protocol::StrBytes;
pub use limits::{Limits, Network};
pub use service::{
    Answer, ConnectionContext, HttpAnswer, HttpRequest, LocalFuture, Request, Service, Software,
};
pub use stats::Stats;
