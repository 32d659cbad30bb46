//! `loadgen`: an open-loop load on a Kafka broker. See `chronik_perf::load`.
//!
//! Exit status 1 when the load could not run, 2 when it ran and records were refused or could not
//! be sent in time, so that a script does not take such a figure for a good one.

use std::process::ExitCode;

use chronik_perf::load::{self, Options};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let matches = load::command().get_matches();
    let report = match Options::from_matches(&matches).and_then(|options| load::run(&options)) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(1);
        }
    };
    match matches.get_flag("json") {
        true => println!("{}", serde_json::to_string_pretty(&report).expect("it has string keys")),
        false => print!("{report}"),
    }
    ExitCode::from(if report.is_clean() { 0 } else { 2 })
}
