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

/// A growable-in-place buffer of fixed capacity, aligned to 4096 bytes. `!Send`.
///
/// `len <= capacity`, and capacity is a multiple of 4096. Bytes below the capacity are always
/// initialised.
pub struct Buf {
    storage: Storage,
    len: usize,
    home: Arc<Home>,
}

pub(crate) enum Storage {
    /// From the pool of a glommio executor; freed on its thread only.
    Dma(Rc<DmaBuffer>),
    Heap(Aligned),
}

impl Storage {
    fn as_ptr(&self) -> *const u8 {
        match self {
            Storage::Dma(buffer) => buffer.as_ptr(),
            Storage::Heap(memory) => memory.data.as_ptr(),
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Storage::Dma(buffer) => buffer.len(),
            Storage::Heap(memory) => memory.layout.size(),
        }
    }
}

impl Buf {
    pub(crate) fn allocate(shard: &Shard, capacity: usize) -> Buf {
        let capacity = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        let (storage, home) = match &shard.0.backend {
            Backend::Uring(host) => {
                let mut buffer = glommio::allocate_dma_buffer(capacity);
                buffer.as_bytes_mut().fill(0);
                (Storage::Dma(Rc::new(buffer)), host.home())
            }
            Backend::Sim(host) => (Storage::Heap(Aligned::zeroed(capacity)), host.home()),
        };
        Buf { storage, len: 0, home: Arc::clone(home) }
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

    /// Sets the length; bytes that become visible keep whatever was written there before (zero
    /// in a fresh buffer).
    ///
    /// # Panics
    /// Beyond the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "length beyond the capacity");
        self.len = len;
    }

    /// # Panics
    /// Beyond the capacity: a `Buf` never reallocates.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let start = self.len;
        self.set_len(start + bytes.len());
        self[start..].copy_from_slice(bytes);
    }

    /// Sets the length; bytes that become visible are zero.
    ///
    /// # Panics
    /// Beyond the capacity.
    pub fn resize_zeroed(&mut self, len: usize) {
        let start = self.len;
        self.set_len(len);
        if len > start {
            self[start..].fill(0);
        }
    }

    /// The content as `Bytes`, without a copy. They may be dropped on any shard or thread.
    pub fn freeze(self) -> Bytes {
        if self.is_empty() {
            return Bytes::new();
        }
        Bytes::from_owner(Frozen {
            data: self.storage.as_ptr(),
            len: self.len,
            home: self.home,
            storage: ManuallyDrop::new(Held::Buf(self.storage)),
        })
    }

    /// The memory as glommio's type, if it is: for a write that shares it meanwhile.
    pub(crate) fn dma(&self) -> Option<Rc<DmaBuffer>> {
        match &self.storage {
            Storage::Dma(buffer) => Some(Rc::clone(buffer)),
            Storage::Heap(_) => None,
        }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len <= capacity`, all of the capacity is initialised and owned by us.
        unsafe { std::slice::from_raw_parts(self.storage.as_ptr(), self.len) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let data = match &mut self.storage {
            Storage::Dma(buffer) => match Rc::get_mut(buffer) {
                Some(buffer) => buffer.as_mut_ptr(),
                None => unreachable!("a buffer in flight is owned by its write"),
            },
            Storage::Heap(memory) => memory.data.as_ptr(),
        };
        // SAFETY: as in `deref`; the storage is not shared, as checked above.
        unsafe { std::slice::from_raw_parts_mut(data, self.len) }
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
            return drop(held);
        }
        if is_current(&self.remote) {
            return drop(held);
        }
        let mut queue = self.queue();
        match queue.as_mut() {
            Some(list) => {
                list.push(Returned(held));
                let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
                drop(queue);
                if waiting % Home::WAKE_AT == 0 {
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
        drop(list);
    }

    /// Nothing can come home any more. On the owning shard, as its last act.
    pub(crate) fn close(&self) {
        let list = self.queue().take();
        drop(list);
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
