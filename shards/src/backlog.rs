//! Appends that wait: the log, or their partition's group, can take no more for a moment.
//!
//! One per shard, in order of arrival. While the log is full nobody overtakes; while a group is,
//! only the appends of its partition wait. What waits is bounded in bytes, and each place in time
//! by whoever holds it: giving a place up before its turn means that nothing was appended.
//! As long as nothing waits, an append costs one look at an empty queue, and nothing is allocated.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use net::batch::Batch;
use raft::Groups;
use rt::local::oneshot;
use rt::Notify;
use wal::{GroupId, Wal};

use crate::partition::{AppendError, Appended, Full, PartitionRef};

/// What a waiting append costs beside the bytes of its batch.
const WAITING_OVERHEAD_BYTES: u64 = 256;

/// How an append was begun.
pub enum Begun {
    /// It has its place in the log.
    Appended(Appended),
    /// It has its place in the queue.
    Waits(Place),
}

/// The queue of one shard. Cheap to clone.
#[derive(Clone)]
pub struct Backlog {
    shared: Rc<Shared>,
}

struct Shared {
    queue: RefCell<Queue>,
    /// Something waits that has not been looked at, or was given up.
    bell: Notify,
}

#[derive(Default)]
struct Queue {
    /// In order of arrival.
    waiting: VecDeque<Waiting>,
    /// Their groups.
    groups: BTreeSet<GroupId>,
    /// The sum of their costs: at most `max_bytes`.
    bytes: u64,
    max_bytes: u64,
    /// The log itself was full when it was last asked.
    log_is_full: bool,
    /// Some group was.
    group_is_full: bool,
}

struct Waiting {
    group: GroupId,
    partition: PartitionRef,
    batch: Batch,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
}

impl Waiting {
    fn cost_bytes(&self) -> u64 {
        self.batch.bytes.len() as u64 + WAITING_OVERHEAD_BYTES
    }
}

impl Backlog {
    pub fn new(max_bytes: u64) -> Backlog {
        let queue = RefCell::new(Queue { max_bytes, ..Queue::default() });
        Backlog { shared: Rc::new(Shared { queue, bell: Notify::new() }) }
    }

    /// Appends a batch, or queues it behind all that must come before it.
    pub fn append(&self, partition: &PartitionRef, batch: &Batch) -> Result<Begun, AppendError> {
        let group = partition.borrow().identity().owner.group;
        // Whoever only joins the queue changes nothing for those in it.
        let joins = self.shared.queue.borrow().must_wait(group);
        if !joins {
            match partition.borrow_mut().append(batch) {
                Ok(appended) => return Ok(Begun::Appended(appended)),
                Err(AppendError::Full(full)) => self.shared.queue.borrow_mut().note(full),
                Err(error) => return Err(error),
            }
        }
        let (answer, receiver) = rt::oneshot();
        let partition = partition.clone();
        let waiting = Waiting { group, partition, batch: batch.clone(), answer };
        if !self.shared.queue.borrow_mut().push(waiting) {
            return Err(AppendError::Full(Full::Backlog));
        }
        if !joins {
            self.shared.bell.notify_one();
        }
        Ok(Begun::Waits(Place { receiver, backlog: Some(self.clone()) }))
    }

    /// How many appends wait.
    pub fn waiting(&self) -> usize {
        self.shared.queue.borrow().waiting.len()
    }

    /// A partition was deleted, or leads no more: what waits for it is answered.
    pub fn look_again(&self) {
        if self.waiting() > 0 {
            self.shared.bell.notify_one();
        }
    }

    /// Gives everybody their turn when there may be room. Ends with the shard.
    pub async fn run(self, wal: Wal, groups: Groups) {
        loop {
            let bell = self.shared.bell.notified();
            let room = wal.gains_room();
            let committed = groups.commits();
            self.take_turns();
            let (waits, group_is_full) = {
                let queue = self.shared.queue.borrow();
                (!queue.waiting.is_empty(), queue.group_is_full)
            };
            match (waits, group_is_full) {
                (false, _) => bell.await,
                (true, false) => drop(rt::either(bell, room).await),
                (true, true) => drop(rt::either(bell, rt::either(room, committed)).await),
            }
        }
    }

    /// One pass over the queue.
    fn take_turns(&self) {
        let waiting = {
            let mut queue = self.shared.queue.borrow_mut();
            let rest = Queue { max_bytes: queue.max_bytes, ..Queue::default() };
            std::mem::replace(&mut *queue, rest).waiting
        };
        // Nothing below waits, so nobody can come between.
        for waiting in waiting.into_iter().filter(|waiting| !waiting.answer.is_closed()) {
            let outcome = match self.shared.queue.borrow().must_wait(waiting.group) {
                true => waiting.partition.borrow().check_open().map(|_| None),
                false => waiting.partition.borrow_mut().append(&waiting.batch).map(Some),
            };
            match outcome {
                Ok(Some(appended)) => drop(waiting.answer.send(Ok(appended))),
                Ok(None) => self.shared.queue.borrow_mut().keep(waiting),
                Err(AppendError::Full(full)) => {
                    let mut queue = self.shared.queue.borrow_mut();
                    queue.note(full);
                    queue.keep(waiting);
                }
                Err(error) => drop(waiting.answer.send(Err(error))),
            }
        }
    }
}

impl Queue {
    /// Whether an append of this group would overtake another.
    fn must_wait(&self, group: GroupId) -> bool {
        !self.waiting.is_empty() && (self.log_is_full || self.groups.contains(&group))
    }

    /// False if there is no room for it.
    fn push(&mut self, waiting: Waiting) -> bool {
        let fits = self.bytes + waiting.cost_bytes() <= self.max_bytes;
        if fits {
            self.keep(waiting);
        }
        fits
    }

    fn note(&mut self, full: Full) {
        self.log_is_full |= full == Full::Log;
        self.group_is_full |= full == Full::Group;
    }

    fn keep(&mut self, waiting: Waiting) {
        self.bytes += waiting.cost_bytes();
        self.groups.insert(waiting.group);
        self.waiting.push_back(waiting);
    }
}

/// A place in the queue; resolves at its turn. Dropped before, it is given up.
pub struct Place {
    receiver: oneshot::Receiver<Result<Appended, AppendError>>,
    /// None once it was told.
    backlog: Option<Backlog>,
}

impl Future for Place {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let told = Pin::new(&mut self.receiver).poll(context);
        told.map(|told| {
            self.backlog = None;
            // The queue answers whatever it lets go of.
            told.unwrap_or(Err(AppendError::Full(Full::Backlog)))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Its bytes are to be freed. The receiver closes after this, before any task runs.
        if let Some(backlog) = self.backlog.take() {
            backlog.look_again();
        }
    }
}
