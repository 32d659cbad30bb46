//! Measures a whole broker from outside, over sockets and /proc, as an operator would see it.
//!
//! Owns the null broker, the load generator, and the runs behind the tables of `perf/runs`. It
//! shares the codecs of `net` with the broker and nothing else: plain threads, blocking sockets, no
//! knowledge of what happens behind the port. Not part of the product.

pub mod connection;
pub mod error;
pub mod figures;
pub mod frames;
pub mod load;
pub mod null;
pub mod process;
pub mod runs;
pub mod single;

pub use error::PerfError;
