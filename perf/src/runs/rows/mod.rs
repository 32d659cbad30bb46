//! The rows: the scorecard's questions that one machine and one node can answer.

pub mod idle;
mod latency;
mod peak;
mod reading;
mod recovery;
mod steady;

use super::lab::Turn;
use super::record::Figures;
use super::subject::Subject;
use crate::error::PerfError;

/// A figure of a row: its name in the raw results, and how a table shows it.
pub struct Figure {
    pub name: &'static str,
    pub title: &'static str,
    pub decimals: usize,
}

const fn figure(name: &'static str, title: &'static str, decimals: usize) -> Figure {
    Figure { name, title, decimals }
}

pub struct Row {
    pub name: &'static str,
    pub title: &'static str,
    /// What is run, in a few words.
    pub how: &'static str,
    /// What the scorecard asks for.
    pub target: &'static str,
    pub subjects: &'static [Subject],
    pub figures: &'static [Figure],
    pub run: fn(&mut Turn<'_>) -> Result<Figures, PerfError>,
}

const EVERY: &[Subject] =
    &[Subject::Null, Subject::NullDurable, Subject::Chronik, Subject::Kafka, Subject::KafkaFlush];
const STORING: &[Subject] = &[Subject::Chronik, Subject::Kafka, Subject::KafkaFlush];
const BESIDE: &[Subject] = &[Subject::Chronik, Subject::Kafka];
const OURS: &[Subject] = &[Subject::Chronik];
const BOTH_WAYS: &[Subject] = &[Subject::Chronik, Subject::ChronikRelaxed];

pub static ROWS: &[Row] = &[
    Row {
        name: "P1",
        title: "small records",
        how: "kafka-producer-perf-test, 100 B, 6 partitions, acks=1, batch 8196",
        target: ">= 95% of the null broker, above Kafka",
        subjects: EVERY,
        figures: peak::FIGURES,
        run: peak::small,
    },
    Row {
        name: "P2",
        title: "defaults, acks=all",
        how: "kafka-producer-perf-test, 1 KB, default batch and linger, 6 partitions",
        target: ">= 90% of the null broker, above Kafka without fsync; P11: <= 1.0 CPU-s/GB",
        subjects: EVERY,
        figures: peak::FIGURES,
        run: peak::defaults,
    },
    Row {
        name: "P3",
        title: "big batches, acks=all",
        how: "kafka-producer-perf-test, 1 KB from a file, batch 1 MB, linger 10, 6 partitions",
        target: ">= 80% of the null broker; P11: <= 0.4 CPU-s/GB; P16: <= 1.05; P17: <= 256 MB",
        subjects: EVERY,
        figures: peak::FIGURES,
        run: peak::big,
    },
    Row {
        name: "P3x3",
        title: "big batches, three producers",
        how: "as P3, three processes at once, sum of their rates",
        target: ">= 80% of the null broker",
        subjects: EVERY,
        figures: peak::FIGURES,
        run: peak::big_by_three,
    },
    Row {
        name: "P4",
        title: "native client peak",
        how: "librdkafka's producer, 1 KB, acks=-1, 6 partitions",
        target: ">= 1.0 GB/s on 2 cores, or >= 70% of the disk's durable rate",
        subjects: EVERY,
        figures: peak::NATIVE_FIGURES,
        run: peak::native,
    },
    Row {
        name: "P5",
        title: "price of durability",
        how: "P3, and 10,000 records/s with linger 0, durable against flush=relaxed",
        target: "<= 10% throughput, p50 + one flush",
        subjects: BOTH_WAYS,
        figures: peak::DURABILITY_FIGURES,
        run: peak::durability,
    },
    Row {
        name: "P6",
        title: "produce latency at fixed rates",
        how: "loadgen, 1 KB, linger 0, acks=all, 6 partitions, from the intended send time",
        target: "p50 <= 0.5, p99 <= 2, p99.9 <= 5 ms at 2k/s; p99 <= 8 ms at 20k/s",
        subjects: EVERY,
        figures: latency::FIGURES,
        run: latency::fixed_rates,
    },
    Row {
        name: "P6b",
        title: "produce latency at parts of the peak",
        how: "loadgen, 1 KB, linger 0, acks=all: its own peak first, then 25, 50 and 75% of it",
        target: "stated, no target",
        subjects: BESIDE,
        figures: latency::PART_FIGURES,
        run: latency::parts_of_peak,
    },
    Row {
        name: "P7",
        title: "end to end",
        how: "kafka-e2e-latency 10k x 1 KB, acks=all; loadgen 1,000 records/s with a tail consumer",
        target: "p50 <= 0.7, p99 <= 2 ms",
        subjects: STORING,
        figures: latency::END_TO_END_FIGURES,
        run: latency::end_to_end,
    },
    Row {
        name: "P8",
        title: "many keyed producers",
        how:
            "loadgen, 20,000 records/s of 1 KB, keyed over 100 partitions, by 4 and by 50 producers",
        target: "50 producers within 10% of 4",
        subjects: BESIDE,
        figures: steady::PRODUCER_FIGURES,
        run: steady::producers,
    },
    Row {
        name: "P9",
        title: "active partitions",
        how: "loadgen, 20,000 records/s of 1 KB, keyed over 1, 100, 1,000 and 5,000 partitions",
        target: "p99 x2 at most, throughput -10% at most",
        subjects: BESIDE,
        figures: steady::PARTITION_FIGURES,
        run: steady::partitions,
    },
    Row {
        name: "P10",
        title: "idle",
        how: "CPU time and memory from /proc: empty, and with 10,000 partitions",
        target: "<= 0.5% of a core, 1% more with partitions; <= 8 KiB each; 1,000 in <= 1 s",
        subjects: OURS,
        figures: idle::FIGURES,
        run: idle::idle,
    },
    Row {
        name: "P12",
        title: "tail fan-out",
        how: "loadgen, 40,000 records/s of 1 KB in: the CPU time that 1 and 4 tail readers add; then 16 readers of \
              96 MB that were just written, at full speed",
        target: ">= 4 GB out per CPU-s",
        subjects: BESIDE,
        figures: reading::FAN_OUT_FIGURES,
        run: reading::fan_out,
    },
    Row {
        name: "P13",
        title: "cold catch-up read",
        how: "8 GB, caches dropped; loadgen --from beginning against reading the files",
        target: ">= 90% of sequential disk; producer p99 + 20% at most",
        subjects: BESIDE,
        figures: reading::COLD_FIGURES,
        run: reading::cold,
    },
    Row {
        name: "P14",
        title: "backlog drained under load",
        how: "loadgen, 40,000 records/s of 1 KB; a reader from the beginning after 5 minutes",
        target: "drains steadily at >= 2x the produce rate",
        subjects: BESIDE,
        figures: reading::BACKLOG_FIGURES,
        run: reading::backlog,
    },
    Row {
        name: "P15",
        title: "soak into retention, short",
        how: "loadgen, 40,000 records/s of 1 KB, 16 MB segments, retention of 64 MB a partition",
        target: "last p99 <= 1.1x first; memory flat",
        subjects: OURS,
        figures: steady::SOAK_FIGURES,
        run: steady::soak,
    },
    Row {
        name: "P16",
        title: "write amplification",
        how: "loadgen at 256 KiB and at 1 KB batches; bytes written (/proc) per byte of values",
        target: "<= 1.05 for batches >= 256 KiB, <= 2.2 for small ones at >= 25% of peak",
        subjects: BESIDE,
        figures: steady::AMPLIFICATION_FIGURES,
        run: steady::amplification,
    },
    Row {
        name: "P20",
        title: "restart after SIGKILL",
        how: "10 GB in 6 partitions, SIGKILL, start; until the first acknowledged record",
        target: "<= 1 s, whatever the data's size",
        subjects: OURS,
        figures: recovery::FIGURES,
        run: recovery::restart,
    },
];

/// Rows of the scorecard that are not measured by a row of their own, and why.
pub static ELSEWHERE: &[(&str, &str)] = &[
    ("P11", "the broker's CPU time per GB is a column of P2 and P3"),
    ("P17", "memory is a column of P3, and of P10 for an idle broker"),
    ("P18", "it needs three nodes; the broker is a single node so far"),
    ("P19", "it needs three nodes; the broker is a single node so far"),
    ("P21", "the broker has no TLS and no SASL yet"),
    ("P22", "the broker has no transactions yet"),
];

/// The row of a name, or why there is none.
pub fn row(name: &str) -> Result<&'static Row, PerfError> {
    let same = |other: &str| other.eq_ignore_ascii_case(name);
    if let Some(row) = ROWS.iter().find(|row| same(row.name)) {
        return Ok(row);
    }
    Err(PerfError::Unfit(match ELSEWHERE.iter().find(|(other, _)| same(other)) {
        Some((name, why)) => format!("{name} is no row of its own: {why}"),
        None => format!("no row {name}: `measure rows` lists them"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_performance_row_of_the_scorecard_is_here_once_or_says_why_not() {
        let mut names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        names.extend(ELSEWHERE.iter().map(|(name, _)| *name));
        for number in 1..=22 {
            let name = format!("P{number}");
            assert_eq!(names.iter().filter(|other| **other == name).count(), 1, "{name}");
        }
        assert_eq!(row("p3X3").unwrap().name, "P3x3");
        let refusal = row("p18").err().unwrap().to_string();
        assert_eq!(
            refusal,
            "P18 is no row of its own: it needs three nodes; the broker is a single node so far"
        );
        assert_eq!(row("P99").err().unwrap().to_string(), "no row P99: `measure rows` lists them");
    }
}
