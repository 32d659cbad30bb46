//! The simulated leaf of a shard: what its handle knows of the world.
//!
//! A host belongs to one life of one node. Once that life has ended every operation is void:
//! nothing reaches the disk or the network, and what was asked is never answered. So destructors
//! that run while a crash drops the tasks cannot act.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::rc::Rc;

use super::world::{answered, Inner, State};
use crate::error::BlockingError;
use crate::local::oneshot::oneshot;
use crate::pool::panic_text;
use crate::{Instant, Mutation};

/// Which latency an operation has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cost {
    Read,
    Write,
    Sync,
    Metadata,
}

#[derive(Clone)]
pub(crate) struct Host {
    world: Rc<Inner>,
    node: usize,
    life: u64,
}

impl Host {
    pub(super) fn new(world: Rc<Inner>, node: usize, life: u64) -> Host {
        Host { world, node, life }
    }

    pub(super) fn node(&self) -> usize {
        self.node
    }

    pub(super) fn world(&self) -> &Rc<Inner> {
        &self.world
    }

    pub(super) fn owner(&self) -> Option<(usize, u64)> {
        Some((self.node, self.life))
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(self.world.now.get())
    }

    pub(crate) fn wall_ms(&self) -> i64 {
        self.world.state.borrow().wall_ms(self.node, self.world.now.get())
    }

    pub(crate) fn broken(&self, mutation: Mutation) -> bool {
        self.world.mutations.get() & mutation.bit() != 0
    }

    pub(crate) fn stop_node(&self) {
        if self.is_alive() {
            self.world.state.borrow_mut().nodes[self.node].stop_due = true;
        }
    }

    /// Whether this host's life goes on.
    pub(super) fn is_alive(&self) -> bool {
        let state = self.world.state.borrow();
        let node = &state.nodes[self.node];
        node.running && node.life == self.life
    }

    pub(crate) fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let parsed = host.parse::<IpAddr>().ok().or_else(|| self.world.node_named(host));
        let address = parsed.map(|ip| SocketAddr::new(ip, port));
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("unknown host {host}"));
        address.map(|address| vec![address]).ok_or_else(unknown)
    }

    /// Runs inline, answers after some virtual time.
    pub(crate) fn blocking<T: 'static>(
        &self,
        work: impl FnOnce() -> T + 'static,
    ) -> impl Future<Output = Result<T, BlockingError>> {
        let result = catch_unwind(AssertUnwindSafe(work));
        let result = result.map_err(|panic| BlockingError::Panicked(panic_text(&*panic)));
        let answer = self.submit(Cost::Metadata, |_, _| {});
        async move {
            answer.await;
            result
        }
    }

    /// Lets `act` happen on the node after the operation's latency; gives its value then.
    pub(super) fn submit<T: 'static>(
        &self,
        cost: Cost,
        act: impl FnOnce(&mut State, usize) -> T + 'static,
    ) -> impl Future<Output = T> {
        let (sender, receiver) = oneshot();
        if self.is_alive() {
            let mut state = self.world.state.borrow_mut();
            let at = state.finish_time(self.node, cost, self.world.now.get());
            let node = self.node;
            state.at(at, self.owner(), move |state, now| {
                state.trace.add(&[4, node as u64, cost as u64, now]);
                let value = act(state, node);
                // Nobody waits any more: it happened all the same.
                let _ = sender.send(value);
            });
        }
        answered(receiver)
    }
}

impl State {
    /// When an operation that begins now will be finished.
    pub(super) fn finish_time(&mut self, node: usize, cost: Cost, now: u64) -> u64 {
        let faults = &self.nodes[node].faults;
        let (low, high) = match cost {
            Cost::Read => faults.read_ns,
            Cost::Write => faults.write_ns,
            Cost::Sync => faults.sync_ns,
            Cost::Metadata => faults.metadata_ns,
        };
        let slow = faults.slow_by_ns;
        // Mostly near the lower end, as real disks are.
        let spread = high.saturating_sub(low);
        let spread = if self.rng.u8(..8) == 0 { spread } else { spread / 4 };
        now + low + self.rng.u64(0..=spread) + slow
    }
}
