//! Our executor inside one immortal glommio task.
//!
//! The thread sleeps in the shard's own ring ([`super::ring`]): one system call submits what is
//! new and waits for completions, other threads and the next timer. Only while something runs in
//! glommio's ring, which is the opening of files, the loop goes back to glommio to sleep or to
//! give way, and completions of our ring then ring a bell that glommio listens to. What is needed
//! for that was found to work with glommio 0.9: its preemption timer is off, and the loop gives
//! way through an expired timer, so that every yield polls its rings.
//!
//! A time slice bounds how long tasks run before completions are looked at. The thread sleeps only
//! after it has announced so and looked once more; mail from other threads is looked for after
//! every poll.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{mpsc, Arc};
use std::task::{Context, Poll};
use std::time::Duration;

use glommio::io::BufferedFile;
use glommio::timer::Timer;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use super::ring::Ring;
use super::watchdog::{Pulse, ENDED, SLEEPING, YIELDED};
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
    pub(super) started: mpsc::Sender<(u16, Result<Arc<Pulse>, String>)>,
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
    executor.run(shard(spec, bells, main));
}

/// What wakes the shard's thread.
pub(super) struct Bells {
    pub(super) ring: Rc<Ring>,
    /// Ends a sleep in our ring; for other threads.
    wake: Arc<EventFd>,
    /// Ends a sleep in glommio; our ring has it rung for completions while glommio is in use.
    pub(super) glommio: Arc<EventFd>,
}

