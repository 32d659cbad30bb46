//! Our executor inside one immortal glommio task.
//!
//! glommio makes the thread's executor and binds it to its CPU; it is never gone back to. The thread
//! sleeps in the shard's own ring ([`super::ring`]): one system call submits what is new and waits
//! for completions, other threads and the next timer.
//!
//! A time slice bounds how long tasks run before completions are looked at. The thread sleeps only
//! after it has announced so and looked once more; mail from other threads is looked for after
//! every poll.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::{mpsc, Arc};
use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use super::ring::Ring;
use super::{clock, Host, LaunchError, Node};
use crate::pool::panic_text;
use crate::shard::{Backend, Common, Core};
use crate::task::{Queue, Remote};
use crate::time::Timers;
use crate::{Instant, Shard, ShardId};

/// How long tasks run before completions are looked at.
const SLICE: Duration = Duration::from_micros(300);
/// Longer than any process lives, and far from overflow.
const FAR: Duration = Duration::from_secs(3600 * 24 * 365);
/// How often the end of a shard looks whether its last operations are answered.
const LAST_LOOK: Duration = Duration::from_millis(1);
/// Timers are looked at after so many polls at the latest.
const POLLS_PER_TIMER_CHECK: u32 = 16;

/// What a shard's thread needs to begin.
pub(super) struct Spec {
    pub(super) id: u16,
    pub(super) count: u16,
    pub(super) cpu: Option<usize>,
    pub(super) node: Arc<Node>,
    pub(super) common: Common,
    pub(super) started: mpsc::Sender<(u16, Result<(), String>)>,
}

/// The body of a shard's thread.
pub(super) fn run<M, F>(spec: Spec, main: M)
where
    M: FnOnce(Shard) -> F,
    F: Future<Output = ()> + 'static,
{
    let id = spec.id;
    let report = spec.started.clone();
    let made = executor(spec.cpu)
        .and_then(|executor| Ok((executor, Bells::new().map_err(|error| error.to_string())?)));
    let (executor, bells) = match made {
        Ok(made) => made,
        Err(reason) => {
            // The launcher waits for all reports, so it is there.
            let _ = report.send((id, Err(reason)));
            return;
        }
    };
    drop(report);
    executor.run(async move { shard(spec, bells, main) });
}

/// The shard's ring, and what ends its sleep from other threads.
struct Bells {
    ring: Rc<Ring>,
    wake: Arc<EventFd>,
}

impl Bells {
    fn new() -> io::Result<Bells> {
        let wake = Arc::new(EventFd::new()?);
        Ok(Bells { ring: Ring::new(Arc::clone(&wake))?, wake })
    }
}

fn executor(cpu: Option<usize>) -> Result<LocalExecutor, String> {
    let make = |placement| {
        LocalExecutorBuilder::new(placement)
            .name("shard")
            .io_memory(1 << 20)
            .ring_depth(512)
            .preempt_timer(Duration::from_secs(3600))
            .make()
    };
    let bound = cpu.map(|cpu| make(Placement::Fixed(cpu)));
    match bound {
        Some(Ok(executor)) => Ok(executor),
        // The CPU may be outside the cpuset or offline: unbound is slower, not wrong.
        Some(Err(_)) | None => make(Placement::Unbound).map_err(|error| error.to_string()),
    }
}

fn shard<M, F>(spec: Spec, bells: Bells, main: M)
where
    M: FnOnce(Shard) -> F,
    F: Future<Output = ()> + 'static,
{
    let ring = Rc::clone(&bells.ring);
    let core = core(&spec, bells);
    // This thread runs this shard only, and completions wake tasks outside of our polls.
    let entered = core.queue.enter();
    let shard = Shard(Rc::clone(&core));
    match catch_unwind(AssertUnwindSafe(|| main(shard.clone()))) {
        Ok(body) => {
            let main = async move {
                body.await;
                shard.0.ended.set(true);
            };
            core.queue.spawn(main).detach();
        }
        Err(panic) => fail(&spec.node, spec.id, &*panic),
    }
    // The launcher waits for all reports, so it is there.
    let _ = spec.started.send((spec.id, Ok(())));
    drop(spec.started);
    let turns = Loop {
        core: Rc::clone(&core),
        node: Arc::clone(&spec.node),
        ring: Rc::clone(&ring),
        slice_ticks: clock::ticks_in(SLICE),
    };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| turns.run())) {
        fail(&spec.node, spec.id, &*panic);
    }
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        core.queue.drop_all();
        drop(core.timers.borrow_mut().clear());
    }));
    if let Err(panic) = dropped {
        fail(&spec.node, spec.id, &*panic);
    }
    // The kernel still has the memory of what was begun last.
    while ring.is_busy() {
        ring.sleep(LAST_LOOK);
    }
    ring.close();
    drop(entered);
}

