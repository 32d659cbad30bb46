//! A small Kafka client over `rt` streams, for the command line, tests, and forwarding.
//!
//! Sends any request of the codec at a version the caller names, one after another or pipelined,
//! and checks that answers come in order. No retries, no metadata, no reconnecting: those are the
//! caller's. An answer is decoded as it stands, so it belongs between parties that trust each
//! other's counts. One task at a time.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{
    encode_request_header_into_buffer, Decodable, HeaderVersion, Request, StrBytes,
};

use crate::registry::FRAME_MAX_BYTES;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{address}: {error}")]
    Connect { address: SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The broker closed the connection, possibly instead of an answer.
    #[error("the broker closed the connection")]
    Closed,
    #[error("a request cannot be encoded: {0}")]
    Encode(String),
    #[error("an answer cannot be decoded: {0}")]
    Decode(String),
    #[error("an answer to request {actual}, not {expected}")]
    WrongCorrelation { expected: i32, actual: i32 },
    #[error("an answer of {0} bytes")]
    BadLength(i32),
}

/// A request as it goes over the wire: length, header, body. [`ClientError::Encode`] if a field does
/// not exist in `version`, or the frame's length does not fit its field.
pub fn encode_frame<R: Request>(
    client_id: &StrBytes,
    correlation_id: i32,
    request: &R,
    version: i16,
) -> Result<Bytes, ClientError> {
    let encode_error = |error: &dyn std::fmt::Display| ClientError::Encode(error.to_string());
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(client_id.clone()));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    encode_request_header_into_buffer(&mut frame, &header).map_err(|e| encode_error(&e))?;
    request.encode(&mut frame, version).map_err(|e| encode_error(&e))?;
    let length = i32::try_from(frame.len() - 4).map_err(|e| encode_error(&e))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

/// A connection to one broker.
pub struct Client {
    stream: rt::Stream,
    buffer: BytesMut,
    client_id: StrBytes,
    next_correlation_id: i32,
    /// The answer that must come next.
    next_answer_id: i32,
}

impl Client {
    /// Opens a connection.
    pub async fn connect(
        shard: &rt::Shard,
        address: SocketAddr,
        client_id: &str,
    ) -> Result<Client, ClientError> {
        let stream = shard.connect(address).await;
        let stream = stream.map_err(|error| ClientError::Connect { address, error })?;
        Ok(Client::over(stream, client_id))
    }

    /// Speaks over a stream that is open already.
    pub fn over(stream: rt::Stream, client_id: &str) -> Client {
        Client {
            stream,
            buffer: BytesMut::new(),
            client_id: StrBytes::from_string(client_id.to_owned()),
            next_correlation_id: 1,
            next_answer_id: 1,
        }
    }

    /// Sends a request and waits for its answer. Nothing else may be in flight.
    pub async fn call<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, ClientError> {
        self.send(request, version).await?;
        self.receive::<R>(version).await
    }

    /// Sends a request without waiting. Every one that gets an answer is followed, sooner or
    /// later, by a [`Client::receive`] of its type and version, in order.
    pub async fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<(), ClientError> {
        let frame = self.encode(request, version)?;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        self.send_bytes(frame).await
    }

    /// Sends a request that gets no answer (Produce with acks=0).
    pub async fn send_unanswered<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<(), ClientError> {
        let frame = self.encode(request, version)?;
        self.send_bytes(frame).await
    }

    /// The next answer.
    pub async fn receive<R: Request>(&mut self, version: i16) -> Result<R::Response, ClientError> {
        let mut frame = self.receive_frame().await?;
        let header_version = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut frame, header_version)
            .map_err(|error| ClientError::Decode(error.to_string()))?;
        let expected = self.next_answer_id;
        self.next_answer_id = self.next_answer_id.wrapping_add(1);
        if header.correlation_id != expected {
            let actual = header.correlation_id;
            return Err(ClientError::WrongCorrelation { expected, actual });
        }
        R::Response::decode(&mut frame, version)
            .map_err(|error| ClientError::Decode(error.to_string()))
    }

    /// Sends bytes as they are, for tests of bad input.
    pub async fn send_bytes(&mut self, bytes: Bytes) -> Result<(), ClientError> {
        Ok(self.stream.write_all(&mut vec![bytes]).await?)
    }

    /// The next frame of the broker, without its length field.
    pub async fn receive_frame(&mut self) -> Result<Bytes, ClientError> {
        self.fill(4).await?;
        let length = self.buffer.get_i32();
        if length < 0 || length as u32 > FRAME_MAX_BYTES {
            return Err(ClientError::BadLength(length));
        }
        self.fill(length as usize).await?;
        Ok(self.buffer.split_to(length as usize).freeze())
    }

    /// The stream under the client.
    pub fn stream(&self) -> &rt::Stream {
        &self.stream
    }

    /// One whole frame, length field included, with the correlation id of the next send.
    pub fn encode<R: Request>(&self, request: &R, version: i16) -> Result<Bytes, ClientError> {
        encode_frame(&self.client_id, self.next_correlation_id, request, version)
    }

    async fn fill(&mut self, bytes: usize) -> Result<(), ClientError> {
        while self.buffer.len() < bytes {
            if self.stream.read_into(&mut self.buffer).await? == 0 {
                return Err(ClientError::Closed);
            }
        }
        Ok(())
    }
}
