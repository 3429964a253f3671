#!/bin/bash
# What the scripts beside this one share; read with `source`, it runs nothing by itself.
#
# Gives:   the working directory: the root of the repository; `target`: where cargo builds;
#          say, fail, as_root, need_root, seconds_since, built_tests.
set -Eeuo pipefail
trap 'echo "error: $0, line $LINENO: $BASH_COMMAND: status $?" >&2' ERR
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never} DEBIAN_FRONTEND=noninteractive
# Debian keeps ip, nft, modprobe and others where an ordinary user's PATH does not look.
export PATH=$PATH:/usr/sbin:/sbin
target=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$target"

say() { printf '%s\n' "$*"; }

# Ends the script: what went wrong, then hints, one a line, on stderr.
fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    [[ $# -eq 0 ]] || printf '  hint: %s\n' "$@" >&2
    exit 1
}

# Without a terminal nobody can type a password: then sudo must work without one.
sudo_options=()
[[ -t 0 ]] || sudo_options=(-n)

# Fails early, and clearly, unless as_root will work. $1 says what for.
need_root() {
    [[ $(id -u) == 0 ]] && return
    command -v sudo >/dev/null ||
        fail "$1 needs root, and there is no sudo here" 'run the same command as root'
    sudo "${sudo_options[@]}" true ||
        fail "$1 needs root, and sudo refuses" 'run the same command as root'
}

# Runs a command as root, with this PATH.
as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    else
        sudo "${sudo_options[@]}" env "PATH=$PATH" "$@"
    fi
}

# Whole seconds since $1, a value of EPOCHREALTIME.
seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.0f", to - from }'; }

# Builds tests and lists their programs, one a line: crate, target, kind, program; tabs between, the
# crate as its folder. Arguments go to `cargo test --no-run`; what cargo says goes to stderr.
built_tests() {
    cargo test --locked --no-run --message-format=json-render-diagnostics "$@" | jq -r '
        select(.reason == "compiler-artifact" and .profile.test and .executable != null)
        | [(.manifest_path | sub("/Cargo.toml$"; "")), .target.name, .target.kind[0], .executable]
        | @tsv'
}
