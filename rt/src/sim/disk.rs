//! The simulated disk of one node, which outlives its processes.
//!
//! Fault model. Every file has two states: what a process reads, and what survives a power cut.
//! A write reaches the first when it is answered, the second when it was opened with `dsync` or
//! after a sync that began later. At a power cut every write that is not durable, answered or
//! still in flight, survives whole, in part by sectors of 512 bytes, or not at all, each on its
//! own; a file's length may survive without its bytes (zeros). Directory changes are durable after
//! a sync of the directory; at a power cut none, all, a prefix or any subset of the others
//! survives, a rename always as a whole. A killed process loses nothing it was answered for;
//! writes in flight are done, done in part, or not done, and what it had open is closed. A failed
//! sync, or the one in a write with `dsync`, forgets which bytes were dirty: they are still read
//! until power is lost, and no later sync makes them durable, only writing them again does. Pure:
//! time and randomness are arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::rc::{Rc, Weak};

use super::pages::{Pages, PAGE_BYTES};
use super::CrashKind;
use crate::{Buf, DirEntry, Space};

const SECTOR_BYTES: usize = 512;
pub(super) const ROOT: u64 = 1;

/// An error of the simulated operating system, as its code.
pub(super) type Code = i32;
pub(super) type Outcome<T> = Result<T, Code>;

/// Keeps an unlinked file alive while it is open.
pub(super) struct Open {
    pub(super) inode: u64,
}

pub(super) struct Disk {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Directory changes that are not durable, oldest first.
    journal: Vec<Change>,
    inflight: BTreeMap<u64, Inflight>,
    next_write: u64,
    pub(super) capacity_bytes: u64,
    /// Locked files; released when the process ends.
    locks: BTreeSet<u64>,
    allocated_pages: u64,
}

enum Inode {
    File(FileData),
    Dir(DirData),
}

struct FileData {
    /// What processes read.
    cache: Pages,
    /// What survives a power cut for certain.
    durable: Pages,
    /// How `cache` differs from `durable`, oldest first.
    pending: Vec<Pending>,
    open: Weak<Open>,
}

#[derive(Clone)]
enum Pending {
    Write {
        position: u64,
        bytes: Vec<u8>,
    },
    SetLen(u64),
    /// Room for so many bytes from the start.
    Allocate(u64),
}

#[derive(Clone, Default)]
struct DirData {
    cache: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
}

/// Entries that change together.
#[derive(Clone)]
struct Change {
    entries: Vec<(u64, String, Option<u64>)>,
}

/// What fails of a write, and its code.
pub(super) enum WriteFailure {
    /// The write: some of its sectors are in the file.
    Write(Code),
    /// The sync in a write with `dsync`: all of it is in the file, and forgotten.
    Sync(Code),
}

struct Inflight {
    inode: u64,
    position: u64,
    buf: Buf,
    dsync: bool,
}

impl Disk {
    pub(super) fn new(capacity_bytes: u64) -> Disk {
        let root = Inode::Dir(DirData::default());
        Disk {
            inodes: BTreeMap::from([(ROOT, root)]),
            next_inode: ROOT + 1,
            journal: Vec::new(),
            inflight: BTreeMap::new(),
            next_write: 0,
            capacity_bytes,
            locks: BTreeSet::new(),
            allocated_pages: 0,
        }
    }

    fn dir(&self, inode: u64) -> Outcome<&DirData> {
        match self.inodes.get(&inode) {
            Some(Inode::Dir(dir)) => Ok(dir),
            Some(Inode::File(_)) => Err(libc::ENOTDIR),
            None => Err(libc::ENOENT),
        }
    }

    fn dir_mut(&mut self, inode: u64) -> Option<&mut DirData> {
        match self.inodes.get_mut(&inode) {
            Some(Inode::Dir(dir)) => Some(dir),
            _ => None,
        }
    }

    fn file(&self, inode: u64) -> Outcome<&FileData> {
        match self.inodes.get(&inode) {
            Some(Inode::File(file)) => Ok(file),
            Some(Inode::Dir(_)) => Err(libc::EISDIR),
            None => Err(libc::ENOENT),
        }
    }

