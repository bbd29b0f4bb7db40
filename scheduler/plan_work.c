/* plan_work.c: see plan_work.h. */
#include "scheduler/plan_work.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Under pack and best a node is hot by what is measured, and only above this. */
#define BUSY_LOAD 0.8

/* ---- loads ---- */

static double changed(uint64_t now, uint64_t by, int sign)
{
    if (sign < 0)
        return now > by ? (double)(now - by) : 0;
    return sign > 0 ? (double)now + (double)by : (double)now;
}

double plan_load(enum sched_policy policy, const struct node *node,
                 const struct sched_resources *need, const struct sched_resources *used, int sign)
{
    static const struct sched_resources none;
    bool fills = policy == SCHED_PACK || policy == SCHED_BEST;
    double highest = 0;
    for (int d = 0; d < DIMENSIONS; d++) {
        uint64_t capacity = resource(&node->capacity, d), limit = resource(&node->limit, d);
        double measured = changed(resource(&node->used, d), resource(used ? used : &none, d), sign);
        double reserved =
            changed(resource(&node->reserved, d), resource(need ? need : &none, d), sign);
        if (capacity && measured / (double)capacity > highest)
            highest = measured / (double)capacity;
        if (!fills && limit && reserved / (double)limit > highest)
            highest = reserved / (double)limit;
    }
    return highest;
}

double plan_ceiling(enum sched_policy policy, double mean, uint32_t threshold_permille)
{
    double ceiling = mean + (double)threshold_permille / 1000;
    if ((policy == SCHED_PACK || policy == SCHED_BEST) && ceiling < BUSY_LOAD)
        ceiling = BUSY_LOAD;
    return ceiling < 1 ? ceiling : 1;
}

static bool takes_vms(const struct node *node)
{
    return !node->drained && !node->lost;
}

static double stranded(const struct node *node)
{
    return fabs(node->point.load[CPU] - node->point.load[MEMORY]);
}

static struct plan_balance balance_of(const struct scheduler *pool, enum sched_policy policy,
                                      uint32_t threshold_permille)
{
    struct plan_balance balance = {0};
    double sum = 0, squares = 0, strands = 0;
    for (size_t i = 0; i < pool->node_count; i++) {
        const struct node *node = pool->nodes[i];
        if (!takes_vms(node))
            continue;
        double load = plan_load(policy, node, NULL, NULL, 0);
        balance.nodes++;
        balance.empty += node->vm_count == 0;
        sum += load;
        squares += load * load;
        strands += stranded(node);
        if (load > balance.highest)
            balance.highest = load;
    }
    if (balance.nodes == 0)
        return balance;
    balance.mean = sum / (double)balance.nodes;
    double variance = squares / (double)balance.nodes - balance.mean * balance.mean;
    balance.imbalance = variance > 0 ? sqrt(variance) : 0;
    if (balance.nodes > balance.empty)
        balance.stranded = strands / (double)(balance.nodes - balance.empty);
    double ceiling = plan_ceiling(policy, balance.mean, threshold_permille);
    for (size_t i = 0; i < pool->node_count; i++)
        balance.hot +=
            takes_vms(pool->nodes[i]) && plan_load(policy, pool->nodes[i], NULL, NULL, 0) > ceiling;
    return balance;
}

/* @used moves with a VM from one node to the other. Undone in reverse, what is taken is there. */
static void carry(const struct sched_resources *used, struct node *from, struct node *to)
{
    from->used.cpu_milli -= used->cpu_milli;
    from->used.memory_mib -= used->memory_mib;
    from->used.bandwidth_bps -= used->bandwidth_bps;
    to->used.cpu_milli += used->cpu_milli;
    to->used.memory_mib += used->memory_mib;
    to->used.bandwidth_bps += used->bandwidth_bps;
}

static uint32_t threshold_or_default(uint32_t threshold_permille)
{
    return threshold_permille ? threshold_permille : PLAN_THRESHOLD_PERMILLE;
}

