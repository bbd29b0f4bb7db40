# shellcheck shell=bash disable=SC2153 # NETNS is the caller's
# Two "hosts" that are network namespaces of this machine, for where its own /dev/kvm runs Linux guests.
# The network is as in the testbed: bridge br0 in the namespace $NETNS, host N's eth0 is 10.77.0.N in a bridge
# vmpool0. Needs common.sh and network.sh.

local_netns() { printf '%s-host%s\n' "$NETNS" "$1"; }

local_hosts_up() {
    local n netns
    network_up
    for n in "$@"; do
        netns=$(local_netns "$n")
        ip netns add "$netns"
        netns_ip link add "data$n" type veth peer name eth0 netns "$netns"
        netns_ip link set "data$n" master br0 up
        ip -n "$netns" link set lo up
        ip -n "$netns" link add vmpool0 type bridge
        ip -n "$netns" link set eth0 master vmpool0 up
        ip -n "$netns" link set vmpool0 up
        ip -n "$netns" address add "10.77.0.$n/24" dev vmpool0
    done
}

# local_host_exec N CMD...
local_host_exec() {
    local n=$1
    shift
    ip netns exec "$(local_netns "$n")" "$@"
}

# Ends what runs in them: agents and, by their being in the namespace, the VMMs.
local_hosts_down() {
    local netns pids
    for netns in /run/netns/"$NETNS"-host*; do
        [ -e "$netns" ] || continue
        netns=${netns##*/}
        mapfile -t pids < <(ip netns pids "$netns")
        [ ${#pids[@]} -eq 0 ] || kill_and_wait "${pids[@]}"
        ip netns delete "$netns"
    done
}
