//! Recovery: from a folder in any state to a log that takes records.
//!
//! In this order, so that it can be interrupted anywhere and begun again: read everything; make
//! durable what was read (a killed process may have left it in a volatile cache, and its last
//! frame behind a sync that failed); open a new file whose
//! header names the last frame replayed, durable with its name; write the fences of replicas that
//! may have lost log, durable; put damaged files aside; recycle while the budget is exceeded.
//! Nothing is appended to an old file. Spare files that are no longer of the right size go. Files
//! are of the size that is configured now, unless a record that still lives needs larger ones.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rt::{Dir, Mutation, Shard};

use crate::background;
use crate::core::{Class, Core, State, Stop, WalStats};
use crate::error::{DiskError, WalError};
use crate::files::{self, LogFile};
use crate::format::{blocks, BadFrame, FileHeader, RecordKind, BLOCK_BYTES};
use crate::gather::{Gather, Start};
use crate::histograms::WalHistograms;
use crate::index::{Entry, LiveIndex, Marked, Replica};
use crate::options::WalOptions;
use crate::reached::{self, Mark};
use crate::record::{Damage, Parts};
use crate::replay::{self, Found, FoundFile, Replayed};
use crate::types::{
    FileSequence, FrameNumber, HardState, Identity, Index, Location, Owner, Term, LOG_ITSELF,
};
use crate::{recycle, writer, Wal};

/// What the log knew when it was opened.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    pub replicas: BTreeMap<Owner, RecoveredReplica>,
    pub report: RecoveryReport,
}

/// One replica as recovered. With `damaged` set the rest is what could still be read, and the
/// replica must neither vote, campaign nor acknowledge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveredReplica {
    /// The commit is the larger of hard state and checkpoint.
    pub hard_state: HardState,
    pub membership: Option<(Index, Term, Bytes)>,
    pub checkpoint: Option<(Index, Term, Bytes)>,
    /// Above the checkpoint, each following the one before.
    pub entries: Vec<RecoveredEntry>,
    /// The replica was removed from this node; nothing else is set then.
    pub tombstone: bool,
    pub damaged: Option<Damage>,
}

/// An entry of the Raft log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredEntry {
    pub index: Index,
    pub term: Term,
    /// The first bytes of the body, [`crate::PREFIX_BYTES`] at most.
    pub prefix: Bytes,
    /// Of the body.
    pub location: Location,
    /// The body is a [`crate::format::Pointer`] and a prefix, not the payload.
    pub pointer: bool,
}

/// For the log and the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// No log file was there.
    pub fresh: bool,
    pub files: u64,
    pub frames: u64,
    pub records: u64,
    pub last_frame: FrameNumber,
    /// The log had been stopped in order.
    pub stopped: bool,
    /// What stood where the log ends, if a write had been begun there.
    pub torn: Option<BadFrame>,
    /// Durable log that is gone or cannot be read; empty but after a fault of the hardware.
    pub damage: Vec<Damage>,
    /// Damage that no start has dealt with ([`Wal::loss_is_settled`]): a replica that the log does
    /// not know may have been in what is lost.
    pub lost: Option<Damage>,
    pub took: Duration,
}

pub(crate) async fn open(
    shard: &Shard,
    dir: Dir,
    options: WalOptions,
    identity: Identity,
) -> Result<(Wal, Recovered), WalError> {
    options.check()?;
    let began = shard.now();
    let mut found =
        replay::find(&dir, files::open_options(shard, options.flush), Some(identity)).await?;
    let replayed = replay::replay(shard, &found).await?;
    if !shard.broken(Mutation::RecoverWithoutSync) {
        write_last_again(shard, &found, &replayed).await?;
        sync_replayed(&found, &replayed).await?;
    }
    let last = replayed.verdict.last;
    let mark = Mark::open(shard, &dir, found.reached, identity, options.flush, last).await?;
    let configured = options;
    let options = configured.fitted_to(replayed.index.longest_bytes());
    let target = Target::choose(&found, &replayed);
    let (recovered, fences) = describe(&found, &replayed);
    tidy(shard, &dir, &mut found, target, &options).await?;
    let lost_now = !replayed.new_damage.is_empty();
    let file = begin_file(shard, &dir, &mut found, &replayed, target, &options, identity).await?;
    let wal = build(shard, dir, configured, identity, found, replayed, file);
    settle(&wal, fences).await?;
    keep_mark(shard, &wal.core, mark, lost_now).await?;
    back_into_budget(&wal.core).await?;
    let mut recovered = recovered;
    recovered.report.took = shard.now().saturating_since(began);
    Ok((wal, recovered))
}

