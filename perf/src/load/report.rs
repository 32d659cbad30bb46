//! What a load found, as a text for people and as JSON for the runs.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::consumer::Consumed;
use super::options::Options;
use super::producer::Produced;
use super::Watched;

const MB: f64 = (1u64 << 20) as f64;
const GB: f64 = (1u64 << 30) as f64;

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    pub count: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Option<Latency> {
        let at = |quantile: f64| histogram.value_at_quantile(quantile);
        (!histogram.is_empty()).then(|| Latency {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max(),
            count: histogram.len(),
        })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50_us, p90_us, p99_us, p999_us, max_us, .. } = self;
        write!(f, "p50 {p50_us} p90 {p90_us} p99 {p99_us} p99.9 {p999_us} max {max_us} us")
    }
}

/// Records in one direction, within the measured time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Flow {
    pub records: u64,
    /// Over the whole load, warm-up included.
    pub records_total: u64,
    pub requests: u64,
    pub seconds: f64,
    pub records_per_s: f64,
    /// Of values when producing, of batches when consuming.
    pub mb_per_s: f64,
    pub latency: Option<Latency>,
}

/// What the broker used within the measured time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Broker {
    pub cpu_s: f64,
    pub cpu_s_per_gb_in: Option<f64>,
    pub gb_out_per_cpu_s: Option<f64>,
    pub rss_mb: f64,
    pub rss_max_mb: f64,
    pub written_mb: f64,
    /// Bytes written per byte of record values.
    pub written_per_byte: Option<f64>,
}

/// The whole result.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub produced: Option<Flow>,
    /// Records that were due and never sent, because the broker could not keep up.
    pub unsent: u64,
    /// Refused records, by error.
    pub refused: BTreeMap<String, u64>,
    pub consumed: Option<Flow>,
    /// MB in the slowest whole second of consuming, but for the first one.
    pub slowest_second_mb: Option<f64>,
    pub broker: Option<Broker>,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        (from_ns, end_ns): (u64, u64),
        produced: &Produced,
        consumed: &Consumed,
        watched: Option<Watched>,
    ) -> Report {
        // A load that ran out of records is shorter than its window.
        let seconds = |last_ns: u64| (last_ns.min(end_ns).saturating_sub(from_ns)) as f64 / 1e9;
        let produced_flow = (options.producers > 0).then(|| {
            let bytes = produced.records as f64 * options.record_bytes as f64;
            flow(
                (produced.records, produced.records_total, produced.requests),
                bytes,
                seconds(if options.records.is_some() { produced.last_answer_ns } else { end_ns }),
                &produced.latency_us,
            )
        });
        let consumed_flow = (options.consumers > 0).then(|| {
            let last = if options.producers == 0 { consumed.last_data_ns } else { end_ns };
            flow(
                (consumed.records, consumed.records_total, consumed.fetches),
                consumed.bytes as f64,
                seconds(last),
                &consumed.latency_us,
            )
        });
        let slowest_second_mb = consumed_flow.as_ref().and_then(|flow| {
            let whole = (flow.seconds as usize).min(consumed.bytes_by_second.len());
            let slowest = consumed.bytes_by_second.get(1..whole)?.iter().min()?;
            Some(*slowest as f64 / MB)
        });
        let bytes_in = produced.records as f64 * options.record_bytes as f64;
        Report {
            produced: produced_flow,
            unsent: produced.unsent,
            refused: produced.refused.iter().map(|(c, n)| (c.name().to_owned(), *n)).collect(),
            consumed: consumed_flow,
            slowest_second_mb,
            broker: watched.map(|watched| broker(watched, bytes_in, consumed.bytes as f64)),
        }
    }

    /// Whether every record that was due has been acknowledged.
    pub fn is_clean(&self) -> bool {
        self.refused.is_empty() && self.unsent == 0
    }
}

fn flow(
    (records, records_total, requests): (u64, u64, u64),
    bytes: f64,
    seconds: f64,
    latency: &Histogram<u64>,
) -> Flow {
    let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
    Flow {
        records,
        records_total,
        requests,
        seconds,
        records_per_s: per_second(records as f64),
        mb_per_s: per_second(bytes / MB),
        latency: Latency::of(latency),
    }
}

fn broker(watched: Watched, bytes_in: f64, bytes_out: f64) -> Broker {
    let Watched { before, after, rss_max_bytes } = watched;
    let cpu_s = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    let written = after.written_bytes.saturating_sub(before.written_bytes) as f64;
    Broker {
        cpu_s,
        cpu_s_per_gb_in: (bytes_in > 0.0).then(|| cpu_s / (bytes_in / GB)),
        gb_out_per_cpu_s: (bytes_out > 0.0 && cpu_s > 0.0).then(|| bytes_out / GB / cpu_s),
        rss_mb: after.rss_bytes as f64 / MB,
        rss_max_mb: rss_max_bytes as f64 / MB,
        written_mb: written / MB,
        written_per_byte: (bytes_in > 0.0).then(|| written / bytes_in),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(flow) = &self.produced {
            writeln!(f, "produced  {flow}")?;
        }
        if self.unsent > 0 {
            writeln!(f, "          {} records were due and never sent: too fast", self.unsent)?;
        }
        for (code, count) in &self.refused {
            writeln!(f, "          {count} records refused: {code}")?;
        }
        if let Some(flow) = &self.consumed {
            writeln!(f, "consumed  {flow}")?;
        }
        let Some(broker) = &self.broker else { return Ok(()) };
        write!(f, "broker    {:.2} CPU-s", broker.cpu_s)?;
        if let Some(cost) = broker.cpu_s_per_gb_in {
            write!(f, " ({cost:.2} per GB in)")?;
        }
        if let Some(gain) = broker.gb_out_per_cpu_s {
            write!(f, " ({gain:.2} GB out per CPU-s)")?;
        }
        write!(f, ", RSS {:.0} MB (at most {:.0})", broker.rss_mb, broker.rss_max_mb)?;
        write!(f, ", {:.0} MB written", broker.written_mb)?;
        if let Some(ratio) = broker.written_per_byte {
            write!(f, " ({ratio:.2} per byte of values)")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records in {:.2} s, {:.0}/s, {:.1} MB/s, {} requests",
            self.records, self.seconds, self.records_per_s, self.mb_per_s, self.requests
        )?;
        match &self.latency {
            Some(latency) => write!(f, "\n          {latency}"),
            None => Ok(()),
        }
    }
}
