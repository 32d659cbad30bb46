//! What a client may take: frame sizes, times, requests in flight, and the shard's memory budget.
//!
//! [`Network`] is what all connections of one shard share. Limits have their unit in the name or
//! are `Duration`s. The budget counts bytes that arrived and are not yet answered; while it is
//! used up, connections that have no large frame under way stop reading their sockets, and TCP
//! holds the clients back. A frame once begun is read to its end, so that no two half frames can
//! wait for each other: the budget may be passed by what is already on its way.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::registry::FRAME_MAX_BYTES;
use crate::stats::Stats;

/// Per-connection limits. The defaults are Kafka's where Kafka has one.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `socket.request.max.bytes`. APIs without record batches have a lower limit of their own.
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
    /// How long a client may leave an answer unread.
    pub write_stall: Duration,
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

/// Bytes that requests of one shard hold. Invariant: `used` is the sum of the live charges.
#[derive(Clone)]
pub struct MemoryBudget {
    shared: Rc<Shared>,
}

struct Shared {
    max_bytes: usize,
    used: Cell<usize>,
    freed: rt::Notify,
}

impl MemoryBudget {
    pub fn new(max_bytes: usize) -> MemoryBudget {
        let freed = rt::Notify::new();
        MemoryBudget { shared: Rc::new(Shared { max_bytes, used: Cell::new(0), freed }) }
    }

    pub fn used_bytes(&self) -> usize {
        self.shared.used.get()
    }

    pub fn max_bytes(&self) -> usize {
        self.shared.max_bytes
    }

    pub fn is_full(&self) -> bool {
        self.used_bytes() >= self.max_bytes()
    }

    /// Counts bytes that are in memory, whatever the limit says.
    pub fn charge(&self, bytes: usize) -> Charge {
        self.shared.used.set(self.shared.used.get() + bytes);
        Charge { budget: self.clone(), bytes }
    }

    /// Waits until the budget has room.
    pub async fn room(&self) {
        loop {
            let notified = self.shared.freed.notified();
            if !self.is_full() {
                return;
            }
            notified.await;
        }
    }
}

/// Bytes counted against a budget until this is dropped.
pub struct Charge {
    budget: MemoryBudget,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let shared = &self.budget.shared;
        let before = shared.used.get();
        let after = before - self.bytes;
        shared.used.set(after);
        if before >= shared.max_bytes && after < shared.max_bytes {
            shared.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn tls_warnings_are_rare() {
        let network = Network::new(Limits::default(), 1);
        assert!(network.should_warn_of_tls(0));
        assert!(!network.should_warn_of_tls(9_999));
        assert!(network.should_warn_of_tls(10_000));
    }
}
