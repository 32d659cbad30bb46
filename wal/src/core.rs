//! What the handle, the writer and the background tasks of one shard's log share.
//!
//! [`State`] is changed in short synchronous steps only; no borrow of it is held across an await.
//! Order of events for a file: planned by `gather`, prepared (named `*.wal`, durable header),
//! written, and once all that lives in it is restated elsewhere and no frame needs it, retired.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rt::{Dir, Gate, Instant, Mutation, Notify, Shard};

use crate::error::{DiskError, WalError};
use crate::files::LogFile;
use crate::format::{record_bytes, RecordKind};
use crate::gather::{Gather, Pushed};
use crate::histograms::WalHistograms;
use crate::index::LiveIndex;
use crate::options::WalOptions;
use crate::record::Parts;
use crate::types::{FileSequence, FrameNumber, Identity, Location};

/// A durable frame without a successor is confirmed by an empty one after this time.
pub(crate) const CONFIRM_AFTER: Duration = Duration::from_millis(10);
/// A write that is not answered within this time is reported ([`crate::Wal::stalled`]).
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(2);

/// A frame that is durable, with the bytes that were written.
#[derive(Debug, Clone)]
pub struct DurableFrame {
    pub number: FrameNumber,
    /// The whole frame; [`Placed::offset`] counts in it.
    pub bytes: Bytes,
}

/// Where an appended record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The record is durable when this frame is.
    pub frame: FrameNumber,
    /// Of the body in the frame's bytes.
    pub offset: u32,
    pub length: u32,
    /// Of the body in the log.
    pub location: Location,
}

/// Counters since the log was opened, and gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalStats {
    pub frames: u64,
    pub records: u64,
    /// Written to files by frames, padding included.
    pub frame_bytes: u64,
    /// Bodies of the records among them.
    pub body_bytes: u64,
    /// Frames without records: confirmations and declarations.
    pub empty_frames: u64,
    pub relocated_records: u64,
    pub relocated_bytes: u64,
    pub recycled_files: u64,
    /// Log files and spare files on disk.
    pub files: u64,
    pub file_bytes: u64,
    /// Of log files up to the one that gathers.
    pub used_bytes: u64,
    pub live_bytes_oldest: u64,
    /// How long the frame in flight has been unanswered.
    pub in_flight: Option<Duration>,
}

pub(crate) struct Core {
    pub shard: Shard,
    pub dir: Dir,
    /// As configured, but for what records from before need ([`WalOptions::fitted_to`]).
    pub options: WalOptions,
    /// What is appended anew obeys these: how large it may be depends on no older record.
    pub configured: WalOptions,
    pub identity: Identity,
    state: RefCell<State>,
    /// Something to write, or stop.
    pub writer_bell: Notify,
    /// A file is wanted, or room was made.
    pub preparer_bell: Notify,
    /// A file may have become recyclable.
    pub recycler_bell: Notify,
    /// The log may run short of room; one listener.
    pub pressure_bell: Notify,
    /// There may be room for data again.
    pub room_bell: Notify,
    /// A frame was handed out, or the log ended; one consumer.
    pub frame_bell: Notify,
    /// A frame is durable that the file `reached` does not name yet.
    pub mark_bell: Notify,
    /// The log begins to stop, has stopped, or is poisoned; for who names the last frame.
    pub end_bell: Notify,
    /// For everyone else who waits: durable frames, prepared files, poison, stop.
    pub change: Notify,
    /// The tasks are inside.
    pub tasks: Gate,
    pub last_written: Cell<Instant>,
}

pub(crate) struct State {
    pub index: LiveIndex<()>,
    pub gather: Gather,
    /// Log files by sequence, prepared ones included; the first is the oldest.
    pub files: BTreeMap<FileSequence, LogFile>,
    pub spares: VecDeque<String>,
    /// Where relocated records went, so that locations given out stay good. An old place is
    /// forgotten when the file of the new one goes and the record has not moved on.
    pub moved: BTreeMap<Location, Location>,
    /// The file that the writer writes to.
    pub current: FileSequence,
    pub durable: FrameNumber,
    /// The last durable frame with a record in it: what must not be lost.
    pub reached: FrameNumber,
    /// The end of the last durable frame: records before it can be read back.
    pub written_up_to: (FileSequence, u64),
    pub in_flight: Option<(FrameNumber, Instant)>,
    pub outbox: VecDeque<DurableFrame>,
    /// The oldest file that frames written from now on say they need.
    pub oldest_declared: FileSequence,
    /// The first frame that says so; wanted even without records.
    pub declare: Option<FrameNumber>,
    /// The last frame had records, and nothing after it says that it is durable.
    pub unconfirmed: bool,
    pub poisoned: Option<DiskError>,
    pub stop: Stop,
    /// Data was refused for want of room, and no room has been made since.
    pub refusing: bool,
    /// Files up to this one are recycled for room whatever lives in them: nobody makes them dead.
    pub compact_up_to: FileSequence,
    /// What the log may take at least, for what lives in it (`recycle.rs`).
    pub allowance_bytes: u64,
    /// The file system was full when a file was to be made: only files that exist count.
    pub disk_full: bool,
    pub stats: WalStats,
    pub histograms: WalHistograms,
}

