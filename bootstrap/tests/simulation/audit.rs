//! Reads everything the broker has: whole partitions, offsets of groups, topics.
//!
//! Runs when all clients have finished, and again after crashes, so that two audits of a broker
//! that nobody writes to must agree: recovery is idempotent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use net::client::Client;
use rt::Shard;

use crate::history::{Floor, Rule, Seen, Shared, Value, Violation};
use crate::readers::parts;
use crate::wire::{self, name_of, Broken, Place, DELETED, NO_ERROR, PLACES};

const OUT_OF_RANGE: i16 = 1;
const READ_MAX_BYTES: i32 = 256 << 10;
/// Between two attempts at a partition that answers with an error.
const PAUSE: Duration = Duration::from_millis(50);

/// One partition from its log start to its high watermark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whole {
    pub start: i64,
    pub end: i64,
    pub batches: Vec<Seen>,
    pub values: Vec<(i64, Value)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    pub places: Vec<Whole>,
    pub offsets: BTreeMap<(&'static str, Place), i64>,
    pub topics: Vec<String>,
}

impl Audit {
    /// What a crash and a recovery have changed, between an audit and a later one.
    pub fn same(&self, later: &Audit) -> Result<(), Violation> {
        let diverged = |what: String| Err(Violation::new(Rule::Diverged, what));
        for (place, (before, after)) in self.places.iter().zip(&later.places).enumerate() {
            let name = name_of(place);
            let range = |whole: &Whole| (whole.start, whole.end);
            // Retention may still have deleted.
            let moved = after.start > before.start && place == DELETED;
            let kept = before.batches.iter().filter(|batch| batch.next > after.start);
            let differs = before.end != after.end
                || (before.start != after.start && !moved)
                || !kept.eq(after.batches.iter());
            if differs {
                let (before, after) = (range(before), range(after));
                return diverged(format!("{name} was {before:?} before a crash, then {after:?}"));
            }
        }
        if self.offsets != later.offsets {
            return diverged(format!("offsets were {:?}, then {:?}", self.offsets, later.offsets));
        }
        if self.topics != later.topics {
            return diverged(format!("topics were {:?}, then {:?}", self.topics, later.topics));
        }
        Ok(())
    }
}

pub async fn run(shard: Shard, address: SocketAddr, history: Shared) {
    loop {
        let mut client = wire::connect(&shard, address).await;
        if let Ok(audit) = audit(&shard, &mut client, &history).await {
            let mut history = history.borrow_mut();
            history.audits.push(audit);
            history.finished += 1;
            return;
        }
        shard.sleep(PAUSE).await;
    }
}

async fn audit(shard: &Shard, client: &mut Client, history: &Shared) -> Result<Audit, Broken> {
    let mut places = Vec::new();
    for place in 0..PLACES {
        places.push(whole(shard, client, place, history).await?);
    }
    let keys = history.borrow().offsets.keys();
    let mut offsets = BTreeMap::new();
    for (group, place) in keys {
        let life = history.borrow().lives;
        let view = history.borrow().offsets.view(group, place, life);
        let offset = wire::committed(shard, client, group, place).await?;
        let mut history = history.borrow_mut();
        let outcome = history.offsets.fetched(group, place, &view, offset);
        history.check(outcome);
        offsets.insert((group, place), offset);
    }
    let known = history.borrow().topics.clone();
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    // No names would mean all topics.
    let topics = match names.is_empty() {
        true => Vec::new(),
        false => wire::topics(shard, client, &names).await?,
    };
    Ok(Audit { places, offsets, topics })
}

async fn whole(
    shard: &Shard,
    client: &mut Client,
    place: Place,
    history: &Shared,
) -> Result<Whole, Broken> {
    let mut whole = Whole::default();
    let mut position = 0;
    loop {
        let floor: Floor = history.borrow().floor(place);
        let asked = [(place, position)];
        let answer = wire::fetch(shard, client, &asked, (0, -1), READ_MAX_BYTES).await?;
        let part = parts(&answer, &asked, &[floor], &mut history.borrow_mut()).pop();
        let part = part.ok_or(Broken)?;
        history.borrow_mut().audit_progress.insert(place, (part.next, part.code));
        match part.code {
            NO_ERROR => {}
            OUT_OF_RANGE => {
                // Deleted up to here; also while this reads.
                let Ok(start) = wire::log_start(shard, client, place).await? else { continue };
                position = history.borrow_mut().out_of_range(place, position, start);
                whole = Whole { start, ..Whole::default() };
                continue;
            }
            _ => {
                shard.sleep(PAUSE).await;
                continue;
            }
        }
        let from = position;
        whole.values.extend(part.values.into_iter().filter(|(offset, _)| *offset >= from));
        position = part.next;
        if position >= part.high_watermark {
            whole.end = position;
            let history = history.borrow();
            let batches = history.batches(place, whole.start);
            whole.batches = batches.into_iter().filter(|batch| batch.next <= position).collect();
            return Ok(whole);
        }
    }
}
