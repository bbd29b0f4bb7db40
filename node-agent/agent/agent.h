/*
 * agent.h: what the agent's parts share: one struct for one node, made by main, used on one loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"
#include "node-agent/agent/answers.h"
#include "node-agent/agent/cgroup.h"
#include "node-agent/agent/facts.h"
#include "node-agent/agent/identity.h"
#include "node-agent/agent/image_cache.h"
#include "node-agent/agent/meter.h"
#include "node-agent/agent/netlink.h"
#include "node-agent/agent/options.h"
#include "node-agent/agent/relay.h"
#include "node-agent/agent/uplink.h"

struct vm;

struct agent {
    const struct agent_options *options;
    struct loop *loop;
    struct identity identity;
    struct uplink *uplink;
    struct facts facts;
    struct netlink *netlink;
    struct meter meter;
    struct answers *answers;
    struct cgroup cgroup;
    struct image_cache *images;
    struct relay *relay;
    struct vm *vms;

    int lock_fd;   /* RUN_DIR/lock: one agent a run folder */
    int vms_fd;    /* RUN_DIR/vms */
    int epochs_fd; /* RUN_DIR/epochs */

    char node_name[64];
    char migration_address[64];
    char vmm_path[4096];
    char vmm_user[32]; /* UID:GID the VMMs become; empty: they stay root */
    char bridge[16];
    bool bridge_ready;
    uint8_t *baseline; /* struct kvm_cpuid_entry2[] guests may see; NULL: the host's own */
    size_t baseline_bytes;

    struct loop_source *report_timer;
    uint64_t report_interval_ms;
    uint64_t report_sequence;
    uint64_t image_requests;
    struct error fatal; /* why the loop was stopped; ERROR_NONE: told to */
};

/* Prepares the folders, adopts what runs, and starts connecting. @agent must not move afterwards.
 */
int agent_start(struct agent *agent, const struct agent_options *options, struct loop *loop,
                struct error *err);
/* Frees everything of the agent's own; guests run on. Fine after a failed start. */
void agent_stop(struct agent *agent);

/* Answers a command and remembers the answer for repeats. */
void agent_answer(struct agent *agent, uint64_t request_id, Vmpool__NodeAnswer *answer);
/* Only sends it, as for a repeat. */
void agent_send_answer(struct agent *agent, uint64_t request_id, Vmpool__NodeAnswer *answer);
/* Answers with a failure. */
void agent_answer_error(struct agent *agent, uint64_t request_id, const struct error *err);
/* Sends one message. Before the controller's welcome only JOIN and HELLO go out; what cannot be
 * sent now is dropped, as the next HELLO tells all. */
void agent_send(struct agent *agent, const Vmpool__NodeToController *message);
