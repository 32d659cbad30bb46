//! The figures that are not rows of the table: one broker alone, seconds each.
//!
//! Idle cost, the time from start to the first acknowledged record, and how long a burst on one
//! partition holds up the others of its shard. They are printed and not judged: only what does not
//! depend on the clock fails a run, such as a refused record or a broker that ends.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::PerfError;
use crate::load::topics;
use crate::runs::lab::{number, Tools, Turn};
use crate::runs::rows::idle::cpu_percent;
use crate::runs::subject::{Running, Subject, REST_AFTER_LOAD};
use crate::single;

const MB: f64 = (1u64 << 20) as f64;
const START_LIMIT: Duration = Duration::from_secs(60);

/// Measures all of them, for so many times the usual time, and prints a line for each.
pub fn print(tools: &Tools, scale: f64) -> Result<(), PerfError> {
    let mut turn = Turn { tools, subject: Subject::Chronik, scale, commands: Vec::new() };
    start_and_idle(&turn)?;
    stall(&mut turn)
}

fn start_and_idle(turn: &Turn<'_>) -> Result<(), PerfError> {
    let topic = "figures";
    let begin = Instant::now();
    let mut broker = Running::start(turn.subject, turn.tools, &[])?;
    topics::create(&broker.address(), &[topic.to_owned()], 1, &[])?;
    single::produce_until_acknowledged(&broker.address(), topic, begin + START_LIMIT)?;
    let first = begin.elapsed();
    let begin = broker.restart(Signal::TERM)?;
    single::produce_until_acknowledged(&broker.address(), topic, begin + START_LIMIT)?;
    let again = begin.elapsed();
    println!(
        "start to first produce: {:.0} ms; with a new data folder and a new topic {:.0} ms",
        again.as_secs_f64() * 1e3,
        first.as_secs_f64() * 1e3
    );
    broker.rest(REST_AFTER_LOAD)?;
    let time = Duration::from_secs_f64((20.0 * turn.scale).max(1.0));
    let percent = cpu_percent(&broker, time)?;
    let rss_mb = broker.usage()?.rss_bytes as f64 / MB;
    println!("idle: {rss_mb:.1} MB resident, {percent:.2}% of a core over {time:?}");
    Ok(())
}

/// The latency of a slow stream, alone and beside a burst on another partition of the same shard.
fn stall(turn: &mut Turn<'_>) -> Result<(), PerfError> {
    let broker = Running::settled(turn.subject, turn.tools, &["--shards", "1"])?;
    let duration = turn.scaled_seconds(5.0);
    let stream = "--topic stream --partitions 1 --rate 500 --warm-up 0.5 --duration";
    let stream: Vec<&str> = stream.split(' ').chain([&*duration]).collect();
    let burst = "--topic burst --partitions 1 --batch-size 1000000 --warm-up 0 --duration 600";
    println!("a stream of 500 records/s, one shard:");
    for (beside, bursting) in [("alone", false), ("beside a burst on another partition", true)] {
        let burst = bursting.then(|| {
            Command::new(&turn.tools.loadgen)
                .args(["--broker", &broker.address()])
                .args(burst.split(' '))
                .stdout(Stdio::null())
                .spawn()
                .map_err(PerfError::io("starting the burst"))
        });
        let report = turn.loadgen(&broker.address(), &stream);
        if let Some(burst) = burst {
            let mut burst = burst?;
            let ended = burst.try_wait().map_err(PerfError::io("the burst"))?;
            let _ = burst.kill();
            let _ = burst.wait();
            if let Some(status) = ended {
                return Err(PerfError::Unfit(format!("the burst ended with {status}")));
            }
        }
        let report = report?;
        if report["refused"].as_object().is_some_and(|refused| !refused.is_empty()) {
            return Err(PerfError::Unfit(format!("refused: {}", report["refused"])));
        }
        let at = |name: &str| number(&report, &format!("/produced/latency/{name}"));
        let at = |name: &str| at(name).ok_or(PerfError::Malformed("loadgen"));
        println!(
            "  {beside}: p50 {} p99 {} p99.9 {} max {} us",
            at("p50_us")?,
            at("p99_us")?,
            at("p999_us")?,
            at("max_us")?
        );
    }
    Ok(())
}
