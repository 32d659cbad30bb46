//! Recycling: strictly oldest first, after everything that lives in the file is stated again.
//!
//! The steps, each durable before the next: live records are relocated to the head of the log
//! (state from memory, bodies read back and checked); a frame says that the log no longer needs
//! the file, so that its absence is not taken for loss; readers leave; the file loses its name
//! and becomes a spare. Nothing depends on a record that merely superseded another. One task per
//! shard's log; it works when room gets short, or for nothing when no record is left.
//!
//! Why the log always comes back to taking data, F being the size of a file:
//! 1. Data leaves [`RESERVED_FILES`] whole files of the budget free; nothing else is refused.
//! 2. Every live record fits into a file: F is at least what records from before need
//!    ([`WalOptions::fitted_to`]), however small a file the budget of today asks for.
//! 3. A file is recycled if stating again what lives in it takes at most 7/8 of it
//!    ([`relocation_bytes`]), so each recycling of a whole file gains room, also if it went beyond
//!    the budget. (Not so with a file smaller than F, from a start without a spare or from a
//!    smaller budget, which is recycled but once; nor with records so long that the next one
//!    leaves the end of a file empty.)
//! 4. While the disk is full, a file is recycled only if what is there has room for that and for
//!    F/8 of votes and checkpoints beside it. So nothing that makes room waits for the disk.
//! 5. Therefore the oldest file can be in the way, by living by more than about 7/8, or long
//!    records that only move around. The layers above are told the owners, and checkpoints have
//!    room. What they cannot make dead (a partition's last batch, of which a part fills no block)
//!    is dealt with when they say so
//!    ([`go_on_with_what_lives`]): all files are recycled, each taking its place at the head, and
//!    the log may take twice what lives and three files, if the budget is less. Of any two files
//!    written one after the other the records fill more than one, so what lives takes no more
//!    than that, and room for data is left.

use std::rc::Rc;

use bytes::Bytes;
use rt::{File, Mutation, Shard};

use crate::core::{Class, Core, State, RESERVED_FILES};
use crate::error::{DiskError, WalError};
use crate::files::{self, LogFile};
use crate::format::{
    record_bytes, RecordHeader, RecordKind, BLOCK_BYTES, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES,
};
use crate::index::Replica;
use crate::options::WalOptions;
use crate::record::{Damage, Head, Parts};
use crate::types::{FileSequence, Index, Location, Owner, Term};

/// See [`step_bytes`].
const RELOCATION_STEP_BYTES: u64 = 256 << 10;

