//! The real broker under the simulator; what it is and how to use it stands in README.md here.

mod admin;
mod audit;
mod faults;
mod history;
mod members;
mod mutations;
mod offsets;
mod producers;
mod readers;
mod scenario;
mod wire;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use scenario::{Faults, Report};

/// Seeds of a plain test run.
const SEEDS: u64 = 40;
/// The first so many of them run twice, with equal traces.
const TWICE: u64 = 6;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What a number of seeds came to.
#[derive(Default)]
struct Tally {
    sum: Report,
    failed: u64,
}

fn run_seed(seed: u64, twice: bool, tally: &Mutex<Tally>) {
    let outcome = scenario::run(seed, Faults::All, None);
    let again = twice.then(|| scenario::run(seed, Faults::All, None));
    let mut tally = tally.lock().expect("no panic while it is held");
    let differs = again.is_some_and(|again| again != outcome);
    match outcome {
        Ok(report) if !differs => tally.sum.add(&report),
        outcome => {
            tally.failed += 1;
            match outcome {
                Ok(_) => println!("seed {seed}: a second run has another trace"),
                Err(violation) => println!("seed {seed}: {violation}"),
            }
            println!(
                "replay with: CHRONIK_SEED={seed} cargo test -p chronik-bootstrap --test \
                 simulation acknowledged -- --nocapture"
            );
        }
    }
}

/// `CHRONIK_SEED` is the first seed and `CHRONIK_SEEDS` how many to run; `CHRONIK_THREADS` how
/// many at once.
#[test]
fn acknowledged_records_survive_every_fault() {
    let asked = number("CHRONIK_SEED").is_some() || number("CHRONIK_SEEDS").is_some();
    let first = number("CHRONIK_SEED").unwrap_or(0);
    let count = number("CHRONIK_SEEDS").unwrap_or(if asked { 1 } else { SEEDS });
    let threads = number("CHRONIK_THREADS").unwrap_or(1).max(1);
    let twice = if asked { 0 } else { TWICE };
    let (next, tally) = (AtomicU64::new(0), Mutex::new(Tally::default()));
    let work = || loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= count {
            break;
        }
        run_seed(first + at, at < twice, &tally);
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let tally = tally.into_inner().expect("every thread has ended");
    for (name, count) in tally.sum.counts() {
        println!("{count:>12} {name}");
        assert!(asked || count > 0, "no seed came to {name}");
    }
    assert_eq!(tally.failed, 0, "of {count} seeds failed");
}
