#!/bin/sh
# The broker under the simulator, many seeds on all cores: tests/simulate.sh [seeds, 500] [first seed, 0].
# Prints what fails with the command that replays it, what the seeds went through, and seeds per second.
# CHRONIK_THREADS limits the cores; CHRONIK_PROFILE names another cargo profile than dev.
set -eu
cd "$(dirname "$0")/.."
count=${1:-500}
first=${2:-0}
profile=${CHRONIK_PROFILE:-dev}
program=$(cargo test --profile "$profile" -p chronik-bootstrap --test simulation --no-run 2>&1 |
    sed -n 's/.*Executable .*(\(.*simulation-[^)]*\)).*/\1/p')
[ -x "$program" ] || {
    echo "it does not build: cargo test --profile $profile -p chronik-bootstrap --test simulation"
    exit 1
}
start=$(date +%s%N)
CHRONIK_SEED=$first CHRONIK_SEEDS=$count CHRONIK_THREADS=${CHRONIK_THREADS:-$(nproc)} RUST_BACKTRACE=0 \
    "$program" acknowledged --nocapture 2>/dev/null |
    awk -v count="$count" -v start="$start" '
        /^seed|^replay with|^ +[0-9]+ / { print; fflush() }
        /^test result: ok/ { good = 1 }
        END {
            "date +%s%N" | getline end
            printf "%d seeds, %.1f seeds/s%s\n", count, count * 1e9 / (end - start), good ? "" : ", FAILED"
            exit !good
        }'
