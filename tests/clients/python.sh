#!/usr/bin/env bash
# Python's two Kafka clients against a running broker: confluent-kafka (librdkafka) and kafka-python (its own code).
#
#   tests/clients/python.sh HOST:PORT
#
# Installs, when missing: the packages of python/requirements.txt from PyPI, into a virtual environment in the
# cache folder of lib.sh (python3-venv from Debian where python3 has no venv).
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
broker=${1:?usage: python.sh HOST:PORT}
need_venv

venv=$cache/python-$(cksum <"$here/python/requirements.txt" | cut -d' ' -f1)
if [ ! -f "$venv/.complete" ]; then
    echo "installing $(tr '\n' ' ' <"$here/python/requirements.txt")into $venv"
    if ! python3 -m venv "$venv" ||
        ! "$venv/bin/pip" install -q --disable-pip-version-check -r "$here/python/requirements.txt"; then
        echo "error: pip could not install the Python clients"
        exit 1
    fi
    touch "$venv/.complete"
fi

check "confluent-kafka: admin, produce, consume, groups"
run "$venv/bin/python" "$here/python/confluent.py" "$broker"
prints '^confluent-kafka: done$'

check "kafka-python: admin, produce, consume, groups"
run "$venv/bin/python" "$here/python/pure.py" "$broker"
prints '^kafka-python: done$'

summary python
