//! The runtime of Chronik: executors, tasks, timers, files, sockets and shard-to-shard rings.
//!
//! The only crate that names glommio, reads a clock, draws a random number, opens a file or a
//! socket, or starts a thread; everything above it does so through a [`Shard`]. There are two
//! backends behind one set of concrete types: io_uring ([`uring`]) and a seeded simulator
//! ([`sim`]). Both are compiled into every build; which one a shard uses is decided when it is
//! made, and costs the production path one predictable branch in the leaves. Tasks, timers,
//! channels, rings and futures are the same code in both.
//!
//! Futures and handles here are `!Send`: they live and die on one shard. What crosses shards is
//! said so in its type ([`Mesh`], [`cross`], [`AcceptedStream`], `bytes::Bytes`).

mod buf;
pub mod cross;
mod error;
mod fs;
pub mod local;
mod mesh;
mod mutation;
mod net;
mod pool;
pub mod preflight;
mod process;
mod ring;
mod select;
mod shard;
pub mod signals;
pub mod sim;
mod task;
mod time;
pub mod uring;

pub use buf::{Buf, BLOCK_BYTES};
pub use error::{os_code, BlockingError, Elapsed};
pub use fs::{Dir, DirEntry, File, FileOptions, LockGuard, Mapped, Space};
pub use local::channel::{bounded, channel};
pub use local::oneshot::oneshot;
pub use local::{Gate, GateGuard, Notify, Permit, Semaphore};
pub use mesh::{Mesh, Port, Sender};
pub use mutation::Mutation;
pub use net::{AcceptedStream, ListenOptions, Listener, Stream};
pub use preflight::{preflight, raise_open_files, use_small_pages};
pub use process::ProcessUsage;
pub use select::{either, first, join_all, Either};
pub use shard::{Shard, ShardId, ShardStats};
pub use task::Task;
pub use time::{Instant, Sleep};
