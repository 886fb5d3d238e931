# shellcheck shell=bash disable=SC2034
# Shared by the scripts under tests/ and by .ci/run: sourced, not run.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
release=${CARGO_TARGET_DIR:-$repo/target}/release
# What programs say, how they sort and what they take for text is the same on every machine.
export LC_ALL=C.UTF-8
unset LANGUAGE
driver=${RINGWIRE_DRIVER:-epoll}

# The project's own server, as the tests run it. RINGWIRE_ECHO=async-echo: the one whose handler is an async function.
echo_program=${RINGWIRE_ECHO:-echo}
# The server takes its environment for settings, and refuses one that it does not know.
unset RINGWIRE_ECHO
echo_server=(
    "$release/$echo_program"
    --io-workers 1
    --driver "$driver"
    --pin none
    --max-message 64MiB
    --idle-timeout off
)

# Beside a TLS listener it has a plain one, which is not used.
echo_tls_server=("${echo_server[@]}" --listen 127.0.0.1:0)

build_echo_server() {
    (cd "$repo" && cargo build --release --quiet -p ringwire-examples --bin "$echo_program")
}

build_example_over_tokio() {
    (cd "$repo" && cargo build --release --quiet -p ringwire-tokio --example "$1")
}

# persistently COMMAND...: runs it again, up to four times, where it fails: for a network, or a lock that somebody has.
persistently() {
    local seconds
    for seconds in 5 10 20 40; do
        if "$@"; then
            return
        fi
        echo "failed, and again in $seconds s: $*" >&2
        sleep "$seconds"
    done
    "$@"
}

# free_port: prints a port at which nothing listens, and which the kernel gives to no client meanwhile.
free_port() {
    PYTHONPATH=$repo/tests/interop python3 -B -c 'from program import free_port; print(free_port())'
}

# npm_packages DIRECTORY LOG: the packages that its lock file names.
npm_packages() {
    (cd "$1" && persistently npm ci --prefer-offline --ignore-scripts --no-audit --no-fund --loglevel=error >"$2")
}

# python_venv NAME REQUIREMENT...: a virtual environment of exactly these packages, in $venv.
python_venv() {
    venv=$repo/.venv-$1
    shift
    if [[ -f $venv/requirements && $(<"$venv/requirements") == "$*" ]]; then
        return
    fi
    python3 -m venv --clear "$venv"
    persistently "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"
    echo "$*" >"$venv/requirements"
}

# python2_venv NAME REQUIREMENT...: the same with Python 2.7, which must be on the path or one of pyenv's.
python2_venv() {
    local name=$1 candidate python2=''
    shift
    for candidate in python2.7 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
        if "$candidate" -c '' 2>/dev/null; then
            python2=$candidate
            break
        fi
    done
    if [[ -z $python2 ]]; then
        echo "Python 2.7 is not installed: $* needs it" >&2
        return 1
    fi
    # The last release that makes environments of Python 2.7.
    python_venv virtualenv virtualenv==20.21.1
    local virtualenv=$venv/bin/virtualenv
    venv=$repo/.venv-$name
    if [[ -f $venv/requirements && $(<"$venv/requirements") == "$*" ]]; then
        return
    fi
    "$virtualenv" --quiet --clear --python "$python2" "$venv"
    persistently "$venv/bin/pip" install --quiet --disable-pip-version-check "$@" 2>"$venv/pip.log" || {
        cat "$venv/pip.log" >&2
        return 1
    }
    echo "$*" >"$venv/requirements"
}

# self_signed_certificate DIRECTORY: a new certificate for localhost and 127.0.0.1 in cert.pem, and its key in
# key.pem. It is no authority, since clients on webpki take none for a server.
self_signed_certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
        -subj /CN=localhost -addext 'subjectAltName = DNS:localhost, IP:127.0.0.1' \
        -addext 'basicConstraints = critical, CA:FALSE' \
        -keyout "$1/key.pem" -out "$1/cert.pem" 2>"$1/openssl.log" || {
        cat "$1/openssl.log" >&2
        return 1
    }
}

# start_server LOG COMMAND...: runs the command with `--listen` on a free port and returns when it
# takes connections. Sets $server_pid and $server_address.
start_server() {
    start_listening --listen "$@"
}

