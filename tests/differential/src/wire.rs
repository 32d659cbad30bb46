//! One connection that speaks Kafka's framing, to either broker.
//!
//! Sends bytes as it is told, well-formed or not, and says what came back. Never retries and never
//! interprets an answer; blocking, bounded by a limit on every read.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

/// The longest wait for an answer that must come.
pub const LIMIT: Duration = Duration::from_secs(20);

/// What a broker did with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The body of an answer, after a header with the right correlation id.
    Answer(Bytes),
    /// The connection ended without an answer.
    Closed,
    /// Neither, for as long as was waited.
    Silent,
}

pub struct Connection {
    stream: TcpStream,
    next_id: i32,
}

impl Connection {
    pub fn open(port: u16) -> io::Result<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, next_id: 1 })
    }

    /// Bytes as they are; that the peer has closed shows at the next read.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// A frame of header and `body`; gives the correlation id.
    pub fn send(&mut self, key: ApiKey, version: i16, body: &[u8]) -> i32 {
        let id = self.next_id;
        self.next_id += 1;
        let mut request = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(id)
            .with_client_id(Some(StrBytes::from_static_str("differential")))
            .encode(&mut request, key.request_header_version(version))
            .expect("a header");
        request.extend_from_slice(body);
        self.send_raw(&(request.len() as i32).to_be_bytes());
        self.send_raw(&request);
        id
    }

    /// The answer to the request `id`.
    pub fn receive(&mut self, key: ApiKey, version: i16, id: i32, limit: Duration) -> Outcome {
        let mut frame = match self.frame(limit) {
            Outcome::Answer(frame) => frame,
            other => return other,
        };
        let header = ResponseHeader::decode(&mut frame, key.response_header_version(version));
        assert_eq!(header.expect("a response header").correlation_id, id, "correlation id");
        Outcome::Answer(frame)
    }

    /// The next frame, whatever it is.
    pub fn frame(&mut self, limit: Duration) -> Outcome {
        self.stream.set_read_timeout(Some(limit)).expect("a timeout");
        let mut length = [0; 4];
        if let Err(error) = self.stream.read_exact(&mut length) {
            return of_error(&error);
        }
        let mut body = vec![0; i32::from_be_bytes(length) as usize];
        match self.stream.read_exact(&mut body) {
            Ok(()) => Outcome::Answer(body.into()),
            Err(error) => of_error(&error),
        }
    }
}

fn of_error(error: &io::Error) -> Outcome {
    use io::ErrorKind::*;
    match error.kind() {
        WouldBlock | TimedOut => Outcome::Silent,
        _ => Outcome::Closed,
    }
}
