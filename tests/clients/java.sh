#!/usr/bin/env bash
# The Java client (kafka-clients) against a running broker, by a small program.
#
#   tests/clients/java.sh HOST:PORT
#
# Installs, when missing: a JDK and Maven (Debian packages), and the client library (Maven Central, by the pom.xml
# beside this file, into the cache folder of lib.sh).
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
broker=${1:?usage: java.sh HOST:PORT}
need javac default-jdk-headless
fetch_kafka

classes=$(mktemp -d)
trap 'rm -rf "$classes" "$out"' EXIT
if ! javac -cp "$kafka_lib/*" -d "$classes" "$here/java/Client.java" >"$out" 2>&1; then
    cat "$out"
    echo "error: the Java client does not compile"
    exit 1
fi

check "java: administration, idempotent producer, two members of a group"
run java -Xmx256M -cp "$classes:$kafka_lib/*" Client "$broker"
prints '^java: done$'

summary java