# start_tls_server DIRECTORY LOG COMMAND...: the same with `--tls-listen`, and a new certificate in the directory.
start_tls_server() {
    local directory=$1 log=$2
    shift 2
    self_signed_certificate "$directory"
    start_listening --tls-listen "$log" "$@" --cert "$directory/cert.pem" --key "$directory/key.pem"
}

# start_listening FLAG LOG COMMAND...
start_listening() {
    local flag=$1 log=$2 port
    shift 2
    port=$(free_port)
    server_address=127.0.0.1:$port
    "$@" "$flag" "$server_address" >"$log" 2>&1 &
    server_pid=$!
    trap stop_server EXIT
    for _ in {1..600}; do
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

# Ends the server by SIGTERM, by SIGKILL when it needs more than a minute for it, and sets
# $server_status to its exit status.
stop_server() {
    [[ -n ${server_pid:-} ]] || return 0
    kill "$server_pid" 2>/dev/null || true
    for _ in {1..600}; do
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$server_pid" 2>/dev/null || true
    server_status=0
    wait "$server_pid" 2>/dev/null || server_status=$?
    server_pid=
}

# apt_package PACKAGE FILE: installs a Debian package unless its file is there.
apt_package() {
    [[ ! -e $2 ]] || return 0
    mkdir -p "$repo/out"
    persistently apt-get update -qq
    DEBIAN_FRONTEND=noninteractive persistently apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=600 "$1" >"$repo/out/apt-$1.log"
}

# debian_program PACKAGE PATH: sets $program to a program of a Debian package. Unless the package is installed, only the
# program is taken out of it: to install it could start a service.
debian_program() {
    program=/$2
    [[ ! -x $program ]] || return 0
    local directory=$repo/out/apt
    program=$directory/$2
    [[ ! -x $program ]] || return 0
    # Nothing of a download that was cut off is taken for the program.
    rm -rf "$directory/new"
    mkdir -p "$directory/new" "$(dirname "$program")"
    # Who is not root takes the lists that are there.
    ((EUID != 0)) || persistently apt-get update -qq
    (
        cd "$directory/new"
        persistently apt-get download -qq -o APT::Sandbox::User=root "$1"
        dpkg-deb --fsys-tarfile "$1"_*.deb | tar --extract "./$2"
        mv "$2" "$program"
    )
    rm -rf "$directory/new"
}

# start_postgresql: a server of Debian's PostgreSQL with a database of its own, until the script ends. Sets $database_url.
start_postgresql() {
    if [[ ! -d /usr/lib/postgresql ]]; then
        # Without this the package would make a cluster, and start it.
        apt_package postgresql-common /etc/postgresql-common/createcluster.conf
        sed -i -E 's/^#?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
        apt_package postgresql /usr/lib/postgresql
    fi
    local programs port as=()
    programs=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    postgresql_directory=$(mktemp -d)
    trap stop_postgresql EXIT
    # It refuses to run as root.
    if ((EUID == 0)); then
        as=(setpriv --reuid nobody --regid nogroup --clear-groups)
        chown nobody:nogroup "$postgresql_directory"
    fi
    postgresql_control=("${as[@]}" "$programs/pg_ctl" --pgdata "$postgresql_directory/data" --silent)
    echo a-password-of-the-tests >"$postgresql_directory/password"
    chmod a+r "$postgresql_directory/password"
    port=$(free_port)
    (
        cd "$postgresql_directory"
        "${as[@]}" "$programs/initdb" --pgdata data --username ringwire --pwfile password --auth scram-sha-256 \
            --encoding UTF8 --no-locale --no-sync >initdb.log || cat initdb.log
        "${postgresql_control[@]}" --wait --timeout 180 --log server.log \
            --options "-h 127.0.0.1 -p $port -k '' -c fsync=off" start || cat server.log
    ) >&2
    database_url=postgres://ringwire:a-password-of-the-tests@127.0.0.1:$port/postgres
}

stop_postgresql() {
    "${postgresql_control[@]}" --wait --mode fast stop || true
    rm -rf "$postgresql_directory"
}
