/*
 * plan_rebalance.c: broken rules, hot spots, stranded room, in this order.
 *
 * Why plans don't chase each other: a hot node is above the ceiling (mean + threshold) and no move
 * takes a node above it, so what was moved to is not moved from by the next plan; and a move for
 * stranded room lowers the pool's sum of it by half the threshold at least, so there are only so
 * many.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "scheduler/plan_work.h"

/* A move the search has found. */
struct candidate {
    struct vm *vm;
    struct node *to;
    struct plan_vm seen;
    double net; /* what it brings less what it costs, in load x seconds; above 0 */
};

/* The share of a node that one unit fills. */
struct unit {
    double cpu, memory;
};

struct balancer {
    struct plan_work work;
    double load_sum; /* of the nodes that take VMs */
    size_t nodes;
    bool *done;              /* by index: nothing more to do for the node */
    struct unit least, most; /* of all nodes */
};

static bool takes_vms(const struct node *node)
{
    return !node->drained && !node->lost;
}

static double load_of(const struct balancer *balancer, const struct node *node)
{
    return plan_load(balancer->work.policy, node, NULL, NULL, 0);
}

static double load_if(const struct balancer *balancer, const struct node *node,
                      const struct candidate *candidate, int sign)
{
    return plan_load(balancer->work.policy, node, &candidate->vm->need, &candidate->seen.used,
                     sign);
}

static double ceiling_of(const struct balancer *balancer)
{
    return plan_ceiling(balancer->work.policy,
                        balancer->nodes ? balancer->load_sum / (double)balancer->nodes : 0,
                        balancer->work.threshold_permille);
}

/* What is left of a better balance once the migration is paid for: it fills a share of both nodes'
 * links, at most all of it, for as long as it takes. */
static double net_of(const struct balancer *balancer, const struct candidate *candidate,
                     double gain)
{
    const struct plan_config *config = balancer->work.config;
    struct plan_cost cost =
        plan_cost_between(candidate->vm, &candidate->seen, candidate->vm->node, candidate->to);
    double payback_s = (double)(config->payback_s ? config->payback_s : PLAN_PAYBACK_S);
    return gain * payback_s - 2 * (double)cost.duration_ms / 1000;
}

static int carry_out(struct balancer *balancer, const struct candidate *candidate, const char *why,
                     struct error *err)
{
    struct node *from = candidate->vm->node, *to = candidate->to;
    double before = 0, after = 0;
    before += takes_vms(from) ? load_of(balancer, from) : 0;
    before += load_of(balancer, to);
    if (plan_move(&balancer->work, candidate->vm, to, &candidate->seen, why, err) < 0)
        return -1;
    after += takes_vms(from) ? load_of(balancer, from) : 0;
    after += load_of(balancer, to);
    balancer->load_sum += after - before;
    return 0;
}

/* ---- broken rules ---- */

/* The rules, but for size, that the VM breaks where it is. */
static unsigned broken_rules(const struct scheduler *pool, const struct vm *vm)
{
    struct error ignored = ERROR_INIT;
    struct sched_request request = pool_request_of(vm);
    struct query query;
    if (query_init(&query, pool, &request, &ignored) < 0)
        return 0;
    return filter_node(&query, vm->node) &
           (unsigned)~(FILTER_RESOURCES | FILTER_DRAINED | FILTER_LOST);
}

/* One VM to where it breaks nothing; where that is nowhere it stays, and others may still go. */
static int mend_vm(struct balancer *balancer, struct vm *vm, struct error *err)
{
    char text[160], refusal[192] = "";
    unsigned broken = broken_rules(balancer->work.pool, vm);
    if (!broken)
        return 0;
    struct candidate candidate = {.vm = vm, .seen = plan_look(&balancer->work, vm)};
    const char *rule = filter_name(filter_first(broken));
    if (candidate.seen.freedom == PLAN_GHOST)
        return 0;
    if (candidate.seen.freedom == PLAN_FREE)
        candidate.to = plan_target(&balancer->work, vm, refusal, sizeof refusal);
    if (candidate.to) {
        (void)snprintf(text, sizeof text, "breaks its rule %s on %s", rule, vm->node->name);
        return carry_out(balancer, &candidate, text, err);
    }
    (void)snprintf(text, sizeof text, "breaks its rule %s: %.110s", rule,
                   candidate.seen.why ? candidate.seen.why : refusal);
    return plan_leave(&balancer->work, vm, text, err);
}

static int mend_rules(struct balancer *balancer, struct error *err)
{
    struct scheduler *pool = balancer->work.pool;
    for (size_t i = 0; i < pool->node_count; i++) {
        struct vm **vms = plan_vms_of(pool->nodes[i]);
        size_t count = pool->nodes[i]->vm_count;
        int status = vms ? 0 : error_set(err, ERROR_FAILED, "out of memory for a plan");
        for (size_t k = 0; status == 0 && k < count; k++)
            if (balancer->work.count < balancer->work.move_max && !pool->nodes[i]->lost)
                status = mend_vm(balancer, vms[k], err);
        free((void *)vms);
        if (status < 0)
            return -1;
    }
    return 0;
}

