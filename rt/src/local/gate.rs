//! Lets operations in until it is closed, then waits for those inside to leave.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::waiters::Waiters;

/// A gate. Cheap to clone.
#[derive(Clone, Default)]
pub struct Gate {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    inside: Cell<u64>,
    closed: Cell<bool>,
    closers: RefCell<Waiters>,
}

impl Gate {
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Enters, unless the gate is closed; the guard leaves when dropped.
    pub fn enter(&self) -> Option<GateGuard> {
        if self.shared.closed.get() {
            return None;
        }
        self.shared.inside.set(self.shared.inside.get() + 1);
        Some(GateGuard { shared: Rc::clone(&self.shared) })
    }

    pub fn is_closed(&self) -> bool {
        self.shared.closed.get()
    }

    /// How many are inside.
    pub fn inside(&self) -> u64 {
        self.shared.inside.get()
    }

    /// Lets nobody in any more, and waits until all guards are gone.
    pub async fn close(&self) {
        self.shared.closed.set(true);
        let mut id = None;
        poll_fn(|context| {
            if self.shared.inside.get() == 0 {
                return Poll::Ready(());
            }
            self.shared.closers.borrow_mut().register(&mut id, context.waker());
            Poll::Pending
        })
        .await
    }
}

/// Someone inside a gate.
pub struct GateGuard {
    shared: Rc<Shared>,
}

impl Clone for GateGuard {
    fn clone(&self) -> Self {
        self.shared.inside.set(self.shared.inside.get() + 1);
        GateGuard { shared: Rc::clone(&self.shared) }
    }
}

impl Drop for GateGuard {
    fn drop(&mut self) {
        let inside = self.shared.inside.get() - 1;
        self.shared.inside.set(inside);
        if inside == 0 && self.shared.closed.get() {
            let wakers = self.shared.closers.borrow_mut().take_all();
            for waker in wakers {
                waker.wake();
            }
        }
    }
}
