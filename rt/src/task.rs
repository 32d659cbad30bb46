//! Tasks and the run queue of one shard; the same code on both backends.
//!
//! A task lives on the shard that spawned it. Its waker may travel to any thread: it finds out by
//! the current shard (set around every poll) whether to push to the local queue or to the shard's
//! inbox, and the latter also wakes the shard's thread. All live tasks are known to the shard, so
//! that a stop or a simulated crash can drop every one of them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{fence, AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use async_task::{FallibleTask, Runnable};

thread_local! {
    /// The queue of the shard that is running on this thread, or null.
    static CURRENT: Cell<*const Queue> = const { Cell::new(std::ptr::null()) };
}

/// A spawned task: awaiting it gives its output, dropping it cancels it.
///
/// A task cancelled by the end of its shard never becomes ready.
#[must_use = "dropping a task cancels it; call detach() to let it run on"]
pub struct Task<T> {
    inner: Option<FallibleTask<T>>,
    /// The output may be !Send, so the handle stays on its shard.
    local: PhantomData<Rc<()>>,
}

impl<T> Task<T> {
    /// Lets the task run to its end without a handle.
    pub fn detach(mut self) {
        if let Some(task) = self.inner.take() {
            task.detach();
        }
    }

    pub fn is_finished(&self) -> bool {
        self.inner.as_ref().is_none_or(|task| task.is_finished())
    }

    /// A task that never runs: its shard has ended.
    fn dead() -> Task<T> {
        Task { inner: None, local: PhantomData }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(task) = self.inner.as_mut() else {
            return Poll::Pending;
        };
        match Pin::new(task).poll(context) {
            Poll::Ready(Some(output)) => Poll::Ready(output),
            // Cancelled together with its shard, or it panicked: the panic itself surfaces in the
            // shard's loop and ends the shard.
            Poll::Ready(None) => {
                self.inner = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        // Dropping the inner handle cancels.
        drop(self.inner.take());
    }
}

/// The part of a shard that other threads may touch.
pub(crate) struct Remote {
    inbox: Mutex<Vec<Runnable>>,
    /// Something lies in the inbox or in a ring towards this shard. Set after the push, cleared
    /// before the look, so a push is never overlooked.
    mail: AtomicBool,
    /// The shard's thread sleeps, or is about to: whoever clears this must wake it.
    pub(crate) sleeping: AtomicBool,
    /// The shard has ended; what arrives is leaked, since it may only be dropped on its thread.
    closed: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Remote {
    /// `wake` makes the thread of a sleeping shard run.
    pub(crate) fn new(wake: Box<dyn Fn() + Send + Sync>) -> Arc<Remote> {
        Arc::new(Remote {
            inbox: Mutex::new(Vec::new()),
            mail: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wake,
        })
    }

    fn inbox(&self) -> MutexGuard<'_, Vec<Runnable>> {
        // A panic cannot leave a Vec push half done in a way that matters here.
        self.inbox.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn push(&self, runnable: Runnable) {
        if self.closed.load(Ordering::Acquire) {
            // SAFETY of the design: the future may hold !Send values and its shard is gone.
            std::mem::forget(runnable);
            return;
        }
        self.inbox().push(runnable);
        self.signal();
    }

    /// Tells the shard that something was pushed to it; wakes its thread if it sleeps.
    pub(crate) fn signal(&self) {
        self.mail.store(true, Ordering::Release);
        // Pairs with the fence in `prepare_sleep`: either we see `sleeping`, or it sees `mail`.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.mail.load(Ordering::Relaxed)
    }

    /// Announces sleep. False if mail has come meanwhile: then the shard must not sleep.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.mail.load(Ordering::Relaxed) {
            self.sleeping.store(false, Ordering::Relaxed);
            return false;
        }
        true
    }

    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }
}

/// Called on the owning shard when mail arrived: looks into rings.
pub(crate) trait MailHook {
    fn mail(&self);
}

/// Run queue, live tasks and mail hooks of one shard.
pub(crate) struct Queue {
    runnable: RefCell<VecDeque<Runnable>>,
    live: Rc<RefCell<Live>>,
    hooks: RefCell<Vec<Rc<dyn MailHook>>>,
    remote: Arc<Remote>,
    closed: Cell<bool>,
}

