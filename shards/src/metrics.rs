//! Prometheus text (exposition format 0.0.4) from counts that the shards gather.
//!
//! Each shard counts for itself, without locks or shared atomics; a scrape asks all shards for
//! their [`Samples`], which are sent by message and merged here. Families appear in order of
//! their names, samples in order of their labels, so that two scrapes differ in numbers only.

use std::collections::BTreeMap;
use std::fmt::Write;

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

/// Upper bounds of the latency buckets, in microseconds: 50 us to 10 s.
pub const LATENCY_BOUNDS_US: [u64; 17] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// A latency histogram cut into buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// One count for each of [`LATENCY_BOUNDS_US`], not cumulative; the last is for all above.
    counts: [u64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: u64,
}

impl Buckets {
    /// Cuts a histogram of microseconds into our buckets.
    pub fn of(histogram: &hdrhistogram::Histogram<u64>) -> Buckets {
        let mut buckets = Buckets::default();
        for value in histogram.iter_recorded() {
            let us = value.value_iterated_to();
            let at = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
            buckets.counts[at] += value.count_at_value();
            buckets.sum_us += us * value.count_at_value();
        }
        buckets
    }

    fn merge(&mut self, other: &Buckets) {
        for (mine, other) in self.counts.iter_mut().zip(other.counts) {
            *mine += other;
        }
        self.sum_us += other.sum_us;
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
    /// By label text, `topic="t",partition="0"`; empty without labels.
    samples: BTreeMap<String, Value>,
}

/// What one shard (or all of them, merged) has counted.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    families: BTreeMap<&'static str, Family>,
}

/// Label names and values, in the order in which they are written.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Samples {
    /// Adds `value` to a counter or gauge; the same labels on several shards add up.
    pub fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: Labels,
        value: f64,
    ) {
        let family = self.family(name, help, kind);
        match family.samples.entry(label_text(labels)).or_insert(Value::Number(0.0)) {
            Value::Number(number) => *number += value,
            Value::Buckets(_) => debug_assert!(false, "{name} is a histogram"),
        }
    }

    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels, value: u64) {
        self.add(name, help, Kind::Counter, labels, value as f64);
    }

    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels, value: f64) {
        self.add(name, help, Kind::Gauge, labels, value);
    }

    /// Adds a histogram of seconds.
    pub fn latency(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        histogram: &hdrhistogram::Histogram<u64>,
    ) {
        let buckets = Buckets::of(histogram);
        let family = self.family(name, help, Kind::Histogram);
        let empty = || Value::Buckets(Box::default());
        match family.samples.entry(label_text(labels)).or_insert_with(empty) {
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
                    Value::Number(number) => write_sample(&mut out, name, "", labels, *number),
                    Value::Buckets(buckets) => write_histogram(&mut out, name, labels, buckets),
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

fn label_text(labels: Labels) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let _ = write!(text, "{name}=\"{value}\"");
    }
    text
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
    for (bound, count) in LATENCY_BOUNDS_US.iter().zip(buckets.counts) {
        cumulative += count;
        let seconds = *bound as f64 / 1e6;
        let labels = format!("{labels}{comma}le=\"{seconds}\"");
        write_sample(out, name, "_bucket", &labels, cumulative as f64);
    }
    cumulative += buckets.counts[LATENCY_BOUNDS_US.len()];
    let all = format!("{labels}{comma}le=\"+Inf\"");
    write_sample(out, name, "_bucket", &all, cumulative as f64);
    write_sample(out, name, "_sum", labels, buckets.sum_us as f64 / 1e6);
    write_sample(out, name, "_count", labels, cumulative as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_in_the_order_given_and_are_escaped() {
        let mut samples = Samples::default();
        samples.gauge("raft_term", "h", &[("topic", "__meta"), ("partition", "0")], 7.0);
        samples.gauge("raft_term", "h", &[("topic", "a\"b\\"), ("partition", "1")], 1.0);
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
        one.counter("c_total", "h", &[], 2);
        one.latency("l_seconds", "h", &[("api", "Fetch")], &histogram);
        let mut both = one.clone();
        both.merge(one);
        let text = both.text();
        assert!(text.contains("# TYPE c_total counter\nc_total 4\n"), "{text}");
        assert!(text.contains("l_seconds_bucket{api=\"Fetch\",le=\"0.00005\"} 2\n"), "{text}");
        assert!(text.contains("l_seconds_bucket{api=\"Fetch\",le=\"10\"} 2\n"), "{text}");
        assert!(text.contains("l_seconds_bucket{api=\"Fetch\",le=\"+Inf\"} 4\n"), "{text}");
        assert!(text.contains("l_seconds_count{api=\"Fetch\"} 4\n"), "{text}");
    }
}
