//! P20: how long a broker is away when its process is killed.

use std::time::Duration;

use rustix::process::Signal;

use super::{figure, Figure};
use crate::error::PerfError;
use crate::runs::lab::{number, Turn};
use crate::runs::record::Figures;
use crate::runs::subject::Running;
use crate::single;

pub const FIGURES: &[Figure] =
    &[figure("data_gb", "GB of data", 1), figure("first_produce_ms", "first produce after ms", 0)];

/// The longest that it may take before the run fails.
const LIMIT: Duration = Duration::from_secs(120);

pub fn restart(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let mut broker = Running::start(turn.subject, turn.tools, &[])?;
    let records = turn.scaled(10 << 20).to_string();
    let fill = "--topic filled --producers 2 --batch-size 1000000 --warm-up 0 --duration 600";
    let fill: Vec<&str> = fill.split(' ').chain(["--records", &records]).collect();
    let report = turn.loadgen(&broker.address(), &fill)?;
    let written = number(&report, "/produced/records_total").unwrap_or_default() / (1 << 20) as f64;
    let begin = broker.restart(Signal::KILL)?;
    single::produce_until_acknowledged(&broker.address(), "filled", begin + LIMIT)?;
    let took = begin.elapsed();
    broker.wait_until_ready()?;
    Ok(Figures::from([
        ("data_gb".to_owned(), written),
        ("first_produce_ms".to_owned(), took.as_secs_f64() * 1_000.0),
    ]))
}
