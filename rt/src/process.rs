//! What this process uses of the machine, as the kernel counts it: for metrics.
//!
//! Reads /proc and clocks; nothing of it steers the broker. [`usage`] blocks and belongs on a plain
//! thread, [`thread_cpu`] is one short system call.

use std::time::Duration;

/// Figures of the whole process; those that only grow count from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessUsage {
    /// User and system time of all threads.
    pub cpu: Duration,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_fds: u64,
    /// The soft limit of open files.
    pub max_fds: u64,
    /// When the process started, in milliseconds since 1970.
    pub start_ms: u64,
    pub threads: u64,
}

/// `None` where /proc does not tell.
pub(crate) fn usage() -> Option<ProcessUsage> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let usage = parse(&stat, boot, sysconf(libc::_SC_CLK_TCK)?, sysconf(libc::_SC_PAGESIZE)?)?;
    Some(ProcessUsage {
        // One of them is the listing's own.
        open_fds: std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64,
        max_fds: crate::preflight::open_files_limit().ok()?,
        ..usage
    })
}

/// The fields of `/proc/self/stat` that are wanted (proc_pid_stat(5)); `boot_s` is the time of the
/// machine's start in seconds since 1970.
fn parse(stat: &str, boot_s: u64, ticks_per_s: u64, page_bytes: u64) -> Option<ProcessUsage> {
    // The second field is the name in parentheses, which may hold anything.
    let rest = stat.rsplit_once(')')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // By their numbers in the manual page; the first of `fields` is the third.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let millis = |ticks: u64| ticks * 1000 / ticks_per_s.max(1);
    Some(ProcessUsage {
        cpu: Duration::from_millis(millis(field(14)? + field(15)?)),
        threads: field(20)?,
        start_ms: boot_s * 1000 + millis(field(22)?),
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page_bytes,
        ..ProcessUsage::default()
    })
}

fn sysconf(name: libc::c_int) -> Option<u64> {
    // SAFETY: takes a number and touches no memory of ours.
    u64::try_from(unsafe { libc::sysconf(name) }).ok()
}

/// Processor time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call.
    match unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } {
        0 => Duration::new(time.tv_sec as u64, time.tv_nsec as u32),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_understood_whatever_the_name_of_the_process() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 7 0 1000 \
                    8192000 500 18446744073709551615 1 1 0";
        let usage = parse(stat, 1_000, 100, 4096).expect("a whole line");
        let expected = ProcessUsage {
            cpu: Duration::from_secs(2),
            resident_bytes: 500 * 4096,
            virtual_bytes: 8_192_000,
            start_ms: 1_010_000,
            threads: 7,
            ..ProcessUsage::default()
        };
        assert_eq!(usage, expected);
        assert_eq!(parse("12 (a) S 1", 0, 100, 4096), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage().expect("/proc is there");
        assert!(usage.resident_bytes > 0 && usage.threads > 0 && usage.open_fds > 0);
        assert!(usage.max_fds >= usage.open_fds);
        assert!(thread_cpu() <= usage.cpu + Duration::from_secs(1));
    }
}
