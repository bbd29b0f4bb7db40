/* The pool as a whole: its state, and tokens to join it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/units.h"
#include "controller/api.h"
#include "controller/events.h"
#include "controller/jobs.h"
#include "controller/keys.h"
#include "controller/migrate_queue.h"
#include "controller/pb.h"
#include "controller/placement.h"
#include "controller/rebalance.h"
#include "controller/uuid.h"

static void count_node(const struct controller *controller, const struct node *node,
                       Vmpool__PoolStatus *status, uint64_t *cpu_weight)
{
    struct sched_resources reserved = {0};
    const Vmpool__NodeFacts *facts = node->stored->facts;
    bool lost = node->phase == VMPOOL__NODE_PHASE__NODE_LOST ||
                node->phase == VMPOOL__NODE_PHASE__NODE_JOINED;
    status->nodes_total++;
    if (lost && node->phase == VMPOOL__NODE_PHASE__NODE_LOST)
        pb_push(&status->warnings, &status->n_warnings,
                text_format("node %s is lost", node->stored->name));
    if (!facts)
        return;
    for (size_t i = 0; i < facts->n_warnings; i++)
        pb_push(&status->warnings, &status->n_warnings,
                text_format("node %s: %s", node->stored->name, facts->warnings[i]));
    if (lost)
        return;
    status->nodes_up++;
    status->vcpus_total += facts->cpus;
    status->memory_total_mib += facts->memory_mib - facts->reserved_memory_mib;
    status->bandwidth_total_bps += facts->bandwidth_bps;
    placement_reserved(controller, node, &reserved);
    status->vcpus_reserved += reserved.cpu_milli / 1000;
    status->memory_reserved_mib += reserved.memory_mib;
    status->bandwidth_reserved_bps += reserved.bandwidth_bps;
    if (node->report) {
        status->memory_used_mib += node->report->memory_used_mib;
        status->bandwidth_used_bps += node->report->net_rx_bps > node->report->net_tx_bps
                                          ? node->report->net_rx_bps
                                          : node->report->net_tx_bps;
        *cpu_weight += (uint64_t)node->report->cpu_permille * facts->cpus;
    }
}

static void count_vms(const struct controller *controller, Vmpool__PoolStatus *status)
{
    for (const struct vm *vm = controller->vms; vm; vm = vm->next) {
        Vmpool__VmPhase phase = vm->stored->phase;
        status->vms_total++;
        status->vms_running +=
            phase == VMPOOL__VM_PHASE__PHASE_RUNNING || phase == VMPOOL__VM_PHASE__PHASE_MIGRATING;
        if (phase == VMPOOL__VM_PHASE__PHASE_UNKNOWN || phase == VMPOOL__VM_PHASE__PHASE_FAILED ||
            phase == VMPOOL__VM_PHASE__PHASE_HANDOVER)
            pb_push(&status->warnings, &status->n_warnings,
                    text_format("VM %s is %s%s%s", vm->stored->spec->name, vm_phase_name(phase),
                                vm->stored->text[0] ? ": " : "", vm->stored->text));
    }
    for (const struct job *job = controller->jobs; job; job = job->next)
        status->jobs_running += job_running(job);
}

static void count_migrations(const struct controller *controller, Vmpool__PoolStatus *status)
{
    struct migrate_queue_counts counts = migrate_queue_count(controller);
    status->migrations_streaming = counts.streaming;
    status->migrations_waiting = counts.waiting;
    status->migrations_pool_max = controller->config.migrations_pool;
    status->migrations_out_max = controller->config.migrations_out;
    status->migrations_in_max = controller->config.migrations_in;
}

int api_status(struct controller *controller, struct api_call *call, struct error *err)
{
    Vmpool__PoolStatus *status = mem_new(sizeof *status);
    uint64_t cpu_weight = 0;
    (void)err;
    vmpool__pool_status__init(status);
    pb_set(&status->version, VMPOOL_VERSION);
    pb_set(&status->pool_name, controller->config.pool_name);
    pb_set(&status->address, controller->address);
    status->started_wall_ms = (uint64_t)controller->started_wall_ms;
    for (const struct node *node = controller->nodes; node; node = node->next)
        count_node(controller, node, status, &cpu_weight);
    if (status->vcpus_total > 0)
        status->cpu_permille = (uint32_t)(cpu_weight / status->vcpus_total);
    count_vms(controller, status);
    count_migrations(controller, status);
    pb_set(&status->rebalance, rebalance_mode_name(rebalance_mode(controller)));
    call->reply.body_case = VMPOOL__ADMIN_REPLY__BODY_STATUS;
    call->reply.status = status;
    return 0;
}

int api_rebalance_set(struct controller *controller, struct api_call *call, struct error *err)
{
    const char *mode = call->request->rebalance_set->mode;
    if (mode[0] && rebalance_set(controller, mode, call->admin, err) < 0)
        return -1;
    call->reply.body_case = VMPOOL__ADMIN_REPLY__BODY_REBALANCE;
    call->reply.rebalance = rebalance_describe(controller);
    return 0;
}

int api_token_create(struct controller *controller, struct api_call *call, struct error *err)
{
    const Vmpool__TokenCreate *want = call->request->token_create;
    struct link_token token = {0};
    char text[600], id[SHORT_ID_SIZE];
    uint64_t valid_ms = want->valid_ms ? want->valid_ms : TOKEN_DEFAULT_MS;
    const char *address = want->address[0] ? want->address : controller->address;
    if (valid_ms > TOKEN_MAX_MS)
        return error_set(err, ERROR_USAGE, "a token is valid for 7 days at most");
    if (keys_token_count(controller->keys) >= TOKENS_MAX)
        return error_set(err, ERROR_CONFLICT,
                         "%u tokens are waiting to be used or forgotten: try again tomorrow",
                         TOKENS_MAX);
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || strlen(address) >= sizeof token.address ||
        strpbrk(address, " /@") || atoi(colon + 1) < 1 || atoi(colon + 1) > 65535)
        return error_set(err, ERROR_USAGE,
                         "nodes can't reach the controller at \"%.100s\": give HOST:PORT", address);
    memcpy(token.address, address, strlen(address) + 1); /* checked above */
    memcpy(token.server_key, controller->own_keys.public_key, 32);
    if (link_keys_generate(&token.join_keys, err) < 0 ||
        link_token_format(&token, text, sizeof text, err) < 0)
        return -1;
    Vmpool__Store__Token *stored = mem_new(sizeof *stored);
    vmpool__store__token__init(stored);
    pb_set(&stored->id, short_id_make(id));
    pb_set_bytes(&stored->public_key, token.join_keys.public_key, 32);
    pb_set(&stored->admin, call->admin);
    stored->expires_wall_ms = (uint64_t)clock_wall_ms() + valid_ms;
    store_put(controller->store, STORE_TOKEN, id, &stored->base);
    uint64_t expires_wall_ms = stored->expires_wall_ms;
    if (keys_add_token(controller->keys, stored, err) < 0)
        return -1;
    event_add(controller, "info", "token.created", id, 0, "by %s", call->admin);
    Vmpool__Token *out = mem_new(sizeof *out);
    vmpool__token__init(out);
    pb_set(&out->token, text);
    out->expires_wall_ms = expires_wall_ms;
    call->reply.body_case = VMPOOL__ADMIN_REPLY__BODY_TOKEN;
    call->reply.token = out;
    return 0;
}
