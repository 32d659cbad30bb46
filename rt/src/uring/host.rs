//! The io_uring leaf of a shard: its clock, blocking work and what its files and sockets need.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;

use super::ring::Ring;
use super::{clock, Node};
use crate::error::BlockingError;
use crate::Instant;

pub(crate) struct Host {
    pub(super) node: Arc<Node>,
    ring: Rc<Ring>,
    turns: Cell<u64>,
}

impl Host {
    pub(super) fn new(node: Arc<Node>, ring: Rc<Ring>) -> Host {
        Host { node, ring, turns: Cell::new(0) }
    }

    pub(super) fn ring(&self) -> &Rc<Ring> {
        &self.ring
    }

    /// How often the shard's loop has looked for completions.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.get()
    }

    pub(super) fn count_turn(&self) {
        self.turns.set(self.turns.get() + 1);
    }

    pub(crate) fn now(&self) -> Instant {
        clock::now()
    }

    pub(crate) fn wall_ms(&self) -> i64 {
        clock::wall_ms()
    }

    pub(crate) fn entropy(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        if let Err(error) = getrandom::fill(&mut bytes) {
            // UUIDs and salts that repeat would break what is built on them.
            panic!("the operating system gives no randomness: {error}");
        }
        bytes
    }

    pub(crate) fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, BlockingError>> {
        self.node.pool.run(work)
    }

    /// Blocking work with an I/O result.
    pub(super) async fn io<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self.blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(io::Error::other(error)),
        }
    }

    pub(crate) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let host = host.to_owned();
        self.io(move || Ok((host.as_str(), port).to_socket_addrs()?.collect())).await
    }

    pub(crate) fn stop_node(&self) {
        self.node.stop();
    }
}
