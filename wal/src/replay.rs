//! Reads a folder of log files back: opens them, runs the scan, builds the index.
//!
//! Reads only: recovery ([`crate::recover`]) decides what to write, the layout change and the
//! offline reader use it as well. A read error ends it with that error; it is never taken for
//! the end of the log. On the shard that calls it.

use std::collections::VecDeque;

use bytes::Bytes;
use rt::{Dir, DirEntry, File, FileOptions, Mutation, Shard};

use crate::error::WalError;
use crate::files::{self, NameKind};
use crate::format::{FileHeader, HeaderError, Laxness, RecordKind, BLOCK_BYTES};
use crate::index::LiveIndex;
use crate::reached;
use crate::record::Damage;
use crate::scan::{Scan, ScannedFrame, Step, Verdict};
use crate::types::{FileSequence, FrameNumber, Identity, Location, Owner, LOG_ITSELF};

/// Bytes of an entry's body that recovery hands back.
pub const PREFIX_BYTES: usize = 192;

/// A log file as it was found.
#[derive(Clone)]
pub(crate) struct FoundFile {
    pub name: String,
    pub header: FileHeader,
    /// Of the file, in bytes: as many as the header says, unless somebody cut it.
    pub length: u64,
    pub file: File,
}

/// What stands in the folder.
#[derive(Default)]
pub(crate) struct Found {
    /// By rising sequence.
    pub files: Vec<FoundFile>,
    /// Files named as log files whose header is damaged.
    pub unreadable: Vec<String>,
    pub spares: Vec<(String, u64)>,
    pub unfinished: Vec<String>,
    /// The frame that is known to have been durable, whatever the files say.
    pub reached: reached::Found,
}

impl Found {
    /// Sequence numbers in names and headers lie below this one.
    pub fn next_sequence(&self) -> FileSequence {
        let named = self.unreadable.iter().filter_map(|name| files::named_sequence(name));
        let headers = self.files.iter().map(|file| file.header.sequence);
        named.chain(headers).max().unwrap_or_default().next()
    }
}

/// A log that was read to its end.
pub(crate) struct Replayed {
    pub index: LiveIndex<Bytes>,
    pub verdict: Verdict,
    /// Damage that no earlier recovery has dealt with; every replica known must be fenced.
    pub new_damage: Vec<Damage>,
    pub records: u64,
    /// With the place of its file in the list; of all frames the only one that may not be durable.
    pub last_frame: Option<(usize, ScannedFrame)>,
}

impl Replayed {
    /// What is lost, and whoever is not known any more may have been in it: found now, or by a
    /// start after which [`crate::Wal::loss_is_settled`] was not called.
    pub fn lost(&self) -> Option<Damage> {
        let before = || self.index.replica(LOG_ITSELF)?.fence.map(|(damage, _)| damage);
        self.new_damage.first().copied().or_else(before)
    }
}

pub(crate) async fn find(
    dir: &Dir,
    options: FileOptions,
    identity: Option<Identity>,
) -> Result<Found, WalError> {
    let mut found = Found::default();
    for entry in dir.list().await? {
        match files::kind_of(&entry.name) {
            _ if entry.is_dir => {}
            NameKind::Log => find_log(dir, options, identity, entry, &mut found).await?,
            NameKind::Spare => found.spares.push((entry.name, entry.len)),
            NameKind::Unfinished => found.unfinished.push(entry.name),
            NameKind::Reached => found.reached = reached::read(dir, options, identity).await?,
            NameKind::Other => {}
        }
    }
    found.files.sort_by_key(|file| file.header.sequence);
    for pair in found.files.windows(2) {
        if pair[0].header.sequence == pair[1].header.sequence {
            let (first, second) = (pair[0].name.clone(), pair[1].name.clone());
            return Err(WalError::Duplicate { first, second });
        }
    }
    match found.reached {
        reached::Found::Says(reached)
            if reached > FrameNumber(0)
                && found.files.is_empty()
                && found.unreadable.is_empty() =>
        {
            // A log with frames always has a file. Nothing is written, so they can be put back.
            Err(WalError::Lost { folder: dir.path().to_owned(), reached })
        }
        _ => Ok(found),
    }
}

async fn find_log(
    dir: &Dir,
    options: FileOptions,
    identity: Option<Identity>,
    entry: DirEntry,
    found: &mut Found,
) -> Result<(), WalError> {
    let DirEntry { name, len: length, .. } = entry;
    let file = dir.open_file(&name, options).await?;
    let block = file.read_at(0, BLOCK_BYTES as usize).await?;
    match FileHeader::decode(&block) {
        Ok(header) => {
            if let Some(expected) = identity.filter(|expected| *expected != header.identity) {
                return Err(WalError::Foreign { name, found: header.identity, expected });
            }
            found.files.push(FoundFile { name, header, length, file });
        }
        Err(HeaderError::Unreadable) => found.unreadable.push(name),
        Err(reason) => return Err(WalError::Header { name, reason }),
    }
    Ok(())
}

/// The simulator's ways to make a reader careless.
pub(crate) fn laxness(shard: &Shard) -> Laxness {
    Laxness {
        ignore_checksum: shard.broken(Mutation::IgnoreChecksum),
        accept_stale: shard.broken(Mutation::AcceptStaleBlock),
    }
}

