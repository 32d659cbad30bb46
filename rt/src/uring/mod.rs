//! skeleton
pub(crate) mod fs;
pub(crate) mod net;
use crate::{buf::Home, error::BlockingError, Instant, Shard};
use std::{future::Future, io, net::SocketAddr, sync::Arc};

/// How to start the shards of this process.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The number of shards; by default one per CPU of the affinity mask.
    pub shards: Option<u16>,
    /// The CPUs to bind shards to; by default those of the affinity mask. With more shards than
    /// CPUs no shard is bound.
    pub cpus: Option<Vec<usize>>,
}

impl Options {
    /// The number of shards these options give on this machine.
    pub fn shard_count(&self) -> u16 {
        self.shards.unwrap_or(1)
    }
}

/// Why shards did not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A shard's thread or executor could not be made; the text says what to change.
    #[error("shard {shard} cannot start: {reason}")]
    Start { shard: u16, reason: String },
    /// A task of a shard panicked.
    #[error("shard {shard} panicked: {message}")]
    Panicked { shard: u16, message: String },
}

/// The running shards of this process.
pub struct Running {}

impl Running {
    /// Waits until all shards have ended; the first failure is reported.
    pub fn join(self) -> Result<(), LaunchError> {
        unimplemented!()
    }
    /// How often the watchdog had to wake each shard.
    pub fn watchdog_rescues(&self) -> Vec<u64> {
        unimplemented!()
    }
}

/// Starts the shards and runs `main` on each.
pub fn launch<M, F>(_options: Options, _main: M) -> Result<Running, LaunchError>
where
    M: Fn(Shard) -> F + Send + Clone + 'static,
    F: Future<Output = ()> + 'static,
{
    unimplemented!()
}

/// Runs one shard on this thread's behalf until its main future ends, and gives its value.
pub fn run_one<M, F, T>(_main: M) -> T
where
    M: FnOnce(Shard) -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    unimplemented!()
}

pub(crate) struct Host {}

impl Host {
    pub(crate) fn now(&self) -> Instant {
        unimplemented!()
    }
    pub(crate) fn wall_ms(&self) -> i64 {
        unimplemented!()
    }
    pub(crate) fn entropy(&self) -> [u8; 16] {
        unimplemented!()
    }
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        _work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        unimplemented!()
    }
    pub(crate) async fn resolve(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        unimplemented!()
    }
    pub(crate) fn stop_node(&self) {
        unimplemented!()
    }
    pub(crate) fn home(&self) -> &Arc<Home> {
        unimplemented!()
    }
}
