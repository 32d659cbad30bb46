//! Aligned buffers for direct I/O, and their way into `Bytes` without a copy.
//!
//! On io_uring the memory comes from the shard's registered pool (or, when that is used up, from
//! the allocator) and may only be returned on its own shard. A frozen buffer can be dropped
//! anywhere: it goes home through the shard's release queue. Memory whose shard has ended is
//! leaked, which happens only when the process stops.

use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error, Layout};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use glommio::io::DmaBuffer;

use crate::shard::{Backend, Shard};
use crate::task::{is_current, Remote};

/// Alignment of memory, positions and lengths in direct I/O.
pub const BLOCK_BYTES: usize = 4096;

/// A buffer of fixed capacity, aligned to 4096 bytes. `!Send`.
pub struct Buf {
    storage: Storage,
    len: usize,
    /// `len <= initialised <= capacity`; bytes between were written before a `set_len`.
    initialised: usize,
    home: Arc<Home>,
}

enum Storage {
    /// From the pool of a glommio executor; freed on its thread only. `data` and `capacity` are
    /// those of the whole allocation, while glommio's own length shrinks to what was written.
    Dma {
        buffer: Rc<DmaBuffer>,
        data: NonNull<u8>,
        capacity: usize,
    },
    Heap(Aligned),
}

impl Storage {
    fn dma(capacity: usize) -> Storage {
        let mut buffer = glommio::allocate_dma_buffer(capacity);
        let data = match NonNull::new(buffer.as_mut_ptr()) {
            Some(data) if buffer.len() >= capacity => data,
            _ => unreachable!("glommio gives what is asked for or aborts"),
        };
        Storage::Dma { buffer: Rc::new(buffer), data, capacity }
    }

    fn data(&self) -> NonNull<u8> {
        match self {
            Storage::Dma { data, .. } => *data,
            Storage::Heap(memory) => memory.data,
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Storage::Dma { capacity, .. } => *capacity,
            Storage::Heap(memory) => memory.layout.size(),
        }
    }
}

impl Buf {
    pub(crate) fn allocate(shard: &Shard, capacity: usize) -> Buf {
        let capacity = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        let (storage, home) = match &shard.0.backend {
            Backend::Uring(host) => (Storage::dma(capacity), host.home()),
            Backend::Sim(host) => (Storage::Heap(Aligned::zeroed(capacity)), host.home()),
        };
        Buf { storage, len: 0, initialised: 0, home: Arc::clone(home) }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn capacity(&self) -> usize {
        self.storage.capacity()
    }

    /// Sets the length; bytes that become visible keep whatever was written there before, and are
    /// zero if nothing was.
    ///
    /// # Panics
    /// Beyond the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "length beyond the capacity");
        if len > self.initialised {
            let start = self.initialised;
            // SAFETY: start < len <= capacity, within our own allocation.
            unsafe { self.storage.data().as_ptr().add(start).write_bytes(0, len - start) };
            self.initialised = len;
        }
        self.len = len;
    }

    /// # Panics
    /// Beyond the capacity: a `Buf` never reallocates.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        assert!(end <= self.capacity(), "length beyond the capacity");
        // SAFETY: the range lies within our own allocation, which `bytes` cannot overlap since
        // it is borrowed mutably.
        unsafe {
            let target = self.storage.data().as_ptr().add(self.len);
            target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.len = end;
        self.initialised = self.initialised.max(end);
    }

    /// Sets the length; bytes that become visible are zero.
    ///
    /// # Panics
    /// Beyond the capacity.
    pub fn resize_zeroed(&mut self, len: usize) {
        // What lies beyond the length counts as never written.
        self.initialised = self.len;
        self.set_len(len);
    }

    /// The content as `Bytes`, without a copy. They may be dropped on any shard or thread.
    pub fn freeze(self) -> Bytes {
        if self.is_empty() {
            return Bytes::new();
        }
        Bytes::from_owner(Frozen {
            data: self.storage.data().as_ptr(),
            len: self.len,
            home: self.home,
            storage: ManuallyDrop::new(Held::Buf(self.storage)),
        })
    }