    fn file_mut(&mut self, inode: u64) -> Outcome<&mut FileData> {
        match self.inodes.get_mut(&inode) {
            Some(Inode::File(file)) => Ok(file),
            Some(Inode::Dir(_)) => Err(libc::EISDIR),
            None => Err(libc::ENOENT),
        }
    }

    pub(super) fn lookup(&self, dir: u64, name: &str) -> Outcome<u64> {
        self.dir(dir)?.cache.get(name).copied().ok_or(libc::ENOENT)
    }

    /// The inode of an absolute or relative path, from the root.
    pub(super) fn find(&self, path: &Path) -> Outcome<u64> {
        names(path).try_fold(ROOT, |dir, name| self.lookup(dir, &name))
    }

    fn change(&mut self, entries: Vec<(u64, String, Option<u64>)>) {
        for (dir, name, inode) in &entries {
            if let Some(dir) = self.dir_mut(*dir) {
                apply(&mut dir.cache, name, *inode);
            }
        }
        self.journal.push(Change { entries });
    }

    fn add(&mut self, dir: u64, name: &str, node: Inode) -> Outcome<u64> {
        if self.dir(dir)?.cache.contains_key(name) {
            return Err(libc::EEXIST);
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, node);
        self.change(vec![(dir, name.to_owned(), Some(inode))]);
        Ok(inode)
    }

    pub(super) fn create_dir(&mut self, dir: u64, name: &str) -> Outcome<u64> {
        self.add(dir, name, Inode::Dir(DirData::default()))
    }

    /// Makes a directory and its parents, durably, as `rt::Shard::create_dir` promises.
    pub(super) fn create_dir_all(&mut self, path: &Path) -> Outcome<u64> {
        let mut dir = ROOT;
        for name in names(path) {
            let next = match self.lookup(dir, &name) {
                Ok(inode) => inode,
                Err(_) => self.create_dir(dir, &name)?,
            };
            self.dir(next)?;
            self.sync_dir(dir)?;
            dir = next;
        }
        Ok(dir)
    }

    pub(super) fn open_dir(&self, dir: u64, name: &str) -> Outcome<u64> {
        let inode = self.lookup(dir, name)?;
        self.dir(inode).map(|_| inode)
    }

    pub(super) fn create_file(&mut self, dir: u64, name: &str) -> Outcome<Rc<Open>> {
        let file = FileData {
            cache: Pages::new(),
            durable: Pages::new(),
            pending: Vec::new(),
            open: Weak::new(),
        };
        let inode = self.add(dir, name, Inode::File(file))?;
        self.open(inode)
    }

    pub(super) fn open_file(&mut self, dir: u64, name: &str) -> Outcome<Rc<Open>> {
        let inode = self.lookup(dir, name)?;
        self.open(inode)
    }

    fn open(&mut self, inode: u64) -> Outcome<Rc<Open>> {
        let file = self.file_mut(inode)?;
        Ok(file.open.upgrade().unwrap_or_else(|| {
            let open = Rc::new(Open { inode });
            file.open = Rc::downgrade(&open);
            open
        }))
    }

    pub(super) fn rename(&mut self, dir: u64, from: &str, target: u64, to: &str) -> Outcome<()> {
        let inode = self.lookup(dir, from)?;
        self.dir(target)?;
        if (dir, from) == (target, to) {
            return Ok(());
        }
        if let Ok(replaced) = self.lookup(target, to) {
            let moves_dir = self.dir(inode).is_ok();
            match self.dir(replaced) {
                Ok(_) if !moves_dir => return Err(libc::EISDIR),
                Ok(old) if !old.cache.is_empty() => return Err(libc::ENOTEMPTY),
                Err(_) if moves_dir => return Err(libc::ENOTDIR),
                _ => {}
            }
        }
        let entries = vec![(dir, from.to_owned(), None), (target, to.to_owned(), Some(inode))];
        self.change(entries);
        self.collect();
        Ok(())
    }

