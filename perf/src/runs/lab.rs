//! Where everything is that a run needs, and the commands it gives.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::subject::Subject;
use crate::error::PerfError;

/// Programs and folders. Those of this crate lie beside the running one.
#[derive(Debug, Clone)]
pub struct Tools {
    pub server: PathBuf,
    pub null_broker: PathBuf,
    pub loadgen: PathBuf,
    pub native_producer: PathBuf,
    /// The folder of Kafka's jars.
    pub kafka_lib: Option<PathBuf>,
    /// Data folders of the brokers are made in here.
    pub work: PathBuf,
}

impl Tools {
    pub fn beside(
        program: &Path,
        server: Option<PathBuf>,
        kafka_lib: Option<PathBuf>,
        work: PathBuf,
    ) -> Tools {
        let beside = |name: &str| program.with_file_name(name);
        Tools {
            server: server.unwrap_or_else(|| beside("chronik-server")),
            null_broker: beside("null-broker"),
            loadgen: beside("loadgen"),
            native_producer: beside("native-producer"),
            kafka_lib,
            work,
        }
    }
}

/// One subject's turn in a round: what a row's function is given.
pub struct Turn<'a> {
    pub tools: &'a Tools,
    pub subject: Subject,
    /// How much of the full amount of records or seconds to run; 1 is the real thing.
    pub scale: f64,
    /// What was run, for the record.
    pub commands: Vec<String>,
}

impl Turn<'_> {
    /// So many of something, scaled, at least one.
    pub fn scaled(&self, amount: u64) -> u64 {
        ((amount as f64 * self.scale) as u64).max(1)
    }

    pub fn scaled_seconds(&self, seconds: f64) -> String {
        format!("{}", (seconds * self.scale).max(0.2))
    }

    /// Runs the load generator and returns its report. A load that lost records, or that could not
    /// be sent in time, is in the report; it is for the row to say what that means.
    pub fn loadgen(&mut self, broker: &str, flags: &[&str]) -> Result<Value, PerfError> {
        let mut command = Command::new(&self.tools.loadgen);
        command.args(["--json", "--broker", broker]).args(flags).stdin(Stdio::null());
        self.note("loadgen", flags);
        json_of(&mut command, &[0, 2])
    }

    /// Runs librdkafka's producer and returns its report.
    pub fn native_producer(&mut self, broker: &str, flags: &[&str]) -> Result<Value, PerfError> {
        let mut command = Command::new(&self.tools.native_producer);
        command.args(["--broker", broker]).args(flags).stdin(Stdio::null());
        self.note("native-producer", flags);
        json_of(&mut command, &[0])
    }

    /// Keeps a command for the record. Where the work folder lies is nobody's business: `WORK`.
    pub fn note<T: AsRef<str>>(&mut self, program: &str, arguments: &[T]) {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let line = format!("{program} {}", arguments.join(" "));
        self.commands.push(line.replace(&*self.tools.work.display().to_string(), "WORK"));
    }
}

fn json_of(command: &mut Command, statuses: &[i32]) -> Result<Value, PerfError> {
    let output = command.output().map_err(PerfError::io(format!("{command:?}")))?;
    let good = output.status.code().is_some_and(|status| statuses.contains(&status));
    if !good {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(PerfError::Unfit(format!("{command:?}: {}\n{errors}", output.status)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| PerfError::Codec(format!("{command:?}: {error}")))
}

/// A number inside a report.
pub fn number(report: &Value, path: &str) -> Option<f64> {
    report.pointer(path)?.as_f64()
}
