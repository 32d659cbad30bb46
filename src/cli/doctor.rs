//! `chronik-server doctor`: what this machine and its data folder give the broker, as a table.
//!
//! Changes nothing: the disk is measured in a folder of its own that is removed again. The checks
//! that `standalone` makes at its start are made here too, and some that only warn.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use rt::preflight::{Finding, Severity};
use wal::probe::Probe;
use wal::Flush;

use super::connect::on_shard;
use super::machine;
use super::options;
use super::output::{print, Table};
use crate::batches::Batches;
use crate::config::Config;
use crate::failure::{Exit, Failure};

/// What the checks of `rt` are named, in the order of the table.
const PREFLIGHT: [&str; 4] = ["io_uring", "memlock", "open files", "cpus"];
/// A durable write that takes longer makes every acknowledgement slow.
const SLOW_WRITE_MICROS: u128 = 10_000;

pub fn command() -> Command {
    let command = Command::new("doctor")
        .about("Check this machine and the data folder, and say what to change")
        .long_about(
            "Check this machine and the data folder, and say what to change. Options are read as \
             `standalone` reads them. Exits with 0 when nothing fails; warnings are no failure.",
        );
    options::with_options(command)
}

pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let config = options::resolve(&options::sources(matches))?.config;
    let mut checks = vec![machine::kernel()];
    checks.extend(preflight(rt::preflight()));
    checks.extend(machine::checks());
    checks.push(batches(&Batches::of(&config)));
    let can_run = checks.iter().all(|check| check.verdict != Verdict::Fail);
    checks.extend(folder(&config, can_run));
    print(&table(&checks));
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Machine, "one check failed: the broker cannot run like this")),
        n => {
            let message = format!("{n} checks failed: the broker cannot run like this");
            Err(Failure::new(Exit::Machine, message))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub what: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// What to change; empty if nothing.
    pub change: String,
}

impl Check {
    pub fn ok(what: &'static str, found: impl Into<String>) -> Check {
        Check { what, verdict: Verdict::Ok, found: found.into(), change: String::new() }
    }

    pub fn bad(
        what: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        change: impl Into<String>,
    ) -> Check {
        Check { what, verdict, found: found.into(), change: change.into() }
    }
}

/// The table, and below it what to change.
fn table(checks: &[Check]) -> String {
    let mut table = Table::new(&["CHECK", "VERDICT", "FOUND"]);
    for check in checks {
        table.row([check.what.into(), check.verdict.name().into(), check.found.clone()]);
    }
    let changes = checks.iter().filter(|check| !check.change.is_empty());
    let changes: String =
        changes.map(|check| format!("  {}: {}\n", check.what, check.change)).collect();
    match changes.is_empty() {
        true => table.to_string(),
        false => format!("{table}\nwhat to change:\n{changes}"),
    }
}

/// A line for each check of `rt`, which itself mentions only what is worth saying.
fn preflight(findings: Vec<Finding>) -> Vec<Check> {
    let line = |what: &'static str| {
        let found = findings.iter().find(|finding| finding.what == what);
        let Some(finding) = found else { return Check::ok(what, "enough") };
        let verdict = match finding.severity {
            Severity::Error => Verdict::Fail,
            Severity::Warning => Verdict::Warn,
            Severity::Info => Verdict::Ok,
        };
        Check { what, verdict, found: finding.detail.clone(), change: finding.hint.clone() }
    };
    PREFLIGHT.map(line).into()
}

/// Whether the log takes the batches that the configuration allows.
fn batches(batches: &Batches) -> Check {
    match batches.fit() {
        true => Check::ok("batches", batches.text()),
        false => Check::bad("batches", Verdict::Fail, batches.text(), batches.change()),
    }
}

