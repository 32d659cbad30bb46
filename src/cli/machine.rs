//! What the kernel says of this machine, as checks of the doctor: texts of /proc and /sys, judged.
//!
//! Reads only. What cannot be read is called unknown and is no fault: containers hide much.

use std::path::Path;

use super::doctor::{Check, Verdict};

const KERNEL_MIN: (u32, u32) = (5, 15);
const NO_OVERCOMMIT: &str = "2";
/// File systems that keep nothing over a restart of the machine.
const VOLATILE: [&str; 2] = ["tmpfs", "ramfs"];
/// File systems whose disk is elsewhere, or whose promises are another program's.
const REMOTE: [&str; 9] =
    ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "virtiofs", "fuse"];
/// Clocks that are read without asking a device.
const FAST_CLOCKS: [&str; 5] =
    ["tsc", "kvm-clock", "arch_sys_counter", "xen", "hyperv_clocksource_tsc_page"];

pub fn kernel() -> Check {
    judge_kernel(&text_of("/proc/sys/kernel/osrelease"))
}

/// Settings that the broker can run with, and better with others.
pub fn checks() -> Vec<Check> {
    let clocks = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    vec![
        overcommit(&text_of("/proc/sys/vm/overcommit_memory")),
        congestion(&text_of("/proc/sys/net/ipv4/tcp_congestion_control")),
        clock(&text_of(clocks)),
        cpu_governor(&text_of(governor)),
    ]
}

/// The file system that a folder is on.
pub fn file_system(folder: &Path) -> Check {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let mounts = text_of("/proc/self/mountinfo");
    judge_file_system(mount_of(&mounts, &folder).unwrap_or_default())
}

/// What the start of a broker says of the file system of its data folder; nothing if it is a disk.
pub fn file_system_warning(folder: &Path) -> Option<String> {
    let check = file_system(folder);
    let text = format!("data folder on {}. {}", check.found, check.change);
    (check.verdict != Verdict::Ok).then_some(text)
}

fn text_of(file: &str) -> String {
    std::fs::read_to_string(file).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn judge_kernel(release: &str) -> Check {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Check::ok("kernel", format!("unknown release `{release}`"));
    };
    match (major, minor) >= KERNEL_MIN {
        true => Check::ok("kernel", format!("Linux {release}")),
        false => Check::bad(
            "kernel",
            Verdict::Fail,
            format!("Linux {release}"),
            "Linux 5.15 or newer is needed for its io_uring",
        ),
    }
}

fn overcommit(mode: &str) -> Check {
    match mode {
        NO_OVERCOMMIT => Check::bad(
            "overcommit",
            Verdict::Warn,
            "vm.overcommit_memory = 2: memory must be there before it is used",
            "a broker reserves more than it uses, and an allocation that is refused ends it: \
             `sysctl vm.overcommit_memory=0`, kept in /etc/sysctl.d",
        ),
        "" => Check::ok("overcommit", "unknown"),
        mode => Check::ok("overcommit", format!("vm.overcommit_memory = {mode}")),
    }
}

fn congestion(name: &str) -> Check {
    match name {
        "bbr" => Check::bad(
            "congestion",
            Verdict::Warn,
            "bbr: connections within one machine are 30-45% slower than with cubic",
            "where clients run beside the broker: `sysctl \
             net.ipv4.tcp_congestion_control=cubic`, kept in /etc/sysctl.d",
        ),
        "" => Check::ok("congestion", "unknown"),
        name => Check::ok("congestion", name),
    }
}

fn clock(source: &str) -> Check {
    match source {
        "" => Check::ok("clock", "unknown"),
        source if FAST_CLOCKS.contains(&source) => Check::ok("clock", source),
        source => Check::bad(
            "clock",
            Verdict::Warn,
            format!("{source}: every look at the time asks a device"),
            "where the machine has another, boot with `clocksource=tsc`, or write its name to \
             /sys/devices/system/clocksource/clocksource0/current_clocksource",
        ),
    }
}

fn cpu_governor(name: &str) -> Check {
    match name {
        "" => Check::ok("governor", "none (the CPU or its host decides)"),
        "powersave" | "ondemand" | "conservative" => Check::bad(
            "governor",
            Verdict::Warn,
            format!("{name}: a CPU that slept answers late"),
            "`cpupower frequency-set -g performance` where latency counts",
        ),
        name => Check::ok("governor", name),
    }
}