impl Queue {
    pub(crate) fn new(remote: Arc<Remote>) -> Queue {
        Queue {
            runnable: RefCell::new(VecDeque::new()),
            live: Rc::new(RefCell::new(Live::default())),
            hooks: RefCell::new(Vec::new()),
            remote,
            closed: Cell::new(false),
        }
    }

    pub(crate) fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    pub(crate) fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        if self.closed.get() {
            drop(future);
            return Task::dead();
        }
        let key = self.live.borrow_mut().reserve();
        let tracked = Tracked { future, _leave: Leave { live: Rc::clone(&self.live), key } };
        let remote = Arc::clone(&self.remote);
        let schedule = move |runnable: Runnable| schedule(&remote, runnable);
        // SAFETY: the future is not Send, so a Runnable must run and be dropped on this shard's
        // thread only. `schedule` hands it to this shard's queue or inbox, both drained here
        // alone, and leaks it once the shard has ended. The future is 'static, and `schedule` is
        // Send, Sync and 'static. The handle `Task` is !Send, so the output stays here as well.
        let (runnable, task) = unsafe {
            async_task::Builder::new()
                .propagate_panic(false)
                .spawn_unchecked(|()| tracked, schedule)
        };
        self.live.borrow_mut().fill(key, runnable.waker());
        runnable.schedule();
        Task { inner: Some(task.fallible()), local: PhantomData }
    }

    /// Runs one task. False if there is none.
    pub(crate) fn run_one(&self) -> bool {
        let next = self.runnable.borrow_mut().pop_front();
        match next {
            Some(runnable) => {
                runnable.run();
                true
            }
            None => false,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.runnable.borrow().is_empty() && !self.remote.has_mail()
    }

    /// Moves the inbox into the queue and lets the rings' receivers look, if mail came.
    pub(crate) fn take_mail(&self) {
        if !self.remote.has_mail() {
            return;
        }
        self.remote.mail.swap(false, Ordering::AcqRel);
        let arrived = std::mem::take(&mut *self.remote.inbox());
        self.runnable.borrow_mut().extend(arrived);
        let count = self.hooks.borrow().len();
        for index in 0..count {
            let hook = Rc::clone(&self.hooks.borrow()[index]);
            hook.mail();
        }
    }

    pub(crate) fn add_hook(&self, hook: Rc<dyn MailHook>) {
        self.hooks.borrow_mut().push(hook);
        // What was pushed before the hook existed must be seen as well.
        self.remote.signal();
    }

    pub(crate) fn live_tasks(&self) -> u64 {
        let live = self.live.borrow();
        (live.slots.len() - live.free.len()) as u64
    }

    fn push_local(&self, runnable: Runnable) {
        self.runnable.borrow_mut().push_back(runnable);
    }

    /// Drops every task of the shard. Must run with this shard entered; the destructors of the
    /// futures may still wake and spawn, so the queue is drained until nothing is left.
    pub(crate) fn drop_all(&self) {
        self.closed.set(true);
        loop {
            let wakers = self.live.borrow_mut().take_all();
            if wakers.is_empty() && self.is_idle() {
                break;
            }
            for waker in wakers {
                waker.wake();
            }
            self.take_mail();
            loop {
                let next = self.runnable.borrow_mut().pop_front();
                // Dropping a runnable cancels its task and drops the future.
                match next {
                    Some(runnable) => drop(runnable),
                    None => break,
                }
            }
        }
        self.hooks.borrow_mut().clear();
        self.remote.closed.store(true, Ordering::Release);
    }

    /// Makes this the current shard of the thread until the guard is dropped.
    pub(crate) fn enter(&self) -> Entered<'_> {
        let before = CURRENT.with(|current| current.replace(self));
        Entered { before, queue: PhantomData }
    }
}

/// Restores the thread's former current shard.
pub(crate) struct Entered<'a> {
    before: *const Queue,
    queue: PhantomData<&'a Queue>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(self.before));
    }
}

