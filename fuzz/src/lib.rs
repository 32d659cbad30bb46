//! The decoders under fuzz: the functions that `cargo test --test decoders` drives.

#[path = "../../tests/decoders/entries.rs"]
pub mod entries;
