//! P10 and half of P17: what a broker costs that has nothing to do.

use std::thread;
use std::time::{Duration, Instant};

use super::{figure, Figure};
use crate::error::PerfError;
use crate::load::topics;
use crate::runs::lab::Turn;
use crate::runs::record::Figures;
use crate::runs::subject::{Running, REST_AFTER_LOAD};

pub const FIGURES: &[Figure] = &[
    figure("empty_cpu_percent", "empty, % of a core", 2),
    figure("empty_rss_mb", "RSS MB", 1),
    figure("create_1000_s", "1,000 partitions, s", 2),
    figure("full_cpu_percent", "10,000 partitions, % of a core", 2),
    figure("kib_per_partition", "KiB each", 1),
];

const MB: f64 = (1u64 << 20) as f64;

pub fn idle(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    let watched = Duration::from_secs_f64((20.0 * turn.scale).max(1.0));
    let empty = cpu_percent(&broker, watched)?;
    let empty_rss = broker.usage()?.rss_bytes;
    let begin = Instant::now();
    topics::create(&broker.address(), &["thousand".to_owned()], 1_000, &[])?;
    let create_s = begin.elapsed().as_secs_f64();
    for nth in 2..=10 {
        topics::create(&broker.address(), &[format!("thousand-{nth}")], 1_000, &[])?;
    }
    broker.rest(REST_AFTER_LOAD)?;
    let full = cpu_percent(&broker, watched)?;
    let more = broker.usage()?.rss_bytes.saturating_sub(empty_rss) as f64;
    Ok(Figures::from([
        ("empty_cpu_percent".to_owned(), empty),
        ("empty_rss_mb".to_owned(), empty_rss as f64 / MB),
        ("create_1000_s".to_owned(), create_s),
        ("full_cpu_percent".to_owned(), full),
        ("kib_per_partition".to_owned(), more / 1024.0 / 10_000.0),
    ]))
}

/// The share of one core over some time.
pub fn cpu_percent(broker: &Running, time: Duration) -> Result<f64, PerfError> {
    let before = broker.usage()?.cpu;
    thread::sleep(time);
    let used = broker.usage()?.cpu.saturating_sub(before);
    Ok(100.0 * used.as_secs_f64() / time.as_secs_f64())
}
