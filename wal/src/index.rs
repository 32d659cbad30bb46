//! Which records are live, and where: by replica for recovery and reads, by file for recycling.
//!
//! A pure state machine: [`LiveIndex::apply`] takes records in log order, both while they are
//! appended and while they are replayed, so that a replayed log gives the index that the running
//! one had. Relocated entries come back out of order (an entry's old file is gone, its
//! neighbours' is not), so entries are kept in an ordered map, and gaps are judged at the end.
//! `P` is what replay wants to remember of a record's body; the running index remembers nothing.
//! Never reads the disk; one per shard.

use std::collections::BTreeMap;

use crate::format::{record_bytes, RecordHeader, RecordKind};
use crate::record::Damage;
use crate::types::{FileSequence, HardState, Index, Location, Owner, ReplicaId, Term};

/// A live record that stands at an index and term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked<P> {
    pub index: Index,
    pub term: Term,
    pub location: Location,
    pub payload: P,
}

/// A live entry; its index is its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<P> {
    pub term: Term,
    pub location: Location,
    /// The record is a pointer, not the payload.
    pub pointer: bool,
    pub payload: P,
}

/// What is live of one replica. Entries lie above the checkpoint, and their terms never fall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica<P> {
    pub hard_state: Option<(HardState, Location)>,
    pub membership: Option<Marked<P>>,
    pub checkpoint: Option<Marked<P>>,
    pub entries: BTreeMap<Index, Entry<P>>,
    pub tombstone: Option<Location>,
    pub fence: Option<(Damage, Location)>,
}

impl<P> Default for Replica<P> {
    fn default() -> Self {
        Replica {
            hard_state: None,
            membership: None,
            checkpoint: None,
            entries: BTreeMap::new(),
            tombstone: None,
            fence: None,
        }
    }
}

impl<P> Replica<P> {
    /// The index up to which this replica's log reaches; `None` before its first record.
    pub fn last_index(&self) -> Option<Index> {
        let entry = self.entries.last_key_value().map(|(index, _)| *index);
        entry.max(self.checkpoint.as_ref().map(|checkpoint| checkpoint.index))
    }

    /// The larger of what the hard state and the checkpoint know to be committed.
    pub fn commit(&self) -> Index {
        let told = self.hard_state.map_or(Index(0), |(state, _)| state.commit);
        told.max(self.checkpoint.as_ref().map_or(Index(0), |checkpoint| checkpoint.index))
    }

    /// Whether a record above the log's reach has been lost, judged at the end of a replay.
    pub fn damage(&self) -> Option<Damage> {
        if self.tombstone.is_some() {
            return None;
        }
        let mut expected = self.checkpoint.as_ref().map(|checkpoint| checkpoint.index.next());
        for found in self.entries.keys().copied() {
            let expected_here = expected.unwrap_or(found);
            if found != expected_here {
                return Some(Damage::Gap { expected: expected_here, found });
            }
            expected = Some(found.next());
        }
        let last = self.last_index().unwrap_or_default();
        let commit = self.commit();
        (commit > last).then_some(Damage::CommitBeyondLog { commit, last })
    }

    /// Live records in a file that no checkpoint of the flusher makes dead for good.
    pub fn lasting_in(&self, file: FileSequence) -> u32 {
        let marks = self.membership.iter().chain(&self.checkpoint).map(|mark| mark.location);
        let state = self.hard_state.iter().map(|(_, location)| *location);
        let fence = self.fence.iter().map(|(_, location)| *location);
        let lasting = marks.chain(state).chain(fence).chain(self.tombstone);
        lasting.filter(|location| location.file == file).count() as u32
    }

    /// Every live location, in the order in which relocation restates them.
    fn locations(&self) -> impl Iterator<Item = Location> + '_ {
        let state = self.hard_state.iter().map(|(_, location)| *location);
        let marks = self.membership.iter().chain(&self.checkpoint).map(|mark| mark.location);
        let entries = self.entries.values().map(|entry| entry.location);
        let fence = self.fence.iter().map(|(_, location)| *location);
        state.chain(marks).chain(entries).chain(self.tombstone).chain(fence)
    }
}

/// The live records of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileLive {
    pub bytes: u64,
    /// Live records of each owner that has any.
    pub owners: BTreeMap<Owner, u32>,
}

/// The live records of a shard's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveIndex<P> {
    replicas: BTreeMap<Owner, Replica<P>>,
    files: Files,
}

/// The live records of every file that has any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Files(BTreeMap<FileSequence, FileLive>);

