//! Black-box tests: the real binary, real clients, raw sockets.
//!
//! One crate for all of them, so that librdkafka is linked once. Each test starts its own broker on
//! a free port with a folder of its own; nothing is shared, and everything is bounded in time.

mod bombs;
mod cli;
mod clients;
#[cfg(feature = "real-disks")]
mod disks;
mod hostile;
mod http;
mod kill;
mod load;
mod memory;
mod metrics;
mod mutations;
mod process;
mod settings;
mod support;
mod tools;
mod versions;
