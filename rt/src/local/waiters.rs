//! A first-in-first-out list of wakers, from which a waiter can leave. One shard, internal.

use std::collections::VecDeque;
use std::task::Waker;

/// Tasks that wait, oldest first.
#[derive(Default)]
pub(crate) struct Waiters {
    queue: VecDeque<(u64, Waker)>,
    next_id: u64,
}

impl Waiters {
    /// Joins at the end, or replaces the waker of a waiter that is in the list.
    pub(crate) fn register(&mut self, id: &mut Option<u64>, waker: &Waker) {
        if let Some(id) = *id {
            if let Some(entry) = self.queue.iter_mut().find(|entry| entry.0 == id) {
                entry.1.clone_from(waker);
                return;
            }
        }
        self.next_id += 1;
        *id = Some(self.next_id);
        self.queue.push_back((self.next_id, waker.clone()));
    }

    /// Leaves the list. False if the waiter was not in it any more: it had been woken.
    pub(crate) fn leave(&mut self, id: u64) -> bool {
        match self.queue.iter().position(|entry| entry.0 == id) {
            Some(place) => {
                self.queue.remove(place);
                true
            }
            None => false,
        }
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        self.queue.iter().any(|entry| entry.0 == id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.queue.front().map(|entry| entry.0)
    }

    /// The oldest waiter, for the caller to wake outside its borrow.
    #[must_use]
    pub(crate) fn pop(&mut self) -> Option<Waker> {
        self.queue.pop_front().map(|entry| entry.1)
    }

    /// The waker of the oldest waiter, which stays in the list.
    pub(crate) fn peek(&self) -> Option<Waker> {
        self.queue.front().map(|entry| entry.1.clone())
    }

    #[must_use]
    pub(crate) fn take_all(&mut self) -> Vec<Waker> {
        self.queue.drain(..).map(|entry| entry.1).collect()
    }
}
