//! The folders and files of a shard's partitions: names, the folders that are known, and the bounded
//! sets of open segment files and mapped indexes. Only what is in nobody's hands is closed.
//!
//! Lives on one shard. It knows names and handles, never what is in a file. A folder is a path, not
//! a descriptor, so those of all partitions with files are kept.

use std::cell::{Cell, RefCell};
use std::collections::btree_map::{BTreeMap, Entry};
use std::io;
use std::rc::Rc;

use rt::{Dir, DirEntry, File, FileOptions, Mapped};

use super::types::{Offset, PartitionIdentity};

/// What a name in a partition's folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    /// With the time of the last use.
    entries: BTreeMap<FileKey, (T, u64)>,
    by_use: BTreeMap<u64, FileKey>,
    most: usize,
    clock: u64,
}

impl<T: Clone> Recent<T> {
    fn new(most: usize) -> Self {
        Recent { entries: BTreeMap::new(), by_use: BTreeMap::new(), most: most.max(1), clock: 0 }
    }

    fn find(&mut self, key: FileKey) -> Option<T> {
        let value = self.entries.get(&key)?.0.clone();
        self.insert(key, value.clone());
        Some(value)
    }

    fn insert(&mut self, key: FileKey, value: T) {
        self.remove(key);
        while self.entries.len() >= self.most {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.entries.remove(&oldest);
        }
        self.clock += 1;
        self.by_use.insert(self.clock, key);
        self.entries.insert(key, (value, self.clock));
    }

    fn remove(&mut self, key: FileKey) {
        if let Some((_, used)) = self.entries.remove(&key) {
            self.by_use.remove(&used);
        }
    }

    fn remove_partition(&mut self, identity: &PartitionIdentity) {
        let low = FileKey::new(identity, Offset(i64::MIN));
        let high = FileKey::new(identity, Offset(i64::MAX));
        let keys: Vec<_> = self.entries.range(low..=high).map(|(key, _)| *key).collect();
        for key in keys {
            self.remove(key);
        }
    }
}

/// A folder that is there.
#[derive(Clone)]
struct Folder {
    dir: Dir,
    /// Its name is durable: it was made, or found and its parent synced, in this life of the process.
    named: bool,
}

/// The open handles of one shard.
pub(super) struct Files {
    topics: Dir,
    files: RefCell<Recent<File>>,
    maps: RefCell<Recent<Rc<Mapped>>>,
    /// By topic.
    topic_folders: RefCell<BTreeMap<[u8; 16], Folder>>,
    /// By topic and number of the partition.
    folders: RefCell<BTreeMap<([u8; 16], i32), Folder>>,
    opened: Cell<u64>,
}

impl Files {
    /// `topics` is the folder that holds one folder per topic; all shards share it.
    pub fn new(topics: Dir, open_files_max: usize, maps_max: usize) -> Self {
        Files {
            topics,
            files: RefCell::new(Recent::new(open_files_max)),
            maps: RefCell::new(Recent::new(maps_max)),
            topic_folders: RefCell::default(),
            folders: RefCell::default(),
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
        let key = (identity.topic, identity.partition);
        if let Some(folder) = self.folders.borrow().get(&key) {
            return Ok(folder.dir.clone());
        }
        let topic = self.topic_dir(identity).await?;
        let dir = topic.open_subdir(&identity.partition_folder()).await?;
        let found = Folder { dir: dir.clone(), named: false };
        self.folders.borrow_mut().entry(key).or_insert(found);
        Ok(dir)
    }

    async fn topic_dir(&self, identity: &PartitionIdentity) -> io::Result<Dir> {
        if let Some(folder) = self.topic_folders.borrow().get(&identity.topic) {
            return Ok(folder.dir.clone());
        }
        let dir = self.topics.open_subdir(&identity.topic_folder()).await?;
        let found = Folder { dir: dir.clone(), named: false };
        self.topic_folders.borrow_mut().entry(identity.topic).or_insert(found);
        Ok(dir)
    }

    /// The partition's folder, made if there is none, its name durable.
    pub async fn make_dir(&self, identity: &PartitionIdentity) -> io::Result<Dir> {
        self.make_dirs(&[*identity]).await?;
        self.dir(identity).await
    }

    /// Makes the folders that are missing. The names of all are durable then; a folder that is found
    /// may be that of a process which was killed before it had synced it. One sync names all the
    /// partitions of a topic.
    pub async fn make_dirs(&self, identities: &[PartitionIdentity]) -> io::Result<()> {
        let unnamed: Vec<_> = {
            let folders = self.folders.borrow();
            let named = |identity: &PartitionIdentity| {
                let folder = folders.get(&(identity.topic, identity.partition));
                folder.is_some_and(|folder| folder.named)
            };
            identities.iter().filter(|identity| !named(identity)).copied().collect()
        };
        let (mut topics, mut made) = (BTreeMap::new(), Vec::with_capacity(unnamed.len()));
        for identity in unnamed {
            let topic = match topics.entry(identity.topic) {
                Entry::Occupied(topic) => topic.into_mut(),
                Entry::Vacant(topic) => topic.insert(self.make_topic_dir(&identity).await?),
            };
            let dir = subdir(topic, &identity.partition_folder()).await?;
            made.push(((identity.topic, identity.partition), Folder { dir, named: true }));
        }
        for topic in topics.values() {
            topic.sync().await?;
        }
        self.folders.borrow_mut().extend(made);
        Ok(())
    }

    async fn make_topic_dir(&self, identity: &PartitionIdentity) -> io::Result<Dir> {
        let known = self.topic_folders.borrow().get(&identity.topic).cloned();
        if let Some(folder) = known.filter(|folder| folder.named) {
            return Ok(folder.dir);
        }
        let dir = subdir(&self.topics, &identity.topic_folder()).await?;
        self.topics.sync().await?;
        let folder = Folder { dir: dir.clone(), named: true };
        self.topic_folders.borrow_mut().insert(identity.topic, folder);
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
        Ok(self.keep(key, file))
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
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.segment(identity, base).await
            }
            made => Ok(self.keep(FileKey::new(identity, base), made?)),
        }
    }

    /// Keeps a segment file that was opened.
    fn keep(&self, key: FileKey, file: File) -> File {
        self.opened.set(self.opened.get() + 1);
        self.files.borrow_mut().insert(key, file.clone());
        file
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
        self.forget_folder(identity);
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

    fn forget_folder(&self, identity: &PartitionIdentity) {
        let mut folders = self.folders.borrow_mut();
        folders.remove(&(identity.topic, identity.partition));
        let of_topic = (identity.topic, i32::MIN)..=(identity.topic, i32::MAX);
        if folders.range(of_topic).next().is_none() {
            self.topic_folders.borrow_mut().remove(&identity.topic);
        }
    }
}

/// The folder, made if there is none; not synced.
async fn subdir(parent: &Dir, name: &str) -> io::Result<Dir> {
    match parent.create_subdir(name).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            parent.open_subdir(name).await
        }
        made => made,
    }
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
