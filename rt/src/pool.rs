//! Plain threads for work that may block; io_uring backend only.
//!
//! Threads start when there is work and none is idle, up to a limit, and end after ten idle
//! seconds. Every closure runs under `catch_unwind`: a panic is an answer, never a hang.

use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::cross;
use crate::error::BlockingError;

type Job = Box<dyn FnOnce() + Send>;

/// A pool shared by the shards of a node.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    threads_max: usize,
    /// Runs first on every thread.
    begin: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Pool {
    const IDLE: Duration = Duration::from_secs(10);

    pub(crate) fn new(threads_max: usize, begin: Box<dyn Fn() + Send + Sync>) -> Pool {
        let (state, work) = (Mutex::default(), Condvar::new());
        Pool { shared: Arc::new(Shared { state, work, threads_max, begin }) }
    }

    /// Starts `work` at once; the future gives its value.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl std::future::Future<Output = Result<T, BlockingError>> {
        let (sender, answer) = cross::oneshot();
        let job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            let result = result.map_err(|panic| BlockingError::Panicked(panic_text(&*panic)));
            // Nobody waits any more: the work was done all the same.
            let _ = sender.send(result);
        });
        let started = self.push(job);
        async move {
            started?;
            let lost = || Err(BlockingError::NotRun("its thread ended".to_owned()));
            answer.recv().await.unwrap_or_else(lost)
        }
    }

    fn push(&self, job: Job) -> Result<(), BlockingError> {
        let mut state = self.shared.lock();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() || state.threads >= self.shared.threads_max {
            self.shared.work.notify_one();
            return Ok(());
        }
        state.threads += 1;
        let has_other = state.threads > 1;
        drop(state);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("blocking".to_owned());
        match thread.spawn(move || shared.work()) {
            Ok(_) => Ok(()),
            Err(error) => {
                let mut state = self.shared.lock();
                state.threads -= 1;
                if has_other {
                    return Ok(());
                }
                state.jobs.pop_back();
                Err(BlockingError::NotRun(error.to_string()))
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn work(&self) {
        (self.begin)();
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, Pool::IDLE);
            let (next, timeout) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
            state = next;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_jobs_share_few_threads_and_all_are_done() {
        let begun = Arc::new(Mutex::new(0));
        let count = Arc::clone(&begun);
        let pool = Pool::new(3, Box::new(move || *count.lock().expect("lock") += 1));
        let (sender, receiver) = std::sync::mpsc::channel();
        for i in 0..100 {
            let sender = sender.clone();
            drop(pool.run(move || {
                std::thread::sleep(Duration::from_micros(100));
                sender.send(i).expect("receiver");
            }));
        }
        let mut seen: Vec<i32> = receiver.iter().take(100).collect();
        seen.sort();
        assert!(seen.into_iter().eq(0..100));
        let threads = *begun.lock().expect("lock");
        assert!((1..=3).contains(&threads), "{threads} threads");
    }
}
