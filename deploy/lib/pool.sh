# shellcheck shell=bash
# A pool on hosts that are there: controller, agents, and what the quickstart asks of them. Needs common.sh, network.sh
# and a function on_host N CMD.... The controller runs in the namespace $NETNS at 10.77.0.254; its folder is $POOL_STATE.

POOL_CONTROLLER=10.77.0.254:7400

pool_ctl() { "$BIN/poolctl" --context "$POOL_STATE/controller/admin.context" "$@"; }

# pool_try SECONDS WHAT CMD...: again and again until it succeeds; dies after so long, with what it said last.
pool_try() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >"$POOL_STATE/try.log" 2>&1; do
        [ "$SECONDS" -lt "$end" ] || die "$what: $(tail -n 1 "$POOL_STATE/try.log") (logs are in $POOL_STATE)"
        sleep 0.3 # between attempts: each is a question asked of a live process
    done
}

pool_controller_start() {
    mkdir -p "$POOL_STATE/controller"
    detached ip netns exec "$NETNS" "$BIN/pool-controller" --state-dir "$POOL_STATE/controller" --listen 0.0.0.0:7400 \
        --advertise "$POOL_CONTROLLER" --pool-name quickstart </dev/null >"$POOL_STATE/controller.log" 2>&1 &
    disown
    pool_try 20 "the controller does not answer" pool_ctl status
}

# pool_agent_start N OPTION...: joins host N and leaves its agent running there.
pool_agent_start() {
    local n=$1 token
    shift
    token=$(pool_ctl node token --valid 10m -o name)
    # shellcheck disable=SC2016 # expands in the host
    on_host "$n" sh -c 'log=$1; shift; setsid "$@" </dev/null >"$log" 2>&1 &' sh "$(agent_log "$n")" \
        "$BIN/pool-agent" --join "$token" --name "host$n" --migration-address "10.77.0.$n" "$@"
}

# pool_nodes_up COUNT: succeeds once so many nodes report.
pool_nodes_up() {
    local up
    up=$(pool_ctl status -o json | sed -n 's/.*"nodes_up": *\([0-9]*\).*/\1/p')
    echo "${up:-0} of $1 nodes are up"
    [ "${up:-0}" -ge "$1" ]
}

# guest_ask ADDRESS COMMAND: one line to the probe in the guest, its answer to stdout.
guest_ask() {
    # shellcheck disable=SC2016 # expands in the inner shell
    timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/7000" && echo "$1" >&3 && IFS= read -r line <&3 && echo "$line"' "$1" "$2" 2>/dev/null
}

# json_number NAME: of the JSON on stdin.
json_number() { sed -n "s/.*\"$1\": *\\([-0-9]*\\).*/\\1/p" | head -n 1; }
