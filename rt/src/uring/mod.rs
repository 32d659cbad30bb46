//! The io_uring backend: one thread per shard, each with a glommio executor that runs our own
//! executor as its one immortal task.
//!
//! [`launch`] makes the threads and binds them to CPUs of the affinity mask where there are enough. A panic in any task stops all shards of the process and is reported by
//! [`Running::join`]; the binary's panic hook aborts before that.

mod clock;
mod cpus;
mod executor;
pub(crate) mod fs;
mod host;
pub(crate) mod net;
mod ring;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::thread::JoinHandle;

pub(crate) use host::Host;

use crate::pool::Pool;
use crate::task::Remote;
use crate::Shard;

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
    /// The number of shards these options give on this machine, at least one.
    pub fn shard_count(&self) -> u16 {
        let cpus = || self.cpu_list().len().clamp(1, usize::from(u16::MAX)) as u16;
        self.shards.unwrap_or_else(cpus).max(1)
    }

    /// The CPUs that shards may run on, in the order in which shards take them.
    pub fn cpu_list(&self) -> Vec<usize> {
        self.cpus.clone().unwrap_or_else(cpus::allowed)
    }
}

/// Why shards did not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A shard's thread or executor could not be made. [`crate::preflight`] says what to change.
    #[error("shard {shard} cannot start: {reason}")]
    Start { shard: u16, reason: String },
    /// A task of a shard panicked.
    #[error("shard {shard} panicked: {message}")]
    Panicked { shard: u16, message: String },
}

/// What the shards of this process share.
pub(crate) struct Node {
    pub(crate) pool: Pool,
    stop: AtomicBool,
    remotes: Mutex<Vec<Arc<Remote>>>,
    failure: Mutex<Option<LaunchError>>,
}

impl Node {
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        let remotes = self.remotes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for remote in remotes.iter() {
            remote.signal();
        }
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn fail(&self, error: LaunchError) {
        let mut failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failure.get_or_insert(error);
        drop(failure);
        self.stop();
    }
}

/// The running shards of this process. Dropping it does not stop them.
pub struct Running {
    threads: Vec<JoinHandle<()>>,
    node: Arc<Node>,
}

impl Running {
    /// Waits until all shards have ended; the first failure is reported.
    pub fn join(self) -> Result<(), LaunchError> {
        for (shard, thread) in self.threads.into_iter().enumerate() {
            if let Err(panic) = thread.join() {
                let message = crate::pool::panic_text(&*panic);
                self.node.fail(LaunchError::Panicked { shard: shard as u16, message });
            }
        }
        let failure = self.node.failure.lock().unwrap_or_else(|p| p.into_inner()).take();
        failure.map_or(Ok(()), Err)
    }

    /// Asks all shards to end, as [`Shard::stop_node`] does.
    pub fn stop(&self) {
        self.node.stop();
    }
}

/// Starts the shards and runs `main` on each; returns once all of them have started. A shard ends
/// when its main future returns; its other tasks are dropped then.
pub fn launch<M, F>(options: Options, main: M) -> Result<Running, LaunchError>
where
    M: Fn(Shard) -> F + Send + Clone + 'static,
    F: Future<Output = ()> + 'static,
{
    clock::calibrate();
    let count = options.shard_count();
    let cpus = options.cpu_list();
    let bind = usize::from(count) <= cpus.len();
    let everywhere = cpus::allowed();
    let node = Arc::new(Node {
        pool: Pool::new(POOL_THREADS_MAX, Box::new(move || cpus::allow(&everywhere))),
        stop: AtomicBool::new(false),
        remotes: Mutex::default(),
        failure: Mutex::default(),
    });
    let common = crate::shard::Common::default();
    let (started, start) = mpsc::channel();
    let mut threads = Vec::new();
    for id in 0..count {
        let spec = executor::Spec {
            id,
            count,
            cpu: bind.then(|| cpus[usize::from(id)]),
            node: Arc::clone(&node),
            common: Arc::clone(&common),
            started: started.clone(),
        };
        let main = main.clone();
        let thread = std::thread::Builder::new().name(format!("shard-{id}"));
        match thread.spawn(move || executor::run(spec, main)) {
            Ok(handle) => threads.push(handle),
            Err(error) => {
                let reason = error.to_string();
                node.fail(LaunchError::Start { shard: id, reason });
                break;
            }
        }
    }
    drop(started);
    for (shard, result) in start.iter() {
        if let Err(reason) = result {
            node.fail(LaunchError::Start { shard, reason });
        }
    }
    let running = Running { threads, node };
    let failed = running.node.failure.lock().unwrap_or_else(|p| p.into_inner()).is_some();
    if failed {
        running.join()?;
        unreachable!("join reports the failure");
    }
    Ok(running)
}

/// Threads for blocking work, for all shards together.
const POOL_THREADS_MAX: usize = 16;

/// Runs one shard on a thread of its own until its main future ends, and gives its value: for
/// tools and tests.
///
/// # Panics
/// If the shard cannot start or its tasks panic.
pub fn run_one<M, F, T>(main: M) -> T
where
    M: FnOnce(Shard) -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let main = Arc::new(Mutex::new(Some(main)));
    let output = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&output);
    let options = Options { shards: Some(1), cpus: Some(Vec::new()) };
    let running = launch(options, move |shard| {
        let main = main.lock().unwrap_or_else(|p| p.into_inner()).take();
        let body = main.map(|main| main(shard));
        let slot = Arc::clone(&slot);
        async move {
            if let Some(body) = body {
                let value = body.await;
                *slot.lock().unwrap_or_else(|p| p.into_inner()) = Some(value);
            }
        }
    });
    if let Err(error) = running.and_then(Running::join) {
        panic!("{error}");
    }
    let value = output.lock().unwrap_or_else(|p| p.into_inner()).take();
    match value {
        Some(value) => value,
        None => panic!("the shard was stopped before its body ended"),
    }
}
