//! How a command ends when it does not succeed: one message for people, one number for scripts.
//!
//! The numbers are documented in `--help` and in the README, and never change their meaning.

use std::fmt;
use std::process::ExitCode;

/// Why the process ends. The discriminants are the exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command was understood and did not succeed; or the broker stopped on an error.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// This machine cannot run the broker as asked: io_uring, limits, a port in use.
    Machine = 3,
    /// The data folder cannot be used: in use, not writable, damaged, of a newer format.
    DataFolder = 4,
}

/// The table that `--help` ends with.
pub const EXIT_CODES: &str = "\
Exit codes:
    0  success, or a stop by SIGTERM or SIGINT
    1  the command did not succeed, or the broker stopped on an error
    2  wrong usage or configuration
    3  this machine cannot run the broker as asked (io_uring, limits, a port in use)
    4  the data folder cannot be used (in use, not writable, damaged, of a newer format)
  134  abort: a bug, or a disk that failed under the write-ahead log";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// What went wrong, what is known about it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    pub details: Vec<String>,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), details: Vec::new(), hint: None }
    }

    /// Ends with this code; everything worth saying has been printed.
    pub fn silent(exit: Exit) -> Failure {
        Failure::new(exit, "")
    }

    pub fn detail(mut self, detail: impl fmt::Display) -> Failure {
        self.details.push(detail.to_string());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            return Ok(());
        }
        writeln!(f, "error: {}", self.message)?;
        for detail in &self.details {
            writeln!(f, "  {detail}")?;
        }
        match &self.hint {
            Some(hint) => writeln!(f, "  hint: {hint}"),
            None => Ok(()),
        }
    }
}
