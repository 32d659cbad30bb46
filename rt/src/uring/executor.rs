//! Our executor inside one immortal glommio task.
//!
//! The settings and the loop are what was found to work with glommio 0.9: its preemption timer is
//! off, a time slice of ours ends a busy turn by yielding through an expired timer (so that every
//! yield polls the rings), and the thread sleeps only after it has announced so and looked once
//! more. Mail from other threads is looked for after every poll.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{mpsc, Arc};
use std::task::{Context, Poll};
use std::time::Duration;

use glommio::io::BufferedFile;
use glommio::timer::Timer;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use super::watchdog::{Pulse, ENDED, SLEEPING, YIELDED};
use super::{clock, Host, LaunchError, Node};
use crate::buf::Home;
use crate::pool::panic_text;
use crate::shard::{Backend, Common, Core};
use crate::task::{Queue, Remote};
use crate::time::Timers;
use crate::{Instant, Shard, ShardId};

/// How long tasks run before the rings are polled.
const SLICE: Duration = Duration::from_micros(300);
/// Longer than any process lives, and far from overflow.
const FAR: Duration = Duration::from_secs(3600 * 24 * 365);
/// What glommio gets at the end to hear of operations that were cancelled.
const CANCEL_TIME: Duration = Duration::from_millis(5);
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
    let made = executor(spec.cpu).and_then(|executor| {
        let eventfd = EventFd::new().map_err(|error| error.to_string())?;
        Ok((executor, Arc::new(eventfd)))
    });
    let (executor, eventfd) = match made {
        Ok(made) => made,
        Err(reason) => {
            // The launcher waits for all reports, so it is there.
            let _ = report.send((id, Err(reason)));
            return;
        }
    };
    drop(report);
    executor.run(shard(spec, eventfd, main));
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

async fn shard<M, F>(spec: Spec, eventfd: Arc<EventFd>, main: M)
where
    M: FnOnce(Shard) -> F,
    F: Future<Output = ()> + 'static,
{
    // The first sleep of an executor is slow: not in the middle of someone's request.
    Timer::new(Duration::from_micros(1)).await;
    let (core, pulse) = core(&spec, &eventfd);
    let home = match &core.backend {
        Backend::Uring(host) => Arc::clone(host.home()),
        Backend::Sim(_) => unreachable!("made by `core`"),
    };
    // This thread runs this shard only, and completions wake tasks outside of our polls.
    let entered = core.queue.enter();
    if let Ok(reader) = eventfd.duplicate() {
        core.queue.spawn(drain_wakes(reader)).detach();
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
        home: Arc::clone(&home),
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
    // Reads that were dropped just now are being cancelled: their memory must outlive them.
    Timer::new(CANCEL_TIME).await;
    home.close();
    pulse.set(ENDED);
    drop(entered);
}

/// Makes the shard's state, and lets the node's other threads reach it.
fn core(spec: &Spec, eventfd: &Arc<EventFd>) -> (Rc<Core>, Arc<Pulse>) {
    let waker = Arc::clone(eventfd);
    let remote = Remote::new(Box::new(move || waker.ring()));
    let home = Home::new(Arc::clone(&remote));
    let pulse = Pulse::new(Arc::clone(eventfd));
    let mut seed = [0; 8];
    // Jitter only: the clock does where the system has no randomness.
    if getrandom::fill(&mut seed).is_err() {
        seed = clock::now().as_nanos().to_le_bytes();
    }
    spec.node.remotes.lock().unwrap_or_else(|p| p.into_inner()).push(Arc::clone(&remote));
    let host = Host::new(Arc::clone(&spec.node), home, Arc::clone(&pulse));
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
    home: Arc<Home>,
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
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let core = Rc::clone(&self.core);
        let queue = &core.queue;
        queue.set_parked(false);
        queue.remote().awake();
        queue.set_unpark(context.waker());
        self.fire_timers();
        let start = clock::ticks();
        let mut polls = 0;
        loop {
            queue.take_mail();
            if self.is_over() {
                return Poll::Ready(());
            }
            if !queue.run_one() {
                self.home.drain();
                self.fire_timers();
                if queue.is_idle() && self.sleep(context) {
                    return Poll::Pending;
                }
                continue;
            }
            polls += 1;
            if polls % POLLS_PER_TIMER_CHECK == 0 {
                self.fire_timers();
            }
            let spent = clock::ticks().wrapping_sub(start) > self.slice_ticks;
            if spent || glommio::executor().need_preempt() {
                self.home.drain();
                self.give_way(context);
                return Poll::Pending;
            }
        }
    }

    /// The shard is to end, and no write of its own is in flight.
    fn is_over(&self) -> bool {
        let Backend::Uring(host) = &self.core.backend else { return true };
        (self.core.ended.get() || self.node.is_stopping()) && host.inflight.get() == 0
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

    /// Prepares to sleep until the next timer. False if something came meanwhile.
    fn sleep(&mut self, context: &mut Context<'_>) -> bool {
        let next = self.core.timers.borrow().next_deadline().unwrap_or(Instant::FAR);
        let wait = next.saturating_since(clock::now()).min(FAR);
        if wait.is_zero() {
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

/// Reads the eventfd for ever, so that a ring of it ends glommio's sleep.
async fn drain_wakes(reader: OwnedFd) {
    // SAFETY: the descriptor is ours and open; the file owns it from here on.
    let file = unsafe { BufferedFile::from_raw_fd(reader.into_raw_fd()) };
    loop {
        if let Err(error) = file.read_at(0, 8).await {
            // Without it the shard still wakes for its timers and its own I/O.
            tracing::error!(%error, "a shard cannot read its eventfd");
            return;
        }
    }
}

/// Wakes a sleeping shard from any thread.
pub(super) struct EventFd(OwnedFd);

impl EventFd {
    fn new() -> io::Result<EventFd> {
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