/* ---- hot spots ---- */

static bool overfull(const struct node *node)
{
    for (int d = 0; d < DIMENSIONS; d++)
        if (resource(&node->reserved, d) > resource(&node->limit, d))
            return true;
    return false;
}

static bool held_long_enough(const struct balancer *balancer, const struct node *node)
{
    const struct plan_config *config = balancer->work.config;
    return !config->hot_ms || config->hot_ms(config->context, node->name) >= config->hold_ms;
}

/* The hottest node there is something to do for; its index, or node_count. */
static size_t hottest(const struct balancer *balancer, double ceiling)
{
    const struct scheduler *pool = balancer->work.pool;
    size_t found = pool->node_count;
    double highest = 0;
    for (size_t i = 0; i < pool->node_count; i++) {
        const struct node *node = pool->nodes[i];
        double load = load_of(balancer, node);
        if (takes_vms(node) && !balancer->done[i] && (load > ceiling || overfull(node)) &&
            load > highest && held_long_enough(balancer, node)) {
            highest = load;
            found = i;
        }
    }
    return found;
}

/* The move that brings most for @node; none: vm is NULL. */
static struct candidate cool_down(const struct balancer *balancer, const struct node *node,
                                  double ceiling)
{
    struct candidate best = {0};
    double now = load_of(balancer, node);
    for (struct vm *vm = node->vms; vm; vm = vm->next) {
        struct candidate candidate = {.vm = vm, .seen = plan_look(&balancer->work, vm)};
        if (candidate.seen.freedom != PLAN_FREE || plan_moved(vm))
            continue;
        candidate.to = plan_target(&balancer->work, vm, NULL, 0);
        if (!candidate.to)
            continue;
        double there = load_if(balancer, candidate.to, &candidate, 1);
        double here = load_if(balancer, node, &candidate, -1);
        if (there > ceiling)
            continue;
        candidate.net = net_of(balancer, &candidate, now - (here > there ? here : there));
        if (candidate.net > 0 && candidate.net > best.net)
            best = candidate;
    }
    return best;
}

