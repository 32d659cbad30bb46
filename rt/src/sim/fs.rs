//! Files and directories of a simulated shard: latency, errors and crash points around the disk.

use std::any::Any;
use std::future::Future;
use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;

use super::disk::{Code, Disk, Open, Outcome, WriteFailure};
use super::host::{Cost, Host};
use super::world::State;
use crate::local::oneshot::{oneshot, Receiver};
use crate::{Buf, DirEntry, FileOptions, Space};

fn error(code: Code) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[derive(Clone)]
pub(crate) struct Dir {
    host: Host,
    inode: u64,
}

impl Dir {
    pub(crate) async fn open(host: &Host, path: &Path) -> io::Result<Dir> {
        let path = path.to_owned();
        let inode = disk(host, move |disk| disk.find(&path).and_then(|i| disk.list(i).map(|_| i)));
        Ok(Dir { host: host.clone(), inode: inode.await? })
    }

    pub(crate) async fn create(host: &Host, path: &Path) -> io::Result<Dir> {
        let path = path.to_owned();
        let inode = change(host, move |disk| disk.create_dir_all(&path)).await?;
        Ok(Dir { host: host.clone(), inode })
    }

    pub(crate) async fn file(
        &self,
        name: &str,
        options: FileOptions,
        create: bool,
    ) -> io::Result<File> {
        let (dir, name) = (self.inode, name.to_owned());
        let open = if create {
            change(&self.host, move |disk| disk.create_file(dir, &name)).await?
        } else {
            disk(&self.host, move |disk| disk.open_file(dir, &name)).await?
        };
        Ok(File { host: self.host.clone(), open, options })
    }

    pub(crate) async fn open_subdir(&self, name: &str) -> io::Result<Dir> {
        let (dir, name) = (self.inode, name.to_owned());
        let inode = disk(&self.host, move |disk| disk.open_dir(dir, &name)).await?;
        Ok(Dir { host: self.host.clone(), inode })
    }

    pub(crate) async fn create_subdir(&self, name: &str) -> io::Result<Dir> {
        let (dir, name) = (self.inode, name.to_owned());
        let inode = change(&self.host, move |disk| disk.create_dir(dir, &name)).await?;
        Ok(Dir { host: self.host.clone(), inode })
    }

    pub(crate) async fn rename(&self, from: &str, target: &Dir, to: &str) -> io::Result<()> {
        let (dir, target) = (self.inode, target.inode);
        let (from, to) = (from.to_owned(), to.to_owned());
        change(&self.host, move |disk| disk.rename(dir, &from, target, &to)).await
    }

    pub(crate) async fn unlink(&self, name: &str) -> io::Result<()> {
        let (dir, name) = (self.inode, name.to_owned());
        change(&self.host, move |disk| disk.unlink(dir, &name)).await
    }

    pub(crate) async fn remove_subdir_all(&self, name: &str) -> io::Result<()> {
        let (dir, name) = (self.inode, name.to_owned());
        change(&self.host, move |disk| disk.remove_dir_all(dir, &name)).await
    }

    pub(crate) async fn list(&self) -> io::Result<Vec<DirEntry>> {
        let dir = self.inode;
        disk(&self.host, move |disk| disk.list(dir)).await
    }

    pub(crate) async fn sync(&self) -> io::Result<()> {
        let dir = self.inode;
        begin(&self.host);
        let done = self.host.submit(Cost::Sync, move |state, node| {
            state.nodes[node].disk_step();
            match sync_error(state, node) {
                Some(code) => Err(code),
                None => state.nodes[node].disk.sync_dir(dir),
            }
        });
        done.await.map_err(error)
    }

    pub(crate) async fn read(&self, name: &str) -> io::Result<Bytes> {
        let file = self.file(name, FileOptions::READ, false).await?;
        let len = file.size().await?;
        file.read_at(0, len as usize).await
    }