impl<P> Default for LiveIndex<P> {
    fn default() -> Self {
        LiveIndex { replicas: BTreeMap::new(), files: Files::default() }
    }
}

impl<P> LiveIndex<P> {
    pub fn replicas(&self) -> &BTreeMap<Owner, Replica<P>> {
        &self.replicas
    }

    pub fn replica(&self, owner: Owner) -> Option<&Replica<P>> {
        self.replicas.get(&owner)
    }

    pub fn entry(&self, owner: Owner, index: Index) -> Option<&Entry<P>> {
        self.replicas.get(&owner)?.entries.get(&index)
    }

    pub fn file(&self, file: FileSequence) -> Option<&FileLive> {
        self.files.0.get(&file)
    }

    pub fn live_bytes(&self, file: FileSequence) -> u64 {
        self.files.0.get(&file).map_or(0, |live| live.bytes)
    }

    /// Live bytes of each file that has any.
    pub fn live_by_file(&self) -> impl Iterator<Item = u64> + '_ {
        self.files.0.values().map(|live| live.bytes)
    }

    /// Bytes of the longest live record.
    pub fn longest_bytes(&self) -> u64 {
        let locations = self.replicas.values().flat_map(Replica::locations);
        locations.map(|location| record_bytes(location.length as usize) as u64).max().unwrap_or(0)
    }

    /// Whether the record whose body lies at `location` is live.
    pub fn is_live(&self, header: &RecordHeader, location: Location) -> bool {
        let Some(replica) = self.replicas.get(&header.owner) else { return false };
        let live = match header.kind {
            RecordKind::Append | RecordKind::Relocated | RecordKind::Pointer => {
                replica.entries.get(&header.index).map(|entry| entry.location)
            }
            RecordKind::HardState => replica.hard_state.map(|(_, location)| location),
            RecordKind::Membership => replica.membership.as_ref().map(|mark| mark.location),
            RecordKind::Checkpoint => replica.checkpoint.as_ref().map(|mark| mark.location),
            RecordKind::Tombstone => replica.tombstone,
            RecordKind::Fence => replica.fence.map(|(_, location)| location),
            RecordKind::Truncate => None,
        };
        live == Some(location)
    }

    /// Takes the next record of the log. `body` is empty or whole for kinds whose body the log
    /// defines (hard state, fence).
    pub fn apply(&mut self, header: &RecordHeader, location: Location, body: &[u8], payload: P) {
        let owner = header.owner;
        let replica = self.replicas.entry(owner).or_default();
        if replica.tombstone.is_none() {
            replica.apply(&mut self.files, header, location, body, payload);
        } else if header.kind == RecordKind::Tombstone {
            let old = replica.tombstone.replace(location);
            self.files.replace(owner, old, location);
        }
    }

    /// Whether a checkpoint at this index and term contradicts the entries above it.
    pub fn conflicts(&self, owner: Owner, index: Index, term: Term) -> bool {
        let Some(replica) = self.replicas.get(&owner) else { return false };
        let mut above = replica.entries.range(index.next()..);
        above.next().is_some_and(|(_, entry)| entry.term < term)
    }

    /// Fences a replica by what a file header says, not by a record.
    pub fn fence(&mut self, owner: Owner, damage: Damage, location: Location) {
        let replica = self.replicas.entry(owner).or_default();
        let old = replica.fence.replace((damage, location));
        self.files.replace(owner, old.map(|(_, location)| location), location);
    }

    /// Forgets a removed replica, so that its tombstone dies with its file.
    pub fn forget(&mut self, owner: Owner) -> bool {
        match self.replicas.get(&owner).and_then(|replica| replica.tombstone) {
            Some(location) => {
                self.replicas.remove(&owner);
                self.files.release(owner, Some(location));
                true
            }
            None => false,
        }
    }

    /// Splits off what replay remembered of the bodies, and leaves the running index.
    pub fn without_payloads(self) -> LiveIndex<()> {
        let bare = |mark: Marked<P>| Marked {
            index: mark.index,
            term: mark.term,
            location: mark.location,
            payload: (),
        };
        let strip = |entry: Entry<P>| Entry {
            term: entry.term,
            location: entry.location,
            pointer: entry.pointer,
            payload: (),
        };
        let replicas = self.replicas.into_iter().map(|(owner, replica)| {
            let entries = replica.entries.into_iter();
            let replica = Replica {
                hard_state: replica.hard_state,
                membership: replica.membership.map(bare),
                checkpoint: replica.checkpoint.map(bare),
                entries: entries.map(|(index, entry)| (index, strip(entry))).collect(),
                tombstone: replica.tombstone,
                fence: replica.fence,
            };
            (owner, replica)
        });
        LiveIndex { replicas: replicas.collect(), files: self.files }
    }
}

