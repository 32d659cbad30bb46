//! Monotonic time of a shard, and its timers.
//!
//! [`Instant`] counts nanoseconds since the process (or the simulated world) began, and can be
//! compared between shards of one process. Timers of a shard stand in one ordered queue; equal
//! deadlines fire in the order of their registration, which the simulator relies on. A [`Sleep`]
//! takes its place in the queue at its first poll and leaves it when dropped.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::Shard;

/// A point of monotonic time, in nanoseconds since an origin that all shards of a process share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The origin of the clock.
    pub const ZERO: Instant = Instant(0);
    /// Later than every point that will ever be reached.
    pub const FAR: Instant = Instant(u64::MAX);

    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`, or zero if it lies ahead.
    pub fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at [`Instant::FAR`].
    fn add(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    /// Saturates at [`Instant::ZERO`].
    fn sub(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_sub(nanos))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_since(earlier)
    }
}

/// The timers of one shard.
#[derive(Default)]
pub(crate) struct Timers {
    waiting: BTreeMap<(Instant, u64), Waker>,
    next_id: u64,
}

impl Timers {
    pub(crate) fn insert(&mut self, deadline: Instant, waker: Waker) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.insert((deadline, id), waker);
        id
    }

    pub(crate) fn update(&mut self, deadline: Instant, id: u64, waker: &Waker) {
        if let Some(kept) = self.waiting.get_mut(&(deadline, id)) {
            kept.clone_from(waker);
        } else {
            self.waiting.insert((deadline, id), waker.clone());
        }
    }

    pub(crate) fn remove(&mut self, deadline: Instant, id: u64) -> Option<Waker> {
        self.waiting.remove(&(deadline, id))
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Takes the first timer that is due; the caller wakes it outside any borrow.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Waker> {
        let entry = self.waiting.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        Some(entry.remove())
    }

    pub(crate) fn clear(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}

/// Ready at its deadline; made by [`Shard::sleep`].
pub struct Sleep {
    shard: Shard,
    deadline: Instant,
    id: Option<u64>,
}

impl Sleep {
    pub(crate) fn new(shard: Shard, deadline: Instant) -> Sleep {
        Sleep { shard, deadline, id: None }
    }

    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Moves the deadline; a future poll counts from the new one.
    pub fn reset(&mut self, deadline: Instant) {
        self.leave();
        self.deadline = deadline;
    }

    fn leave(&mut self) {
        if let Some(id) = self.id.take() {
            let waker = self.shard.timers().borrow_mut().remove(self.deadline, id);
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shard.now() >= self.deadline {
            self.leave();
            return Poll::Ready(());
        }
        let deadline = self.deadline;
        match self.id {
            Some(id) => {
                self.shard.timers().borrow_mut().update(deadline, id, context.waker());
            }
            None => {
                let waker = context.waker().clone();
                let id = self.shard.timers().borrow_mut().insert(deadline, waker);
                self.id = Some(id);
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Instant::FAR + Duration::from_secs(1), Instant::FAR);
        assert_eq!(Instant::ZERO - Duration::from_secs(1), Instant::ZERO);
        let later = Instant::from_nanos(10);
        assert_eq!(Instant::ZERO.saturating_since(later), Duration::ZERO);
        assert_eq!(later - Instant::from_nanos(4), Duration::from_nanos(6));
    }

    #[test]
    fn due_timers_come_in_order_of_deadline_then_registration() {
        let mut timers = Timers::default();
        let waker = Waker::noop();
        let at = Instant::from_nanos;
        timers.insert(at(20), waker.clone());
        let first = timers.insert(at(10), waker.clone());
        timers.insert(at(10), waker.clone());
        assert_eq!(timers.next_deadline(), Some(at(10)));
        assert!(timers.pop_due(at(9)).is_none());
        assert!(timers.remove(at(10), first).is_some());
        assert!(timers.pop_due(at(15)).is_some());
        assert!(timers.pop_due(at(15)).is_none());
        assert!(timers.pop_due(at(20)).is_some());
        assert_eq!(timers.next_deadline(), None);
    }
}