    /// A temporary file that is left over goes first.
    pub(crate) async fn replace(
        &self,
        name: &str,
        temporary: &str,
        content: &[u8],
    ) -> io::Result<()> {
        let (dir, new, content) = (self.inode, temporary.to_owned(), content.to_vec());
        let open = change(&self.host, move |disk| {
            if disk.lookup(dir, &new).is_ok() {
                disk.unlink(dir, &new)?;
            }
            let open = disk.create_file(dir, &new)?;
            disk.write_now(open.inode, 0, &content)?;
            Ok(open)
        });
        let open = open.await?;
        File { host: self.host.clone(), open, options: FileOptions::READ }.sync().await?;
        self.rename(temporary, self, name).await?;
        self.sync().await
    }

    pub(crate) async fn exists(&self, name: &str) -> io::Result<bool> {
        let (dir, name) = (self.inode, name.to_owned());
        disk(&self.host, move |disk| Ok(disk.lookup(dir, &name).is_ok())).await
    }

    pub(crate) async fn space(&self) -> io::Result<Space> {
        disk(&self.host, |disk| Ok(disk.space())).await
    }

    pub(crate) async fn lock(&self, name: &str, owner: &str) -> io::Result<Box<dyn Any>> {
        let (dir, name, owner) = (self.inode, name.to_owned(), owner.to_owned());
        let locked = change(&self.host, move |disk| {
            let open = match disk.open_file(dir, &name) {
                Ok(open) => open,
                Err(_) => disk.create_file(dir, &name)?,
            };
            if !disk.lock(open.inode) {
                let holder = disk.read(open.inode, 0, 4096)?;
                return Ok(Err(String::from_utf8_lossy(&holder).into_owned()));
            }
            disk.set_len(open.inode, 0)?;
            disk.write_now(open.inode, 0, owner.as_bytes())?;
            Ok(Ok(open))
        });
        match locked.await? {
            Ok(open) => Ok(Box::new(Lock { host: self.host.clone(), open })),
            Err(holder) => {
                Err(io::Error::new(io::ErrorKind::WouldBlock, format!("held by {}", holder.trim())))
            }
        }
    }
}

/// Releases the lock when dropped.
struct Lock {
    host: Host,
    open: Rc<Open>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.host.is_alive() {
            let mut state = self.host.world().state.borrow_mut();
            state.nodes[self.host.node()].disk.unlock(self.open.inode);
        }
    }
}

#[derive(Clone)]
pub(crate) struct File {
    host: Host,
    open: Rc<Open>,
    options: FileOptions,
}

impl File {
    pub(crate) fn write_at(&self, buf: Buf, position: u64) -> Receiver<io::Result<Buf>> {
        let (sender, receiver) = oneshot();
        if !self.host.is_alive() {
            return receiver;
        }
        if !self.options.write {
            // The receiver is ours, so it is there.
            let _ = sender.send(Err(error(libc::EBADF)));
            return receiver;
        }
        let (node, dsync, inode) = (self.host.node(), self.options.dsync, self.open.inode);
        let mut state = self.host.world().state.borrow_mut();
        let state = &mut *state;
        state.trace.add(&[5, node as u64, inode, position]);
        state.trace.add_bytes(&buf);
        let transfer = buf.len() as u64 / 2;
        let mut at = state.finish_time(node, Cost::Write, self.host.world().now.get()) + transfer;
        if dsync {
            let sync = state.nodes[node].faults.sync_ns.0;
            at += sync;
        }
        let id = state.nodes[node].disk.start_write(inode, position, buf, dsync);
        state.nodes[node].disk_step();
        state.at(at, self.host.owner(), move |state, now| {
            state.trace.add(&[6, node as u64, id, now]);
            let failure = write_error(state, node).map(WriteFailure::Write);
            let sync_fails = |state: &mut State| sync_error(state, node).map(WriteFailure::Sync);
            let failure = failure.or_else(|| dsync.then(|| sync_fails(state)).flatten());
            let result = state.nodes[node].disk.finish_write(id, failure, &mut state.rng);
            state.nodes[node].disk_step();
            // Nobody waits any more: it is written all the same.
            let _ = sender.send(result.map_err(error));
        });
        receiver
    }

