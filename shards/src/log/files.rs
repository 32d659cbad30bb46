//! The folders and files of a shard's partitions: names, and the bounded sets of open segment
//! files, open folders and mapped indexes. Only what is in nobody's hands is closed.
//!
//! Lives on one shard. It knows names and handles, never what is in a file.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use rt::{Dir, DirEntry, File, FileOptions, Mapped};

use super::types::{Offset, PartitionIdentity};

/// What a name in a partition's folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `.log`: the batches.
    Segment,
    /// `.map`: their Raft indexes.
    Map,
    /// `.index`: the sparse index.
    Index,
}

impl FileKind {
    /// The three, in the order in which a segment's files are removed: the bytes last.
    pub const ALL: [FileKind; 3] = [FileKind::Index, FileKind::Map, FileKind::Segment];

    fn suffix(self) -> &'static str {
        match self {
            FileKind::Segment => ".log",
            FileKind::Map => ".map",
            FileKind::Index => ".index",
        }
    }
}

/// `<base offset in 20 digits>.<suffix>`.
pub fn file_name(base: Offset, kind: FileKind) -> String {
    format!("{:020}{}", base.0, kind.suffix())
}

/// The segment and kind that a name stands for; `None` for a stranger.
pub fn parse_name(name: &str) -> Option<(Offset, FileKind)> {
    let kind = FileKind::ALL.into_iter().find(|kind| name.ends_with(kind.suffix()))?;
    let digits = name.strip_suffix(kind.suffix())?;
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let base = digits.parse::<i64>().ok().filter(|_| plain)?;
    Some((Offset(base), kind))
}

/// Names one file of one partition of the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileKey {
    topic: [u8; 16],
    partition: i32,
    base: i64,
}

impl FileKey {
    fn new(identity: &PartitionIdentity, base: Offset) -> Self {
        FileKey { topic: identity.topic, partition: identity.partition, base: base.0 }
    }
}

/// A bounded set of handles; the one that was used least recently makes room.
struct Recent<T> {
    entries: BTreeMap<FileKey, (T, u64)>,
    most: usize,
    clock: u64,
}

impl<T: Clone> Recent<T> {
    fn new(most: usize) -> Self {
        Recent { entries: BTreeMap::new(), most: most.max(1), clock: 0 }
    }

    fn find(&mut self, key: FileKey) -> Option<T> {
        self.clock += 1;
        let clock = self.clock;
        let (value, used) = self.entries.get_mut(&key)?;
        *used = clock;
        Some(value.clone())
    }

    fn insert(&mut self, key: FileKey, value: T) {
        while self.entries.len() >= self.most {
            let oldest = self.entries.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else { break };
            self.entries.remove(&oldest);
        }
        self.clock += 1;
        self.entries.insert(key, (value, self.clock));
    }

    fn remove(&mut self, key: FileKey) {
        self.entries.remove(&key);
    }

    fn remove_partition(&mut self, identity: &PartitionIdentity) {
        let low = FileKey::new(identity, Offset(i64::MIN));
        let high = FileKey::new(identity, Offset(i64::MAX));
        let keys: Vec<_> = self.entries.range(low..=high).map(|(key, _)| *key).collect();
        for key in keys {
            self.entries.remove(&key);
        }
    }
}

/// The open handles of one shard.
pub(super) struct Files {
    topics: Dir,
    files: RefCell<Recent<File>>,
    maps: RefCell<Recent<Rc<Mapped>>>,
    dirs: RefCell<Recent<Dir>>,
    /// Partitions whose folder was made, or found and synced, in this life of the process.
    named: RefCell<BTreeSet<FileKey>>,
    opened: Cell<u64>,
}

impl Files {
    /// `topics` is the folder that holds one folder per topic; all shards share it.
    pub fn new(topics: Dir, open_files_max: usize, maps_max: usize) -> Self {
        Files {
            topics,
            files: RefCell::new(Recent::new(open_files_max)),
            maps: RefCell::new(Recent::new(maps_max)),
            dirs: RefCell::new(Recent::new(open_files_max)),
            named: RefCell::default(),
            opened: Cell::new(0),
        }
    }

    /// How many segment files were opened so far.
    pub fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// How many segment files are kept open.
    pub fn open(&self) -> usize {
        self.files.borrow().entries.len()
    }

    /// What is left on the disk; nothing, if it does not tell.
    pub async fn available_bytes(&self) -> u64 {
        self.topics.space().await.map_or(0, |space| space.available_bytes)
    }

    /// The partition's folder; `NotFound` if it has none yet.
    pub async fn dir(&self, identity: &PartitionIdentity) -> io::Result<Dir> {
        let key = FileKey::new(identity, Offset(0));
        if let Some(dir) = self.dirs.borrow_mut().find(key) {
            return Ok(dir);
        }
        let topic = self.topics.open_subdir(&identity.topic_folder()).await?;
        let dir = topic.open_subdir(&identity.partition_folder()).await?;
        self.dirs.borrow_mut().insert(key, dir.clone());
        Ok(dir)
    }

