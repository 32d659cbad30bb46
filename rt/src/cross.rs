//! Answers and messages from plain threads (or other shards) to a shard.
//!
//! One mutex per channel: for rare events such as DNS answers, signals and results of blocking
//! work. Between shards use a [`crate::Mesh`]. Awaiting wakes the receiving shard's thread.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};

/// A single value that may be sent from any thread.
pub fn oneshot<T: Send>() -> (CrossOneshot<T>, CrossAnswer<T>) {
    let (sender, receiver) = channel();
    (CrossOneshot { sender }, CrossAnswer { receiver })
}

/// An unbounded channel whose senders may be on any thread.
pub fn channel<T: Send>() -> (CrossSender<T>, CrossReceiver<T>) {
    let state = State { values: VecDeque::new(), senders: 1, receiving: true, waker: None };
    let shared = Arc::new(Mutex::new(state));
    (CrossSender { shared: Arc::clone(&shared) }, CrossReceiver { shared })
}

struct State<T> {
    values: VecDeque<T>,
    senders: usize,
    receiving: bool,
    waker: Option<Waker>,
}

fn lock<T>(shared: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The sending side of [`oneshot`].
pub struct CrossOneshot<T: Send> {
    sender: CrossSender<T>,
}

impl<T: Send> CrossOneshot<T> {
    /// Gives the value back if nobody waits for it any more.
    pub fn send(self, value: T) -> Result<(), T> {
        self.sender.send(value)
    }
}

/// The receiving side of [`oneshot`].
pub struct CrossAnswer<T: Send> {
    receiver: CrossReceiver<T>,
}

impl<T: Send> CrossAnswer<T> {
    /// The value, or `None` if the sender was dropped.
    pub async fn recv(self) -> Option<T> {
        self.receiver.recv().await
    }
}

/// The sending side of [`channel`].
pub struct CrossSender<T: Send> {
    shared: Arc<Mutex<State<T>>>,
}

impl<T: Send> CrossSender<T> {
    /// Gives the value back if the receiver is gone.
    pub fn send(&self, value: T) -> Result<(), T> {
        let waker = {
            let mut state = lock(&self.shared);
            if !state.receiving {
                return Err(value);
            }
            state.values.push_back(value);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

impl<T: Send> Clone for CrossSender<T> {
    fn clone(&self) -> Self {
        lock(&self.shared).senders += 1;
        CrossSender { shared: Arc::clone(&self.shared) }
    }
}

impl<T: Send> Drop for CrossSender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = lock(&self.shared);
            state.senders -= 1;
            if state.senders == 0 {
                state.waker.take()
            } else {
                None
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The receiving side of [`channel`].
pub struct CrossReceiver<T: Send> {
    shared: Arc<Mutex<State<T>>>,
}

impl<T: Send> CrossReceiver<T> {
    /// The next value, or `None` once all senders are dropped and nothing is left.
    pub async fn recv(&self) -> Option<T> {
        poll_fn(|context| {
            let mut state = lock(&self.shared);
            if let Some(value) = state.values.pop_front() {
                return Poll::Ready(Some(value));
            }
            if state.senders == 0 {
                return Poll::Ready(None);
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// A value that is there already.
    pub fn try_recv(&self) -> Option<T> {
        lock(&self.shared).values.pop_front()
    }
}

impl<T: Send> Drop for CrossReceiver<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        state.receiving = false;
        let left = std::mem::take(&mut state.values);
        drop(state);
        drop(left);
    }
}
