# shellcheck shell=bash disable=SC2034 # set here, used by who sources it
# Stock Debian kernels, fetched as packages and unpacked into the cache: nothing is installed into the
# machine's own boot. Needs common.sh.

# kernel_fetch FLAVOUR: FLAVOUR is amd64 or cloud-amd64. Sets KERNEL_VERSION, KERNEL_IMAGE (the bzImage)
# and KERNEL_ROOT (has lib/modules/VERSION). Two scripts may call it at the same time.
kernel_fetch() {
    local flavour=$1 package lock
    mkdir -p "$VMPOOL_CACHE"
    exec {lock}>"$VMPOOL_CACHE/lock"
    flock -w 300 "$lock" || die "another script holds $VMPOOL_CACHE/lock for 300 s"
    package=$(kernel_package "$flavour")
    KERNEL_VERSION=${package#linux-image-}
    KERNEL_ROOT=$VMPOOL_CACHE/kernel/$KERNEL_VERSION
    [ -e "$KERNEL_ROOT/complete" ] || kernel_unpack "$package" "$KERNEL_ROOT"
    KERNEL_IMAGE=$KERNEL_ROOT/boot/vmlinuz-$KERNEL_VERSION
    exec {lock}>&-
}

# The package the metapackage stands for now; where apt has no lists, the newest in the cache.
kernel_package() {
    local flavour=$1 package
    package=$(apt-cache depends "linux-image-$flavour" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    if [ -z "$package" ]; then
        package=$(find "$VMPOOL_CACHE/kernel" -maxdepth 1 -name "[0-9]*-$flavour" -printf 'linux-image-%f\n' \
            2>/dev/null | sort -V | tail -n 1)
    fi
    [ -n "$package" ] || die "apt knows no linux-image-$flavour: run 'apt-get update' on a Debian machine"
    printf '%s\n' "$package"
}

kernel_unpack() {
    local package=$1 root=$2 log=$VMPOOL_CACHE/kernel.log
    say "fetching $package"
    rm -rf "$root" "$root.new"
    mkdir -p "$root.new/deb"
    (
        cd "$root.new/deb"
        apt-get -q download "$package" || { apt-get -q update && apt-get -q download "$package"; }
        dpkg -x ./*.deb "$root.new"
        depmod -b "$root.new" "${package#linux-image-}"
    ) >"$log" 2>&1 || die "could not fetch and unpack $package: see $log"
    rm -rf "$root.new/deb"
    touch "$root.new/complete"
    mv "$root.new" "$root"
}

# kernel_modules DIR MODULE...: copies the modules and all they need into DIR; prints their file names in
# the order to load them. Modules built into the kernel are left out.
kernel_modules() {
    local dir=$1 module file
    shift
    mkdir -p "$dir"
    for module in "$@"; do
        modprobe -d "$KERNEL_ROOT" -S "$KERNEL_VERSION" --show-depends "$module" ||
            die "kernel $KERNEL_VERSION has no module $module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
        cp "$file" "$dir/"
        basename "$file"
    done
}
