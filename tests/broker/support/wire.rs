//! A raw connection that speaks Kafka's framing, for requests no client library would send.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use socket2::{Domain, Socket, Type};

/// The longest wait for anything that must come.
pub const LIMIT: Duration = Duration::from_secs(10);

pub struct Wire {
    stream: TcpStream,
    next: i32,
}

impl Wire {
    pub fn connect(port: u16) -> Wire {
        Wire::of(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap())
    }

    /// As a client with that address, which must be one of the loopback's.
    pub fn connect_from(address: Ipv4Addr, port: u16) -> Wire {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddrV4::new(address, 0).into()).unwrap();
        socket.connect(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into()).unwrap();
        Wire::of(socket.into())
    }

    fn of(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream, next: 1 }
    }

    /// Bytes as they are, without a frame; a peer that closed meanwhile is no error here.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) if is_closed(&error) => {}
            Err(error) => panic!("writing: {error}"),
        }
    }

    /// A frame around `body`, whatever it is.
    pub fn send_frame(&mut self, body: &[u8]) {
        let mut frame = (body.len() as i32).to_be_bytes().to_vec();
        frame.extend_from_slice(body);
        self.send_raw(&frame);
    }

    /// The next frame; `None` when the broker closed the connection.
    pub fn receive(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        if !read_all(&mut self.stream, &mut length) {
            return None;
        }
        let mut body = vec![0; i32::from_be_bytes(length) as usize];
        assert!(read_all(&mut self.stream, &mut body), "closed within an answer");
        Some(body.into())
    }

    /// As [`Wire::receive`] from a broker that has much else to do.
    pub fn receive_slowly(&mut self) -> Option<Bytes> {
        self.stream.set_read_timeout(Some(12 * LIMIT)).unwrap();
        let received = self.receive();
        self.stream.set_read_timeout(Some(LIMIT)).unwrap();
        received
    }

    /// The connection ends without a byte.
    pub fn assert_closed(&mut self, what: &str) {
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => panic!("{what}: answered instead of closed"),
            Err(error) if is_closed(&error) => {}
            Err(error) => panic!("{what}: still open ({error})"),
        }
    }

    /// Sends a well-formed request and gives the answer's body and its header's correlation id.
    pub fn call<Request: Encodable>(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &Request,
    ) -> Option<Bytes> {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        self.call_with(key, version, &body)
    }

    /// As [`Wire::call`], with a body that is encoded already.
    pub fn call_with(&mut self, key: ApiKey, version: i16, body: &[u8]) -> Option<Bytes> {
        let id = self.next;
        self.next += 1;
        let mut request = header(key, version, id);
        request.extend_from_slice(body);
        self.send_frame(&request);
        let mut answer = self.receive()?;
        let header = ResponseHeader::decode(&mut answer, key.response_header_version(version));
        assert_eq!(header.unwrap().correlation_id, id);
        Some(answer)
    }

    /// As [`Wire::call`], decoded, nothing left over.
    pub fn ask<Request: Encodable, Response: Decodable>(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &Request,
    ) -> Response {
        let mut answer = self.call(key, version, request).expect("an answer");
        let response = Response::decode(&mut answer, version).unwrap();
        assert!(answer.is_empty(), "{} bytes after the answer", answer.len());
        response
    }
}

/// Header and body of a request, without the frame's length.
pub fn encode<Request: Encodable>(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    request: &Request,
) -> Bytes {
    let mut bytes = header(key, version, correlation_id);
    request.encode(&mut bytes, version).unwrap();
    bytes.freeze()
}

/// The header of a request.
pub fn header(key: ApiKey, version: i16, correlation_id: i32) -> BytesMut {
    let mut bytes = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("test")))
        .encode(&mut bytes, key.request_header_version(version))
        .unwrap();
    bytes
}

fn read_all(stream: &mut TcpStream, buffer: &mut [u8]) -> bool {
    match stream.read_exact(buffer) {
        Ok(()) => true,
        Err(error) if is_closed(&error) => false,
        Err(error) => panic!("reading: {error}"),
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        UnexpectedEof | ConnectionReset | BrokenPipe | ConnectionAborted | NotConnected
    )
}