    pub(super) fn unlink(&mut self, dir: u64, name: &str) -> Outcome<()> {
        let inode = self.lookup(dir, name)?;
        self.file(inode)?;
        self.change(vec![(dir, name.to_owned(), None)]);
        self.collect();
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, dir: u64, name: &str) -> Outcome<()> {
        let inode = self.lookup(dir, name)?;
        let children: Vec<String> = self.dir(inode)?.cache.keys().cloned().collect();
        for child in children {
            let child_inode = self.lookup(inode, &child)?;
            match self.inodes.get(&child_inode) {
                Some(Inode::Dir(_)) => self.remove_dir_all(inode, &child)?,
                _ => self.unlink(inode, &child)?,
            }
        }
        self.change(vec![(dir, name.to_owned(), None)]);
        Ok(())
    }

    pub(super) fn list(&self, dir: u64) -> Outcome<Vec<DirEntry>> {
        let entries = self.dir(dir)?.cache.iter();
        let entry = |(name, inode): (&String, &u64)| {
            let (is_dir, len) = match self.inodes.get(inode) {
                Some(Inode::File(file)) => (false, file.cache.len()),
                _ => (true, 0),
            };
            DirEntry { name: name.clone(), is_dir, len }
        };
        Ok(entries.map(entry).collect())
    }

    /// Makes the changes of a directory durable, and with them what they build on.
    pub(super) fn sync_dir(&mut self, dir: u64) -> Outcome<()> {
        self.dir(dir)?;
        let mut related = BTreeSet::from([dir]);
        let mut keep = vec![true; self.journal.len()];
        for (place, change) in self.journal.iter().enumerate().rev() {
            if change.entries.iter().any(|(dir, _, _)| related.contains(dir)) {
                related.extend(change.entries.iter().map(|(dir, _, _)| *dir));
                keep[place] = false;
            }
        }
        let journal = std::mem::take(&mut self.journal);
        for (change, keep) in journal.into_iter().zip(keep) {
            if keep {
                self.journal.push(change);
            } else {
                self.commit(&change);
            }
        }
        self.collect();
        Ok(())
    }

    fn commit(&mut self, change: &Change) {
        for (dir, name, inode) in &change.entries {
            if let Some(dir) = self.dir_mut(*dir) {
                apply(&mut dir.durable, name, *inode);
            }
        }
    }

    /// Takes a write into flight; it reaches the file with `finish_write`.
    pub(super) fn start_write(&mut self, inode: u64, position: u64, buf: Buf, dsync: bool) -> u64 {
        let id = self.next_write;
        self.next_write += 1;
        self.inflight.insert(id, Inflight { inode, position, buf, dsync });
        id
    }

    /// Completes a write, or fails it.
    pub(super) fn finish_write(
        &mut self,
        id: u64,
        failure: Option<WriteFailure>,
        rng: &mut fastrand::Rng,
    ) -> Outcome<Buf> {
        let Some(write) = self.inflight.remove(&id) else { return Err(libc::EIO) };
        let (inode, position, len) = (write.inode, write.position, write.buf.len());
        if let Some(WriteFailure::Write(code)) = failure {
            let part = (rng.usize(..=len) / SECTOR_BYTES) * SECTOR_BYTES;
            self.apply_write(inode, position, &write.buf[..part], false)?;
            return Err(code);
        }
        let missing = self.file(inode)?.cache.missing(position, len as u64);
        self.find_room(missing)?;
        if let Some(WriteFailure::Sync(code)) = failure {
            self.apply_write(inode, position, &write.buf, false)?;
            let mark = self.sync_mark(inode);
            return self.finish_sync(inode, mark, Some(code), rng).map(|()| write.buf);
        }
        self.apply_write(inode, position, &write.buf, write.dsync)?;
        Ok(write.buf)
    }

