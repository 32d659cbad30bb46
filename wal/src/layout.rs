//! Which WAL folders count: the node's `layout` file, and the change to another number of shards.
//!
//! A generation is one folder of WALs per shard. The file names the generation that counts; any
//! other folder is a leftover and is removed. Another number of shards makes generation g + 1:
//! every live record of g is stated again in the WALs of g + 1, those are stopped (durable), then
//! the layout file switches by rename, then g goes. A crash anywhere leaves either g or g + 1
//! whole. Runs on one shard before any group runs, one WAL at a time; the caller holds the data
//! folder's lock. FORMAT.md, "Layout file".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::Bytes;
use rt::{Dir, FileOptions, Shard, ShardId};

use crate::core::Class;
use crate::error::{DiskError, WalError};
use crate::files::LogFile;
use crate::format::record_bytes;
use crate::index::Replica;
use crate::options::WalOptions;
use crate::record::Damage;
use crate::recover::fence_parts;
use crate::recycle::{self, Live};
use crate::replay::{self, Found};
use crate::types::{FileSequence, Identity, Owner};
use crate::wal::Wal;

const LAYOUT_FILE: &str = "layout";
/// Where the logs are, below the data folder.
pub const WAL_FOLDER: &str = "wal";
const FIRST_WORDS: &str = "chronik layout ";
const VERSION: u32 = 1;
/// So much is stated again before its durability is awaited: bounds the memory of a change.
const STEP_BYTES: u64 = 4 << 20;

/// What the layout file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The node's UUID; made at the first start, durable from then on.
    pub node: [u8; 16],
    pub generation: u32,
    pub shards: u16,
}

/// Why a data folder's layout cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error(
        "the file `layout` of the data folder is damaged ({0}), and without it nobody knows which \
         log counts; restore it from a backup of the same node"
    )]
    Damaged(&'static str),
    #[error(
        "the data folder was written by another version of Chronik (its layout is {0}, this \
         version knows {VERSION}); start that version, or a newer one"
    )]
    Newer(u32),
    #[error(
        "the data folder has logs but no file `layout`, and without it nobody knows which of them \
         count; restore it from a backup of the same node"
    )]
    Missing,
    #[error(
        "the file `layout` of the data folder names generation {named} of the logs, which is not \
         there, and there is generation {found}: it is not the folder's own, or an old one; restore \
         it from a backup of the same time (`wal/{found}/layout`, where it exists, is a copy)"
    )]
    Absent { named: u32, found: u32 },
    #[error(
        "the file `layout` of the data folder is an old one: it names generation {named} of the \
         logs, and generation {found} has replaced it; put back the newer one, of which \
         `wal/{found}/layout` is a copy"
    )]
    Old { named: u32, found: u32 },
    #[error(
        "the log of shard {shard} is gone from the data folder (wal/{generation}/{shard}): put it \
         back, or restore the data folder from a backup"
    )]
    LogMissing { shard: u16, generation: u32 },
    /// Who was in what is lost is found out by a start, and remembered in the log.
    #[error(
        "the log of shard {shard} has lost something ({damage}): start once with {shards} shards, as \
         before, and change their number then"
    )]
    Lost { shard: u16, shards: u16, damage: Damage },
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// Reading the old generation or writing the new one failed.
    #[error("shard {shard} of generation {generation}: {error}")]
    Wal { shard: u16, generation: u32, error: WalError },
}

impl From<std::io::Error> for LayoutError {
    fn from(error: std::io::Error) -> LayoutError {
        LayoutError::Disk(error.into())
    }
}

impl Layout {
    /// The identity of one of its WALs.
    pub fn identity(&self, shard: ShardId) -> Identity {
        Identity { node: self.node, shard, generation: self.generation }
    }

    /// Reads the layout of a data folder; `None` at the first start of all.
    pub async fn load(data: &Dir) -> Result<Option<Layout>, LayoutError> {
        if !data.exists(LAYOUT_FILE).await? {
            return match generations(data).await?.is_empty() {
                true => Ok(None),
                false => Err(LayoutError::Missing),
            };
        }
        let content = data.read(LAYOUT_FILE).await?;
        Layout::parse(&content).map(Some)
    }

