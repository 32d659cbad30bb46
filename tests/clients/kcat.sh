#!/usr/bin/env bash
# kcat, as Debian ships it (librdkafka of 2022), against a running broker.
#
#   tests/clients/kcat.sh HOST:PORT
#
# Installs, when missing: the Debian package kcat.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
broker=${1:?usage: kcat.sh HOST:PORT}
need kcat kcat

work=$(mktemp -d)
trap 'rm -rf "$work" "$out"' EXIT
topic=kcat-$(date +%s)-$$
kcat=(kcat -b "$broker" -X broker.address.family=any -m 20)

check "kcat -L (metadata)"
run "${kcat[@]}" -L
prints 'broker [0-9]+ at '

check "kcat -P creates the topic and produces"
seq 1 500 | sed 's/^/key:value /' >"$work/lines"
run "${kcat[@]}" -P -t "$topic" -K: -X acks=all <"$work/lines"
lacks 'ERROR|Failed'

check "kcat -P with each codec"
for codec in gzip snappy lz4 zstd; do
    run "${kcat[@]}" -P -t "$topic" -K: -z $codec <"$work/lines"
    lacks 'ERROR|Failed'
done

check "kcat -P idempotent"
run "${kcat[@]}" -P -t "$topic" -K: -X enable.idempotence=true <"$work/lines"
lacks 'ERROR|Failed'

check "kcat -C reads everything, in order"
run "${kcat[@]}" -C -t "$topic" -o beginning -e -q -f '%o %k %s\n'
prints_count 3000 '^[0-9]+ key value [0-9]+$'
order=$(awk '$1 != NR - 1' "$out" | wc -l)
[ "$order" = 0 ] || wrong "$order offsets out of order"

check "kcat -C from the end and by count"
run "${kcat[@]}" -C -t "$topic" -o -5 -c 5 -q -f '%s\n'
prints_count 5 '^value (496|497|498|499|500)$'

check "kcat -Q (offset by time)"
run "${kcat[@]}" -Q -t "$topic:0:0"
prints "$topic \[0\] offset 0\$"

check "kcat -G (group)"
run "${kcat[@]}" -G "group-$topic" -X auto.offset.reset=earliest -c 3000 -q -f '%s\n' "$topic"
prints_count 3000 '^value [0-9]+$'

check "kcat -P with headers and tombstones"
run "${kcat[@]}" -P -t "$topic" -H trace=abc -H empty= <<<"with headers"
run "${kcat[@]}" -P -t "$topic" -K: -Z <<<"gone:"
run "${kcat[@]}" -C -t "$topic" -o -2 -e -q -f '%k|%s|%S|%h\n'
prints '^\|with headers\|12\|trace=abc,empty=$'
prints '^gone\|.*\|-1\|$'

summary kcat