/// Runs the scan over the files; every frame of the log goes to `each`, in order.
pub(crate) async fn scan(
    shard: &Shard,
    files: &[FoundFile],
    mut each: impl FnMut(ScannedFrame),
) -> Result<Verdict, WalError> {
    let headers = files.iter().map(|file| file.header).collect();
    let mut scan = Scan::new(headers, laxness(shard));
    loop {
        match scan.step() {
            Step::Read { file, position, length } => {
                let bytes = files[file].file.read_at(position, length as usize).await?;
                scan.supply(file, position, bytes);
                shard.yield_now().await;
            }
            Step::Frame(frame) => each(frame),
            Step::Finished(verdict) => return Ok(verdict),
        }
    }
}

pub(crate) async fn replay(shard: &Shard, found: &Found) -> Result<Replayed, WalError> {
    let fencing: Vec<FileSequence> = found
        .files
        .iter()
        .filter(|file| file.header.damage_found)
        .map(|file| file.header.sequence)
        .collect();
    let mut builder = Builder::new(&fencing);
    let mut verdict = scan(shard, &found.files, |frame| builder.take(frame)).await?;
    builder.fence_up_to(FileSequence(u64::MAX));
    note_cut_files(&found.files, &mut verdict);
    note_missing_files(found, &mut verdict);
    note_lost_end(found.reached, &mut verdict);
    let known = fencing.last().copied().unwrap_or_default();
    for name in &found.unreadable {
        let file = files::named_sequence(name).unwrap_or_default();
        verdict.damage.push(Damage::UnreadableHeader { file });
    }
    let new = verdict.damage.iter().filter(|damage| place(damage) >= known).copied();
    let new_damage = if found.files.is_empty() && found.unreadable.is_empty() {
        Vec::new()
    } else {
        new.collect()
    };
    let last_file = verdict.frames.iter().rposition(|frames| *frames > 0);
    let last_frame = last_file.zip(builder.last);
    let (index, records) = (builder.index, builder.records);
    Ok(Replayed { index, verdict, new_damage, records, last_frame })
}

/// A file that was cut where the log still went on is seen by what follows. Where the log ends
/// nothing follows: only the file's length says that there may have been more.
fn note_cut_files(files: &[FoundFile], verdict: &mut Verdict) {
    if verdict.stopped {
        return;
    }
    for (place, file) in files.iter().enumerate().skip(verdict.end.0) {
        if file.length < file.header.file_bytes {
            verdict.damage.push(Damage::TruncatedFile { file: file.header.sequence });
            verdict.damaged_files.push(place);
        }
    }
}

/// Files are prepared one after the other, each durably before the next, the oldest is recycled
/// first, and a start that takes prepared files out of the log begins with the newest: between two
/// that are there none is missing, but for those that a damaged header hides.
fn note_missing_files(found: &Found, verdict: &mut Verdict) {
    let damaged =
        |file| found.unreadable.iter().any(|name| files::named_sequence(name) == Some(file));
    for pair in found.files.windows(2) {
        let (before, after) = (pair[0].header.sequence, pair[1].header.sequence);
        let mut between = (before.0 + 1..after.0).map(FileSequence);
        let Some(file) = between.find(|file| !damaged(*file)) else { continue };
        let missing = Damage::MissingFile { file };
        if !verdict.damage.contains(&missing) {
            verdict.damage.push(missing);
        }
    }
}

fn note_lost_end(reached: reached::Found, verdict: &mut Verdict) {
    let last = verdict.last;
    if let reached::Found::Says(reached) = reached {
        if reached > last {
            verdict.damage.push(Damage::LostEnd { last, reached });
        }
    }
}

/// The file that damage was found in.
fn place(damage: &Damage) -> FileSequence {
    match *damage {
        Damage::CorruptFrame { file, .. }
        | Damage::MissingFile { file }
        | Damage::TruncatedFile { file }
        | Damage::UnreadableHeader { file } => file,
        _ => FileSequence(u64::MAX),
    }
}

/// Builds the index from frames, in log order.
struct Builder {
    index: LiveIndex<Bytes>,
    records: u64,
    last: Option<ScannedFrame>,
    /// Files whose header says that everything before them is in doubt, by rising sequence.
    fencing: VecDeque<FileSequence>,
}

impl Builder {
    fn new(fencing: &[FileSequence]) -> Builder {
        let fencing = fencing.iter().copied().collect();
        Builder { index: LiveIndex::default(), records: 0, last: None, fencing }
    }

    fn take(&mut self, frame: ScannedFrame) {
        self.fence_up_to(frame.header.file);
        for record in frame.records() {
            let body = record.body;
            let kept: &[u8] = match record.header.kind {
                RecordKind::Append | RecordKind::Relocated | RecordKind::Pointer => {
                    &body[..body.len().min(PREFIX_BYTES)]
                }
                RecordKind::Membership | RecordKind::Checkpoint => body,
                _ => &[],
            };
            let kept = Bytes::copy_from_slice(kept);
            self.index.apply(&record.header, record.location(&frame.header), body, kept);
            self.records += 1;
        }
        self.last = Some(frame);
    }

    /// What a header with the damage flag says about the replicas known before it, and about those
    /// that are not known.
    fn fence_up_to(&mut self, file: FileSequence) {
        while let Some(sequence) = self.fencing.pop_front() {
            if sequence > file {
                self.fencing.push_front(sequence);
                return;
            }
            let unfenced = self
                .index
                .replicas()
                .iter()
                .filter(|(_, replica)| replica.fence.is_none() && replica.tombstone.is_none());
            let mut owners: Vec<Owner> = unfenced.map(|(owner, _)| *owner).collect();
            if self.index.replica(LOG_ITSELF).is_none() {
                owners.push(LOG_ITSELF);
            }
            for owner in owners {
                let location = Location { file: sequence, position: 0, length: 0 };
                self.index.fence(owner, Damage::FoundBefore, location);
            }
        }
    }
}