impl Bells {
    fn new() -> io::Result<Bells> {
        let wake = Arc::new(EventFd::new()?);
        let ring = Ring::new(Arc::clone(&wake))?;
        Ok(Bells { ring, wake, glommio: Arc::new(EventFd::new()?) })
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

async fn shard<M, F>(spec: Spec, bells: Bells, main: M)
where
    M: FnOnce(Shard) -> F,
    F: Future<Output = ()> + 'static,
{
    // The first sleep of an executor is slow: not in the middle of someone's request.
    Timer::new(Duration::from_micros(1)).await;
    let (ring, reader) = (Rc::clone(&bells.ring), bells.glommio.duplicate());
    let (core, pulse) = core(&spec, bells);
    // This thread runs this shard only, and completions wake tasks outside of our polls.
    let entered = core.queue.enter();
    match reader {
        Ok(reader) => core.queue.spawn(drain_bell(reader)).detach(),
        Err(error) => fail(&spec.node, spec.id, &error.to_string()),
    }
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
    let _ = spec.started.send((spec.id, Ok(Arc::clone(&pulse))));
    drop(spec.started);
    let turns = Loop {
        core: Rc::clone(&core),
        node: Arc::clone(&spec.node),
        ring: Rc::clone(&ring),
        pulse: Arc::clone(&pulse),
        yielding: Timer::new(FAR),
        sleeping: Timer::new(FAR),
        slice_ticks: clock::ticks_in(SLICE),
    };
    let ended = turns.await;
    if let Err(panic) = ended {
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
    pulse.set(ENDED);
    drop(entered);
}

/// Makes the shard's state, and lets the node's other threads reach it.
fn core(spec: &Spec, bells: Bells) -> (Rc<Core>, Arc<Pulse>) {
    let waker = Arc::clone(&bells.wake);
    let remote = Remote::new(Box::new(move || waker.ring()));
    let pulse = Pulse::new(Arc::clone(&bells.glommio));
    let mut seed = [0; 8];
    // Jitter only: the clock does where the system has no randomness.
    if getrandom::fill(&mut seed).is_err() {
        seed = clock::now().as_nanos().to_le_bytes();
    }
    spec.node.remotes.lock().unwrap_or_else(|p| p.into_inner()).push(Arc::clone(&remote));
    let host = Host::new(Arc::clone(&spec.node), bells, Arc::clone(&pulse));
    let core = Rc::new(Core {
        id: ShardId(spec.id),
        count: spec.count,
        queue: Queue::new(remote),
        timers: RefCell::new(Timers::default()),
        rng: RefCell::new(fastrand::Rng::with_seed(u64::from_le_bytes(seed))),
        common: Arc::clone(&spec.common),
        backend: Backend::Uring(host),
        ended: Cell::new(false),
    });
    (core, pulse)
}

fn fail(node: &Node, shard: u16, panic: &(dyn std::any::Any + Send)) {
    node.fail(LaunchError::Panicked { shard, message: panic_text(panic) });
}

type Panic = Box<dyn std::any::Any + Send>;

/// The immortal task.
struct Loop {
    core: Rc<Core>,
    node: Arc<Node>,
    ring: Rc<Ring>,
    pulse: Arc<Pulse>,
    yielding: Timer,
    sleeping: Timer,
    slice_ticks: u64,
}

impl Future for Loop {
    /// The panic that ended the shard, if one did.
    type Output = Result<(), Panic>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.pulse.turn();
        let turn = catch_unwind(AssertUnwindSafe(|| self.turn(context)));
        match turn {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

impl Loop {
    /// Runs until the shard is over or glommio has to have its turn.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let core = Rc::clone(&self.core);
        let queue = &core.queue;
        queue.set_parked(false);
        queue.remote().awake();
        queue.set_unpark(context.waker());
        self.ring.turn();
        self.fire_timers();
        let mut start = clock::ticks();
        let mut polls = 0;
        loop {
            queue.take_mail();
            if self.is_over() {
                return Poll::Ready(());
            }
            if queue.run_one() {
                polls += 1;
                if polls % POLLS_PER_TIMER_CHECK == 0 {
                    self.fire_timers();
                }
                if clock::ticks().wrapping_sub(start) <= self.slice_ticks {
                    continue;
                }
                if self.glommio_is_used() {
                    self.give_way(context);
                    return Poll::Pending;
                }
                self.ring.turn();
                self.fire_timers();
            } else if self.rest(context) {
                return Poll::Pending;
            }
            self.pulse.turn();
            start = clock::ticks();
        }
    }

    /// Nothing can run: waits for what comes next, here or (true) in glommio.
    fn rest(&mut self, context: &mut Context<'_>) -> bool {
        if self.ring.has_completions() {
            self.ring.turn();
        }
        self.fire_timers();
        // The last operation of a shard that is to end may have been answered just now.
        if !self.core.queue.is_idle() || self.is_over() {
            return false;
        }
        let next = self.core.timers.borrow().next_deadline().unwrap_or(Instant::FAR);
        let wait = next.saturating_since(clock::now()).min(FAR);
        if wait.is_zero() {
            return false;
        }
        if self.glommio_is_used() {
            return self.sleep_in_glommio(wait, context);
        }
        let remote = self.core.queue.remote();
        if remote.prepare_sleep() {
            self.pulse.set(SLEEPING);
            self.ring.sleep(wait);
            remote.awake();
        }
        false
    }

    /// The shard is to end, and no operation of its own is in flight.
    fn is_over(&self) -> bool {
        (self.core.ended.get() || self.node.is_stopping()) && !self.ring.is_busy()
    }

    fn glommio_is_used(&self) -> bool {
        match &self.core.backend {
            Backend::Uring(host) => host.glommio_is_used(),
            Backend::Sim(_) => false,
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

    /// Comes back after glommio has polled its rings.
    fn give_way(&mut self, context: &mut Context<'_>) {
        self.yielding.reset(FAR);
        let far = Pin::new(&mut self.yielding).poll(context);
        debug_assert!(far.is_pending());
        self.yielding.reset(Duration::ZERO);
        self.pulse.set(YIELDED);
    }

    /// Prepares to sleep in glommio. False if something came meanwhile.
    fn sleep_in_glommio(&mut self, wait: Duration, context: &mut Context<'_>) -> bool {
        // Submits; what completes from here on rings the bell.
        self.ring.turn();
        if !self.core.queue.is_idle() || self.is_over() {
            return false;
        }
        self.sleeping.reset(wait);
        if Pin::new(&mut self.sleeping).poll(context).is_ready() {
            return false;
        }
        self.core.queue.set_parked(true);
        if !self.core.queue.remote().prepare_sleep() {
            self.core.queue.set_parked(false);
            return false;
        }
        self.pulse.set(SLEEPING);
        true
    }
}

/// Reads the bell for ever, so that it ends glommio's sleep.
async fn drain_bell(reader: OwnedFd) {
    // SAFETY: the descriptor is ours and open; the file owns it from here on.
    let file = unsafe { BufferedFile::from_raw_fd(reader.into_raw_fd()) };
    loop {
        if let Err(error) = file.read_at(0, 8).await {
            // Without it glommio's sleep still ends with its own I/O and our timers.
            tracing::error!(%error, "a shard cannot read its eventfd");
            return;
        }
    }
}

/// Wakes a sleeping shard from any thread.
pub(super) struct EventFd(OwnedFd);

impl EventFd {
    pub(super) fn new() -> io::Result<EventFd> {
        // SAFETY: no pointers; the result is checked. Blocking, so that a read through the ring
        // waits instead of failing.
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

    fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
