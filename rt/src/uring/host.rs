//! The io_uring leaf of a shard: its clock, blocking work and what its files and sockets need.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;

use super::executor::Bells;
use super::ring::Ring;
use super::watchdog::Pulse;
use super::{clock, Node};
use crate::error::BlockingError;
use crate::Instant;

pub(crate) struct Host {
    pub(super) node: Arc<Node>,
    bells: Bells,
    pulse: Arc<Pulse>,
    /// Operations in glommio's ring.
    in_glommio: Cell<u32>,
    /// Devices on which glommio has made up its mind about polled I/O; see `fs::settle_polling`.
    pub(super) settled: RefCell<BTreeSet<u64>>,
}

impl Host {
    pub(super) fn new(node: Arc<Node>, bells: Bells, pulse: Arc<Pulse>) -> Host {
        let settled = RefCell::default();
        Host { node, bells, pulse, in_glommio: Cell::new(0), settled }
    }

    pub(super) fn ring(&self) -> &Rc<Ring> {
        &self.bells.ring
    }

    /// To be held by whoever awaits glommio: the shard's thread then sleeps there.
    pub(super) fn use_glommio(&self) -> io::Result<InGlommio<'_>> {
        if self.in_glommio.get() == 0 {
            self.ring().notify(Some(&self.bells.glommio))?;
        }
        self.in_glommio.set(self.in_glommio.get() + 1);
        Ok(InGlommio(self))
    }

    pub(super) fn glommio_is_used(&self) -> bool {
        self.in_glommio.get() > 0
    }

    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
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

pub(super) struct InGlommio<'a>(&'a Host);

impl Drop for InGlommio<'_> {
    fn drop(&mut self) {
        let host = self.0;
        host.in_glommio.set(host.in_glommio.get() - 1);
        if host.in_glommio.get() == 0 {
            // If it fails the bell goes on ringing, which costs time and harms nothing.
            let _ = host.ring().notify(None);
        }
    }
}