/// The last frame may be one whose sync failed: it is read back, and no sync would make it durable,
/// since nobody knows any more that it is not. Its own bytes, written once more, are made so. A
/// power cut meanwhile leaves in each sector what was there or the same. All frames before it
/// were durable when it was written.
async fn write_last_again(
    shard: &Shard,
    found: &Found,
    replayed: &Replayed,
) -> Result<(), WalError> {
    let Some((place, frame)) = &replayed.last_frame else { return Ok(()) };
    let whole = blocks(u64::from(frame.header.length)) as usize;
    let mut buf = shard.buffer(whole);
    buf.extend_from_slice(&frame.bytes);
    buf.resize_zeroed(whole);
    found.files[*place].file.write_at(buf, frame.header.position).await?;
    Ok(())
}

async fn sync_replayed(found: &Found, replayed: &Replayed) -> Result<(), WalError> {
    for (file, frames) in found.files.iter().zip(&replayed.verdict.frames) {
        if *frames > 0 {
            file.file.sync().await?;
        }
    }
    Ok(())
}

/// Removes unfinished files, and spares of another size than is wanted now. Files that were only
/// prepared become spares again: on a full disk they are what the log can begin anew in.
async fn tidy(
    shard: &Shard,
    dir: &Dir,
    found: &mut Found,
    target: Target,
    options: &WalOptions,
) -> Result<(), WalError> {
    let (fit, unfit): (Vec<_>, Vec<_>) =
        found.spares.drain(..).partition(|(_, bytes)| *bytes == options.file_bytes);
    found.spares = fit;
    for name in found.unfinished.drain(..).chain(unfit.into_iter().map(|(name, _)| name)) {
        dir.unlink(&name).await?;
    }
    // A killed process may have taken a name from a file without making that durable: before
    // such a spare gets a new header, the old name must be gone for good.
    dir.sync().await?;
    // A short one only does to begin in.
    let whole = |file: &FoundFile| file.length == options.file_bytes;
    let mut alone = found.spares.is_empty() && !found.files[target.keep..].iter().any(whole);
    // The newest first, each for good: one that stayed behind a gap would look like a log of
    // which a file is missing.
    for file in found.files.drain(target.keep..).rev() {
        let begins = alone && file.length == options.first_file_bytes;
        if whole(&file) || begins {
            let spare = files::spare_name(shard);
            dir.rename(&file.name, &spare).await?;
            found.spares.push((spare, file.length));
            alone = false;
        } else {
            dir.unlink(&file.name).await?;
        }
        dir.sync().await?;
    }
    Ok(())
}

/// Which file recovery begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    sequence: FileSequence,
    /// Files found from this place on hold no frame, and leave the log.
    keep: usize,
    /// Older files are damaged, as is found now, or as the header of one that leaves says.
    after_damage: bool,
}

impl Target {
    /// Files at the end that hold no frame were only prepared: the new file takes the place of the
    /// first of them, so that starts without traffic do not use up the budget. After damage
    /// nothing leaves the log.
    fn choose(found: &Found, replayed: &Replayed) -> Target {
        let next = found.next_sequence();
        let all = found.files.len();
        if !replayed.new_damage.is_empty() || !found.unreadable.is_empty() {
            let after_damage = !replayed.new_damage.is_empty();
            return Target { sequence: next, keep: all, after_damage };
        }
        let empty = replayed.verdict.frames.iter().rev().take_while(|frames| **frames == 0);
        let keep = all - empty.count();
        let sequence = found.files.get(keep).map_or(next, |file| file.header.sequence);
        // Somebody gave a file that stays the name of one that goes.
        if found.files[..keep].iter().any(|file| file.name == files::log_name(sequence)) {
            return Target { sequence: next, keep: all, after_damage: false };
        }
        let after_damage = found.files[keep..].iter().any(|file| file.header.damage_found);
        Target { sequence, keep, after_damage }
    }
}

