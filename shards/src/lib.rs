//! The `shards` crate of Chronik; see ARCHITECTURE.md.

pub mod api;
pub mod config;
pub mod groups;

pub mod log;
pub mod meta;