/// How a record changes its replica and the accounts of the files.
impl<P> Replica<P> {
    fn apply(
        &mut self,
        files: &mut Files,
        header: &RecordHeader,
        location: Location,
        body: &[u8],
        payload: P,
    ) {
        let (owner, index, term) = (header.owner, header.index, header.term);
        let mark = |payload| Marked { index, term, location, payload };
        match header.kind {
            RecordKind::Append => {
                self.cut(files, owner, index);
                self.insert(files, header, location, payload);
            }
            RecordKind::Pointer => {
                if !header.relocated {
                    self.cut(files, owner, index);
                }
                self.insert(files, header, location, payload);
            }
            RecordKind::Relocated => self.insert(files, header, location, payload),
            RecordKind::Truncate => self.cut(files, owner, index),
            RecordKind::HardState => {
                let state = HardState { term, vote: vote_of(body), commit: index };
                let old = self.hard_state.replace((state, location));
                files.replace(owner, old.map(|(_, location)| location), location);
            }
            RecordKind::Membership => {
                let old = self.membership.replace(mark(payload));
                files.replace(owner, old.map(|mark| mark.location), location);
            }
            RecordKind::Checkpoint => {
                let old = self.checkpoint.replace(mark(payload));
                files.replace(owner, old.map(|mark| mark.location), location);
                self.drop_below(files, owner, index, term);
            }
            RecordKind::Tombstone => {
                for old in self.locations() {
                    files.release(owner, Some(old));
                }
                *self = Replica { tombstone: Some(location), ..Replica::default() };
                files.hold(owner, location);
            }
            RecordKind::Fence => {
                files.release(owner, self.fence.take().map(|(_, location)| location));
                if let Some(damage) = Damage::decode(body).unwrap_or(Some(Damage::FoundBefore)) {
                    self.fence = Some((damage, location));
                    files.hold(owner, location);
                }
            }
        }
    }

    fn insert(&mut self, files: &mut Files, header: &RecordHeader, location: Location, payload: P) {
        if self.checkpoint.as_ref().is_some_and(|mark| header.index <= mark.index) {
            return;
        }
        let pointer = header.kind == RecordKind::Pointer;
        let entry = Entry { term: header.term, location, pointer, payload };
        let old = self.entries.insert(header.index, entry);
        files.replace(header.owner, old.map(|entry| entry.location), location);
    }

    /// Cuts the entries from `from` on.
    fn cut(&mut self, files: &mut Files, owner: Owner, from: Index) {
        while let Some(last) = self.entries.last_entry() {
            if *last.key() < from {
                break;
            }
            files.release(owner, Some(last.remove().location));
        }
    }

    /// Drops what a checkpoint makes dead: entries up to it, and the whole rest of a log that
    /// goes on with a lower term, because such a log never held the checkpoint's entry.
    fn drop_below(&mut self, files: &mut Files, owner: Owner, index: Index, term: Term) {
        while let Some(first) = self.entries.first_entry() {
            if *first.key() > index {
                break;
            }
            files.release(owner, Some(first.remove().location));
        }
        if self.entries.first_key_value().is_some_and(|(_, entry)| entry.term < term) {
            self.cut(files, owner, index.next());
        }
    }
}

impl Files {
    fn replace(&mut self, owner: Owner, old: Option<Location>, new: Location) {
        self.release(owner, old);
        self.hold(owner, new);
    }

    fn hold(&mut self, owner: Owner, location: Location) {
        let file = self.0.entry(location.file).or_default();
        file.bytes += record_bytes(location.length as usize) as u64;
        *file.owners.entry(owner).or_default() += 1;
    }

    fn release(&mut self, owner: Owner, location: Option<Location>) {
        let Some(location) = location else { return };
        let file = self.0.get_mut(&location.file);
        let file = file.expect("a live record's file is accounted for");
        file.bytes -= record_bytes(location.length as usize) as u64;
        let count = file.owners.get_mut(&owner).expect("a live record's owner is counted");
        *count -= 1;
        if *count == 0 {
            file.owners.remove(&owner);
        }
        if file.owners.is_empty() {
            assert_eq!(file.bytes, 0, "a file without live records has no live bytes");
            self.0.remove(&location.file);
        }
    }
}

