//! The shard's own io_uring: what every produce and fetch goes through.
//!
//! Owns one ring per shard and all operations that are in it: opening files, their reads, writes and
//! syncs, and the readiness of sockets. glommio's loop makes about five system calls and a memory
//! barrier across all cores each time that its thread sleeps and wakes (a third of the broker's time
//! at 16 KiB batches, perf/runs/2026-11-21-profile.md); here one call submits what is new, sleeps
//! until the next timer at most, and wakes with what is done.
//!
//! An operation owns its buffer and its file from submission to completion, whoever has lost
//! interest meanwhile. Sockets are polled once, edge-triggered: a socket that said "not now" is
//! asked again only after the kernel has said that something changed.
//!
//! Used on its shard's thread only. Completions are looked for by the executor, never by a task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::{cqueue, opcode, squeue, types, IoUring};

use super::executor::EventFd;
use crate::buf::BLOCK_BYTES;
use crate::local::oneshot::{oneshot, Receiver, Sender};
use crate::Buf;

/// Entries that can be submitted with one call; more wait their turn.
const ENTRIES: u32 = 256;
/// Completions that the kernel keeps without taking further memory.
const COMPLETIONS: u32 = 4096;
/// `IORING_ENTER_GETEVENTS`, which the crate does not export.
const ENTER_GETEVENTS: u32 = 1;
/// The answer to an operation that nobody waits for.
const NOBODY: u64 = u64::MAX;
/// Who may use a new file, before the process's umask.
const FILE_MODE: libc::mode_t = 0o666;
/// The most bytes of one read or write system call.
const TRANSFER_MAX_BYTES: usize = 1 << 30;

/// What keeps a file open while an operation uses it.
pub(super) type FileHold = Rc<dyn AsRawFd>;

enum Op {
    Open { path: CString, flags: i32, sender: Sender<io::Result<OwnedFd>> },
    Write { file: FileHold, buf: Buf, position: u64, done: usize, sender: WriteSender },
    Read { file: FileHold, buf: Buf, position: u64, most: usize, sender: ReadSender },
    Sync { file: FileHold, sender: Sender<io::Result<()>> },
    Poll(Rc<Interest>),
}

type WriteSender = Sender<io::Result<Buf>>;
type ReadSender = Sender<io::Result<Buf>>;

/// Operations by number; numbers are used again.
#[derive(Default)]
struct Ops {
    slots: Vec<Option<Op>>,
    free: Vec<usize>,
}

impl Ops {
    fn insert(&mut self, op: Op) -> u64 {
        let key = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[key] = Some(op);
        key as u64
    }

    fn get(&self, key: u64) -> Option<&Op> {
        self.slots.get(key as usize)?.as_ref()
    }

    fn take(&mut self, key: u64) -> Option<Op> {
        let op = self.slots.get_mut(key as usize)?.take();
        if op.is_some() {
            self.free.push(key as usize);
        }
        op
    }
}

pub(crate) struct Ring {
    uring: RefCell<Option<IoUring>>,
    ops: RefCell<Ops>,
    /// Entries that found no room.
    backlog: RefCell<VecDeque<squeue::Entry>>,
    /// Operations on files that are not answered.
    busy: Cell<u64>,
    /// Kept for its memory.
    completions: RefCell<Vec<Completion>>,
}

/// The number of an operation, its result and its flags.
type Completion = (u64, i32, u32);

impl Ring {
    /// A ring for this thread. Ringing `wake` from any thread ends its sleep.
    pub(super) fn new(wake: Arc<EventFd>) -> io::Result<Rc<Ring>> {
        let ring = Rc::new(Ring {
            uring: RefCell::new(Some(build()?)),
            ops: RefCell::default(),
            backlog: RefCell::default(),
            busy: Cell::new(0),
            completions: RefCell::default(),
        });
        // Never read: each ring of it is a change, which is all that a poll reports.
        let interest = Interest::bare(&ring, Rc::new(Shared(wake)), libc::POLLIN);
        ring.arm(&Rc::new(interest));
        Ok(ring)
    }

