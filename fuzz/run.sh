#!/usr/bin/env bash
# fuzz/run.sh [SECONDS]: every fuzz target for so long (20), from the committed corpus. Needs cargo-fuzz
# (`cargo install cargo-fuzz`); says so and fails without it. New inputs stay in fuzz/target, a finding in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-20}
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is not installed: cargo install --locked cargo-fuzz" >&2
    exit 1
fi
# The stable toolchain has all that libFuzzer needs, behind this switch.
export RUSTC_BOOTSTRAP=1
for target in $(cargo fuzz list); do
    grown=target/corpus/$target
    mkdir -p "$grown"
    echo "fuzz $target, $seconds s"
    cargo fuzz run "$target" "$grown" "corpus/$target" -- \
        -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=1024 -timeout=10 -print_final_stats=1
done
