//! The one clock of a load, and when each record is due.
//!
//! Times are nanoseconds since the load's clock was made, so that a record can carry the time it
//! was due to a consumer in the same process.

use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub struct Clock {
    zero: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { zero: Instant::now() }
    }

    pub fn now_ns(&self) -> u64 {
        self.zero.elapsed().as_nanos() as u64
    }

    /// Sleeps until then, as exactly as the kernel can.
    pub fn sleep_until(&self, time_ns: u64) {
        thread::sleep(Duration::from_nanos(time_ns.saturating_sub(self.now_ns())));
    }
}

/// Asks the kernel to wake this thread's sleeps on time, and not within the usual 50 us.
pub fn wake_on_time() {
    // Where it is refused the sleeps are late by some microseconds, and the histogram shows it.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// When the records of one producer are due: at even distances, or at once.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    start_ns: u64,
    /// Between two records; 0: as fast as they go.
    interval_ns: f64,
    /// How many there are.
    records: u64,
}

impl Schedule {
    /// The part of producer `nth` of `producers` in a total rate, offset so that theirs interleave.
    pub fn share(
        start_ns: u64,
        rate: f64,
        records: Option<u64>,
        nth: usize,
        producers: usize,
    ) -> Schedule {
        let (nth, producers) = (nth as u64, producers as u64);
        let interval_ns = if rate > 0.0 { producers as f64 * 1e9 / rate } else { 0.0 };
        let phase_ns = interval_ns * nth as f64 / producers as f64;
        let records =
            records.map_or(u64::MAX, |all| all / producers + u64::from(nth < all % producers));
        Schedule { start_ns: start_ns + phase_ns as u64, interval_ns, records }
    }

    /// When a record is due.
    pub fn due_ns(&self, record: u64) -> u64 {
        self.start_ns + (self.interval_ns * record as f64) as u64
    }

    /// How many records are due by then.
    pub fn count_due(&self, now_ns: u64) -> u64 {
        let Some(elapsed) = now_ns.checked_sub(self.start_ns) else { return 0 };
        if self.interval_ns == 0.0 {
            return self.records;
        }
        let due = (elapsed as f64 / self.interval_ns) as u64 + 1;
        due.min(self.records)
    }

    pub fn records(&self) -> u64 {
        self.records
    }

    /// Whether records have due times, from which latency is counted.
    pub fn is_paced(&self) -> bool {
        self.interval_ns > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_one_after_another() {
        let schedule = Schedule::share(1_000, 1e6, None, 0, 1);
        assert_eq!(schedule.count_due(999), 0);
        assert_eq!(schedule.count_due(1_000), 1);
        assert_eq!(schedule.count_due(2_999), 2);
        assert_eq!(schedule.due_ns(2), 3_000);
    }

    #[test]
    fn producers_share_rate_and_count() {
        let shares: Vec<_> =
            (0..3).map(|nth| Schedule::share(0, 1_000.0, Some(10), nth, 3)).collect();
        assert_eq!(shares.iter().map(Schedule::records).sum::<u64>(), 10);
        let at = |ms: u64| shares.iter().map(|s| s.count_due(ms * 1_000_000)).sum::<u64>();
        assert_eq!((at(0), at(4), at(1_000)), (1, 5, 10));
    }

    #[test]
    fn without_a_rate_everything_is_due_at_once() {
        let schedule = Schedule::share(5, 0.0, Some(7), 0, 1);
        assert_eq!((schedule.count_due(4), schedule.count_due(5)), (0, 7));
        assert!(!schedule.is_paced());
    }
}
