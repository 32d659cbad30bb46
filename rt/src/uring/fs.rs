//! Files and directories on io_uring.
//!
//! Reads, writes and syncs of files go through the ring; everything that concerns names goes to a
//! plain thread with the standard library, since glommio would do no better. Direct files are
//! glommio's `DmaFile`, the others its `BufferedFile`.

use std::any::Any;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use glommio::io::{BufferedFile, DmaFile, OpenOptions};

use super::Host;
use crate::buf::{freeze_read, BLOCK_BYTES};
use crate::local::oneshot::{oneshot, Receiver};
use crate::shard::Backend;
use crate::{Buf, DirEntry, FileOptions, Shard, Space};

fn plain(error: glommio::GlommioError<()>) -> io::Error {
    match error {
        // Its text repeats operation and path, and its conversion loses the code.
        glommio::GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}

fn host(shard: &Shard) -> &Host {
    match &shard.0.backend {
        Backend::Uring(host) => host,
        Backend::Sim(_) => unreachable!("this leaf belongs to io_uring"),
    }
}

#[derive(Clone)]
pub(crate) struct Dir {
    shard: Shard,
    path: Rc<PathBuf>,
}

impl Dir {
    fn new(shard: &Shard, path: &Path) -> Dir {
        Dir { shard: shard.clone(), path: Rc::new(path.to_owned()) }
    }

    async fn io<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let path = path.to_owned();
        host(&self.shard).io(move || work(&path)).await
    }

    pub(crate) async fn open(shard: &Shard, path: &Path) -> io::Result<Dir> {
        let dir = Dir::new(shard, path);
        dir.io(path, |path| fs::read_dir(path).map(drop)).await?;
        Ok(dir)
    }

    pub(crate) async fn create(shard: &Shard, path: &Path) -> io::Result<Dir> {
        let dir = Dir::new(shard, path);
        dir.io(path, create_durably).await?;
        Ok(dir)
    }

    pub(crate) async fn file(
        &self,
        path: &Path,
        options: FileOptions,
        create: bool,
    ) -> io::Result<File> {
        if create {
            // Made here so that glommio opens what exists: see `settle_polling`.
            let make = |path: &Path| {
                fs::OpenOptions::new().write(true).create_new(true).open(path).map(drop)
            };
            self.io(path, make).await?;
        }
        let mut open = OpenOptions::new();
        open.read(options.read || !options.write).write(options.write);
        if options.dsync {
            open.custom_flags(libc::O_DSYNC);
        }
        let inner = if options.direct {
            self.settle_polling(path).await;
            match open.dma_open(path).await.map_err(plain) {
                Ok(file) => Inner::Direct(file),
                // The file system knows no direct I/O: the page cache does, and syncs hold.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    Inner::Buffered(open.buffered_open(path).await.map_err(plain)?)
                }
                Err(error) => return Err(error),
            }
        } else {
            Inner::Buffered(open.buffered_open(path).await.map_err(plain)?)
        };
        Ok(File { shard: self.shard.clone(), inner: Rc::new(inner) })
    }

    /// glommio decides once per device and executor whether to busy-poll for direct I/O, by a
    /// read from the first file it opens, and takes a fresh empty file for proof that it can. A
    /// file that is open for writing only makes the read fail, which settles it for interrupts.
    async fn settle_polling(&self, path: &Path) {
        let Ok(device) = fs::metadata(path).map(|metadata| metadata.dev()) else { return };
        if !host(&self.shard).settled.borrow_mut().insert(device) {
            return;
        }
        let opened = OpenOptions::new().write(true).dma_open(path).await;
        if let Ok(file) = opened {
            // Nothing was written through it.
            let _ = file.close().await;
        }
    }

    pub(crate) async fn open_subdir(&self, path: &Path) -> io::Result<Dir> {
        Dir::open(&self.shard, path).await
    }

    pub(crate) async fn create_subdir(&self, path: &Path) -> io::Result<Dir> {
        self.io(path, |path| fs::create_dir(path)).await?;
        Ok(Dir::new(&self.shard, path))
    }

    pub(crate) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = to.to_owned();
        self.io(from, move |from| fs::rename(from, to)).await
    }

    pub(crate) async fn unlink(&self, path: &Path) -> io::Result<()> {
        self.io(path, |path| fs::remove_file(path)).await
    }

    pub(crate) async fn remove_subdir_all(&self, path: &Path) -> io::Result<()> {
        self.io(path, |path| fs::remove_dir_all(path)).await
    }

    pub(crate) async fn list(&self) -> io::Result<Vec<DirEntry>> {
        self.io(&self.path, list).await
    }

    pub(crate) async fn sync(&self) -> io::Result<()> {
        self.io(&self.path, |path| fs::File::open(path)?.sync_all()).await
    }

    pub(crate) async fn read(&self, path: &Path) -> io::Result<Bytes> {
        self.io(path, |path| fs::read(path).map(Bytes::from)).await
    }

    /// A new file of that content, synced; one of the same name is overwritten.
    pub(crate) async fn write_new(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let content = content.to_vec();
        let write = move |path: &Path| {
            let mut file = fs::File::create(path)?;
            file.write_all(&content)?;
            file.sync_all()
        };
        self.io(path, write).await
    }

    pub(crate) async fn exists(&self, path: &Path) -> io::Result<bool> {
        self.io(path, |path| path.try_exists()).await
    }

    pub(crate) async fn space(&self) -> io::Result<Space> {
        self.io(&self.path, space).await
    }

    pub(crate) async fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Any>> {
        let owner = owner.to_owned();
        let file = self.io(path, move |path| lock(path, &owner)).await?;
        Ok(Box::new(file))
    }

    pub(crate) async fn map(&self, path: &Path) -> io::Result<memmap2::Mmap> {
        let map = |path: &Path| {
            let file = fs::File::open(path)?;
            // SAFETY: callers map only files that nobody changes any more, in a folder that is
            // locked for this process.
            unsafe { memmap2::MmapOptions::new().populate().map(&file) }
        };
        self.io(path, map).await
    }
}

