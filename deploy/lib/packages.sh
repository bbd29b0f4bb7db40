# shellcheck shell=bash disable=SC2034 # set here, used by who sources it
# The Debian packages each purpose needs, and their installation. Needs common.sh.

PACKAGES_BUILD="cmake ninja-build gcc libc6-dev pkg-config libzmq3-dev libprotobuf-c-dev
    protobuf-c-compiler libsodium-dev libssl-dev libgcrypt20-dev libsqlite3-dev libnl-route-3-dev libxxhash-dev
    liblzma-dev libzstd-dev liblz4-dev libjansson-dev zlib1g-dev libmicrohttpd-dev
    libcriterion-dev"
PACKAGES_TESTBED="qemu-system-x86 busybox-static dropbear-bin openssh-client iproute2 kmod cpio
    e2fsprogs"
PACKAGES_GUEST="busybox-static kmod cpio gcc libc6-dev"
PACKAGES_TEST="python3 python3-minimal acpica-tools spin"
PACKAGES_LINT="clang libclang-rt-dev clang-format clang-tidy shellcheck"

# packages_ensure LOG PACKAGE...: installs what is missing; asks apt nothing where all is there.
packages_ensure() {
    local log=$1 missing=() package
    shift
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || die "no apt-get here: install what matches ${missing[*]}"
    say "installing ${missing[*]}"
    packages_install "${missing[@]}" >>"$log" 2>&1 ||
        die "apt-get could not install ${missing[*]}: see $log"
}

packages_install() {
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    "${sudo[@]}" apt-get -q update
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get -q -y --no-install-recommends install "$@"
}