    /// Loads the layout, or makes the first one, durably. Leftovers of an interrupted change are
    /// removed, but never for a layout that the folders contradict. The number of shards is that of the folder, which may be another than `shards`:
    /// then call [`Self::change`].
    pub async fn open(shard: &Shard, data: &Dir, shards: u16) -> Result<Layout, LayoutError> {
        let layout = match Layout::load(data).await? {
            Some(layout) => layout,
            None => {
                let layout = Layout { node: uuid(shard.entropy()), generation: 1, shards };
                data.replace(LAYOUT_FILE, layout.render().as_bytes()).await?;
                layout
            }
        };
        layout.check_generations(data).await?;
        layout.replaces_others(data).await?;
        remove_leftovers(data, layout.generation).await?;
        Ok(layout)
    }

    /// The folder of the generation that counts is there before the file names it, and goes when
    /// a newer one has replaced it for good.
    async fn check_generations(&self, data: &Dir) -> Result<(), LayoutError> {
        let (named, all) = (self.generation, generations(data).await?);
        for found in all.iter().copied().filter(|found| *found > named) {
            if generation_dir(data, found).await?.exists(LAYOUT_FILE).await? {
                return Err(LayoutError::Old { named, found });
            }
        }
        match all.last() {
            Some(found) if !all.contains(&named) => {
                Err(LayoutError::Absent { named, found: *found })
            }
            _ => Ok(()),
        }
    }

    /// Leaves a copy of the layout file with the logs it names, before any that they replace go: an
    /// old layout file that is put back later is known for what it is.
    async fn replaces_others(&self, data: &Dir) -> Result<(), LayoutError> {
        // Nothing was there before the first.
        if self.generation > 1 && generations(data).await?.contains(&self.generation) {
            let dir = generation_dir(data, self.generation).await?;
            if !dir.exists(LAYOUT_FILE).await? {
                dir.replace(LAYOUT_FILE, self.render().as_bytes()).await?;
            }
        }
        Ok(())
    }

    /// Whether every shard has a log. For a node whose logs have all been opened once; before that
    /// some may not have been made.
    pub async fn require_logs(&self, data: &Dir) -> Result<(), LayoutError> {
        for shard in 0..self.shards {
            if !self.has_log(data, shard).await? {
                return Err(LayoutError::LogMissing { shard, generation: self.generation });
            }
        }
        Ok(())
    }

    async fn has_log(&self, data: &Dir, shard: u16) -> Result<bool, LayoutError> {
        let mut dir = data.clone();
        for name in [WAL_FOLDER.to_owned(), self.generation.to_string(), shard.to_string()] {
            dir = match dir.open_subdir(&name).await {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                opened => opened?,
            };
        }
        // What files there must be is for the log to say, which knows how far it had come.
        Ok(!dir.list().await?.is_empty())
    }

