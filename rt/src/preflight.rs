//! What the machine must allow before shards can start, in words an operator can act on.
//!
//! Runs on a plain thread before any shard exists. The checks change nothing;
//! [`raise_open_files`] raises the limit of this process as far as it may, and
//! [`use_small_pages`] changes how the kernel backs its memory.

use std::io;

use crate::uring::Options;

/// Locked memory under which glommio refuses to make an executor.
const MEMLOCK_MIN_BYTES: u64 = 512 * 1024;
/// What an executor registers: 1 MiB, pinned once per ring.
const MEMLOCK_PER_SHARD_BYTES: u64 = 3 << 20;
/// Open files under which a broker with a few hundred connections and partitions gets short.
const OPEN_FILES_ADVISED: u64 = 65_536;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Works, worth knowing.
    Info,
    /// Works, but worse than it could.
    Warning,
    /// Shards cannot start.
    Error,
}

/// One thing that was checked and is worth saying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was checked, in a word or two.
    pub what: &'static str,
    pub severity: Severity,
    /// What was found.
    pub detail: String,
    /// What to change; empty if nothing.
    pub hint: String,
}

/// Checks io_uring, locked memory, open files and CPUs; says what is worth saying.
pub fn preflight() -> Vec<Finding> {
    let shards = Options::default().shard_count();
    let may_lock = may_lock_without_limit();
    let memlock = limit(libc::RLIMIT_MEMLOCK).map(|limit| limit.soft);
    let files = limit(libc::RLIMIT_NOFILE).map(|limit| (limit.soft, limit.hard));
    let findings = [
        io_uring(probe_io_uring(), &io_uring_disabled()),
        memlock.ok().and_then(|bytes| locked_memory(bytes, may_lock, shards)),
        files.ok().and_then(|(soft, hard)| open_files(soft, hard)),
        Some(cpus(&Options::default().cpu_list())),
    ];
    findings.into_iter().flatten().collect()
}

/// Raises the limit of open files to the hard limit; gives the limit that holds then.
pub fn raise_open_files() -> io::Result<u64> {
    let Limit { soft, hard } = limit(libc::RLIMIT_NOFILE)?;
    if soft >= hard {
        return Ok(soft);
    }
    let wanted = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: `wanted` is valid for the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(hard)
}

/// The soft limit of open files.
pub(crate) fn open_files_limit() -> io::Result<u64> {
    limit(libc::RLIMIT_NOFILE).map(|limit| limit.soft)
}

/// Keeps transparent huge pages out of this process, whatever the machine's setting is: the first
/// byte that is touched of an allocator's region would make 2 MiB of it resident. Call it before
/// threads start; on a kernel that refuses, memory is larger and nothing else changes.
pub fn use_small_pages() {
    let (on, unused) = (1 as libc::c_ulong, 0 as libc::c_ulong);
    // SAFETY: takes plain numbers and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, unused, unused, unused) };
}

struct Limit {
    soft: u64,
    hard: u64,
}

