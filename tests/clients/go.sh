#!/usr/bin/env bash
# Go's two Kafka clients against a running broker: franz-go and segmentio/kafka-go.
#
#   tests/clients/go.sh HOST:PORT
#
# Installs, when missing: Go (from the Go module proxy, see lib.sh); the modules of go/go.mod through the Go module proxy, into Go's
# own module cache.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
broker=${1:?usage: go.sh HOST:PORT}
need_go

program=$cache/go-clients-$$
trap 'rm -f "$program" "$out"' EXIT
if ! (cd "$here/go" && go build -o "$program" . >"$out" 2>&1); then
    cat "$out"
    echo "error: the Go clients do not build"
    exit 1
fi

for client in franz-go kafka-go; do
    check "$client: topics, produce, consume, groups"
    run "$program" "$client" "$broker"
    prints "^$client: done\$"
done

summary go
