//! The `shards` crate of Chronik; see ARCHITECTURE.md.
