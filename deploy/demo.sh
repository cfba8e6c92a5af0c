#!/usr/bin/env bash
# Runs `sluice demo` on a Debian machine with Rust: installs redis-server (with --http: nginx) when it
# is missing and builds in release mode first. Arguments go to the demo: --http, --seconds N,
# --kill-replica.
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
        fail "$package is missing; as root: apt-get install $package"
    fi
}

install() {
    command -v apt-get >/dev/null || fail "$package is missing, and so is apt-get to install it"
    echo "demo.sh: installing $package" >&2
    local get=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y)
    # A fresh machine has no package lists, an old one has stale ones: then once more with new ones.
    # Where systemd runs, Debian starts a server of its own on its usual port; the demo leaves it alone.
    as_root "${get[@]}" install --no-install-recommends "$package" >&2 || {
        as_root "${get[@]}" update >&2
        as_root "${get[@]}" install --no-install-recommends "$package" >&2
    }
    hash -r
    is_there || fail "apt-get has installed no $package"
}

package=redis-server
for argument in "$@"; do
    [ "$argument" != --http ] || package=nginx
done

# Debian keeps nginx where only root's PATH looks.
is_there() { PATH="$PATH:/usr/sbin" command -v "$package" >/dev/null; }

is_there || install

# rustup puts cargo here, and a shell started before that does not know.
command -v cargo >/dev/null || PATH="$PATH:$HOME/.cargo/bin"
command -v cargo >/dev/null || fail "cargo is missing; https://rustup.rs has it"
# Crates with C in them (the allocator) need a compiler and a linker.
command -v cc >/dev/null || fail "a C compiler is missing; apt-get install build-essential"

cargo build --release --locked --manifest-path "$root/Cargo.toml"
target=${CARGO_TARGET_DIR:-$root/target}
exec "$target/release/sluice" demo "$@"
