#!/usr/bin/env bash
# Redis's own Tcl tests and redis-py's own tests, through Sluice and directly, compared name by name.
#
#   tests/suites.sh all           every run, whole (about 15 minutes, and 6 more the first time)
#   tests/suites.sh quick         a chosen part, in under three minutes with its sources; tests/run.sh runs it
#   tests/suites.sh sliced        the Tcl tests, with all that is sent cut into small pieces
#   tests/suites.sh RUN [UNIT..]  one run, or these units of it: tcl-shared unit/type/list
#   tests/suites.sh known RUN     what differs, in the form of docs/redis-suites/RUN.txt
#
# None of the tests are ours: they come from their packages into target/suites, once. JOBS=n runs so
# many units at a time (default 2); SLUICE=path takes another binary than target/debug/sluice.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_BUILD_JOBS="${CARGO_BUILD_JOBS:-2}" PYTHONDONTWRITEBYTECODE=1
TARGET="$PWD/target/suites"
REDIS_PY=6.4.0
PYTEST=(pytest==9.2.0 pytest-asyncio==1.5.0 pytest-timeout==2.4.0 mock==5.2.0 packaging==26.3
    numpy "redis==$REDIS_PY" redis-entraid==1.0.0 PyJWT==2.9.0 async-timeout)

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

install_packages() {
    local packages=()
    command -v redis-server >/dev/null || packages+=(redis-server)
    command -v redis-benchmark >/dev/null || packages+=(redis-tools)
    command -v tclsh >/dev/null || packages+=(tcl)
    command -v dpkg-source >/dev/null || packages+=(dpkg-dev)
    command -v unshare >/dev/null || packages+=(util-linux)
    [ -x /sbin/ip ] || command -v ip >/dev/null || packages+=(iproute2)
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3 python3-venv)
    [ ${#packages[@]} -gt 0 ] || return 0
    echo "installing: ${packages[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install "${packages[@]}"
}

# The source of the redis-server that apt would install, from the same archives, without touching
# the machine's own lists: `deb` lines stand there, `deb-src` seldom.
fetch_tcl() {
    [ -d "$TARGET/tcl" ] && return
    local work="$TARGET/apt"
    rm -rf "$work"
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    apt-cache policy redis-server | sort -u |
        sed -nE 's|^ +[0-9]+ (http[^ ]+) ([^ ]+)/([^ /]+) [^ ]+ Packages$|deb-src \1 \2 \3|p' >"$work/sources.list"
    local options=(-q -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=-
        -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=)
    (cd "$work" && apt-get "${options[@]}" update && apt-get "${options[@]}" source redis) \
        >"$TARGET/apt.log" 2>&1 || { tail -n 20 "$TARGET/apt.log"; return 1; }
    local source
    source=$(find "$work" -mindepth 1 -maxdepth 1 -type d -name 'redis-*')
    mkdir -p "$work/tcl/src"
    cp -r "$source"/{runtest,tests,utils,redis.conf} "$work/tcl/"
    for program in cli benchmark server; do
        ln -s "$(command -v "redis-$program")" "$work/tcl/src/redis-$program"
    done
    mv "$work/tcl" "$TARGET/tcl"
    rm -rf "$work"
}

fetch_redis_py() {
    [ -d "$TARGET/redis-py" ] && [ -x "$TARGET/venv/bin/pytest" ] && return
    python3 -m venv "$TARGET/venv"
    local pip=("$TARGET/venv/bin/python" -m pip -q --disable-pip-version-check)
    "${pip[@]}" install "${PYTEST[@]}"
    "${pip[@]}" download --no-binary redis --no-deps -d "$TARGET" "redis==$REDIS_PY"
    rm -rf "$TARGET/redis-py.new"
    mkdir -p "$TARGET/redis-py.new"
    tar -xzf "$TARGET/redis-$REDIS_PY.tar.gz" --strip-components 1 -C "$TARGET/redis-py.new"
    mv "$TARGET/redis-py.new" "$TARGET/redis-py"
}

[ $# -gt 0 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 64; }
mkdir -p "$TARGET"
install_packages
fetch_tcl
fetch_redis_py
[ -n "${SLUICE:-}" ] || cargo build --locked --quiet --bin sluice
exec python3 tests/suites/main.py "$@"
