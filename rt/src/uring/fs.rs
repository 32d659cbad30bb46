//! Files and directories on io_uring.
//!
//! Reads, writes and syncs of files go through the shard's own ring. glommio opens files, as
//! `DmaFile` or `BufferedFile`; everything else that concerns names goes to a plain thread with the
//! standard library, since glommio would do no better.

use std::any::Any;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use glommio::io::OpenOptions;

use super::ring::FileHold;
use super::Host;
use crate::buf::BLOCK_BYTES;
use crate::local::oneshot::Receiver;
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
        let host = host(&self.shard);
        let in_glommio = host.use_glommio()?;
        let opened = match options.direct {
            true => {
                self.settle_polling(path).await;
                match open_direct(&open, path).await {
                    // The file system knows no direct I/O: the page cache does, and syncs hold.
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                        open_buffered(&open, path).await.map(|fd| (fd, false))
                    }
                    opened => opened.map(|fd| (fd, true)),
                }
            }
            false => open_buffered(&open, path).await.map(|fd| (fd, false)),
        };
        drop(in_glommio);
        let (fd, direct) = opened?;
        Ok(File { shard: self.shard.clone(), fd: Rc::new(fd), direct })
    }

    /// glommio decides once per device and executor whether to busy-poll for direct I/O, by a
    /// read from the first file it opens, and takes a fresh empty file for proof that it can. A
    /// file that is open for writing only makes the read fail, which settles it for interrupts.
    async fn settle_polling(&self, path: &Path) {
        let Ok(device) = fs::metadata(path).map(|metadata| metadata.dev()) else { return };
        if !host(&self.shard).settled.borrow_mut().insert(device) {
            return;
        }
        // Nothing is written through it, and the caller's own opening shows errors.
        let _ = open_direct(OpenOptions::new().write(true), path).await;
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

/// The descriptor outlives glommio's file, whose operations would go through glommio's ring.
/// A descriptor of our own for a file that glommio has opened.
fn copy_of(file: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: `file` keeps the descriptor open during the call.
    unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) }.try_clone_to_owned()
}

async fn open_direct(options: &OpenOptions, path: &Path) -> io::Result<OwnedFd> {
    let file = options.dma_open(path).await.map_err(plain)?;
    let copy = copy_of(&file);
    file.close().await.map_err(plain)?;
    copy
}

async fn open_buffered(options: &OpenOptions, path: &Path) -> io::Result<OwnedFd> {
    let file = options.buffered_open(path).await.map_err(plain)?;
    let copy = copy_of(&file);
    file.close().await.map_err(plain)?;
    copy
}

fn allocate(fd: RawFd, len: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
    loop {
        // SAFETY: no pointers; the caller keeps the descriptor open.
        if unsafe { libc::fallocate(fd, 0, 0, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[derive(Clone)]
pub(crate) struct File {
    shard: Shard,
    fd: Rc<OwnedFd>,
    /// Positions, lengths and memory are multiples of a block.
    direct: bool,
}

impl File {
    fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    fn hold(&self) -> FileHold {
        Rc::clone(&self.fd) as FileHold
    }

    pub(crate) fn write_at(&self, buf: Buf, position: u64) -> Receiver<io::Result<Buf>> {
        host(&self.shard).ring().write(self.hold(), buf, position)
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
        let block = BLOCK_BYTES as u64;
        let skip = if self.direct { (position % block) as usize } else { 0 };
        let target = Buf::allocate(skip + len);
        let read = self.read_more(target, position - skip as u64, usize::MAX).await?;
        let end = read.len().min(skip + len);
        Ok(if end <= skip { Bytes::new() } else { read.freeze().slice(skip..end) })
    }

    /// Reads once, at most `most` bytes, behind what is in `buf`.
    pub(crate) async fn read_more(&self, buf: Buf, position: u64, most: usize) -> io::Result<Buf> {
        match host(&self.shard).ring().read(self.hold(), buf, position, most).await {
            Ok(read) => read,
            // The shard has ended with the read in flight.
            Err(_canceled) => std::future::pending().await,
        }
    }

    pub(crate) async fn sync(&self) -> io::Result<()> {
        match host(&self.shard).ring().sync(self.hold()).await {
            Ok(result) => result,
            // As above: nobody may learn an outcome.
            Err(_canceled) => std::future::pending().await,
        }
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
        let copy = self.fd.as_fd().try_clone_to_owned()?;
        host(&self.shard).io(move || fs::File::from(copy).set_len(len)).await
    }

    pub(crate) async fn allocate(&self, len: u64) -> io::Result<()> {
        let copy = self.fd.as_fd().try_clone_to_owned()?;
        host(&self.shard).io(move || allocate(copy.as_raw_fd(), len)).await
    }
}
