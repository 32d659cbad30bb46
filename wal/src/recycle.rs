//! Recycling: strictly oldest first, after everything that lives in the file is stated again.
//!
//! The steps, each durable before the next: live records are relocated to the head of the log
//! (state from memory, bodies read back and checked); a frame says that the log no longer needs
//! the file, so that its absence is not taken for loss; readers leave; the file loses its name
//! and becomes a spare. Nothing depends on a record that merely superseded another. One task per
//! shard's log; it works when room gets short, or for nothing when no record is left.

use std::rc::Rc;

use bytes::Bytes;
use rt::{File, Mutation, Shard};

use crate::core::{Class, Core, State};
use crate::error::{DiskError, WalError};
use crate::files::{self, LogFile};
use crate::format::{RecordHeader, RecordKind, BLOCK_BYTES, RECORD_HEADER_BYTES};
use crate::index::Replica;
use crate::options::WalOptions;
use crate::record::{Damage, Head, Parts};
use crate::types::{FileSequence, Index, Location, Owner, Term};

/// So much is relocated before its durability is awaited: clients' frames go between.
const RELOCATION_STEP_BYTES: u64 = 256 << 10;

pub(crate) async fn run(core: Rc<Core>) {
    while core.running() {
        let Some(oldest) = candidate(&core) else {
            core.recycler_bell.notified().await;
            continue;
        };
        match recycle(&core, oldest).await {
            Ok(()) => core.preparer_bell.notify_one(),
            Err(WalError::Stopped | WalError::Poisoned(_)) => return,
            // The last file is full as well: only checkpoints from above can make room.
            Err(WalError::Exhausted) => core.recycler_bell.notified().await,
            Err(WalError::Disk(error)) => core.poison(error),
            Err(error) => core.poison(std::io::Error::other(error.to_string())),
        }
    }
}

/// Restates what lives in the oldest file, then takes the file out of the log.
async fn recycle(core: &Rc<Core>, oldest: FileSequence) -> Result<(), WalError> {
    if !core.broken(Mutation::RecycleWithoutRelocation) {
        relocate(core, oldest).await?;
    }
    declare_gone(core, oldest).await?;
    retire(core, oldest).await
}

/// The oldest file, if it is worth its relocation now.
fn candidate(core: &Core) -> Option<FileSequence> {
    let state = core.state();
    let oldest = state.oldest()?.header.sequence;
    if oldest >= state.current {
        return None;
    }
    let options = &core.options;
    let live = state.index.live_bytes(oldest);
    let files = options.budget_bytes / options.file_bytes;
    let free = state.free_files(options);
    let worth = match free {
        0 | 1 => options.file_bytes / 4 * 3,
        free if free <= (files / 4).max(2) => options.file_bytes / 4,
        _ => 0,
    };
    // Frames and their padding take more than the records.
    let fits = live == 0 || live + live / 4 + 4 * BLOCK_BYTES <= state.free_bytes(options);
    (live <= worth && fits).then_some(oldest)
}

/// Appends again every record that lives in `file`, and waits until all is durable.
async fn relocate(core: &Rc<Core>, file: FileSequence) -> Result<(), WalError> {
    let log_file = core.state().files.get(&file).cloned();
    let log_file = log_file.expect("the oldest file is open");
    let owners: Vec<Owner> = {
        let state = core.state();
        state.index.file(file).map(|live| live.owners.keys().copied().collect()).unwrap_or_default()
    };
    let mut since_wait = 0;
    for owner in owners {
        let records =
            core.state().index.replica(owner).map(|replica| live_in(owner, replica, file));
        for record in records.unwrap_or_default() {
            since_wait += restate(core, &log_file, record).await?;
            if since_wait >= RELOCATION_STEP_BYTES {
                since_wait = 0;
                let newest = core.state().gather.newest();
                core.wait_durable(newest).await?;
            }
        }
    }
    // Also what made records dead without relocation must be durable before the file goes.
    let newest = core.state().gather.newest();
    core.wait_durable(newest).await
}

/// A live record, as far as memory knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Live {
    pub kind: RecordKind,
    pub owner: Owner,
    pub index: Index,
    pub term: Term,
    pub location: Location,
    /// The body, where the log itself defines it.
    pub head: Head,
}

/// What lives of a replica, in the order in which it is restated.
pub(crate) fn live_of<P>(owner: Owner, replica: &Replica<P>) -> Vec<Live> {
    let at = |kind, index, term, location, head| Live { kind, owner, index, term, location, head };
    let mut live = Vec::new();
    if let Some((state, location)) = replica.hard_state {
        let head = Head::of(&state.vote.0.to_le_bytes());
        live.push(at(RecordKind::HardState, state.commit, state.term, location, head));
    }
    for (kind, mark) in [
        (RecordKind::Membership, &replica.membership),
        (RecordKind::Checkpoint, &replica.checkpoint),
    ] {
        if let Some(mark) = mark {
            live.push(at(kind, mark.index, mark.term, mark.location, Head::default()));
        }
    }
    for (index, entry) in &replica.entries {
        let kind = if entry.pointer { RecordKind::Pointer } else { RecordKind::Relocated };
        live.push(at(kind, *index, entry.term, entry.location, Head::default()));
    }
    if let Some(location) = replica.tombstone {
        live.push(at(RecordKind::Tombstone, Index(0), Term(0), location, Head::default()));
    }
    if let Some((damage, location)) = replica.fence {
        live.push(at(RecordKind::Fence, Index(0), Term(0), location, Damage::encode(&damage)));
    }
    live
}

