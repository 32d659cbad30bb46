//! A blocking connection to a broker: one request and its answer at a time.
//!
//! For what surrounds a measurement (topics, offsets) and for fetching. The producers of the load
//! generator write frames of their own and share only the encoding of the header.

use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};

use bytes::Bytes;
use kafka_protocol::messages::ResponseHeader;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use net::client::encode_frame;

use crate::error::PerfError;
use crate::frames::Frames;

const CLIENT_ID: StrBytes = StrBytes::from_static_str("loadgen");

pub struct Connection {
    stream: TcpStream,
    frames: Frames,
    correlation_id: i32,
}

impl Connection {
    pub fn open(broker: &str) -> Result<Connection, PerfError> {
        let stream = connect(broker)?;
        let reading = stream.try_clone().map_err(PerfError::io(broker))?;
        Ok(Connection { stream, frames: Frames::new(reading), correlation_id: 0 })
    }

    /// Sends a request and waits for its answer.
    pub fn call<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, PerfError> {
        let mut frame = Bytes::copy_from_slice(self.exchange(request, version)?);
        let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version));
        header.map_err(|error| PerfError::Codec(error.to_string()))?;
        R::Response::decode(&mut frame, version).map_err(|e| PerfError::Codec(e.to_string()))
    }

    /// Sends a request and waits for the frame that answers it, header included.
    pub fn exchange<R: Request>(&mut self, request: &R, version: i16) -> Result<&[u8], PerfError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = encode_frame(&CLIENT_ID, self.correlation_id, request, version)
            .map_err(|error| PerfError::Codec(error.to_string()))?;
        self.stream.write_all(&frame).map_err(PerfError::io("sending a request"))?;
        let answer = self.frames.read().map_err(PerfError::io("reading an answer"))?;
        let answer = answer.ok_or(PerfError::Closed)?;
        match answer.first_chunk().map(|id| i32::from_be_bytes(*id)) {
            Some(id) if id == self.correlation_id => Ok(answer),
            _ => Err(PerfError::Malformed("a request: another one's answer")),
        }
    }
}

/// A socket without delay.
pub fn connect(broker: &str) -> Result<TcpStream, PerfError> {
    let address = broker.to_socket_addrs().map_err(PerfError::io(broker))?.next();
    let address = address.ok_or_else(|| PerfError::Unfit(format!("{broker} has no address")))?;
    let stream = TcpStream::connect(address).map_err(PerfError::io(broker))?;
    stream.set_nodelay(true).map_err(PerfError::io(broker))?;
    Ok(stream)
}
