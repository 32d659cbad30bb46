//! The handle of a shard's log: append, wait, read, stop. See the crate's page for the order in
//! which to call it. One log per shard; the handle is cheap to clone and stays on its shard.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rt::{Dir, Shard};

use crate::core::{Class, Core, DurableFrame, Placed, Stop, WalStats, STALLED_AFTER};
use crate::error::WalError;
use crate::files::LogFile;
use crate::histograms::WalHistograms;
use crate::options::WalOptions;
use crate::record::{acceptance, Damage, PayloadDurable, RecordRef};
use crate::recover::{self, Recovered};
use crate::recycle;
use crate::types::{FrameNumber, HardState, Identity, Index, Location, Owner, Term, LOG_ITSELF};

/// How urgently the layers above should make older log dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing to do.
    None,
    /// Room gets short: checkpoint the owners of [`Wal::oldest_live_owners`].
    Flush,
    /// As before, and data is refused with [`WalError::Exhausted`] now.
    Refusing,
}

/// A shard's write-ahead log.
#[derive(Clone)]
pub struct Wal {
    pub(crate) core: Rc<Core>,
    /// Files that recovery could not read; it puts them aside.
    pub(crate) unreadable: Rc<[String]>,
}

impl Wal {
    /// Recovers the log in `dir` and opens it. When this returns, all it tells is durable.
    pub async fn open(
        shard: &Shard,
        dir: Dir,
        options: WalOptions,
        identity: Identity,
    ) -> Result<(Wal, Recovered), WalError> {
        recover::open(shard, dir, options, identity).await
    }

    pub(crate) fn new(core: Rc<Core>, unreadable: Vec<String>) -> Wal {
        Wal { core, unreadable: unreadable.into() }
    }

    /// Copies a record into the gathering frame. It is durable when [`Placed::frame`] is.
    /// Data is refused with [`WalError::Exhausted`] when only the reserved files of the budget are
    /// left, and nothing has changed then. Nothing else is ever refused for want of room.
    ///
    /// # Panics
    /// If an entry leaves a gap after the owner's last one, lies at or below its checkpoint, or
    /// has a lower term than the entry before it.
    pub fn append(&self, record: RecordRef<'_>) -> Result<Placed, WalError> {
        self.append_checked(record, record.class())
    }

    /// As [`Self::append`], but an entry is never refused for want of room: for entries that make
    /// room, that the group cannot do without (log starts, membership, an election's empty entry),
    /// or that were admitted by [`Self::has_data_room`] and are bound since.
    pub fn append_reserved(&self, record: RecordRef<'_>) -> Result<Placed, WalError> {
        self.append_checked(record, Class::Needed)
    }

    /// As [`Self::append_reserved`], for a pointer whose payload is being written: its frame is
    /// written when `payload` says that it is durable, so a pointer that can be replayed never
    /// names anything else. A payload that fails poisons the log.
    pub fn append_pointer(
        &self,
        record: RecordRef<'_>,
        payload: PayloadDurable,
    ) -> Result<Placed, WalError> {
        assert!(
            matches!(record, RecordRef::Pointer { .. }),
            "only a pointer has its payload apart"
        );
        let placed = self.append_reserved(record)?;
        self.core.state_mut().gather.await_payload(payload);
        Ok(placed)
    }

    fn append_checked(&self, record: RecordRef<'_>, class: Class) -> Result<Placed, WalError> {
        if let RecordRef::Checkpoint { owner, index, term, .. } = record {
            if self.core.state().index.conflicts(owner, index, term) {
                // Cut explicitly, so that replay cuts the same without having to judge.
                let cut = RecordRef::Truncate { owner, from: index.next(), term };
                self.core.put(&cut.parts(), Class::Needed)?;
            }
        }
        self.core.put(&record.parts(), class)
    }

    /// The frame that the next record goes to, unless it is full by then.
    pub fn gathering(&self) -> FrameNumber {
        self.core.state().gather.gathering()
    }

    /// The last frame with a record in it: when it is durable, all is that was appended so far.
    pub fn newest(&self) -> FrameNumber {
        self.core.state().gather.newest()
    }

    /// All frames up to this one are durable.
    pub fn durable(&self) -> FrameNumber {
        self.core.state().durable
    }

    /// The next frame with records that has become durable, in order. For one consumer, the
    /// group driver; frames are kept until it takes them.
    pub async fn next_durable(&self) -> Result<DurableFrame, WalError> {
        loop {
            {
                let mut state = self.core.state_mut();
                if let Some(frame) = state.outbox.pop_front() {
                    return Ok(frame);
                }
                state.check_alive()?;
            }
            self.core.frame_bell.notified().await;
        }
    }

