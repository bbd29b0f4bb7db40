# shellcheck shell=bash disable=SC2154 # here and project are the caller's
# One host of a testbed: a QEMU with its own kernel. Needs common.sh, kernel.sh and network.sh.
#
# A host's folder $STATE/hosts/N holds: disk.img (its /var/lib/vmpool: survives power-off), console.log, qemu.pid, the
# FIFOs ready.in and ready.out (its second serial port), ssh (the control socket of `exec`), power (cut|slow RATE).

# Loaded by the host's initrd, in this order, each with what it needs.
HOST_MODULES="virtio_pci virtio_net virtio_blk 9pnet_virtio 9p overlay ext4 tun bridge kvm_amd kvm_intel"
HOST_BOOT_LIMIT_S=${HOST_BOOT_LIMIT_S:-300}

host_dir() { printf '%s/hosts/%s\n' "$STATE" "$1"; }

# host_number HOST: prints N of "hostN" or "N", checked against the testbed's size.
host_number() {
    local n=${1#host}
    if ! [[ $n =~ ^[1-9][0-9]?$ ]] || [ "$n" -gt "$HOSTS" ]; then
        usage_error "no host '$1' in testbed '$NAME': it has host1 to host$HOSTS"
    fi
    printf '%s\n' "$n"
}

# host_pid N: prints the pid of its QEMU; fails where it does not run (a pid used again is not mistaken for it).
host_pid() {
    local pid
    pid=$(cat "$(host_dir "$1")/qemu.pid" 2>/dev/null) || return 1
    { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -q -- "-name vmpool-$NAME-host$1," || return 1
    printf '%s\n' "$pid"
}

# hosts_initrd: the one initrd all hosts of this testbed boot, with the keys of `exec` in it.
hosts_initrd() {
    local root=$STATE/initrd
    mkdir -p "$root"/{bin,proc,sys,dev}
    cp /bin/busybox "$root/bin/busybox"
    # shellcheck disable=SC2086 # a list
    kernel_modules "$root/modules" $HOST_MODULES >"$root/order"
    mv "$root/order" "$root/modules/order"
    cp "$here/lib/host-exec.sh" "$root/"
    chmod +x "$root/host-exec.sh"
    { echo '#!/bin/busybox sh' && echo '/bin/busybox --install -s /bin' && cat "$here/lib/host-init.sh"; } >"$root/init"
    chmod +x "$root/init"
    dropbearkey -t ed25519 -f "$root/host_key" >/dev/null 2>&1
    ssh-keygen -q -t ed25519 -N '' -C testbed -f "$STATE/key"
    cp "$STATE/key.pub" "$root/authorized_keys"
    (cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$STATE/host.cpio.gz"
    rm -rf "$root"
}

# Hardware with nesting where the machine has it, else TCG, which emulates SVM.
host_accel() {
    if [ -w /dev/kvm ] && grep -qsE '^[Y1]' /sys/module/kvm_amd/parameters/nested /sys/module/kvm_intel/parameters/nested; then
        printf '%s\n' -accel kvm -cpu host
    else
        printf '%s\n' -accel tcg,thread=multi -cpu max,+svm
    fi
}

# host_start N: starts it; returns at once (see host_wait).
host_start() {
    local n=$1 dir accel
    dir=$(host_dir "$n")
    mkdir -p "$dir"
    rm -f "$dir"/ready.in "$dir"/ready.out "$dir"/qemu.pid "$dir"/ssh
    mkfifo "$dir/ready.in" "$dir/ready.out"
    if [ ! -e "$dir/disk.img" ]; then
        truncate -s 16G "$dir/disk.img"
        mkfs.ext4 -q -F "$dir/disk.img"
    fi
    network_plug "$n"
    mapfile -t accel < <(host_accel)
    detached ip netns exec "$NETNS" qemu-system-x86_64 -name "vmpool-$NAME-host$n,debug-threads=on" "${accel[@]}" \
        -machine q35 -smp "$CPUS" -m "$MEMORY" -nodefaults -display none -no-reboot -pidfile "$dir/qemu.pid" \
        -kernel "$KERNEL_IMAGE" -initrd "$STATE/host.cpio.gz" \
        -append "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check net.ifnames=0 vmpool.host=$n vmpool.hosts=$HOSTS vmpool.project=$project vmpool.modules=$KERNEL_ROOT/lib/modules/$KERNEL_VERSION" \
        -serial "file:$dir/console.log" -chardev "pipe,id=ready,path=$dir/ready" -serial chardev:ready \
        -virtfs local,path=/,mount_tag=machine,security_model=none,readonly=on,multidevs=remap \
        -virtfs "local,path=$project,mount_tag=project,security_model=none,readonly=on,multidevs=remap" \
        -virtfs "local,path=$STATE/storage,mount_tag=storage,security_model=none,multidevs=remap" \
        -drive "file=$dir/disk.img,if=virtio,format=raw,discard=unmap" \
        -netdev "tap,id=data,ifname=data$n,script=no,downscript=no" \
        -device "virtio-net-pci,netdev=data,mac=52:54:00:77:00:$(printf %02x "$n"),romfile=" \
        -netdev "tap,id=mgmt,ifname=mgmt$n,script=no,downscript=no" \
        -device "virtio-net-pci,netdev=mgmt,mac=52:54:00:78:00:$(printf %02x "$n"),romfile=" \
        </dev/null >"$dir/qemu.log" 2>&1 &
    disown
}

# host_wait N: back when the host says that it is ready and takes commands; dies with the end of its log otherwise.
host_wait() {
    local n=$1 dir word='' piece='' fd end=$((SECONDS + HOST_BOOT_LIMIT_S))
    dir=$(host_dir "$n")
    exec {fd}<>"$dir/ready.out"
    # The host's word is the event; each second without it, a look whether its QEMU still lives. It comes letter by
    # letter, so a second may end inside it.
    until read -r -t 1 -u "$fd" piece; do
        word+=$piece
        if [ -s "$dir/qemu.pid" ] && ! host_pid "$n" >/dev/null; then host_failed "$n" "its QEMU ended"; fi
        if ! [ -s "$dir/qemu.pid" ] && [ -s "$dir/qemu.log" ]; then host_failed "$n" "QEMU did not start"; fi
        [ "$SECONDS" -lt "$end" ] || host_failed "$n" "not up after $HOST_BOOT_LIMIT_S s"
    done
    exec {fd}<&-
    word+=$piece
    word=${word%$'\r'}
    [ "$word" = ready ] || host_failed "$n" "$word"
    host_connect "$n"
}

host_failed() {
    local n=$1 why=$2 dir
    dir=$(host_dir "$n")
    say "--- end of host$n's log ($dir/console.log):"
    tail -n 20 "$dir/qemu.log" "$dir/console.log" >&2 || true
    die "host$n: $why"
}

# host_ssh N ...: ssh by this testbed's key, over the host's one connection where that is open.
host_ssh() {
    local n=$1 command
    shift
    ssh_command "$n"
    "${command[@]}" "$@"
}

ssh_command() {
    command=(ip netns exec "$NETNS" ssh -F /dev/null -i "$STATE/key" -o StrictHostKeyChecking=no
        -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes -o ConnectTimeout=20
        -o ServerAliveInterval=15 -o ServerAliveCountMax=4 -o "ControlPath=$(host_dir "$1")/ssh")
}

# One connection stays open for all commands of a host; the clock is set as NTP would have.
host_connect() {
    local n=$1 command
    ssh_command "$n"
    (detached "${command[@]}" -o ConnectionAttempts=5 -o ControlMaster=yes -o ControlPersist=yes -fN "root@10.78.0.$n" \
        </dev/null >/dev/null 2>>"$(host_dir "$n")/qemu.log") || host_failed "$n" "takes no command"
    host_set_clock "$n"
}

# The host's command is waiting when the time is read here, so that hosts agree within some milliseconds.
host_set_clock() {
    local fifo go
    fifo=$(host_dir "$1")/clock
    mkfifo "$fifo"
    # shellcheck disable=SC2016,SC2094 # expands in the host; a FIFO
    host_exec "$1" sh -c 'echo; read -r now; date -s "@$now" >/dev/null' <"$fifo" | {
        exec 7>"$fifo"
        read -r -t 20 go && printf '%s\n' "$EPOCHREALTIME$go" >&7
    }
    rm -f "$fifo"
}

# host_exec N CMD...: the words of CMD arrive as they are; its status is the command's; 255 where the host cannot be reached.
host_exec() {
    local n=$1 word words=()
    shift
    for word in "$@"; do words+=("'${word//\'/\'\\\'\'}'"); done
    host_ssh "$n" "root@10.78.0.$n" "${words[*]}"
}

# host_power_off N: as if unplugged. Nothing in the host gets a chance to write.
host_power_off() {
    local n=$1 pid
    pid=$(host_pid "$n") || die "host$n is off already"
    kill_and_wait "$pid"
    host_ssh "$n" -O exit "root@10.78.0.$n" 2>/dev/null || true
    rm -f "$(host_dir "$n")/ssh"
}
