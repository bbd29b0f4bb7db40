#include "controller/nodes.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/units.h"
#include "controller/events.h"
#include "controller/jobs.h"
#include "controller/outbox.h"
#include "controller/pb.h"
#include "controller/placement.h"
#include "controller/pool_cpu.h"
#include "controller/vms.h"

struct node *node_add(struct controller *controller, Vmpool__Store__Node *stored)
{
    struct error err = ERROR_INIT;
    struct node *node = mem_new(sizeof *node);
    struct node **last = &controller->nodes;
    while (*last)
        last = &(*last)->next;
    node->stored = stored;
    node->phase = VMPOOL__NODE_PHASE__NODE_JOINED;
    node->heard_ms = clock_monotonic_ms();
    *last = node;
    /* These fail only where memory runs out. */
    if (name_map_add(&controller->nodes_by_name, stored->name, node, &err) < 0 ||
        name_map_add(&controller->nodes_by_id, stored->id, node, &err) < 0)
        abort();
    placement_set_node(controller, node);
    return node;
}

void node_save(struct controller *controller, const struct node *node)
{
    store_put(controller->store, STORE_NODE, node->stored->id, &node->stored->base);
    controller_touch(controller);
}

static void free_node(struct node *node)
{
    pb_free(node->report);
    pb_free(node->stored);
    free(node);
}

void node_delete(struct controller *controller, struct node *node)
{
    struct node **at = &controller->nodes;
    while (*at != node)
        at = &(*at)->next;
    *at = node->next;
    claims_forget_node(node);
    vms_forget_node(node);
    pool_cpu_forget(controller);
    name_map_remove(&controller->nodes_by_name, node->stored->name);
    name_map_remove(&controller->nodes_by_id, node->stored->id);
    placement_remove_node(controller, node);
    store_delete(controller->store, STORE_NODE, node->stored->id);
    controller_touch(controller);
    free_node(node);
}

void nodes_free(struct controller *controller)
{
    while (controller->nodes) {
        struct node *node = controller->nodes;
        controller->nodes = node->next;
        claims_forget_node(node);
        free_node(node);
    }
    name_map_free(&controller->nodes_by_name);
    name_map_free(&controller->nodes_by_id);
}

struct node *node_by_name(const struct controller *controller, const char *name)
{
    return name_map_get(&controller->nodes_by_name, name);
}

struct node *node_by_id(const struct controller *controller, const char *id)
{
    return id[0] ? name_map_get(&controller->nodes_by_id, id) : NULL;
}

const char *node_name_of(const struct controller *controller, const char *id)
{
    const struct node *node = node_by_id(controller, id);
    return node ? node->stored->name : "";
}

bool node_send(struct controller *controller, const struct node *node,
               const Vmpool__ControllerToNode *message)
{
    if (!node->connected)
        return false;
    outbox_node(controller, &node->peer, message);
    return true;
}

static void announce(struct controller *controller, const struct node *node,
                     Vmpool__NodePhase before)
{
    const char *name = node->stored->name;
    char limit[32];
    if (node->phase == VMPOOL__NODE_PHASE__NODE_LOST)
        event_add(controller, "error", "node.lost", name, 0,
                  "nothing heard of it for %s; its VMs may still run there",
                  units_format_ms(controller->config.lost_after_ms, limit, sizeof limit));
    else if (before == VMPOOL__NODE_PHASE__NODE_LOST)
        event_add(controller, "info", "node.back", name, 0, "it reports again");
    else if (before == VMPOOL__NODE_PHASE__NODE_JOINED)
        event_add(controller, "info", "node.up", name, 0, "it reports");
}

void node_happens(struct controller *controller, struct node *node, enum node_event event)
{
    Vmpool__NodePhase before = node->phase;
    Vmpool__NodePhase after =
        node_phase_after(before, event, node->stored->draining, node->stored->drained);
    if (after == VMPOOL__NODE_PHASE__NODE_NONE || after == before)
        return;
    node->phase = after;
    announce(controller, node, before);
    placement_set_node(controller, node);
    if (after == VMPOOL__NODE_PHASE__NODE_LOST)
        vms_of_lost_node(controller, node);
    jobs_node_changed(controller);
}

