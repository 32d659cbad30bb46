//! P6 and P7: how long a record takes, counted from when it was due.

use serde_json::Value;

use super::{figure, Figure};
use crate::error::PerfError;
use crate::runs::kafka;
use crate::runs::lab::{number, Turn};
use crate::runs::record::Figures;
use crate::runs::subject::Running;

pub const FIGURES: &[Figure] = &[
    figure("2k_p50_us", "2k/s p50 us", 0),
    figure("2k_p99_us", "p99", 0),
    figure("2k_p999_us", "p99.9", 0),
    figure("20k_p50_us", "20k/s p50 us", 0),
    figure("20k_p99_us", "p99", 0),
    figure("20k_p999_us", "p99.9", 0),
];

pub const PART_FIGURES: &[Figure] = &[
    figure("peak_per_s", "peak records/s", 0),
    figure("25_p50_us", "25% p50 us", 0),
    figure("25_p99_us", "p99", 0),
    figure("50_p50_us", "50% p50 us", 0),
    figure("50_p99_us", "p99", 0),
    figure("75_p50_us", "75% p50 us", 0),
    figure("75_p99_us", "p99", 0),
];

pub const END_TO_END_FIGURES: &[Figure] = &[
    figure("tool_average_ms", "tool average ms", 2),
    figure("tool_p99_ms", "tool p99 ms", 0),
    figure("p50_us", "p50 us", 0),
    figure("p99_us", "p99 us", 0),
    figure("p999_us", "p99.9 us", 0),
];

/// Percentiles of one direction of a report, under names that start with `prefix`. What was due
/// and never sent makes the percentiles meaningless, and a refused record is a failed run.
fn percentiles(
    figures: &mut Figures,
    report: &Value,
    direction: &str,
    prefix: &str,
) -> Result<(), PerfError> {
    if let Some(refused) = report["refused"].as_object().filter(|refused| !refused.is_empty()) {
        return Err(PerfError::Unfit(format!("records were refused: {refused:?}")));
    }
    for name in ["p50_us", "p99_us", "p999_us"] {
        let value = number(report, &format!("/{direction}/latency/{name}"));
        let value = value.ok_or(PerfError::Malformed("loadgen"))?;
        figures.insert(format!("{prefix}{name}"), value);
    }
    Ok(())
}

pub fn fixed_rates(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    let (warm_up, duration) = (turn.scaled_seconds(3.0), turn.scaled_seconds(6.0));
    let mut figures = Figures::new();
    for (rate, prefix) in [("2000", "2k_"), ("20000", "20k_")] {
        let flags = ["--rate", rate, "--warm-up", &warm_up, "--duration", &duration];
        let report = turn.loadgen(&broker.address(), &flags)?;
        percentiles(&mut figures, &report, "produced", prefix)?;
    }
    Ok(figures)
}

pub fn parts_of_peak(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    let (warm_up, duration) = (turn.scaled_seconds(2.0), turn.scaled_seconds(5.0));
    let common = ["--warm-up", &*warm_up, "--duration", &*duration];
    let report = turn.loadgen(&broker.address(), &common)?;
    let peak = number(&report, "/produced/records_per_s").ok_or(PerfError::Malformed("loadgen"))?;
    let mut figures = Figures::from([("peak_per_s".to_owned(), peak)]);
    for percent in [25, 50, 75] {
        let rate = format!("{:.0}", peak * f64::from(percent) / 100.0);
        let flags = [&["--rate", &*rate], &common[..]].concat();
        let report = turn.loadgen(&broker.address(), &flags)?;
        percentiles(&mut figures, &report, "produced", &format!("{percent}_"))?;
    }
    Ok(figures)
}

pub fn end_to_end(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    let records = turn.scaled(10_000);
    turn.note("kafka-e2e-latency", &["e2e", &records.to_string(), "all", "1024"]);
    let tool = kafka::end_to_end(turn.tools, &broker.address(), "e2e", records, 1_024)?;
    let mut figures = Figures::from([
        ("tool_average_ms".to_owned(), tool.average_ms),
        ("tool_p50_ms".to_owned(), tool.p50_ms),
        ("tool_p99_ms".to_owned(), tool.p99_ms),
        ("tool_p999_ms".to_owned(), tool.p999_ms),
    ]);
    let duration = turn.scaled_seconds(6.0);
    let flags = "--rate 1000 --consumers 1 --partitions 1 --warm-up 2 --duration";
    let flags: Vec<&str> = flags.split(' ').chain([&*duration]).collect();
    let report = turn.loadgen(&broker.address(), &flags)?;
    percentiles(&mut figures, &report, "consumed", "")?;
    Ok(figures)
}
