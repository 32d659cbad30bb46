//! How long the frames of one shard's log took to become durable, and how large they were.
//!
//! One writer, plain memory: recording takes some nanoseconds and no lock. Whoever prints metrics
//! takes a copy.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer writes are counted as this.
const WRITE_MAX_US: u64 = 600_000_000;
/// Larger frames are counted as this; the format's limit is below it.
const FRAME_MAX_BYTES: u64 = 1 << 32;

/// Histograms since the log was opened.
#[derive(Debug, Clone)]
pub struct WalHistograms {
    /// From the submission of a frame to its durability, in microseconds.
    pub write_us: Histogram<u64>,
    /// Whole frames as they are written, padding included.
    pub frame_bytes: Histogram<u64>,
}

impl Default for WalHistograms {
    fn default() -> WalHistograms {
        let to = |max| Histogram::new_with_bounds(1, max, 2).expect("constant, legal bounds");
        WalHistograms { write_us: to(WRITE_MAX_US), frame_bytes: to(FRAME_MAX_BYTES) }
    }
}

impl WalHistograms {
    pub(crate) fn written(&mut self, took: Duration, bytes: u64) {
        self.write_us.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.frame_bytes.saturating_record(bytes);
    }
}