    /// The content in glommio's type, for a direct write that holds the buffer meanwhile. The
    /// caller must keep the buffer to itself until the write is answered.
    pub(crate) fn share(&mut self) -> Rc<DmaBuffer> {
        let wanted = self.len;
        let fits = match &mut self.storage {
            Storage::Dma { buffer, .. } if buffer.len() >= wanted => match Rc::get_mut(buffer) {
                Some(buffer) => {
                    buffer.trim_to_size(wanted);
                    true
                }
                None => false,
            },
            _ => false,
        };
        if !fits {
            // glommio's length cannot grow back after a shorter write: move to new memory.
            let moved = Storage::dma(self.capacity());
            // SAFETY: both allocations have at least `len` bytes, and ours are initialised.
            unsafe {
                let source = self.storage.data().as_ptr();
                moved.data().as_ptr().copy_from_nonoverlapping(source, wanted);
            }
            self.initialised = wanted;
            self.storage = moved;
        }
        match &mut self.storage {
            Storage::Dma { buffer, .. } => {
                if let Some(unique) = Rc::get_mut(buffer) {
                    unique.trim_to_size(wanted);
                }
                Rc::clone(buffer)
            }
            Storage::Heap(_) => unreachable!("moved to glommio's memory above"),
        }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len <= initialised`, and the memory is owned by us.
        unsafe { std::slice::from_raw_parts(self.storage.data().as_ptr(), self.len) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; a buffer that a write shares is kept by that write.
        unsafe { std::slice::from_raw_parts_mut(self.storage.data().as_ptr(), self.len) }
    }
}

impl std::fmt::Debug for Buf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buf {{ len: {}, capacity: {} }}", self.len, self.capacity())
    }
}

/// Wraps what glommio's reads return, so that its memory goes home like a buffer's.
pub(crate) fn freeze_read(
    result: glommio::io::ReadResult,
    start: usize,
    end: usize,
    home: &Arc<Home>,
) -> Bytes {
    if start >= end {
        return Bytes::new();
    }
    let part = &result[start..end];
    Bytes::from_owner(Frozen {
        data: part.as_ptr(),
        len: part.len(),
        home: Arc::clone(home),
        storage: ManuallyDrop::new(Held::Read(result)),
    })
}

enum Held {
    Buf(Storage),
    Read(glommio::io::ReadResult),
}

impl Held {
    fn free(self) {
        match self {
            Held::Buf(storage) => drop(storage),
            Held::Read(result) => drop(result),
        }
    }
}

/// Immutable bytes whose memory goes home when they are dropped.
struct Frozen {
    data: *const u8,
    len: usize,
    home: Arc<Home>,
    storage: ManuallyDrop<Held>,
}

// SAFETY: other threads only read the bytes, which nobody writes any more; `storage` is neither
// touched nor dropped except on its own shard (see `Drop`).
unsafe impl Send for Frozen {}
// SAFETY: as above; `as_ref` gives shared access to immutable bytes.
unsafe impl Sync for Frozen {}

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `data` points into `storage`, which lives as long as `self`, and `len` bytes of
        // it are initialised.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // SAFETY: taken once, here; `storage` is not used again.
        let held = unsafe { ManuallyDrop::take(&mut self.storage) };
        self.home.take_back(held);
    }
}

/// Where the memory of a shard goes home to.
pub(crate) struct Home {
    remote: Arc<Remote>,
    returned: Mutex<Option<Vec<Returned>>>,
    waiting: AtomicUsize,
}

struct Returned(Held);

// SAFETY: only moved through the queue; taken out and dropped on the owning shard.
unsafe impl Send for Returned {}

impl Home {
    /// Returned buffers that wait before a sleeping shard is woken for them.
    const WAKE_AT: usize = 64;

    pub(crate) fn new(remote: Arc<Remote>) -> Arc<Home> {
        let returned = Mutex::new(Some(Vec::new()));
        Arc::new(Home { remote, returned, waiting: AtomicUsize::new(0) })
    }

    fn queue(&self) -> MutexGuard<'_, Option<Vec<Returned>>> {
        self.returned.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn take_back(&self, held: Held) {
        if let Held::Buf(Storage::Heap(_)) = &held {
            // Plain memory may be freed anywhere.
            return held.free();
        }
        if is_current(&self.remote) {
            return held.free();
        }
        let mut queue = self.queue();
        match queue.as_mut() {
            Some(list) => {
                list.push(Returned(held));
                let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
                drop(queue);
                if waiting.is_multiple_of(Home::WAKE_AT) {
                    self.remote.signal();
                }
            }
            // The shard and its pool are gone.
            None => std::mem::forget(held),
        }
    }

    /// Frees what came back. On the owning shard.
    pub(crate) fn drain(&self) {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let list = match self.queue().as_mut() {
            Some(list) => {
                self.waiting.store(0, Ordering::Relaxed);
                std::mem::take(list)
            }
            None => return,
        };
        free(list);
    }

    /// Nothing can come home any more. On the owning shard, as its last act.
    pub(crate) fn close(&self) {
        let list = self.queue().take();
        free(list.unwrap_or_default());
    }
}

fn free(list: Vec<Returned>) {
    for Returned(held) in list {
        held.free();
    }
}

/// Heap memory aligned to 4096 bytes.
pub(crate) struct Aligned {
    data: NonNull<u8>,
    layout: Layout,
}

impl Aligned {
    fn zeroed(size: usize) -> Aligned {
        let layout = match Layout::from_size_align(size, BLOCK_BYTES) {
            Ok(layout) if size > 0 => layout,
            _ => unreachable!("a buffer has a sane, non-zero size"),
        };
        // SAFETY: the layout has a non-zero size.
        let data = unsafe { alloc_zeroed(layout) };
        match NonNull::new(data) {
            Some(data) => Aligned { data, layout },
            None => handle_alloc_error(layout),
        }
    }
}

// SAFETY: uniquely owned plain memory.
unsafe impl Send for Aligned {}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.data.as_ptr(), self.layout) }
    }
}
