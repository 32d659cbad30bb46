#!/usr/bin/env bash
# Every command line tool of Apache Kafka that the README promises, unchanged, against a running broker.
#
#   tests/clients/kafka-tools.sh HOST:PORT
#
# Installs, when missing: a Java runtime and Maven (Debian packages), and Apache Kafka's tools (Maven Central,
# by the pom.xml beside this file, into the cache folder of lib.sh). Passes against Apache Kafka itself too.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
broker=${1:?usage: kafka-tools.sh HOST:PORT}
fetch_kafka

work=$(mktemp -d)
trap 'rm -rf "$work" "$out"' EXIT
# Names that no earlier run against the same broker has used.
id=$(date +%s)-$$
topic=tools-$id
group=group-$id

# The class behind each of Kafka's scripts (bin/kafka-….sh is a wrapper around it).
java_tool() { java -Xmx256M -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$kafka_lib/*" "$@"; }
kafka_topics() { java_tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$broker" "$@"; }
kafka_configs() { java_tool kafka.admin.ConfigCommand --bootstrap-server "$broker" "$@"; }
kafka_consumer_groups() { java_tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --bootstrap-server "$broker" "$@"; }
kafka_console_producer() { java_tool org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$broker" "$@"; }
kafka_console_consumer() { java_tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$broker" "$@"; }
kafka_get_offsets() { java_tool org.apache.kafka.tools.GetOffsetShell --bootstrap-server "$broker" "$@"; }
kafka_delete_records() { java_tool org.apache.kafka.tools.DeleteRecordsCommand --bootstrap-server "$broker" "$@"; }
kafka_log_dirs() { java_tool org.apache.kafka.tools.LogDirsCommand --bootstrap-server "$broker" "$@"; }
kafka_producer_perf_test() { java_tool org.apache.kafka.tools.ProducerPerformance "$@"; }
kafka_consumer_perf_test() { java_tool org.apache.kafka.tools.ConsumerPerformance --bootstrap-server "$broker" "$@"; }
kafka_e2e_latency() { java_tool org.apache.kafka.tools.EndToEndLatency "$@"; }
kafka_broker_api_versions() { java_tool org.apache.kafka.tools.BrokerApiVersionsCommand --bootstrap-server "$broker" "$@"; }
kafka_cluster() { java_tool org.apache.kafka.tools.ClusterTool "$@"; }
kafka_metadata_quorum() { java_tool org.apache.kafka.tools.MetadataQuorumCommand --bootstrap-server "$broker" "$@"; }
kafka_features() { java_tool org.apache.kafka.tools.FeatureCommand --bootstrap-server "$broker" "$@"; }
kafka_groups() { java_tool org.apache.kafka.tools.GroupsCommand --bootstrap-server "$broker" "$@"; }
kafka_transactions() { java_tool org.apache.kafka.tools.TransactionsCommand --bootstrap-server "$broker" "$@"; }
kafka_acls() { java_tool org.apache.kafka.tools.AclCommand --bootstrap-server "$broker" "$@"; }
kafka_leader_election() { java_tool org.apache.kafka.tools.LeaderElectionCommand --bootstrap-server "$broker" "$@"; }
kafka_reassign_partitions() { java_tool org.apache.kafka.tools.reassign.ReassignPartitionsCommand --bootstrap-server "$broker" "$@"; }
client_compatibility_test() { java_tool org.apache.kafka.tools.ClientCompatibilityTest --bootstrap-server "$broker" "$@"; }
kafka_verifiable_producer() { java_tool org.apache.kafka.tools.VerifiableProducer --bootstrap-server "$broker" "$@"; }
kafka_verifiable_consumer() { java_tool org.apache.kafka.tools.VerifiableConsumer --bootstrap-server "$broker" "$@"; }
export -f java_tool client_compatibility_test $(compgen -A function kafka_)
export kafka_lib broker

# `run` starts its command through `timeout`, which knows programs and no functions.
tool() { run bash -c '"$@"' _ "$@"; }
tool_fails() { fails bash -c '"$@"' _ "$@"; }

check "kafka-broker-api-versions"
tool kafka_broker_api_versions
prints 'Produce\(0\): 0 to 13'
prints 'Fetch\(1\): 4 to 1[78]'

check "kafka-topics --create"
tool kafka_topics --create --topic "$topic" --partitions 3 --replication-factor 1 --config retention.ms=86400000
prints "^Created topic $topic\.\$"

check "kafka-topics --create of a topic that exists"
tool_fails kafka_topics --create --topic "$topic" --partitions 3
prints "Topic '$topic' already exists\."

check "kafka-topics --create with what cannot be"
tool_fails kafka_topics --create --topic "bad-$id" --partitions 1 --replication-factor 3
prints 'Unable to replicate the partition 3 time\(s\)'
tool_fails kafka_topics --create --topic "bad-$id" --config no.such.config=1
prints 'no\.such\.config'

check "kafka-topics --list"
tool kafka_topics --list
prints "^$topic\$"
lacks '^__cluster_metadata'

check "kafka-topics --describe"
tool kafka_topics --describe --topic "$topic"
prints "^Topic: $topic	TopicId: [-_A-Za-z0-9]{22}	PartitionCount: 3	ReplicationFactor: 1	Configs: .*retention.ms=86400000"
prints_count 3 "	Topic: $topic	Partition: [012]	Leader: [0-9]+	Replicas: [0-9]+	Isr: [0-9]+	Elr: 	LastKnownElr: "

check "kafka-topics --alter"
tool kafka_topics --alter --topic "$topic" --partitions 4
tool kafka_topics --describe --topic "$topic"
prints 'PartitionCount: 4'
tool_fails kafka_topics --alter --topic "$topic" --partitions 2
prints 'would not be an increase'

check "kafka-configs --describe"
tool kafka_configs --entity-type topics --entity-name "$topic" --describe --all
prints 'retention\.ms=86400000 sensitive=false'
prints 'cleanup\.policy=delete sensitive=false'
tool kafka_configs --entity-type brokers --entity-default --describe

check "kafka-configs --alter"
tool kafka_configs --entity-type topics --entity-name "$topic" --alter --add-config max.message.bytes=200000,retention.bytes=1000000000
prints "Completed updating config for topic $topic"
tool kafka_configs --entity-type topics --entity-name "$topic" --describe
prints 'max\.message\.bytes=200000 '
tool kafka_configs --entity-type topics --entity-name "$topic" --alter --delete-config retention.bytes
tool kafka_configs --entity-type topics --entity-name "$topic" --describe
lacks 'retention\.bytes=1000000000'

check "kafka-configs on a broker"
node=$(java_tool org.apache.kafka.tools.BrokerApiVersionsCommand --bootstrap-server "$broker" 2>/dev/null | sed -n 's/.*(id: \([0-9]*\) .*/\1/p' | head -1)
tool kafka_configs --entity-type brokers --entity-name "$node" --describe --all
prints 'num\.partitions='
tool kafka_configs --entity-type brokers --entity-name "$node" --alter --add-config message.max.bytes=2000000
tool kafka_configs --entity-type brokers --entity-name "$node" --describe
prints 'message\.max\.bytes=2000000'
tool kafka_configs --entity-type brokers --entity-name "$node" --alter --delete-config message.max.bytes

check "kafka-console-producer"
seq 1 1000 | sed 's/^/line /' >"$work/lines"
tool kafka_console_producer --topic "$topic" <"$work/lines"
lacks 'ERROR|Exception'

check "kafka-console-producer with keys, acks and compression"
for i in 1 2 3 4 5; do echo "key$i:value$i"; done >"$work/keyed"
for codec in gzip snappy lz4 zstd; do
    tool kafka_console_producer --topic "keyed-$id" --compression-codec $codec --producer-property acks=all \
        --property parse.key=true --property key.separator=: <"$work/keyed"
    lacks 'ERROR|Exception'
done
tool kafka_console_consumer --topic "keyed-$id" --from-beginning --max-messages 20 --timeout-ms 20000 \
    --property print.key=true --property key.separator==
prints_count 20 '^key([1-5])=value[1-5]$'

check "kafka-console-consumer --from-beginning"
tool kafka_console_consumer --topic "$topic" --from-beginning --max-messages 1000 --timeout-ms 20000
prints_count 1000 '^line [0-9]+$'

check "kafka-console-consumer --partition --offset"
tool kafka_console_consumer --topic "keyed-$id" --partition 0 --offset 15 --max-messages 5 --timeout-ms 20000
prints_count 5 '^value[1-5]$'

check "kafka-console-consumer --group"
tool kafka_console_consumer --topic "$topic" --group "$group" --from-beginning --max-messages 1000 --timeout-ms 20000
prints_count 1000 '^line [0-9]+$'
# The group has everything: a second run gets nothing, and ends at its time limit.
tool kafka_console_consumer --topic "$topic" --group "$group" --from-beginning --timeout-ms 5000
prints_count 0 '^line '

check "kafka-consumer-groups --list"
tool kafka_consumer_groups --list
prints "^$group\$"

check "kafka-consumer-groups --describe"
tool kafka_consumer_groups --describe --group "$group"
prints_count 4 "^$group +$topic +[0-3] +[0-9]+ +[0-9]+ +0 "
tool kafka_consumer_groups --describe --group "$group" --state
prints "$group .*Empty"

check "kafka-consumer-groups --reset-offsets"
tool kafka_consumer_groups --reset-offsets --group "$group" --topic "$topic" --to-earliest --execute
prints_count 4 "^$group +$topic +[0-3] +0 "
tool kafka_console_consumer --topic "$topic" --group "$group" --max-messages 1000 --timeout-ms 20000
prints_count 1000 '^line [0-9]+$'

check "kafka-consumer-groups --delete-offsets"
tool kafka_consumer_groups --delete-offsets --group "$group" --topic "$topic:0"
tool kafka_consumer_groups --describe --group "$group"
prints_count 3 "^$group +$topic +[1-3] "

check "kafka-consumer-groups --delete"
tool kafka_consumer_groups --delete --group "$group"
prints 'Deletion of requested consumer groups .* was successful'
tool kafka_consumer_groups --list
lacks "^$group\$"
# Kafka's tool prints this error and exits 0.
tool kafka_consumer_groups --describe --group "$group"
prints "Group $group not found\."

check "kafka-groups --list"
tool kafka_groups --list

check "kafka-get-offsets"
tool kafka_get_offsets --topic "$topic"
prints_count 4 "^$topic:[0-3]:[0-9]+\$"
total=$(awk -F: -v t="$topic" '$1 == t { n += $3 } END { print n + 0 }' "$out")
[ "$total" = 1000 ] || wrong "the offsets add up to $total, not to 1000"
tool kafka_get_offsets --topic "$topic" --time earliest
prints_count 4 "^$topic:[0-3]:0\$"
tool kafka_get_offsets --topic "keyed-$id" --time max-timestamp
prints "^keyed-$id:0:[0-9]+\$"
tool kafka_get_offsets --topic "keyed-$id" --time 0
prints "^keyed-$id:0:0\$"

check "kafka-delete-records"
echo "{\"partitions\":[{\"topic\":\"keyed-$id\",\"partition\":0,\"offset\":12}],\"version\":1}" >"$work/delete.json"
tool kafka_delete_records --offset-json-file "$work/delete.json"
prints "partition: keyed-$id-0	low_watermark: 12"
tool kafka_get_offsets --topic "keyed-$id" --time earliest
prints "^keyed-$id:0:12\$"
tool kafka_console_consumer --topic "keyed-$id" --from-beginning --max-messages 8 --timeout-ms 20000
prints_count 8 '^value'

check "kafka-log-dirs --describe"
tool kafka_log_dirs --describe --topic-list "$topic"
prints "\"partition\":\"$topic-0\""
prints '"error":null'

check "kafka-producer-perf-test"
for acks in 0 1 all; do
    tool kafka_producer_perf_test --topic "perf-$id" --num-records 20000 --record-size 1000 --throughput -1 \
        --producer-props "bootstrap.servers=$broker" "acks=$acks"
    prints '20000 records sent, .*99.9th'
done

check "kafka-consumer-perf-test"
tool kafka_consumer_perf_test --topic "perf-$id" --messages 60000 --timeout 30000
lacks 'Exiting before consuming'
prints ', 6[0-9]{4}, '

check "kafka-e2e-latency"
tool kafka_e2e_latency "$broker" "e2e-$id" 500 all 100
prints 'Percentiles: 50th = '

check "kafka-verifiable-producer and -consumer"
tool kafka_verifiable_producer --topic "verify-$id" --max-messages 500 --acks -1
prints_count 500 '"name":"producer_send_success"'
tool kafka_verifiable_consumer --topic "verify-$id" --group-id "verify-$id" --max-messages 500
prints '"name":"records_consumed".*"count":'

check "kafka-metadata-quorum describe"
tool kafka_metadata_quorum describe --status
prints '^LeaderId: +[0-9]+'
tool kafka_metadata_quorum describe --replication

check "kafka-cluster cluster-id"
tool kafka_cluster cluster-id --bootstrap-server "$broker"
prints 'Cluster ID: [-_A-Za-z0-9]{22}$'

check "kafka-features describe"
tool kafka_features describe
prints 'Feature: metadata\.version'

check "client-compatibility-test: what Kafka's system tests ask of a broker of this version"
# It makes a topic of this name, and insists that there was none.
bash -c '"$@"' _ kafka_topics --delete --if-exists --topic newtopic >"$out" 2>&1
tool client_compatibility_test --topic "compat-$id" --num-cluster-nodes 1 --offsets-for-times-supported True \
    --cluster-id-supported True --expect-record-too-large-exception False --create-topics-supported True \
    --describe-acls-supported True --describe-configs-supported True --idempotent-producer-supported True
prints '^SUCCESS'

check "tools of features that are not in use answer plainly"
tool kafka_transactions list
tool_fails kafka_acls --list
prints 'No Authorizer is configured'
tool kafka_reassign_partitions --list
prints 'No partition reassignments found'

check "kafka-topics --delete"
for name in "$topic" "keyed-$id" "perf-$id" "e2e-$id" "verify-$id" "compat-$id" newtopic; do
    tool kafka_topics --delete --topic "$name"
done
tool kafka_topics --list
lacks "$id\$"
tool_fails kafka_topics --describe --topic "$topic"
prints "Topic '$topic' does not exist as expected"

summary "kafka-tools"
