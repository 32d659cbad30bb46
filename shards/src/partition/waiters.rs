//! Requests that wait for a partition: produces for the commit of their entry, fetches for data.
//!
//! Lives inside one [`super::Partition`]. Every wait ends: by its event, by the deletion of the
//! topic, or by a loss of leadership; a handler adds the time limit that its request carries.
//! Waits that their handler gave up on are swept when the lists grow.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use rt::local::oneshot;
use wal::Index;

/// Abandoned data waits are swept whenever the list has doubled since the last sweep.
const SWEEP_AT_LEAST: usize = 64;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was waited for has happened.
    Done,
    /// This replica stopped leading: the entry may or may not survive.
    LeadershipLost,
    /// The topic was deleted.
    Deleted,
}

/// A wait that is over already, or will be.
pub enum Wait {
    Over(Outcome),
    Pending(oneshot::Receiver<Outcome>),
}

impl Future for Wait {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        match &mut *self {
            Wait::Over(outcome) => Poll::Ready(*outcome),
            // The partition went away with everything that waited for it.
            Wait::Pending(receiver) => {
                Pin::new(receiver).poll(context).map(|sent| sent.unwrap_or(Outcome::Deleted))
            }
        }
    }
}

#[derive(Default)]
pub struct Waiters {
    commits: BTreeMap<Index, Vec<oneshot::Sender<Outcome>>>,
    persists: BTreeMap<Index, Vec<oneshot::Sender<Outcome>>>,
    data: Vec<(i64, oneshot::Sender<Outcome>)>,
    leadership: Vec<oneshot::Sender<Outcome>>,
    swept_length: usize,
}

impl Waiters {
    pub fn wait_for_commit(&mut self, index: Index, committed: Index) -> Wait {
        wait_for(&mut self.commits, index, committed)
    }

    pub fn wait_for_persist(&mut self, index: Index, persisted: Index) -> Wait {
        wait_for(&mut self.persists, index, persisted)
    }

    /// Waits until the high watermark exceeds `offset`.
    pub fn wait_for_data(&mut self, offset: i64, high_watermark: i64, deleted: bool) -> Wait {
        if deleted {
            return Wait::Over(Outcome::Deleted);
        }
        if high_watermark > offset {
            return Wait::Over(Outcome::Done);
        }
        if self.data.len() >= SWEEP_AT_LEAST.max(2 * self.swept_length) {
            self.data.retain(|(_, sender)| !sender.is_closed());
            self.swept_length = self.data.len();
        }
        let (sender, receiver) = rt::oneshot();
        self.data.push((offset, sender));
        Wait::Pending(receiver)
    }

    pub fn wait_for_leadership(&mut self, leads: bool) -> Wait {
        if leads {
            return Wait::Over(Outcome::Done);
        }
        let (sender, receiver) = rt::oneshot();
        self.leadership.push(sender);
        Wait::Pending(receiver)
    }

    /// This replica leads and knows the high watermark.
    pub fn leads(&mut self) {
        for sender in self.leadership.drain(..) {
            let _ = sender.send(Outcome::Done);
        }
    }

    /// Everything up to `index` is committed.
    pub fn committed(&mut self, index: Index) {
        release(&mut self.commits, index);
    }

    /// Everything up to `index` is durable on this replica.
    pub fn persisted(&mut self, index: Index) {
        release(&mut self.persists, index);
    }

    /// The high watermark is now `high_watermark`.
    pub fn data_up_to(&mut self, high_watermark: i64) {
        let mut at = 0;
        while at < self.data.len() {
            if self.data[at].0 < high_watermark {
                let (_, sender) = self.data.swap_remove(at);
                let _ = sender.send(Outcome::Done);
            } else {
                at += 1;
            }
        }
    }

    /// This replica no longer leads.
    pub fn leadership_lost(&mut self) {
        self.end(Outcome::LeadershipLost);
    }

    /// The partition is gone.
    pub fn fail_all(&mut self) {
        self.end(Outcome::Deleted);
    }

    fn end(&mut self, outcome: Outcome) {
        let commits = std::mem::take(&mut self.commits).into_values().flatten();
        let persists = std::mem::take(&mut self.persists).into_values().flatten();
        let data = std::mem::take(&mut self.data).into_iter().map(|(_, sender)| sender);
        for sender in commits.chain(persists).chain(data) {
            let _ = sender.send(outcome);
        }
    }
}

fn wait_for(
    waits: &mut BTreeMap<Index, Vec<oneshot::Sender<Outcome>>>,
    index: Index,
    reached: Index,
) -> Wait {
    if index <= reached {
        return Wait::Over(Outcome::Done);
    }
    let (sender, receiver) = rt::oneshot();
    waits.entry(index).or_default().push(sender);
    Wait::Pending(receiver)
}

fn release(waits: &mut BTreeMap<Index, Vec<oneshot::Sender<Outcome>>>, index: Index) {
    while let Some(first) = waits.first_entry() {
        if *first.key() > index {
            break;
        }
        for sender in first.remove() {
            let _ = sender.send(Outcome::Done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(wait: &mut Wait) -> Option<Outcome> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(wait).poll(&mut context) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    #[test]
    fn commits_release_what_they_cover_and_nothing_else() {
        let mut waiters = Waiters::default();
        let mut past = waiters.wait_for_commit(Index(3), Index(3));
        let mut next = waiters.wait_for_commit(Index(4), Index(3));
        let mut duplicate = waiters.wait_for_commit(Index(4), Index(3));
        let mut later = waiters.wait_for_commit(Index(5), Index(3));
        assert_eq!(outcome(&mut past), Some(Outcome::Done));
        assert_eq!(outcome(&mut next), None);
        waiters.committed(Index(4));
        assert_eq!(outcome(&mut next), Some(Outcome::Done));
        assert_eq!(outcome(&mut duplicate), Some(Outcome::Done));
        assert_eq!(outcome(&mut later), None);
        waiters.leadership_lost();
        assert_eq!(outcome(&mut later), Some(Outcome::LeadershipLost));
    }

    #[test]
    fn data_waits_end_when_the_high_watermark_passes_their_offset() {
        let mut waiters = Waiters::default();
        assert_eq!(outcome(&mut waiters.wait_for_data(4, 5, false)), Some(Outcome::Done));
        let mut at_end = waiters.wait_for_data(5, 5, false);
        waiters.data_up_to(5);
        assert_eq!(outcome(&mut at_end), None);
        waiters.data_up_to(6);
        assert_eq!(outcome(&mut at_end), Some(Outcome::Done));
    }

    #[test]
    fn deletion_ends_everything_also_later() {
        let mut waiters = Waiters::default();
        let mut data = waiters.wait_for_data(0, 0, false);
        let mut commit = waiters.wait_for_commit(Index(9), Index(0));
        waiters.fail_all();
        assert_eq!(outcome(&mut data), Some(Outcome::Deleted));
        assert_eq!(outcome(&mut commit), Some(Outcome::Deleted));
        assert_eq!(outcome(&mut waiters.wait_for_data(0, 0, true)), Some(Outcome::Deleted));
    }

    #[test]
    fn abandoned_data_waits_are_swept() {
        let mut waiters = Waiters::default();
        for _ in 0..10 * SWEEP_AT_LEAST {
            drop(waiters.wait_for_data(0, 0, false));
        }
        assert!(waiters.data.len() <= SWEEP_AT_LEAST, "{} waits are kept", waiters.data.len());
    }
}
