//! The checkers see: each way to break the broker is found, by the rule it breaks, within a
//! stated number of seeds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::thread;

use rt::Mutation;

use crate::history::Violation;
use crate::scenario::{self, Faults};

/// A mutation, and the seeds within which it is found under crashes.
struct Row {
    mutation: Mutation,
    seeds: u64,
}

/// The mutations that one node with one voter can show. Votes need three voters
/// (`raft/tests/cluster.rs`).
const TABLE: [Row; 9] = [
    Row { mutation: Mutation::AcknowledgeBeforeSync, seeds: 10 },
    Row { mutation: Mutation::EmptyReadyReportedEarly, seeds: 100 },
    Row { mutation: Mutation::RecoverWithoutSync, seeds: 400 },
    Row { mutation: Mutation::RecycleWithoutRelocation, seeds: 10 },
    Row { mutation: Mutation::AcceptStaleBlock, seeds: 10 },
    Row { mutation: Mutation::IgnoreChecksum, seeds: 20 },
    Row { mutation: Mutation::CheckpointBeforeSync, seeds: 10 },
    Row { mutation: Mutation::DedupeWindowOfOne, seeds: 10 },
    Row { mutation: Mutation::PointerBeforePayload, seeds: 20 },
];

/// Looks for a mutation, on all cores; what was found under each seed, until a broken promise.
fn look_for(row: &Row) -> Result<(u64, String), String> {
    let (next, seen) = (AtomicU64::new(0), Mutex::new(BTreeMap::new()));
    let is_found = |seen: &Mutex<BTreeMap<u64, Violation>>| {
        let seen = seen.lock().expect("no panic while it is held");
        seen.values().any(|violation| violation.rule.is_a_promise())
    };
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= row.seeds || is_found(&seen) {
            break;
        }
        if let Err(violation) = scenario::run(seed, Faults::Crashes, Some(row.mutation)) {
            seen.lock().expect("no panic while it is held").insert(seed, violation);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let seen = seen.into_inner().expect("every thread has ended");
    let found = seen.iter().find(|(_, violation)| violation.rule.is_a_promise());
    if let Some((seed, violation)) = found {
        return Ok((*seed, violation.to_string()));
    }
    let seen: String =
        seen.iter().map(|(seed, violation)| format!("\n  seed {seed}: {violation}")).collect();
    Err(format!("{:?} was not seen in {} seeds{seen}", row.mutation, row.seeds))
}

#[test]
fn every_mutation_is_found() {
    let found = TABLE.each_ref().map(|row| (row, look_for(row)));
    println!("{:<26} {:>6} {:>6}  found", "mutation", "within", "seed");
    for (row, outcome) in &found {
        let (mutation, within) = (format!("{:?}", row.mutation), row.seeds);
        match outcome {
            Ok((seed, violation)) => println!("{mutation:<26} {within:>6} {seed:>6}  {violation}"),
            Err(missed) => println!("{mutation:<26} {within:>6} {:>6}  {missed}", "-"),
        }
    }
    assert!(found.iter().all(|(_, outcome)| outcome.is_ok()), "a mutation was not found");
}
