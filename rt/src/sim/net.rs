//! Listeners and streams of a simulated shard.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::{Buf as _, Bytes, BytesMut};

use super::host::Host;
use super::network::{is_local, Listening, Read};
use super::world::{answered, Inner, State};
use crate::local::oneshot::{oneshot, Sender};
use crate::ListenOptions;

/// How long a connection attempt to a silent machine takes to fail.
const CONNECT_TIMEOUT_NS: u64 = 5_000_000_000;

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

pub(crate) struct Listener {
    host: Host,
    id: u64,
    addr: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(host: &Host, options: ListenOptions) -> io::Result<Listener> {
        let mut state = host.world().state.borrow_mut();
        let node = host.node();
        let own = state.nodes[node].ip;
        let mut addr = options.addr;
        if !is_local(addr.ip()) && addr.ip() != own {
            return Err(error(libc::EADDRNOTAVAIL));
        }
        if addr.port() == 0 {
            addr.set_port(state.net.free_port());
        }
        let listening = Listening {
            node,
            addr,
            reuse_port: options.reuse_port,
            backlog: options.backlog.max(1) as usize,
            queue: Default::default(),
            waiter: None,
        };
        let id = state.net.listen(listening).map_err(error)?;
        drop(state);
        Ok(Listener { host: host.clone(), id, addr })
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        poll_fn(|context| {
            if !self.host.is_alive() {
                return Poll::Pending;
            }
            let mut state = self.host.world().state.borrow_mut();
            let Some(listening) = state.net.listeners.get_mut(&self.id) else {
                return Poll::Ready(Err(error(libc::EBADF)));
            };
            match listening.queue.pop_front() {
                Some(conn) => {
                    let ends = state.net.conns.get(&conn).map(|c| (c.ends[0].addr, c.ends[1].addr));
                    let Some((peer, local)) = ends else { return Poll::Pending };
                    let orphans = Arc::clone(&self.host.world().orphans);
                    let adopted = false;
                    Poll::Ready(Ok(Accepted { conn, peer, local, orphans, adopted }))
                }
                None => {
                    listening.waiter = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if !self.host.is_alive() {
            return;
        }
        let gone = self.host.world().state.borrow_mut().net.listeners.remove(&self.id);
        for conn in gone.into_iter().flat_map(|listening| listening.queue) {
            self.host.world().close_conn(conn, 1);
        }
    }
}

pub(crate) struct Accepted {
    conn: u64,
    peer: SocketAddr,
    local: SocketAddr,
    orphans: Arc<Mutex<Vec<(u64, usize)>>>,
    adopted: bool,
}

impl Accepted {
    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if !self.adopted {
            let mut orphans = self.orphans.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            orphans.push((self.conn, 1));
        }
    }
}

pub(crate) struct Stream {
    host: Host,
    conn: u64,
    side: usize,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Stream {
    pub(crate) async fn connect(host: &Host, address: SocketAddr) -> io::Result<Stream> {
        let (sender, receiver) = oneshot();
        if host.is_alive() {
            let now = host.world().now.get();
            let mut state = host.world().state.borrow_mut();
            let attempt =
                Attempt { host: host.clone(), address, give_up: now + CONNECT_TIMEOUT_NS };
            attempt.schedule(&mut state, now, sender);
        }
        let (conn, local) = answered(receiver).await.map_err(error)?;
        Ok(Stream { host: host.clone(), conn, side: 0, peer: address, local })
    }

    pub(crate) fn adopt(host: &Host, mut accepted: Accepted) -> Stream {
        accepted.adopted = true;
        let (peer, local) = (accepted.peer, accepted.local);
        Stream { host: host.clone(), conn: accepted.conn, side: 1, peer, local }
    }

    pub(crate) async fn read_into(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        poll_fn(|context| {
            if !self.host.is_alive() {
                return Poll::Pending;
            }
            let mut state = self.host.world().state.borrow_mut();
            match state.net.read(self.conn, self.side, room) {
                Read::Bytes(bytes) => {
                    buffer.extend_from_slice(&bytes);
                    Poll::Ready(Ok(bytes.len()))
                }
                Read::End => Poll::Ready(Ok(0)),
                Read::Reset => Poll::Ready(Err(error(libc::ECONNRESET))),
                Read::Wait => {
                    state.net.wait_read(self.conn, self.side, context.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }

    pub(crate) async fn write_all(&self, parts: &mut Vec<Bytes>) -> io::Result<()> {
        let mut written = 0;
        let result = poll_fn(|context| {
            if !self.host.is_alive() {
                return Poll::Pending;
            }
            let now = self.host.world().now.get();
            let mut state = self.host.world().state.borrow_mut();
            let state = &mut *state;
            while let Some(part) = parts.get_mut(written) {
                if part.is_empty() {
                    written += 1;
                    continue;
                }
                let sent = state.net.send(
                    self.conn,
                    self.side,
                    part,
                    now,
                    &state.net_faults,
                    &mut state.rng,
                );
                match sent {
                    Err(code) => return Poll::Ready(Err(error(code))),
                    Ok((0, _)) => {
                        state.net.wait_room(self.conn, self.side, context.waker());
                        return Poll::Pending;
                    }
                    Ok((taken, later)) => {
                        state.trace.add(&[8, self.conn, taken as u64]);
                        part.advance(taken);
                        state.segment(later);
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await;
        parts.retain(|part| !part.is_empty());
        result
    }

    pub(crate) fn shutdown(&self) {
        if !self.host.is_alive() {
            return;
        }
        let now = self.host.world().now.get();
        let mut state = self.host.world().state.borrow_mut();
        let state = &mut *state;
        let (net, faults) = (&mut state.net, &state.net_faults);
        let later = net.shutdown(self.conn, self.side, now, faults, &mut state.rng);
        state.segment(later);
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) async fn closed(&self) {
        poll_fn(|context| {
            if !self.host.is_alive() {
                return Poll::Pending;
            }
            let mut state = self.host.world().state.borrow_mut();
            match state.net.hung_up(self.conn, self.side, context.waker()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.host.is_alive() {
            self.host.world().close_conn(self.conn, self.side);
        }
    }
}

type Answer = Sender<Result<(u64, SocketAddr), i32>>;

/// A connection that is being made: tried again while the link is blocked.
struct Attempt {
    host: Host,
    address: SocketAddr,
    give_up: u64,
}

impl Attempt {
    fn schedule(self, state: &mut State, now: u64, sender: Answer) {
        let (low, high) = state.net_faults.delay_ns;
        // There and back, before the connection exists.
        let at = now + state.rng.u64(low..=high) + state.rng.u64(low..=high);
        self.schedule_at(state, at, sender);
    }

    fn schedule_at(self, state: &mut State, at: u64, sender: Answer) {
        let owner = self.host.owner();
        state.at(at, owner, move |state, now| self.arrive(state, now, sender));
    }

    fn arrive(self, state: &mut State, now: u64, sender: Answer) {
        if sender.is_closed() {
            return;
        }
        let from = self.host.node();
        let target = Inner::node_at(state, from, self.address);
        let reachable = target.filter(|to| {
            let blocked = |pair| state.net.blocked.contains(&pair);
            state.nodes[*to].powered && !blocked((from, *to)) && !blocked((*to, from))
        });
        let Some(to) = reachable else {
            if now >= self.give_up {
                // Both a silent machine and an address that nobody has.
                let _ = sender.send(Err(libc::ETIMEDOUT));
            } else {
                let again = (now + 200_000_000).min(self.give_up);
                self.schedule_at(state, again, sender);
            }
            return;
        };
        let candidates = state.net.candidates(to, self.address);
        let Some(listener) = state.rng.choice(&candidates) else {
            let _ = sender.send(Err(libc::ECONNREFUSED));
            return;
        };
        let source = if is_local(self.address.ip()) {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            state.nodes[from].ip
        };
        let local = SocketAddr::new(source, state.net.free_port());
        let conn = state.net.establish((from, local), (to, self.address), *listener);
        state.trace.add(&[9, conn, from as u64, to as u64]);
        if sender.send(Ok((conn, local))).is_err() {
            let faults = state.net_faults.clone();
            let later = state.net.close(conn, 0, now, &faults, &mut state.rng);
            state.segment(later);
        }
    }
}
