//! What a client may take: frame sizes, times, requests in flight, and the shard's memory budget.
//!
//! [`Network`] is what all connections of one shard share. Limits have their unit in the name or
//! are `Duration`s. The budget counts bytes of requests from their arrival to their answer, and
//! bytes of answers until they are sent; while it is used up, large frames are not read on, and
//! TCP holds the clients back. Small frames always pass: heartbeats must.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::registry::FRAME_MAX_BYTES;
use crate::stats::Stats;

/// Per-connection limits. The defaults are Kafka's where Kafka has one.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `socket.request.max.bytes`, for every API.
    pub frame_max_bytes: u32,
    /// `connections.max.idle.ms`: no frame begun and nothing in flight for so long.
    pub idle: Duration,
    /// A frame once begun gets so long, plus a second per `frame_bytes_per_s` that arrived.
    pub frame_grace: Duration,
    pub frame_bytes_per_s: u32,
    /// Produce requests of one connection that overlap; the rest stay in the socket.
    pub in_flight_max: usize,
    /// Their bytes; one request is always let through.
    pub in_flight_max_bytes: usize,
    /// Answers ready at the same time are written together up to so many bytes.
    pub write_together_max_bytes: usize,
    /// How long a client may leave an answer unread without taking a byte of it.
    pub write_stall: Duration,
    /// The same, and for a large frame of which nothing arrives, while memory is short.
    pub stall_when_short: Duration,
    /// After the client hung up or was refused: time for requests in flight to end.
    pub linger: Duration,
    /// Whether GET, POST and HEAD on the Kafka port are answered as HTTP.
    pub http_sniffing: bool,
    pub http_body_max_bytes: usize,
    /// An HTTP connection without a completed request for so long is closed.
    pub http_idle: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            frame_max_bytes: FRAME_MAX_BYTES,
            idle: Duration::from_secs(600),
            frame_grace: Duration::from_secs(60),
            frame_bytes_per_s: 1024,
            in_flight_max: 256,
            in_flight_max_bytes: 64 * 1024 * 1024,
            write_together_max_bytes: 1024 * 1024,
            write_stall: Duration::from_secs(600),
            stall_when_short: Duration::from_secs(10),
            linger: Duration::from_secs(30),
            http_sniffing: true,
            http_body_max_bytes: 1024 * 1024,
            http_idle: Duration::from_secs(120),
        }
    }
}

/// What the connections of one shard share. Cheap to clone; stays on its shard.
#[derive(Clone)]
pub struct Network {
    pub limits: Rc<Limits>,
    pub stats: Rc<Stats>,
    pub memory: MemoryBudget,
    next_connection: Rc<Cell<u64>>,
    tls_warned_at_ms: Rc<Cell<Option<i64>>>,
}

impl Network {
    pub fn new(limits: Limits, memory_max_bytes: usize) -> Network {
        Network {
            limits: Rc::new(limits),
            stats: Rc::new(Stats::new()),
            memory: MemoryBudget::new(memory_max_bytes),
            next_connection: Rc::default(),
            tls_warned_at_ms: Rc::default(),
        }
    }

    pub(crate) fn connection_id(&self) -> u64 {
        let id = self.next_connection.get() + 1;
        self.next_connection.set(id);
        id
    }

    /// Whether to log a TLS hello now: one line in ten seconds, since a misconfigured client
    /// tries again and again.
    pub(crate) fn should_warn_of_tls(&self, now_ms: i64) -> bool {
        let due = self.tls_warned_at_ms.get().is_none_or(|last| now_ms - last >= 10_000);
        if due {
            self.tls_warned_at_ms.set(Some(now_ms));
        }
        due
    }
}

/// Bytes that requests and answers of one shard hold. Invariant: `used` is the sum of the live
/// charges, and at most one of them holds the overdraft.
///
/// Large frames grow only while there is room. So that half frames cannot wait for each other
/// once the budget is used up, one request at a time may pass it (the overdraft), from its frame
/// to its answer: memory stays below the budget, one frame, and what small frames take.
#[derive(Clone)]
pub struct MemoryBudget {
    shared: Rc<Shared>,
}

struct Shared {
    max_bytes: usize,
    used: Cell<usize>,
    overdrawn: Cell<bool>,
    freed: rt::Notify,
}

impl MemoryBudget {
    pub fn new(max_bytes: usize) -> MemoryBudget {
        let (used, overdrawn, freed) = (Cell::new(0), Cell::new(false), rt::Notify::new());
        MemoryBudget { shared: Rc::new(Shared { max_bytes, used, overdrawn, freed }) }
    }

    pub fn used_bytes(&self) -> usize {
        self.shared.used.get()
    }

    pub fn max_bytes(&self) -> usize {
        self.shared.max_bytes
    }

    /// Whether the budget is used up: whoever holds memory without making progress must go.
    pub fn is_short(&self) -> bool {
        self.used_bytes() >= self.shared.max_bytes
    }

    /// Whether so many bytes would leave half of the budget free: for memory held on a guess.
    pub(crate) fn has_plenty(&self, bytes: usize) -> bool {
        self.used_bytes() + bytes <= self.shared.max_bytes / 2
    }

