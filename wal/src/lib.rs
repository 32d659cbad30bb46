//! The `wal` crate of Chronik; see ARCHITECTURE.md.
