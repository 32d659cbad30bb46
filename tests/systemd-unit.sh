#!/usr/bin/env bash
# deploy/chronik.service is a unit that systemd understands: no unknown key, no wrong value.
#
#   tests/systemd-unit.sh
#
# Needs systemd-analyze, which is there wherever a unit is of use; elsewhere it says so and checks nothing.
set -eu
cd "$(dirname "$0")/.."
if ! command -v systemd-analyze >/dev/null; then
    echo "no systemd-analyze here: deploy/chronik.service was NOT checked"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The programs of the unit need not be installed here.
sed 's|^\(Exec[A-Za-z]*=\)[^ ]*|\1/bin/true|' deploy/chronik.service >"$work/chronik.service"
said=$(systemd-analyze verify --recursive-errors=no "$work/chronik.service" 2>&1) || true
if [ -n "$said" ]; then
    echo "$said"
    echo "error: systemd finds fault with deploy/chronik.service"
    exit 1
fi
echo "ok    deploy/chronik.service"