static int cool_hot_spots(struct balancer *balancer, struct error *err)
{
    const struct scheduler *pool = balancer->work.pool;
    char why[96];
    while (balancer->work.count < balancer->work.move_max) {
        double ceiling = ceiling_of(balancer);
        size_t at = hottest(balancer, ceiling);
        if (at == pool->node_count)
            return 0;
        const struct node *node = pool->nodes[at];
        struct candidate move = cool_down(balancer, node, ceiling);
        balancer->done[at] = move.vm == NULL;
        if (!move.vm)
            continue;
        (void)snprintf(why, sizeof why, "%.40s is at %.0f%%, the mean is %.0f%%", node->name,
                       100 * load_of(balancer, node),
                       100 * balancer->load_sum / (double)balancer->nodes);
        if (carry_out(balancer, &move, why, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- stranded room ---- */

static double stranded_if(const struct node *node, const struct vm *vm, int sign)
{
    double cpu =
        node->point.load[CPU] + sign * (double)vm->need.cpu_milli * node->point.per_unit[CPU];
    double memory = node->point.load[MEMORY] +
                    sign * (double)vm->need.memory_mib * node->point.per_unit[MEMORY];
    return fabs(cpu - memory);
}

static double stranded(const struct node *node)
{
    return fabs(node->point.load[CPU] - node->point.load[MEMORY]);
}

static void note_units(struct balancer *balancer)
{
    const struct scheduler *pool = balancer->work.pool;
    for (size_t i = 0; i < pool->node_count; i++) {
        const double *per_unit = pool->nodes[i]->point.per_unit;
        struct unit *least = &balancer->least, *most = &balancer->most;
        least->cpu = i ? fmin(least->cpu, per_unit[CPU]) : per_unit[CPU];
        least->memory = i ? fmin(least->memory, per_unit[MEMORY]) : per_unit[MEMORY];
        most->cpu = i ? fmax(most->cpu, per_unit[CPU]) : per_unit[CPU];
        most->memory = i ? fmax(most->memory, per_unit[MEMORY]) : per_unit[MEMORY];
    }
}

/* No node gains more by @vm than the VM's own shape is lopsided there: for most VMs that is too
 * little, and the scan is saved. */
static double gains_at_most(const struct balancer *balancer, const struct vm *vm)
{
    double cpu = (double)vm->need.cpu_milli, memory = (double)vm->need.memory_mib;
    return fmax(cpu * balancer->most.cpu - memory * balancer->least.memory,
                memory * balancer->most.memory - cpu * balancer->least.cpu);
}

/* The node in use that @candidate's VM strands least on, where the pool gains at least @gain, which
 * becomes what it does gain; or NULL. A scan: no index knows what is stranded where. */
static struct node *fitting_shape(const struct balancer *balancer,
                                  const struct candidate *candidate, double here, double *gain)
{
    const struct scheduler *pool = balancer->work.pool;
    const struct vm *vm = candidate->vm;
    struct sched_request request = pool_request_of(vm);
    struct error ignored = ERROR_INIT;
    struct query query;
    struct node *best = NULL;
    double ceiling = ceiling_of(balancer), now = stranded(vm->node);
    if (query_init(&query, pool, &request, &ignored) < 0)
        return NULL;
    for (size_t i = 0; i < pool->node_count; i++) {
        struct node *node = pool->nodes[i];
        double brings = now - here + stranded(node) - stranded_if(node, vm, 1);
        if (brings < *gain || (best && brings == *gain) || node == vm->node ||
            node->vm_count == 0) /* an empty node is worth more empty */
            continue;
        if (filter_node(&query, node) || load_if(balancer, node, candidate, 1) > ceiling)
            continue;
        best = node;
        *gain = brings;
    }
    return best;
}

static struct candidate even_out(const struct balancer *balancer, const struct node *node,
                                 double least)
{
    struct candidate best = {0};
    for (struct vm *vm = node->vms; vm; vm = vm->next) {
        struct candidate candidate = {.vm = vm, .seen = plan_look(&balancer->work, vm)};
        double here = stranded_if(node, vm, -1), gain = least;
        if (here >= stranded(node) || candidate.seen.freedom != PLAN_FREE || plan_moved(vm) ||
            stranded(node) - here + gains_at_most(balancer, vm) < gain)
            continue;
        candidate.to = fitting_shape(balancer, &candidate, here, &gain);
        if (!candidate.to)
            continue;
        candidate.net = net_of(balancer, &candidate, gain);
        if (candidate.net > 0 && candidate.net > best.net)
            best = candidate;
    }
    return best;
}

static int free_stranded(struct balancer *balancer, struct error *err)
{
    const struct scheduler *pool = balancer->work.pool;
    double threshold = (double)balancer->work.threshold_permille / 1000;
    char why[96];
    note_units(balancer);
    for (size_t i = 0; i < pool->node_count; i++) {
        const struct node *node = pool->nodes[i];
        while (takes_vms(node) && stranded(node) > threshold &&
               balancer->work.count < balancer->work.move_max) {
            struct candidate move = even_out(balancer, node, threshold / 2);
            if (!move.vm)
                break;
            (void)snprintf(why, sizeof why, "%.40s has %.0f%% of CPU and %.0f%% of memory reserved",
                           node->name, 100 * node->point.load[CPU], 100 * node->point.load[MEMORY]);
            if (carry_out(balancer, &move, why, err) < 0)
                return -1;
        }
    }
    return 0;
}

static void summarise(struct plan *plan)
{
    if (plan->count == 0 && plan->left_count == 0)
        (void)snprintf(plan->summary, sizeof plan->summary,
                       "nothing to do: no move would pay for itself");
    else
        (void)snprintf(plan->summary, sizeof plan->summary,
                       "%zu moves: hot nodes %zu to %zu, imbalance %.1f%% to %.1f%%, stranded "
                       "%.1f%% to %.1f%%",
                       plan->count, plan->before.hot, plan->after.hot, 100 * plan->before.imbalance,
                       100 * plan->after.imbalance, 100 * plan->before.stranded,
                       100 * plan->after.stranded);
}

int plan_rebalance(struct scheduler *pool, const struct plan_config *config, struct plan *plan,
                   struct error *err)
{
    struct balancer balancer = {0};
    int status = plan_begin(&balancer.work, pool, config, PLAN_REBALANCE, plan, err);
    balancer.nodes = plan->before.nodes;
    balancer.load_sum = plan->before.mean * (double)plan->before.nodes;
    balancer.done = calloc(pool->node_count + 1, sizeof *balancer.done);
    if (status == 0 && !balancer.done)
        status = error_set(err, ERROR_FAILED, "out of memory for a plan");
    if (status == 0)
        status = mend_rules(&balancer, err);
    pool->config.policy = SCHED_SPREAD; /* to the coolest */
    if (status == 0)
        status = cool_hot_spots(&balancer, err);
    if (status == 0)
        status = free_stranded(&balancer, err);
    free(balancer.done);
    status = plan_end(&balancer.work, status);
    if (status == 0) {
        plan->wanted = plan->count + plan->left_count;
        plan->placed = plan->count;
        summarise(plan);
    }
    return status;
}