struct plan_balance plan_balance_of(const struct scheduler *pool, uint32_t threshold_permille)
{
    return balance_of(pool, pool->config.policy, threshold_or_default(threshold_permille));
}

void plan_each_hot(const struct scheduler *pool, uint32_t threshold_permille,
                   void (*hot)(void *context, const char *node), void *context)
{
    uint32_t threshold = threshold_or_default(threshold_permille);
    enum sched_policy policy = pool->config.policy;
    double ceiling = plan_ceiling(policy, balance_of(pool, policy, threshold).mean, threshold);
    for (size_t i = 0; i < pool->node_count; i++)
        if (takes_vms(pool->nodes[i]) && plan_load(policy, pool->nodes[i], NULL, NULL, 0) > ceiling)
            hot(context, pool->nodes[i]->name);
}

/* ---- begin and end ---- */

int plan_begin(struct plan_work *work, struct scheduler *pool, const struct plan_config *config,
               enum plan_kind kind, struct plan *plan, struct error *err)
{
    *plan = (struct plan){.kind = kind, .fingerprint = scheduler_fingerprint(pool)};
    *work = (struct plan_work){
        .pool = pool,
        .config = config,
        .plan = plan,
        .policy = pool->config.policy,
        .threshold_permille = threshold_or_default(config->threshold_permille),
        .move_max = config->move_max ? config->move_max : PLAN_MOVE_MAX,
    };
    work->hidden = calloc(pool->node_count + 1, sizeof(struct node *));
    if (!work->hidden)
        return error_set(err, ERROR_FAILED, "out of memory for a plan");
    plan->before = balance_of(pool, work->policy, work->threshold_permille);
    return 0;
}

static void take_back(struct plan_work *work, size_t count)
{
    for (; work->count > count; work->count--) {
        const struct plan_step *step = &work->steps[work->count - 1];
        step->vm->moves--;
        carry(&step->used, step->vm->node, step->from);
        pool_move_vm(work->pool, step->vm, step->from);
    }
}

void plan_undo(struct plan_work *work, size_t count)
{
    take_back(work, count);
    work->plan->count = count;
}

int plan_end(struct plan_work *work, int status)
{
    struct error ignored = ERROR_INIT;
    struct plan *plan = work->plan;
    /* Hidden nodes take VMs in truth, so they count. */
    for (size_t i = work->hidden_count; i > 0; i--)
        (void)pool_hide_node(work->pool, work->hidden[i - 1], false, &ignored);
    if (status == 0)
        plan->after = balance_of(work->pool, work->policy, work->threshold_permille);
    take_back(work, 0);
    work->pool->config.policy = work->policy;
    for (size_t i = 0; status == 0 && i < plan->count; i++) {
        plan->bytes += plan->moves[i].cost.bytes;
        plan->duration_ms += plan->moves[i].cost.duration_ms;
        if (plan->moves[i].cost.pause_us > plan->pause_us)
            plan->pause_us = plan->moves[i].cost.pause_us;
    }
    if (status < 0)
        plan_free(plan);
    free(work->steps);
    free((void *)work->hidden);
    return status;
}

void plan_free(struct plan *plan)
{
    free(plan->moves);
    free(plan->left);
    *plan = (struct plan){0};
}

/* ---- moves ---- */

struct plan_vm plan_look(const struct plan_work *work, const struct vm *vm)
{
    struct plan_vm seen = {0};
    if (work->config->look)
        work->config->look(work->config->context, vm->name, &seen);
    /* What is said of a VM can't be more than what its node measures. */
    const struct sched_resources *most = &vm->node->used;
    if (seen.used.cpu_milli > most->cpu_milli)
        seen.used.cpu_milli = most->cpu_milli;
    if (seen.used.memory_mib > most->memory_mib)
        seen.used.memory_mib = most->memory_mib;
    if (seen.used.bandwidth_bps > most->bandwidth_bps)
        seen.used.bandwidth_bps = most->bandwidth_bps;
    return seen;
}