fn create_durably(path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && !at.exists() {
        missing.push(at);
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    for dir in missing.into_iter().rev() {
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    fs::read_dir(path).map(drop)
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed between the two calls.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let is_dir = metadata.is_dir();
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push(DirEntry { name, is_dir, len: if is_dir { 0 } else { metadata.len() } });
    }
    Ok(entries)
}

fn space(path: &Path) -> io::Result<Space> {
    let dir = fs::File::open(path)?;
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `stat` is valid for writes.
    if unsafe { libc::fstatvfs(dir.as_raw_fd(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let block = stat.f_frsize;
    Ok(Space { total_bytes: stat.f_blocks * block, available_bytes: stat.f_bavail * block })
}

fn lock(path: &Path, owner: &str) -> io::Result<fs::File> {
    let mut file =
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    // SAFETY: the descriptor is open; the call does not block.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
        let mut holder = String::new();
        // Only for the message; the holder may be writing it just now.
        let _ = file.read_to_string(&mut holder);
        let text = format!("held by {}", holder.trim());
        return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
    }
    file.set_len(0)?;
    file.write_all(owner.as_bytes())?;
    Ok(file)
}

#[derive(Clone)]
pub(crate) struct File {
    shard: Shard,
    inner: Rc<Inner>,
}

enum Inner {
    Direct(DmaFile),
    Buffered(BufferedFile),
}

/// Counts a write in flight until it is dropped.
struct InFlight(Shard);

impl InFlight {
    fn new(shard: &Shard) -> InFlight {
        let count = &host(shard).inflight;
        count.set(count.get() + 1);
        InFlight(shard.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let count = &host(&self.0).inflight;
        count.set(count.get() - 1);
    }
}

impl File {
    fn fd(&self) -> RawFd {
        match &*self.inner {
            Inner::Direct(file) => file.as_raw_fd(),
            Inner::Buffered(file) => file.as_raw_fd(),
        }
    }

    pub(crate) fn write_at(&self, buf: Buf, position: u64) -> Receiver<io::Result<Buf>> {
        let (sender, receiver) = oneshot();
        let file = self.clone();
        let in_flight = InFlight::new(&self.shard);
        let write = async move {
            let result = file.write(buf, position).await;
            drop(in_flight);
            // Nobody waits any more: it is written all the same.
            let _ = sender.send(result);
        };
        self.shard.spawn(write).detach();
        receiver
    }

    async fn write(&self, mut buf: Buf, position: u64) -> io::Result<Buf> {
        let mut done = 0;
        while done < buf.len() {
            let at = position + done as u64;
            let written = match &*self.inner {
                Inner::Direct(file) if done == 0 => {
                    file.write_rc_at(buf.share(), at).await.map_err(plain)?
                }
                Inner::Direct(file) => {
                    // A short write, as a nearly full disk gives: the rest, from a copy.
                    let mut rest = glommio::allocate_dma_buffer(buf.len() - done);
                    rest.as_bytes_mut().copy_from_slice(&buf[done..]);
                    file.write_at(rest, at).await.map_err(plain)?
                }
                Inner::Buffered(file) => {
                    file.write_at(buf[done..].to_vec(), at).await.map_err(plain)?
                }
            };
            if written == 0 {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            done += written;
            if let Inner::Direct(_) = &*self.inner {
                // Go on from a whole block; what was written of it is written again.
                done = if done < buf.len() { done / BLOCK_BYTES * BLOCK_BYTES } else { done };
            }
        }
        Ok(buf)
    }

    pub(crate) async fn read_at(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let first = self.read_once(position, len).await?;
        if first.len() == len || first.is_empty() {
            return Ok(first);
        }
        // The end of the file, or a short read in its middle: the next one tells.
        let mut whole = first.to_vec();
        while whole.len() < len {
            let at = position + whole.len() as u64;
            let next = self.read_once(at, len - whole.len()).await?;
            if next.is_empty() {
                break;
            }
            whole.extend_from_slice(&next);
        }
        if whole.len() == first.len() {
            return Ok(first);
        }
        Ok(Bytes::from(whole))
    }

    async fn read_once(&self, position: u64, len: usize) -> io::Result<Bytes> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        let home = host(&self.shard).home();
        match &*self.inner {
            Inner::Direct(file) => {
                let block = BLOCK_BYTES as u64;
                let start = position / block * block;
                let skip = (position - start) as usize;
                let size = (skip + len).next_multiple_of(BLOCK_BYTES);
                let result = file.read_at_aligned(start, size).await.map_err(plain)?;
                let end = result.len().min(skip + len);
                Ok(freeze_read(result, skip, end, home))
            }
            Inner::Buffered(file) => {
                let result = file.read_at(position, len).await.map_err(plain)?;
                let end = result.len();
                Ok(freeze_read(result, 0, end, home))
            }
        }
    }

    pub(crate) async fn sync(&self) -> io::Result<()> {
        match &*self.inner {
            Inner::Direct(file) => file.fdatasync().await,
            Inner::Buffered(file) => file.fdatasync().await,
        }
        .map_err(plain)
    }

    pub(crate) async fn size(&self) -> io::Result<u64> {
        // SAFETY: all-zero is a valid value of this plain structure.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open and `stat` is valid for writes. The inode is in memory
        // while the file is open, so this does not block.
        if unsafe { libc::fstat(self.fd(), &mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stat.st_size as u64)
    }

    pub(crate) async fn set_len(&self, len: u64) -> io::Result<()> {
        // SAFETY: `self` keeps the descriptor open during the call.
        let copy = unsafe { BorrowedFd::borrow_raw(self.fd()) }.try_clone_to_owned()?;
        host(&self.shard).io(move || fs::File::from(copy).set_len(len)).await
    }
}
