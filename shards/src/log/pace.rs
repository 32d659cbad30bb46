//! How readers of segments share the disk with the logs of this node.
//!
//! A disk serves what it has begun, and a scheduler may prefer reads to writes for as long as there
//! are any. Behind reads of 2 MiB by two threads, a log write of 4 KiB took 80 ms on a disk that
//! does it in 0.2 ms when left alone (mq-deadline over virtio, perf/runs/2026-11-22-reads.md);
//! behind two reads of 512 KiB 2 ms, of 128 KiB 0.6 ms, at about the same bytes a second. So a shard
//! reads segments one step at a time, in shorter steps while records are committed anywhere on the
//! node: what is shorter costs more system calls. Readers of a shard take turns by the step.
//!
//! One per shard; the time of the last commit is shared by all shards of the node, as the disk is.

use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;

use bytes::Bytes;
use rt::{File, Semaphore, Shard};

use super::types::Position;

/// A step while nobody waits for the log.
const STEP_BYTES: usize = 512 << 10;
/// And while somebody does.
const SHORT_STEP_BYTES: usize = 128 << 10;
/// Commits further apart than this count as none.
const BUSY_FOR_MS: u64 = 200;

/// When a record was committed last, by the wall clock: a jump of it costs some longer steps.
#[derive(Clone)]
struct LastCommit(Arc<AtomicI64>);

pub(super) struct Pace {
    shard: Shard,
    last_commit: LastCommit,
    /// For one step at a time.
    turn: Semaphore,
}

impl Pace {
    pub fn new(shard: &Shard) -> Pace {
        let last_commit = shard.common(|| LastCommit(Arc::new(AtomicI64::new(i64::MIN))));
        Pace { shard: shard.clone(), last_commit, turn: Semaphore::new(1) }
    }

    /// A record was committed on this shard.
    pub fn committed(&self, now_ms: i64) {
        // Shards that commit at the same time need not fight for the cache line.
        if self.last_commit.0.load(Ordering::Relaxed) != now_ms {
            self.last_commit.0.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Reads from a segment; fewer bytes only at its end.
    pub async fn read(&self, file: &File, position: Position, length: usize) -> io::Result<Bytes> {
        let next = async || {
            let turn = self.turn.acquire(1).await;
            (self.step_bytes(), turn)
        };
        file.read_in_steps(position.0, length, next).await
    }

    fn step_bytes(&self) -> usize {
        let last_ms = self.last_commit.0.load(Ordering::Relaxed);
        match self.shard.wall_ms().abs_diff(last_ms) <= BUSY_FOR_MS {
            true => SHORT_STEP_BYTES,
            false => STEP_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_short_while_any_shard_commits() {
        rt::sim::run(1, |shard| async move {
            let (here, there) = (Pace::new(&shard), Pace::new(&shard));
            assert_eq!(here.step_bytes(), STEP_BYTES, "nothing was ever committed");
            there.committed(shard.wall_ms());
            assert_eq!(here.step_bytes(), SHORT_STEP_BYTES);
            shard.sleep(std::time::Duration::from_millis(BUSY_FOR_MS + 1)).await;
            assert_eq!(here.step_bytes(), STEP_BYTES);
        });
    }
}