    pub(crate) async fn read_at(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let open = Rc::clone(&self.open);
        let done = self.host.submit(Cost::Read, move |state, node| {
            let faults = &mut state.nodes[node].faults;
            let chance = faults.read_error_per_million;
            if let Some(code) = faults.fail_next_read.take() {
                return Err(code);
            }
            if chance > 0 && state.rng.u32(..1_000_000) < chance {
                return Err(libc::EIO);
            }
            state.nodes[node].disk.read(open.inode, position, len)
        });
        done.await.map(Bytes::from).map_err(error)
    }

    /// Reads once, at most `most` bytes, behind what is in `buf`.
    pub(crate) async fn read_more(
        &self,
        mut buf: Buf,
        position: u64,
        most: usize,
    ) -> io::Result<Buf> {
        let room = buf.capacity() - buf.len();
        buf.extend_from_slice(&self.read_at(position, most.min(room)).await?);
        Ok(buf)
    }

    pub(crate) async fn sync(&self) -> io::Result<()> {
        let open = Rc::clone(&self.open);
        begin(&self.host);
        let mark = {
            let state = self.host.world().state.borrow();
            state.nodes[self.host.node()].disk.sync_mark(open.inode)
        };
        let done = self.host.submit(Cost::Sync, move |state, node| {
            let failure = sync_error(state, node);
            let disk = &mut state.nodes[node].disk;
            let result = disk.finish_sync(open.inode, mark, failure, &mut state.rng);
            state.nodes[node].disk_step();
            result
        });
        done.await.map_err(error)
    }

    pub(crate) async fn size(&self) -> io::Result<u64> {
        let open = Rc::clone(&self.open);
        disk(&self.host, move |disk| disk.size(open.inode)).await
    }

    pub(crate) async fn set_len(&self, len: u64) -> io::Result<()> {
        let open = Rc::clone(&self.open);
        change(&self.host, move |disk| disk.set_len(open.inode, len)).await
    }

    pub(crate) async fn allocate(&self, len: u64) -> io::Result<()> {
        let open = Rc::clone(&self.open);
        change(&self.host, move |disk| disk.allocate(open.inode, len)).await
    }
}

/// Something that only looks.
fn disk<T: 'static>(
    host: &Host,
    act: impl FnOnce(&mut Disk) -> Outcome<T> + 'static,
) -> impl Future<Output = io::Result<T>> {
    let done = host.submit(Cost::Metadata, |state, node| act(&mut state.nodes[node].disk));
    async move { done.await.map_err(error) }
}

/// Something that changes a directory or a length.
fn change<T: 'static>(
    host: &Host,
    act: impl FnOnce(&mut Disk) -> Outcome<T> + 'static,
) -> impl Future<Output = io::Result<T>> {
    begin(host);
    let done = host.submit(Cost::Metadata, |state, node| {
        let result = match write_error(state, node) {
            Some(code) => Err(code),
            None => act(&mut state.nodes[node].disk),
        };
        state.nodes[node].disk_step();
        result
    });
    async move { done.await.map_err(error) }
}

/// Counts the beginning of an operation, where a crash may be planned.
fn begin(host: &Host) {
    if host.is_alive() {
        host.world().state.borrow_mut().nodes[host.node()].disk_step();
    }
}

fn write_error(state: &mut State, node: usize) -> Option<Code> {
    let faults = &mut state.nodes[node].faults;
    let chance = faults.write_error_per_million;
    let once = faults.fail_next_write.take();
    once.or_else(|| (chance > 0 && state.rng.u32(..1_000_000) < chance).then_some(libc::EIO))
}

fn sync_error(state: &mut State, node: usize) -> Option<Code> {
    let faults = &mut state.nodes[node].faults;
    let chance = faults.sync_error_per_million;
    let once = faults.fail_next_sync.take();
    once.or_else(|| (chance > 0 && state.rng.u32(..1_000_000) < chance).then_some(libc::EIO))
}
