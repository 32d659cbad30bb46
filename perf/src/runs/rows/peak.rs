//! P1 to P5: how much goes in, and what it costs the broker.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use super::{figure, Figure};
use crate::error::PerfError;
use crate::load::topics;
use crate::runs::kafka;
use crate::runs::lab::{number, Turn};
use crate::runs::record::Figures;
use crate::runs::subject::Running;

const PARTITIONS: usize = 6;
const MB: f64 = (1u64 << 20) as f64;
const GB: f64 = (1u64 << 30) as f64;

pub const FIGURES: &[Figure] = &[
    figure("mb_s", "MB/s", 0),
    figure("p50_ms", "p50 ms", 0),
    figure("p99_ms", "p99 ms", 0),
    figure("cpu_s_per_gb", "broker CPU-s/GB", 2),
    figure("written_per_byte", "written/payload", 2),
    figure("rss_max_mb", "RSS max MB", 0),
];

pub const NATIVE_FIGURES: &[Figure] =
    &[figure("mb_s", "MB/s", 0), figure("cpu_s_per_gb", "broker CPU-s/GB", 2)];

pub const DURABILITY_FIGURES: &[Figure] = &[
    figure("mb_s", "P3 MB/s", 0),
    figure("cpu_s_per_gb", "broker CPU-s/GB", 2),
    figure("rate_p50_us", "10k/s p50 us", 0),
    figure("rate_p99_us", "10k/s p99 us", 0),
];

/// A load of `kafka-producer-perf-test`.
struct Load {
    records: u64,
    record_bytes: u64,
    from_file: bool,
    properties: &'static [&'static str],
    processes: u64,
}

const BIG: Load = Load {
    records: 4_000_000,
    record_bytes: 1_024,
    from_file: true,
    properties: &["acks=all", "batch.size=1000000", "linger.ms=10"],
    processes: 1,
};

pub fn small(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let properties = &["acks=1", "batch.size=8196"];
    let load =
        Load { records: 6_000_000, record_bytes: 100, from_file: false, properties, processes: 1 };
    measure(turn, &load)
}

pub fn defaults(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let properties = &["acks=all"];
    let load = Load {
        records: 1_500_000,
        record_bytes: 1_024,
        from_file: false,
        properties,
        processes: 1,
    };
    measure(turn, &load)
}

pub fn big(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    measure(turn, &BIG)
}

pub fn big_by_three(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    measure(turn, &Load { processes: 3, ..BIG })
}

fn measure(turn: &mut Turn<'_>, load: &Load) -> Result<Figures, PerfError> {
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    measure_on(turn, load, &broker)
}

/// A fifth of the load to warm up, into the same topic, then the load itself.
fn measure_on(turn: &mut Turn<'_>, load: &Load, broker: &Running) -> Result<Figures, PerfError> {
    topics::create(&broker.address(), &["perf".to_owned()], PARTITIONS, &[])?;
    let records = turn.scaled(load.records) / load.processes;
    run(turn, load, broker, (records / 5).max(1))?;
    let before = broker.usage()?;
    let results = run(turn, load, broker, records)?;
    let after = broker.usage()?;
    let payload = (records * load.processes * load.record_bytes) as f64;
    let cpu_s = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    let sum = |of: fn(&kafka::ProducerResult) -> f64| results.iter().map(of).sum::<f64>();
    let largest =
        |of: fn(&kafka::ProducerResult) -> f64| results.iter().map(of).fold(0.0, f64::max);
    Ok(Figures::from([
        ("mb_s".to_owned(), sum(|result| result.mb_per_s)),
        ("p50_ms".to_owned(), largest(|result| result.p50_ms)),
        ("p99_ms".to_owned(), largest(|result| result.p99_ms)),
        ("cpu_s_per_gb".to_owned(), cpu_s / (payload / GB)),
        ("rss_max_mb".to_owned(), after.rss_peak_bytes as f64 / MB),
        (
            "written_per_byte".to_owned(),
            after.written_bytes.saturating_sub(before.written_bytes) as f64 / payload,
        ),
    ]))
}

fn run(
    turn: &mut Turn<'_>,
    load: &Load,
    broker: &Running,
    records: u64,
) -> Result<Vec<kafka::ProducerResult>, PerfError> {
    let mut arguments = vec!["--topic".to_owned(), "perf".to_owned()];
    arguments.extend(["--num-records".to_owned(), records.to_string()]);
    arguments.extend(["--throughput".to_owned(), "-1".to_owned()]);
    match load.from_file {
        true => {
            let file = payload_file(turn)?.display().to_string();
            arguments.extend(["--payload-file".to_owned(), file]);
        }
        false => arguments.extend(["--record-size".to_owned(), load.record_bytes.to_string()]),
    }
    arguments.push("--producer-props".to_owned());
    arguments.extend(load.properties.iter().map(|property| property.to_string()));
    arguments.push(format!("bootstrap.servers={}", broker.address()));
    turn.note(&format!("{} x kafka-producer-perf-test", load.processes), &arguments);
    kafka::producers(turn.tools, &vec![arguments; load.processes as usize])
}

/// Lines of 1,024 bytes that do not compress: making records in Java would cost the client more
/// than sending them.
fn payload_file(turn: &Turn<'_>) -> Result<PathBuf, PerfError> {
    const LINES: usize = 2_000;
    let path = turn.tools.work.join("payload");
    let whole = fs::metadata(&path).is_ok_and(|found| found.len() as usize == LINES * 1_025);
    if whole {
        return Ok(path);
    }
    let fault = |error| PerfError::Io { what: path.display().to_string(), error };
    let mut file = BufWriter::new(File::create(&path).map_err(fault)?);
    let mut state = 88_172_645_463_325_252u64;
    for _ in 0..LINES {
        let mut line = [b'\n'; 1_025];
        for byte in &mut line[..1_024] {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = b'0' + (state % 75) as u8;
        }
        file.write_all(&line).map_err(fault)?;
    }
    file.flush().map_err(fault)?;
    Ok(path)
}

pub fn native(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    topics::create(&broker.address(), &["perf".to_owned()], PARTITIONS, &[])?;
    let records = turn.scaled(3_000_000);
    let flags = |records: u64| format!("--topic perf --record-size 1024 --records {records}");
    let mut produce = |records: u64| {
        let flags = flags(records);
        let flags: Vec<&str> = flags.split(' ').collect();
        turn.native_producer(&broker.address(), &flags)
    };
    produce(records / 5 + 1)?;
    let before = broker.usage()?;
    let report = produce(records)?;
    let cpu_s = broker.usage()?.cpu.saturating_sub(before.cpu).as_secs_f64();
    let mb_s = number(&report, "/mb_per_s").ok_or(PerfError::Malformed("native-producer"))?;
    Ok(Figures::from([
        ("mb_s".to_owned(), mb_s),
        ("cpu_s_per_gb".to_owned(), cpu_s / (records as f64 * 1_024.0 / GB)),
    ]))
}

pub fn durability(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    let mut figures = measure_on(turn, &BIG, &broker)?;
    let duration = turn.scaled_seconds(5.0);
    let flags = ["--rate", "10000", "--duration", &duration];
    let report = turn.loadgen(&broker.address(), &flags)?;
    for (name, path) in [("rate_p50_us", "p50_us"), ("rate_p99_us", "p99_us")] {
        let value = number(&report, &format!("/produced/latency/{path}"));
        figures.insert(name.to_owned(), value.ok_or(PerfError::Malformed("loadgen"))?);
    }
    Ok(figures)
}