fn schedule(remote: &Arc<Remote>, runnable: Runnable) {
    let current = CURRENT.try_with(Cell::get).unwrap_or(std::ptr::null());
    if !current.is_null() {
        // SAFETY: CURRENT is non-null only while an `Entered` guard borrows the queue.
        let queue = unsafe { &*current };
        if Arc::ptr_eq(&queue.remote, remote) {
            queue.push_local(runnable);
            return;
        }
    }
    remote.push(runnable);
}

/// The wakers of all tasks that are not finished.
#[derive(Default)]
struct Live {
    slots: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Live {
    fn reserve(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        })
    }

    fn fill(&mut self, key: usize, waker: Waker) {
        self.slots[key] = Some(waker);
    }

    fn remove(&mut self, key: usize) -> Option<Waker> {
        self.free.push(key);
        self.slots[key].take()
    }

    fn take_all(&mut self) -> Vec<Waker> {
        self.slots.iter_mut().filter_map(Option::take).collect()
    }
}

struct Tracked<F> {
    future: F,
    /// After the future in order: it leaves the list once the future is dropped.
    _leave: Leave,
}

struct Leave {
    live: Rc<RefCell<Live>>,
    key: usize,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let waker = self.live.borrow_mut().remove(self.key);
        drop(waker);
    }
}

impl<F: Future> Future for Tracked<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` is structurally pinned: never moved out, and `Tracked` has no Drop.
        unsafe { self.map_unchecked_mut(|tracked| &mut tracked.future) }.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue::new(Remote::new(Box::new(|| {})))
    }

    fn run(queue: &Queue) {
        let _entered = queue.enter();
        loop {
            queue.take_mail();
            if !queue.run_one() {
                break;
            }
        }
    }

    #[test]
    fn output_reaches_the_handle() {
        let queue = queue();
        let seen = Rc::new(Cell::new(0));
        let inner = queue.spawn(async { 41 });
        let copy = Rc::clone(&seen);
        queue.spawn(async move { copy.set(inner.await + 1) }).detach();
        run(&queue);
        assert_eq!(seen.get(), 42);
    }

    #[test]
    fn dropping_the_handle_drops_the_future() {
        let queue = queue();
        let alive = Rc::new(());
        let held = Rc::clone(&alive);
        let task = queue.spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        run(&queue);
        assert_eq!(Rc::strong_count(&alive), 2);
        drop(task);
        run(&queue);
        assert_eq!(Rc::strong_count(&alive), 1);
    }

    #[test]
    fn the_end_of_a_shard_drops_all_tasks_and_refuses_new_ones() {
        struct SpawnOnDrop(Rc<Queue>, Rc<()>);
        impl Drop for SpawnOnDrop {
            fn drop(&mut self) {
                let held = Rc::clone(&self.1);
                self.0.spawn(async move { drop(held) }).detach();
            }
        }
        let queue = Rc::new(queue());
        let alive = Rc::new(());
        let bomb = SpawnOnDrop(Rc::clone(&queue), Rc::clone(&alive));
        queue
            .spawn(async move {
                std::future::pending::<()>().await;
                drop(bomb);
            })
            .detach();
        run(&queue);
        {
            let _entered = queue.enter();
            queue.drop_all();
        }
        assert_eq!(Rc::strong_count(&alive), 1);
    }

    #[test]
    fn a_wake_from_another_thread_goes_through_the_inbox() {
        let woken = Arc::new(AtomicBool::new(false));
        let copy = Arc::clone(&woken);
        let queue = Queue::new(Remote::new(Box::new(move || copy.store(true, Ordering::SeqCst))));
        let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
        let done = Rc::new(Cell::new(false));
        let (slot, flag) = (Rc::clone(&kept), Rc::clone(&done));
        let mut first = true;
        queue
            .spawn(std::future::poll_fn(move |context| {
                if std::mem::take(&mut first) {
                    *slot.borrow_mut() = Some(context.waker().clone());
                    return Poll::Pending;
                }
                flag.set(true);
                Poll::Ready(())
            }))
            .detach();
        run(&queue);
        assert!(queue.remote().prepare_sleep());
        let waker = kept.borrow_mut().take().expect("polled once");
        std::thread::spawn(move || waker.wake()).join().expect("thread");
        assert!(woken.load(Ordering::SeqCst), "a sleeping shard's thread is woken");
        assert!(!done.get());
        run(&queue);
        assert!(done.get());
    }
}
