//! Time on the io_uring backend: the monotonic clock, the wall clock, and a cheap cycle counter
//! for time slices.

use std::sync::OnceLock;
use std::time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH};

use crate::Instant;

static ORIGIN: OnceLock<StdInstant> = OnceLock::new();
static TICKS_PER_MICRO: OnceLock<u64> = OnceLock::new();

/// Nanoseconds since the first use in this process, which is one second: no time is zero.
pub(super) fn now() -> Instant {
    let origin = *ORIGIN.get_or_init(StdInstant::now);
    Instant::from_nanos(origin.elapsed().as_nanos() as u64 + 1_000_000_000)
}

pub(super) fn wall_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    }
}

/// Measures the cycle counter against the clock, once per process; takes about 200 us.
pub(super) fn calibrate() {
    TICKS_PER_MICRO.get_or_init(|| {
        let (clock, start) = (StdInstant::now(), ticks());
        while clock.elapsed() < Duration::from_micros(200) {
            std::hint::spin_loop();
        }
        let micros = clock.elapsed().as_micros().max(1) as u64;
        (ticks().saturating_sub(start) / micros).max(1)
    });
}

/// How many ticks a duration takes.
pub(super) fn ticks_in(duration: Duration) -> u64 {
    let per_micro = TICKS_PER_MICRO.get().copied().unwrap_or(1000);
    per_micro * duration.as_micros() as u64
}

/// A counter that runs at a constant rate and costs a few nanoseconds to read.
#[cfg(target_arch = "x86_64")]
pub(super) fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction; it touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A counter that runs at a constant rate.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn ticks() -> u64 {
    now().as_nanos()
}
