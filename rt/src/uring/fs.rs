//! Files and directories on io_uring.
//!
//! Files are opened, read, written and synced through the shard's own ring. Everything else that
//! concerns names goes to a plain thread with the standard library.

use std::any::Any;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;

use super::ring::FileHold;
use super::Host;
use crate::buf::BLOCK_BYTES;
use crate::local::oneshot::Receiver;
use crate::shard::Backend;
use crate::{Buf, DirEntry, FileOptions, Shard, Space};

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
        let mut flags = match (options.read || !options.write, options.write) {
            (true, true) => libc::O_RDWR,
            (false, _) => libc::O_WRONLY,
            (true, false) => libc::O_RDONLY,
        };
        if options.dsync {
            flags |= libc::O_DSYNC;
        }
        let exclusive = if create { libc::O_CREAT | libc::O_EXCL } else { 0 };
        let direct = if options.direct { libc::O_DIRECT } else { 0 };
        let opened = match self.open_fd(path, flags | exclusive | direct).await {
            // The file system knows no direct I/O: the page cache does, and syncs hold. A kernel
            // may have made the file before it found out.
            Err(error) if options.direct && error.raw_os_error() == Some(libc::EINVAL) => {
                let create = if create { libc::O_CREAT } else { 0 };
                self.open_fd(path, flags | create).await.map(|fd| (fd, false))
            }
            opened => opened.map(|fd| (fd, options.direct)),
        };
        let (fd, direct) = opened?;
        Ok(File { shard: self.shard.clone(), fd: Rc::new(fd), direct })
    }

    async fn open_fd(&self, path: &Path, flags: i32) -> io::Result<OwnedFd> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
        match host(&self.shard).ring().open(path, flags).await {
            Ok(opened) => opened,
            // The shard has ended with the operation in flight: nobody may learn an outcome.
            Err(_canceled) => std::future::pending().await,
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

    /// All steps in one piece of work: each way to another thread and back costs as much as a step.
    pub(crate) async fn replace(
        &self,
        path: &Path,
        temporary: &Path,
        content: &[u8],
    ) -> io::Result<()> {
        let (dir, temporary) = (self.path.to_path_buf(), temporary.to_owned());
        let content = content.to_vec();
        let replace = move |path: &Path| {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&content)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            fs::File::open(dir)?.sync_all()
        };
        self.io(path, replace).await
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