    /// Blocks that are there are written also when the disk is more than full: a power cut may
    /// bring back files that were removed.
    fn find_room(&self, missing_pages: u64) -> Outcome<()> {
        let pages = self.allocated_pages + missing_pages;
        match missing_pages > 0 && pages * PAGE_BYTES > self.capacity_bytes {
            true => Err(libc::ENOSPC),
            false => Ok(()),
        }
    }

    fn apply_write(
        &mut self,
        inode: u64,
        position: u64,
        bytes: &[u8],
        durable: bool,
    ) -> Outcome<()> {
        let file = self.file_mut(inode)?;
        let before = file.cache.allocated();
        file.cache.write(position, bytes);
        let grown = file.cache.allocated() - before;
        if durable {
            // What the blocks and the length build on becomes durable with them, or a power cut
            // would bring older bytes back over these.
            let end = position + bytes.len() as u64;
            let under = |change: &Pending| change.touches(position, end);
            let before = file.pending.iter().rposition(under).map_or(0, |place| place + 1);
            for change in file.pending.drain(..before) {
                change.apply(&mut file.durable);
            }
            file.durable.write(position, bytes);
        } else if !bytes.is_empty() {
            file.pending.push(Pending::Write { position, bytes: bytes.to_vec() });
        }
        self.allocated_pages += grown;
        Ok(())
    }

    pub(super) fn write_now(&mut self, inode: u64, position: u64, bytes: &[u8]) -> Outcome<()> {
        let missing = self.file(inode)?.cache.missing(position, bytes.len() as u64);
        self.find_room(missing)?;
        self.apply_write(inode, position, bytes, false)
    }

    pub(super) fn read(&self, inode: u64, position: u64, len: usize) -> Outcome<Vec<u8>> {
        Ok(self.file(inode)?.cache.read(position, len))
    }

    pub(super) fn size(&self, inode: u64) -> Outcome<u64> {
        Ok(self.file(inode)?.cache.len())
    }

    pub(super) fn set_len(&mut self, inode: u64, len: u64) -> Outcome<()> {
        let file = self.file_mut(inode)?;
        let before = file.cache.allocated();
        file.cache.set_len(len);
        file.pending.push(Pending::SetLen(len));
        let freed = before - file.cache.allocated();
        self.allocated_pages -= freed;
        Ok(())
    }

    pub(super) fn allocate(&mut self, inode: u64, len: u64) -> Outcome<()> {
        let missing = self.file(inode)?.cache.missing(0, len);
        self.find_room(missing)?;
        let file = self.file_mut(inode)?;
        file.cache.allocate(len);
        file.pending.push(Pending::Allocate(len));
        self.allocated_pages += missing;
        Ok(())
    }

    /// How many changes of the file a sync that begins now covers.
    pub(super) fn sync_mark(&self, inode: u64) -> usize {
        self.file(inode).map_or(0, |file| file.pending.len())
    }

    /// Completes a sync that covers the oldest `mark` changes.
    pub(super) fn finish_sync(
        &mut self,
        inode: u64,
        mark: usize,
        error: Option<Code>,
        rng: &mut fastrand::Rng,
    ) -> Outcome<()> {
        let file = self.file_mut(inode)?;
        let covered: Vec<Pending> = file.pending.drain(..mark.min(file.pending.len())).collect();
        for change in covered {
            match (&change, error) {
                (_, None) => change.apply(&mut file.durable),
                // Forgotten: some bytes made it, the others never will.
                (_, Some(_)) => change.apply_torn(&mut file.durable, rng),
            }
        }
        error.map_or(Ok(()), Err)
    }

    pub(super) fn space(&self) -> Space {
        let used = self.allocated_pages * PAGE_BYTES;
        let available_bytes = self.capacity_bytes.saturating_sub(used);
        Space { total_bytes: self.capacity_bytes, available_bytes }
    }

    /// Locks a file; false if it is locked already.
    pub(super) fn lock(&mut self, inode: u64) -> bool {
        self.locks.insert(inode)
    }

    pub(super) fn unlock(&mut self, inode: u64) {
        self.locks.remove(&inode);
    }

