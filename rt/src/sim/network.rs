//! The simulated network between the nodes of a world.
//!
//! Fault model. A connection delivers its bytes in order, cut into segments of random size, each
//! with a random delay. A blocked link (one way) holds everything back until it is healed, as TCP
//! would send it again. A connection may be cut between any two bytes: a random prefix of what is
//! in flight still arrives, then both sides see a reset. A killed process resets or ends its
//! connections; a machine without power falls silent, and its peers learn of it seconds later.
//! Pure: time and randomness are arguments; what must happen later is returned as [`Later`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::task::Waker;

use bytes::Bytes;

/// Unread and in-flight bytes of one direction, at most.
const WINDOW_BYTES: usize = 256 * 1024;

pub(super) type ConnId = u64;

/// A segment of this connection and direction may arrive at the time.
pub(super) struct Later {
    pub(super) at: u64,
    pub(super) conn: ConnId,
    pub(super) to: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct NetFaults {
    pub(super) delay_ns: (u64, u64),
    /// Chance that a segment's arrival cuts its connection, in millionths.
    pub(super) cut_per_million: u32,
    /// Segments have any size from one byte; otherwise they are as large as what was written.
    pub(super) fragment: bool,
}

#[derive(Default)]
pub(super) struct Network {
    pub(super) conns: BTreeMap<ConnId, Conn>,
    pub(super) listeners: BTreeMap<u64, Listening>,
    pub(super) blocked: BTreeSet<(usize, usize)>,
    next: u64,
}

pub(super) struct Listening {
    pub(super) node: usize,
    pub(super) addr: SocketAddr,
    pub(super) reuse_port: bool,
    pub(super) backlog: usize,
    pub(super) queue: VecDeque<ConnId>,
    pub(super) waiter: Option<Waker>,
}

pub(super) struct Conn {
    pub(super) ends: [End; 2],
}

/// One side of a connection, and what is on its way to it.
pub(super) struct End {
    pub(super) node: usize,
    pub(super) addr: SocketAddr,
    /// The process is gone or has dropped its stream: nothing is delivered here any more.
    gone: bool,
    /// Gone without power: not even a reset comes from here.
    silent: bool,
    /// This side sends no more.
    shut: bool,
    inbox: VecDeque<Bytes>,
    inbox_bytes: usize,
    ended: bool,
    reset: bool,
    flight: VecDeque<(u64, Segment)>,
    flight_bytes: usize,
    last_arrival: u64,
    reader: Option<Waker>,
    /// The task of the other side that waits for room towards this one.
    writer: Option<Waker>,
    hangup: Vec<Waker>,
}

enum Segment {
    Data(Bytes),
    End,
    Reset,
}

/// What a read finds.
pub(super) enum Read {
    Bytes(Bytes),
    End,
    Reset,
    Wait,
}

impl Network {
    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A port of the node that nobody listens on or connects from.
    pub(super) fn free_port(&mut self) -> u16 {
        32_768 + (self.id() % 28_000) as u16
    }

    pub(super) fn listen(&mut self, listening: Listening) -> Result<u64, i32> {
        let taken = self.listeners.values().any(|other| {
            other.node == listening.node
                && other.addr.port() == listening.addr.port()
                && !(other.reuse_port && listening.reuse_port)
        });
        if taken {
            return Err(libc::EADDRINUSE);
        }
        let id = self.id();
        self.listeners.insert(id, listening);
        Ok(id)
    }

    /// Listeners of the node at this port that have room, in a stable order.
    pub(super) fn candidates(&self, node: usize, address: SocketAddr) -> Vec<u64> {
        let fits = |listening: &Listening| {
            listening.node == node
                && listening.addr.port() == address.port()
                && listening.queue.len() < listening.backlog
        };
        self.listeners.iter().filter(|(_, l)| fits(l)).map(|(id, _)| *id).collect()
    }

    /// Makes a connection and queues it at the listener.
    pub(super) fn establish(
        &mut self,
        from: (usize, SocketAddr),
        to: (usize, SocketAddr),
        listener: u64,
    ) -> ConnId {
        let id = self.id();
        self.conns.insert(id, Conn { ends: [End::new(from), End::new(to)] });
        if let Some(listening) = self.listeners.get_mut(&listener) {
            listening.queue.push_back(id);
            if let Some(waker) = listening.waiter.take() {
                waker.wake();
            }
        }
        id
    }

    /// Takes as much of `part` as there is room for. 0: the window is full.
    pub(super) fn send(
        &mut self,
        conn: ConnId,
        from: usize,
        part: &Bytes,
        now: u64,
        faults: &NetFaults,
        rng: &mut fastrand::Rng,
    ) -> Result<(usize, Option<Later>), i32> {
        let Some(conn_state) = self.conns.get_mut(&conn) else { return Err(libc::EPIPE) };
        let to = 1 - from;
        let own = &conn_state.ends[from];
        if own.reset {
            return Err(libc::ECONNRESET);
        }
        if own.shut {
            return Err(libc::EPIPE);
        }
        let target = &mut conn_state.ends[to];
        let room = WINDOW_BYTES.saturating_sub(target.inbox_bytes + target.flight_bytes);
        let mut take = part.len().min(room);
        if take == 0 {
            return Ok((0, None));
        }
        if faults.fragment && take > 1 {
            take = match rng.u8(..4) {
                0 => rng.usize(1..=take.min(16)),
                1 => rng.usize(1..=take),
                _ => take,
            };
        }
        target.flight_bytes += take;
        let at = target.enqueue(Segment::Data(part.slice(..take)), now, faults, rng);
        Ok((take, at.map(|at| Later { at, conn, to })))
    }

