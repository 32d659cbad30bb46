//! Directories, files, mapped files and locks.
//!
//! A [`Dir`] names everything in it by a plain file name (no separators). On both backends an
//! entry that was made, renamed or removed is durable only after `sync` of the directory, and
//! bytes of a file only after `sync` of the file, or at the end of a write where the file was
//! opened with `dsync`. Every error names the operation and the path.

use std::any::Any;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;

use crate::buf::{Buf, BLOCK_BYTES};
use crate::error::located;
use crate::shard::{Backend, Shard};
use crate::{sim, uring};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileOptions {
    pub read: bool,
    pub write: bool,
    /// O_DIRECT: positions, lengths and buffers of writes are multiples of 4096.
    pub direct: bool,
    /// O_DSYNC: a write is durable when it is answered.
    pub dsync: bool,
}

impl FileOptions {
    pub const READ: FileOptions =
        FileOptions { read: true, write: false, direct: false, dsync: false };
    pub const READ_DIRECT: FileOptions =
        FileOptions { read: true, write: false, direct: true, dsync: false };
    pub const READ_WRITE_DIRECT: FileOptions =
        FileOptions { read: true, write: true, direct: true, dsync: false };
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
    /// Size in bytes; 0 for directories.
    pub len: u64,
}

/// Room on the file system of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    /// What this process may still use.
    pub available_bytes: u64,
}

/// An open directory. Cheap to clone.
#[derive(Clone)]
pub struct Dir {
    path: Rc<PathBuf>,
    inner: DirInner,
}

#[derive(Clone)]
enum DirInner {
    Uring(uring::fs::Dir),
    Sim(sim::fs::Dir),
}

/// Runs an operation on whichever backend the directory has, and names it in the error.
macro_rules! on_dir {
    ($dir:expr, $operation:literal, $path:expr, $inner:ident => $call:expr) => {{
        let result = match &$dir.inner {
            DirInner::Uring($inner) => $call.await,
            DirInner::Sim($inner) => $call.await,
        };
        result.map_err(|error| located($operation, $path, error))
    }};
}

impl Dir {
    pub(crate) async fn open(shard: &Shard, path: &Path) -> io::Result<Dir> {
        let opened = match &shard.0.backend {
            Backend::Uring(_) => uring::fs::Dir::open(shard, path).await.map(DirInner::Uring),
            Backend::Sim(host) => sim::fs::Dir::open(host, path).await.map(DirInner::Sim),
        };
        Dir::with(path, opened.map_err(|error| located("open directory", path, error))?)
    }

    pub(crate) async fn create(shard: &Shard, path: &Path) -> io::Result<Dir> {
        let made = match &shard.0.backend {
            Backend::Uring(_) => uring::fs::Dir::create(shard, path).await.map(DirInner::Uring),
            Backend::Sim(host) => sim::fs::Dir::create(host, path).await.map(DirInner::Sim),
        };
        Dir::with(path, made.map_err(|error| located("create directory", path, error))?)
    }

    fn with(path: &Path, inner: DirInner) -> io::Result<Dir> {
        Ok(Dir { path: Rc::new(path.to_owned()), inner })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file; fails with `AlreadyExists` if there is one of that name.
    pub async fn create_file(&self, name: &str, options: FileOptions) -> io::Result<File> {
        self.file(name, options, true, "create").await
    }

    /// Opens a file; fails with `NotFound` if there is none.
    pub async fn open_file(&self, name: &str, options: FileOptions) -> io::Result<File> {
        self.file(name, options, false, "open").await
    }

    async fn file(
        &self,
        name: &str,
        options: FileOptions,
        create: bool,
        operation: &'static str,
    ) -> io::Result<File> {
        let path = self.join(name)?;
        let opened = match &self.inner {
            DirInner::Uring(dir) => dir.file(&path, options, create).await.map(FileInner::Uring),
            DirInner::Sim(dir) => dir.file(name, options, create).await.map(FileInner::Sim),
        };
        let inner = opened.map_err(|error| located(operation, &path, error))?;
        Ok(File { path: Rc::new(path), direct: options.direct, inner })
    }

    pub async fn open_subdir(&self, name: &str) -> io::Result<Dir> {
        let path = self.join(name)?;
        let opened = match &self.inner {
            DirInner::Uring(dir) => dir.open_subdir(&path).await.map(DirInner::Uring),
            DirInner::Sim(dir) => dir.open_subdir(name).await.map(DirInner::Sim),
        };
        Dir::with(&path, opened.map_err(|error| located("open directory", &path, error))?)
    }

    /// Makes a directory; fails with `AlreadyExists` if the name is taken. Durable only after
    /// `sync` of this directory.
    pub async fn create_subdir(&self, name: &str) -> io::Result<Dir> {
        let path = self.join(name)?;
        let made = match &self.inner {
            DirInner::Uring(dir) => dir.create_subdir(&path).await.map(DirInner::Uring),
            DirInner::Sim(dir) => dir.create_subdir(name).await.map(DirInner::Sim),
        };
        Dir::with(&path, made.map_err(|error| located("create directory", &path, error))?)
    }

    /// Renames within the directory; a file of the new name is replaced.
    pub async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_into(from, self, to).await
    }

