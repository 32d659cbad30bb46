//! skeleton
pub(crate) mod fs;
pub(crate) mod net;
use crate::{buf::Home, error::BlockingError, Instant, Mutation, Shard};
use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// A node of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);
/// How a node goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashKind {
    /// The process dies; what it gave to the operating system survives.
    Kill,
    /// The machine dies; what was not synced may be lost, kept or torn.
    PowerCut,
}
/// What a world is like.
#[derive(Debug, Clone, Default)]
pub struct WorldOptions {}
/// A world.
pub struct World {}
/// The disk of a node, as seen from outside.
pub struct Disk<'w> {
    _w: &'w World,
}
/// Which disk faults happen, from now on.
#[derive(Debug, Clone, Default)]
pub struct DiskFaults {}
impl Disk<'_> {
    pub fn set_faults(&self, _f: DiskFaults) {
        unimplemented!()
    }
    /// Writes and syncs submitted since the world began.
    pub fn operations(&self) -> u64 {
        unimplemented!()
    }
    pub fn read_file(&self, _p: impl AsRef<Path>) -> Option<Vec<u8>> {
        unimplemented!()
    }
    pub fn write_file(&self, _p: impl AsRef<Path>, _c: &[u8]) {
        unimplemented!()
    }
    /// All files, by path.
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        unimplemented!()
    }
    /// Bit rot.
    pub fn flip_bits(&self, _p: impl AsRef<Path>, _position: u64, _mask: u8) {
        unimplemented!()
    }
    pub fn truncate_file(&self, _p: impl AsRef<Path>, _len: u64) {
        unimplemented!()
    }
    pub fn remove_file(&self, _p: impl AsRef<Path>) {
        unimplemented!()
    }
}
impl World {
    pub fn new(_seed: u64, _options: WorldOptions) -> World {
        unimplemented!()
    }
    /// A node that runs `main` on each of its shards, at once and after every restart.
    pub fn add_node<M, F>(&self, _name: &str, _shards: u16, _main: M) -> NodeId
    where
        M: Fn(Shard) -> F + 'static,
        F: Future<Output = ()> + 'static,
    {
        unimplemented!()
    }
    pub fn address(&self, _node: NodeId) -> IpAddr {
        unimplemented!()
    }
    pub fn now(&self) -> Instant {
        unimplemented!()
    }
    /// One poll of one task, or one event. False if nothing can ever happen again.
    pub fn step(&self) -> bool {
        unimplemented!()
    }
    pub fn run_for(&self, _d: Duration) {
        unimplemented!()
    }
    /// True once the condition holds; false if `limit` of virtual time passed without.
    pub fn run_until(&self, _done: impl FnMut(&World) -> bool, _limit: Duration) -> bool {
        unimplemented!()
    }
    pub fn crash(&self, _node: NodeId, _kind: CrashKind) {
        unimplemented!()
    }
    pub fn restart(&self, _node: NodeId) {
        unimplemented!()
    }
    /// Running: not crashed, and some main future has not returned.
    pub fn is_running(&self, _node: NodeId) -> bool {
        unimplemented!()
    }
    /// Crashes the node after so many more polls of its tasks.
    pub fn crash_after_polls(&self, _node: NodeId, _polls: u64, _kind: CrashKind) {
        unimplemented!()
    }
    /// Crashes the node when its disk has been given this operation (a count as in `Disk::operations`).
    pub fn crash_at_disk_operation(&self, _node: NodeId, _operation: u64, _kind: CrashKind) {
        unimplemented!()
    }
    pub fn disk(&self, _node: NodeId) -> Disk<'_> {
        unimplemented!()
    }
    /// Moves the node's wall clock.
    pub fn jump_wall_clock(&self, _node: NodeId, _ms: i64) {
        unimplemented!()
    }
    /// Holds back everything from `from` to `to` until healed.
    pub fn block_link(&self, _from: NodeId, _to: NodeId) {
        unimplemented!()
    }
    pub fn heal_link(&self, _from: NodeId, _to: NodeId) {
        unimplemented!()
    }
    pub fn heal_all(&self) {
        unimplemented!()
    }
    /// Resets all connections between two nodes, after a random number of the bytes in flight.
    pub fn cut_connections(&self, _a: NodeId, _b: NodeId) {
        unimplemented!()
    }
    pub fn set_mutation(&self, _m: Mutation, _on: bool) {
        unimplemented!()
    }
    pub fn trace_hash(&self) -> u64 {
        unimplemented!()
    }
}
/// Runs a body on one shard of a new world, and gives its value.
pub fn run<M, F, T>(_seed: u64, _main: M) -> T
where
    M: FnOnce(Shard) -> F + 'static,
    F: Future<Output = T> + 'static,
    T: 'static,
{
    unimplemented!()
}

pub(crate) struct Host {}
impl Host {
    pub(crate) fn now(&self) -> Instant {
        unimplemented!()
    }
    pub(crate) fn wall_ms(&self) -> i64 {
        unimplemented!()
    }
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        _work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        unimplemented!()
    }
    pub(crate) fn broken(&self, _m: Mutation) -> bool {
        unimplemented!()
    }
    pub(crate) fn resolve(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        unimplemented!()
    }
    pub(crate) fn stop_node(&self) {
        unimplemented!()
    }
    pub(crate) fn home(&self) -> &Arc<Home> {
        unimplemented!()
    }
}
