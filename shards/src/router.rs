//! Calls between the shards of one node.
//!
//! A call is a closure that travels over the single-producer ring to the shard that owns the
//! data, runs there, and sends its typed result back. The synchronous part of a call (everything
//! before its future first waits) runs in the order in which calls from one shard arrive: the
//! produce path fixes the order of batches with it.
//!
//! Lives on every shard, one instance each. It never blocks and never drops a call: when a ring
//! is full, calls wait in an outbox of this shard, bounded by what the connections may have in
//! flight. The receive loop never awaits a send, so two full rings cannot lock each other.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use rt::local::{oneshot, Notify};
use rt::{Mesh, Shard, ShardId};

/// What a remote call leaves behind on its way back: the result of the closure.
type Boxed = Box<dyn Any + Send>;
/// The part of a call that is still to be awaited on the shard that runs it.
type Running = Pin<Box<dyn Future<Output = Boxed>>>;

/// One message between two shards. `H` is the handle that calls run against (the broker).
pub enum Message<H> {
    /// Run this on the receiving shard and answer under the same number.
    Call { id: u64, run: Box<dyn FnOnce(H) -> Running + Send> },
    /// The answer to the receiver's call of that number.
    Reply { id: u64, result: Boxed },
    /// The receiver need not finish the call of that number: its caller went away.
    Cancel { id: u64 },
}

/// This shard's end of the rings to all other shards.
pub struct Router<H: Clone + 'static> {
    inner: Rc<Inner<H>>,
}

impl<H: Clone + 'static> Clone for Router<H> {
    fn clone(&self) -> Self {
        Router { inner: self.inner.clone() }
    }
}

struct Inner<H: Clone + 'static> {
    shard: Shard,
    outboxes: Vec<Outbox<H>>,
    /// Calls of ours that other shards have yet to answer.
    waiting: RefCell<BTreeMap<u64, oneshot::Sender<Boxed>>>,
    next_call: Cell<u64>,
    /// Calls of other shards that run here, by caller and number.
    running: RefCell<BTreeMap<(ShardId, u64), rt::Task<()>>>,
}

struct Outbox<H> {
    queue: RefCell<VecDeque<Message<H>>>,
    sender: rt::Sender<Message<H>>,
    filled: Notify,
    /// The pump holds a message that it could not send yet.
    sending: Cell<bool>,
}

impl<H: Clone + 'static> Router<H> {
    /// Joins the mesh and starts to send; calls are served once [`Router::serve`] has a handle.
    pub fn join(shard: &Shard, mesh: &Mesh<Message<H>>) -> (Router<H>, rt::Port<Message<H>>) {
        let port = mesh.join(shard);
        let outboxes = (0..shard.count())
            .map(|to| Outbox {
                queue: RefCell::new(VecDeque::new()),
                sender: port.sender(ShardId(to)),
                filled: Notify::new(),
                sending: Cell::new(false),
            })
            .collect();
        let inner = Rc::new(Inner {
            shard: shard.clone(),
            outboxes,
            waiting: RefCell::new(BTreeMap::new()),
            next_call: Cell::new(1),
            running: RefCell::new(BTreeMap::new()),
        });
        for to in (0..shard.count()).filter(|to| ShardId(*to) != shard.id()) {
            shard.spawn(pump(Rc::downgrade(&inner), to as usize)).detach();
        }
        (Router { inner }, port)
    }

    /// Serves the calls of other shards for ever, against `handle`.
    pub async fn serve(self, port: rt::Port<Message<H>>, handle: H) {
        loop {
            let (from, message) = port.recv().await;
            match message {
                Message::Call { id, run } => self.start(from, id, run(handle.clone())),
                Message::Reply { id, result } => {
                    let waiting = self.inner.waiting.borrow_mut().remove(&id);
                    if let Some(sender) = waiting {
                        let _ = sender.send(result);
                    }
                }
                Message::Cancel { id } => {
                    let task = self.inner.running.borrow_mut().remove(&(from, id));
                    drop(task);
                }
            }
        }
    }

    /// Runs `call` on `to` and gives its result. The call is on its way (or, on this shard,
    /// its synchronous part is done) when this function returns; dropping the future cancels
    /// what is left of it.
    pub fn call<T, F, Fut>(&self, to: ShardId, handle: &H, call: F) -> CallFuture<H, T>
    where
        T: Send + 'static,
        F: FnOnce(H) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        if to == self.inner.shard.id() {
            return CallFuture { state: State::Local(Box::pin(call(handle.clone()))) };
        }
        let id = self.inner.next_call.get();
        self.inner.next_call.set(id + 1);
        let (sender, receiver) = rt::oneshot();
        self.inner.waiting.borrow_mut().insert(id, sender);
        let run = Box::new(move |handle: H| {
            let future = call(handle);
            Box::pin(async move { Box::new(future.await) as Boxed }) as Running
        });
        self.post(to, Message::Call { id, run });
        CallFuture { state: State::Remote { router: self.clone(), to, id, receiver } }
    }

    /// Runs one call of another shard: to its end at once if it does not wait, else as a task.
    fn start(&self, from: ShardId, id: u64, mut running: Running) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        // Most calls are done after their synchronous part. A future that is pending is polled
        // again by its task, with a waker that counts.
        if let Poll::Ready(result) = running.as_mut().poll(&mut context) {
            self.post(from, Message::Reply { id, result });
            return;
        }
        let router = self.clone();
        let task = self.inner.shard.spawn(async move {
            let result = running.await;
            let me = router.inner.running.borrow_mut().remove(&(from, id));
            if let Some(me) = me {
                me.detach();
                router.post(from, Message::Reply { id, result });
            }
        });
        self.inner.running.borrow_mut().insert((from, id), task);
    }

    fn post(&self, to: ShardId, message: Message<H>) {
        let outbox = &self.inner.outboxes[to.0 as usize];
        let mut queue = outbox.queue.borrow_mut();
        if !queue.is_empty() || outbox.sending.get() {
            queue.push_back(message);
            return;
        }
        if let Err(message) = outbox.sender.try_send(message) {
            queue.push_back(message);
            outbox.filled.notify_one();
        }
    }

    /// Calls of this shard that are not answered yet (a metric, and a test's question).
    pub fn calls_in_flight(&self) -> usize {
        self.inner.waiting.borrow().len()
    }
}

