# shellcheck shell=dash
# Process 1 of a testbed host: sets it up from the initrd, under busybox alone, then hands over to busybox's
# init in the host's root. That root is the machine's own, read-only over 9p, with a tmpfs laid over it: what was
# just built is in every host, and what a host writes outside its disk is gone with its power. Says "ready" or
# why not on the second serial port, where the testbed waits for it.
fail() {
    echo "vmpool-testbed: $*"
    echo "failed: $*" >/dev/ttyS1
    poweroff -f
}

note() { echo "vmpool-testbed: $* after $(cut -d' ' -f1 /proc/uptime) s"; }
argument() { sed -n "s/.* $1=\([^ ]*\).*/\1/p" /proc/cmdline; }

mount_9p() { # TAG PLACE OPTIONS
    mkdir -p "$2" 2>/dev/null
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2" || fail "cannot mount $1 over 9p"
}

load_modules() {
    while read -r module; do
        case $module in
        kvm-amd.ko) grep -q ' svm' /proc/cpuinfo || continue ;;
        kvm-intel.ko) grep -q ' vmx' /proc/cpuinfo || continue ;;
        esac
        # Emulated (TCG of QEMU 7.2) nested page tables lose a guest about once in 150,000 write faults: the
        # processor goes on in guest mode with the host's registers, and KVM is told of a triple fault. Shadow
        # paging does without them.
        options=
        if [ "$module" = kvm-amd.ko ] && grep -q 'TCG' /proc/cpuinfo; then options=npt=0; fi
        # shellcheck disable=SC2086 # none is no word
        insmod "/modules/$module" $options 2>/dev/null
    done </modules/order
    [ -e /dev/kvm ] || fail "its processor offers no virtualisation"
}

# The machine's own files do not change under a running host, so they may be cached; the project's do.
mount_root() {
    mount_9p machine /lower cache=loose,ro
    mount -t tmpfs -o mode=0755 tmpfs /tmpfs
    mkdir /tmpfs/upper /tmpfs/work
    mount -t overlay -o lowerdir=/lower,upperdir=/tmpfs/upper,workdir=/tmpfs/work overlay /root ||
        fail "cannot lay a tmpfs over the machine's root"
    mount -t tmpfs -o mode=0755 tmpfs /root/run
    mount -t tmpfs -o mode=1777 tmpfs /root/tmp
    mount_9p project "/root$(argument vmpool.project)" cache=mmap,ro
    mount_9p storage /root/srv/vmpool cache=none,access=any
    mkdir -p /root/var/lib/vmpool "/root/lib/modules/$(uname -r)"
    mount -t ext4 /dev/vda /root/var/lib/vmpool || fail "cannot mount its disk"
    mount -o bind "/root$(argument vmpool.modules)" "/root/lib/modules/$(uname -r)"
}

mount_kernel() {
    mkdir -p /dev/pts /dev/shm
    mount -t devpts devpts /dev/pts
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # A controller the kernel lacks is no reason not to start: the agent says what it misses.
    tr ' ' '\n' </sys/fs/cgroup/cgroup.controllers | while read -r controller; do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null
    done
}

set_up_names() {
    hostname "host$n"
    echo "host$n" >/root/etc/hostname
    echo "127.0.0.1 localhost" >/root/etc/hosts
    for i in $(seq "$(argument vmpool.hosts)"); do
        echo "10.77.0.$i host$i" >>/root/etc/hosts
    done
    grep -q ^vmpool: /root/etc/passwd && return
    echo 'vmpool:x:977:' >>/root/etc/group
    echo 'vmpool:x:977:977:vmpool:/nonexistent:/usr/sbin/nologin' >>/root/etc/passwd
}

# `exec` comes in over the network `mgmt` by its own key; its shell starts the command as it is.
set_up_exec() {
    mkdir -p /root/run/testbed /root/root/.ssh
    cp /bin/busybox /host-exec.sh /host_key /root/run/testbed/
    mount -t tmpfs -o mode=0700 tmpfs /root/root/.ssh
    cp /authorized_keys /root/root/.ssh/
    chmod 0600 /root/root/.ssh/authorized_keys
    sed -i 's|^\(root:.*:\)[^:]*$|\1/run/testbed/host-exec.sh|' /root/etc/passwd
    echo /run/testbed/host-exec.sh >>/root/etc/shells
    cat >/root/etc/inittab <<END
::once:/usr/sbin/dropbear -F -E -s -r /run/testbed/host_key -P /run/testbed/dropbear.pid -p 10.78.0.$n:22
::ctrlaltdel:/run/testbed/busybox poweroff -f
END
}

set_up_network() {
    for dir in all default; do
        echo 1 >/proc/sys/net/ipv6/conf/$dir/disable_ipv6
    done
    ip link set lo up
    ip link add vmpool0 type bridge
    ip link set eth0 master vmpool0
    ip link set eth0 up
    ip link set vmpool0 up
    ip address add "10.77.0.$n/24" dev vmpool0
    ip address add "10.78.0.$n/24" dev eth1
    ip link set eth1 up
}

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /lower /tmpfs /root
note "kernel up"
n=$(argument vmpool.host)
load_modules
note "modules loaded"
mount_kernel
mount_root
note "file systems mounted"
set_up_names
set_up_exec
set_up_network
for dir in proc sys dev; do
    mount -o move "/$dir" "/root/$dir"
done
echo "vmpool-testbed: ready after $(cut -d' ' -f1 /root/proc/uptime) s"
echo ready >/root/dev/ttyS1
exec switch_root /root /run/testbed/busybox init
