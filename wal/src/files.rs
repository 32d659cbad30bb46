//! The log's files on disk: names, making spare ones, turning a spare into a log file, retiring.
//!
//! A file named `*.wal` always has a durable header: a spare gets its header first and its name
//! afterwards, and loses its name (durably) before its header is touched again. The header, not
//! the name, says which file it is. Spares are zero-filled once, so that later writes only
//! overwrite blocks that exist. Errors are returned; the caller decides what they poison.

use std::io;
use std::time::Duration;

use rt::{Dir, File, FileOptions, Gate, Mutation, Shard};

use crate::format::FileHeader;
use crate::options::Flush;
use crate::reached;
use crate::types::FileSequence;

const LOG_SUFFIX: &str = ".wal";
const SPARE_SUFFIX: &str = ".spare";
const UNFINISHED_SUFFIX: &str = ".tmp";
const DAMAGED_SUFFIX: &str = ".damaged";
const FILL_BYTES: u64 = 1 << 20;
/// Between two pieces of a file that nobody waits for, so that frames go first.
const FILL_PAUSE: Duration = Duration::from_millis(2);

/// What a name in the log's folder means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameKind {
    Log,
    Spare,
    /// Being filled; but for `reached`, which is begun anew by the next start that lacks it.
    Unfinished,
    /// How far the log is known to reach.
    Reached,
    Other,
}

pub(crate) fn kind_of(name: &str) -> NameKind {
    if name.ends_with(LOG_SUFFIX) {
        NameKind::Log
    } else if name.ends_with(SPARE_SUFFIX) {
        NameKind::Spare
    } else if name.ends_with(UNFINISHED_SUFFIX) && !name.starts_with(reached::FILE) {
        NameKind::Unfinished
    } else if name == reached::FILE {
        NameKind::Reached
    } else {
        NameKind::Other
    }
}

pub(crate) fn log_name(sequence: FileSequence) -> String {
    format!("{:020}{LOG_SUFFIX}", sequence.0)
}

/// The sequence in a name; only good for messages about a file whose header is unreadable.
pub(crate) fn named_sequence(name: &str) -> Option<FileSequence> {
    name.strip_suffix(LOG_SUFFIX)?.parse().ok().map(FileSequence)
}

pub(crate) fn spare_name(shard: &Shard) -> String {
    format!("{:016x}{SPARE_SUFFIX}", shard.random())
}

pub(crate) fn damaged_name(name: &str) -> String {
    format!("{name}{DAMAGED_SUFFIX}")
}

/// A file of the log, open.
#[derive(Clone)]
pub(crate) struct LogFile {
    pub name: String,
    pub header: FileHeader,
    pub file: File,
    /// Readers are inside; recycling closes it.
    pub readers: Gate,
    /// Damage was found in it: it is put aside instead of being recycled.
    pub damaged: bool,
}

impl LogFile {
    pub fn new(name: String, header: FileHeader, file: File) -> LogFile {
        LogFile { name, header, file, readers: Gate::new(), damaged: false }
    }
}

/// How log files are opened.
pub(crate) fn open_options(shard: &Shard, flush: Flush) -> FileOptions {
    let early = shard.broken(Mutation::AcknowledgeBeforeSync);
    FileOptions { dsync: flush == Flush::Dsync && !early, ..FileOptions::READ_WRITE_DIRECT }
}

/// Makes a zero-filled spare file, durable but for its name. `urgent`: somebody waits for it.
pub(crate) async fn make_spare(
    shard: &Shard,
    dir: &Dir,
    bytes: u64,
    urgent: bool,
    stop: impl Fn() -> bool,
) -> io::Result<Option<String>> {
    let name = spare_name(shard);
    let unfinished = format!("{name}{UNFINISHED_SUFFIX}");
    let filled = fill(shard, dir, &unfinished, bytes, urgent, stop).await;
    match filled {
        Ok(true) => {
            dir.rename(&unfinished, &name).await?;
            Ok(Some(name))
        }
        Ok(false) => Ok(None),
        Err(error) => {
            // Gives the space back; what is left is removed at the next start anyway.
            let _ = dir.unlink(&unfinished).await;
            Err(error)
        }
    }
}

/// False if it was told to stop before the end.
async fn fill(
    shard: &Shard,
    dir: &Dir,
    name: &str,
    bytes: u64,
    urgent: bool,
    stop: impl Fn() -> bool,
) -> io::Result<bool> {
    let options = FileOptions { read: false, ..FileOptions::READ_WRITE_DIRECT };
    let file = dir.create_file(name, options).await?;
    let mut zeros = shard.buffer(FILL_BYTES.min(bytes) as usize);
    let mut position = 0;
    while position < bytes {
        if stop() {
            return Ok(false);
        }
        zeros.resize_zeroed(FILL_BYTES.min(bytes - position) as usize);
        zeros = file.write_at(zeros, position).await?;
        position += zeros.len() as u64;
        if !urgent {
            shard.sleep(FILL_PAUSE).await;
        }
    }
    file.sync().await?;
    file.close().await?;
    Ok(true)
}

/// Turns a spare into the log file that `header` describes. Its name is durable only when the
/// directory is synced. After an error the spare still is one.
pub(crate) async fn put_in_line(
    shard: &Shard,
    dir: &Dir,
    spare: &str,
    header: FileHeader,
    flush: Flush,
) -> io::Result<LogFile> {
    let file = dir.open_file(spare, open_options(shard, flush)).await?;
    let encoded = header.encode();
    let mut block = shard.buffer(encoded.len());
    block.extend_from_slice(&encoded);
    file.write_at(block, 0).await?;
    file.sync().await?;
    let name = log_name(header.sequence);
    dir.rename(spare, &name).await?;
    Ok(LogFile::new(name, header, file))
}