    /// The folder of one shard's WAL, made if missing.
    pub async fn wal_dir(&self, data: &Dir, shard: ShardId) -> Result<Dir, LayoutError> {
        let mut dir = data.clone();
        let names = [WAL_FOLDER.to_owned(), self.generation.to_string(), shard.0.to_string()];
        for name in names {
            let next = match dir.open_subdir(&name).await {
                Ok(next) => next,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    dir.create_subdir(&name).await?
                }
                Err(error) => return Err(error.into()),
            };
            // Also of one that was there: a killed process may have made it just before.
            dir.sync().await?;
            dir = next;
        }
        Ok(dir)
    }

    /// Moves all live records into the WALs of the next generation, with `shards` shards, each
    /// owner to where `place` says; returns the layout that counts now. `options` are for a shard
    /// of the new generation.
    pub async fn change(
        &self,
        shard: &Shard,
        data: &Dir,
        shards: u16,
        options: WalOptions,
        place: impl Fn(Owner) -> ShardId,
    ) -> Result<Layout, LayoutError> {
        let next = Layout { generation: self.generation + 1, shards, ..*self };
        remove_leftovers(data, self.generation).await?;
        // New WALs one after the other; the old ones are only read.
        let old = self.read_all(shard, data).await?;
        let live: u64 = old.iter().map(OldWal::live_bytes).sum();
        // Owners go where there may be smaller files.
        let longest = old.iter().map(|old| old.longest_bytes).max().unwrap_or_default();
        let options = options.fitted_to(longest);
        // One new shard may get more than its share; recycling brings it back into its budget.
        let budget_bytes = options.budget_bytes + live * 2;
        let options = WalOptions { fill_ahead: false, budget_bytes, ..options };
        for target in 0..shards {
            let target = ShardId(target);
            let error =
                |error| LayoutError::Wal { shard: target.0, generation: next.generation, error };
            let dir = next.wal_dir(data, target).await?;
            let opened = Wal::open(shard, dir, options, next.identity(target)).await;
            let (wal, _) = opened.map_err(error)?;
            let moved = move_to(&wal, &old, |owner| place(owner) == target).await;
            wal.stop().await;
            moved.and_then(|()| wal.poisoned().map_or(Ok(()), Err)).map_err(error)?;
        }
        data.replace(LAYOUT_FILE, next.render().as_bytes()).await?;
        next.replaces_others(data).await?;
        remove_leftovers(data, next.generation).await?;
        Ok(next)
    }

    async fn read_all(&self, shard: &Shard, data: &Dir) -> Result<Vec<OldWal>, LayoutError> {
        let mut old = Vec::new();
        for number in 0..self.shards {
            let dir = self.wal_dir(data, ShardId(number)).await?;
            let identity = self.identity(ShardId(number));
            let read = read_old(shard, &dir, identity).await.map_err(|error| LayoutError::Wal {
                shard: number,
                generation: self.generation,
                error,
            })?;
            if let Some(damage) = read.lost {
                return Err(LayoutError::Lost { shard: number, shards: self.shards, damage });
            }
            old.push(read);
        }
        Ok(old)
    }

    fn render(&self) -> String {
        let mut text = format!("{FIRST_WORDS}{VERSION}\n");
        let Layout { node, generation, shards } = self;
        let _ = write!(text, "node {}\ngeneration {generation}\nshards {shards}\n", hyphens(node));
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc {crc:08x}");
        text
    }

    fn parse(content: &[u8]) -> Result<Layout, LayoutError> {
        let damaged = LayoutError::Damaged;
        let text = std::str::from_utf8(content).map_err(|_| damaged("it is not text"))?;
        // Another version may sum up otherwise, so this is asked before the checksum.
        let first = text.lines().next().and_then(|line| line.strip_prefix(FIRST_WORDS));
        let version: u32 =
            first.and_then(|version| version.parse().ok()).ok_or(damaged("version"))?;
        if version != VERSION {
            return Err(LayoutError::Newer(version));
        }
        let (body, crc) = text.rsplit_once("crc ").ok_or(damaged("it has no checksum"))?;
        let crc = u32::from_str_radix(crc.trim_end(), 16).map_err(|_| damaged("bad checksum"))?;
        if crc != crc32c::crc32c(body.as_bytes()) {
            return Err(damaged("its checksum is wrong"));
        }
        let mut lines = body.lines().skip(1);
        let mut field = |name: &'static str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.strip_prefix(' ')).ok_or(damaged(name))
        };
        let node = from_hyphens(field("node")?).ok_or(damaged("node"))?;
        let generation = field("generation")?.parse().map_err(|_| damaged("generation"))?;
        let shards = field("shards")?.parse().map_err(|_| damaged("shards"))?;
        if shards == 0 {
            return Err(damaged("shards"));
        }
        Ok(Layout { node, generation, shards })
    }
}

/// A WAL of the generation that goes: read, never written.
struct OldWal {
    files: BTreeMap<FileSequence, LogFile>,
    replicas: BTreeMap<Owner, Replica<Bytes>>,
    longest_bytes: u64,
    /// What no start has dealt with.
    lost: Option<Damage>,
}

impl OldWal {
    fn live_bytes(&self) -> u64 {
        let records = self.replicas.iter().flat_map(|(owner, old)| recycle::live_of(*owner, old));
        records.map(|live| record_bytes(live.location.length as usize) as u64).sum()
    }
}

