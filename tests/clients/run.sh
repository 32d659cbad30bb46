#!/usr/bin/env bash
# Starts a broker on a free port with a folder of its own, and runs the client suites against it.
#
#   tests/clients/run.sh BINARY [SUITE…]        suites: kafka-tools kcat python go java node (default: all)
#
# Each suite says in its header what it installs. Everything is bounded in time; the broker ends with the script.
set -u
here=$(cd "$(dirname "$0")" && pwd)
binary=${1:?usage: run.sh BINARY [SUITE…]}
shift
[ $# -gt 0 ] || set -- kcat python go java node kafka-tools

folder=$(mktemp -d)
"$binary" standalone --data-dir "$folder/data" --kafka-port 0 >"$folder/screen" 2>"$folder/log" &
broker=$!
stop() {
    kill "$broker" 2>/dev/null
    wait "$broker" 2>/dev/null
    rm -rf "$folder"
}
trap stop EXIT

port=""
for _ in $(seq 300); do
    port=$(sed -n 's/.*Chronik server ready on [^ ]*:\([0-9]*\) .*/\1/p' "$folder/log")
    [ -n "$port" ] && break
    kill -0 "$broker" 2>/dev/null || break
    sleep 0.1
done
if [ -z "$port" ]; then
    cat "$folder/log"
    echo "error: the broker was not ready within 30 s"
    exit 1
fi

failures=0
for suite in "$@"; do
    echo "== $suite against $binary on port $port"
    timeout -k 10 900 "$here/$suite.sh" "127.0.0.1:$port" || failures=$((failures + 1))
    if ! kill -0 "$broker" 2>/dev/null; then
        echo "error: the broker ended"
        failures=$((failures + 1))
        break
    fi
done
if [ "$failures" != 0 ]; then
    echo "---- the broker's log (last lines)"
    tail -50 "$folder/log"
fi
[ "$failures" = 0 ]