    /// Drops the durable frames that nobody took: where there is no consumer.
    pub(crate) fn discard_frames(&self) {
        self.core.state_mut().outbox.clear();
    }

    /// Waits until `frame` and all before it are durable.
    pub async fn wait_durable(&self, frame: FrameNumber) -> Result<(), WalError> {
        self.core.wait_durable(frame).await
    }

    /// Where a live entry's body stands now; relocation moves it.
    pub fn locate(&self, owner: Owner, index: Index) -> Option<Location> {
        self.core.state().index.entry(owner, index).map(|entry| entry.location)
    }

    /// The body of a live record, checked. Waits until it is durable if it is not yet. A location
    /// stays good while its record lives: relocation is followed.
    pub async fn read(&self, location: Location) -> Result<Bytes, WalError> {
        let place = loop {
            let changed = self.core.change.notified();
            if let Some(place) = self.readable(location)? {
                break place;
            }
            changed.await;
        };
        let (file, place) = place;
        // Nothing was awaited since the file was found open for readers.
        let _reading = file.readers.enter().ok_or(WalError::Gone(location))?;
        recycle::read_body(&self.core.shard, &file.file, place).await
    }

    /// Where the record can be read now; `None` if it is not durable yet.
    fn readable(&self, location: Location) -> Result<Option<(LogFile, Location)>, WalError> {
        let state = self.core.state();
        state.check_alive()?;
        let mut place = location;
        loop {
            match state.files.get(&place.file) {
                Some(file) if !file.readers.is_closed() => {
                    let written = state.written_up_to > (place.file, place.position);
                    return Ok(written.then(|| (file.clone(), place)));
                }
                // Planned, but not prepared yet.
                None if place.file > state.current => return Ok(None),
                _ => place = *state.moved.get(&place).ok_or(WalError::Gone(location))?,
            }
        }
    }

    /// The body of a live entry, wherever relocation has moved it. `None` if it is not live.
    pub async fn read_entry(&self, owner: Owner, index: Index) -> Result<Option<Bytes>, WalError> {
        while let Some(location) = self.locate(owner, index) {
            match self.read(location).await {
                Err(WalError::Gone(_)) => {}
                body => return body.map(Some),
            }
        }
        Ok(None)
    }

    /// Forgets a removed replica: its tombstone dies with its file. To be called when nothing
    /// can ask for the replica again (`__meta`'s checkpoint has passed its removal).
    pub fn forget(&self, owner: Owner) -> bool {
        self.core.state_mut().index.forget(owner)
    }

    /// An operator accepts what a replica may have lost. Its log is cut at a gap, its commit
    /// lowered to its last entry; the fence is gone when the returned frame is durable. The
    /// running replica does not change: it must be opened again, from a new recovery.
    pub fn accept_damage(&self, owner: Owner) -> Result<Placed, WalError> {
        let damage = self.core.state().index.replica(owner).and_then(|replica| replica.damage());
        if let Some(Damage::Gap { expected, .. }) = damage {
            let cut = RecordRef::Truncate { owner, from: expected, term: Term(0) };
            self.core.put(&cut.parts(), Class::Needed)?;
        }
        let state = self.core.state().index.replica(owner).and_then(|replica| {
            let (state, _) = replica.hard_state?;
            let last = replica.last_index().unwrap_or_default();
            (state.commit > last).then_some(HardState { commit: last, ..state })
        });
        if let Some(state) = state {
            self.core.put(&RecordRef::HardState { owner, state }.parts(), Class::Needed)?;
        }
        self.core.put(&recover::fence_parts(owner, acceptance()), Class::Needed)
    }

    /// Fences a replica for a reason that the layer above has found.
    pub fn fence(&self, owner: Owner, damage: Damage) -> Result<Placed, WalError> {
        self.core.put(&recover::fence_parts(owner, damage.encode()), Class::Needed)
    }

    /// Whoever may have been in what [`crate::RecoveryReport::lost`] tells of is fenced now: a replica
    /// that the log does not know from here on is a new one. Stands behind their fences in the log,
    /// so it is never durable without them.
    pub fn loss_is_settled(&self) -> Result<Placed, WalError> {
        self.core.put(&recover::fence_parts(LOG_ITSELF, acceptance()), Class::Needed)
    }

