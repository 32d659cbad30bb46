//! Sockets on io_uring: readiness comes through the shard's ring, bytes move with plain system calls
//! that never block, writes are vectored.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{ready, Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::ring::{Interest, Ring};
use crate::shard::Backend;
use crate::{ListenOptions, Shard};

/// Parts of one vectored write, at most.
const IOV_MAX: usize = 64;
/// Bytes of one vectored write, at most. The kernel copies them while the shard waits: a long answer
/// leaves in pieces, and others run between them.
const SEND_BYTES_MAX: usize = 256 << 10;

fn ring(shard: &Shard) -> &Rc<Ring> {
    match &shard.0.backend {
        Backend::Uring(host) => host.ring(),
        Backend::Sim(_) => unreachable!("this leaf belongs to io_uring"),
    }
}

pub(crate) struct Listener {
    socket: Rc<OwnedFd>,
    incoming: Rc<Interest>,
    addr: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(shard: &Shard, options: ListenOptions) -> io::Result<Listener> {
        let domain = Domain::for_address(options.addr);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if options.addr.is_ipv6() {
            socket.set_only_v6(!options.dual_stack)?;
        }
        socket.set_reuse_address(true)?;
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&options.addr.into())?;
        socket.listen(i32::try_from(options.backlog.max(1)).unwrap_or(i32::MAX))?;
        let addr = socket.local_addr()?.as_socket();
        let addr = addr.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let socket = Rc::new(OwnedFd::from(socket));
        let incoming = Interest::readable(ring(shard), &socket);
        Ok(Listener { socket, incoming, addr })
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        let (socket, peer) = poll_fn(|context| self.poll_accept(context)).await?;
        socket.set_tcp_nodelay(true)?;
        let (peer, local) = peer_and_local(peer.as_socket(), &SockRef::from(&socket))?;
        Ok(Accepted { fd: OwnedFd::from(socket), peer, local })
    }

    fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Socket, socket2::SockAddr)>> {
        loop {
            ready!(self.incoming.poll_ready(context))?;
            match SockRef::from(&*self.socket).accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.incoming.exhausted();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                accepted => return Poll::Ready(accepted),
            }
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.incoming.discard();
    }
}

fn peer_and_local(
    peer: Option<SocketAddr>,
    socket: &SockRef<'_>,
) -> io::Result<(SocketAddr, SocketAddr)> {
    let local = socket.local_addr()?.as_socket().map(canonical);
    peer.map(canonical).zip(local).ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
}

/// An IPv4 address stays one on a dual-stack socket.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

pub(crate) struct Accepted {
    fd: OwnedFd,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Accepted {
    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
}

pub(crate) struct Stream {
    socket: Rc<OwnedFd>,
    readable: Rc<Interest>,
    writable: Rc<Interest>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Stream {
    pub(crate) async fn connect(shard: &Shard, address: SocketAddr) -> io::Result<Stream> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let started = socket.connect(&address.into());
        let mut stream = Stream::new(shard, OwnedFd::from(socket), address, address);
        match started {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                stream.writable.exhausted();
                poll_fn(|context| stream.writable.poll_ready(context)).await?;
                if let Some(error) = SockRef::from(&*stream.socket).take_error()? {
                    return Err(error);
                }
            }
            started => started?,
        }
        let socket = SockRef::from(&*stream.socket);
        let peer = socket.peer_addr()?.as_socket();
        (stream.peer, stream.local) = peer_and_local(peer, &socket)?;
        Ok(stream)
    }

    pub(crate) fn adopt(shard: &Shard, accepted: Accepted) -> Stream {
        let Accepted { fd, peer, local } = accepted;
        Stream::new(shard, fd, peer, local)
    }

    fn new(shard: &Shard, fd: OwnedFd, peer: SocketAddr, local: SocketAddr) -> Stream {
        let socket = Rc::new(fd);
        let readable = Interest::readable(ring(shard), &socket);
        let writable = Interest::writable(ring(shard), &socket);
        Stream { socket, readable, writable, peer, local }
    }

    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(crate) async fn read_into(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(buffer, context)).await
    }

    fn poll_read(
        &self,
        buffer: &mut BytesMut,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.readable.poll_ready(context))?;
            let spare = buffer.spare_capacity_mut();
            match receive(self.fd(), spare) {
                Ok(count) => {
                    if count < spare.len() {
                        // That was all; spares the call that would say so.
                        self.readable.exhausted();
                    }
                    // SAFETY: the kernel has written so many bytes of the spare capacity.
                    unsafe { buffer.set_len(buffer.len() + count) };
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable.exhausted();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    pub(crate) async fn write_all(&self, parts: &mut Vec<Bytes>) -> io::Result<()> {
        let mut first = 0;
        let result = poll_fn(|context| self.poll_write(parts, &mut first, context)).await;
        parts.retain(|part| !part.is_empty());
        result
    }

    fn poll_write(
        &self,
        parts: &mut [Bytes],
        first: &mut usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while parts.get(*first).is_some_and(Bytes::is_empty) {
                *first += 1;
            }
            if *first == parts.len() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.writable.poll_ready(context))?;
            match send(self.fd(), &parts[*first..]) {
                Ok(sent) => {
                    advance(parts, first, sent);
                    if *first < parts.len() {
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable.exhausted();
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    pub(crate) fn shutdown(&self) {
        // It fails only if the peer has ended the connection already.
        let _ = SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Both);
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) async fn closed(&self) {
        poll_fn(|context| self.readable.poll_hung_up(context)).await;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.readable.discard();
        self.writable.discard();
    }
}

/// One read that does not block.
fn receive(fd: RawFd, target: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    // SAFETY: the pointer is valid for writes of that length, which is all that recv does.
    let count =
        unsafe { libc::recv(fd, target.as_mut_ptr().cast(), target.len(), libc::MSG_DONTWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// One vectored send that does not block.
fn send(fd: RawFd, parts: &[Bytes]) -> io::Result<usize> {
    let mut iov = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; IOV_MAX];
    let (mut count, mut room) = (0, SEND_BYTES_MAX);
    for part in parts.iter().filter(|part| !part.is_empty()).take(IOV_MAX) {
        let iov_len = part.len().min(room);
        // sendmsg only reads through the pointer.
        iov[count] = libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len };
        count += 1;
        room -= iov_len;
        if room == 0 {
            break;
        }
    }
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = iov.as_mut_ptr();
    message.msg_iovlen = count as _;
    // SAFETY: `message` points to `count` entries, each to a part that outlives the call.
    let sent = unsafe { libc::sendmsg(fd, &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn advance(parts: &mut [Bytes], first: &mut usize, mut sent: usize) {
    while sent > 0 {
        let part = &mut parts[*first];
        let step = sent.min(part.len());
        part.advance(step);
        sent -= step;
        if part.is_empty() {
            *first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_send_copies_a_bounded_piece() {
        let (near, _far) = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("sockets");
        near.set_send_buffer_size(1 << 20).expect("a size");
        let parts = vec![Bytes::from(vec![7; 100 << 10]); 10];
        // Without the bound, all that the socket's buffer holds.
        assert_eq!(send(near.as_raw_fd(), &parts).expect("room"), SEND_BYTES_MAX);
    }
}
