//! The `raft` crate of Chronik; see ARCHITECTURE.md.
