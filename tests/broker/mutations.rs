//! Every API in every version, with frames that are whole, cut, grown and changed: the broker
//! answers or closes, and a client beside notices nothing.
//!
//! The frames come from a seed, `CHRONIK_SEED` or 1; a failure names the one it had.

use std::collections::VecDeque;

use bytes::Bytes;
use net::registry::{self, Api};
use net::schema::sample::{sample, Palette};

use crate::hostile::{batch, create, Scene};
use crate::support::memory::Memory;
use crate::support::wire::{header, Wire};

/// Names that lead deep: a topic and a group that exist, and some that do not. The neighbour's
/// topic is none of them.
const STRINGS: &[&str] = &["other", "group", "member", "", "retention.ms", "7", "nowhere"];
/// Frames made of each request.
const MUTANTS: usize = 8;
/// Connections that are open at once: whoever comes when there are more ends the oldest.
const OPEN_MAX: usize = 48;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn from_environment() -> (Random, u64) {
        let seed = std::env::var("CHRONIK_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(1);
        (Random(seed), seed)
    }

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

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// A request without the frame's length: header and a body by the shapes.
fn request(api: &Api, version: i16, choices: &[u8], blobs: &[&[u8]]) -> Vec<u8> {
    let palette = Palette { strings: STRINGS, blobs };
    let body = sample(api, version, choices, &palette).expect("an API that is served");
    let mut request = header(api.key, version, 1).to_vec();
    request.extend_from_slice(&body);
    request
}

/// What follows the API key and version is changed in one way or another.
fn mutate(request: &[u8], random: &mut Random) -> Vec<u8> {
    const KEPT_BYTES: usize = 4;
    let mut bytes = request.to_vec();
    let at = KEPT_BYTES + random.below(bytes.len() - KEPT_BYTES);
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => {
            let count = 1 + random.below(40);
            bytes.splice(at..at, random.bytes(count));
        }
        2 => bytes[at] ^= 1 << random.below(8),
        3 => {
            let end = bytes.len().min(at + 4);
            let lie = [i32::MAX, -1, i32::MIN, 1 << 24][random.below(4)].to_be_bytes();
            bytes[at..end].copy_from_slice(&lie[..end - at]);
        }
        4 => {
            let lie: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0x0f];
            bytes.splice(at..at, lie.iter().copied());
        }
        _ => {
            let copy = bytes[at..].to_vec();
            bytes.extend_from_slice(&copy);
        }
    }
    bytes
}

#[test]
fn every_api_and_version_survives_frames_that_lie() {
    let mut scene = Scene::new();
    create(&mut scene.stranger(), "other", &[]);
    let records = batch(&[b"one", b"two"]);
    let blobs: [&[u8]; 4] = [&records, b"", &records[..40], b"not a batch"];
    let (mut random, seed) = Random::from_environment();
    let mut open: VecDeque<Wire> = VecDeque::new();
    let mut frames = 0;
    for api in registry::advertised() {
        for version in api.served_min..=api.max {
            let choices = random.bytes(60);
            let whole = request(api, version, &choices, &blobs);
            for nth in 0..=MUTANTS {
                let mut frame = match nth {
                    0 => whole.clone(),
                    _ => mutate(&whole, &mut random),
                };
                let mut length = frame.len();
                if random.below(8) == 0 {
                    // The end never comes, or belongs to the next frame.
                    length = length.wrapping_add(random.below(64)) - random.below(8);
                }
                frame.splice(0..0, (length as i32).to_be_bytes());
                let mut wire = scene.stranger();
                wire.send_raw(&frame);
                open.push_back(wire);
                if open.len() > OPEN_MAX {
                    open.pop_front();
                }
                frames += 1;
            }
        }
        println!("CHRONIK_SEED={seed}: {} went well", api.name());
        scene.undisturbed();
    }
    assert!(frames > 1_000, "{frames}");
}

/// A frame of some 60 bytes that claims two billion elements, in every place of every request
/// where a count may stand: what the shapes refuse is closed, and nothing is allocated for it.
/// The peak of the address space would show what was reserved and never touched.
/// `tests/limits.sh` runs this with both settings of `vm.overcommit_memory`.
#[test]
fn claims_of_two_billion_elements_cost_nothing() {
    let mut scene = Scene::new();
    let mut frames = Vec::new();
    for api in registry::advertised() {
        for version in [api.served_min, api.max] {
            claims(api, version, &mut frames);
        }
    }
    assert!(frames.len() > 1_000, "{}", frames.len());
    for (what, frame) in &frames[..100] {
        refused(&scene, what, frame);
    }
    scene.undisturbed();
    let before = Memory::of(scene.broker.process());
    let mut most = 0;
    for (what, frame) in &frames {
        // The broker has other things to do: what a frame costs, it costs each time.
        let cost = (0..3).map(|_| cost(&scene, what, frame)).find(|cost| *cost < CLAIM_BYTES);
        let cost =
            cost.unwrap_or_else(|| panic!("{what}: more than {CLAIM_BYTES} bytes, each time"));
        most = most.max(cost);
    }
    let after = Memory::of(scene.broker.process());
    let reserved = after.peak_virtual_bytes.saturating_sub(before.peak_virtual_bytes);
    println!(
        "{} claims: {} KiB at most, {} KiB reserved",
        frames.len(),
        most >> 10,
        reserved >> 10
    );
    assert!(reserved < 512 << 20, "{} MiB of address space", reserved >> 20);
}

/// What one such frame may cost.
const CLAIM_BYTES: u64 = 1 << 20;

fn refused(scene: &Scene, what: &str, frame: &[u8]) {
    let mut wire = scene.stranger();
    wire.send_frame(frame);
    wire.assert_closed(what);
}

/// How far resident memory rose while a frame was refused, in bytes.
fn cost(scene: &Scene, what: &str, frame: &[u8]) -> u64 {
    let process = scene.broker.process();
    Memory::forget_peak(process);
    let before = Memory::of(process).peak_resident_bytes;
    refused(scene, what, frame);
    Memory::of(process).peak_resident_bytes.saturating_sub(before)
}

/// The frames of one request with a claim that the shapes refuse.
fn claims(api: &Api, version: i16, frames: &mut Vec<(String, Vec<u8>)>) {
    // Two of everything.
    let whole = request(api, version, &[2], &[b"blob"]);
    let body_at = header(api.key, version, 1).len();
    let claim: &[u8] = match api.is_flexible(version) {
        true => &[0xff, 0xff, 0xff, 0xff, 0x07],
        false => &[0x7f, 0xff, 0xff, 0xff],
    };
    for at in body_at..whole.len().min(body_at + 24) {
        let mut frame = whole[..at].to_vec();
        frame.extend_from_slice(claim);
        frame.resize(frame.len().max(60), 0);
        let body = Bytes::copy_from_slice(&frame[body_at..]);
        if net::schema::check(api, version, &body).is_err() {
            frames.push((format!("{} {version} claims at {at}", api.name()), frame));
        }
    }
}
