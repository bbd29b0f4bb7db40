/* exits.c: see exits.h. */
#include "scheduler/exits.h"

#include <math.h>

/* Beyond this nobody plans. */
#define STAY_MAX_S (UINT64_C(10) * 366 * 86400)

int exits_init(struct scheduler *pool, struct error *err)
{
    if (pool->config.policy != SCHED_BEST)
        return 0;
    pool->lifetimes = lifetimes_new(err);
    return pool->lifetimes ? 0 : -1;
}

static uint64_t after(uint64_t since_s, const struct guess *guess)
{
    double stay_s = guess->known ? exp(guess->kind) : 0;
    return since_s + (stay_s < (double)STAY_MAX_S ? (uint64_t)stay_s : STAY_MAX_S);
}

static uint32_t slot_of(uint64_t time_s)
{
    uint64_t slot = time_s / EXIT_SLOT_S + 1;
    return slot < UINT32_MAX ? (uint32_t)slot : UINT32_MAX;
}

void exits_begin(const struct scheduler *pool, struct vm *vm, uint64_t since_s)
{
    vm->since_s = since_s;
    if (!pool->lifetimes)
        return;
    vm->guess = lifetimes_guess(pool->lifetimes, &vm->need, vm->tenant);
    vm->exit_s = after(since_s, &vm->guess);
}

void exits_refresh(const struct scheduler *pool, struct node *node)
{
    double sum = 0, memory_mib = 0;
    if (pool->uses_exits)
        for (const struct vm *vm = node->vms; vm; vm = vm->next) {
            sum += (double)vm->need.memory_mib * slot_of(vm->exit_s);
            memory_mib += (double)vm->need.memory_mib;
        }
    node->exit_slot = memory_mib > 0 ? (uint32_t)(sum / memory_mib) : 0;
}

uint32_t exits_of_request(const struct scheduler *pool, const struct sched_request *request,
                          const struct vm *self)
{
    if (!pool->uses_exits)
        return 0;
    if (self)
        return slot_of(self->exit_s);
    const struct guess guess = lifetimes_guess(pool->lifetimes, &request->need, request->tenant);
    return slot_of(after(pool->now_s, &guess));
}

int exits_copy(struct scheduler *to, const struct scheduler *from, struct error *err)
{
    to->now_s = from->now_s;
    to->uses_exits = from->uses_exits;
    if (!from->lifetimes)
        return 0;
    lifetimes_free(to->lifetimes);
    to->lifetimes = lifetimes_copy(from->lifetimes);
    if (!to->lifetimes)
        return error_set(err, ERROR_FAILED, "out of memory for a copy of the pool");
    for (size_t i = 0; i < to->node_count; i++)
        for (struct vm *vm = to->nodes[i]->vms; vm; vm = vm->next) {
            const struct vm *known = pool_find_vm(from, vm->name);
            vm->exit_s = known->exit_s;
            vm->guess = known->guess;
        }
    return 0;
}

/* ---- time ---- */

/* One that should have left and has not. */
static void renew(struct scheduler *pool, struct vm *vm)
{
    uint64_t age_s = pool->now_s > vm->since_s ? pool->now_s - vm->since_s : 0;
    lifetimes_note(pool->lifetimes, &vm->need, vm->tenant, &vm->guess, 2 * age_s);
    vm->exit_s = pool->now_s + (age_s > EXIT_SLOT_S ? age_s : EXIT_SLOT_S);
}

void scheduler_set_time(struct scheduler *pool, uint64_t now_s)
{
    bool same_slot = now_s / EXIT_SLOT_S == pool->now_s / EXIT_SLOT_S;
    if (now_s < pool->now_s)
        return;
    pool->now_s = now_s;
    if (!pool->lifetimes || same_slot)
        return;
    bool used = pool->uses_exits;
    pool->uses_exits = lifetimes_worth_using(pool->lifetimes, used);
    for (size_t i = 0; i < pool->node_count; i++) {
        struct node *node = pool->nodes[i];
        bool changed = used != pool->uses_exits;
        for (struct vm *vm = node->vms; vm; vm = vm->next)
            if (vm->exit_s <= now_s) {
                renew(pool, vm);
                changed = true;
            }
        if (changed)
            pool_reindex_node(pool, node);
    }
}

void scheduler_note_lifetime(struct scheduler *pool, const struct sched_request *request,
                             uint64_t lifetime_s)
{
    if (!pool->lifetimes)
        return;
    const struct vm *vm = request->vm ? pool_find_vm(pool, request->vm) : NULL;
    const struct guess guess =
        vm ? vm->guess : lifetimes_guess(pool->lifetimes, &request->need, request->tenant);
    lifetimes_note(pool->lifetimes, &request->need, request->tenant, &guess, lifetime_s);
}

double scheduler_lifetimes_explained(const struct scheduler *pool, bool *used)
{
    *used = pool->uses_exits;
    return pool->lifetimes ? lifetimes_explained(pool->lifetimes) : 0;
}
