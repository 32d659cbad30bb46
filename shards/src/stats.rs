//! What one shard counts about its own work. Plain cells: one writer, no locks, no atomics.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use net::{ApiKey, ErrorCode};

/// Larger batches are counted as this; frames are smaller.
const BATCH_MAX_BYTES: u64 = 1 << 31;

use crate::census::Refusal;

/// Totals since the start.
#[derive(Debug)]
pub struct Stats {
    bytes_in: Cell<u64>,
    records_in: Cell<u64>,
    bytes_out: Cell<u64>,
    over_total_max: Cell<u64>,
    over_address_max: Cell<u64>,
    batch_bytes: RefCell<Histogram<u64>>,
    /// Errors told to clients, by API key and code.
    errors: RefCell<BTreeMap<(i16, i16), u64>>,
}

impl Default for Stats {
    fn default() -> Stats {
        let batch_bytes = Histogram::new_with_bounds(1, BATCH_MAX_BYTES, 2);
        Stats {
            bytes_in: Cell::default(),
            records_in: Cell::default(),
            bytes_out: Cell::default(),
            over_total_max: Cell::default(),
            over_address_max: Cell::default(),
            batch_bytes: RefCell::new(batch_bytes.expect("constant, legal bounds")),
            errors: RefCell::default(),
        }
    }
}

impl Stats {
    /// A batch was appended; bytes with its header.
    pub fn appended(&self, bytes: u64, records: u64) {
        self.bytes_in.set(self.bytes_in.get() + bytes);
        self.records_in.set(self.records_in.get() + records);
        self.batch_bytes.borrow_mut().saturating_record(bytes);
    }

    /// Batches were sent to a consumer.
    pub fn fetched(&self, bytes: u64) {
        self.bytes_out.set(self.bytes_out.get() + bytes);
    }

    /// A client is told this code, about one partition or other thing; success is not counted.
    pub fn told(&self, api: ApiKey, code: i16) {
        if code != ErrorCode::None.code() {
            *self.errors.borrow_mut().entry((api as i16, code)).or_default() += 1;
        }
    }

    /// A connection was closed right after it came.
    pub fn refused_connection(&self, refusal: &Refusal) {
        let count = match refusal {
            Refusal::Total { .. } => &self.over_total_max,
            Refusal::Address { .. } => &self.over_address_max,
        };
        count.set(count.get() + 1);
    }

    /// Such connections by the limit, as the metric names it.
    pub fn connections_over_limit(&self) -> [(&'static str, u64); 2] {
        [
            ("max_connections", self.over_total_max.get()),
            ("max_connections_per_ip", self.over_address_max.get()),
        ]
    }

    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.get()
    }

    pub fn records_in(&self) -> u64 {
        self.records_in.get()
    }

    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.get()
    }

    pub fn batch_bytes(&self) -> Histogram<u64> {
        self.batch_bytes.borrow().clone()
    }

    /// (API key, code, how often), in that order.
    pub fn errors(&self) -> Vec<(i16, i16, u64)> {
        let errors = self.errors.borrow();
        errors.iter().map(|((api, code), count)| (*api, *code, *count)).collect()
    }
}

/// What one partition counts, on the shard that owns it. Starts anew with the process.
#[derive(Debug, Default)]
pub struct Traffic {
    pub bytes_in: Cell<u64>,
    pub records_in: Cell<u64>,
    /// Bytes of batches read for consumers.
    pub bytes_out: Cell<u64>,
}

impl Traffic {
    pub fn appended(&self, bytes: u64, records: u64) {
        self.bytes_in.set(self.bytes_in.get() + bytes);
        self.records_in.set(self.records_in.get() + records);
    }

    pub fn read(&self, bytes: u64) {
        self.bytes_out.set(self.bytes_out.get() + bytes);
    }
}