    /// Counts bytes that are in memory, whatever the limit says.
    pub fn charge(&self, bytes: usize) -> Charge {
        self.shared.used.set(self.shared.used.get() + bytes);
        Charge { budget: self.clone(), bytes, overdraft: false }
    }

    /// Waits until there is room, then charges what a fetch may read now: `wanted`, but only a
    /// share of what is free, so that others get theirs. What is found may be charged afterwards
    /// with [`Charge::set`].
    pub async fn grant(&self, wanted: usize) -> Charge {
        loop {
            let notified = self.shared.freed.notified();
            let free = self.shared.max_bytes.saturating_sub(self.used_bytes());
            if free > 0 {
                return self.charge(wanted.min((free / GRANT_SHARE).max(GRANT_MIN_BYTES)));
            }
            notified.await;
        }
    }

    /// Waits until a frame may grow: there is room, `charge` holds the overdraft, or it gets it,
    /// which it may while `may_overdraw` says so.
    pub(crate) async fn room_for(&self, charge: &mut Charge, may_overdraw: impl Fn() -> bool) {
        loop {
            let notified = self.shared.freed.notified();
            if charge.overdraft || !self.is_short() {
                return;
            }
            if !self.shared.overdrawn.get() && may_overdraw() {
                self.shared.overdrawn.set(true);
                charge.overdraft = true;
                return;
            }
            notified.await;
        }
    }
}

/// A fetch gets this part of what is free.
const GRANT_SHARE: usize = 4;
/// And at least this: a batch of the usual size.
const GRANT_MIN_BYTES: usize = 1024 * 1024;

/// Bytes counted against a budget until this is dropped.
pub struct Charge {
    budget: MemoryBudget,
    bytes: usize,
    overdraft: bool,
}

impl Charge {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nobody else can pass the limit until this is dropped.
    pub(crate) fn is_overdraft(&self) -> bool {
        self.overdraft
    }

    /// Counts so many bytes from now on.
    pub fn set(&mut self, bytes: usize) {
        let shared = &self.budget.shared;
        let was_short = self.budget.is_short();
        shared.used.set(shared.used.get() - self.bytes + bytes);
        let less = bytes < self.bytes;
        self.bytes = bytes;
        if was_short && less {
            shared.freed.notify_all();
        }
    }

    /// Takes so many bytes out of this charge, and the overdraft with them.
    pub(crate) fn split(&mut self, bytes: usize) -> Charge {
        assert!(bytes <= self.bytes, "a part is no more than the whole");
        self.bytes -= bytes;
        let overdraft = std::mem::take(&mut self.overdraft);
        Charge { budget: self.budget.clone(), bytes, overdraft }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.overdraft {
            self.budget.shared.overdrawn.set(false);
        }
        let was_short = self.budget.is_short();
        let shared = &self.budget.shared;
        shared.used.set(shared.used.get() - self.bytes);
        // Also when it stays short: the overdraft may be free now, or its turn may have come.
        if was_short {
            shared.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn charges_come_and_go() {
        let budget = MemoryBudget::new(10);
        let first = budget.charge(8);
        let second = budget.charge(8);
        assert_eq!(budget.used_bytes(), 16);
        drop(first);
        assert_eq!(budget.used_bytes(), 8);
        drop(second);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn one_charge_at_a_time_passes_the_limit() {
        let budget = MemoryBudget::new(10);
        let full = budget.charge(10);
        let (mut first, mut second) = (budget.charge(0), budget.charge(0));
        let ready = |charge: &mut Charge, may| {
            let room = budget.room_for(charge, || may);
            std::pin::pin!(room).poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        assert!(!ready(&mut first, false), "not while another request must be answered first");
        assert!(ready(&mut first, true));
        assert!(!ready(&mut second, true), "one at a time");
        first.set(8);
        let request = first.split(8);
        drop(first);
        assert!(!ready(&mut second, true), "it stays with the request until its answer");
        drop(request);
        assert!(ready(&mut second, true));
        drop((full, second));
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_fetch_gets_a_share_of_what_is_free() {
        let budget = MemoryBudget::new(40 << 20);
        let grant = |wanted| {
            let grant = budget.grant(wanted);
            match std::pin::pin!(grant).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(charge) => Some(charge),
                Poll::Pending => None,
            }
        };
        assert_eq!(grant(100).expect("room").bytes(), 100);
        let large = grant(50 << 20).expect("room");
        assert_eq!(large.bytes(), 10 << 20);
        let _rest = budget.charge((30 << 20) - 1);
        let last = grant(50 << 20).expect("some room");
        assert_eq!(last.bytes(), GRANT_MIN_BYTES);
        assert!(grant(1).is_none(), "no room");
    }

    #[test]
    fn tls_warnings_are_rare() {
        let network = Network::new(Limits::default(), 1);
        assert!(network.should_warn_of_tls(0));
        assert!(!network.should_warn_of_tls(9_999));
        assert!(network.should_warn_of_tls(10_000));
    }
}