async fn begin_file(
    shard: &Shard,
    dir: &Dir,
    found: &mut Found,
    replayed: &Replayed,
    target: Target,
    options: &WalOptions,
    identity: Identity,
) -> Result<LogFile, WalError> {
    let (spare, file_bytes) = match found.spares.pop() {
        Some(spare) => spare,
        None => {
            let bytes = options.first_file_bytes;
            let made = files::make_spare(shard, dir, bytes, true, || false).await;
            let made = made.map_err(|error| no_room(bytes, error.into()))?;
            (made.expect("nothing stops the making of the first file"), bytes)
        }
    };
    let header = FileHeader {
        identity,
        sequence: target.sequence,
        salt: background::new_salt(shard),
        file_bytes,
        base: Some(replayed.verdict.last),
        damage_found: target.after_damage,
    };
    let file = files::put_in_line(shard, dir, &spare, header, options.flush).await?;
    dir.sync().await?;
    Ok(file)
}

fn no_room(bytes: u64, error: DiskError) -> WalError {
    match error.is_no_space() {
        true => WalError::NoRoom { bytes, error },
        false => WalError::Disk(error),
    }
}

/// A fence to be written, and for whom.
type Fences = Vec<(Owner, Damage)>;

pub(crate) fn describe(found: &Found, replayed: &Replayed) -> (Recovered, Fences) {
    let verdict = &replayed.verdict;
    let mut fences = Fences::new();
    let mut replicas = BTreeMap::new();
    // Fences that follow from a header flag alone are written out as records, too.
    let is_written =
        |replica: &Replica<Bytes>| replica.fence.is_some_and(|(_, location)| location.length > 0);
    for (owner, replica) in
        replayed.index.replicas().iter().filter(|(owner, _)| **owner != LOG_ITSELF)
    {
        let mut recovered = describe_replica(replica);
        if !recovered.tombstone && recovered.damaged.is_none() {
            let damage = replayed.new_damage.first().copied().or_else(|| replica.damage());
            recovered.damaged = damage;
        }
        if let (Some(damage), false) = (recovered.damaged, is_written(replica)) {
            fences.push((*owner, damage));
        }
        replicas.insert(*owner, recovered);
    }
    // With the others' in one frame: what is known of the loss outlasts this start.
    let remembered = replayed.index.replica(LOG_ITSELF).is_some_and(is_written);
    if let (Some(damage), false) = (replayed.lost(), remembered) {
        fences.push((LOG_ITSELF, damage));
    }
    let report = RecoveryReport {
        fresh: found.files.is_empty() && found.unreadable.is_empty(),
        files: found.files.len() as u64,
        frames: verdict.frames.iter().sum(),
        records: replayed.records,
        last_frame: verdict.last,
        stopped: verdict.stopped,
        torn: verdict.torn,
        damage: verdict.damage.clone(),
        lost: replayed.lost(),
        took: Duration::ZERO,
    };
    (Recovered { replicas, report }, fences)
}

fn describe_replica(replica: &Replica<Bytes>) -> RecoveredReplica {
    let state = replica.hard_state.map(|(state, _)| state).unwrap_or_default();
    let mark = |mark: &Marked<Bytes>| (mark.index, mark.term, mark.payload.clone());
    let entry = |(index, entry): (&Index, &Entry<Bytes>)| RecoveredEntry {
        index: *index,
        term: entry.term,
        prefix: entry.payload.clone(),
        location: entry.location,
        pointer: entry.pointer,
    };
    RecoveredReplica {
        hard_state: HardState { commit: replica.commit(), ..state },
        membership: replica.membership.as_ref().map(mark),
        checkpoint: replica.checkpoint.as_ref().map(mark),
        entries: replica.entries.iter().map(entry).collect(),
        tombstone: replica.tombstone.is_some(),
        damaged: replica.fence.map(|(damage, _)| damage),
    }
}