    /// The longest body that a record can have: [`WalError::TooLarge`] beyond it.
    pub fn body_max_bytes(&self) -> u64 {
        self.core.configured.body_max_bytes()
    }

    /// Bytes gathered that no frame has taken yet.
    pub fn backlog_bytes(&self) -> u64 {
        self.core.state().gather.backlog_bytes()
    }

    /// Owners with entries in the oldest files: the flusher makes room by advancing their
    /// checkpoints. The oldest file's owners come first.
    pub fn oldest_live_owners(&self, at_most: usize) -> Vec<Owner> {
        let state = self.core.state();
        let mut owners = Vec::new();
        for file in state.files.keys().filter(|file| **file < state.gather.file()) {
            let Some(live) = state.index.file(*file) else { continue };
            for (owner, records) in &live.owners {
                let replica = state.index.replica(*owner);
                let lasting = replica.map_or(0, |replica| replica.lasting_in(*file));
                if *records > lasting && !owners.contains(owner) {
                    owners.push(*owner);
                }
                if owners.len() == at_most {
                    return owners;
                }
            }
        }
        owners
    }

    /// See [`Pressure`].
    pub fn pressure(&self) -> Pressure {
        let state = self.core.state();
        let options = &self.core.options;
        let files = state.budget_bytes(options) / options.file_bytes;
        match state.free_files(options) {
            _ if state.refusing => Pressure::Refusing,
            free if free <= files / 2 => Pressure::Flush,
            _ => Pressure::None,
        }
    }

    /// Whether so many bytes of data would be taken now. For who must know before it is bound:
    /// what Raft has accepted cannot be given back. If not, the log hurries to make room.
    pub fn has_data_room(&self, bytes: u64) -> bool {
        let room = self.core.state().data_room_bytes(&self.core.options);
        if bytes > room {
            self.core.refuse();
        }
        bytes <= room
    }

    /// Nobody can make older log dead now: what lives must. If data is refused all the same, every
    /// file is recycled whatever lives in it, and where what lives leaves no room in the budget,
    /// the log takes more. To be called by whoever flushes, when nothing of data is in flight;
    /// not while segments cannot be written, or the log would grow with all that is appended.
    pub fn nothing_to_flush(&self) {
        recycle::go_on_with_what_lives(&self.core);
    }

    /// Resolves when there may be room for data again, or the log has ended.
    pub async fn gains_room(&self) {
        self.core.room_bell.notified().await;
    }

    /// Resolves when [`Self::pressure`] may have risen. For one listener, the flusher.
    pub async fn pressure_may_rise(&self) {
        self.core.pressure_bell.notified().await;
    }

    /// Since when a write has been unanswered, if that is longer than two seconds: the disk does
    /// not keep up, and leaderships should go elsewhere.
    pub fn stalled(&self) -> Option<Duration> {
        self.in_flight().filter(|since| *since >= STALLED_AFTER)
    }

    fn in_flight(&self) -> Option<Duration> {
        let (_, since) = self.core.state().in_flight?;
        Some(self.core.shard.now().saturating_since(since))
    }

    /// The error that poisoned the log, if one did.
    pub fn poisoned(&self) -> Option<WalError> {
        self.core.state().poisoned.clone().map(WalError::Poisoned)
    }

    /// Whether [`Self::stop`] was called: what is refused since then is no failure of the log,
    /// unless it is [`Self::poisoned`] as well.
    pub fn is_stopped(&self) -> bool {
        self.core.state().stop != Stop::Running
    }

    pub fn stats(&self) -> WalStats {
        let state = self.core.state();
        let options = &self.core.options;
        let oldest = state.oldest().map(|file| file.header.sequence).unwrap_or_default();
        WalStats {
            files: (state.files.len() + state.spares.len()) as u64,
            file_bytes: state.total_bytes(options),
            used_bytes: state.used_bytes(options),
            live_bytes_oldest: state.index.live_bytes(oldest),
            in_flight: self.in_flight(),
            ..state.stats
        }
    }

    /// How long frames took and how large they were, since the log was opened.
    pub fn histograms(&self) -> WalHistograms {
        self.core.state().histograms.clone()
    }

    /// Writes what is gathered and a last frame that confirms it, then ends. Records are refused
    /// from now on. After a poisoning it only ends.
    pub async fn stop(&self) {
        {
            let mut state = self.core.state_mut();
            if state.stop == Stop::Running {
                state.stop = Stop::Asked;
            }
        }
        self.core.ring_all();
        self.core.tasks.close().await;
    }
}
