//! A queue between the tasks of one shard; many senders, one receiver.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::waiters::Waiters;

struct State<T> {
    values: VecDeque<T>,
    capacity: usize,
    senders: usize,
    receiving: bool,
    receiver: Option<Waker>,
    waiting: Waiters,
}

/// A channel without a limit.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

/// A channel that holds at most `capacity` values (at least one).
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(RefCell::new(State {
        values: VecDeque::new(),
        capacity: capacity.max(1),
        senders: 1,
        receiving: true,
        receiver: None,
        waiting: Waiters::default(),
    }));
    (Sender { shared: Rc::clone(&shared) }, Receiver { shared })
}

/// Why `try_send` did not take the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<T> {
    #[error("the channel is full")]
    Full(T),
    #[error("the receiver is gone")]
    Closed(T),
}

/// The receiver is gone; the value comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receiver is gone")]
pub struct Closed<T>(pub T);

/// The sending side; clones share the channel.
pub struct Sender<T> {
    shared: Rc<RefCell<State<T>>>,
}

impl<T> Sender<T> {
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let receiver = {
            let mut state = self.shared.borrow_mut();
            if !state.receiving {
                return Err(TrySendError::Closed(value));
            }
            if state.values.len() >= state.capacity {
                return Err(TrySendError::Full(value));
            }
            state.values.push_back(value);
            state.receiver.take()
        };
        if let Some(waker) = receiver {
            waker.wake();
        }
        Ok(())
    }

    /// Sends without waiting, whatever the capacity: for unbounded channels.
    pub fn send_now(&self, value: T) -> Result<(), Closed<T>> {
        match self.try_send(value) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(value)) => Err(Closed(value)),
            Err(TrySendError::Full(value)) => {
                let receiver = {
                    let mut state = self.shared.borrow_mut();
                    state.values.push_back(value);
                    state.receiver.take()
                };
                if let Some(waker) = receiver {
                    waker.wake();
                }
                Ok(())
            }
        }
    }

    /// Waits for room; senders are served in order.
    pub async fn send(&self, value: T) -> Result<(), Closed<T>> {
        let mut value = Some(value);
        let mut waiting = Waiting { shared: &self.shared, id: None };
        poll_fn(|context| {
            let Some(item) = value.take() else { return Poll::Ready(Ok(())) };
            let ours = {
                let state = self.shared.borrow();
                state.waiting.is_empty() || waiting.id.is_some_and(|id| !state.waiting.contains(id))
            };
            let item = if ours || !self.shared.borrow().receiving {
                match self.try_send(item) {
                    Ok(()) => return Poll::Ready(Ok(())),
                    Err(TrySendError::Closed(item)) => return Poll::Ready(Err(Closed(item))),
                    Err(TrySendError::Full(item)) => item,
                }
            } else {
                item
            };
            value = Some(item);
            self.shared.borrow_mut().waiting.register(&mut waiting.id, context.waker());
            Poll::Pending
        })
        .await
    }

    pub fn is_closed(&self) -> bool {
        !self.shared.borrow().receiving
    }
}

struct Waiting<'a, T> {
    shared: &'a RefCell<State<T>>,
    id: Option<u64>,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let next = {
            let mut state = self.shared.borrow_mut();
            let left = state.waiting.leave(id);
            // It had been woken for a place that it may not have used: pass the turn on.
            if !left && state.values.len() < state.capacity {
                state.waiting.pop()
            } else {
                None
            }
        };
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.borrow_mut().senders += 1;
        Sender { shared: Rc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.shared.borrow_mut();
            state.senders -= 1;
            if state.senders == 0 {
                state.receiver.take()
            } else {
                None
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The receiving side.
pub struct Receiver<T> {
    shared: Rc<RefCell<State<T>>>,
}

impl<T> Receiver<T> {
    /// The next value, or `None` once all senders are gone and nothing is left.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|context| {
            if let Some(value) = self.try_recv() {
                return Poll::Ready(Some(value));
            }
            let mut state = self.shared.borrow_mut();
            if state.senders == 0 {
                return Poll::Ready(None);
            }
            state.receiver = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    pub fn try_recv(&mut self) -> Option<T> {
        let (value, waker) = {
            let mut state = self.shared.borrow_mut();
            let value = state.values.pop_front()?;
            let room = state.values.len() < state.capacity;
            (value, if room { state.waiting.pop() } else { None })
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.shared.borrow().values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (values, wakers) = {
            let mut state = self.shared.borrow_mut();
            state.receiving = false;
            state.receiver = None;
            (std::mem::take(&mut state.values), state.waiting.take_all())
        };
        drop(values);
        for waker in wakers {
            waker.wake();
        }
    }
}