fn build(
    shard: &Shard,
    dir: Dir,
    configured: WalOptions,
    identity: Identity,
    found: Found,
    replayed: Replayed,
    file: LogFile,
) -> Wal {
    let options = configured.fitted_to(replayed.index.longest_bytes());
    let gather = Gather::new(Start {
        file: file.header.sequence,
        file_bytes: file.header.file_bytes,
        next_number: replayed.verdict.last.next(),
        next_file_bytes: options.file_bytes,
        frame_max_bytes: options.frame_max_bytes,
        accept_stale: replay::laxness(shard).accept_stale,
    });
    let current = file.header.sequence;
    let mut log_files = BTreeMap::new();
    for (place, old) in found.files.into_iter().enumerate() {
        if old.header.sequence < current {
            let damaged = replayed.verdict.damaged_files.contains(&place);
            let header = old.header;
            let old = LogFile { damaged, ..LogFile::new(old.name, header, old.file) };
            log_files.insert(header.sequence, old);
        }
    }
    let oldest = log_files.keys().next().copied().unwrap_or(current);
    log_files.insert(current, file);
    let index: LiveIndex<()> = replayed.index.without_payloads();
    let state = State {
        index,
        gather,
        files: log_files,
        spares: found.spares.into_iter().map(|(name, _)| name).collect(),
        moved: BTreeMap::new(),
        current,
        durable: replayed.verdict.last,
        reached: replayed.verdict.last,
        written_up_to: (current, BLOCK_BYTES),
        in_flight: None,
        outbox: VecDeque::new(),
        oldest_declared: oldest,
        declare: None,
        unconfirmed: false,
        poisoned: None,
        stop: Stop::Running,
        refusing: false,
        compact_up_to: FileSequence(0),
        allowance_bytes: 0,
        disk_full: false,
        stats: WalStats::default(),
        histograms: WalHistograms::default(),
    };
    let core = Rc::new(Core::new(shard.clone(), dir, options, configured, identity, state));
    spawn(shard, &core);
    Wal::new(core, found.unreadable)
}

fn spawn(shard: &Shard, core: &Rc<Core>) {
    shard.spawn(guarded(core, writer::run(Rc::clone(core)))).detach();
    shard.spawn(guarded(core, background::run(Rc::clone(core)))).detach();
    shard.spawn(guarded(core, recycle::run(Rc::clone(core)))).detach();
}

/// A task that a stop of the log waits for.
fn guarded(core: &Core, task: impl Future<Output = ()>) -> impl Future<Output = ()> {
    let guard = core.tasks.enter();
    async move {
        task.await;
        drop(guard);
    }
}

/// Who is fenced now is so for ever, and the log goes on from where it ends now.
async fn keep_mark(
    shard: &Shard,
    core: &Rc<Core>,
    mark: Option<Mark>,
    lost_now: bool,
) -> Result<(), WalError> {
    let Some(mut mark) = mark else { return Ok(()) };
    if lost_now {
        let reached = core.state().reached;
        mark.say(core, reached).await?;
    }
    // What a crash left unnamed is named now.
    core.mark_bell.notify_one();
    shard.spawn(guarded(core, reached::run(Rc::clone(core), mark))).detach();
    Ok(())
}

/// Writes fences durably, then puts aside what cannot be read.
async fn settle(wal: &Wal, fences: Fences) -> Result<(), WalError> {
    let core = &wal.core;
    for (owner, damage) in &fences {
        if *owner != LOG_ITSELF {
            tracing::error!(shard = core.shard.id().0, %owner, %damage, "replica fenced");
        }
        core.put(&fence_parts(*owner, damage.encode()), Class::Needed)?;
    }
    if !fences.is_empty() {
        let newest = core.state().gather.newest();
        core.wait_durable(newest).await?;
    }
    for name in wal.unreadable.iter() {
        core.dir.rename(name, &files::damaged_name(name)).await?;
    }
    if !wal.unreadable.is_empty() {
        core.dir.sync().await?;
    }
    Ok(())
}

/// Each start begins a file. So that many of them, one after the other, do not take more and more
/// of the disk, recycling goes first while the log is larger than its budget, if it can.
async fn back_into_budget(core: &Core) -> Result<(), WalError> {
    let options = &core.options;
    core.wait_for(|state| {
        let within = state.used_bytes(options) <= state.budget_bytes(options);
        within || state.disk_full || recycle::candidate(state, options).is_none()
    })
    .await
}

pub(crate) fn fence_parts(owner: Owner, head: crate::record::Head) -> Parts<'static> {
    Parts {
        kind: RecordKind::Fence,
        relocated: false,
        owner,
        index: Index(0),
        term: Term(0),
        head,
        slices: &[],
    }
}
