//! The history of leader epochs of one partition: at which offset each epoch's records begin.
//!
//! It answers OffsetForLeaderEpoch and the check that a batch read back carries the epoch it was
//! written in. It survives restarts inside the checkpoint. Epochs under which nothing was written
//! have no entry. Pure; any shard.

use super::types::Offset;

/// One epoch and the offset of its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// Leader epoch, which is the Raft term.
    pub epoch: i32,
    /// Offset of the first record written under it.
    pub start: Offset,
}

/// Events: `assign`, `move_start`. Getters: the rest.
///
/// Invariant: epochs strictly rise, starts strictly rise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochList {
    starts: Vec<EpochStart>,
}

impl EpochList {
    /// An empty history.
    pub fn new() -> Self {
        EpochList::default()
    }

    /// Rebuilds a history from stored entries; `None` when they do not rise.
    pub fn from_entries(starts: Vec<EpochStart>) -> Option<Self> {
        let rises =
            |pair: &[EpochStart]| pair[0].epoch < pair[1].epoch && pair[0].start < pair[1].start;
        starts.windows(2).all(rises).then_some(EpochList { starts })
    }

    /// A batch of `epoch` was committed at `offset`. Epochs never go back: that would be a bug in
    /// the layer that orders entries, so it aborts.
    pub fn assign(&mut self, epoch: i32, offset: Offset) {
        match self.starts.last() {
            Some(last) if last.epoch == epoch => {}
            Some(last) => {
                assert!(last.epoch < epoch, "epoch {epoch} after {}", last.epoch);
                assert!(last.start <= offset, "epoch {epoch} starts before its predecessor");
                if last.start == offset {
                    // Its records are all below the log start: it is older than the history.
                    self.starts.pop();
                }
                self.starts.push(EpochStart { epoch, start: offset });
            }
            None => self.starts.push(EpochStart { epoch, start: offset }),
        }
    }

    /// The log start moved: entries wholly below it go, the one that covers it begins there.
    pub fn move_start(&mut self, log_start: Offset) {
        let keep_from = self.starts.iter().rposition(|entry| entry.start <= log_start);
        let Some(keep_from) = keep_from else { return };
        self.starts.drain(..keep_from);
        self.starts[0].start = log_start;
    }

    /// The epoch of the record at `offset`; `None` below the history.
    pub fn epoch_at(&self, offset: Offset) -> Option<i32> {
        let after = self.starts.partition_point(|entry| entry.start <= offset);
        after.checked_sub(1).map(|at| self.starts[at].epoch)
    }

    /// The newest epoch that wrote a record.
    pub fn last_epoch(&self) -> Option<i32> {
        self.starts.last().map(|entry| entry.epoch)
    }

    /// OffsetForLeaderEpoch (kafka.md section 8): the epoch to answer, and where it ends.
    ///
    /// `current` is the leader's epoch. The current epoch ends at `log_end`; an older one answers
    /// the largest epoch at or below it that has records, and the start of the next; one older
    /// than the history answers itself and `log_start`; a newer or negative one answers `None`,
    /// which the wire shows as (-1, -1).
    pub fn end_offset(
        &self,
        asked: i32,
        current: i32,
        log_start: Offset,
        log_end: Offset,
    ) -> Option<(i32, Offset)> {
        if asked < 0 || asked > current {
            return None;
        }
        if asked == current {
            return Some((current, log_end));
        }
        let after = self.starts.partition_point(|entry| entry.epoch <= asked);
        let end = self.starts.get(after).map_or(log_end, |next| next.start);
        match after.checked_sub(1) {
            Some(at) => Some((self.starts[at].epoch, end)),
            None => Some((asked, log_start)),
        }
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> &[EpochStart] {
        &self.starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> EpochList {
        let mut list = EpochList::new();
        for (epoch, offset) in [(6, 0), (6, 4), (8, 10), (11, 30), (11, 31)] {
            list.assign(epoch, Offset(offset));
        }
        list
    }

    #[test]
    fn answers_follow_the_rules_of_offset_for_leader_epoch() {
        let list = history();
        let ask = |asked| list.end_offset(asked, 12, Offset(0), Offset(40));
        assert_eq!(ask(12), Some((12, Offset(40))), "the current epoch ends at the log end");
        assert_eq!(ask(11), Some((11, Offset(40))), "the next epoch wrote nothing yet");
        assert_eq!(ask(10), Some((8, Offset(30))), "an epoch without records");
        assert_eq!(ask(8), Some((8, Offset(30))));
        assert_eq!(ask(7), Some((6, Offset(10))));
        assert_eq!(ask(6), Some((6, Offset(10))));
        assert_eq!(ask(5), Some((5, Offset(0))), "older than the history");
        assert_eq!(ask(13), None);
        assert_eq!(ask(-1), None);
        let empty = EpochList::new();
        assert_eq!(empty.end_offset(6, 6, Offset(0), Offset(0)), Some((6, Offset(0))));
        assert_eq!(empty.end_offset(5, 6, Offset(0), Offset(0)), Some((5, Offset(0))));
    }

    #[test]
    fn moving_the_start_keeps_the_epoch_that_covers_it() {
        let mut list = history();
        list.move_start(Offset(12));
        let expected = [
            EpochStart { epoch: 8, start: Offset(12) },
            EpochStart { epoch: 11, start: Offset(30) },
        ];
        assert_eq!(list.entries(), expected);
        assert_eq!(list.end_offset(6, 12, Offset(12), Offset(40)), Some((6, Offset(12))));
        list.move_start(Offset(30));
        assert_eq!(list.entries(), [EpochStart { epoch: 11, start: Offset(30) }]);
        list.move_start(Offset(40));
        assert_eq!(list.last_epoch(), Some(11), "the newest epoch survives an emptied log");
        list.assign(11, Offset(40));
        list.assign(12, Offset(41));
        assert_eq!(list.epoch_at(Offset(40)), Some(11));
        assert_eq!(list.epoch_at(Offset(41)), Some(12));
    }

    #[test]
    fn an_epoch_that_begins_where_an_emptied_log_starts_replaces_the_old_one() {
        let mut list = EpochList::new();
        list.assign(6, Offset(0));
        list.move_start(Offset(10));
        list.assign(7, Offset(10));
        assert_eq!(list.epoch_at(Offset(10)), Some(7));
        assert_eq!(list.end_offset(6, 7, Offset(10), Offset(11)), Some((6, Offset(10))));
    }

    #[test]
    fn stored_entries_must_rise() {
        let entry = |epoch, start| EpochStart { epoch, start: Offset(start) };
        assert!(EpochList::from_entries(vec![entry(1, 0), entry(2, 5)]).is_some());
        assert!(EpochList::from_entries(vec![entry(2, 0), entry(2, 5)]).is_none());
        assert!(EpochList::from_entries(vec![entry(1, 5), entry(2, 5)]).is_none());
    }
}
