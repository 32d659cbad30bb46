//! Messages between the shards of one node: a ring for every ordered pair of shards.
//!
//! A [`Mesh`] is made once per node and joined once by every shard. Sending never blocks a
//! thread: `try_send` fails when the ring is full, `send` waits for room. A task that receives
//! must never await a send: two full rings would wait for each other. A message to a sleeping
//! shard wakes it; to a busy one it costs a push, since that shard looks after every poll.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{fence, AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Poll, Waker};

use crate::local::Waiters;
use crate::ring::{ring, Consumer, Producer};
use crate::shard::{Shard, ShardId};
use crate::task::{MailHook, Remote};

/// A receiver that always finds messages gives the credits it overlooked after so many.
const POPS_PER_CREDIT_ROUND: u32 = 64;

/// The rings of a node; see the module's text.
pub struct Mesh<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Mesh<T> {
    fn clone(&self) -> Self {
        Mesh { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<T> {
    shards: u16,
    capacity: usize,
    seats: Vec<Seat<T>>,
}

struct Seat<T> {
    /// Taken by the shard when it joins: its ends, in the order of the other side's number.
    ends: Mutex<Option<Ends<T>>>,
    /// Known once the shard has joined.
    remote: OnceLock<Arc<Remote>>,
    /// For every shard that this seat's ring comes from: it waits for room in it.
    wants_room: Vec<AtomicBool>,
}

struct Ends<T> {
    to: Vec<Option<Producer<T>>>,
    from: Vec<Option<Consumer<T>>>,
}

impl<T: Send + 'static> Mesh<T> {
    /// Rings between `shards` shards, each with room for at least `capacity` messages.
    pub fn new(shards: u16, capacity: usize) -> Mesh<T> {
        let n = usize::from(shards);
        let none =
            |_| Ends { to: (0..n).map(|_| None).collect(), from: (0..n).map(|_| None).collect() };
        let mut ends: Vec<Ends<T>> = (0..n).map(none).collect();
        for a in 0..n {
            for b in (0..n).filter(|b| *b != a) {
                let (producer, consumer) = ring(capacity);
                ends[a].to[b] = Some(producer);
                ends[b].from[a] = Some(consumer);
            }
        }
        let seat = |ends| Seat {
            ends: Mutex::new(Some(ends)),
            remote: OnceLock::new(),
            wants_room: (0..n).map(|_| AtomicBool::new(false)).collect(),
        };
        let seats = ends.into_iter().map(seat).collect();
        Mesh { shared: Arc::new(Shared { shards, capacity: capacity.max(2), seats }) }
    }

    pub fn shards(&self) -> u16 {
        self.shared.shards
    }

    /// Takes the shard's seat.
    ///
    /// # Panics
    /// If it was taken before, or the shard lies outside the mesh.
    pub fn join(&self, shard: &Shard) -> Port<T> {
        let inner = Rc::new(self.take_seat(shard.id(), shard.0.queue.remote()));
        shard.0.queue.add_hook(Rc::clone(&inner) as Rc<dyn MailHook>);
        Port { inner }
    }

    fn take_seat(&self, me: ShardId, remote: &Arc<Remote>) -> Inner<T> {
        let seat = &self.shared.seats[usize::from(me.0)];
        let ends = seat.ends.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let Some(ends) = ends else { panic!("shard {me} has joined this mesh before") };
        assert!(seat.remote.set(Arc::clone(remote)).is_ok(), "a seat is taken once");
        let n = usize::from(self.shared.shards);
        Inner {
            me,
            mesh: Arc::clone(&self.shared),
            to: ends.to,
            from: ends.from,
            own: RefCell::default(),
            next: Cell::new(0),
            pops: Cell::new(0),
            receiver: RefCell::new(None),
            senders: (0..n).map(|_| RefCell::default()).collect(),
        }
    }
}

struct Inner<T> {
    me: ShardId,
    mesh: Arc<Shared<T>>,
    to: Vec<Option<Producer<T>>>,
    from: Vec<Option<Consumer<T>>>,
    /// Messages of the shard to itself.
    own: RefCell<VecDeque<T>>,
    /// Where the round over the rings goes on, so that no sender starves another.
    next: Cell<usize>,
    pops: Cell<u32>,
    receiver: RefCell<Option<Waker>>,
    /// Tasks that wait for room, per target.
    senders: Vec<RefCell<Waiters>>,
}

impl<T: Send> Inner<T> {
    fn has_room(&self, target: usize) -> bool {
        match &self.to[target] {
            Some(producer) => producer.has_room(),
            None => self.own.borrow().len() < self.mesh.capacity,
        }
    }

    fn push(&self, target: usize, value: T) -> Result<(), T> {
        match &self.to[target] {
            Some(producer) => {
                producer.push(value)?;
                self.tell(target);
                Ok(())
            }
            None => {
                if self.own.borrow().len() >= self.mesh.capacity {
                    return Err(value);
                }
                self.own.borrow_mut().push_back(value);
                self.wake_receiver();
                Ok(())
            }
        }
    }

    /// Has the target look into its ring. The fence pairs with the one in the signal that a shard
    /// sends itself when it joins: either we see its seat taken, or it sees what we pushed.
    fn tell(&self, target: usize) {
        let seat = &self.mesh.seats[target];
        let remote = seat.remote.get().or_else(|| {
            fence(Ordering::SeqCst);
            seat.remote.get()
        });
        if let Some(remote) = remote {
            remote.signal();
        }
    }

    fn pop(&self) -> Option<(ShardId, T)> {
        let n = self.from.len();
        for step in 0..n {
            let source = (self.next.get() + step) % n;
            let value = match &self.from[source] {
                Some(consumer) => consumer.pop(),
                None => self.own.borrow_mut().pop_front(),
            };
            let Some(value) = value else { continue };
            self.next.set((source + 1) % n);
            self.credit(source);
            self.pops.set(self.pops.get().wrapping_add(1));
            if self.pops.get().is_multiple_of(POPS_PER_CREDIT_ROUND) {
                self.credit_all();
            }
            return Some((ShardId(source as u16), value));
        }
        None
    }

    /// Before waiting: gives every credit that is owed. The fence pairs with the one in
    /// `announce`: a sender that found the ring full either sees the room, or is seen here.
    fn credit_all(&self) {
        fence(Ordering::SeqCst);
        for source in 0..self.from.len() {
            self.credit(source);
        }
    }

    /// Asks the receiver to tell us of room; looks once more, as it may have come meanwhile.
    fn announce(&self, target: usize) {
        let me = usize::from(self.me.0);
        if target == me {
            return;
        }
        self.mesh.seats[target].wants_room[me].store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.has_room(target) {
            self.wake_sender(target);
        }
    }

    /// Tells a sender that waits that there is room again. This takes its announcement back, and
    /// the room may be an old one: the sender has used it and announced between our pop and this.
    /// So a sender that is told and still finds no room announces again.
    fn credit(&self, source: usize) {
        if source == usize::from(self.me.0) {
            self.wake_sender(source);
            return;
        }
        let seat = &self.mesh.seats[usize::from(self.me.0)];
        let wants = &seat.wants_room[source];
        if wants.load(Ordering::Relaxed) && wants.swap(false, Ordering::AcqRel) {
            self.tell(source);
        }
    }

    fn wake_receiver(&self) {
        let waker = self.receiver.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wake_sender(&self, target: usize) {
        let waker = self.senders[target].borrow_mut().pop();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T: Send> MailHook for Inner<T> {
    fn mail(&self) {
        if self.from.iter().flatten().any(|consumer| !consumer.is_empty()) {
            self.wake_receiver();
        }
        for target in 0..self.senders.len() {
            if self.senders[target].borrow().is_empty() {
                continue;
            }
            if self.has_room(target) {
                self.wake_sender(target);
            } else {
                self.announce(target);
            }
        }
    }
}

/// A shard's seat in a mesh.
pub struct Port<T> {
    inner: Rc<Inner<T>>,
}

impl<T: Send + 'static> Port<T> {
    /// The way to another shard, or to this one.
    ///
    /// # Panics
    /// If the mesh has no such shard.
    pub fn sender(&self, target: ShardId) -> Sender<T> {
        assert!(target.0 < self.inner.mesh.shards, "no shard {target} in this mesh");
        Sender { inner: Rc::clone(&self.inner), target: usize::from(target.0) }
    }

    /// The next message and the shard it came from. One task at a time.
    pub async fn recv(&self) -> (ShardId, T) {
        poll_fn(|context| {
            // Registered before the look, since the hook may run between.
            let before = self.inner.receiver.borrow_mut().replace(context.waker().clone());
            drop(before);
            match self.inner.pop() {
                Some(message) => {
                    let waker = self.inner.receiver.borrow_mut().take();
                    drop(waker);
                    Poll::Ready(message)
                }
                None => {
                    self.inner.credit_all();
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// A message that is there already.
    pub fn try_recv(&self) -> Option<(ShardId, T)> {
        let message = self.inner.pop();
        if message.is_none() {
            self.inner.credit_all();
        }
        message
    }
}

/// The way to one shard; clones share it.
pub struct Sender<T> {
    inner: Rc<Inner<T>>,
    target: usize,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { inner: Rc::clone(&self.inner), target: self.target }
    }
}

impl<T: Send + 'static> Sender<T> {
    pub fn target(&self) -> ShardId {
        ShardId(self.target as u16)
    }

    /// Gives the message back if the ring is full or earlier senders wait.
    pub fn try_send(&self, value: T) -> Result<(), T> {
        if !self.inner.senders[self.target].borrow().is_empty() {
            return Err(value);
        }
        self.inner.push(self.target, value)
    }

    /// Waits for room, in order of arrival. Dropping the future sends nothing.
    pub async fn send(&self, value: T) {
        let value = match self.try_send(value) {
            Ok(()) => return,
            Err(value) => value,
        };
        let mut value = Some(value);
        let mut waiting = Waiting { inner: &self.inner, target: self.target, id: None };
        poll_fn(|context| {
            let waiters = &self.inner.senders[self.target];
            let turn = waiting.id.is_some_and(|id| !waiters.borrow().contains(id));
            if turn || waiters.borrow().is_empty() {
                if let Some(item) = value.take() {
                    match self.inner.push(self.target, item) {
                        Ok(()) => return Poll::Ready(()),
                        Err(item) => value = Some(item),
                    }
                }
            }
            waiters.borrow_mut().register(&mut waiting.id, context.waker());
            self.inner.announce(self.target);
            Poll::Pending
        })
        .await
    }
}

struct Waiting<'a, T: Send> {
    inner: &'a Inner<T>,
    target: usize,
    id: Option<u64>,
}

impl<T: Send> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.inner.senders[self.target].borrow_mut().leave(id);
            // The next in line may have room now.
            if self.inner.has_room(self.target) {
                self.inner.wake_sender(self.target);
            } else if !self.inner.senders[self.target].borrow().is_empty() {
                self.inner.announce(self.target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::AtomicU32;
    use std::task::{Context, Wake};

    use super::*;
    use crate::task::Queue;

    /// Counts how often a task was woken.
    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A shard that runs when the test says so.
    fn seat(mesh: &Mesh<u32>, id: u16) -> (Queue, Rc<Inner<u32>>) {
        let queue = Queue::new(Remote::new(Box::new(|| {})));
        let inner = Rc::new(mesh.take_seat(ShardId(id), queue.remote()));
        queue.add_hook(Rc::clone(&inner) as Rc<dyn MailHook>);
        queue.take_mail();
        (queue, inner)
    }

    /// The receiver has popped, but its credit comes only after the sender has filled that place
    /// and announced that it wants another one.
    #[test]
    fn a_credit_for_room_that_is_used_is_asked_for_again() {
        let mesh = Mesh::new(2, 2);
        let ((queue, from), (_, to)) = (seat(&mesh, 0), seat(&mesh, 1));
        for value in 0..2 {
            from.push(1, value).expect("room");
        }
        let sender = Sender { inner: Rc::clone(&from), target: 1 };
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut third = pin!(sender.send(2));
        assert!(third.as_mut().poll(&mut context).is_pending());
        to.pop().expect("a message");
        queue.take_mail();
        assert!(third.as_mut().poll(&mut context).is_ready());

        let popped = to.from[0].as_ref().expect("a ring").pop();
        assert_eq!(popped, Some(1));
        sender.try_send(3).expect("the place of the second");
        let mut fourth = pin!(sender.send(4));
        assert!(fourth.as_mut().poll(&mut context).is_pending());
        to.credit(0);
        queue.take_mail();

        let before = woken.0.load(Ordering::Relaxed);
        assert_eq!(to.pop(), Some((ShardId(0), 2)));
        queue.take_mail();
        assert_eq!(woken.0.load(Ordering::Relaxed), before + 1, "the sender is told of room");
        assert!(fourth.as_mut().poll(&mut context).is_ready());
    }
}
