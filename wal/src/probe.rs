//! The start-up probe: which way of making 4 KiB durable is faster on this disk.
//!
//! Overwrites blocks of a small file that was written before, once with O_DSYNC and once with
//! write + fdatasync, in turns, and compares medians. The result is kept in the data folder, so
//! that only the first start pays (some tens of milliseconds); removing the file probes again.
//! On the shard that calls it.

use std::io;
use std::time::Duration;

use rt::{Dir, FileOptions, Shard};

use crate::format::BLOCK_BYTES;
use crate::options::Flush;

const RESULT_FILE: &str = "wal-probe";
const PROBE_FILE: &str = "wal-probe.tmp-file";
const BLOCKS: u64 = 64;
const ROUNDS_MAX: usize = 32;
const ROUNDS_MIN: usize = 3;
/// A slow disk is not probed for longer than this.
const TIME_MAX: Duration = Duration::from_millis(100);

/// What the probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub flush: Flush,
    /// Median time of a durable 4 KiB write.
    pub dsync: Duration,
    pub fdatasync: Duration,
    /// The result was kept from an earlier start.
    pub kept: bool,
}

impl Probe {
    /// The median of the chosen way.
    pub fn cost(&self) -> Duration {
        match self.flush {
            Flush::Dsync => self.dsync,
            Flush::Fdatasync => self.fdatasync,
        }
    }

    fn new(dsync: Duration, fdatasync: Duration) -> Probe {
        let flush = if dsync <= fdatasync { Flush::Dsync } else { Flush::Fdatasync };
        Probe { flush, dsync, fdatasync, kept: false }
    }

    fn render(&self) -> String {
        let (dsync, fdatasync) = (self.dsync.as_micros(), self.fdatasync.as_micros());
        format!("chronik wal probe 1\ndsync_us {dsync}\nfdatasync_us {fdatasync}\n")
    }

    /// `None` for anything that this version did not write.
    fn parse(text: &str) -> Option<Probe> {
        let mut lines = text.lines();
        if lines.next()? != "chronik wal probe 1" {
            return None;
        }
        let mut micros = |name| -> Option<Duration> {
            Some(Duration::from_micros(lines.next()?.strip_prefix(name)?.trim().parse().ok()?))
        };
        let probe = Probe::new(micros("dsync_us")?, micros("fdatasync_us")?);
        Some(Probe { kept: true, ..probe })
    }
}

/// The kept result, or a new one.
pub async fn probe(shard: &Shard, data: &Dir) -> io::Result<Probe> {
    if data.exists(RESULT_FILE).await? {
        let kept = data.read(RESULT_FILE).await?;
        if let Some(probe) = std::str::from_utf8(&kept).ok().and_then(Probe::parse) {
            return Ok(probe);
        }
    }
    let probe = measure(shard, data).await?;
    data.replace(RESULT_FILE, probe.render().as_bytes()).await?;
    Ok(probe)
}

async fn measure(shard: &Shard, data: &Dir) -> io::Result<Probe> {
    if data.exists(PROBE_FILE).await? {
        data.unlink(PROBE_FILE).await?;
    }
    let plain = FileOptions { read: false, ..FileOptions::READ_WRITE_DIRECT };
    let file = data.create_file(PROBE_FILE, plain).await?;
    let mut zeros = shard.buffer((BLOCKS * BLOCK_BYTES) as usize);
    zeros.resize_zeroed((BLOCKS * BLOCK_BYTES) as usize);
    file.write_at(zeros, 0).await?;
    file.sync().await?;
    let dsync = data.open_file(PROBE_FILE, FileOptions { dsync: true, ..plain }).await?;
    let (mut direct, mut synced) = (Vec::new(), Vec::new());
    let began = shard.now();
    for round in 0..ROUNDS_MAX {
        if round >= ROUNDS_MIN && shard.now().saturating_since(began) > TIME_MAX {
            break;
        }
        let position = (round as u64 * 2 % BLOCKS) * BLOCK_BYTES;
        let before = shard.now();
        dsync.write_at(block(shard), position).await?;
        direct.push(shard.now().saturating_since(before));
        let before = shard.now();
        file.write_at(block(shard), position + BLOCK_BYTES).await?;
        file.sync().await?;
        synced.push(shard.now().saturating_since(before));
    }
    data.unlink(PROBE_FILE).await?;
    Ok(Probe::new(median(direct), median(synced)))
}

fn block(shard: &Shard) -> rt::Buf {
    let mut block = shard.buffer(BLOCK_BYTES as usize);
    block.resize_zeroed(BLOCK_BYTES as usize);
    block
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_way_is_chosen_and_kept() {
        rt::sim::run(1, |shard| async move {
            let data = shard.create_dir("/data").await.unwrap();
            let first = probe(&shard, &data).await.unwrap();
            assert!(!first.kept);
            // Simulated disks sync slower than they write.
            assert_eq!(first.flush, Flush::Dsync);
            assert!(first.cost() > Duration::ZERO && first.dsync < first.fdatasync);
            let second = probe(&shard, &data).await.unwrap();
            assert!(second.kept && second.flush == first.flush);
            let files: Vec<_> =
                data.list().await.unwrap().into_iter().map(|entry| entry.name).collect();
            assert_eq!(files, [RESULT_FILE]);
            data.replace(RESULT_FILE, b"nonsense").await.unwrap();
            assert!(!probe(&shard, &data).await.unwrap().kept);
        });
    }

    #[test]
    fn what_is_kept_reads_back() {
        let probe = Probe::new(Duration::from_micros(190), Duration::from_micros(570));
        assert_eq!(Probe::parse(&probe.render()), Some(Probe { kept: true, ..probe }));
        assert_eq!(probe.flush, Flush::Dsync);
        assert_eq!(Probe::parse("chronik wal probe 2\n"), None);
    }
}
