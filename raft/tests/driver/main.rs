//! Tests of the group driver as a state machine: drivers over logs and links in memory.

mod harness;
mod random;
mod scenarios;
mod traps;
