#!/usr/bin/env bash
# Every decoder of bytes from outside under libFuzzer, each for so many seconds, from the committed corpus.
#
#   fuzz/run.sh [SECONDS [TARGET…]]      20 s each; without targets all of them, two at once
#
# A target is one line of `DECODERS` in tests/decoders/entries.rs, which `cargo test --test decoders` drives with
# mutations of the same corpus and without libFuzzer. Runs on the stable toolchain. Installs cargo-fuzz when it is
# missing, and fails loudly where it cannot. This crate is outside the workspace: no other build sees it.
#
# New inputs stay in fuzz/target, a finding in fuzz/artifacts: its bytes become a test beside the decoder that they broke.
# `cargo fuzz run TARGET FILE` replays one.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-20}
shift || true
if ! cargo fuzz --version >/dev/null 2>&1; then
    root=${CHRONIK_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/chronik-tests}/cargo-fuzz-0.13.2
    if [ ! -x "$root/bin/cargo-fuzz" ]; then
        echo "installing cargo-fuzz into $root"
        cargo install --quiet --locked cargo-fuzz --version 0.13.2 --root "$root" || true
    fi
    PATH=$PATH:$root/bin
    cargo fuzz --version || {
        echo "error: cargo-fuzz is missing and could not be installed" >&2
        exit 1
    }
fi
# The stable toolchain has all that libFuzzer needs, behind this switch.
export RUSTC_BOOTSTRAP=1
mapfile -t targets < <(cargo fuzz list)
listed=$(grep -c '^    ("' ../tests/decoders/entries.rs)
if [ "${#targets[@]}" -ne "$listed" ]; then
    echo "error: ${#targets[@]} fuzz targets for $listed decoders in tests/decoders/entries.rs" >&2
    exit 1
fi
[ $# -gt 0 ] && targets=("$@")
cargo fuzz build
programs=target/$(rustc -vV | sed -n 's/^host: //p')/release
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# one TARGET
one() {
    local grown=target/corpus/$1
    mkdir -p "$grown" "artifacts/$1"
    if ! ASAN_OPTIONS=quarantine_size_mb=32 "$programs/$1" "$grown" "corpus/$1" -max_total_time="$seconds" \
        -max_len=65536 -rss_limit_mb=1024 -timeout=10 -print_final_stats=1 -artifact_prefix="artifacts/$1/" \
        >"$logs/$1" 2>&1; then
        echo "FAILED $1"
        tail -40 "$logs/$1"
        return 1
    fi
    local runs
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$logs/$1")
    echo "ok     $1: $runs inputs in $seconds s"
}

failed=0
for ((at = 0; at < ${#targets[@]}; at += 2)); do
    pids=()
    for target in "${targets[@]:at:2}"; do
        one "$target" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
done
exit $failed