/// The vote in a hard state's body (FORMAT.md, "Hard state").
fn vote_of(body: &[u8]) -> ReplicaId {
    let mut vote = [0; 8];
    if let Some(bytes) = body.get(..8) {
        vote.copy_from_slice(bytes);
    }
    ReplicaId(u64::from_le_bytes(vote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GroupId;

    const OWNER: Owner = Owner { group: GroupId(1), replica: ReplicaId(2) };

    /// Applies records given as (kind, index, term), each in a place of its own in `file`.
    fn apply(index: &mut LiveIndex<()>, file: u64, records: &[(RecordKind, u64, u64)]) {
        for (place, (kind, at, term)) in records.iter().enumerate() {
            let header = RecordHeader {
                kind: *kind,
                relocated: false,
                owner: OWNER,
                index: Index(*at),
                term: Term(*term),
                body_length: 8,
                body_crc: 0,
            };
            let position = 4096 + place as u64 * 64;
            let location = Location { file: FileSequence(file), position, length: 8 };
            index.apply(&header, location, &[0; 8], ());
        }
    }

    fn entries(index: &LiveIndex<()>) -> Vec<(u64, u64)> {
        let replica = index.replica(OWNER).expect("a replica");
        replica.entries.iter().map(|(index, entry)| (index.0, entry.term.0)).collect()
    }

    use RecordKind::{Append, Checkpoint, HardState, Relocated, Tombstone, Truncate};

    #[test]
    fn append_and_truncate_cut_and_relocated_does_not() {
        let mut index = LiveIndex::default();
        apply(&mut index, 1, &[(Append, 6, 5), (Append, 7, 5), (Append, 8, 5), (Append, 7, 6)]);
        assert_eq!(entries(&index), [(6, 5), (7, 6)]);
        apply(&mut index, 2, &[(Append, 8, 6), (Relocated, 6, 5)]);
        assert_eq!(entries(&index), [(6, 5), (7, 6), (8, 6)]);
        apply(&mut index, 3, &[(Truncate, 7, 6)]);
        assert_eq!(entries(&index), [(6, 5)]);
        assert_eq!(index.live_bytes(FileSequence(1)), 0, "what was cut or moved lives no more");
        assert_eq!(index.live_bytes(FileSequence(2)), 56);
    }

    #[test]
    fn a_relocated_entry_comes_back_before_its_neighbours() {
        let mut index = LiveIndex::default();
        apply(&mut index, 2, &[(Append, 8, 5), (Append, 9, 5), (Relocated, 6, 5)]);
        let gap = Damage::Gap { expected: Index(7), found: Index(8) };
        assert_eq!(index.replica(OWNER).and_then(|replica| replica.damage()), Some(gap));
        apply(&mut index, 3, &[(Relocated, 7, 5)]);
        assert_eq!(entries(&index), [(6, 5), (7, 5), (8, 5), (9, 5)]);
        assert_eq!(index.replica(OWNER).and_then(|replica| replica.damage()), None);
    }

    #[test]
    fn a_checkpoint_drops_what_it_covers_and_a_log_of_a_lower_term() {
        let mut index = LiveIndex::default();
        apply(&mut index, 1, &[(Append, 6, 5), (Append, 7, 5), (Append, 8, 5)]);
        apply(&mut index, 2, &[(Checkpoint, 7, 5), (Relocated, 6, 5)]);
        assert_eq!(entries(&index), [(8, 5)]);
        assert!(index.conflicts(OWNER, Index(7), Term(9)));
        assert!(!index.conflicts(OWNER, Index(8), Term(9)));
        apply(&mut index, 3, &[(Checkpoint, 7, 9)]);
        assert_eq!(entries(&index), []);
        assert_eq!(index.replica(OWNER).map(Replica::commit), Some(Index(7)));
    }

    #[test]
    fn a_commit_beyond_the_log_is_damage() {
        let mut index = LiveIndex::default();
        apply(&mut index, 1, &[(Checkpoint, 5, 5), (Append, 6, 5), (HardState, 7, 5)]);
        let damage = Damage::CommitBeyondLog { commit: Index(7), last: Index(6) };
        assert_eq!(index.replica(OWNER).and_then(|replica| replica.damage()), Some(damage));
    }

    #[test]
    fn a_tombstone_ends_everything() {
        let mut index = LiveIndex::default();
        apply(&mut index, 1, &[(Append, 6, 5), (HardState, 6, 5), (Tombstone, 0, 0)]);
        apply(&mut index, 2, &[(Append, 7, 5)]);
        assert_eq!(entries(&index), []);
        assert_eq!(index.live_bytes(FileSequence(1)), 56, "the tombstone itself");
        assert!(index.forget(OWNER));
        assert_eq!(index, LiveIndex::default());
    }
}