bool nodes_settling(const struct controller *controller)
{
    for (const struct node *node = controller->nodes; node; node = node->next)
        if (node->phase == VMPOOL__NODE_PHASE__NODE_JOINED)
            return true;
    return false;
}

void nodes_check(struct controller *controller)
{
    int64_t now_ms = clock_monotonic_ms();
    int64_t limit_ms = (int64_t)controller->config.lost_after_ms;
    /* Time in which we did not listen ourselves, such as on a host that hung, counts for nobody. */
    int64_t deaf_ms = controller->checked_ms ? now_ms - controller->checked_ms : 0;
    controller->checked_ms = now_ms;
    for (struct node *node = controller->nodes; node; node = node->next) {
        if (deaf_ms > limit_ms / 4)
            node->heard_ms += deaf_ms;
        if (node->heard_ms < now_ms - limit_ms && node->phase != VMPOOL__NODE_PHASE__NODE_LOST)
            node_happens(controller, node, NODE_EVENT_SILENT);
    }
}

void node_set_draining(struct controller *controller, struct node *node, bool draining,
                       bool drained)
{
    node->stored->draining = draining;
    node->stored->drained = drained;
    node_save(controller, node);
    node_happens(controller, node,
                 !draining ? NODE_EVENT_UNDRAIN
                 : drained ? NODE_EVENT_EMPTIED
                           : NODE_EVENT_DRAIN);
    placement_set_node(controller, node);
}

static void describe_facts(Vmpool__Node *out, const Vmpool__NodeFacts *facts)
{
    out->cpus = facts->cpus;
    out->memory_mib = facts->memory_mib;
    out->bandwidth_bps = facts->bandwidth_bps;
    out->reserved_memory_mib = facts->reserved_memory_mib;
    pb_set(&out->version, facts->version);
    pb_set(&out->kernel, facts->kernel);
    pb_set(&out->cpu_model, facts->cpu_model);
    pb_set(&out->address, facts->migration_address);
    for (size_t i = 0; i < facts->n_warnings; i++)
        pb_push_text(&out->warnings, &out->n_warnings, facts->warnings[i]);
    for (size_t i = 0; i < facts->n_labels; i++)
        pb_push(&out->labels, &out->n_labels, pb_copy(&facts->labels[i]->base));
}

static void describe_use(Vmpool__Node *out, const Vmpool__NodeReport *report)
{
    out->cpu_permille = report->cpu_permille;
    out->cpu_user_permille = report->cpu_user_permille;
    out->cpu_system_permille = report->cpu_system_permille;
    out->cpu_guest_permille = report->cpu_guest_permille;
    out->memory_used_mib = report->memory_used_mib;
    out->net_rx_bps = report->net_rx_bps;
    out->net_tx_bps = report->net_tx_bps;
    out->storage_total_mib = report->storage_total_mib;
    out->storage_free_mib = report->storage_free_mib;
}

Vmpool__Node *node_describe(const struct controller *controller, const struct node *node)
{
    struct sched_resources reserved = {0};
    Vmpool__Node *out = mem_new(sizeof *out);
    vmpool__node__init(out);
    pb_set(&out->id, node->stored->id);
    pb_set(&out->name, node->stored->name);
    out->phase = node->phase;
    out->draining = node->stored->draining;
    out->vms = (uint32_t)node->vms;
    out->last_report_wall_ms = (uint64_t)node->heard_wall_ms;
    placement_reserved(controller, node, &reserved);
    out->vcpus_reserved = (uint32_t)(reserved.cpu_milli / 1000);
    out->memory_reserved_mib = reserved.memory_mib;
    out->bandwidth_reserved_bps = reserved.bandwidth_bps;
    if (node->stored->facts)
        describe_facts(out, node->stored->facts);
    if (node->report)
        describe_use(out, node->report);
    return out;
}