    /// Renames into another directory of the same file system. Both must be synced after it.
    pub async fn rename_into(&self, from: &str, target: &Dir, to: &str) -> io::Result<()> {
        let old = self.join(from)?;
        let new = target.join(to)?;
        let result = match (&self.inner, &target.inner) {
            (DirInner::Uring(dir), DirInner::Uring(_)) => dir.rename(&old, &new).await,
            (DirInner::Sim(dir), DirInner::Sim(target)) => dir.rename(from, target, to).await,
            _ => unreachable!("both directories belong to one shard"),
        };
        result.map_err(|error| located("rename", &old, error))
    }

    /// Removes a file; one that is open can be used until it is closed.
    pub async fn unlink(&self, name: &str) -> io::Result<()> {
        let path = self.join(name)?;
        let result = match &self.inner {
            DirInner::Uring(dir) => dir.unlink(&path).await,
            DirInner::Sim(dir) => dir.unlink(name).await,
        };
        result.map_err(|error| located("remove", &path, error))
    }

    /// Removes a directory and all that is in it.
    pub async fn remove_subdir_all(&self, name: &str) -> io::Result<()> {
        let path = self.join(name)?;
        let result = match &self.inner {
            DirInner::Uring(dir) => dir.remove_subdir_all(&path).await,
            DirInner::Sim(dir) => dir.remove_subdir_all(name).await,
        };
        result.map_err(|error| located("remove directory", &path, error))
    }

    /// All entries, sorted by name.
    pub async fn list(&self) -> io::Result<Vec<DirEntry>> {
        let mut entries = on_dir!(self, "list", &self.path, dir => dir.list())?;
        entries.sort();
        Ok(entries)
    }

    /// Makes the entries of this directory durable.
    pub async fn sync(&self) -> io::Result<()> {
        on_dir!(self, "sync directory", &self.path, dir => dir.sync())
    }

    /// The whole content of a small file.
    pub async fn read(&self, name: &str) -> io::Result<Bytes> {
        let path = self.join(name)?;
        let result = match &self.inner {
            DirInner::Uring(dir) => dir.read(&path).await,
            DirInner::Sim(dir) => dir.read(name).await,
        };
        result.map_err(|error| located("read", &path, error))
    }

    /// Replaces a small file atomically and durably: temporary file, sync, rename, directory sync.
    pub async fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.join(name)?;
        let temporary = format!("{name}.tmp");
        let result = match &self.inner {
            DirInner::Uring(dir) => dir.replace(&path, &self.join(&temporary)?, content).await,
            DirInner::Sim(dir) => dir.replace(name, &temporary, content).await,
        };
        result.map_err(|error| located("replace", &path, error))
    }

    pub async fn exists(&self, name: &str) -> io::Result<bool> {
        let path = self.join(name)?;
        let result = match &self.inner {
            DirInner::Uring(dir) => dir.exists(&path).await,
            DirInner::Sim(dir) => dir.exists(name).await,
        };
        result.map_err(|error| located("look up", &path, error))
    }

    pub async fn space(&self) -> io::Result<Space> {
        on_dir!(self, "measure", &self.path, dir => dir.space())
    }

    /// Maps a file that will not change any more, its pages read ahead.
    pub async fn map(&self, name: &str) -> io::Result<Mapped> {
        let path = self.join(name)?;
        let result = match &self.inner {
            DirInner::Uring(dir) => dir.map(&path).await.map(MappedInner::Map),
            DirInner::Sim(dir) => dir.read(name).await.map(MappedInner::Heap),
        };
        result.map(|inner| Mapped { inner }).map_err(|error| located("map", &path, error))
    }

    /// Takes the exclusive lock on a file of this directory, made if missing, and writes `owner`
    /// into it. If another process holds it, fails with `WouldBlock` and that owner's text.
    pub async fn lock(&self, name: &str, owner: &str) -> io::Result<LockGuard> {
        let path = self.join(name)?;
        let result = match &self.inner {
            DirInner::Uring(dir) => dir.lock(&path, owner).await,
            DirInner::Sim(dir) => dir.lock(name, owner).await,
        };
        let held = result.map_err(|error| located("lock", &path, error))?;
        Ok(LockGuard { _held: held })
    }

    fn join(&self, name: &str) -> io::Result<PathBuf> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name");
            return Err(located("name", &self.path.join(name), error));
        }
        Ok(self.path.join(name))
    }
}

