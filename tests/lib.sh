# shellcheck shell=bash disable=SC2034
# Shared by the scripts under tests/ and by .ci/run: sourced, not run.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
release=${CARGO_TARGET_DIR:-$repo/target}/release
driver=${RINGWIRE_DRIVER:-epoll}

# The project's own server, as the tests run it.
echo_server=(
    "$release/echo"
    --io-workers 1
    --driver "$driver"
    --pin none
    --max-message 64MiB
    --idle-timeout 0
)

build_echo_server() {
    (cd "$repo" && cargo build --release --quiet -p ringwire-examples --bin echo)
}

# python_venv NAME REQUIREMENT...: a virtual environment of exactly these packages, in $venv.
python_venv() {
    venv=$repo/.venv-$1
    shift
    if [[ -f $venv/requirements && $(<"$venv/requirements") == "$*" ]]; then
        return
    fi
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"
    echo "$*" >"$venv/requirements"
}

# start_server LOG COMMAND...: runs the command with `--listen` on a free port and returns when it
# takes connections. Sets $server_pid and $server_address.
start_server() {
    local log=$1 port
    shift
    port=$(python3 -c 'import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1])')
    server_address=127.0.0.1:$port
    "$@" --listen "$server_address" >"$log" 2>&1 &
    server_pid=$!
    trap stop_server EXIT
    for _ in {1..100}; do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            return
        fi
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "the server does not listen on $server_address: $*" >&2
    cat "$log" >&2
    exit 1
}

# Ends the server by SIGTERM, by SIGKILL when it needs more than ten seconds for it, and sets
# $server_status to its exit status.
stop_server() {
    [[ -n ${server_pid:-} ]] || return 0
    kill "$server_pid" 2>/dev/null || true
    for _ in {1..100}; do
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$server_pid" 2>/dev/null || true
    server_status=0
    wait "$server_pid" 2>/dev/null || server_status=$?
    server_pid=
}

# apt_package PACKAGE PROGRAM: installs a Debian package unless its program is there.
apt_package() {
    [[ ! -x $2 ]] || return 0
    mkdir -p "$repo/out"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" \
        >"$repo/out/apt-$1.log"
}