pub(crate) async fn run(core: Rc<Core>) {
    while core.running() {
        let Some(oldest) = candidate(&core.state(), &core.options) else {
            core.recycler_bell.notified().await;
            continue;
        };
        match recycle(&core, oldest).await {
            Ok(()) => core.preparer_bell.notify_one(),
            Err(WalError::Stopped | WalError::Poisoned(_)) => return,
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
pub(crate) fn candidate(state: &State, options: &WalOptions) -> Option<FileSequence> {
    let oldest = &state.oldest()?.header;
    if oldest.sequence >= state.current {
        return None;
    }
    let live = state.index.live_bytes(oldest.sequence);
    let cost = relocation_bytes(live, options);
    let files = state.budget_bytes(options) / options.file_bytes;
    let free_files = state.free_files(options);
    let worth = match free_files {
        _ if state.refusing => oldest.file_bytes,
        free if free < RESERVED_FILES => oldest.file_bytes,
        RESERVED_FILES => oldest.file_bytes / 2,
        free if free <= (files / 4).max(RESERVED_FILES + 2) => oldest.file_bytes / 4,
        _ => 0,
    };
    let gains = live <= worth && cost <= options.file_bytes.max(oldest.file_bytes) / 8 * 7;
    let short = state.refusing || free_files <= RESERVED_FILES;
    let in_the_way = short && oldest.sequence <= state.compact_up_to;
    let fits = !state.disk_full || fits_full_disk(state, options, cost);
    (live == 0 || ((gains || in_the_way) && fits)).then_some(oldest.sequence)
}

/// See [`crate::Wal::nothing_to_flush`].
pub(crate) fn go_on_with_what_lives(core: &Core) {
    let mut state = core.state_mut();
    let oldest = state.oldest().map(|file| file.header.sequence);
    let compacting = oldest.is_some_and(|oldest| oldest <= state.compact_up_to);
    if !state.refusing || compacting {
        return;
    }
    state.compact_up_to = state.gather.file();
    let (before, needed) = (state.budget_bytes(&core.options), allowance(&state, &core.options));
    state.allowance_bytes = needed;
    drop(state);
    if needed > before {
        tracing::warn!(
            shard = core.shard.id().0,
            budget_bytes = before,
            needed_bytes = needed,
            "what lives in the log leaves no room for data in its budget: it takes more"
        );
        core.has_gained_room();
    }
    core.recycler_bell.notify_one();
}

/// What a log takes at most that was compacted, and room for data beside it.
fn allowance(state: &State, options: &WalOptions) -> u64 {
    let lives: u64 = state.index.live_by_file().map(|live| relocation_bytes(live, options)).sum();
    2 * lives + (RESERVED_FILES + 1) * options.file_bytes
}

/// Whether the files that exist have room for so much and for what makes room beside it.
fn fits_full_disk(state: &State, options: &WalOptions, cost: u64) -> bool {
    let beside = options.file_bytes / 8;
    let whole_file = options.file_bytes - BLOCK_BYTES;
    let surely_filled = match state.free_files(options) {
        0 => 0,
        // Any two that follow one another hold more than one could.
        files => (files / 2).max(1) * whole_file,
    };
    cost + beside <= state.gather.room_in_file() || cost + beside <= surely_filled
}

/// Relocated together, and awaited before the next: clients' frames go between.
fn step_bytes(options: &WalOptions) -> u64 {
    RELOCATION_STEP_BYTES.min(options.frame_max_bytes)
}

/// What the relocation of so many live bytes takes at most, frames and padding included, if they
/// stand in one file: beside the frame that gathers, a step has one of its own, perhaps a second
/// one in the next file, and a third for a last record that is longer than a frame.
pub(crate) fn relocation_bytes(live: u64, options: &WalOptions) -> u64 {
    const FRAMES: u64 = 3;
    let steps = live.div_ceil(step_bytes(options));
    live + steps * FRAMES * (FRAME_HEADER_BYTES as u64 + BLOCK_BYTES)
}

/// Appends again every record that lives in `file`, and waits until all is durable.
async fn relocate(core: &Rc<Core>, file: FileSequence) -> Result<(), WalError> {
    let log_file = core.state().files.get(&file).cloned();
    let log_file = log_file.expect("the oldest file is open");
    let owners: Vec<Owner> = {
        let state = core.state();
        state.index.file(file).map(|live| live.owners.keys().copied().collect()).unwrap_or_default()
    };
    let mut step = Step::default();
    for owner in owners {
        let records =
            core.state().index.replica(owner).map(|replica| live_in(owner, replica, file));
        for record in records.unwrap_or_default() {
            step.add(core, &log_file, record).await?;
            if step.bytes >= step_bytes(&core.options) {
                std::mem::take(&mut step).restate(core).await?;
            }
        }
    }
    // The last step also awaits what made records dead without relocation.
    step.restate(core).await
}

/// Live records with their bodies, to be appended without a pause: whatever is awaited between
/// two records gives each a frame, and so a block, of its own.
#[derive(Default)]
struct Step {
    records: Vec<(Live, Bytes)>,
    bytes: u64,
}

impl Step {
    async fn add(&mut self, core: &Core, file: &LogFile, record: Live) -> Result<(), WalError> {
        let body = match record.has_own_body() {
            true => Bytes::new(),
            false => read_body(&core.shard, &file.file, record.location).await?,
        };
        self.bytes += record_bytes(record.location.length as usize) as u64;
        self.records.push((record, body));
        Ok(())
    }

    /// Appends the records that still live, and waits until all is durable.
    async fn restate(self, core: &Core) -> Result<(), WalError> {
        core.state_mut().gather.expect(self.bytes);
        for (record, body) in self.records {
            // The record may have died while bodies were read.
            if core.state().index.is_live(&record.header(), record.location) {
                let placed = core.put(&record.parts(&[&body]), Class::Needed)?;
                core.state_mut().moved.insert(record.location, placed.location);
            }
        }
        let newest = core.state().gather.newest();
        core.wait_durable(newest).await
    }
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
        state.allowance_bytes = state.allowance_bytes.min(allowance(&state, &core.options));
        (file.name.clone(), fate(&state, &core.options, &file))
    };
    drop(file);
    let spare = dispose(core, &name, fate).await?;
    core.state_mut().spares.extend(spare);
    core.has_gained_room();
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
    let fits = state.total_bytes(options) + bytes <= state.budget_bytes(options);
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