    /// Registers the writer of side `from`, which found no room.
    pub(super) fn wait_room(&mut self, conn: ConnId, from: usize, waker: &Waker) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.ends[1 - from].writer = Some(waker.clone());
        }
    }

    /// A segment may arrive now. Gives the time of the next one.
    pub(super) fn arrive(
        &mut self,
        id: ConnId,
        to: usize,
        now: u64,
        faults: &NetFaults,
        rng: &mut fastrand::Rng,
    ) -> Option<Later> {
        let conn = self.conns.get_mut(&id)?;
        let (from_node, to_node) = (conn.ends[1 - to].node, conn.ends[to].node);
        if self.blocked.contains(&(from_node, to_node)) {
            return None;
        }
        let end = &mut conn.ends[to];
        if end.flight.front().is_none_or(|(at, _)| *at > now) {
            return end.flight.front().map(|(at, _)| Later { at: *at, conn: id, to });
        }
        let (_, segment) = end.flight.pop_front()?;
        let cut = faults.cut_per_million > 0
            && matches!(segment, Segment::Data(_))
            && rng.u32(..1_000_000) < faults.cut_per_million;
        match segment {
            Segment::Data(bytes) => {
                end.flight_bytes -= bytes.len();
                let keep = if cut { rng.usize(..=bytes.len()) } else { bytes.len() };
                if !end.gone {
                    end.take(bytes.slice(..keep));
                } else if !end.silent {
                    // Nobody is there: the sender's side learns it from a reset.
                    conn.fail(1 - to);
                }
            }
            Segment::End => end.end(),
            Segment::Reset => conn.fail(to),
        }
        if cut {
            conn.fail(0);
            conn.fail(1);
        }
        let next = conn.ends[to].flight.front().map(|(at, _)| Later { at: *at, conn: id, to });
        self.forget(id);
        next
    }

    pub(super) fn read(&mut self, conn: ConnId, side: usize, len: usize) -> Read {
        let Some(conn) = self.conns.get_mut(&conn) else { return Read::Reset };
        let end = &mut conn.ends[side];
        if let Some(front) = end.inbox.front_mut() {
            let bytes = front.split_to(len.min(front.len()));
            if front.is_empty() {
                end.inbox.pop_front();
            }
            end.inbox_bytes -= bytes.len();
            if let Some(waker) = end.writer.take() {
                waker.wake();
            }
            return Read::Bytes(bytes);
        }
        if end.reset {
            return Read::Reset;
        }
        if end.ended || end.shut {
            return Read::End;
        }
        Read::Wait
    }

    pub(super) fn wait_read(&mut self, conn: ConnId, side: usize, waker: &Waker) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.ends[side].reader = Some(waker.clone());
        }
    }

    /// Whether the peer has hung up; otherwise registers the waker.
    pub(super) fn hung_up(&mut self, conn: ConnId, side: usize, waker: &Waker) -> bool {
        let Some(conn) = self.conns.get_mut(&conn) else { return true };
        let end = &mut conn.ends[side];
        if end.ended || end.reset || end.shut {
            return true;
        }
        end.hangup.retain(|other| !other.will_wake(waker));
        end.hangup.push(waker.clone());
        false
    }

    /// This side ends both directions.
    pub(super) fn shutdown(
        &mut self,
        id: ConnId,
        side: usize,
        now: u64,
        faults: &NetFaults,
        rng: &mut fastrand::Rng,
    ) -> Option<Later> {
        let conn = self.conns.get_mut(&id)?;
        if conn.ends[side].shut {
            return None;
        }
        conn.ends[side].shut = true;
        conn.ends[side].wake_all();
        let at = conn.ends[1 - side].enqueue(Segment::End, now, faults, rng);
        at.map(|at| Later { at, conn: id, to: 1 - side })
    }

    /// The stream of this side was dropped, or its process ended.
    pub(super) fn close(
        &mut self,
        id: ConnId,
        side: usize,
        now: u64,
        faults: &NetFaults,
        rng: &mut fastrand::Rng,
    ) -> Option<Later> {
        let conn = self.conns.get_mut(&id)?;
        let own = &mut conn.ends[side];
        if own.gone {
            return None;
        }
        own.gone = true;
        let unread = own.inbox_bytes > 0 && !own.shut;
        let sent = std::mem::replace(&mut own.shut, true);
        own.inbox.clear();
        own.inbox_bytes = 0;
        let waker = own.writer.take();
        let later = if sent || own.reset {
            None
        } else {
            // Linux answers with a reset when bytes were left unread.
            let segment = if unread { Segment::Reset } else { Segment::End };
            conn.ends[1 - side].enqueue(segment, now, faults, rng)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        self.forget(id);
        later.map(|at| Later { at, conn: id, to: 1 - side })
    }

    /// A node's process ends: its listeners go, its connections are closed (or, without power,
    /// fall silent and are reset at `silent_until`).
    pub(super) fn node_down(
        &mut self,
        node: usize,
        silent_until: Option<u64>,
        now: u64,
        faults: &NetFaults,
        rng: &mut fastrand::Rng,
    ) -> Vec<Later> {
        self.listeners.retain(|_, listening| listening.node != node);
        let mut laters = Vec::new();
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in ids {
            for side in 0..2 {
                let Some(conn) = self.conns.get_mut(&id) else { continue };
                if conn.ends[side].node != node || conn.ends[side].gone {
                    continue;
                }
                let Some(until) = silent_until else {
                    laters.extend(self.close(id, side, now, faults, rng));
                    continue;
                };
                conn.ends[side].gone = true;
                conn.ends[side].silent = true;
                conn.ends[side].inbox.clear();
                conn.ends[side].inbox_bytes = 0;
                let other = &mut conn.ends[1 - side];
                other.last_arrival = other.last_arrival.max(until);
                let at = other.enqueue(Segment::Reset, now, faults, rng);
                laters.extend(at.map(|at| Later { at, conn: id, to: 1 - side }));
            }
        }
        laters
    }

    /// Lets what was held back between two nodes go on.
    pub(super) fn heal(&mut self, from: usize, to: usize, now: u64) -> Vec<Later> {
        if !self.blocked.remove(&(from, to)) {
            return Vec::new();
        }
        let mut laters = Vec::new();
        for (id, conn) in &self.conns {
            for side in 0..2 {
                let waits = !conn.ends[side].flight.is_empty();
                if conn.ends[side].node == to && conn.ends[1 - side].node == from && waits {
                    laters.push(Later { at: now, conn: *id, to: side });
                }
            }
        }
        laters
    }

    /// Cuts every connection between two nodes after a random part of what is in flight.
    pub(super) fn cut(&mut self, a: usize, b: usize, rng: &mut fastrand::Rng) {
        for conn in self.conns.values_mut() {
            let nodes = (conn.ends[0].node, conn.ends[1].node);
            if nodes != (a, b) && nodes != (b, a) {
                continue;
            }
            for end in &mut conn.ends {
                end.deliver_part(rng);
            }
            conn.fail(0);
            conn.fail(1);
        }
    }

    fn forget(&mut self, id: ConnId) {
        if self.conns.get(&id).is_some_and(|conn| conn.ends.iter().all(|end| end.gone)) {
            self.conns.remove(&id);
        }
    }
}