/// Empties one outbox into its ring, in order, whenever the ring had no room.
async fn pump<H: Clone + 'static>(inner: Weak<Inner<H>>, to: usize) {
    loop {
        let Some(router) = inner.upgrade() else { return };
        let filled = router.outboxes[to].filled.clone();
        drop(router);
        filled.notified().await;
        loop {
            let Some(router) = inner.upgrade() else { return };
            let outbox = &router.outboxes[to];
            let Some(message) = outbox.queue.borrow_mut().pop_front() else {
                outbox.sending.set(false);
                break;
            };
            // While this one waits for room, `post` must not overtake it.
            outbox.sending.set(true);
            let sender = outbox.sender.clone();
            drop(router);
            sender.send(message).await;
        }
    }
}

/// The result of a call, to be awaited.
pub struct CallFuture<H: Clone + 'static, T> {
    state: State<H, T>,
}

enum State<H: Clone + 'static, T> {
    Local(Pin<Box<dyn Future<Output = T>>>),
    Remote { router: Router<H>, to: ShardId, id: u64, receiver: oneshot::Receiver<Boxed> },
    Done,
}

impl<H: Clone + 'static, T: 'static> Future for CallFuture<H, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let result = match &mut self.state {
            State::Local(future) => return future.as_mut().poll(context),
            State::Remote { receiver, .. } => match Pin::new(receiver).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result,
            },
            State::Done => panic!("a call was polled after it was answered"),
        };
        self.state = State::Done;
        // A shard never goes away while the others run: it ends with the process.
        let result = result.expect("the shard that ran this call has ended");
        Poll::Ready(*result.downcast::<T>().expect("a reply has the type of its call"))
    }
}

impl<H: Clone + 'static, T> Drop for CallFuture<H, T> {
    fn drop(&mut self) {
        if let State::Remote { router, to, id, .. } = &self.state {
            if router.inner.waiting.borrow_mut().remove(id).is_some() {
                router.post(*to, Message::Cancel { id: *id });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Two shards, each with its number as the handle; `body` runs on shard 0.
    fn on_two_shards<F, Fut>(ring: usize, body: F)
    where
        F: Fn(Shard, Router<u16>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let world = rt::sim::World::new(11, rt::sim::WorldOptions::default());
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let finished = done.clone();
        world.add_node("n", 2, move |shard: Shard| {
            let (body, done) = (body.clone(), done.clone());
            async move {
                let mesh = shard.common(|| Mesh::<Message<u16>>::new(2, ring));
                let (router, port) = Router::join(&shard, &mesh);
                let handle = shard.id().0;
                shard.spawn(router.clone().serve(port, handle)).detach();
                if handle == 0 {
                    body(shard.clone(), router).await;
                    done.store(true, std::sync::atomic::Ordering::SeqCst);
                }
                std::future::pending::<()>().await
            }
        });
        let ended = |_: &rt::sim::World| finished.load(std::sync::atomic::Ordering::SeqCst);
        assert!(world.run_until(ended, Duration::from_secs(60)), "the body did not end");
    }

    #[test]
    fn calls_run_in_order_through_a_full_ring_and_answer_their_caller() {
        on_two_shards(2, |_, router| async move {
            let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let calls: Vec<_> = (0..100u32)
                .map(|n| {
                    let order = order.clone();
                    router.call(ShardId(1), &0, move |here| {
                        order.lock().expect("no panic").push(n);
                        async move { (here, n) }
                    })
                })
                .collect();
            let answers = rt::join_all(calls).await;
            assert!(answers.iter().enumerate().all(|(n, answer)| *answer == (1, n as u32)));
            assert!(order.lock().expect("no panic").is_sorted());
            assert_eq!(router.calls_in_flight(), 0);
        });
    }

    #[test]
    fn a_dropped_call_is_cancelled_where_it_runs() {
        struct Flag(std::sync::Arc<std::sync::atomic::AtomicBool>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        on_two_shards(8, |shard, router| async move {
            let dropped = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let flag = Flag(dropped.clone());
            let call = router.call(ShardId(1), &0, move |_| async move {
                let _flag = flag;
                std::future::pending::<()>().await
            });
            shard.sleep(Duration::from_millis(10)).await;
            assert!(!dropped.load(std::sync::atomic::Ordering::SeqCst));
            drop(call);
            shard.sleep(Duration::from_millis(10)).await;
            assert!(dropped.load(std::sync::atomic::Ordering::SeqCst));
        });
    }
}
