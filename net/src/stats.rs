//! What a shard counts about its connections and requests, for /metrics.
//!
//! One `Stats` per shard, shared by its connections through an `Rc`: plain cells, no locks, no
//! atomics. Whoever prints metrics asks each shard for a [`Snapshot`], which is `Send`.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use hdrhistogram::Histogram;
use kafka_protocol::messages::ApiKey;

use crate::registry::APIS;

/// Counters of one shard. All of them only grow, but for `connections_open`.
#[derive(Debug)]
pub struct Stats {
    pub connections_accepted: Cell<u64>,
    pub connections_open: Cell<u64>,
    /// Closed because of what the client sent: frames, headers, bodies.
    pub connections_refused: Cell<u64>,
    pub connections_idle_closed: Cell<u64>,
    /// Closed because a frame came too slowly, or an answer was not taken.
    pub connections_stalled_closed: Cell<u64>,
    pub tls_hellos: Cell<u64>,
    pub http_requests: Cell<u64>,
    pub bytes_in: Cell<u64>,
    pub bytes_out: Cell<u64>,
    /// How often a large request was left in its socket until memory was free.
    pub memory_waits: Cell<u64>,
    apis: Vec<RefCell<ApiStats>>,
}

/// What is counted per API.
#[derive(Debug, Default)]
struct ApiStats {
    requests: u64,
    /// Microseconds from the last byte of the request to its answer being written. Made at the
    /// first request, since a histogram takes some 30 KiB.
    latency: Option<Histogram<u64>>,
}

/// Latencies beyond this are counted as this.
const LATENCY_MAX_US: u64 = 600_000_000;

impl Default for Stats {
    fn default() -> Stats {
        Stats::new()
    }
}

impl Stats {
    pub fn new() -> Stats {
        Stats {
            connections_accepted: Cell::new(0),
            connections_open: Cell::new(0),
            connections_refused: Cell::new(0),
            connections_idle_closed: Cell::new(0),
            connections_stalled_closed: Cell::new(0),
            tls_hellos: Cell::new(0),
            http_requests: Cell::new(0),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            memory_waits: Cell::new(0),
            apis: APIS.iter().map(|_| RefCell::default()).collect(),
        }
    }

    pub(crate) fn answered(&self, key: ApiKey, latency: Duration) {
        let Ok(row) = APIS.binary_search_by_key(&(key as i16), |api| api.key as i16) else {
            return;
        };
        let mut api = self.apis[row].borrow_mut();
        api.requests += 1;
        if api.latency.is_none() {
            // The bounds are constants that the histogram accepts.
            api.latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 2).ok();
        }
        if let Some(histogram) = &mut api.latency {
            histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// A copy for another shard to add up and print. APIs never called are left out.
    pub fn snapshot(&self) -> Snapshot {
        let apis = APIS.iter().zip(&self.apis).filter_map(|(api, stats)| {
            let stats = stats.borrow();
            let latency_us = stats.latency.clone()?;
            Some(ApiSnapshot { key: api.key, requests: stats.requests, latency_us })
        });
        Snapshot {
            connections_accepted: self.connections_accepted.get(),
            connections_open: self.connections_open.get(),
            connections_refused: self.connections_refused.get(),
            connections_idle_closed: self.connections_idle_closed.get(),
            connections_stalled_closed: self.connections_stalled_closed.get(),
            tls_hellos: self.tls_hellos.get(),
            http_requests: self.http_requests.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            memory_waits: self.memory_waits.get(),
            apis: apis.collect(),
        }
    }
}

/// The counters of one shard at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub connections_accepted: u64,
    pub connections_open: u64,
    pub connections_refused: u64,
    pub connections_idle_closed: u64,
    pub connections_stalled_closed: u64,
    pub tls_hellos: u64,
    pub http_requests: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub memory_waits: u64,
    pub apis: Vec<ApiSnapshot>,
}

/// One API's requests and latencies, in microseconds.
#[derive(Debug, Clone)]
pub struct ApiSnapshot {
    pub key: ApiKey,
    pub requests: u64,
    pub latency_us: Histogram<u64>,
}

pub(crate) fn add(counter: &Cell<u64>, by: u64) {
    counter.set(counter.get() + by);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_cross_shards_and_list_what_was_called() {
        fn is_send<T: Send>(_: &T) {}
        let stats = Stats::new();
        stats.answered(ApiKey::Fetch, Duration::from_micros(250));
        stats.answered(ApiKey::Fetch, Duration::from_secs(100_000));
        let snapshot = stats.snapshot();
        is_send(&snapshot);
        assert_eq!(snapshot.apis.len(), 1);
        assert_eq!((snapshot.apis[0].key, snapshot.apis[0].requests), (ApiKey::Fetch, 2));
        assert_eq!(snapshot.apis[0].latency_us.len(), 2);
    }
}
