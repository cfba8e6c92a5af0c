#!/usr/bin/env bash
# Runs `sluice demo` on a Debian machine with Rust: installs redis-server when it is missing and
# builds in release mode first. Arguments go to the demo: --seconds N, --kill-replica.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    echo "demo.sh: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "redis-server is missing; as root: apt-get install redis-server"
    fi
}

install_redis() {
    command -v apt-get >/dev/null || fail "redis-server is missing, and so is apt-get to install it"
    echo "demo.sh: installing redis-server" >&2
    local get=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y)
    # A fresh machine has no package lists, an old one has stale ones: then once more with new ones.
    # Where systemd runs, Debian starts a server of its own on port 6379; the demo leaves it alone.
    as_root "${get[@]}" install --no-install-recommends redis-server >&2 || {
        as_root "${get[@]}" update >&2
        as_root "${get[@]}" install --no-install-recommends redis-server >&2
    }
    hash -r
    command -v redis-server >/dev/null || fail "apt-get has installed no redis-server"
}

command -v redis-server >/dev/null || install_redis

# rustup puts cargo here, and a shell started before that does not know.
command -v cargo >/dev/null || PATH="$PATH:$HOME/.cargo/bin"
command -v cargo >/dev/null || fail "cargo is missing; https://rustup.rs has it"
# Crates with C in them (the allocator) need a compiler and a linker.
command -v cc >/dev/null || fail "a C compiler is missing; apt-get install build-essential"

cargo build --release --locked --manifest-path "$root/Cargo.toml"
target=${CARGO_TARGET_DIR:-$root/target}
exec "$target/release/sluice" demo "$@"
