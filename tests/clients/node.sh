#!/usr/bin/env bash
# KafkaJS, the client of Node's own, against a running broker.
#
#   tests/clients/node.sh HOST:PORT
#
# Installs, when missing: the Debian packages nodejs and npm, and KafkaJS from the npm registry (node/package-lock.json
# pins it) into the cache folder of lib.sh.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
broker=${1:?usage: node.sh HOST:PORT}
need node nodejs
need npm npm

modules=$cache/node-$(cksum <"$here/node/package-lock.json" | cut -d' ' -f1)
if [ ! -f "$modules/.complete" ]; then
    echo "installing kafkajs into $modules"
    mkdir -p "$modules"
    cp "$here/node/package.json" "$here/node/package-lock.json" "$modules/"
    if ! npm ci --prefix "$modules" --no-audit --no-fund --ignore-scripts >"$out" 2>&1; then
        cat "$out"
        echo "error: npm could not install kafkajs"
        exit 1
    fi
    touch "$modules/.complete"
fi

check "kafkajs: admin, produce, consume, groups"
run env NODE_PATH="$modules/node_modules" KAFKAJS_NO_PARTITIONER_WARNING=1 node "$here/node/main.js" "$broker"
prints '^kafkajs: done$'

summary node
