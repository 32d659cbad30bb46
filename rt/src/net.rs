//! TCP listeners and streams.
//!
//! A [`Stream`] belongs to one shard; an [`AcceptedStream`] is a connection between two shards
//! (an fd, or a number in the simulator) that [`crate::Shard::adopt`] turns into a stream. One
//! task may read while another writes; two tasks must not read, or write, at the same time.
//! Errors carry the address. Dropping the last clone closes the connection.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::error::located;
use crate::shard::{Backend, Shard};
use crate::{sim, uring};

/// How to listen.
#[derive(Debug, Clone, Copy)]
pub struct ListenOptions {
    pub addr: SocketAddr,
    /// Connections that wait to be accepted, at most.
    pub backlog: u32,
    /// Several listeners may bind the address; the kernel spreads connections over them.
    pub reuse_port: bool,
    /// An IPv6 socket takes IPv4 connections too.
    pub dual_stack: bool,
}

impl ListenOptions {
    /// A backlog of 1024, no sharing of the port, dual stack.
    pub fn new(addr: SocketAddr) -> ListenOptions {
        ListenOptions { addr, backlog: 1024, reuse_port: false, dual_stack: true }
    }
}

/// A bound socket that accepts connections.
pub struct Listener {
    inner: ListenerInner,
}

enum ListenerInner {
    Uring(uring::net::Listener),
    Sim(sim::net::Listener),
}

impl Listener {
    pub(crate) fn bind(shard: &Shard, options: ListenOptions) -> io::Result<Listener> {
        let bound = match &shard.0.backend {
            Backend::Uring(_) => {
                uring::net::Listener::bind(shard, options).map(ListenerInner::Uring)
            }
            Backend::Sim(host) => sim::net::Listener::bind(host, options).map(ListenerInner::Sim),
        };
        let inner = bound.map_err(|error| at("listen on", options.addr, error))?;
        Ok(Listener { inner })
    }

    /// The next connection. One task at a time.
    pub async fn accept(&self) -> io::Result<AcceptedStream> {
        match &self.inner {
            ListenerInner::Uring(listener) => listener.accept().await.map(AcceptedInner::Uring),
            ListenerInner::Sim(listener) => listener.accept().await.map(AcceptedInner::Sim),
        }
        .map(|inner| AcceptedStream { inner })
    }

    pub fn local_addr(&self) -> SocketAddr {
        match &self.inner {
            ListenerInner::Uring(listener) => listener.local_addr(),
            ListenerInner::Sim(listener) => listener.local_addr(),
        }
    }
}

/// A connection on its way to the shard that will serve it. Dropping it closes the connection.
pub struct AcceptedStream {
    inner: AcceptedInner,
}

enum AcceptedInner {
    Uring(uring::net::Accepted),
    Sim(sim::net::Accepted),
}

impl AcceptedStream {
    pub fn peer_addr(&self) -> SocketAddr {
        match &self.inner {
            AcceptedInner::Uring(accepted) => accepted.peer_addr(),
            AcceptedInner::Sim(accepted) => accepted.peer_addr(),
        }
    }
}

/// A TCP connection.
#[derive(Clone)]
pub struct Stream {
    inner: StreamInner,
}

#[derive(Clone)]
enum StreamInner {
    Uring(Rc<uring::net::Stream>),
    Sim(Rc<sim::net::Stream>),
}

impl Stream {
    pub(crate) async fn connect(shard: &Shard, address: SocketAddr) -> io::Result<Stream> {
        let connected = match &shard.0.backend {
            Backend::Uring(_) => uring::net::Stream::connect(shard, address)
                .await
                .map(|stream| StreamInner::Uring(Rc::new(stream))),
            Backend::Sim(host) => sim::net::Stream::connect(host, address)
                .await
                .map(|stream| StreamInner::Sim(Rc::new(stream))),
        };
        let inner = connected.map_err(|error| at("connect to", address, error))?;
        Ok(Stream { inner })
    }

    pub(crate) fn adopt(shard: &Shard, accepted: AcceptedStream) -> Stream {
        let inner = match (&shard.0.backend, accepted.inner) {
            (Backend::Uring(_), AcceptedInner::Uring(accepted)) => {
                StreamInner::Uring(Rc::new(uring::net::Stream::adopt(shard, accepted)))
            }
            (Backend::Sim(host), AcceptedInner::Sim(accepted)) => {
                StreamInner::Sim(Rc::new(sim::net::Stream::adopt(host, accepted)))
            }
            _ => unreachable!("a connection stays on the backend that accepted it"),
        };
        Stream { inner }
    }

    /// Reads what is there into the spare capacity of `buffer`, waiting for the first byte; makes
    /// room for 4 KiB if there is none. Gives the number of bytes, 0 at the end of the stream.
    ///
    /// Dropping the future loses no bytes.
    pub async fn read_into(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        if buffer.capacity() == buffer.len() {
            buffer.reserve(4096);
        }
        match &self.inner {
            StreamInner::Uring(stream) => stream.read_into(buffer).await,
            StreamInner::Sim(stream) => stream.read_into(buffer).await,
        }
    }

    /// Writes all parts, in order, with vectored writes. The list is empty on success; if the
    /// future is dropped or fails, what was not yet handed to the kernel is still in it.
    pub async fn write_all(&self, parts: &mut Vec<Bytes>) -> io::Result<()> {
        match &self.inner {
            StreamInner::Uring(stream) => stream.write_all(parts).await,
            StreamInner::Sim(stream) => stream.write_all(parts).await,
        }
    }

    /// Ends both directions; reads of this side end, the peer reads the end of the stream.
    pub fn shutdown(&self) {
        match &self.inner {
            StreamInner::Uring(stream) => stream.shutdown(),
            StreamInner::Sim(stream) => stream.shutdown(),
        }
    }

    pub fn peer_addr(&self) -> SocketAddr {
        match &self.inner {
            StreamInner::Uring(stream) => stream.peer_addr(),
            StreamInner::Sim(stream) => stream.peer_addr(),
        }
    }

    pub fn local_addr(&self) -> SocketAddr {
        match &self.inner {
            StreamInner::Uring(stream) => stream.local_addr(),
            StreamInner::Sim(stream) => stream.local_addr(),
        }
    }

    /// Ready when the peer has hung up or the connection has failed, even while bytes from it lie
    /// unread. For requests that wait long, such as a fetch.
    pub async fn closed(&self) {
        match &self.inner {
            StreamInner::Uring(stream) => stream.closed().await,
            StreamInner::Sim(stream) => stream.closed().await,
        }
    }
}

/// Puts the operation and the address into an error's message.
fn at(operation: &'static str, address: SocketAddr, error: io::Error) -> io::Error {
    located(operation, address.to_string().as_ref(), error)
}
