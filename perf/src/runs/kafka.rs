//! Apache Kafka beside us: its broker as a baseline, its tools as clients.
//!
//! Both run from the jars of its Maven artifacts (`perf/run` fetches them), with the heap and
//! collector flags of its own start scripts. The tools' closing lines are parsed here.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::lab::Tools;
use super::subject::free_port;
use crate::error::PerfError;

const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";

fn java(tools: &Tools, flags: &[&str]) -> Result<Command, PerfError> {
    let lib = tools.kafka_lib.as_ref().ok_or_else(|| {
        PerfError::Unfit("Kafka's jars are needed (--kafka-lib): perf/run fetches them".to_owned())
    })?;
    let mut command = Command::new("java");
    command.args(flags).arg("-cp").arg(lib.join("*")).stdin(Stdio::null());
    Ok(command)
}

/// Writes the configuration of a single node, and formats its log folder.
pub fn format(tools: &Tools, folder: &Path, port: u16, flush: bool) -> Result<(), PerfError> {
    let (controller, data) = (free_port()?, folder.join("data"));
    let mut text = format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\n\
         log.dirs={}\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         num.partitions=6\n",
        data.display()
    );
    if flush {
        text.push_str("log.flush.interval.messages=1\n");
    }
    let properties = folder.join("server.properties");
    fs::write(&properties, text).map_err(PerfError::io(properties.display().to_string()))?;
    let mut command = java(tools, &["-Xmx256M", "-XX:+UseSerialGC"])?;
    command.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(&properties);
    run(&mut command).map(|_| ())
}

/// The broker, with what `kafka-server-start.sh` gives it.
pub fn broker(tools: &Tools, folder: &Path) -> Result<Command, PerfError> {
    let flags = [
        "-Xmx1G",
        "-Xms1G",
        "-server",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-XX:InitiatingHeapOccupancyPercent=35",
        "-XX:+ExplicitGCInvokesConcurrent",
    ];
    let mut command = java(tools, &flags)?;
    command.arg("kafka.Kafka").arg(folder.join("server.properties"));
    Ok(command)
}

/// The closing line of `kafka-producer-perf-test`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProducerResult {
    pub mb_per_s: f64,
    pub average_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Runs `kafka-producer-perf-test` once for each list of arguments, all at the same time.
pub fn producers(
    tools: &Tools,
    arguments: &[Vec<String>],
) -> Result<Vec<ProducerResult>, PerfError> {
    let children: Vec<Child> = arguments
        .iter()
        .map(|arguments| {
            let mut command = java(tools, &["-Xmx512M"])?;
            command.arg("org.apache.kafka.tools.ProducerPerformance").args(arguments);
            command.stdout(Stdio::piped()).stderr(Stdio::null());
            command.spawn().map_err(PerfError::io("starting kafka-producer-perf-test"))
        })
        .collect::<Result<_, _>>()?;
    let mut results = Vec::new();
    for child in children {
        let output = child.wait_with_output().map_err(PerfError::io("kafka-producer-perf-test"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let result = text.lines().rev().find_map(producer_result);
        results.push(result.ok_or_else(|| {
            PerfError::Codec(format!("kafka-producer-perf-test printed no result:\n{text}"))
        })?);
    }
    Ok(results)
}

/// `1000000 records sent, 99 records/sec (9.9 MB/sec), 1.0 ms avg latency, … 2 ms 50th, … 9 ms
/// 99th, …`: only the closing line has percentiles.
fn producer_result(line: &str) -> Option<ProducerResult> {
    let part = |end: &str| {
        let part = line.split(", ").find_map(|part| part.strip_suffix(end))?;
        part.rsplit([' ', '(']).next()?.parse::<f64>().ok()
    };
    Some(ProducerResult {
        mb_per_s: part(" MB/sec)")?,
        average_ms: part(" ms avg latency")?,
        p50_ms: part(" ms 50th")?,
        p99_ms: part(" ms 99th")?,
    })
}

/// What `kafka-e2e-latency` prints at its end, in whole milliseconds but for the average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EndToEndResult {
    pub average_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
}

/// Runs `kafka-e2e-latency` with acks=all.
pub fn end_to_end(
    tools: &Tools,
    broker: &str,
    topic: &str,
    records: u64,
    record_bytes: usize,
) -> Result<EndToEndResult, PerfError> {
    let mut command = java(tools, &["-Xmx512M"])?;
    command.arg("org.apache.kafka.tools.EndToEndLatency").args([broker, topic]);
    command.args([&records.to_string(), "all", &record_bytes.to_string()]);
    let text = run(&mut command)?;
    end_to_end_result(&text).ok_or_else(|| {
        PerfError::Codec(format!("kafka-e2e-latency printed no percentiles:\n{text}"))
    })
}

/// `Avg latency: 1.28 ms`, then `Percentiles: 50th = 0, 99th = 8, 99.9th = 16`.
fn end_to_end_result(text: &str) -> Option<EndToEndResult> {
    let number = |label: &str| {
        let (_, rest) = text.split_once(label)?;
        let end = rest.find([',', ' ', '\n']).unwrap_or(rest.len());
        rest[..end].parse::<f64>().ok()
    };
    Some(EndToEndResult {
        average_ms: number("Avg latency: ")?,
        p50_ms: number("50th = ")?,
        p99_ms: number(" 99th = ")?,
        p999_ms: number("99.9th = ")?,
    })
}

/// Runs a command to its end and returns what it printed.
fn run(command: &mut Command) -> Result<String, PerfError> {
    let output = command.output().map_err(PerfError::io(format!("{command:?}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(PerfError::Unfit(format!("{command:?}: {}\n{text}{errors}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_producers_closing_line_is_told_from_the_others() {
        let progress = "62476 records sent, 12495.2 records/sec (12.20 MB/sec), 1893.5 ms avg \
                        latency, 3210.0 ms max latency.";
        let closing = "1000000 records sent, 117885.2 records/sec (115.12 MB/sec), 212.41 ms avg \
                       latency, 553.00 ms max latency, 210 ms 50th, 353 ms 95th, 396 ms 99th, 540 \
                       ms 99.9th.";
        assert_eq!(producer_result(progress), None);
        let expected =
            ProducerResult { mb_per_s: 115.12, average_ms: 212.41, p50_ms: 210.0, p99_ms: 396.0 };
        assert_eq!(producer_result(closing), Some(expected));
    }

    #[test]
    fn end_to_end_percentiles_are_found() {
        let text =
            "0\t12.3\nAvg latency: 1.2814 ms\n\nPercentiles: 50th = 0, 99th = 8, 99.9th = 16\n";
        let expected =
            EndToEndResult { average_ms: 1.2814, p50_ms: 0.0, p99_ms: 8.0, p999_ms: 16.0 };
        assert_eq!(end_to_end_result(text), Some(expected));
        assert_eq!(end_to_end_result("Avg latency: 1.2814 ms"), None);
    }
}