impl Conn {
    /// This side sees a reset.
    fn fail(&mut self, side: usize) {
        self.ends[side].fail();
        if let Some(waker) = self.ends[1 - side].writer.take() {
            waker.wake();
        }
    }
}

impl End {
    fn new((node, addr): (usize, SocketAddr)) -> End {
        End {
            node,
            addr,
            gone: false,
            silent: false,
            shut: false,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            ended: false,
            reset: false,
            flight: VecDeque::new(),
            flight_bytes: 0,
            last_arrival: 0,
            reader: None,
            writer: None,
            hangup: Vec::new(),
        }
    }

    /// Puts a segment on its way; gives its arrival if nothing was on the way before.
    fn enqueue(
        &mut self,
        segment: Segment,
        now: u64,
        faults: &NetFaults,
        rng: &mut fastrand::Rng,
    ) -> Option<u64> {
        let delay = rng.u64(faults.delay_ns.0..=faults.delay_ns.1);
        let at = (now + delay).max(self.last_arrival + 1);
        self.last_arrival = at;
        self.flight.push_back((at, segment));
        (self.flight.len() == 1).then_some(at)
    }

    fn take(&mut self, bytes: Bytes) {
        if bytes.is_empty() || self.reset {
            return;
        }
        self.inbox_bytes += bytes.len();
        self.inbox.push_back(bytes);
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.wake_readers();
    }

    fn fail(&mut self) {
        self.reset = true;
        self.flight.clear();
        self.flight_bytes = 0;
        self.wake_all();
    }

    fn wake_readers(&mut self) {
        let wakers = self.reader.take().into_iter().chain(self.hangup.drain(..));
        for waker in wakers {
            waker.wake();
        }
    }

    fn wake_all(&mut self) {
        self.wake_readers();
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    fn deliver_part(&mut self, rng: &mut fastrand::Rng) {
        let mut left = rng.usize(..=self.flight_bytes);
        while let Some((_, segment)) = self.flight.pop_front() {
            let Segment::Data(bytes) = segment else { continue };
            let keep = left.min(bytes.len());
            left -= keep;
            self.take(bytes.slice(..keep));
        }
    }
}

pub(super) fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}
