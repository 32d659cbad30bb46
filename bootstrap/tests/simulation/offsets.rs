//! What a group's offsets may be, and who owns a partition in which generation.
//!
//! A commit whose answer was lost may have happened, and may still happen while the broker that
//! it was sent to lives; a refused one has not. An offset that is read must be the last one
//! acknowledged or one of those. Pure facts and rules; no clients.

use std::collections::BTreeMap;

use crate::history::{Rule, Violation};
use crate::wire::{name_of, Place};

#[derive(Debug, Clone)]
struct Attempt {
    offset: i64,
    /// The broker's life in which it was sent.
    life: u32,
    /// It may have happened, or happen yet.
    open: bool,
}

#[derive(Debug, Default)]
struct Known {
    /// The last one acknowledged or read, and in which life.
    certain: Option<(i64, u32)>,
    attempts: Vec<Attempt>,
}

impl Known {
    fn possible(&self) -> Vec<i64> {
        let certain = self.certain.map_or(-1, |(offset, _)| offset);
        let open = self.attempts.iter().filter(|attempt| attempt.open);
        std::iter::once(certain).chain(open.map(|attempt| attempt.offset)).collect()
    }

    /// What earlier lives left open is decided by what this one says.
    fn settle(&mut self, offset: i64, life: u32) {
        self.certain = Some((offset, life));
        let earlier = self.attempts.iter_mut().filter(|attempt| attempt.life < life);
        earlier.for_each(|attempt| attempt.open = false);
    }
}

/// The offsets of all groups.
#[derive(Debug, Default)]
pub struct Offsets {
    known: BTreeMap<(&'static str, Place), Known>,
}

/// What may be read when a request begins.
pub struct View {
    possible: Vec<i64>,
    attempts: usize,
    life: u32,
}

impl Offsets {
    /// A commit is sent; its number.
    pub fn attempt(&mut self, group: &'static str, place: Place, offset: i64, life: u32) -> usize {
        let attempts = &mut self.known.entry((group, place)).or_default().attempts;
        attempts.push(Attempt { offset, life, open: true });
        attempts.len() - 1
    }

    pub fn acknowledged(&mut self, group: &'static str, place: Place, number: usize) {
        let known = self.known.entry((group, place)).or_default();
        let Attempt { offset, life, .. } = known.attempts[number];
        known.attempts[number].open = false;
        known.settle(offset, life);
    }

    /// The commit has certainly not happened.
    pub fn refused(&mut self, group: &'static str, place: Place, number: usize) {
        let known = self.known.entry((group, place)).or_default();
        known.attempts[number].open = false;
    }

    pub fn view(&self, group: &'static str, place: Place, life: u32) -> View {
        let known = self.known.get(&(group, place));
        let possible = known.map_or_else(|| vec![-1], Known::possible);
        View { possible, attempts: known.map_or(0, |known| known.attempts.len()), life }
    }

    /// An offset was read by a request that began with this view. `alone`: nobody else commits.
    pub fn fetched(
        &mut self,
        group: &'static str,
        place: Place,
        view: &View,
        offset: i64,
    ) -> Result<(), Violation> {
        let known = self.known.entry((group, place)).or_default();
        let since = known.attempts[view.attempts..].iter().map(|attempt| attempt.offset);
        let mut possible = view.possible.clone();
        possible.extend(known.possible().into_iter().chain(since));
        if !possible.contains(&offset) {
            let name = name_of(place);
            return Err(Violation::new(
                Rule::WentBack,
                format!("group {group} has offset {offset} of {name}; possible are {possible:?}"),
            ));
        }
        let quiet = known.attempts.len() == view.attempts;
        if quiet && known.certain.is_none_or(|(_, life)| life < view.life) {
            known.settle(offset, view.life);
        }
        Ok(())
    }

    /// Groups and partitions with an offset.
    pub fn keys(&self) -> Vec<(&'static str, Place)> {
        self.known.keys().copied().collect()
    }
}

/// Who was told to own what, by generation of the one group with members.
#[derive(Debug, Default)]
pub struct Owners {
    generations: BTreeMap<i32, BTreeMap<Place, String>>,
}

impl Owners {
    /// The newest generation that any member was given an assignment of.
    pub fn newest(&self) -> i32 {
        self.generations.keys().next_back().copied().unwrap_or(0)
    }

    pub fn assigned(
        &mut self,
        generation: i32,
        member: &str,
        places: &[Place],
    ) -> Result<(), Violation> {
        let owners = self.generations.entry(generation).or_default();
        for place in places {
            let owner = owners.entry(*place).or_insert_with(|| member.to_owned());
            if owner != member {
                let name = name_of(*place);
                let what = format!("{owner} and {member} own {name} in generation {generation}");
                return Err(Violation::new(Rule::TwoOwners, what));
            }
        }
        Ok(())
    }

    /// The broker granted something to a generation; the request began when `newest` was known.
    pub fn granted(what: &str, generation: i32, newest: i32) -> Result<(), Violation> {
        if generation < newest {
            let what =
                format!("{what} of generation {generation} was granted after {newest} began");
            return Err(Violation::new(Rule::TwoOwners, what));
        }
        Ok(())
    }

    /// A member was told to join this generation; the request began when `newest` was known.
    pub fn joined(generation: i32, newest: i32) -> Result<(), Violation> {
        if generation < newest {
            let what = format!("generation {generation} begins after {newest}");
            return Err(Violation::new(Rule::WentBack, what));
        }
        Ok(())
    }
}