fn limit(resource: libc::__rlimit_resource_t) -> io::Result<Limit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes.
    if unsafe { libc::getrlimit(resource, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Limit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

/// Makes a small ring and closes it again.
fn probe_io_uring() -> io::Result<()> {
    // struct io_uring_params is 120 bytes, all zero for the defaults.
    let mut params = [0_u64; 15];
    // SAFETY: the structure is as large as the kernel expects and valid for writes.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, params.as_mut_ptr()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: freshly made and owned by nobody else.
    unsafe { libc::close(fd as i32) };
    Ok(())
}

/// The text of `kernel.io_uring_disabled`, empty where the kernel does not know it.
fn io_uring_disabled() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    text.map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn io_uring(probe: io::Result<()>, disabled: &str) -> Option<Finding> {
    let error = probe.err()?;
    let (detail, hint) = match (error.raw_os_error(), disabled) {
        (Some(libc::EPERM), "1" | "2") => (
            format!("io_uring is switched off: kernel.io_uring_disabled = {disabled}"),
            "run `sysctl kernel.io_uring_disabled=0`, and keep it in /etc/sysctl.d".to_owned(),
        ),
        (Some(libc::EPERM | libc::EACCES), _) => (
            "io_uring is not permitted for this process".to_owned(),
            "a seccomp profile or security module blocks it; for Docker use \
             `--security-opt seccomp=unconfined` or a profile that allows io_uring_setup, \
             io_uring_enter and io_uring_register"
                .to_owned(),
        ),
        (Some(libc::ENOSYS), _) => (
            "this kernel has no io_uring, or a sandbox hides it".to_owned(),
            "Linux 5.15 or newer is needed, with io_uring allowed by the container's seccomp \
             profile"
                .to_owned(),
        ),
        (Some(libc::ENOMEM), _) => (
            "there is not enough lockable memory for an io_uring".to_owned(),
            "raise the limit of locked memory: LimitMEMLOCK=infinity in the systemd unit, \
             `ulimit -l unlimited` in a shell, `--ulimit memlock=-1` for Docker"
                .to_owned(),
        ),
        _ => (
            format!("io_uring_setup fails: {error}"),
            "check the kernel's version and the container's seccomp profile".to_owned(),
        ),
    };
    Some(Finding { what: "io_uring", severity: Severity::Error, detail, hint })
}

/// CAP_IPC_LOCK, by which the limit of locked memory does not count.
fn may_lock_without_limit() -> bool {
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let caps = line.and_then(|caps| u64::from_str_radix(caps.trim(), 16).ok());
    caps.is_some_and(|caps| caps & CAP_IPC_LOCK != 0)
}

fn locked_memory(bytes: u64, may_lock: bool, shards: u16) -> Option<Finding> {
    let hint = || {
        "raise the limit of locked memory: LimitMEMLOCK=infinity in the systemd unit, \
         `ulimit -l unlimited` in a shell, `--ulimit memlock=-1` for Docker"
            .to_owned()
    };
    let advised = MEMLOCK_PER_SHARD_BYTES * u64::from(shards);
    let kib = bytes / 1024;
    if bytes < MEMLOCK_MIN_BYTES {
        // glommio looks at the limit itself, whatever the capabilities.
        let detail = format!("only {kib} KiB may be locked in memory; 512 KiB are needed");
        let severity = Severity::Error;
        return Some(Finding { what: "memlock", severity, detail, hint: hint() });
    }
    if bytes < advised && !may_lock {
        let detail = format!(
            "{kib} KiB may be locked in memory; {} KiB let {shards} shards register all of their \
             buffers",
            advised / 1024
        );
        let severity = Severity::Warning;
        return Some(Finding { what: "memlock", severity, detail, hint: hint() });
    }
    None
}

fn open_files(soft: u64, hard: u64) -> Option<Finding> {
    // The start raises the soft limit to the hard one.
    if hard >= OPEN_FILES_ADVISED {
        return None;
    }
    Some(Finding {
        what: "open files",
        severity: Severity::Warning,
        detail: format!("at most {hard} files and connections may be open (now {soft})"),
        hint: format!(
            "raise the limit to {OPEN_FILES_ADVISED}: LimitNOFILE= in the systemd unit, \
             `ulimit -Hn` in a shell, `--ulimit nofile=` for Docker"
        ),
    })
}

fn cpus(list: &[usize]) -> Finding {
    let detail = match list {
        [] => "the CPU affinity is unknown; shards are not bound".to_owned(),
        list => format!("{} CPUs may be used: {list:?}", list.len()),
    };
    Finding { what: "cpus", severity: Severity::Info, detail, hint: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_run_shards() {
        assert!(preflight().iter().all(|finding| finding.severity < Severity::Error));
        let files = raise_open_files().expect("raising to the hard limit is always allowed");
        assert_eq!(files, limit(libc::RLIMIT_NOFILE).expect("limit").soft);
    }

    #[test]
    fn every_refusal_says_what_to_change() {
        let failed = |code| Err(io::Error::from_raw_os_error(code));
        for (code, disabled, says) in [
            (libc::EPERM, "2", "sysctl"),
            (libc::EPERM, "0", "seccomp"),
            (libc::EPERM, "", "seccomp"),
            (libc::ENOSYS, "", "5.15"),
            (libc::ENOMEM, "0", "LimitMEMLOCK"),
            (libc::EINVAL, "0", "kernel"),
        ] {
            let finding = io_uring(failed(code), disabled).expect("a finding");
            assert_eq!(finding.severity, Severity::Error);
            assert!(finding.hint.contains(says), "{code}: {}", finding.hint);
        }
        assert_eq!(io_uring(Ok(()), "2"), None);
    }

    #[test]
    fn little_locked_memory_is_an_error_or_a_warning() {
        let severity = |bytes, may, shards| locked_memory(bytes, may, shards).map(|f| f.severity);
        assert_eq!(severity(64 * 1024, true, 1), Some(Severity::Error));
        assert_eq!(severity(8 << 20, false, 2), None);
        assert_eq!(severity(8 << 20, false, 4), Some(Severity::Warning));
        assert_eq!(severity(8 << 20, true, 64), None);
    }

    #[test]
    fn few_open_files_are_a_warning() {
        assert_eq!(open_files(1024, 1 << 20), None);
        assert_eq!(open_files(1024, 4096).map(|f| f.severity), Some(Severity::Warning));
    }
}
