//! What one shard counts about its own work. Plain cells: one writer, no locks, no atomics.

use std::cell::Cell;

/// Totals since the start.
#[derive(Debug, Default)]
pub struct Stats {
    bytes_in: Cell<u64>,
    records_in: Cell<u64>,
    batches_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

impl Stats {
    /// A batch was appended; bytes with its header.
    pub fn appended(&self, bytes: u64, records: i32) {
        self.bytes_in.set(self.bytes_in.get() + bytes);
        self.records_in.set(self.records_in.get() + u64::try_from(records).unwrap_or(0));
        self.batches_in.set(self.batches_in.get() + 1);
    }

    /// Batches were sent to a consumer.
    pub fn fetched(&self, bytes: u64) {
        self.bytes_out.set(self.bytes_out.get() + bytes);
    }

    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.get()
    }

    pub fn records_in(&self) -> u64 {
        self.records_in.get()
    }

    pub fn batches_in(&self) -> u64 {
        self.batches_in.get()
    }

    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.get()
    }
}
