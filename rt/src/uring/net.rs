//! Sockets on io_uring: readiness comes through the ring, bytes move with plain system calls that
//! never block, writes are vectored.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{ListenOptions, Shard};

/// Parts of one vectored write, at most.
const IOV_MAX: usize = 64;
/// How long `closed` waits between looks while bytes of the peer lie unread.
const HANGUP_LOOK: Duration = Duration::from_millis(20);

fn plain(error: glommio::GlommioError<()>) -> io::Error {
    error.into()
}

pub(crate) struct Listener {
    inner: TcpListener,
    addr: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(options: ListenOptions) -> io::Result<Listener> {
        let domain = Domain::for_address(options.addr);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if options.addr.is_ipv6() {
            socket.set_only_v6(!options.dual_stack)?;
        }
        socket.set_reuse_address(true)?;
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&options.addr.into())?;
        socket.listen(i32::try_from(options.backlog.max(1)).unwrap_or(i32::MAX))?;
        let addr = socket.local_addr()?.as_socket();
        let addr = addr.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        // SAFETY: the descriptor is a listening TCP socket that nobody else owns.
        let inner = unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) };
        Ok(Listener { inner, addr })
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        let accepted = self.inner.shared_accept().await.map_err(plain)?;
        // Its descriptor is private; the stream that it makes on this shard gives a copy of it.
        let stream = accepted.bind_to_executor();
        // SAFETY: `stream` keeps the descriptor open during the call.
        let fd = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }.try_clone_to_owned()?;
        drop(stream);
        let socket = SockRef::from(&fd);
        socket.set_tcp_nodelay(true)?;
        let (peer, local) = addresses(&socket)?;
        Ok(Accepted { fd, peer, local })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

fn addresses(socket: &SockRef<'_>) -> io::Result<(SocketAddr, SocketAddr)> {
    let peer = socket.peer_addr()?.as_socket().map(canonical);
    let local = socket.local_addr()?.as_socket().map(canonical);
    peer.zip(local).ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
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
    shard: Shard,
    /// Borrowed inside single polls only.
    tcp: RefCell<TcpStream>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Stream {
    pub(crate) async fn connect(shard: &Shard, address: SocketAddr) -> io::Result<Stream> {
        let tcp = TcpStream::connect(address).await.map_err(plain)?;
        tcp.set_nodelay(true).map_err(plain)?;
        // SAFETY: `tcp` keeps the descriptor open while it is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(tcp.as_raw_fd()) };
        let (peer, local) = addresses(&SockRef::from(&fd))?;
        Ok(Stream { shard: shard.clone(), tcp: RefCell::new(tcp), peer, local })
    }

    pub(crate) fn adopt(shard: &Shard, accepted: Accepted) -> Stream {
        let Accepted { fd, peer, local } = accepted;
        // SAFETY: the descriptor is a connected TCP socket that nobody else owns.
        let tcp = unsafe { TcpStream::from_raw_fd(fd.into_raw_fd()) };
        Stream { shard: shard.clone(), tcp: RefCell::new(tcp), peer, local }
    }

    fn fd(&self) -> RawFd {
        self.tcp.borrow().as_raw_fd()
    }

    pub(crate) async fn read_into(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        std::future::poll_fn(|context| {
            let spare = buffer.spare_capacity_mut();
            // SAFETY: glommio hands pointer and length to recv(2) and reads nothing from it;
            // every byte pattern is a valid u8.
            let target = unsafe {
                std::slice::from_raw_parts_mut(spare.as_mut_ptr().cast::<u8>(), spare.len())
            };
            let mut tcp = self.tcp.borrow_mut();
            let read = Pin::new(&mut *tcp).poll_read(context, target);
            if let Poll::Ready(Ok(n)) = &read {
                // SAFETY: recv(2) has written the first `n` bytes of the spare capacity.
                unsafe { buffer.set_len(buffer.len() + n) };
            }
            read
        })
        .await
    }

    pub(crate) async fn write_all(&self, parts: &mut Vec<Bytes>) -> io::Result<()> {
        let mut first = 0;
        let result = std::future::poll_fn(|context| self.poll_write(parts, &mut first, context));
        let result = result.await;
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
            let sent = match send(self.fd(), &parts[*first..]) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut tcp = self.tcp.borrow_mut();
                    // Waits for room, and sends from one part when there is some.
                    match Pin::new(&mut *tcp).poll_write(context, &parts[*first]) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(sent) => sent?,
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            };
            advance(parts, first, sent);
        }
    }

    pub(crate) fn shutdown(&self) {
        let tcp = self.tcp.borrow();
        // SAFETY: `tcp` keeps the descriptor open while it is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(tcp.as_raw_fd()) };
        // It fails only if the peer has ended the connection already.
        let _ = SockRef::from(&fd).shutdown(std::net::Shutdown::Both);
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) async fn closed(&self) {
        // The stream's own read readiness belongs to its reader, so watch a copy.
        // SAFETY: `tcp` keeps the descriptor open during the call.
        let copy = unsafe { BorrowedFd::borrow_raw(self.fd()) }.try_clone_to_owned();
        let Ok(copy) = copy else { return self.poll_hangup().await };
        // SAFETY: the descriptor is a connected TCP socket that nobody else owns.
        let watched = unsafe { TcpStream::from_raw_fd(copy.into_raw_fd()) };
        let mut byte = [0];
        while !hung_up(watched.as_raw_fd()) {
            match watched.peek(&mut byte).await {
                // Unread bytes hide the end of the stream from a peek.
                Ok(n) if n > 0 => self.shard.sleep(HANGUP_LOOK).await,
                _ => return,
            }
        }
    }

    /// Without a descriptor to spare: looks now and then.
    async fn poll_hangup(&self) {
        while !hung_up(self.fd()) {
            self.shard.sleep(HANGUP_LOOK).await;
        }
    }
}

fn hung_up(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one valid entry; a timeout of zero does not block.
    let count = unsafe { libc::poll(&mut poll, 1, 0) };
    count > 0 && poll.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
}

/// One vectored send that does not block.
fn send(fd: RawFd, parts: &[Bytes]) -> io::Result<usize> {
    let mut iov = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; IOV_MAX];
    let mut count = 0;
    for part in parts.iter().filter(|part| !part.is_empty()).take(IOV_MAX) {
        // sendmsg only reads through the pointer.
        iov[count] = libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() };
        count += 1;
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
