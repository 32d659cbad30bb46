#!/bin/sh
# Runs the broker under the simulator: tests/simulate.sh [seeds, 200] [first seed, 0].
# All cores; prints failing seeds, the command that replays each, and seeds per second.
set -eu
cd "$(dirname "$0")/.."
count=${1:-200}
first=${2:-0}
program=$(cargo test -p chronik-bootstrap --test simulation --no-run 2>&1 |
    sed -n 's/.*Executable .*(\(.*simulation-[^)]*\)).*/\1/p')
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
start=$(date +%s)
seq "$first" $((first + count - 1)) | RUST_BACKTRACE=0 xargs -P "$(nproc)" -I {} sh -c \
    "CHRONIK_SEED={} '$program' acknowledged --nocapture > $logs/{} 2>&1 || touch $logs/failed.{}"
end=$(date +%s)
failed=0
for mark in "$logs"/failed.*; do
    [ -e "$mark" ] || continue
    failed=$((failed + 1))
    grep -E '^(seed|replay with)' "$logs/${mark##*failed.}" || tail -3 "$logs/${mark##*failed.}"
done
seconds=$((end > start ? end - start : 1))
echo "$count seeds, $failed failed, $(awk "BEGIN { printf \"%.1f\", $count / $seconds }") seeds/s"
[ "$failed" -eq 0 ]