    /// Whether operations on files are in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.get() > 0
    }

    // Operations.

    /// Opens a file; `flags` are those of `open(2)`.
    pub(super) fn open(&self, path: CString, flags: i32) -> Receiver<io::Result<OwnedFd>> {
        let (sender, receiver) = oneshot();
        self.begin(Op::Open { path, flags: flags | libc::O_CLOEXEC, sender });
        receiver
    }

    /// Writes the whole buffer and gives it back.
    pub(super) fn write(
        &self,
        file: FileHold,
        buf: Buf,
        position: u64,
    ) -> Receiver<io::Result<Buf>> {
        let (sender, receiver) = oneshot();
        if buf.is_empty() {
            let _ = sender.send(Ok(buf));
            return receiver;
        }
        self.begin(Op::Write { file, buf, position, done: 0, sender });
        receiver
    }

    /// Reads once, up to `most` bytes, behind what is in the buffer and within its capacity; its
    /// length says how much there was.
    pub(super) fn read(
        &self,
        file: FileHold,
        buf: Buf,
        position: u64,
        most: usize,
    ) -> Receiver<io::Result<Buf>> {
        let (sender, receiver) = oneshot();
        let most = most.min(buf.capacity() - buf.len());
        self.begin(Op::Read { file, buf, position, most, sender });
        receiver
    }

    pub(super) fn sync(&self, file: FileHold) -> Receiver<io::Result<()>> {
        let (sender, receiver) = oneshot();
        self.begin(Op::Sync { file, sender });
        receiver
    }

    fn begin(&self, op: Op) {
        self.busy.set(self.busy.get() + 1);
        self.submit(op);
    }

    fn submit(&self, mut op: Op) {
        // What the entry points to does not move with the operation: paths and buffers live on the heap.
        let entry = entry_of(&mut op);
        let key = self.ops.borrow_mut().insert(op);
        self.push(entry.user_data(key));
    }

    fn push(&self, entry: squeue::Entry) {
        let mut backlog = self.backlog.borrow_mut();
        let mut uring = self.uring.borrow_mut();
        let Some(uring) = uring.as_mut() else { return };
        // SAFETY: paths, buffers and descriptors of an entry are kept by `ops` until its completion.
        if !backlog.is_empty() || unsafe { uring.submission().push(&entry) }.is_err() {
            backlog.push_back(entry);
        }
    }

    // The executor's side.

    /// Submits what is new and takes what is done, without waiting.
    pub(super) fn turn(&self) {
        loop {
            if let Err(error) = self.enter(Wait::No) {
                fail(&error);
            }
            self.process();
            if self.backlog.borrow().is_empty() {
                return;
            }
        }
    }

    /// Whether completions can be had without waiting.
    pub(super) fn has_completions(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        let Some(uring) = uring.as_mut() else { return false };
        !uring.completion().is_empty() || uring.submission().taskrun()
    }

    /// Submits what is new and sleeps until something is done, but no longer than `wait`.
    pub(super) fn sleep(&self, wait: Duration) {
        if !self.backlog.borrow().is_empty() {
            return self.turn();
        }
        if let Err(error) = self.enter(Wait::Until(wait)) {
            fail(&error);
        }
        self.process();
    }

    /// Ends everything; nothing may be busy. Sockets that were kept for their polls close.
    pub(super) fn close(&self) {
        drop(self.uring.borrow_mut().take());
        let ops = std::mem::take(&mut *self.ops.borrow_mut());
        drop(ops);
    }

    fn enter(&self, wait: Wait) -> io::Result<()> {
        let mut uring = self.uring.borrow_mut();
        let Some(uring) = uring.as_mut() else { return Ok(()) };
        let mut backlog = self.backlog.borrow_mut();
        let fresh = {
            let mut queue = uring.submission();
            while let Some(entry) = backlog.pop_front() {
                // SAFETY: as in `push`.
                if unsafe { queue.push(&entry) }.is_err() {
                    backlog.push_front(entry);
                    break;
                }
            }
            queue.len()
        };
        drop(backlog);
        let entered = match wait {
            // SAFETY: no argument is passed; the ring's memory is mapped.
            Wait::No => unsafe {
                uring.submitter().enter::<libc::sigset_t>(fresh as u32, 0, ENTER_GETEVENTS, None)
            },
            Wait::Until(wait) => {
                let timeout = types::Timespec::from(wait);
                let arguments = types::SubmitArgs::new().timespec(&timeout);
                uring.submitter().submit_with_args(1, &arguments)
            }
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is over, a signal came, or completions have to be taken first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes completions off the ring; they are acted on when it is not borrowed.
    fn collect(&self) -> Vec<Completion> {
        let mut taken = std::mem::take(&mut *self.completions.borrow_mut());
        taken.clear();
        if let Some(uring) = self.uring.borrow_mut().as_mut() {
            let queue = uring.completion();
            taken.extend(queue.map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        }
        taken
    }

    fn process(&self) {
        let taken = self.collect();
        for &(key, result, flags) in &taken {
            if key != NOBODY {
                self.complete(key, result, cqueue::more(flags));
            }
        }
        *self.completions.borrow_mut() = taken;
    }

    fn complete(&self, key: u64, result: i32, more: bool) {
        let polled = match self.ops.borrow().get(key) {
            Some(Op::Poll(interest)) => Some(Rc::clone(interest)),
            Some(_) => None,
            None => return,
        };
        if let Some(interest) = polled {
            return self.reported(key, &interest, result, more);
        }
        let op = self.ops.borrow_mut().take(key);
        match op.and_then(|op| finish(op, result)) {
            Some(unfinished) => self.submit(unfinished),
            None => self.busy.set(self.busy.get() - 1),
        }
    }

    /// The kernel may end a poll at any time, for want of memory say: it is begun again.
    fn reported(&self, key: u64, interest: &Rc<Interest>, result: i32, more: bool) {
        if !more {
            let ended = self.ops.borrow_mut().take(key);
            drop(ended);
            interest.armed.set(None);
        }
        if interest.dropped.get() {
            return;
        }
        interest.changed(result);
        if !more && result >= 0 {
            self.arm(interest);
        }
    }

    // Readiness.

    fn arm(&self, interest: &Rc<Interest>) {
        let key = self.ops.borrow_mut().insert(Op::Poll(Rc::clone(interest)));
        interest.armed.set(Some(key));
        self.push(poll_entry(interest).user_data(key));
    }

    fn disarm(&self, key: u64) {
        self.push(opcode::PollRemove::new(key).build().user_data(NOBODY));
    }
}

enum Wait {
    No,
    Until(Duration),
}

/// The newest flags that this kernel takes: one thread submits, and completions are worked off
/// when it asks for them instead of interrupting it.
fn build() -> io::Result<IoUring> {
    let mut newest = IoUring::builder();
    newest.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    let mut newer = IoUring::builder();
    newer.setup_coop_taskrun().setup_taskrun_flag();
    let mut last = Err(io::Error::from(io::ErrorKind::Unsupported));
    for mut builder in [newest, newer, IoUring::builder()] {
        builder.setup_clamp().setup_cqsize(COMPLETIONS);
        last = builder.build(ENTRIES);
        if !last.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
            break;
        }
    }
    last
}

/// Without its ring a shard cannot tell what is durable: fail-stop.
fn fail(error: &io::Error) -> ! {
    panic!("io_uring_enter: {error}");
}

fn entry_of(op: &mut Op) -> squeue::Entry {
    match op {
        Op::Open { path, flags, .. } => {
            opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
                .flags(*flags)
                .mode(FILE_MODE)
                .build()
        }
        Op::Write { file, buf, position, done, .. } => {
            let rest = &buf[*done..];
            let length = rest.len().min(TRANSFER_MAX_BYTES) as u32;
            opcode::Write::new(types::Fd(file.as_raw_fd()), rest.as_ptr(), length)
                .offset(*position + *done as u64)
                .build()
        }
        Op::Read { file, buf, position, most, .. } => {
            let length = (*most).min(TRANSFER_MAX_BYTES) as u32;
            opcode::Read::new(types::Fd(file.as_raw_fd()), buf.end(), length)
                .offset(*position)
                .build()
        }
        Op::Sync { file, .. } => opcode::Fsync::new(types::Fd(file.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        Op::Poll(interest) => poll_entry(interest),
    }
}

/// Reports every change until it is removed (Linux 5.13).
fn poll_entry(interest: &Interest) -> squeue::Entry {
    let fd = types::Fd(interest.fd.as_raw_fd());
    opcode::PollAdd::new(fd, interest.mask).multi(true).build()
}

/// Answers whoever waits, or gives back what has to go on.
fn finish(op: Op, result: i32) -> Option<Op> {
    if matches!(-result, libc::EINTR | libc::EAGAIN) {
        return Some(op);
    }
    let outcome = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
    // Where nobody waits any more, it was done all the same.
    match (op, outcome) {
        (Op::Open { sender, .. }, outcome) => {
            // SAFETY: a descriptor that was made for this operation; nobody else knows it.
            let open = |_| unsafe { OwnedFd::from_raw_fd(result) };
            drop(sender.send(outcome.map(open)));
        }
        (Op::Write { sender, .. } | Op::Read { sender, .. }, Err(error)) => {
            drop(sender.send(Err(error)));
        }
        (Op::Write { file, buf, position, done, sender }, Ok(written)) => {
            let reached = done + written;
            // Short, as a nearly full disk gives: the rest, from a whole block on.
            let next =
                if reached < buf.len() { reached / BLOCK_BYTES * BLOCK_BYTES } else { reached };
            if next == buf.len() {
                drop(sender.send(Ok(buf)));
            } else if next == done {
                drop(sender.send(Err(io::Error::from_raw_os_error(libc::ENOSPC))));
            } else {
                return Some(Op::Write { file, buf, position, done: next, sender });
            }
        }
        (Op::Read { mut buf, sender, .. }, Ok(read)) => {
            // SAFETY: the kernel has written so many bytes behind the buffer's length.
            unsafe { buf.assume_appended(read) };
            drop(sender.send(Ok(buf)));
        }
        (Op::Sync { sender, .. }, outcome) => drop(sender.send(outcome.map(drop))),
        (Op::Poll(_), _) => {}
    }
    None
}

/// An eventfd that others hold too.
struct Shared(Arc<EventFd>);

impl AsRawFd for Shared {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// One direction of a socket: whether it is worth a system call.
pub(super) struct Interest {
    ring: std::rc::Weak<Ring>,
    fd: FileHold,
    mask: u32,
    armed: Cell<Option<u64>>,
    ready: Cell<bool>,
    hung_up: Cell<bool>,
    /// The kernel refused to watch; a code of errno.
    failed: Cell<Option<i32>>,
    /// The stream is gone.
    dropped: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

const HUNG_UP: i32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as i32;

impl Interest {
    fn bare(ring: &Rc<Ring>, fd: FileHold, mask: i16) -> Interest {
        Interest {
            ring: Rc::downgrade(ring),
            fd,
            mask: mask as u16 as u32,
            armed: Cell::new(None),
            ready: Cell::new(true),
            hung_up: Cell::new(false),
            failed: Cell::new(None),
            dropped: Cell::new(false),
            waiting: RefCell::default(),
        }
    }

    /// Bytes to read, or a connection to accept. A socket is taken to be ready until it has said
    /// otherwise.
    pub(super) fn readable(ring: &Rc<Ring>, fd: &Rc<OwnedFd>) -> Rc<Interest> {
        let mask = libc::POLLIN | libc::POLLRDHUP;
        Rc::new(Interest::bare(ring, Rc::clone(fd) as FileHold, mask))
    }

    pub(super) fn writable(ring: &Rc<Ring>, fd: &Rc<OwnedFd>) -> Rc<Interest> {
        Rc::new(Interest::bare(ring, Rc::clone(fd) as FileHold, libc::POLLOUT))
    }

    /// The socket has nothing now: wait for a change. What the kernel reports from here on is
    /// seen after this call, since reports are only looked at between tasks.
    pub(super) fn exhausted(&self) {
        self.ready.set(self.hung_up.get());
    }

    /// Ready when a system call is worth while.
    pub(super) fn poll_ready(self: &Rc<Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(code) = self.failed.get() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(code)));
        }
        if self.ready.get() {
            return Poll::Ready(Ok(()));
        }
        self.wait(context);
        Poll::Pending
    }

    /// Ready when the peer has hung up, even with bytes unread.
    pub(super) fn poll_hung_up(self: &Rc<Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.hung_up.get() || self.failed.get().is_some() {
            return Poll::Ready(());
        }
        self.wait(context);
        Poll::Pending
    }

    fn wait(self: &Rc<Self>, context: &mut Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        drop(waiting);
        if self.armed.get().is_none() {
            if let Some(ring) = self.ring.upgrade() {
                ring.arm(self);
            }
        }
    }

    /// The kernel's word: a mask of events, or an error of the poll itself.
    fn changed(&self, result: i32) {
        if result < 0 {
            self.failed.set(Some(-result));
        } else if result & HUNG_UP != 0 {
            self.hung_up.set(true);
        }
        self.ready.set(true);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// The owner is gone: the kernel lets go of the descriptor.
    pub(super) fn discard(&self) {
        self.dropped.set(true);
        self.waiting.borrow_mut().clear();
        if let (Some(key), Some(ring)) = (self.armed.get(), self.ring.upgrade()) {
            ring.disarm(key);
        }
    }
}
