//! Sends the same scripted requests to Apache Kafka and to this broker, and compares every field
//! of every answer.
//!
//!     differential KAFKA_PORT PORT [SECTION…]
//!
//! Both brokers must be fresh, on this host, with node id 1 (`run.sh` beside this crate starts
//! them). Differences that `ACCEPTED.md` allows are counted, all others printed; a row of that table
//! which a whole run did not need is printed too. Exit status 0 when there is neither.

// Scripts are tables of cases; a case is a tuple that is read where it stands.
#![allow(clippy::type_complexity)]

mod accepted;
mod batch;
mod message;
mod normal;
mod pair;
mod scripts;
mod tree;
mod wire;

use std::process::ExitCode;
use std::time::Instant;

use accepted::Accepted;
use pair::Pair;

const ACCEPTED: &str = include_str!("../ACCEPTED.md");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ports: Vec<u16> = arguments.iter().take(2).filter_map(|port| port.parse().ok()).collect();
    let [kafka, here] = ports[..] else {
        eprintln!("usage: differential KAFKA_PORT PORT [SECTION…]");
        return ExitCode::FAILURE;
    };
    let mut accepted = match Accepted::read(ACCEPTED) {
        Ok(accepted) => accepted,
        Err(problem) => {
            eprintln!("ACCEPTED.md: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let wanted = &arguments[2..];
    let mut pair = Pair::new([kafka, here]);
    let (mut found, mut bad) = (0, 0);
    for (name, script) in scripts::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|section| section == name) {
            continue;
        }
        pair.section(name);
        let started = Instant::now();
        script(&mut pair);
        let differences = pair.take_differences();
        found += differences.len();
        for difference in differences.iter().filter(|one| !accepted.excuses(one)) {
            bad += 1;
            println!("{}\n    {}", difference.step, difference.field);
            println!("        Kafka: {}\n        here:  {}", difference.kafka, difference.here);
        }
        println!("{name}: {} differences, {:.1?}", differences.len(), started.elapsed());
    }
    if wanted.is_empty() {
        for row in accepted.unused() {
            bad += 1;
            println!("this row of ACCEPTED.md excuses nothing: {row}");
        }
    }
    println!(
        "{} steps, {found} differences, {bad} of them to be mended or explained",
        pair.steps()
    );
    if bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
