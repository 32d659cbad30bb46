//! Prometheus text (exposition format 0.0.4) from counts that the shards gather.
//!
//! Each shard counts for itself, without locks or shared atomics; a scrape asks all shards for
//! their [`Samples`], which are sent by message and merged here. Families appear in order of
//! their names, samples in order of their labels, so that two scrapes differ in numbers only.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// What Prometheus is told a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Upper bounds of the latency buckets, in microseconds: 20 us to 10 s.
const LATENCY_BOUNDS_US: [u64; BOUNDS] = [
    20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// Upper bounds of the size buckets, in bytes: 128 to 16 MiB, each twice the one before.
const SIZE_BOUNDS_BYTES: [u64; BOUNDS] = {
    let mut bounds = [128; BOUNDS];
    let mut at = 1;
    while at < BOUNDS {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
};

const BOUNDS: usize = 18;

/// What a histogram is of, which says how it is cut into buckets and printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// Recorded in microseconds, printed in seconds.
    Seconds,
    Bytes,
}

impl Scale {
    fn bounds(self) -> &'static [u64; BOUNDS] {
        match self {
            Scale::Seconds => &LATENCY_BOUNDS_US,
            Scale::Bytes => &SIZE_BOUNDS_BYTES,
        }
    }

    fn printed(self, value: u64) -> f64 {
        match self {
            Scale::Seconds => value as f64 / 1e6,
            Scale::Bytes => value as f64,
        }
    }
}

/// A histogram cut into buckets.
#[derive(Clone, Debug, PartialEq)]
struct Buckets {
    scale: Scale,
    /// One count for each of the scale's bounds, not cumulative; the last is for all above.
    counts: [u64; BOUNDS + 1],
    sum: u64,
}

impl Buckets {
    fn empty(scale: Scale) -> Buckets {
        Buckets { scale, counts: [0; BOUNDS + 1], sum: 0 }
    }

    fn of(histogram: &hdrhistogram::Histogram<u64>, scale: Scale) -> Buckets {
        let mut buckets = Buckets::empty(scale);
        for value in histogram.iter_recorded() {
            let recorded = value.value_iterated_to();
            let at = scale.bounds().partition_point(|bound| *bound < recorded);
            buckets.counts[at] += value.count_at_value();
            buckets.sum += recorded * value.count_at_value();
        }
        buckets
    }

    fn merge(&mut self, other: &Buckets) {
        for (mine, other) in self.counts.iter_mut().zip(other.counts) {
            *mine += other;
        }
        self.sum += other.sum;
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(f64),
    Buckets(Box<Buckets>),
}

#[derive(Clone, Debug)]
struct Family {
    help: &'static str,
    kind: Kind,
    samples: BTreeMap<Labels, Value>,
}

/// What one shard (or all of them, merged) has counted.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    families: BTreeMap<&'static str, Family>,
}

/// The labels of a sample as they are written, `topic="t",partition="0"`; empty without labels. Made
/// once and used for many samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(Arc<str>);

impl Labels {
    pub fn none() -> Labels {
        Labels::default()
    }

    /// Names and values, in the order in which they are written.
    pub fn of(labels: &[(&str, &str)]) -> Labels {
        let mut text = String::new();
        for (name, value) in labels {
            if !text.is_empty() {
                text.push(',');
            }
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(text, "{name}=\"{value}\"");
        }
        Labels(text.into())
    }
}

impl Samples {
    /// Adds `value` to a counter or gauge; the same labels on several shards add up.
    pub fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &Labels,
        value: f64,
    ) {
        let family = self.family(name, help, kind);
        match family.samples.entry(labels.clone()).or_insert(Value::Number(0.0)) {
            Value::Number(number) => *number += value,
            Value::Buckets(_) => debug_assert!(false, "{name} is a histogram"),
        }
    }

    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: &Labels, value: u64) {
        self.add(name, help, Kind::Counter, labels, value as f64);
    }

    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: &Labels, value: f64) {
        self.add(name, help, Kind::Gauge, labels, value);
    }

    /// Adds a histogram of times, recorded in microseconds.
    pub fn latency(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &Labels,
        histogram: &hdrhistogram::Histogram<u64>,
    ) {
        self.histogram(name, help, labels, Buckets::of(histogram, Scale::Seconds));
    }

    /// Adds a histogram of sizes.
    pub fn sizes(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &Labels,
        histogram: &hdrhistogram::Histogram<u64>,
    ) {
        self.histogram(name, help, labels, Buckets::of(histogram, Scale::Bytes));
    }

    fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &Labels,
        buckets: Buckets,
    ) {
        let family = self.family(name, help, Kind::Histogram);
        let empty = || Value::Buckets(Box::new(Buckets::empty(buckets.scale)));
        match family.samples.entry(labels.clone()).or_insert_with(empty) {
            Value::Buckets(all) => all.merge(&buckets),
            Value::Number(_) => debug_assert!(false, "{name} is not a histogram"),
        }
    }

    /// Adds everything that another shard has counted.
    pub fn merge(&mut self, other: Samples) {
        for (name, family) in other.families {
            let mine = self.family(name, family.help, family.kind);
            for (labels, value) in family.samples {
                match (mine.samples.get_mut(&labels), value) {
                    (Some(Value::Number(mine)), Value::Number(other)) => *mine += other,
                    (Some(Value::Buckets(mine)), Value::Buckets(other)) => mine.merge(&other),
                    (_, value) => {
                        mine.samples.insert(labels, value);
                    }
                }
            }
        }
    }

    /// The text that a scrape gets.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, family) in &self.families {
            let _ = writeln!(out, "# HELP {name} {}", family.help);
            let _ = writeln!(out, "# TYPE {name} {}", family.kind.name());
            for (labels, value) in &family.samples {
                match value {
                    Value::Number(number) => write_sample(&mut out, name, "", &labels.0, *number),
                    Value::Buckets(buckets) => write_histogram(&mut out, name, &labels.0, buckets),
                }
            }
        }
        out
    }

    fn family(&mut self, name: &'static str, help: &'static str, kind: Kind) -> &mut Family {
        let empty = || Family { help, kind, samples: BTreeMap::new() };
        self.families.entry(name).or_insert_with(empty)
    }
}

