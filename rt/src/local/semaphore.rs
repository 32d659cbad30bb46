//! A counting semaphore, fair in order of arrival, for budgets of memory and concurrency.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::waiters::Waiters;

/// Permits to share. Cheap to clone.
#[derive(Clone)]
pub struct Semaphore {
    shared: Rc<Shared>,
}

struct Shared {
    available: Cell<u64>,
    waiters: RefCell<Waiters>,
}

impl Semaphore {
    pub fn new(permits: u64) -> Semaphore {
        let waiters = RefCell::default();
        Semaphore { shared: Rc::new(Shared { available: Cell::new(permits), waiters }) }
    }

    pub fn available(&self) -> u64 {
        self.shared.available.get()
    }

    /// Adds permits to the total.
    pub fn add(&self, permits: u64) {
        self.shared.give(permits);
    }

    /// Takes `permits` at once if they are there and nobody waits for some.
    pub fn try_acquire(&self, permits: u64) -> Option<Permit> {
        let free = self.shared.waiters.borrow().is_empty();
        if !free || self.shared.available.get() < permits {
            return None;
        }
        Some(self.take(permits))
    }

    /// Waits for `permits`. Whoever came first is served first, however many it asks for; more
    /// than will ever be there waits for ever.
    pub async fn acquire(&self, permits: u64) -> Permit {
        let mut waiting = Waiting { shared: &self.shared, id: None };
        poll_fn(|context| {
            let mut waiters = self.shared.waiters.borrow_mut();
            let turn = match waiters.first() {
                None => true,
                first => first == waiting.id,
            };
            if turn && self.shared.available.get() >= permits {
                return Poll::Ready(());
            }
            waiters.register(&mut waiting.id, context.waker());
            Poll::Pending
        })
        .await;
        // Leaving the queue lets the next waiter look, so take first.
        let permit = self.take(permits);
        drop(waiting);
        permit
    }

    fn take(&self, permits: u64) -> Permit {
        self.shared.available.set(self.shared.available.get() - permits);
        Permit { shared: Rc::clone(&self.shared), permits }
    }
}

impl Shared {
    fn give(&self, permits: u64) {
        self.available.set(self.available.get() + permits);
        self.wake_first();
    }

    fn wake_first(&self) {
        let waker = self.waiters.borrow().peek();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Waiting<'a> {
    shared: &'a Shared,
    id: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.waiters.borrow_mut().leave(id);
            if self.shared.available.get() > 0 {
                self.shared.wake_first();
            }
        }
    }
}

/// Permits that are given back when dropped.
pub struct Permit {
    shared: Rc<Shared>,
    permits: u64,
}

impl Permit {
    pub fn permits(&self) -> u64 {
        self.permits
    }

    /// Splits `permits` off.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn split(&mut self, permits: u64) -> Permit {
        assert!(permits <= self.permits, "more permits than are held");
        self.permits -= permits;
        Permit { shared: Rc::clone(&self.shared), permits }
    }

    /// Adds the permits of another one of the same semaphore.
    pub fn merge(&mut self, mut other: Permit) {
        assert!(Rc::ptr_eq(&self.shared, &other.shared), "permits of another semaphore");
        self.permits += std::mem::take(&mut other.permits);
    }

    /// Keeps the permits for ever.
    pub fn forget(mut self) {
        self.permits = 0;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.permits > 0 {
            self.shared.give(self.permits);
        }
    }
}
