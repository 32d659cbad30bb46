//! The tick wheel: which groups need ticks, spread over one tick interval.
//!
//! A group that needs no ticks (a sole voter that leads, a quiescent or fenced one) is not in the
//! wheel and costs nothing; with no group in it there is nothing to wait for. Each turn of a slot
//! is one tick for its groups, so ticks missed while the shard stalled are lost, not replayed.
//! Pure; keys are the driver's.

use std::collections::BTreeSet;

/// Into how many slots one tick interval is divided.
pub const SLOTS: usize = 8;

/// The groups that tick.
#[derive(Debug, Default)]
pub(crate) struct Wheel {
    slots: [BTreeSet<usize>; SLOTS],
    next: usize,
    members: usize,
}

impl Wheel {
    pub fn insert(&mut self, key: usize) {
        if self.slots[key % SLOTS].insert(key) {
            self.members += 1;
        }
    }

    pub fn remove(&mut self, key: usize) {
        if self.slots[key % SLOTS].remove(&key) {
            self.members -= 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members == 0
    }

    /// The groups whose tick it is now; call it `SLOTS` times per tick interval.
    pub fn turn(&mut self) -> Vec<usize> {
        let slot = self.next;
        self.next = (slot + 1) % SLOTS;
        self.slots[slot].iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_ticks_once_per_round_and_others_never() {
        let mut wheel = Wheel::default();
        assert!(wheel.is_empty());
        for key in [0, 1, 8, 13] {
            wheel.insert(key);
            wheel.insert(key);
        }
        wheel.remove(1);
        wheel.remove(1);
        let mut ticked: Vec<usize> = (0..SLOTS).flat_map(|_| wheel.turn()).collect();
        ticked.sort_unstable();
        assert_eq!(ticked, [0, 8, 13]);
        for key in [0, 8, 13] {
            assert!(!wheel.is_empty());
            wheel.remove(key);
        }
        assert!(wheel.is_empty());
    }
}