fn write_sample(out: &mut String, name: &str, suffix: &str, labels: &str, value: f64) {
    let _ = match labels.is_empty() {
        true => writeln!(out, "{name}{suffix} {value}"),
        false => writeln!(out, "{name}{suffix}{{{labels}}} {value}"),
    };
}

fn write_histogram(out: &mut String, name: &str, labels: &str, buckets: &Buckets) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut cumulative = 0;
    let scale = buckets.scale;
    for (bound, count) in scale.bounds().iter().zip(buckets.counts) {
        cumulative += count;
        let bound = scale.printed(*bound);
        let labels = format!("{labels}{comma}le=\"{bound}\"");
        write_sample(out, name, "_bucket", &labels, cumulative as f64);
    }
    cumulative += buckets.counts[BOUNDS];
    let all = format!("{labels}{comma}le=\"+Inf\"");
    write_sample(out, name, "_bucket", &all, cumulative as f64);
    write_sample(out, name, "_sum", labels, scale.printed(buckets.sum));
    write_sample(out, name, "_count", labels, cumulative as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_in_the_order_given_and_are_escaped() {
        let mut samples = Samples::default();
        let labels = Labels::of(&[("topic", "__meta"), ("partition", "0")]);
        samples.gauge("raft_term", "h", &labels, 7.0);
        let labels = Labels::of(&[("topic", "a\"b\\"), ("partition", "1")]);
        samples.gauge("raft_term", "h", &labels, 1.0);
        let text = samples.text();
        assert!(text.contains("\nraft_term{topic=\"__meta\",partition=\"0\"} 7\n"), "{text}");
        assert!(text.contains("raft_term{topic=\"a\\\"b\\\\\",partition=\"1\"} 1\n"), "{text}");
    }

    #[test]
    fn shards_add_up() {
        let mut histogram = hdrhistogram::Histogram::new(3).unwrap();
        histogram.record(40).unwrap();
        histogram.record(30_000_000).unwrap();
        let mut one = Samples::default();
        one.counter("c_total", "h", &Labels::none(), 2);
        one.latency("l_seconds", "h", &Labels::of(&[("api", "Fetch")]), &histogram);
        let mut both = one.clone();
        both.merge(one);
        let text = both.text();
        assert!(text.contains("# TYPE c_total counter\nc_total 4\n"), "{text}");
        assert!(text.contains("l_seconds_bucket{api=\"Fetch\",le=\"0.00005\"} 2\n"), "{text}");
        assert!(text.contains("l_seconds_bucket{api=\"Fetch\",le=\"10\"} 2\n"), "{text}");
        assert!(text.contains("l_seconds_bucket{api=\"Fetch\",le=\"+Inf\"} 4\n"), "{text}");
        assert!(text.contains("l_seconds_count{api=\"Fetch\"} 4\n"), "{text}");
    }

    #[test]
    fn sizes_are_cut_at_powers_of_two() {
        let mut histogram = hdrhistogram::Histogram::new(3).unwrap();
        for size in [100, 128, 129, 64 << 20] {
            histogram.record(size).unwrap();
        }
        let mut samples = Samples::default();
        samples.sizes("s_bytes", "h", &Labels::none(), &histogram);
        let text = samples.text();
        for line in ["s_bytes_bucket{le=\"128\"} 2", "s_bytes_bucket{le=\"256\"} 3"] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        assert!(text.contains("s_bytes_bucket{le=\"16777216\"} 3\n"), "{text}");
        assert!(text.contains("s_bytes_bucket{le=\"+Inf\"} 4\n"), "{text}");
    }
}
