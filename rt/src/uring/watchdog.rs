//! A plain thread that looks for shards whose glommio executor parked although they have work.
//!
//! glommio 0.9 can do so when a timer's completion arrives at the wrong moment; our settings
//! avoid the known way, and this thread bounds the damage of an unknown one. A shard is rescued
//! if it handed control to glommio, did not say that it sleeps, got no turn between two looks
//! 10 ms apart, and the kernel says that its thread waits (a thread that merely lost its CPU is
//! runnable, and needs no rescue). While all shards sleep it looks ten times less often.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicU8, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::executor::EventFd;

const TICK: Duration = Duration::from_millis(10);
const IDLE_TICK: Duration = Duration::from_millis(100);

/// What a shard is doing.
pub(super) const POLLING: u8 = 0;
pub(super) const YIELDED: u8 = 1;
pub(super) const SLEEPING: u8 = 2;
pub(super) const ENDED: u8 = 3;

/// Signs of life of one shard.
pub(crate) struct Pulse {
    state: AtomicU8,
    turns: AtomicU64,
    rescues: AtomicU64,
    thread: AtomicI32,
    eventfd: Arc<EventFd>,
}

impl Pulse {
    pub(super) fn new(eventfd: Arc<EventFd>) -> Arc<Pulse> {
        // SAFETY: takes no arguments and cannot fail.
        let thread = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
        Arc::new(Pulse {
            state: AtomicU8::new(POLLING),
            turns: AtomicU64::new(0),
            rescues: AtomicU64::new(0),
            thread: AtomicI32::new(thread),
            eventfd,
        })
    }

    /// Only the shard writes, so plain stores do.
    pub(super) fn set(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }

    pub(super) fn turn(&self) {
        self.turns.store(self.turns.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.set(POLLING);
    }

    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    pub(crate) fn rescues(&self) -> u64 {
        self.rescues.load(Ordering::Relaxed)
    }

    fn thread_waits(&self) -> bool {
        let thread = self.thread.load(Ordering::Relaxed);
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
        // The state letter follows the name in parentheses.
        let state = stat.ok().and_then(|stat| stat.rsplit(')').next()?.trim().chars().next());
        state == Some('S')
    }
}

pub(super) struct Watchdog {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub(super) fn start(pulses: Vec<Arc<Pulse>>) -> Watchdog {
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        // Without it all works as long as glommio does.
        let thread = thread.spawn(move || watch(&pulses, &flag)).ok();
        Watchdog { ended, thread }
    }

    pub(super) fn stop(self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread {
            thread.thread().unpark();
            // It only loops and cannot panic.
            let _ = thread.join();
        }
    }
}

fn watch(pulses: &[Arc<Pulse>], ended: &AtomicBool) {
    let mut seen = vec![(POLLING, 0); pulses.len()];
    let mut quiet_ticks = 0;
    while !ended.load(Ordering::Relaxed) {
        std::thread::park_timeout(if quiet_ticks > 10 { IDLE_TICK } else { TICK });
        let mut quiet = true;
        for (pulse, before) in pulses.iter().zip(&mut seen) {
            let now = (pulse.state.load(Ordering::Relaxed), pulse.turns.load(Ordering::Relaxed));
            let stuck = now == *before && now.0 == YIELDED;
            quiet &= now == *before && matches!(now.0, SLEEPING | ENDED);
            *before = now;
            if stuck && pulse.thread_waits() {
                pulse.rescues.fetch_add(1, Ordering::Relaxed);
                pulse.eventfd.ring();
            }
        }
        if pulses.iter().all(|pulse| pulse.state.load(Ordering::Relaxed) == ENDED) {
            return;
        }
        quiet_ticks = if quiet { quiet_ticks + 1 } else { 0 };
    }
}