    /// The partition's folder, made if there is none. Its name is durable: one that is found may be
    /// that of a process which was killed before it had synced it.
    pub async fn make_dir(&self, identity: &PartitionIdentity) -> io::Result<Dir> {
        let key = FileKey::new(identity, Offset(0));
        let named = self.named.borrow().contains(&key);
        if named {
            return self.dir(identity).await;
        }
        let topic = subdir(&self.topics, &identity.topic_folder()).await?;
        let dir = subdir(&topic, &identity.partition_folder()).await?;
        self.named.borrow_mut().insert(key);
        Ok(dir)
    }

    /// The partition's files; none if it has no folder.
    pub async fn list(&self, identity: &PartitionIdentity) -> io::Result<Vec<DirEntry>> {
        match self.dir(identity).await {
            Ok(dir) => dir.list().await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// A segment file, opened for direct reads and writes.
    pub async fn segment(&self, identity: &PartitionIdentity, base: Offset) -> io::Result<File> {
        let key = FileKey::new(identity, base);
        if let Some(file) = self.files.borrow_mut().find(key) {
            return Ok(file);
        }
        let dir = self.dir(identity).await?;
        let name = file_name(base, FileKind::Segment);
        let file = dir.open_file(&name, FileOptions::READ_WRITE_DIRECT).await?;
        self.opened.set(self.opened.get() + 1);
        self.files.borrow_mut().insert(key, file.clone());
        Ok(file)
    }

    /// A new segment file. One of that name that a crash left behind is taken over: nothing in it
    /// was ever sealed.
    pub async fn create_segment(
        &self,
        identity: &PartitionIdentity,
        base: Offset,
    ) -> io::Result<File> {
        let dir = self.make_dir(identity).await?;
        let name = file_name(base, FileKind::Segment);
        match dir.create_file(&name, FileOptions::READ_WRITE_DIRECT).await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
        self.segment(identity, base).await
    }

    /// The index of a closed segment, mapped; `None` if it has no index file.
    pub async fn index(
        &self,
        identity: &PartitionIdentity,
        base: Offset,
    ) -> io::Result<Option<Rc<Mapped>>> {
        let key = FileKey::new(identity, base);
        if let Some(map) = self.maps.borrow_mut().find(key) {
            return Ok(Some(map));
        }
        let dir = self.dir(identity).await?;
        match dir.map(&file_name(base, FileKind::Index)).await {
            Ok(map) => {
                let map = Rc::new(map);
                self.maps.borrow_mut().insert(key, Rc::clone(&map));
                Ok(Some(map))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next `index` maps the file again.
    pub fn forget_index(&self, identity: &PartitionIdentity, base: Offset) {
        self.maps.borrow_mut().remove(FileKey::new(identity, base));
    }

    /// Removes the files of a segment; what is missing already is as good.
    pub async fn remove_segment(
        &self,
        identity: &PartitionIdentity,
        base: Offset,
    ) -> io::Result<()> {
        let key = FileKey::new(identity, base);
        self.files.borrow_mut().remove(key);
        self.maps.borrow_mut().remove(key);
        let dir = self.dir(identity).await?;
        for kind in FileKind::ALL {
            match dir.unlink(&file_name(base, kind)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the partition's folder, and the topic's when it was the last.
    pub async fn remove_partition(&self, identity: &PartitionIdentity) -> io::Result<()> {
        self.files.borrow_mut().remove_partition(identity);
        self.maps.borrow_mut().remove_partition(identity);
        self.dirs.borrow_mut().remove_partition(identity);
        self.named.borrow_mut().remove(&FileKey::new(identity, Offset(0)));
        let name = identity.topic_folder();
        let topic = match self.topics.open_subdir(&name).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        match topic.remove_subdir_all(&identity.partition_folder()).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        topic.sync().await
    }
}

async fn subdir(parent: &Dir, name: &str) -> io::Result<Dir> {
    let dir = match parent.create_subdir(name).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            parent.open_subdir(name).await?
        }
        made => made?,
    };
    // Also when it was there: another shard, or an earlier life, may have made it and not synced it.
    parent.sync().await?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_twenty_digits_and_strangers_are_left_alone() {
        assert_eq!(file_name(Offset(42), FileKind::Segment), "00000000000000000042.log");
        for kind in FileKind::ALL {
            let name = file_name(Offset(i64::MAX), kind);
            assert_eq!(parse_name(&name), Some((Offset(i64::MAX), kind)));
        }
        for name in ["42.log", "00000000000000000042.log.tmp", "+0000000000000000042.log", "x"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
        assert_eq!(parse_name("99999999999999999999.log"), None, "beyond an offset");
    }

    #[test]
    fn the_least_recently_used_handle_makes_room() {
        let identity = |partition| PartitionIdentity {
            topic: [1; 16],
            partition,
            owner: wal::Owner::default(),
        };
        let key = |partition, base| FileKey::new(&identity(partition), Offset(base));
        let mut recent = Recent::new(2);
        recent.insert(key(0, 1), "a");
        recent.insert(key(0, 2), "b");
        assert_eq!(recent.find(key(0, 1)), Some("a"));
        recent.insert(key(1, 3), "c");
        assert_eq!(recent.find(key(0, 2)), None);
        recent.remove_partition(&identity(0));
        assert_eq!(recent.find(key(0, 1)), None);
        assert_eq!(recent.find(key(1, 3)), Some("c"));
    }
}