struct plan_cost plan_cost_between(const struct vm *vm, const struct plan_vm *seen,
                                   const struct node *from, const struct node *to)
{
    uint64_t a = from->capacity.bandwidth_bps, b = to->capacity.bandwidth_bps;
    uint64_t copy = seen->copy_mib && seen->copy_mib < vm->need.memory_mib ? seen->copy_mib
                                                                           : vm->need.memory_mib;
    return plan_cost_of(copy, seen->dirty_bps, a < b ? a : b);
}

/* Room for one more of what @array (of @count) holds. */
static int grow(void *array, size_t count, size_t size, struct error *err)
{
    void *more = *(void **)array;
    if ((count & (count - 1)) == 0)
        more = reallocarray(more, count ? count * 2 : 1, size);
    if (!more)
        return error_set(err, ERROR_FAILED, "out of memory for a plan");
    *(void **)array = more;
    return 0;
}

int plan_move(struct plan_work *work, struct vm *vm, struct node *to, const struct plan_vm *seen,
              const char *why, struct error *err)
{
    struct plan *plan = work->plan;
    struct node *from = vm->node;
    if (grow(&plan->moves, plan->count, sizeof *plan->moves, err) < 0 ||
        grow(&work->steps, work->count, sizeof *work->steps, err) < 0)
        return -1;
    struct plan_move *move = &plan->moves[plan->count];
    *move = (struct plan_move){.vm = vm->name,
                               .from = from->name,
                               .to = to->name,
                               .memory_mib = vm->need.memory_mib,
                               .cost = plan_cost_between(vm, seen, from, to)};
    (void)snprintf(move->why, sizeof move->why, "%s", why);
    work->steps[work->count++] = (struct plan_step){vm, from, seen->used};
    vm->moves++;
    plan->count++;
    carry(&seen->used, from, to);
    pool_move_vm(work->pool, vm, to);
    return 0;
}

bool plan_moved(const struct vm *vm)
{
    return vm->moves > 0;
}

int plan_leave(struct plan_work *work, const struct vm *vm, const char *why, struct error *err)
{
    struct plan *plan = work->plan;
    if (grow(&plan->left, plan->left_count, sizeof *plan->left, err) < 0)
        return -1;
    struct plan_left *left = &plan->left[plan->left_count++];
    *left = (struct plan_left){.vm = vm->name};
    (void)snprintf(left->why, sizeof left->why, "%s", why);
    return 0;
}

struct node *plan_target(const struct plan_work *work, const struct vm *vm, char *why, size_t size)
{
    struct error err = ERROR_INIT;
    struct sched_decision decision;
    struct sched_request request = pool_request_of(vm);
    struct query query;
    request.not_node = vm->node->name;
    const struct node *best = query_init(&query, work->pool, &request, &err) == 0
                                  ? search_best(work->pool, &query)
                                  : NULL;
    if (!best && why) {
        (void)scheduler_choose(work->pool, &request, &decision, &err);
        (void)snprintf(why, size, "%s", err.text);
    }
    return best ? pool_find_node(work->pool, best->name) : NULL;
}

int plan_hide(struct plan_work *work, struct node *node, struct error *err)
{
    if (!takes_vms(node))
        return 0;
    if (pool_hide_node(work->pool, node, true, err) < 0)
        return -1;
    work->hidden[work->hidden_count++] = node;
    return 0;
}

/* The larger first; of equals by name, so that the order never depends on history. */
static int by_memory(const void *a, const void *b)
{
    const struct vm *x = *(struct vm *const *)a, *y = *(struct vm *const *)b;
    if (x->need.memory_mib != y->need.memory_mib)
        return x->need.memory_mib > y->need.memory_mib ? -1 : 1;
    return strcmp(x->name, y->name);
}

struct vm **plan_vms_of(const struct node *node)
{
    struct vm **vms = calloc(node->vm_count + 1, sizeof(struct vm *));
    size_t count = 0;
    if (!vms)
        return NULL;
    for (struct vm *vm = node->vms; vm; vm = vm->next)
        vms[count++] = vm;
    qsort((void *)vms, count, sizeof(struct vm *), by_memory);
    return vms;
}
