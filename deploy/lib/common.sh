# shellcheck shell=bash
# What every script of deploy/ needs: messages, errors, privileges. Source it first.

# The cache holds only what can be fetched again: Debian's kernels, unpacked.
VMPOOL_CACHE=${VMPOOL_CACHE:-/var/cache/vmpool}

# say TEXT...: a line for the person watching.
say() { printf '%s\n' "$*" >&2; }

# die TEXT...: the one error, with what to do about it; ends the script with status 1.
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# usage_error TEXT...: a command line that cannot be understood; status 3 as in poolctl.
usage_error() {
    printf '%s: %s (see %s --help)\n' "${0##*/}" "$*" "${0##*/}" >&2
    exit 3
}

# become_root ARGS...: runs this script again through sudo where it isn't root.
become_root() {
    [ "$(id -u)" -eq 0 ] && return
    command -v sudo >/dev/null || die "needs root and finds no sudo: run it as root"
    exec sudo --preserve-env=VMPOOL_CACHE,VMPOOL_BIN,VMPOOL_TESTBED "$0" "$@"
}

# detached CMD...: becomes a program that may outlive this script: a session of its own, and no descriptor of ours,
# so that no caller's lock or pipe stays open with it. Call it in a subshell.
detached() {
    local fd
    for fd in "/proc/$BASHPID/fd"/*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || eval "exec $fd>&-"
    done
    exec setsid "$@"
}

# kill_and_wait PID...: SIGKILL, and back when each is gone (at most 10 s).
kill_and_wait() {
    local pid
    kill -9 "$@" 2>/dev/null || true
    for pid in "$@"; do
        timeout 10 tail --pid="$pid" -f /dev/null || die "process $pid survives SIGKILL"
    done
}
