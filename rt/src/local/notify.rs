//! Wakes waiting tasks without carrying a value.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::waiters::Waiters;

/// A bell. Cheap to clone; clones ring the same bell.
///
/// [`Notify::notify_one`] without a waiter is remembered for one future waiter (not counted).
/// [`Notify::notify_all`] wakes those who wait now and is not remembered. A [`Notified`] hears
/// `notify_all` from its creation on, not only from its first poll: make it, look at the state,
/// then await it.
#[derive(Clone, Default)]
pub struct Notify {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiters: RefCell<Waiters>,
    permit: Cell<bool>,
    /// Counts `notify_all`.
    rounds: Cell<u64>,
}

impl Notify {
    pub fn new() -> Notify {
        Notify::default()
    }

    pub fn notify_one(&self) {
        let waker = self.shared.waiters.borrow_mut().pop();
        match waker {
            // It knows by no longer standing in the list.
            Some(waker) => waker.wake(),
            None => self.shared.permit.set(true),
        }
    }

    pub fn notify_all(&self) {
        self.shared.rounds.set(self.shared.rounds.get() + 1);
        let wakers = self.shared.waiters.borrow_mut().take_all();
        for waker in wakers {
            waker.wake();
        }
    }

    pub fn notified(&self) -> Notified {
        let round = self.shared.rounds.get();
        Notified { shared: Rc::clone(&self.shared), round, id: None }
    }
}

/// Ready when the bell rings.
pub struct Notified {
    shared: Rc<Shared>,
    round: u64,
    id: Option<u64>,
}

impl Future for Notified {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shared = Rc::clone(&self.shared);
        let chosen = self.id.is_some_and(|id| !shared.waiters.borrow().contains(id));
        if chosen || shared.rounds.get() != self.round || shared.permit.replace(false) {
            if let Some(id) = self.id.take() {
                shared.waiters.borrow_mut().leave(id);
            }
            return Poll::Ready(());
        }
        shared.waiters.borrow_mut().register(&mut self.id, context.waker());
        Poll::Pending
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let left = self.shared.waiters.borrow_mut().leave(id);
        // Chosen by `notify_one` but never polled again: let another waiter have it.
        if !left && self.shared.rounds.get() == self.round {
            Notify { shared: Rc::clone(&self.shared) }.notify_one();
        }
    }
}