    /// The process is dead, whatever its memory still holds.
    fn close_all(&mut self) {
        self.locks.clear();
        for inode in self.inodes.values_mut() {
            if let Inode::File(file) = inode {
                file.open = Weak::new();
            }
        }
    }

    /// The process dies: writes in flight are done, in part, or not.
    pub(super) fn kill(&mut self, rng: &mut fastrand::Rng) {
        let writes = std::mem::take(&mut self.inflight).into_values();
        let writes = writes.map(|write| (write.inode, write.position, write.buf.to_vec()));
        self.kill_during(writes.collect(), rng);
    }

    fn kill_during(&mut self, mut writes: Vec<(u64, u64, Vec<u8>)>, rng: &mut fastrand::Rng) {
        self.close_all();
        rng.shuffle(&mut writes);
        for (inode, position, bytes) in writes {
            let len = match rng.u8(..4) {
                0 => 0,
                1 => (rng.usize(..=bytes.len()) / SECTOR_BYTES) * SECTOR_BYTES,
                _ => bytes.len(),
            };
            // The file may be gone with its last name.
            let _ = self.apply_write(inode, position, &bytes[..len], false);
        }
        self.collect();
    }

    /// The machine loses power: see the module's text.
    pub(super) fn power_cut(&mut self, rng: &mut fastrand::Rng) {
        let writes = std::mem::take(&mut self.inflight).into_values();
        let writes = writes.map(|write| (write.inode, write.position, write.buf.to_vec()));
        self.power_cut_during(writes.collect(), rng);
    }

    /// The same disk, as a crash at this moment would leave it; this one goes on.
    pub(super) fn after(&self, kind: CrashKind, rng: &mut fastrand::Rng) -> Disk {
        let inodes = self.inodes.iter().map(|(number, inode)| (*number, inode.closed()));
        let mut left = Disk {
            inodes: inodes.collect(),
            next_inode: self.next_inode,
            journal: self.journal.clone(),
            inflight: BTreeMap::new(),
            next_write: self.next_write,
            capacity_bytes: self.capacity_bytes,
            locks: BTreeSet::new(),
            allocated_pages: self.allocated_pages,
        };
        let writes = self.inflight.values();
        let writes = writes.map(|write| (write.inode, write.position, write.buf.to_vec()));
        match kind {
            CrashKind::Kill => left.kill_during(writes.collect(), rng),
            CrashKind::PowerCut => left.power_cut_during(writes.collect(), rng),
        }
        left
    }

    fn power_cut_during(&mut self, mut writes: Vec<(u64, u64, Vec<u8>)>, rng: &mut fastrand::Rng) {
        self.close_all();
        rng.shuffle(&mut writes);
        for (inode, position, bytes) in writes {
            if let Ok(file) = self.file_mut(inode) {
                file.pending.push(Pending::Write { position, bytes });
            }
        }
        let journal = std::mem::take(&mut self.journal);
        let survives = journal_fate(journal.len(), rng);
        for (change, survives) in journal.iter().zip(survives) {
            if survives {
                self.commit(change);
            }
        }
        for inode in self.inodes.values_mut() {
            match inode {
                Inode::Dir(dir) => dir.cache = dir.durable.clone(),
                Inode::File(file) => {
                    for change in std::mem::take(&mut file.pending) {
                        change.apply_torn(&mut file.durable, rng);
                    }
                    file.cache = file.durable.clone();
                }
            }
        }
        self.collect();
    }

    /// Frees what no name, no open handle and no pending change can reach.
    fn collect(&mut self) {
        let mut reachable = BTreeSet::new();
        let mut todo = vec![ROOT];
        let pending = self.journal.iter().flat_map(|change| &change.entries);
        todo.extend(pending.filter_map(|(_, _, inode)| *inode));
        todo.extend(self.inflight.values().map(|write| write.inode));
        for (number, inode) in &self.inodes {
            if matches!(inode, Inode::File(file) if file.open.strong_count() > 0) {
                todo.push(*number);
            }
        }
        while let Some(inode) = todo.pop() {
            if !reachable.insert(inode) {
                continue;
            }
            if let Ok(dir) = self.dir(inode) {
                todo.extend(dir.cache.values().chain(dir.durable.values()));
            }
        }
        self.inodes.retain(|inode, _| reachable.contains(inode));
        let files = self.inodes.values().filter_map(|inode| match inode {
            Inode::File(file) => Some(file.cache.allocated()),
            Inode::Dir(_) => None,
        });
        self.allocated_pages = files.sum();
    }

