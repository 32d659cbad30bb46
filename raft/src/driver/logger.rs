//! raft-rs' own log lines, passed on to `tracing`.
//!
//! raft-rs logs elections of every group at info; with thousands of groups that is debug here.

use raft_rs::StateRole;
use slog::{Drain, Level, Logger, Never, OwnedKVList, Record};

/// The drain behind every group's logger.
struct Tracing;

impl Drain for Tracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!("{}", record.msg()),
            Level::Warning => tracing::warn!("{}", record.msg()),
            Level::Info => tracing::debug!("{}", record.msg()),
            Level::Debug | Level::Trace => tracing::trace!("{}", record.msg()),
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        match level {
            Level::Critical | Level::Error | Level::Warning => true,
            Level::Info => tracing::enabled!(tracing::Level::DEBUG),
            Level::Debug | Level::Trace => tracing::enabled!(tracing::Level::TRACE),
        }
    }
}

/// The root logger of a shard's driver.
pub(crate) fn root() -> Logger {
    Logger::root(Tracing, slog::o!())
}

/// A role's name, as status and logs show it.
pub(crate) fn role_name(role: StateRole) -> &'static str {
    match role {
        StateRole::Follower => "follower",
        StateRole::PreCandidate => "pre-candidate",
        StateRole::Candidate => "candidate",
        StateRole::Leader => "leader",
    }
}
