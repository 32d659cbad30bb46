//! Another process as /proc shows it: CPU time, memory, bytes given to the disk.
//!
//! CPU time comes in ticks of 10 ms, so it means something over seconds only. Bytes written count
//! when the kernel takes responsibility for them: direct writes at once, buffered ones when a page
//! becomes dirty.

use std::fs;
use std::time::Duration;

use crate::error::PerfError;

/// `sysconf(_SC_CLK_TCK)` of every Linux that runs here (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// What a process has used since its start, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu: Duration,
    pub rss_bytes: u64,
    /// The most that was ever resident.
    pub rss_peak_bytes: u64,
    pub written_bytes: u64,
}

/// Reads what /proc says of the process.
pub fn usage(pid: u32) -> Result<Usage, PerfError> {
    let stat = read(pid, "stat")?;
    let status = read(pid, "status")?;
    let io = read(pid, "io")?;
    Ok(Usage {
        cpu: cpu_of(&stat).ok_or(PerfError::Malformed("/proc/PID/stat"))?,
        rss_bytes: kilobytes(&status, "VmRSS:")? * 1024,
        rss_peak_bytes: kilobytes(&status, "VmHWM:")? * 1024,
        written_bytes: kilobytes(&io, "write_bytes:")?,
    })
}

fn read(pid: u32, file: &str) -> Result<String, PerfError> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(PerfError::io(path))
}

/// User and system time of all threads, also of those that ended. The program's name, in
/// parentheses, may itself hold spaces and parentheses.
fn cpu_of(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// The number behind a label.
fn kilobytes(text: &str, label: &'static str) -> Result<u64, PerfError> {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or(PerfError::Malformed(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 30 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_of(stat), Some(Duration::from_millis(2_800)));
        assert_eq!(cpu_of("7 (short) S 1"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 0 && usage.rss_peak_bytes >= usage.rss_bytes, "{usage:?}");
    }
}
