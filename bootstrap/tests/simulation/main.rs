//! The real broker under the simulator: one node, clients over the wire, faults by seed.
//!
//! `CHRONIK_SEED` is the first seed and `CHRONIK_SEEDS` how many to run; without them a small fixed
//! set runs twice each, with equal traces. `tests/simulate.sh` runs as many as asked on all cores.
//! That the checkers see is shown by mutations, each found within a stated number of seeds.

mod clients;
mod history;
mod scenario;
mod wire;

use rt::Mutation;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn acknowledged_records_survive_every_fault() {
    let bounded = number("CHRONIK_SEED").is_none() && number("CHRONIK_SEEDS").is_none();
    let first = number("CHRONIK_SEED").unwrap_or(0);
    let count = number("CHRONIK_SEEDS").unwrap_or(if bounded { 5 } else { 1 });
    let mut failed = 0;
    for seed in first..first + count {
        match scenario::run(seed, None) {
            Ok(report) => {
                println!("seed {seed}: {report:?}");
                if bounded {
                    let again = scenario::run(seed, None);
                    assert_eq!(again, Ok(report), "seed {seed} is not deterministic");
                }
            }
            Err(violation) => {
                failed += 1;
                println!("seed {seed}: {violation}");
                println!(
                    "replay with: CHRONIK_SEED={seed} cargo test -p chronik-bootstrap --test \
                     simulation acknowledged -- --nocapture"
                );
            }
        }
    }
    assert_eq!(failed, 0, "of {count} seeds failed");
}

/// The first seed, of so many, under which the checkers see the mutation.
fn found(mutation: Mutation, seeds: u64) {
    let seed = (0..seeds).find_map(|seed| {
        let violation = scenario::run(seed, Some(mutation)).err()?;
        Some((seed, violation))
    });
    match seed {
        Some((seed, violation)) => println!("{mutation:?}: seed {seed}: {violation}"),
        None => panic!("{mutation:?} was not seen in {seeds} seeds"),
    }
}

#[test]
fn acknowledging_before_the_sync_is_found() {
    found(Mutation::AcknowledgeBeforeSync, 10);
}

#[test]
fn accepting_a_stale_block_is_found() {
    found(Mutation::AcceptStaleBlock, 12);
}

#[test]
fn ignoring_a_checksum_is_found() {
    found(Mutation::IgnoreChecksum, 12);
}

#[test]
fn recycling_without_relocation_is_found() {
    found(Mutation::RecycleWithoutRelocation, 12);
}

#[test]
fn an_empty_ready_reported_early_is_found() {
    found(Mutation::EmptyReadyReportedEarly, 60);
}

#[test]
fn a_checkpoint_before_its_segments_is_found() {
    found(Mutation::CheckpointBeforeSync, 12);
}

#[test]
fn a_dedupe_window_of_one_is_found() {
    found(Mutation::DedupeWindowOfOne, 12);
}
