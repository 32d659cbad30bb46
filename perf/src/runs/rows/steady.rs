//! P8, P9, P15 and P16: a fixed rate, and what changes with producers, partitions, time and batch
//! size.

use super::{figure, Figure};
use crate::error::PerfError;
use crate::runs::lab::{number, Turn};
use crate::runs::record::Figures;
use crate::runs::subject::{Running, REST_AFTER_LOAD};

pub const PRODUCER_FIGURES: &[Figure] = &[
    figure("4_per_s", "4: records/s", 0),
    figure("50_per_s", "50: records/s", 0),
    figure("4_p50_us", "4: p50 us", 0),
    figure("50_p50_us", "50: p50 us", 0),
    figure("4_p99_us", "4: p99 us", 0),
    figure("50_p99_us", "50: p99 us", 0),
];

pub const PARTITION_FIGURES: &[Figure] = &[
    figure("1_p99_us", "1: p99 us", 0),
    figure("100_p99_us", "100: p99 us", 0),
    figure("1000_p99_us", "1,000: p99 us", 0),
    figure("5000_p99_us", "5,000: p99 us", 0),
    figure("1_per_s", "1: records/s", 0),
    figure("5000_per_s", "5,000: records/s", 0),
];

pub const SOAK_FIGURES: &[Figure] = &[
    figure("first_p99_us", "first p99 us", 0),
    figure("last_p99_us", "last p99 us", 0),
    figure("first_rss_mb", "first RSS MB", 0),
    figure("last_rss_mb", "last RSS MB", 0),
];

pub const AMPLIFICATION_FIGURES: &[Figure] = &[
    figure("large_ratio", "256 KiB batches", 2),
    figure("large_mb_s", "MB/s", 0),
    figure("small_ratio", "1 KB batches at 25% of peak", 2),
    figure("small_per_s", "records/s", 0),
];

fn wanted(report: &serde_json::Value, path: &str) -> Result<f64, PerfError> {
    number(report, path).ok_or(PerfError::Malformed("loadgen"))
}

/// One broker, one fixed total rate, and a number that changes from load to load.
fn over(
    turn: &mut Turn<'_>,
    flag: &str,
    counts: &[&str],
    rest: &str,
) -> Result<Figures, PerfError> {
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    let (warm_up, duration) = (turn.scaled_seconds(2.0), turn.scaled_seconds(5.0));
    let mut figures = Figures::new();
    for count in counts {
        let flags: Vec<&str> = ["--rate", "20000", "--keys", "1000000", "--linger-ms", "5"]
            .into_iter()
            .chain(["--warm-up", &warm_up, "--duration", &duration, flag, count])
            .chain(rest.split(' '))
            .collect();
        let report = turn.loadgen(&broker.address(), &flags)?;
        figures.insert(format!("{count}_per_s"), wanted(&report, "/produced/records_per_s")?);
        // A broker that falls far behind the rate answers nothing that was due in the time measured.
        for (name, path) in
            [("p50_us", "/produced/latency/p50_us"), ("p99_us", "/produced/latency/p99_us")]
        {
            figures.extend(number(&report, path).map(|us| (format!("{count}_{name}"), us)));
        }
    }
    Ok(figures)
}

pub fn producers(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    over(turn, "--producers", &["4", "50"], "--partitions 100")
}

pub fn partitions(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    over(turn, "--partitions", &["1", "100", "1000", "5000"], "--producers 4")
}

/// Three loads on the same topic; retention is reached in the first.
pub fn soak(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let extra = ["--log-retention-check-interval-ms", "1000"];
    let broker = Running::settled(turn.subject, turn.tools, &extra)?;
    let (pid, duration) = (broker.pid().to_string(), turn.scaled_seconds(20.0));
    let mut figures = Figures::new();
    for part in ["first", "middle", "last"] {
        let flags = "--topic soak --rate 40000 --config segment.bytes=16777216 \
                     --config retention.bytes=67108864 --warm-up 3 --duration";
        let flags: Vec<&str> =
            flags.split_whitespace().chain([&*duration, "--broker-pid", &pid]).collect();
        let report = turn.loadgen(&broker.address(), &flags)?;
        let p99_us = wanted(&report, "/produced/latency/p99_us")?;
        figures.insert(format!("{part}_p99_us"), p99_us);
        figures.insert(format!("{part}_rss_mb"), wanted(&report, "/broker/rss_mb")?);
    }
    Ok(figures)
}

/// What reaches the disk late belongs to the load too, so it is counted until the broker is quiet.
pub fn amplification(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let mut figures = Figures::new();
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    let (ratio, report) = written(turn, &broker, "--batch-size 262144 --linger-ms 5", 6.0)?;
    figures.insert("large_ratio".to_owned(), ratio);
    figures.insert("large_mb_s".to_owned(), wanted(&report, "/produced/mb_per_s")?);
    drop(broker);
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    let small = "--batch-size 1200 --producers 4";
    let (_, report) = written(turn, &broker, small, 3.0)?;
    let peak = wanted(&report, "/produced/records_per_s")?;
    let paced = format!("{small} --rate {:.0}", peak / 4.0);
    let (ratio, report) = written(turn, &broker, &paced, 6.0)?;
    figures.insert("small_ratio".to_owned(), ratio);
    figures.insert("small_per_s".to_owned(), wanted(&report, "/produced/records_per_s")?);
    Ok(figures)
}

/// Bytes written per byte of values, over a whole load.
fn written(
    turn: &mut Turn<'_>,
    broker: &Running,
    flags: &str,
    seconds: f64,
) -> Result<(f64, serde_json::Value), PerfError> {
    let duration = turn.scaled_seconds(seconds);
    let flags: Vec<&str> =
        flags.split(' ').chain(["--warm-up", "0", "--duration", &duration]).collect();
    let before = broker.rest(REST_AFTER_LOAD)?;
    let report = turn.loadgen(&broker.address(), &flags)?;
    let written = broker.rest(REST_AFTER_LOAD)?.saturating_sub(before) as f64;
    let records = wanted(&report, "/produced/records_total")?;
    Ok((written / (records * 1_024.0), report))
}
