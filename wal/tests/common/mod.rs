//! What the tests of a log's behaviour share: one small log in the simulator, and short ways to
//! write to it. Six files of 128 KiB; every record has term 5.

use std::time::Duration;

use chronik_wal::{
    Flush, FrameNumber, GroupId, HardState, Identity, Index, Owner, RecordRef, Recovered,
    ReplicaId, Term, Wal, WalError, WalOptions,
};
use rt::sim::{NodeId, World};
use rt::{Shard, ShardId};

pub const OPTIONS: WalOptions = WalOptions {
    file_bytes: 128 << 10,
    first_file_bytes: 64 << 10,
    budget_bytes: 6 * (128 << 10),
    frame_max_bytes: 32 << 10,
    flush: Flush::Dsync,
    fill_ahead: true,
};

pub fn owner(group: u64) -> Owner {
    Owner { group: GroupId(group), replica: ReplicaId(1) }
}

pub fn identity() -> Identity {
    Identity { node: [7; 16], shard: ShardId(0), generation: 1 }
}

pub async fn open_with(shard: &Shard, options: WalOptions) -> Result<(Wal, Recovered), WalError> {
    let dir = shard.create_dir("/data/wal").await?;
    Wal::open(shard, dir, options, identity()).await
}

pub async fn open(shard: &Shard) -> (Wal, Recovered) {
    open_with(shard, OPTIONS).await.expect("the log opens")
}

pub fn entry(wal: &Wal, group: u64, index: u64, body: &[u8]) -> Result<FrameNumber, WalError> {
    let body: &[&[u8]] = &[body];
    let (owner, index, term) = (owner(group), Index(index), Term(5));
    wal.append(RecordRef::Append { owner, index, term, body }).map(|placed| placed.frame)
}

pub fn vote(wal: &Wal, group: u64, term: u64, commit: u64) -> Result<FrameNumber, WalError> {
    let state = HardState { term: Term(term), vote: ReplicaId(9), commit: Index(commit) };
    wal.append(RecordRef::HardState { owner: owner(group), state }).map(|placed| placed.frame)
}

pub fn checkpoint(wal: &Wal, group: u64, index: u64) -> Result<FrameNumber, WalError> {
    let (owner, index, term) = (owner(group), Index(index), Term(5));
    let body: &[&[u8]] = &[b"checkpoint"];
    wal.append(RecordRef::Checkpoint { owner, index, term, body }).map(|placed| placed.frame)
}

/// Runs the world until the node's work is done.
pub fn finish(world: &World, node: NodeId) {
    let done = world.run_until(|world| !world.is_running(node), Duration::from_secs(60));
    assert!(done, "the node's work does not end");
}
