//! See `subscription` in `tests/decoders/entries.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chronik_fuzz::entries::subscription(bytes));
