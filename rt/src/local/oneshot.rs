//! One value from one task to another of the same shard.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The sender was dropped without sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sender is gone")]
pub struct Canceled;

struct State<T> {
    value: Option<T>,
    sending: bool,
    receiving: bool,
    waker: Option<Waker>,
    /// The sender waits for the receiver to go.
    closed: Option<Waker>,
}

/// Makes a pair.
pub fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { value: None, sending: true, receiving: true, waker: None, closed: None };
    let shared = Rc::new(RefCell::new(state));
    (Sender { shared: Rc::clone(&shared) }, Receiver { shared })
}

/// The sending side.
pub struct Sender<T> {
    shared: Rc<RefCell<State<T>>>,
}

impl<T> Sender<T> {
    /// Gives the value back if the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut state = self.shared.borrow_mut();
        if !state.receiving {
            return Err(value);
        }
        state.value = Some(value);
        Ok(())
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        !self.shared.borrow().receiving
    }

    /// Ready when the receiver is gone.
    pub async fn closed(&self) {
        std::future::poll_fn(|context| {
            let mut state = self.shared.borrow_mut();
            if !state.receiving {
                return Poll::Ready(());
            }
            state.closed = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.shared.borrow_mut();
            state.sending = false;
            state.closed = None;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The receiving side; a future.
pub struct Receiver<T> {
    shared: Rc<RefCell<State<T>>>,
}

impl<T> Receiver<T> {
    /// The value, if it was sent already.
    pub fn try_recv(&mut self) -> Option<T> {
        self.shared.borrow_mut().value.take()
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Canceled>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.borrow_mut();
        if let Some(value) = state.value.take() {
            return Poll::Ready(Ok(value));
        }
        if !state.sending {
            return Poll::Ready(Err(Canceled));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (value, closed) = {
            let mut state = self.shared.borrow_mut();
            state.receiving = false;
            state.waker = None;
            (state.value.take(), state.closed.take())
        };
        drop(value);
        if let Some(waker) = closed {
            waker.wake();
        }
    }
}
