//! The handle that everything above this crate takes: a shard's identity, clock, generator,
//! tasks, timers, files and sockets.
//!
//! One `Shard` per executor thread (io_uring) or per simulated core. Cheap to clone, `!Send`.
//! The backend is chosen when the shard is made and matched here and in the leaves only.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::buf::Buf;
use crate::error::{BlockingError, Elapsed};
use crate::fs::Dir;
use crate::net::{AcceptedStream, ListenOptions, Listener, Stream};
use crate::process::ProcessUsage;
use crate::select::{either, Either};
use crate::task::{Queue, Task};
use crate::time::{Instant, Sleep, Timers};
use crate::{sim, uring, Mutation};

/// The number of a shard within its node, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Counters of a shard's executor, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardStats {
    /// Tasks that are not finished.
    pub live_tasks: u64,
    /// Time slices begun; 0 in the simulator.
    pub turns: u64,
    /// Processor time that the shard's thread has used; zero in the simulator.
    pub cpu: Duration,
}

/// A shard; see the module's text.
#[derive(Clone)]
pub struct Shard(pub(crate) Rc<Core>);

pub(crate) struct Core {
    pub(crate) id: ShardId,
    pub(crate) count: u16,
    pub(crate) queue: Queue,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) rng: RefCell<fastrand::Rng>,
    pub(crate) common: Common,
    pub(crate) backend: Backend,
    /// The shard's main future has returned or its node has crashed.
    pub(crate) ended: Cell<bool>,
}

pub(crate) enum Backend {
    Uring(uring::Host),
    Sim(sim::Host),
}

/// Values that the shards of one node share, one per type; see [`Shard::common`].
pub(crate) type Common = Arc<Mutex<BTreeMap<TypeId, Box<dyn Any + Send>>>>;

impl Shard {
    pub fn id(&self) -> ShardId {
        self.0.id
    }

    /// The number of shards of this node.
    pub fn count(&self) -> u16 {
        self.0.count
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        match &self.0.backend {
            Backend::Uring(host) => host.now(),
            Backend::Sim(host) => host.now(),
        }
    }

    /// Milliseconds since 1970; may jump either way.
    pub fn wall_ms(&self) -> i64 {
        match &self.0.backend {
            Backend::Uring(host) => host.wall_ms(),
            Backend::Sim(host) => host.wall_ms(),
        }
    }

    /// A number from the shard's own generator: for jitter and timeouts, not for secrets.
    pub fn random(&self) -> u64 {
        self.0.rng.borrow_mut().u64(..)
    }

    /// Randomness of the operating system (seeded in the simulator), for UUIDs and salts.
    pub fn entropy(&self) -> [u8; 16] {
        match &self.0.backend {
            Backend::Uring(host) => host.entropy(),
            Backend::Sim(_) => {
                let mut bytes = [0; 16];
                self.0.rng.borrow_mut().fill(&mut bytes);
                bytes
            }
        }
    }

    /// Starts a task on this shard. Dropping the handle cancels it; `detach()` lets it run.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.0.queue.spawn(future)
    }

    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }

    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep::new(self.clone(), deadline)
    }

    /// Runs `future` for at most `duration`; it is dropped when the time is over.
    pub async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        match either(future, self.sleep(duration)).await {
            Either::Left(output) => Ok(output),
            Either::Right(()) => Err(Elapsed),
        }
    }

    /// Lets every other runnable task of the shard run first. Call it in long loops.
    pub async fn yield_now(&self) {
        let mut yielded = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut yielded, true) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }

    /// Runs a closure that may block on a plain thread. In the simulator it runs inline.
    ///
    /// It starts at once, and runs to its end even if the future is dropped.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        match &self.0.backend {
            Backend::Uring(host) => host.blocking(work).await,
            Backend::Sim(host) => host.blocking(work).await,
        }
    }

    /// Whether this deliberate fault is switched on; constant false on io_uring.
    pub fn broken(&self, mutation: Mutation) -> bool {
        match &self.0.backend {
            Backend::Uring(_) => false,
            Backend::Sim(host) => host.broken(mutation),
        }
    }

    /// An empty buffer for direct I/O, aligned to 4096 bytes; the capacity is rounded up to a
    /// multiple of that.
    pub fn buffer(&self, capacity: usize) -> Buf {
        Buf::allocate(capacity)
    }

    /// Opens an existing directory.
    pub async fn open_dir(&self, path: impl AsRef<Path>) -> io::Result<Dir> {
        Dir::open(self, path.as_ref()).await
    }

    /// Opens a directory, and makes it and its parents first where they are missing; every entry
    /// that was made is durable on return.
    pub async fn create_dir(&self, path: impl AsRef<Path>) -> io::Result<Dir> {
        Dir::create(self, path.as_ref()).await
    }

    /// Binds a TCP listener. In the simulator the address is one of the node's own, or 0.0.0.0.
    pub fn listen(&self, options: ListenOptions) -> io::Result<Listener> {
        Listener::bind(self, options)
    }

    pub async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        Stream::connect(self, address).await
    }

    /// Takes over a connection that was accepted on this or another shard.
    pub fn adopt(&self, accepted: AcceptedStream) -> Stream {
        Stream::adopt(self, accepted)
    }

    /// Addresses of a host name. In the simulator the names are those of the nodes.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match &self.0.backend {
            Backend::Uring(uring) => uring.resolve(host, port).await,
            Backend::Sim(sim) => sim.resolve(host, port),
        }
    }

    /// The value of type `T` that all shards of this node share, made by whichever asks first:
    /// `shard.common(|| Mesh::<Message>::new(shard.count(), 1024))`. A restart of a simulated
    /// node begins with none.
    pub fn common<T: Clone + Send + 'static>(&self, make: impl FnOnce() -> T) -> T {
        let mut values = self.0.common.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let value = values.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(make()));
        match value.downcast_ref::<T>() {
            Some(value) => value.clone(),
            None => unreachable!("the key is the type of the value"),
        }
    }

    pub fn stats(&self) -> ShardStats {
        let live_tasks = self.0.queue.live_tasks();
        match &self.0.backend {
            Backend::Uring(host) => {
                ShardStats { live_tasks, turns: host.turns(), cpu: crate::process::thread_cpu() }
            }
            Backend::Sim(_) => ShardStats { live_tasks, ..ShardStats::default() },
        }
    }

    /// What the process uses; `None` in the simulator, and where the kernel does not tell.
    pub async fn process_usage(&self) -> Option<ProcessUsage> {
        match &self.0.backend {
            Backend::Uring(host) => host.blocking(crate::process::usage).await.ok().flatten(),
            Backend::Sim(_) => None,
        }
    }

    /// Asks every shard of this node to end: their main futures are dropped with all their tasks.
    /// For a clean stop let the main futures return instead.
    pub fn stop_node(&self) {
        match &self.0.backend {
            Backend::Uring(host) => host.stop_node(),
            Backend::Sim(host) => host.stop_node(),
        }
    }

    pub(crate) fn timers(&self) -> &RefCell<Timers> {
        &self.0.timers
    }
}
