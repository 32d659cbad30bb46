# Shared by the client suites: running a command with a time limit, checking what it printed, counting.
#
# A suite names each check with `check NAME`, runs one command with `run …` (its output and status are
# kept, and shown only when something is wrong), and says what it expects with `prints`, `lacks`, `fails`.
# `summary` prints the closing line and sets the exit status. Sourced by bash with `set -u`.

passed=0
failed=0
current=""
current_ok=1
command_line=""
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# The longest that one command may take.
COMMAND_SECONDS=${COMMAND_SECONDS:-90}

finish_check() {
    [ -n "$current" ] || return 0
    if [ "$current_ok" = 1 ]; then
        passed=$((passed + 1))
        echo "ok    $current"
    else
        failed=$((failed + 1))
        echo "FAIL  $current"
    fi
    current=""
}

check() {
    finish_check
    current=$1
    current_ok=1
}

wrong() {
    if [ "$current_ok" = 1 ]; then
        echo "---- $current"
        echo "     command: $command_line"
        sed 's/^/     | /' "$out" | head -60
    fi
    echo "     $*"
    current_ok=0
}

# run COMMAND…: must exit 0 within the limit; its standard input is this function's.
run() {
    command_line=$*
    status=0
    timeout -k 5 "$COMMAND_SECONDS" "$@" >"$out" 2>&1 || status=$?
    [ "$status" = 0 ] || wrong "exit status $status"
}

# fails COMMAND…: must end by itself with another status than 0.
fails() {
    command_line=$*
    status=0
    timeout -k 5 "$COMMAND_SECONDS" "$@" >"$out" 2>&1 || status=$?
    case $status in
    0) wrong "succeeded, and should not have" ;;
    124 | 137) wrong "did not end within $COMMAND_SECONDS s" ;;
    esac
}

# prints REGEX: the last command's output has a line that matches (grep -E).
prints() {
    grep -Eq -- "$1" "$out" || wrong "expected a line like: $1"
}

# prints_count N REGEX: exactly N lines match.
prints_count() {
    local found
    found=$(grep -Ec -- "$2" "$out")
    [ "$found" = "$1" ] || wrong "expected $1 lines like: $2 (found $found)"
}

lacks() {
    if grep -Eq -- "$1" "$out"; then wrong "did not expect a line like: $1"; fi
}

# need PROGRAM PACKAGE: stops the suite, loudly, when a program is missing and cannot be installed.
need() {
    command -v "$1" >/dev/null && return 0
    echo "installing $2 (for $1)"
    { apt-get install -y --no-install-recommends "$2" || { apt-get update && apt-get install -y --no-install-recommends "$2"; }; } >"$out" 2>&1
    command -v "$1" >/dev/null && return 0
    cat "$out"
    echo "error: $1 is missing and package $2 could not be installed: as root, 'apt-get install $2'"
    exit 1
}

# Python's virtual environments, which Debian packs apart from python3.
need_venv() {
    need python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null && return 0
    echo "installing python3-venv"
    { apt-get install -y --no-install-recommends python3-venv ||
        { apt-get update && apt-get install -y --no-install-recommends python3-venv; }; } >"$out" 2>&1
    python3 -c 'import ensurepip, venv' 2>/dev/null && return 0
    cat "$out"
    echo "error: python3 has no venv, and package python3-venv could not be installed: as root, 'apt-get install python3-venv'"
    exit 1
}

# Go as go/go.mod asks for it. Go since 1.21 fetches the toolchain it needs by itself; an older one (Debian 12 has
# 1.19), or none, is replaced by that toolchain from the Go module proxy, into the cache folder.
GO_VERSION=1.26.0
need_go() {
    local minor machine module
    minor=$(go version 2>/dev/null | sed -n 's/.*go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge 21 ] && return 0
    case $(uname -m) in
    x86_64) machine=amd64 ;;
    aarch64) machine=arm64 ;;
    *) echo "error: install Go 1.21 or newer (go.dev/dl)" && exit 1 ;;
    esac
    module=golang.org/toolchain@v0.0.1-go$GO_VERSION.linux-$machine
    if [ ! -f "$cache/$module/.complete" ]; then
        need python3 python3
        need curl curl
        need update-ca-certificates ca-certificates
        echo "fetching Go $GO_VERSION from the Go module proxy into $cache"
        if ! curl -fsSL -m 600 -o "$cache/go.zip" "https://proxy.golang.org/${module/@//@v/}.zip" ||
            ! python3 -m zipfile -e "$cache/go.zip" "$cache" || ! chmod -R +x "$cache/$module/bin" "$cache/$module/pkg/tool"; then
            echo "error: Go $GO_VERSION could not be fetched; install Go 1.21 or newer (go.dev/dl)"
            exit 1
        fi
        rm -f "$cache/go.zip"
        touch "$cache/$module/.complete"
    fi
    PATH=$cache/$module/bin:$PATH
}

# One download folder for what the suites fetch; outside the repository, so that it is kept.
cache=${CHRONIK_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/chronik-tests}
mkdir -p "$cache"

# Fetches Apache Kafka's tools and client library from Maven Central, once.
KAFKA_VERSION=4.1.1
kafka_lib=$cache/kafka-$KAFKA_VERSION
fetch_kafka() {
    need java default-jre-headless
    need mvn maven
    [ -f "$kafka_lib/.complete" ] && return 0
    echo "fetching Apache Kafka $KAFKA_VERSION from Maven Central into $kafka_lib"
    if ! mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$kafka_lib" \
        -DincludeScope=runtime -Dkafka.version=$KAFKA_VERSION >"$out" 2>&1; then
        tail -30 "$out"
        echo "error: Maven could not fetch Apache Kafka's tools"
        exit 1
    fi
    touch "$kafka_lib/.complete"
}

summary() {
    finish_check
    echo "$1: $passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}