/// An open file. Cheap to clone.
#[derive(Clone)]
pub struct File {
    path: Rc<PathBuf>,
    direct: bool,
    inner: FileInner,
}

#[derive(Clone)]
enum FileInner {
    Uring(uring::fs::File),
    Sim(sim::fs::File),
}

macro_rules! on_file {
    ($file:expr, $operation:literal, $inner:ident => $call:expr) => {{
        let result = match &$file.inner {
            FileInner::Uring($inner) => $call.await,
            FileInner::Sim($inner) => $call.await,
        };
        result.map_err(|error| located($operation, &$file.path, error))
    }};
}

impl File {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the whole buffer at `position` and gives it back. Submitted at once and owned by
    /// the backend from then on: dropping the future cancels nothing.
    ///
    /// # Panics
    /// If the file is direct and position or length is no multiple of 4096.
    pub fn write_at(&self, buf: Buf, position: u64) -> impl Future<Output = io::Result<Buf>> {
        if self.direct {
            assert_eq!(position % BLOCK_BYTES as u64, 0, "direct write at an odd position");
            assert_eq!(buf.len() % BLOCK_BYTES, 0, "direct write of an odd length");
        }
        let answer = match &self.inner {
            FileInner::Uring(file) => file.write_at(buf, position),
            FileInner::Sim(file) => file.write_at(buf, position),
        };
        let path = Rc::clone(&self.path);
        async move {
            match answer.await {
                Ok(result) => result.map_err(|error| located("write", &path, error)),
                // The shard has ended with the write in flight: nobody may learn an outcome.
                Err(_canceled) => std::future::pending().await,
            }
        }
    }

    /// Reads `len` bytes at `position`, any alignment; fewer only at the end of the file.
    pub async fn read_at(&self, position: u64, len: usize) -> io::Result<Bytes> {
        on_file!(self, "read", file => file.read_at(position, len))
    }

    /// Reads like [`File::read_at`], but in steps: before each, `next` says how many bytes it may
    /// have (whole blocks), and gives what is held until the step is done. So that readers can take
    /// turns, and leave others their share of the disk.
    pub async fn read_in_steps<T>(
        &self,
        position: u64,
        len: usize,
        next: impl AsyncFn() -> (usize, T),
    ) -> io::Result<Bytes> {
        let skip = (position % BLOCK_BYTES as u64) as usize;
        let start = position - skip as u64;
        let mut buf = Buf::allocate(skip + len);
        while buf.len() < skip + len {
            let before = buf.len();
            let (step_bytes, held) = next().await;
            let whole = step_bytes > 0 && step_bytes.is_multiple_of(BLOCK_BYTES);
            assert!(whole, "a step of {step_bytes} bytes is not of whole blocks");
            let at = start + before as u64;
            let read = match &self.inner {
                FileInner::Uring(file) => file.read_more(buf, at, step_bytes).await,
                FileInner::Sim(file) => file.read_more(buf, at, step_bytes).await,
            };
            drop(held);
            buf = read.map_err(|error| located("read", &self.path, error))?;
            // No direct read can begin within a block, and none ends there but at the file's end.
            if buf.len() == before || !buf.len().is_multiple_of(BLOCK_BYTES) {
                break;
            }
        }
        let end = buf.len().min(skip + len);
        Ok(if end <= skip { Bytes::new() } else { buf.freeze().slice(skip..end) })
    }

    /// Makes everything written and answered so far durable (fdatasync).
    ///
    /// A failed sync must never be tried again: the kernel may have dropped the pages.
    pub async fn sync(&self) -> io::Result<()> {
        on_file!(self, "sync", file => file.sync())
    }

    pub async fn size(&self) -> io::Result<u64> {
        on_file!(self, "size", file => file.size())
    }

    /// Cuts or extends (with zeros) the file.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        on_file!(self, "resize", file => file.set_len(len))
    }

    /// Takes room on the disk for the first `len` bytes, so that writing them does not meet a full
    /// disk; a shorter file is extended with zeros. Fails with `Unsupported` on a file system that
    /// cannot do it without writing.
    pub async fn allocate(&self, len: u64) -> io::Result<()> {
        on_file!(self, "allocate", file => file.allocate(len))
    }

    /// Closes this handle. Dropping the last clone closes the file as well.
    pub async fn close(self) -> io::Result<()> {
        drop(self);
        Ok(())
    }
}

/// The bytes of a mapped file.
pub struct Mapped {
    inner: MappedInner,
}

enum MappedInner {
    Map(memmap2::Mmap),
    Heap(Bytes),
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.inner {
            MappedInner::Map(map) => map,
            MappedInner::Heap(bytes) => bytes,
        }
    }
}

/// An exclusive lock, held until it is dropped or the process ends.
pub struct LockGuard {
    /// Its drop releases the lock.
    _held: Box<dyn Any>,
}
