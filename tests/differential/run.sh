#!/usr/bin/env bash
# Apache Kafka and this broker, both fresh and on loopback, asked the same; every answer compared.
#
#   tests/differential/run.sh BINARY PROGRAM [SECTION…]      the broker, and the built program of this crate
#
# Installs, when missing: what tests/clients/lib.sh says (a Java runtime, Maven, Apache Kafka from Maven Central).
# Both brokers end with the script; a whole run takes about two minutes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=${1:?usage: run.sh BINARY PROGRAM [SECTION…]}
program=${2:?usage: run.sh BINARY PROGRAM [SECTION…]}
shift 2
suite=$here
here=$here/../clients
. "$here/lib.sh"
fetch_kafka

folder=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do { kill -9 "$pid" && wait "$pid"; } 2>/dev/null || true; done
    rm -rf "$folder" "$out"
}
trap stop EXIT

# Two free ports, one for clients and one for Kafka's controller.
read -r port controller < <(python3 -c '
import socket
sockets = [socket.socket() for _ in range(2)]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))')
cat >"$folder/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$folder/kafka
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
P
kafka() { java -Xmx512M -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$kafka_lib/*" "$@"; }
kafka kafka.tools.StorageTool format -t 4L6g3nShT-eMCtK--X86sw -c "$folder/server.properties" >"$folder/kafka.log" 2>&1
java -Xmx512M -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$kafka_lib/*" kafka.Kafka "$folder/server.properties" >>"$folder/kafka.log" 2>&1 &
pids+=($!)
"$binary" standalone --data-dir "$folder/here" --kafka-port 0 --node-id 1 --advertised-addr 127.0.0.1 \
    >"$folder/screen" 2>"$folder/here.log" &
pids+=($!)

ready() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
ours=""
for _ in $(seq 600); do
    ours=$(sed -n 's/.*Chronik server ready on [^ ]*:\([0-9]*\) .*/\1/p' "$folder/here.log")
    [ -n "$ours" ] && ready "$port" && break
    sleep 0.1
done
if [ -z "$ours" ] || ! ready "$port"; then
    tail -20 "$folder/here.log" "$folder/kafka.log"
    echo "error: one of the brokers was not ready within a minute"
    exit 1
fi
timeout 600 "$program" "$port" "$ours" "$@"
