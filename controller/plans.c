#include "controller/plans.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/clock.h"
#include "controller/nodes.h"
#include "controller/pb.h"
#include "controller/vms.h"

/* VMs that stay behind are named up to so many, so that a plan fits a message; wanted and placed
 * count all. */
#define LEFT_NAMED_MAX 1000

/* ---- what the planner sees ---- */

static void measure(const struct vm *vm, struct plan_vm *out)
{
    const struct claim *claim = vm_claim_of(vm, vm->stored->node_id);
    const Vmpool__MigrationProgress *last = vm->stored->last_migration;
    if (last)
        out->dirty_bps = last->dirty_bps;
    if (!claim || !claim->said)
        return;
    const Vmpool__NodeVm *said = claim->said;
    out->used.cpu_milli = said->cpu_permille;
    out->used.bandwidth_bps =
        said->net_rx_bps > said->net_tx_bps ? said->net_rx_bps : said->net_tx_bps;
    if (said->usage)
        out->copy_mib = out->used.memory_mib = said->usage->memory_mib;
}

static uint64_t link_bps(const struct node *node)
{
    return node->stored->facts ? node->stored->facts->bandwidth_bps : 0;
}

Vmpool__MigrationForecast *plans_forecast(const struct controller *controller, const struct vm *vm,
                                          const char *to)
{
    const struct node *source = vm_node(controller, vm), *target = node_by_name(controller, to);
    if (!source || !target)
        return NULL;
    struct plan_vm seen = {0};
    measure(vm, &seen);
    uint64_t a = link_bps(source), b = link_bps(target);
    uint64_t copy_mib = seen.copy_mib ? seen.copy_mib : vm->stored->spec->memory_mib;
    struct plan_cost cost = plan_cost_of(copy_mib, seen.dirty_bps, a && (!b || a < b) ? a : b);
    Vmpool__MigrationForecast *out = mem_new(sizeof *out);
    vmpool__migration_forecast__init(out);
    out->bytes = cost.bytes;
    out->duration_us = cost.duration_ms * 1000;
    out->pause_us = cost.pause_us;
    out->dirty_rate_known = cost.dirty_known;
    return out;
}

static void look(void *context, const char *name, struct plan_vm *out)
{
    const struct controller *controller = context;
    if (name[0] == '>') { /* placement_hold_target() */
        out->freedom = PLAN_GHOST;
        return;
    }
    const struct vm *vm = vm_by_name(controller, name);
    if (!vm)
        return; /* one that is only asked about */
    measure(vm, out);
    if (vm_has_local_disks(vm)) {
        out->freedom = PLAN_LOCAL;
        out->why = "has disks that are on this node only";
    } else if (vm->job) {
        out->freedom = PLAN_FIXED;
        out->why = "another job works on it";
    } else if (vm->stored->phase != VMPOOL__VM_PHASE__PHASE_RUNNING) {
        out->freedom = PLAN_FIXED;
        out->why = "does not run";
    }
}

static void look_and_rest(void *context, const char *name, struct plan_vm *out)
{
    const struct controller *controller = context;
    const struct vm *vm = vm_by_name(controller, name);
    look(context, name, out);
    if (out->freedom == PLAN_FREE && vm && vm->moved_ms != 0 &&
        clock_monotonic_ms() - vm->moved_ms < (int64_t)controller->config.rebalance_cooldown_ms) {
        out->freedom = PLAN_FIXED;
        out->why = "was moved a short while ago";
    }
}

static uint64_t hot_ms(void *context, const char *name)
{
    const struct controller *controller = context;
    const struct node *node = node_by_name(controller, name);
    return node && node->hot_ms ? (uint64_t)(clock_monotonic_ms() - node->hot_ms) : 0;
}

struct plan_config plans_config(struct controller *controller)
{
    return (struct plan_config){
        .context = controller,
        .look = look,
        .threshold_permille = controller->config.rebalance_threshold_permille,
    };
}

struct plan_config plans_own_config(struct controller *controller)
{
    return (struct plan_config){
        .context = controller,
        .look = look_and_rest,
        .hot_ms = hot_ms,
        .hold_ms = controller->config.rebalance_hold_ms,
        .threshold_permille = controller->config.rebalance_threshold_permille,
        .move_max = controller->config.rebalance_batch,
    };
}

/* ---- as a message ---- */

static uint32_t permille(double share)
{
    return (uint32_t)(share * 1000 + 0.5);
}

static Vmpool__PlanBalance *describe_balance(const struct plan_balance *balance)
{
    Vmpool__PlanBalance *out = mem_new(sizeof *out);
    vmpool__plan_balance__init(out);
    out->mean_permille = permille(balance->mean);
    out->highest_permille = permille(balance->highest);
    out->imbalance_permille = permille(balance->imbalance);
    out->stranded_permille = permille(balance->stranded);
    out->hot = (uint32_t)balance->hot;
    out->empty = (uint32_t)balance->empty;
    out->nodes = (uint32_t)balance->nodes;
    return out;
}

static Vmpool__PlanMove *describe_move(const struct plan_move *move)
{
    Vmpool__PlanMove *out = mem_new(sizeof *out);
    vmpool__plan_move__init(out);
    pb_set(&out->vm, move->vm);
    pb_set(&out->from, move->from);
    pb_set(&out->to, move->to);
    pb_set(&out->why, move->why);
    out->memory_mib = move->memory_mib;
    out->bytes = move->cost.bytes;
    out->duration_us = move->cost.duration_ms * 1000;
    out->pause_us = move->cost.pause_us;
    out->dirty_rate_known = move->cost.dirty_known;
    return out;
}

Vmpool__Plan *plan_describe(const struct controller *controller, const struct plan *plan,
                            const char *node)
{
    char id[2 * 32 + 1];
    Vmpool__Plan *out = mem_new(sizeof *out);
    vmpool__plan__init(out);
    for (size_t i = 0; i < 32; i++)
        (void)snprintf(id + 2 * i, 3, "%02x", controller->own_keys.public_key[i]);
    out->format = PLAN_FORMAT;
    pb_set(&out->kind, plan_kind_name(plan->kind));
    pb_set(&out->node, node);
    pb_set(&out->pool_name, controller->config.pool_name);
    pb_set(&out->pool_id, id);
    pb_setf(&out->fingerprint, "%016" PRIx64, plan->fingerprint);
    pb_set(&out->summary, plan->summary);
    out->made_wall_ms = (uint64_t)clock_wall_ms();
    out->wanted = (uint32_t)plan->wanted;
    out->placed = (uint32_t)plan->placed;
    out->bytes = plan->bytes;
    out->duration_us = plan->duration_ms * 1000;
    out->pause_us = plan->pause_us;
    out->before = describe_balance(&plan->before);
    out->after = describe_balance(&plan->after);
    for (size_t i = 0; i < plan->count; i++)
        pb_push(&out->moves, &out->n_moves, describe_move(&plan->moves[i]));
    for (size_t i = 0; i < plan->left_count && i < LEFT_NAMED_MAX; i++) {
        Vmpool__PlanLeft *left = mem_new(sizeof *left);
        vmpool__plan_left__init(left);
        pb_set(&left->vm, plan->left[i].vm);
        pb_set(&left->why, plan->left[i].why);
        pb_push(&out->left, &out->n_left, left);
    }
    return out;
}