/// Makes the shard's state, and lets the node's other threads reach it.
fn core(spec: &Spec, bells: Bells) -> Rc<Core> {
    let Bells { ring, wake } = bells;
    let remote = Remote::new(Box::new(move || wake.ring()));
    let mut seed = [0; 8];
    // Jitter only: the clock does where the system has no randomness.
    if getrandom::fill(&mut seed).is_err() {
        seed = clock::now().as_nanos().to_le_bytes();
    }
    spec.node.remotes.lock().unwrap_or_else(|p| p.into_inner()).push(Arc::clone(&remote));
    let host = Host::new(Arc::clone(&spec.node), ring);
    Rc::new(Core {
        id: ShardId(spec.id),
        count: spec.count,
        queue: Queue::new(remote),
        timers: RefCell::new(Timers::default()),
        rng: RefCell::new(fastrand::Rng::with_seed(u64::from_le_bytes(seed))),
        common: Arc::clone(&spec.common),
        backend: Backend::Uring(host),
        ended: Cell::new(false),
    })
}

fn fail(node: &Node, shard: u16, panic: &(dyn std::any::Any + Send)) {
    node.fail(LaunchError::Panicked { shard, message: panic_text(panic) });
}

/// The immortal task.
struct Loop {
    core: Rc<Core>,
    node: Arc<Node>,
    ring: Rc<Ring>,
    slice_ticks: u64,
}

impl Loop {
    /// Runs until the shard is over.
    fn run(&self) {
        let queue = &self.core.queue;
        self.ring.turn();
        self.fire_timers();
        let (mut start, mut polls) = (clock::ticks(), 0_u32);
        loop {
            queue.take_mail();
            if self.is_over() {
                return;
            }
            if queue.run_one() {
                polls = polls.wrapping_add(1);
                if polls.is_multiple_of(POLLS_PER_TIMER_CHECK) {
                    self.fire_timers();
                }
                if clock::ticks().wrapping_sub(start) <= self.slice_ticks {
                    continue;
                }
                self.ring.turn();
                self.fire_timers();
            } else {
                self.rest();
            }
            self.count_turn();
            start = clock::ticks();
        }
    }

    /// Nothing can run: sleeps until something comes.
    fn rest(&self) {
        if self.ring.has_completions() {
            self.ring.turn();
        }
        self.fire_timers();
        // The last operation of a shard that is to end may have been answered just now.
        if !self.core.queue.is_idle() || self.is_over() {
            return;
        }
        let next = self.core.timers.borrow().next_deadline().unwrap_or(Instant::FAR);
        let wait = next.saturating_since(clock::now()).min(FAR);
        let remote = self.core.queue.remote();
        if !wait.is_zero() && remote.prepare_sleep() {
            self.ring.sleep(wait);
            remote.awake();
        }
    }

    /// The shard is to end, and no operation of its own is in flight.
    fn is_over(&self) -> bool {
        (self.core.ended.get() || self.node.is_stopping()) && !self.ring.is_busy()
    }

    fn count_turn(&self) {
        if let Backend::Uring(host) = &self.core.backend {
            host.count_turn();
        }
    }

    fn fire_timers(&self) {
        if self.core.timers.borrow().next_deadline().is_none() {
            return;
        }
        let now = clock::now();
        loop {
            let waker = self.core.timers.borrow_mut().pop_due(now);
            match waker {
                Some(waker) => waker.wake(),
                None => break,
            }
        }
    }
}

/// Wakes a sleeping shard from any thread.
pub(super) struct EventFd(OwnedFd);

impl EventFd {
    pub(super) fn new() -> io::Result<EventFd> {
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: freshly made and owned by nobody else.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(super) fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // The counter cannot overflow at this rate, and nothing could be done about an error.
        // SAFETY: the buffer is valid for 8 bytes.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
