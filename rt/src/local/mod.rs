//! Channels and gates between the tasks of one shard.
//!
//! No atomics, no locks, deterministic: waiters are served in the order in which they began to
//! wait. All of these are `!Send`. No user code runs while an inner borrow is held: wakers are
//! woken and values dropped outside of it.

pub mod channel;
mod gate;
mod notify;
pub mod oneshot;
mod semaphore;
mod waiters;

pub use gate::{Gate, GateGuard};
pub use notify::{Notified, Notify};
pub use semaphore::{Permit, Semaphore};
pub(crate) use waiters::Waiters;
