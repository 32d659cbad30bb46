//! See `folder` in `tests/decoders/worlds.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chronik_fuzz::entries::worlds::folder(bytes));
