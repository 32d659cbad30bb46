//! Decoders of bytes from outside, with seeded mutations of what the encoders write.
//!
//! The seeds are the corpus of `fuzz/`, in `fuzz/corpus/<decoder>/`; `UPDATE_GOLDEN=1` writes those
//! that encoders of this tree make. `CHRONIK_SEED` shifts the mutations, `CHRONIK_MUTATIONS` says
//! how many there are of each seed.

mod corpus;
mod entries;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use entries::DECODERS;

/// Mutations of each seed in an ordinary run: some seconds in all.
const MUTATIONS: u64 = 1500;

pub fn folder(decoder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(decoder)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds of a decoder, by name.
fn seeds(decoder: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder(decoder)).expect("a corpus for every decoder");
    let mut seeds: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), std::fs::read(&path).unwrap())
        })
        .collect();
    seeds.sort();
    seeds
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, below: usize) -> usize {
        (self.next() % below.max(1) as u64) as usize
    }
}

/// One to four changes: a bit, a byte, a number that lies, a cut, an insertion, a piece of another.
fn mutate(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + random.below(4) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => {
                let lies = [0, 1, u64::MAX, i64::MAX as u64, i32::MAX as u64, 1 << 40];
                let lie = lies[random.below(lies.len())];
                let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
                let lie = match random.below(2) {
                    0 => lie.to_le_bytes()[..width].to_vec(),
                    _ => lie.to_be_bytes()[8 - width..].to_vec(),
                };
                bytes[at..at + width].copy_from_slice(&lie);
            }
            3 => bytes.truncate(at),
            4 => {
                let inserted: Vec<u8> =
                    (0..random.below(12)).map(|_| random.next() as u8).collect();
                bytes.splice(at..at, inserted);
            }
            _ => {
                let from = random.below(other.len());
                let to = from + random.below(other.len() - from);
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn mutations_are_read_or_refused() {
    let shift = number("CHRONIK_SEED").unwrap_or(0);
    let mutations = number("CHRONIK_MUTATIONS").unwrap_or(MUTATIONS);
    let mut failures = Vec::new();
    for (name, decoder) in DECODERS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "no seeds for {name}");
        for (place, (path, seed)) in seeds.iter().enumerate() {
            let other = &seeds[(place + 1) % seeds.len()].1;
            decoder(seed);
            for number in 0..mutations {
                let mut random = Random(shift.wrapping_add(number << 16) ^ place as u64);
                let bytes = mutate(seed, other, &mut random);
                if catch_unwind(AssertUnwindSafe(|| decoder(&bytes))).is_err() {
                    failures.push(format!("{name}: mutation {number} of {path}: {bytes:02x?}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} panics\n{}", failures.len(), failures.join("\n"));
}

/// The stored seeds are what the encoders write: a format that has moved on would leave the fuzzers
/// outside.
#[test]
fn seeds_are_up_to_date() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        for (decoder, name, bytes) in [corpus::seeds(), corpus::compressed()].concat() {
            std::fs::create_dir_all(folder(decoder)).unwrap();
            std::fs::write(folder(decoder).join(name), bytes).unwrap();
        }
    }
    for (decoder, name, bytes) in corpus::seeds() {
        let path = folder(decoder).join(name);
        let stored = std::fs::read(&path).unwrap_or_default();
        assert!(stored == bytes, "{} is out of date: run with UPDATE_GOLDEN=1", path.display());
    }
}