/// What a record is for, which says whether it can be refused.
///
/// Data stops while [`RESERVED_FILES`] whole files of the budget are free. Everything else is
/// needed to make older log dead and to state again what lives in it, or is a decision of Raft
/// that cannot be given back: it is never refused. It takes the reserved files and, should those
/// not do, further ones beyond the budget, which go again when they are recycled. See
/// `recycle.rs` for why the log always comes back to taking data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Data,
    /// Votes, memberships, reserved entries, checkpoints, truncations, tombstones, fences, and
    /// whatever is relocated.
    Needed,
}

/// Whole files that data leaves free: one for votes and checkpoints, one for relocation.
pub(crate) const RESERVED_FILES: u64 = 2;

/// How far stopping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    Running,
    /// No further records; the writer finishes what is gathered.
    Asked,
    /// The last frame is planned or written.
    Sealed,
    Done,
}

impl Core {
    pub fn new(
        shard: Shard,
        dir: Dir,
        options: WalOptions,
        configured: WalOptions,
        identity: Identity,
        state: State,
    ) -> Core {
        Core {
            shard,
            dir,
            options,
            configured,
            identity,
            state: RefCell::new(state),
            writer_bell: Notify::new(),
            preparer_bell: Notify::new(),
            recycler_bell: Notify::new(),
            pressure_bell: Notify::new(),
            room_bell: Notify::new(),
            frame_bell: Notify::new(),
            mark_bell: Notify::new(),
            end_bell: Notify::new(),
            change: Notify::new(),
            tasks: Gate::new(),
            last_written: Cell::new(Instant::ZERO),
        }
    }

    pub fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    pub fn state_mut(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub fn broken(&self, mutation: Mutation) -> bool {
        self.shard.broken(mutation)
    }

    /// Appends a record, if there is room for one of its class.
    pub fn put(&self, parts: &Parts<'_>, class: Class) -> Result<Placed, WalError> {
        let mut state = self.state_mut();
        let max = match parts.relocated {
            true => self.options.record_max_bytes(),
            false => self.configured.record_max_bytes(),
        };
        if let Err(error) = state.admit(parts, class, max, &self.options) {
            drop(state);
            if error == WalError::Exhausted {
                self.refuse();
            }
            return Err(error);
        }
        let planned = state.gather.file();
        let pushed = state.gather.push(&self.shard, parts);
        let Pushed { header, frame, offset, location } = pushed;
        state.index.apply(&header, location, parts.head.bytes(), ());
        state.stats.records += 1;
        state.stats.body_bytes += u64::from(location.length);
        if header.relocated {
            state.stats.relocated_records += 1;
            state.stats.relocated_bytes += u64::from(location.length);
        }
        let begun = state.gather.file() != planned;
        let unprepared = !state.files.contains_key(&state.gather.file().next());
        drop(state);
        if begun {
            self.pressure_bell.notify_one();
        }
        self.writer_bell.notify_one();
        if unprepared {
            self.preparer_bell.notify_one();
        }
        Ok(Placed { frame, offset, length: location.length, location })
    }

    /// Data is refused: whoever can make room is to hurry.
    pub fn refuse(&self) {
        self.state_mut().refusing = true;
        self.recycler_bell.notify_one();
        self.pressure_bell.notify_one();
    }

    /// There is more room than there was.
    pub fn has_gained_room(&self) {
        self.state_mut().refusing = false;
        self.recycler_bell.notify_one();
        self.room_bell.notify_all();
        self.change.notify_all();
    }

    /// Nothing will be written any more. The first error stands.
    pub fn poison(&self, error: impl Into<DiskError>) {
        let error = error.into();
        tracing::error!(shard = self.shard.id().0, %error, "the write-ahead log is poisoned");
        self.state_mut().poisoned.get_or_insert(error);
        self.ring_all();
    }

    pub fn ring_all(&self) {
        self.writer_bell.notify_one();
        self.preparer_bell.notify_one();
        self.recycler_bell.notify_one();
        self.frame_bell.notify_one();
        self.end_bell.notify_one();
        self.pressure_bell.notify_one();
        self.room_bell.notify_all();
        self.change.notify_all();
    }

    /// Waits until a frame is durable.
    pub async fn wait_durable(&self, frame: FrameNumber) -> Result<(), WalError> {
        self.wait_for(|state| state.durable >= frame).await
    }

    /// Waits until a condition holds that only durable frames and prepared files bring about.
    pub async fn wait_for(&self, holds: impl Fn(&State) -> bool) -> Result<(), WalError> {
        loop {
            let changed = self.change.notified();
            {
                let state = self.state();
                if holds(&state) {
                    return Ok(());
                }
                state.check_alive()?;
            }
            changed.await;
        }
    }

    /// Files are prepared as long as frames are written.
    pub fn preparing(&self) -> bool {
        let state = self.state();
        state.poisoned.is_none() && state.stop != Stop::Done
    }

    /// Recycling and filling end when this turns false.
    pub fn running(&self) -> bool {
        let state = self.state();
        state.poisoned.is_none() && state.stop == Stop::Running
    }
}

impl State {
    /// An error if nothing will become durable any more.
    pub fn check_alive(&self) -> Result<(), WalError> {
        match &self.poisoned {
            Some(error) => Err(WalError::Poisoned(error.clone())),
            None if self.stop == Stop::Done => Err(WalError::Stopped),
            None => Ok(()),
        }
    }

