//! The CPUs this process may use, from its affinity mask, which knows cpusets and taskset.

/// CPUs of the mask at the first call, in order; empty if the kernel does not say.
pub(super) fn allowed() -> Vec<usize> {
    // SAFETY: an all-zero set is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = std::mem::size_of::<libc::cpu_set_t>();
    // SAFETY: `set` is valid for `size` bytes; 0 means this thread.
    if unsafe { libc::sched_getaffinity(0, size, &mut set) } != 0 {
        return Vec::new();
    }
    // SAFETY: the numbers are below the size of the set.
    let in_set = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    (0..libc::CPU_SETSIZE as usize).filter(in_set).collect()
}