/// The checks of the data folder: whether it can be written, how fast, and how much fits.
fn folder(config: &Config, can_run: bool) -> Vec<Check> {
    let data = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let place = existing(&data);
    let at = match place == data {
        true => format!("{}", data.display()),
        false => format!("{} (not there yet)", data.display()),
    };
    if !can_run {
        let found = "not checked: no shard can run here";
        return vec![Check::ok("data folder", at), Check::bad("disk", Verdict::Warn, found, "")];
    }
    match measure(place.clone()) {
        Ok((probe, space)) => {
            let is_new = place != data;
            let needed = if is_new { config.wal_budget_bytes } else { 0 };
            vec![
                Check::ok("data folder", at),
                machine::file_system(&place),
                disk(&probe),
                free_space(space.available_bytes, config.disk_reserve_bytes, needed),
            ]
        }
        Err(failure) => vec![Check::bad(
            "data folder",
            Verdict::Fail,
            format!("{at}: {}", failure.message),
            "it must be writable by this user, on a disk; --data-dir names another",
        )],
    }
}

/// The folder, or the nearest one above it that is there.
fn existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|folder| folder.is_dir());
    found.unwrap_or(Path::new("/")).to_path_buf()
}

fn measure(place: PathBuf) -> Result<(Probe, rt::Space), Failure> {
    on_shard(move |shard| async move {
        let failed = |error: std::io::Error| Failure::new(Exit::DataFolder, error.to_string());
        let above = shard.open_dir(&place).await.map_err(failed)?;
        let space = above.space().await.map_err(failed)?;
        let name = format!(".chronik-doctor-{}", std::process::id());
        let own = above.create_subdir(&name).await.map_err(failed)?;
        let probe = wal::probe::probe(&shard, &own).await;
        above.remove_subdir_all(&name).await.map_err(failed)?;
        Ok((probe.map_err(failed)?, space))
    })
}

fn disk(probe: &Probe) -> Check {
    let (dsync, fdatasync) = (probe.dsync.as_micros(), probe.fdatasync.as_micros());
    let faster = match probe.flush {
        Flush::Dsync => "O_DSYNC",
        Flush::Fdatasync => "fdatasync",
    };
    let found =
        format!("a durable 4 KiB write takes {dsync} us by O_DSYNC, {fdatasync} us by fdatasync");
    match probe.cost().as_micros() > SLOW_WRITE_MICROS {
        false => Check::ok("disk", format!("{found}; {faster} is used")),
        true => Check::bad(
            "disk",
            Verdict::Warn,
            found,
            "every acknowledgement waits for such a write: a disk with power-loss protection \
             answers in a few tens of microseconds",
        ),
    }
}

/// `needed` is what the log of a new node takes at once.
fn free_space(available: u64, reserve: u64, needed: u64) -> Check {
    let found = format!("{} MiB; writes are refused below {} MiB", available >> 20, reserve >> 20);
    let change = "free some, or lower disk_reserve_bytes (and wal_budget_bytes for a new node)";
    match available {
        _ if available < reserve.saturating_add(needed) => {
            Check::bad("free space", Verdict::Fail, found, change)
        }
        _ if available < reserve.saturating_mul(2).saturating_add(needed) => {
            Check::bad("free space", Verdict::Warn, found, change)
        }
        _ => Check::ok("free space", found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rt_does_not_mention_is_ok() {
        let finding = Finding {
            what: "memlock",
            severity: Severity::Error,
            detail: "only 64 KiB".into(),
            hint: "raise it".into(),
        };
        let checks = preflight(vec![finding]);
        let verdicts: Vec<_> = checks.iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Fail, Verdict::Ok, Verdict::Ok]);
        assert_eq!(
            table(&checks[..2]),
            "CHECK     VERDICT  FOUND\nio_uring  ok       enough\nmemlock   FAIL     only 64 KiB\n\n\
             what to change:\n  memlock: raise it\n"
        );
    }

    #[test]
    fn too_little_space_fails_and_little_space_warns() {
        let verdict = |available, needed| free_space(available, 100, needed).verdict;
        assert_eq!(verdict(99, 0), Verdict::Fail);
        assert_eq!(verdict(150, 0), Verdict::Warn);
        assert_eq!(verdict(200, 0), Verdict::Ok);
        assert_eq!(verdict(200, 150), Verdict::Fail);
    }
}