    fn admit(
        &self,
        parts: &Parts<'_>,
        class: Class,
        max: u64,
        options: &WalOptions,
    ) -> Result<(), WalError> {
        self.check_alive()?;
        if self.stop != Stop::Running {
            return Err(WalError::Stopped);
        }
        let body_length = parts.body_length();
        let bytes = record_bytes(body_length) as u64;
        if bytes > max {
            return Err(WalError::TooLarge { bytes, max });
        }
        let replica = self.index.replica(parts.owner);
        if replica.is_some_and(|replica| replica.tombstone.is_some())
            && parts.kind != RecordKind::Tombstone
        {
            return Err(WalError::Tombstoned(parts.owner));
        }
        if class == Class::Data && !self.has_data_room(body_length, options) {
            return Err(WalError::Exhausted);
        }
        if matches!(parts.kind, RecordKind::Append | RecordKind::Pointer) && !parts.relocated {
            self.check_order(parts);
        }
        Ok(())
    }

    /// Whether data with such a body leaves the reserved files alone.
    fn has_data_room(&self, body_length: usize, options: &WalOptions) -> bool {
        let begun = u64::from(self.gather.switches_file(body_length));
        self.free_files(options) >= RESERVED_FILES + begun
    }

    /// How many bytes of data would be taken now, about.
    pub fn data_room_bytes(&self, options: &WalOptions) -> u64 {
        match self.free_files(options).checked_sub(RESERVED_FILES) {
            Some(files) => files * options.file_bytes + self.gather.room_in_file(),
            None => 0,
        }
    }

    /// Whether a frame without records finds room, and does not wait for a file to be made.
    pub fn has_room_for_empty(&self, options: &WalOptions) -> bool {
        let next = self.gather.file().next();
        let next_is_ready = || self.files.contains_key(&next) && self.free_files(options) > 0;
        !self.gather.empty_switches_file() || next_is_ready()
    }

    /// A file goes: places that led into it lead to where its records went.
    pub fn forget_moves_into(&mut self, file: FileSequence) {
        let moved = &mut self.moved;
        let stale: Vec<(Location, Option<Location>)> = moved
            .iter()
            .filter(|(_, new)| new.file == file)
            .map(|(old, new)| (*old, moved.get(new).copied()))
            .collect();
        for (old, newer) in stale {
            match newer {
                Some(newer) => moved.insert(old, newer),
                None => moved.remove(&old),
            };
        }
    }

    /// A caller that leaves out an entry, or goes back in terms, has lost its mind: fail-stop.
    fn check_order(&self, parts: &Parts<'_>) {
        let (owner, index, term) = (parts.owner, parts.index, parts.term);
        let Some(replica) = self.index.replica(owner) else { return };
        let Some(last) = replica.last_index() else { return };
        let checkpoint = replica.checkpoint.as_ref().map(|mark| mark.index);
        assert!(index <= last.next(), "{owner}: entry {index} appended after {last}");
        assert!(Some(index) > checkpoint, "{owner}: entry {index} lies below its checkpoint");
        let before = replica.entries.range(..index).next_back().map(|(_, entry)| entry.term);
        let before = before.or(replica.checkpoint.as_ref().map(|mark| mark.term));
        assert!(
            Some(term) >= before,
            "{owner}: entry {index} has a lower term than the one before"
        );
    }

    /// Bytes of log files up to the one that gathers, made already or not.
    pub fn used_bytes(&self, options: &WalOptions) -> u64 {
        let planned = self.gather.file();
        let made: u64 = self.files.range(..=planned).map(|(_, file)| file.header.file_bytes).sum();
        let newest = self.files.last_key_value().map_or(planned, |(sequence, _)| *sequence);
        made + planned.0.saturating_sub(newest.0) * options.file_bytes
    }

    /// Bytes of all files that exist.
    pub fn total_bytes(&self, options: &WalOptions) -> u64 {
        let files: u64 = self.files.values().map(|file| file.header.file_bytes).sum();
        files + self.spares.len() as u64 * options.file_bytes
    }

    pub fn limit_bytes(&self, options: &WalOptions) -> u64 {
        if self.disk_full {
            self.total_bytes(options)
        } else {
            self.budget_bytes(options)
        }
    }

    /// What all files may take: the budget, or more if what lives leaves no room in it.
    pub fn budget_bytes(&self, options: &WalOptions) -> u64 {
        options.budget_bytes.max(self.allowance_bytes)
    }

    /// Whole files that could still be begun.
    pub fn free_files(&self, options: &WalOptions) -> u64 {
        let used = self.used_bytes(options);
        self.limit_bytes(options).saturating_sub(used) / options.file_bytes
    }

    pub fn oldest(&self) -> Option<&LogFile> {
        self.files.first_key_value().map(|(_, file)| file)
    }
}
