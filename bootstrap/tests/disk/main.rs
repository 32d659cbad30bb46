//! What becomes of a node when its disk is not what was written: bit rot in every kind of file,
//! and power cuts at every boundary of the disk.
//!
//! `CHRONIK_DAMAGE` is how many times more places are damaged than in a short run (1), and
//! `CHRONIK_POINTS` how many points of a run the power is cut at (150).

mod author;
mod damage;
mod known;
mod pointers;
mod reader;
mod said;
mod wire;

use std::time::Duration;

use rt::sim::CrashKind;

use author::{Size, CLIENTS};
use damage::{Damage, Ground, Kind, Table, Twins};
use reader::{Fate, Outcome, Plan};

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn damage_is_refused_or_repaired_and_never_served() {
    let size = Size { records: 150, commits: 20, topics: 4, alterations: 520 };
    let ground = Ground::new(1, size);
    let whole = ground.undamaged(1);
    assert!(whole.is_whole(), "{whole:?}");
    for kind in Kind::ALL {
        assert!(ground.count(kind) > 0, "the run leaves no {kind:?}");
    }
    let (mut table, mut wrong) = (Table::default(), Vec::new());
    for (seed, (path, kind, damage)) in
        ground.cases(number("CHRONIK_DAMAGE").unwrap_or(1)).into_iter().enumerate()
    {
        let outcome = ground.run(&path, &damage, seed as u64, Plan::default());
        if let Some(what) = outcome.wrong() {
            println!("{path}, {damage:?}: {what}");
            wrong.push(format!("{path}, {damage:?}: {what}"));
        }
        if std::env::var_os("CHRONIK_DAMAGE_SAID").is_some() {
            match &outcome {
                Outcome::NotStarted(text) => println!("{path} {damage:?}: no start: {text}"),
                Outcome::Serves { fates, said } => {
                    let bad: Vec<_> = fates.iter().filter(|f| f.1 != reader::Fate::Whole).collect();
                    println!("{path} {damage:?}: {bad:?} {said:#?}");
                }
                Outcome::Wrong(_) => {}
            }
        }
        table.add(kind, &damage, &outcome);
    }
    println!("{}", table.text());
    assert!(wrong.is_empty(), "{} cases: {}", wrong.len(), wrong[0]);
}

/// Not by their names and lengths, nor by any batch: by what the checkpoint and the maps say of the
/// last one.
#[test]
fn segments_of_other_partitions_are_told_from_their_own() {
    let ground = Ground::flushed(4, Size { records: 150, commits: 1, topics: 0, alterations: 0 });
    let twins = ground.twins();
    for active in [false, true] {
        assert!(twins.iter().any(|twins| twins.active == active), "the run leaves none: {active}");
    }
    let mut wrong = Vec::new();
    for (seed, Twins { paths: [first, second], active }) in twins.iter().enumerate() {
        let copy = |from: &String| Damage::Copy { from: from.clone() };
        let swap = Damage::Swap { with: second.clone() };
        let cases = [(first, swap, 2), (first, copy(second), 1), (second, copy(first), 1)];
        for (path, damage, damaged) in cases {
            let outcome = ground.run(path, &damage, seed as u64, Plan::default());
            let refused = match &outcome {
                Outcome::Serves { fates, .. } => {
                    fates.iter().filter(|(_, fate)| matches!(fate, Fate::Refused(_))).count()
                }
                _ => 0,
            };
            if refused != damaged {
                let outcome = outcome.wrong().unwrap_or_else(|| format!("{outcome:?}"));
                wrong.push(format!("{path}, active: {active}, {damage:?}: {outcome}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), 3 * twins.len());
}

/// The metadata names a partition that no checkpoint of it knows, and the log that has lost its
/// end knows nothing of it: it is neither an empty one nor, at the next start, a new one.
#[test]
fn a_partition_that_only_the_lost_log_knew_is_not_begun_anew() {
    let ground = Ground::new(3, Size { records: 12, commits: 1, topics: 0, alterations: 0 });
    let logs = ground.of(Kind::Log);
    for (seed, path) in logs.iter().filter(|path| path.contains("/wal/1/1/")).enumerate() {
        for plan in [Plan::default(), Plan { cut_after: true, ..Plan::default() }] {
            let outcome = ground.run(path, &Damage::Empty, seed as u64, plan);
            assert_eq!(outcome.wrong(), None, "{path}, {plan:?}");
            assert!(
                matches!(outcome, Outcome::Serves { .. }) && !outcome.is_whole(),
                "{outcome:?}"
            );
        }
    }
}

/// Nor is it when that start ends at any operation of the disk, before it has fenced what it found
/// missing.
#[test]
fn an_interrupted_start_does_not_forget_what_was_lost() {
    let ground = Ground::new(3, Size { records: 12, commits: 1, topics: 0, alterations: 0 });
    let logs = ground.of(Kind::Log);
    let path = logs.iter().find(|path| path.contains("/wal/1/1/")).expect("shard 1 has a log");
    for operation in 1..=80 {
        let plan = Plan { cut_at: Some(operation), ..Plan::default() };
        let outcome = ground.run(path, &Damage::Empty, operation, plan);
        assert_eq!(outcome.wrong(), None, "cut at operation {operation}");
        assert!(
            matches!(outcome, Outcome::Serves { .. }) && !outcome.is_whole(),
            "cut at operation {operation}: {outcome:?}"
        );
    }
}

/// Unsynced writes are lost, torn or reordered; of three points one is cut again while it recovers,
/// and one again when all of it was read.
#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    const SEED: u64 = 2;
    let size = Size { records: 150, commits: 20, topics: 4, alterations: 20 };
    let limit = Duration::from_secs(600);
    let operations = {
        let (world, node, known) = author::world(SEED, size);
        assert!(world.run_until(|_| known.borrow().ended == CLIENTS, limit), "{known:?}");
        world.disk(node).operations()
    };
    let mut pointers = 0;
    let points = number("CHRONIK_POINTS").unwrap_or(150) as u64;
    let (world, node, known) = author::world(SEED, size);
    for point in 0..points {
        let at = operations * point / points;
        assert!(world.run_until(|world| world.disk(node).operations() >= at, limit));
        pointers += usize::from(!pointers::live(&damage::contents(&world, node)).is_empty());
        let image = world.disk(node).after(CrashKind::PowerCut, point);
        let plan =
            Plan { cut_at: (point % 3 == 1).then_some(1 + point % 40), cut_after: point % 3 == 2 };
        let outcome = reader::read(&image, &known.borrow(), point, plan);
        assert!(outcome.is_whole(), "cut at operation {at}, {plan:?}: {outcome:?}");
    }
    println!("{points} points of {operations} operations, {pointers} with pointers: nothing lost");
    assert!(pointers as u64 > points / 4, "batches are staged at {pointers} points");
}
