//! The order of requests on one connection: which may start, and whose answer is next.
//!
//! A pure state machine between the reading and the writing half of a connection. Requests enter
//! in order of arrival and leave in that order. A request starts when nothing is in flight; only
//! Produce after Produce starts earlier, within limits of number and bytes (design section 8).
//! "In flight" ends when the answer is written, so a client that does not read its answers is
//! not served further. Invariant: `others + produces` is the number of requests in flight, and
//! `others <= 1`, with `produces == 0` whenever `others == 1`.

use std::collections::VecDeque;

use crate::limits::{Charge, Limits};
use crate::registry::Api;
use crate::service::{Answer, LocalFuture};

/// A started request, until its answer is written.
pub(crate) struct Entry {
    pub api: &'static Api,
    pub version: i16,
    pub correlation_id: i32,
    pub size_bytes: usize,
    pub started: rt::Instant,
    pub state: State,
    /// Held until the answer is written.
    pub charge: Charge,
}

#[expect(
    clippy::large_enum_variant,
    reason = "an answer is moved once; boxing it would allocate per request"
)]
pub(crate) enum State {
    Running(LocalFuture<Answer>),
    Done(Answer),
}

/// Getters and events only; the halves of the connection act.
#[derive(Default)]
pub(crate) struct Pipeline {
    queue: VecDeque<Entry>,
    produces: usize,
    others: usize,
    in_flight_bytes: usize,
    /// No more requests will come.
    pub closed: bool,
    /// Nobody reads the answers any more.
    pub hung_up: bool,
    /// The broker ends the connection: later requests are not started, later answers not sent.
    pub stopped: Option<&'static str>,
}

impl Pipeline {
    /// Getter: whether a request may start now.
    pub(crate) fn admits(&self, is_produce: bool, size_bytes: usize, limits: &Limits) -> bool {
        if self.is_empty() {
            return true;
        }
        is_produce
            && self.others == 0
            && self.produces < limits.in_flight_max
            && self.in_flight_bytes + size_bytes <= limits.in_flight_max_bytes
    }

    /// Event: a request that was admitted has started.
    pub(crate) fn started(&mut self, entry: Entry, is_produce: bool) {
        match is_produce {
            true => self.produces += 1,
            false => self.others += 1,
        }
        self.in_flight_bytes += entry.size_bytes;
        self.queue.push_back(entry);
        assert!(self.others <= 1 && (self.others == 0 || self.produces == 0));
    }

    /// Action: the oldest request that nobody has taken yet.
    pub(crate) fn take(&mut self) -> Option<Entry> {
        self.queue.pop_front()
    }

    /// Event: a taken request was not done after all and goes back to its place.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.queue.push_front(entry);
    }

    /// Event: the answer of a taken request is written, or was dropped.
    pub(crate) fn finished(&mut self, is_produce: bool, size_bytes: usize) {
        match is_produce {
            true => self.produces -= 1,
            false => self.others -= 1,
        }
        self.in_flight_bytes -= size_bytes;
    }

    /// Getter: nothing is in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.produces + self.others == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MemoryBudget;
    use crate::registry;
    use kafka_protocol::messages::ApiKey;

    fn entry(key: ApiKey, size_bytes: usize) -> Entry {
        Entry {
            api: registry::api(key).expect("a row"),
            version: 0,
            correlation_id: 0,
            size_bytes,
            started: rt::Instant::ZERO,
            state: State::Done(Answer::None),
            charge: MemoryBudget::new(1).charge(size_bytes),
        }
    }

    #[test]
    fn only_produce_overtakes_nothing_but_overlaps_produce() {
        let limits = Limits { in_flight_max: 2, in_flight_max_bytes: 100, ..Limits::default() };
        let mut pipeline = Pipeline::default();
        assert!(pipeline.admits(false, 1000, &limits), "one request is always let through");
        pipeline.started(entry(ApiKey::Produce, 60), true);
        assert!(pipeline.admits(true, 40, &limits));
        assert!(!pipeline.admits(true, 41, &limits), "bytes");
        assert!(!pipeline.admits(false, 1, &limits), "not behind a Produce");
        pipeline.started(entry(ApiKey::Produce, 1), true);
        assert!(!pipeline.admits(true, 1, &limits), "number");
        pipeline.take().expect("the first");
        assert!(!pipeline.admits(true, 1, &limits), "taken is not written");
        pipeline.finished(true, 60);
        pipeline.take().expect("the second");
        pipeline.finished(true, 1);
        assert!(pipeline.admits(false, 1, &limits));
        pipeline.started(entry(ApiKey::Fetch, 1), false);
        assert!(!pipeline.admits(true, 1, &limits), "Produce waits for a Fetch");
    }
}
