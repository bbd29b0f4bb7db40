# shellcheck shell=bash
# The network of one testbed: a private namespace with two bridges.
#
#   br0   10.77.0.254/24  the datacenter's network: host N's eth0 is 10.77.0.N; cut, heal and slow act here
#   mgmt  10.78.0.254/24  for `exec` alone, so that a cut host can still be looked into; its ports are
#                         isolated: hosts cannot reach each other through it
#
# Needs common.sh. NETNS is the namespace's name.

in_netns() { ip netns exec "$NETNS" "$@"; }
netns_ip() { ip -n "$NETNS" "$@"; }
netns_exists() { [ -e "/run/netns/$NETNS" ]; }

network_up() {
    local bridge address
    ip netns add "$NETNS" || die "cannot make network namespace $NETNS"
    in_netns sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 || true
    netns_ip link set lo up
    for bridge in br0:10.77.0.254/24 mgmt:10.78.0.254/24; do
        address=${bridge#*:}
        bridge=${bridge%%:*}
        netns_ip link add "$bridge" type bridge
        netns_ip address add "$address" dev "$bridge"
        netns_ip link set "$bridge" up
    done
}

# network_plug N: the two taps of host N.
network_plug() {
    local n=$1
    network_unplug "$n"
    netns_ip tuntap add "data$n" mode tap
    netns_ip link set "data$n" master br0 up
    netns_ip tuntap add "mgmt$n" mode tap
    netns_ip link set "mgmt$n" master mgmt up
    in_netns bridge link set dev "mgmt$n" isolated on
}

network_unplug() {
    local link
    for link in "data$1" "mgmt$1" "ifb$1"; do
        netns_ip link delete "$link" 2>/dev/null || true
    done
}

# network_down: ends every process of the namespace, then the namespace and with it all links.
network_down() {
    local pids
    netns_exists || return 0
    mapfile -t pids < <(ip netns pids "$NETNS")
    [ ${#pids[@]} -eq 0 ] || kill_and_wait "${pids[@]}"
    # The namespace itself may linger while the kernel holds dead connections in it; its link to this machine must not.
    netns_ip link delete uplink 2>/dev/null || true
    ip netns delete "$NETNS"
}

# The host sees its link up and hears nothing: as when a switch far away fails.
network_cut() { netns_ip link set "data$1" down; }

network_heal() {
    netns_ip link set "data$1" up
    in_netns tc qdisc delete dev "data$1" root 2>/dev/null || true
    in_netns tc qdisc delete dev "data$1" ingress 2>/dev/null || true
    netns_ip link delete "ifb$1" 2>/dev/null || true
}

# network_slow N RATE: token buckets both ways: on the tap for what goes to the host, on an ifb that the tap's
# ingress is redirected to for what comes from it (sch_netem is often missing; tbf, ifb and u32 are not).
network_slow() {
    local n=$1 rate=$2
    network_heal "$n"
    in_netns tc qdisc replace dev "data$n" root tbf rate "$rate" burst 64kb latency 50ms ||
        die "tc does not take the rate '$rate': write it as 100mbit"
    netns_ip link add "ifb$n" type ifb
    netns_ip link set "ifb$n" up
    in_netns tc qdisc add dev "ifb$n" root tbf rate "$rate" burst 64kb latency 50ms
    in_netns tc qdisc add dev "data$n" ingress
    in_netns tc filter add dev "data$n" parent ffff: protocol all u32 match u32 0 0 \
        action mirred egress redirect dev "ifb$n"
}

# network_uplink ADDRESS/BITS: joins this machine's own network to br0 under an address there, so that programs
# outside the namespace reach hosts and guests. Gone with the namespace.
network_uplink() {
    local address=$1 link=vmpool-up
    if ip route get "${address%/*}" 2>/dev/null | grep -qv -e ' via ' -e '^ '; then
        die "this machine already has a network around ${address%/*}: the pool cannot use it too"
    fi
    ip link add "$link" type veth peer name uplink netns "$NETNS"
    netns_ip link set uplink master br0 up
    ip address add "$address" dev "$link"
    ip link set "$link" up
}