async fn read_old(shard: &Shard, dir: &Dir, identity: Identity) -> Result<OldWal, WalError> {
    let found: Found = replay::find(dir, FileOptions::READ_DIRECT, Some(identity)).await?;
    let replayed = replay::replay(shard, &found).await?;
    let files = found.files.into_iter().map(|file| {
        let sequence = file.header.sequence;
        (sequence, LogFile::new(file.name, file.header, file.file))
    });
    Ok(OldWal {
        files: files.collect(),
        replicas: replayed.index.replicas().clone(),
        longest_bytes: replayed.index.longest_bytes(),
        lost: replayed.lost(),
    })
}

async fn move_to(wal: &Wal, old: &[OldWal], here: impl Fn(Owner) -> bool) -> Result<(), WalError> {
    let mut since_wait = 0;
    for source in old {
        for (owner, replica) in source.replicas.iter().filter(|(owner, _)| here(**owner)) {
            for live in recycle::live_of(*owner, replica) {
                since_wait += move_record(wal, source, live).await?;
                if since_wait >= STEP_BYTES {
                    since_wait = 0;
                    wal.wait_durable(wal.newest()).await?;
                    wal.discard_frames();
                }
            }
            if let (Some(damage), None, None) = (replica.damage(), replica.fence, replica.tombstone)
            {
                wal.core.put(&fence_parts(*owner, damage.encode()), Class::Needed)?;
            }
        }
    }
    wal.wait_durable(wal.newest()).await?;
    wal.discard_frames();
    Ok(())
}

async fn move_record(wal: &Wal, source: &OldWal, live: Live) -> Result<u64, WalError> {
    let body = match live.has_own_body() {
        true => Bytes::new(),
        false => {
            let file = source.files.get(&live.location.file);
            let file = file.ok_or(WalError::Gone(live.location))?;
            recycle::read_body(&wal.core.shard, &file.file, live.location).await?
        }
    };
    wal.core.put(&live.parts(&[&body]), Class::Needed)?;
    Ok(body.len() as u64)
}

/// The generations that have a folder.
async fn generations(data: &Dir) -> Result<BTreeSet<u32>, LayoutError> {
    if !data.exists(WAL_FOLDER).await? {
        return Ok(BTreeSet::new());
    }
    let entries = data.open_subdir(WAL_FOLDER).await?.list().await?;
    Ok(entries.iter().filter_map(|entry| entry.name.parse().ok()).collect())
}

async fn generation_dir(data: &Dir, generation: u32) -> Result<Dir, LayoutError> {
    let logs = data.open_subdir(WAL_FOLDER).await?;
    Ok(logs.open_subdir(&generation.to_string()).await?)
}

async fn remove_leftovers(data: &Dir, keep: u32) -> Result<(), LayoutError> {
    for generation in generations(data).await?.into_iter().filter(|found| *found != keep) {
        let dir = data.open_subdir(WAL_FOLDER).await?;
        dir.remove_subdir_all(&generation.to_string()).await?;
        dir.sync().await?;
    }
    Ok(())
}

/// A random UUID (RFC 9562, version 4).
fn uuid(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    bytes
}

/// A UUID as text.
pub fn hyphens(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (place, byte) in uuid.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hyphens(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let mut uuid = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { node: *b"0123456789abcdef", generation: 3, shards: 8 };

    /// The layout file of version 1: it may never change.
    #[test]
    fn golden_text() {
        assert_eq!(
            LAYOUT.render(),
            "chronik layout 1\nnode 30313233-3435-3637-3839-616263646566\ngeneration 3\n\
             shards 8\ncrc a4bdf385\n"
        );
    }

    #[test]
    fn a_changed_byte_is_seen() {
        let text = LAYOUT.render().into_bytes();
        assert!(matches!(Layout::parse(&text), Ok(LAYOUT)));
        for place in 0..text.len() - 1 {
            let mut broken = text.clone();
            broken[place] ^= 1;
            assert!(Layout::parse(&broken).is_err(), "byte {place}");
            assert!(Layout::parse(&text[..place]).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn a_newer_layout_is_named() {
        let body = "chronik layout 2\nanything\n";
        let text = format!("{body}crc {:08x}\n", crc32c::crc32c(body.as_bytes()));
        assert!(matches!(Layout::parse(text.as_bytes()), Err(LayoutError::Newer(2))));
    }
}