    /// Everything a process would see, by path; for tests.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut todo = vec![(ROOT, PathBuf::from("/"))];
        while let Some((inode, path)) = todo.pop() {
            match self.dir(inode) {
                Ok(dir) => {
                    todo.extend(dir.cache.iter().map(|(name, inode)| (*inode, path.join(name))));
                }
                Err(_) => found.push(path),
            }
        }
        found.sort();
        found
    }

    /// Changes bytes behind everyone's back: what is read and what is durable.
    pub(super) fn tamper(&mut self, inode: u64, change: impl Fn(&mut Pages)) -> Outcome<()> {
        let file = self.file_mut(inode)?;
        change(&mut file.cache);
        change(&mut file.durable);
        self.collect();
        Ok(())
    }
}

impl Inode {
    /// The same, open nowhere.
    fn closed(&self) -> Inode {
        match self {
            Inode::Dir(dir) => Inode::Dir(dir.clone()),
            Inode::File(file) => Inode::File(FileData {
                cache: file.cache.clone(),
                durable: file.durable.clone(),
                pending: file.pending.clone(),
                open: Weak::new(),
            }),
        }
    }
}

impl Pending {
    fn touches(&self, start: u64, end: u64) -> bool {
        match self {
            Pending::Write { position, bytes } => {
                *position < end && start < position + bytes.len() as u64
            }
            Pending::SetLen(_) | Pending::Allocate(_) => true,
        }
    }

    fn apply(&self, pages: &mut Pages) {
        match self {
            Pending::Write { position, bytes } => pages.write(*position, bytes),
            Pending::SetLen(len) => pages.set_len(*len),
            Pending::Allocate(len) => pages.allocate(*len),
        }
    }

    /// Survives whole, in part or not at all.
    fn apply_torn(&self, pages: &mut Pages, rng: &mut fastrand::Rng) {
        let (position, bytes) = match self {
            Pending::SetLen(len) => {
                if rng.bool() {
                    pages.set_len(*len);
                }
                return;
            }
            Pending::Allocate(len) => {
                if rng.bool() {
                    pages.allocate(*len);
                }
                return;
            }
            Pending::Write { position, bytes } => (*position, bytes),
        };
        match rng.u8(..5) {
            0 => {
                // The length survived, the bytes did not.
                let end = position + bytes.len() as u64;
                if end > pages.len() && rng.bool() {
                    pages.set_len(end);
                }
            }
            1 => self.apply(pages),
            2 => {
                let len = (rng.usize(..=bytes.len()) / SECTOR_BYTES) * SECTOR_BYTES;
                if len > 0 {
                    pages.write(position, &bytes[..len]);
                }
            }
            _ => {
                for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    if rng.bool() {
                        pages.write(position + (number * SECTOR_BYTES) as u64, sector);
                    }
                }
            }
        }
    }
}

fn apply(entries: &mut BTreeMap<String, u64>, name: &str, inode: Option<u64>) {
    match inode {
        Some(inode) => entries.insert(name.to_owned(), inode),
        None => entries.remove(name),
    };
}

/// Which of `count` directory changes survive a power cut.
fn journal_fate(count: usize, rng: &mut fastrand::Rng) -> Vec<bool> {
    match rng.u8(..4) {
        0 => vec![false; count],
        1 => vec![true; count],
        2 => {
            let prefix = rng.usize(..=count);
            (0..count).map(|place| place < prefix).collect()
        }
        _ => (0..count).map(|_| rng.bool()).collect(),
    }
}

fn names(path: &Path) -> impl Iterator<Item = String> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    })
}
