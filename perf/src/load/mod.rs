//! The open-loop load generator: producers and consumers against a running broker.
//!
//! Every record has a time at which it is due, whatever the broker does, and its latency counts
//! from there ("coordinated omission" is what happens otherwise). One thread sends and one receives
//! per producing connection, one thread per fetching one. All threads share one clock; what comes
//! before the warm-up is over is sent and not counted.

mod clock;
mod consumer;
mod encode;
mod options;
mod producer;
mod report;
pub mod topics;
mod window;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::error::PerfError;
use crate::process::{self, Usage};
use clock::{Clock, Schedule};
use consumer::{Consumed, Consumer};
use producer::Produced;

pub use options::{command, Options};
pub use report::{Latency, Report};

/// Time for all threads to be ready before the first record is due.
const START_DELAY: Duration = Duration::from_millis(50);
/// How often the broker's memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// Latencies above this many microseconds count as this many.
const LATENCY_MAX_US: u64 = 600_000_000;

/// Microseconds with three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("constant bounds")
}

/// Runs a load to its end.
pub fn run(options: &Options) -> Result<Report, PerfError> {
    topics::prepare(options)?;
    let topics = options.topic_names();
    let clock = Clock::start();
    let stop = AtomicBool::new(false);
    // Consumers look up where they start before the first record is sent.
    let start_ns = clock.now_ns() + Duration::as_nanos(&START_DELAY) as u64;
    let reading = options.consumers * options.groups;
    let start_ns = start_ns + reading as u64 * 1_000_000;
    let measure_from_ns = start_ns + options.warm_up.as_nanos() as u64;
    let end_ns = measure_from_ns + options.duration.as_nanos() as u64;
    let (topics, stop) = (&topics[..], &stop);
    let consuming = consumer::Plan { options, topics, clock, measure_from_ns, end_ns, stop };
    let producing = producer::Plan { options, topics, clock, measure_from_ns, end_ns };
    let mut consumers = Vec::new();
    for nth in 0..reading {
        consumers.push(Consumer::open(&consuming, nth % options.consumers)?);
    }
    thread::scope(|scope| {
        let consumers: Vec<_> = consumers
            .into_iter()
            .map(|consumer| {
                scope.spawn(move || {
                    clock.sleep_until(start_ns);
                    consumer.run()
                })
            })
            .collect();
        let producers: Vec<_> = (0..options.producers)
            .map(|nth| {
                let shares = (options.rate, options.records, nth, options.producers);
                let schedule = Schedule::share(start_ns, shares.0, shares.1, shares.2, shares.3);
                scope.spawn(move || producer::run(&producing, schedule, nth))
            })
            .collect();
        let busy = || match producers.is_empty() {
            true => consumers.iter().any(|consumer| !consumer.is_finished()),
            false => producers.iter().any(|producer| !producer.is_finished()),
        };
        clock.sleep_until(measure_from_ns);
        let watched = Watched::until(options.broker_pid, &clock, end_ns, busy);
        let mut produced = Produced::nothing();
        let mut failed = None;
        for producer in producers {
            match producer.join().expect("a producer does not panic") {
                Ok(one) => produced.add(&one),
                Err(error) => failed = Some(error),
            }
        }
        stop.store(true, Ordering::Release);
        let mut consumed = Consumed::nothing();
        for consumer in consumers {
            match consumer.join().expect("a consumer does not panic") {
                Ok(one) => consumed.add(&one),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)?;
        let window = (measure_from_ns, end_ns);
        Ok(Report::new(options, window, &produced, &consumed, watched?))
    })
}

/// What the broker used in the measured time.
#[derive(Debug, Clone, Copy)]
struct Watched {
    before: Usage,
    after: Usage,
    /// The most that was seen resident meanwhile.
    rss_max_bytes: u64,
}

impl Watched {
    /// Watches until the end, or until nobody is busy any more.
    fn until(
        pid: Option<u32>,
        clock: &Clock,
        end_ns: u64,
        busy: impl Fn() -> bool,
    ) -> Result<Option<Watched>, PerfError> {
        let before = pid.map(process::usage).transpose()?;
        let mut rss_max_bytes = 0;
        while clock.now_ns() < end_ns && busy() {
            if let Some(pid) = pid {
                rss_max_bytes = rss_max_bytes.max(process::usage(pid)?.rss_bytes);
            }
            clock.sleep_until(end_ns.min(clock.now_ns() + SAMPLE_EVERY.as_nanos() as u64));
        }
        let after = pid.map(process::usage).transpose()?;
        Ok(before.zip(after).map(|(before, after)| Watched {
            before,
            after,
            rss_max_bytes: rss_max_bytes.max(after.rss_bytes),
        }))
    }
}
