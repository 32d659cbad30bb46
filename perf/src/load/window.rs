//! The requests of one connection that wait for their answers.
//!
//! The sending thread adds to it and waits for room; the receiving thread takes the oldest with
//! every answer. Either may end it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// A request on its way: a run of the producer's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub correlation_id: i32,
    pub first: u64,
    pub count: u64,
    pub sent_ns: u64,
}

pub struct Window {
    room: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Sent>,
    broken: bool,
}

impl Window {
    pub fn new(room: usize) -> Window {
        Window { room, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits until one more request may be sent; false when the connection is done for.
    pub fn wait_for_room(&self) -> bool {
        let full = |state: &mut State| state.waiting.len() >= self.room && !state.broken;
        let state = self.changed.wait_while(self.lock(), full);
        !state.expect("no holder panics").broken
    }

    pub fn push(&self, sent: Sent) {
        self.lock().waiting.push_back(sent);
    }

    /// The request that an answer belongs to.
    pub fn pop(&self) -> Option<Sent> {
        let sent = self.lock().waiting.pop_front();
        self.changed.notify_all();
        sent
    }

    /// Lets the sender stop waiting: no answer will come any more.
    pub fn break_off(&self) {
        self.lock().broken = true;
        self.changed.notify_all();
    }

    /// Waits until everything is answered; false when that does not happen.
    pub fn wait_until_empty(&self, limit: Duration) -> bool {
        let busy = |state: &mut State| !state.waiting.is_empty() && !state.broken;
        let (state, _) =
            self.changed.wait_timeout_while(self.lock(), limit, busy).expect("no holder panics");
        state.waiting.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(correlation_id: i32) -> Sent {
        Sent { correlation_id, first: 0, count: 1, sent_ns: 0 }
    }

    #[test]
    fn a_full_window_opens_with_an_answer() {
        let window = Window::new(2);
        (0..2).for_each(|id| window.push(sent(id)));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| window.wait_for_room());
            assert_eq!(window.pop(), Some(sent(0)));
            assert!(waiter.join().unwrap());
        });
        assert!(!window.wait_until_empty(Duration::ZERO));
        assert_eq!(window.pop(), Some(sent(1)));
        assert!(window.wait_until_empty(Duration::ZERO));
    }

    #[test]
    fn a_broken_window_holds_nobody() {
        let window = Window::new(1);
        window.push(sent(1));
        window.break_off();
        assert!(!window.wait_for_room());
        assert!(!window.wait_until_empty(Duration::from_secs(3600)));
    }
}
