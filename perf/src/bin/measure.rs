//! `measure`: rows of the scorecard against the null broker, Chronik and Apache Kafka; tables; the
//! figures of one broker alone. `perf/run` builds everything and calls it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use chronik_perf::runs::congestion::Congestion;
use chronik_perf::runs::lab::{Tools, Turn};
use chronik_perf::runs::machine::{commit, Machine};
use chronik_perf::runs::record::{self, Record};
use chronik_perf::runs::rows::{self, Row, ELSEWHERE, ROWS};
use chronik_perf::runs::subject::Subject;
use chronik_perf::runs::table;
use chronik_perf::{figures, PerfError};
use clap::{value_parser, Arg, ArgAction, ArgMatches, Command};

fn main() -> ExitCode {
    let matches = command().get_matches();
    let done = match matches.subcommand() {
        Some(("run", matches)) => run(matches),
        Some(("table", matches)) => table::write(path(matches, "out").expect("it is required")),
        Some(("figures", matches)) => tools(matches).and_then(|tools| {
            let _congestion = steady()?;
            figures::print(&tools, scale(matches))
        }),
        _ => {
            for Row { name, title, how, target, .. } in ROWS {
                println!("{name:<5} {title}\n      {how}\n      target: {target}");
            }
            for (name, why) in ELSEWHERE {
                println!("{name:<5} not a row of its own: {why}");
            }
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    let folder = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("PATH").value_parser(value_parser!(PathBuf)).help(help)
    };
    let scale = Arg::new("scale")
        .long("scale")
        .default_value("1")
        .value_parser(value_parser!(f64))
        .help("Part of the full amount of records and seconds");
    let places = [
        folder("server", "The broker's binary; default: beside this one"),
        folder("kafka-lib", "The folder of Apache Kafka's jars"),
        folder("work", "Where the data folders are made; default: perf-data beside the binaries"),
    ];
    Command::new("measure")
        .about("Runs rows of the scorecard and writes tables of what they gave.")
        .subcommand_required(true)
        .max_term_width(100)
        .subcommand(Command::new("rows").about("Lists the rows"))
        .subcommand(
            Command::new("run")
                .about("Runs rows: every subject once per round, in turns")
                .arg(Arg::new("row").required(true).action(ArgAction::Append).help("Or `all`"))
                .arg(
                    Arg::new("rounds")
                        .long("rounds")
                        .default_value("5")
                        .value_parser(value_parser!(u32).range(1..)),
                )
                .arg(
                    Arg::new("subjects")
                        .long("subjects")
                        .value_delimiter(',')
                        .action(ArgAction::Append)
                        .help("Only these: null, null-durable, chronik, chronik-relaxed, kafka, kafka-flush"),
                )
                .arg(folder("out", "Where results are appended").required(true))
                .arg(scale.clone())
                .args(places.clone()),
        )
        .subcommand(
            Command::new("table")
                .about("Writes the page and the plots of a folder of results")
                .arg(folder("out", "The folder").required(true)),
        )
        .subcommand(
            Command::new("figures")
                .about("Idle cost, start to first produce, the stall that a burst causes")
                .arg(scale)
                .args(places),
        )
}

fn path<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a PathBuf> {
    matches.get_one(name)
}

fn scale(matches: &ArgMatches) -> f64 {
    *matches.get_one("scale").expect("it has a default")
}

fn tools(matches: &ArgMatches) -> Result<Tools, PerfError> {
    let program = std::env::current_exe().map_err(PerfError::io("this program"))?;
    let work = path(matches, "work").cloned();
    let work = work.unwrap_or_else(|| program.with_file_name("perf-data"));
    std::fs::create_dir_all(&work).map_err(PerfError::io(work.display().to_string()))?;
    let (server, lib) = (path(matches, "server").cloned(), path(matches, "kafka-lib").cloned());
    Ok(Tools::beside(&program, server, lib, work))
}

fn steady() -> Result<Congestion, PerfError> {
    Congestion::steady().map_err(PerfError::io("TCP congestion control"))
}

fn run(matches: &ArgMatches) -> Result<(), PerfError> {
    let tools = tools(matches)?;
    let mut chosen: Vec<&Row> = Vec::new();
    for name in matches.get_many::<String>("row").into_iter().flatten() {
        match name.as_str() {
            "all" => chosen.extend(ROWS),
            name => chosen.push(rows::row(name)?),
        }
    }
    let mut subjects = Vec::new();
    for name in matches.get_many::<String>("subjects").into_iter().flatten() {
        let subject = Subject::named(name);
        subjects.push(subject.ok_or_else(|| PerfError::Unfit(format!("no subject {name}")))?);
    }
    let congestion = steady()?;
    let session = Session {
        out: path(matches, "out").expect("it is required"),
        scale: scale(matches),
        rounds: *matches.get_one("rounds").expect("it has a default"),
        machine: Machine::describe(&tools.work),
        commit: commit(),
        congestion: congestion.in_force(),
        tools: &tools,
    };
    for row in chosen {
        let wanted = |s: &Subject| subjects.is_empty() || subjects.contains(s);
        let asked: Vec<_> = row.subjects.iter().copied().filter(wanted).collect();
        if asked.is_empty() {
            println!("{}: not a question to any of these", row.name);
        }
        for round in 1..=session.rounds {
            for subject in &asked {
                session.ask(row, *subject, round)?;
            }
        }
    }
    table::write(session.out)
}

/// What all runs of one call have in common.
struct Session<'a> {
    tools: &'a Tools,
    out: &'a Path,
    scale: f64,
    rounds: u32,
    machine: Machine,
    commit: String,
    congestion: &'a str,
}

impl Session<'_> {
    /// Runs a row on a subject once, prints what it gave and appends it to the results.
    fn ask(&self, row: &Row, subject: Subject, round: u32) -> Result<(), PerfError> {
        let Session { tools, scale, .. } = *self;
        let started_ms = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
        let mut turn = Turn { tools, subject, scale, commands: Vec::new() };
        let figures = (row.run)(&mut turn)?;
        let shown: Vec<String> = row
            .figures
            .iter()
            .filter_map(|figure| {
                let value = figures.get(figure.name)?;
                Some(format!("{} {value:.*}", figure.title, figure.decimals))
            })
            .collect();
        println!("{} round {round} {subject}: {}", row.name, shown.join(", "));
        let record = Record {
            row: row.name.to_owned(),
            subject: subject.name().to_owned(),
            started_ms,
            commit: self.commit.clone(),
            congestion: self.congestion.to_owned(),
            scale,
            machine: self.machine.clone(),
            commands: turn.commands,
            figures,
        };
        record::append(self.out, &record)
    }
}