/// Type and options of the mount that holds `folder` (proc_pid_mountinfo(5)): the last one with the
/// longest mount point.
fn mount_of<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let holds = |line: &'a str| {
        let (mount, file_system) = line.split_once(" - ")?;
        // Blanks in it are written as \\040, which no data folder should need.
        let point = Path::new(mount.split(' ').nth(4)?);
        let kind = file_system.split(' ').next()?;
        folder.starts_with(point).then(|| (point.components().count(), kind))
    };
    mounts.lines().filter_map(holds).max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

fn judge_file_system(kind: &str) -> Check {
    let family = kind.split('.').next().unwrap_or(kind);
    let bad = |found: String, change: &str| Check::bad("file system", Verdict::Warn, found, change);
    match kind {
        "" => Check::ok("file system", "unknown"),
        _ if VOLATILE.contains(&kind) => bad(
            format!("{kind}: what is kept here is gone when the machine restarts"),
            "name a folder on a disk with --data-dir",
        ),
        _ if REMOTE.contains(&family) => bad(
            format!("{kind}: whether a write is durable is for another machine or program to say"),
            "name a folder on a disk of this machine with --data-dir",
        ),
        "overlay" => bad(
            "overlay: the folder is part of the container and goes with it".into(),
            "mount a volume and name it with --data-dir",
        ),
        "btrfs" | "zfs" | "bcachefs" => bad(
            format!("{kind}: every write goes to new blocks, so a log written ahead gains nothing"),
            "ext4 or xfs make durable writes cheaper",
        ),
        kind => Check::ok("file system", kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_fails_and_a_new_one_does_not() {
        for (release, verdict) in [
            ("5.15.0-91-generic", Verdict::Ok),
            ("6.1.0", Verdict::Ok),
            ("5.4.0-150", Verdict::Fail),
            ("4.19", Verdict::Fail),
            ("strange", Verdict::Ok),
        ] {
            assert_eq!(judge_kernel(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn settings_that_cost_are_warned_of() {
        assert_eq!(overcommit("2").verdict, Verdict::Warn);
        assert_eq!(overcommit("0").verdict, Verdict::Ok);
        assert!(congestion("bbr").change.contains("cubic"));
        assert_eq!(congestion("cubic").verdict, Verdict::Ok);
    }

    #[test]
    fn clocks_and_governors_that_cost_are_warned_of() {
        assert_eq!(clock("tsc").verdict, Verdict::Ok);
        assert!(clock("hpet").change.contains("clocksource=tsc"));
        assert_eq!(cpu_governor("performance").verdict, Verdict::Ok);
        assert_eq!(cpu_governor("powersave").verdict, Verdict::Warn);
        assert_eq!((clock("").verdict, cpu_governor("").verdict), (Verdict::Ok, Verdict::Ok));
    }

    #[test]
    fn the_mount_with_the_longest_point_holds_the_folder() {
        let mounts = "27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
                      40 27 0:30 / /srv rw - xfs /dev/vdb rw\n\
                      41 40 0:31 / /srv/cache rw shared:2 master:3 - tmpfs tmpfs rw\n";
        let kind = |folder: &str| mount_of(mounts, Path::new(folder));
        assert_eq!(kind("/var/lib/chronik"), Some("ext4"));
        assert_eq!(kind("/srv/chronik"), Some("xfs"));
        assert_eq!(kind("/srv/cache/chronik"), Some("tmpfs"));
        assert_eq!(kind("/srvother"), Some("ext4"));
        assert_eq!(mount_of("", Path::new("/")), None);
    }

    #[test]
    fn file_systems_that_do_not_keep_what_they_take_are_warned_of() {
        for (kind, verdict) in [
            ("ext4", Verdict::Ok),
            ("xfs", Verdict::Ok),
            ("tmpfs", Verdict::Warn),
            ("nfs4", Verdict::Warn),
            ("fuse.sshfs", Verdict::Warn),
            ("overlay", Verdict::Warn),
            ("", Verdict::Ok),
        ] {
            assert_eq!(judge_file_system(kind).verdict, verdict, "{kind}");
        }
    }
}
