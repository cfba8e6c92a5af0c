#!/usr/bin/env bash
# Every check of the project, in one command. Installs what the tests need, runs all steps whatever
# fails, prints what each took, and ends with `N passed, N failed`; exit 0 only when nothing failed.
set -uo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

export CARGO_BUILD_JOBS="${CARGO_BUILD_JOBS:-2}" CARGO_TERM_COLOR=never
PYTHON_CLIENTS=(redis==6.4.0 grpcio==1.85.1 websockets==17.4)
VENV="$PWD/target/venv"
TARGET="${CARGO_TARGET_DIR:-target}"
passed=0
failed=0
table=()
started=$SECONDS

# step NAME COMMAND...: runs it, shows its output, counts it. A step that counts by itself sets
# `step_passed` and `step_failed`; any other is one check.
step() {
    local name=$1 begun=$SECONDS status
    shift
    printf '\n== %s\n' "$name"
    step_passed='' step_failed=''
    "$@"
    status=$?
    if [ -z "$step_passed" ]; then
        step_passed=$((status == 0)) step_failed=$((status != 0))
    elif [ "$status" -ne 0 ] && [ "$step_failed" -eq 0 ]; then
        step_failed=1
    fi
    passed=$((passed + step_passed))
    failed=$((failed + step_failed))
    table+=("$(printf '%-16s %6d s %7d passed %5d failed' "$name" $((SECONDS - begun)) "$step_passed" "$step_failed")")
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# What the tests start: real servers and a real client. Without them the tests fail, they do not skip.
install_missing() {
    local packages=()
    command -v redis-server >/dev/null || packages+=(redis-server)
    command -v redis-benchmark >/dev/null || packages+=(redis-tools)
    command -v nutcracker >/dev/null || packages+=(nutcracker)
    command -v openssl >/dev/null || packages+=(openssl)
    command -v curl >/dev/null || packages+=(curl)
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || packages+=(postgresql)
    command -v psql >/dev/null || packages+=(postgresql-client)
    [ -x /usr/sbin/mariadbd ] || packages+=(mariadb-server)
    command -v mysql >/dev/null || packages+=(default-mysql-client)
    command -v prlimit >/dev/null || packages+=(util-linux)
    command -v curl >/dev/null || packages+=(curl)
    command -v chromium >/dev/null || packages+=(chromium)
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3 python3-venv)
    if [ ${#packages[@]} -gt 0 ]; then
        echo "installing: ${packages[*]}"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install "${packages[@]}" || return
    fi
    command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer from https://rustup.rs"; return 1; }
    "$VENV/bin/python" -c 'import redis, grpc, websockets' 2>/dev/null && return
    python3 -m venv "$VENV" &&
        "$VENV/bin/python" -m pip -q --disable-pip-version-check install "${PYTHON_CLIENTS[@]}"
}

run_clippy() { cargo clippy --locked --all-targets -- -D warnings; }

run_tests() {
    local log="$TARGET/tests.log" status summary
    mkdir -p "$TARGET"
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked --no-fail-fast --status-level fail --final-status-level fail 2>&1 | tee "$log"
        status=${PIPESTATUS[0]}
        summary=$(grep -E '^ *Summary \[' "$log" | tail -n 1)
        step_passed=$(grep -oE '[0-9]+ passed' <<<"$summary" | grep -oE '[0-9]+')
        step_failed=$(grep -oE '[0-9]+ (failed|timed out|exec failed)' <<<"$summary" | awk '{n += $1} END {print n + 0}')
    else
        cargo test --locked --no-fail-fast --lib --bins --tests 2>&1 | tee "$log"
        status=${PIPESTATUS[0]}
        count_libtest "$log"
    fi
    step_passed=${step_passed:-0}
    step_failed=${step_failed:-0}
    return "$status"
}

run_doc_tests() {
    local log="$TARGET/doc-tests.log" status
    cargo test --locked --doc 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    count_libtest "$log"
    return "$status"
}

count_libtest() {
    step_passed=$(awk '/^test result:/ {n += $4} END {print n + 0}' "$1")
    step_failed=$(awk '/^test result:/ {n += $6} END {print n + 0}' "$1")
}

run_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items; }

# check_file FILE accepted|unsupported|refused: what `sluice check` must say of it.
check_file() {
    local file=$1 expected=$2 output status got
    output=$("$TARGET/debug/sluice" check -c "$file" 2>&1)
    status=$?
    case $status in
        0) got=accepted ;;
        78) if grep -q 'not supported yet' <<<"$output"; then got=unsupported; else got=refused; fi ;;
        *) got="exit $status" ;;
    esac
    if [ "$got" = "$expected" ]; then
        step_passed=$((step_passed + 1))
        printf 'ok    %-52s %s\n' "$file" "$got"
    else
        step_failed=$((step_failed + 1))
        printf 'FAIL  %-52s expected %s, got %s\n%s\n' "$file" "$expected" "$got" "$output"
    fi
}

# The certificates that conf/tls.yaml names.
make_certificates() {
    CERTIFICATES=$(realpath "$TARGET")/certificates
    export CERTIFICATES
    mkdir -p "$CERTIFICATES"
    local name
    for name in ca site other client; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$name" \
            -addext "subjectAltName=DNS:$name.test" -keyout "$CERTIFICATES/$name.key" \
            -out "$CERTIFICATES/$name.pem" 2>/dev/null || return
    done
}

# The files that need what a later release brings must be refused by name until then.
check_configurations() {
    local file
    step_passed=0 step_failed=0
    cargo build --locked --bin sluice && make_certificates || return
    for file in tests/acceptance/*.yaml; do
        case ${file##*/} in
            http-*.yaml | redis-cluster.yaml | redis-consistency.yaml | redis-minimal.yaml | redis-sentinel.yaml | redis-shards.yaml | tcp-client-ip.yaml | twemproxy-compatible.yaml) check_file "$file" accepted ;;
            *) check_file "$file" unsupported ;;
        esac
    done
    for file in tests/acceptance/bad/*.yaml; do check_file "$file" refused; done
    for file in conf/*.yaml deploy/docker/*.yaml; do check_file "$file" accepted; done
    [ "$step_failed" -eq 0 ]
}

# A part of other people's tests, from their packages, through Sluice and directly: each name counts.
run_suites() {
    local log="$TARGET/suites.log" status summary
    mkdir -p "$TARGET"
    tests/suites.sh quick 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    summary=$(grep -E '^[0-9]+ pass as directly, [0-9]+ differ' "$log")
    step_passed=$(awk '{print $1 + 0}' <<<"$summary")
    step_failed=$(awk '{print $5 + 0}' <<<"$summary")
    return "$status"
}

step install install_missing
step format cargo fmt --all --check
step clippy run_clippy
step tests run_tests
step doc-tests run_doc_tests
step docs run_docs
step configurations check_configurations
step suites run_suites

printf '\n'
printf '%s\n' "${table[@]}"
printf '%-16s %6d s\n\n' total $((SECONDS - started))
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
