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

/// Lets this thread run on all of `cpus`: threads inherit the binding of the shard that starts
/// them, and blocking work must not compete with that shard alone.
pub(super) fn allow(cpus: &[usize]) {
    // SAFETY: an all-zero set is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the number is below the size of the set.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // Fails if no such CPU is left; then the inherited binding stays.
    // SAFETY: `set` is valid for its size; 0 means this thread.
    unsafe { libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &set) };
}
