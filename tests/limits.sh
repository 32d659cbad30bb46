#!/usr/bin/env bash
# The tests of hostile claims and of little memory, where only root can set the scene: with vm.overcommit_memory 0 and 1,
# and with the broker in a control group whose memory ends.
#
#   tests/limits.sh
#
# Restores the setting and removes the group. What this machine does not let it set is named as NOT CHECKED, the rest is
# checked, and it exits with 77.
set -euo pipefail
cd "$(dirname "$0")/.."
memory_bytes=$((192 << 20))
overcommit=/proc/sys/vm/overcommit_memory
before=$(cat $overcommit)
group=""

restore() {
    echo "$before" 2>/dev/null >$overcommit || true
    [ -z "$group" ] || rmdir "$group" 2>/dev/null || true
}
trap restore EXIT

# cannot WHAT
unchecked=0
cannot() {
    echo "NOT CHECKED: $1"
    unchecked=77
}

# run NAME: one test, which must be there
run() {
    local said
    said=$(timeout 900 cargo test --locked --test broker -- --exact "$1" --nocapture 2>&1) || { echo "$said"; echo "FAILED $1"; exit 1; }
    grep -q '^test result: ok. 1 passed' <<<"$said" || { echo "$said"; echo "error: no test $1"; exit 1; }
    grep -E ' claims: | MiB written ' <<<"$said"
}

for mode in 0 1; do
    if { echo $mode >$overcommit; } 2>/dev/null && [ "$(cat $overcommit)" = $mode ]; then
        echo "vm.overcommit_memory = $mode"
        run mutations::claims_of_two_billion_elements_cost_nothing
    else
        cannot "claims with vm.overcommit_memory = $mode: it cannot be set here"
    fi
done

# The memory controller of version 2, or that of version 1.
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    parent=/sys/fs/cgroup limit=memory.max swap=memory.swap.max none=0
    { echo +memory >$parent/cgroup.subtree_control; } 2>/dev/null || true
else
    parent=/sys/fs/cgroup/memory limit=memory.limit_in_bytes swap=memory.swappiness none=0
fi
group=$parent/chronik-test-$$
if mkdir "$group" 2>/dev/null && { echo $memory_bytes >"$group/$limit"; } 2>/dev/null; then
    { echo $none >"$group/$swap"; } 2>/dev/null || true
    echo "the broker in $((memory_bytes >> 20)) MiB ($group/$limit)"
    CHRONIK_TEST_CGROUP=$group run memory::many_clients_in_little_memory_are_slowed_down
    killed=$(cat "$group"/memory.events "$group"/memory.oom_control 2>/dev/null | sed -n 's/^oom_kill //p' || true)
    if [ "${killed:-0}" != 0 ]; then
        echo "FAILED: the kernel killed $killed processes of the group"
        exit 1
    fi
else
    [ -d "$group" ] || group=""
    cannot "many clients in little memory: no control group with a memory limit can be made here"
fi
[ $unchecked = 0 ] && echo "ok    claims and little memory"
exit $unchecked