fn live_in(owner: Owner, replica: &Replica<()>, file: FileSequence) -> Vec<Live> {
    let mut live = live_of(owner, replica);
    live.retain(|record| record.location.file == file);
    live
}

/// Returns the bytes of the body.
async fn restate(core: &Rc<Core>, file: &LogFile, record: Live) -> Result<u64, WalError> {
    let body = match record.has_own_body() {
        true => Bytes::new(),
        false => read_body(&core.shard, &file.file, record.location).await?,
    };
    // The record may have died while its body was read.
    if !core.state().index.is_live(&record.header(), record.location) {
        return Ok(0);
    }
    let placed = core.put(&record.parts(&[&body]), Class::Relocation)?;
    core.state_mut().moved.insert(record.location, placed.location);
    Ok(body.len() as u64)
}

impl Live {
    /// The log knows the body from memory.
    pub fn has_own_body(&self) -> bool {
        matches!(self.kind, RecordKind::HardState | RecordKind::Fence | RecordKind::Tombstone)
    }

    fn header(&self) -> RecordHeader {
        RecordHeader {
            kind: self.kind,
            relocated: true,
            owner: self.owner,
            index: self.index,
            term: self.term,
            body_length: self.location.length,
            body_crc: 0,
        }
    }

    pub fn parts<'a>(&self, slices: &'a [&'a [u8]]) -> Parts<'a> {
        Parts {
            kind: self.kind,
            relocated: true,
            owner: self.owner,
            index: self.index,
            term: self.term,
            head: self.head,
            slices,
        }
    }
}

/// Reads a record's body back and checks it against the record's header.
pub(crate) async fn read_body(
    shard: &Shard,
    file: &File,
    location: Location,
) -> Result<Bytes, WalError> {
    let start = location.position - RECORD_HEADER_BYTES as u64;
    let length = RECORD_HEADER_BYTES + location.length as usize;
    let record = file.read_at(start, length).await?;
    let header = RecordHeader::decode(&record).filter(|_| record.len() == length);
    let Some(header) = header else { return Err(WalError::Damaged(location)) };
    let body = record.slice(RECORD_HEADER_BYTES..);
    let intact = crc32c::crc32c(&body) == header.body_crc || shard.broken(Mutation::IgnoreChecksum);
    if header.body_length != location.length || !intact {
        return Err(WalError::Damaged(location));
    }
    Ok(body)
}

/// Writes, durably, that the log does not need `file` any more.
async fn declare_gone(core: &Rc<Core>, file: FileSequence) -> Result<(), WalError> {
    let frame = {
        let mut state = core.state_mut();
        state.oldest_declared = file.next();
        let frame = state.gather.next_written();
        state.declare = Some(frame);
        frame
    };
    core.writer_bell.notify_one();
    core.wait_durable(frame).await
}

/// Takes the file out of the log: it becomes a spare, or goes.
async fn retire(core: &Rc<Core>, sequence: FileSequence) -> Result<(), WalError> {
    let file = core.state().files.get(&sequence).cloned();
    let file = file.expect("only this task removes files");
    file.readers.close().await;
    let (name, fate) = {
        let mut state = core.state_mut();
        state.files.remove(&sequence);
        state.forget_moves_into(sequence);
        state.stats.recycled_files += 1;
        state.refusing = false;
        (file.name.clone(), fate(&state, &core.options, &file))
    };
    drop(file);
    let spare = dispose(core, &name, fate).await?;
    core.state_mut().spares.extend(spare);
    core.change.notify_all();
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Spare,
    /// Damage was found in it: an operator may want to look.
    PutAside,
    Remove,
}

fn fate(state: &State, options: &WalOptions, file: &LogFile) -> Fate {
    let bytes = file.header.file_bytes;
    let fits = state.total_bytes(options) + bytes <= options.budget_bytes;
    match (file.damaged, bytes == options.file_bytes && fits) {
        (true, _) => Fate::PutAside,
        (false, true) => Fate::Spare,
        (false, false) => Fate::Remove,
    }
}

async fn dispose(core: &Core, name: &str, fate: Fate) -> Result<Option<String>, DiskError> {
    let mut spare = None;
    match fate {
        Fate::Spare => {
            let target = files::spare_name(&core.shard);
            core.dir.rename(name, &target).await?;
            spare = Some(target);
        }
        Fate::PutAside => core.dir.rename(name, &files::damaged_name(name)).await?,
        Fate::Remove => core.dir.unlink(name).await?,
    }
    core.dir.sync().await?;
    Ok(spare)
}
