/* plan_node.c: plans about one node, drain and lose, and about VMs that are to come, add. */
#include <stdio.h>
#include <stdlib.h>

#include "scheduler/plan_work.h"

#define ROOM_MOVES_MAX 4 /* for one VM that fits nowhere */

/* Where @vm goes from a node that is drained or lost; stays where it can't. */
static int leave_node(struct plan_work *work, struct vm *vm, struct error *err)
{
    bool dead = work->plan->kind == PLAN_LOSE;
    struct plan_vm seen = plan_look(work, vm);
    char why[256] = "";
    if (seen.freedom == PLAN_GHOST)
        return 0;
    work->plan->wanted++;
    if (seen.freedom == PLAN_LOCAL || (seen.freedom == PLAN_FIXED && !dead))
        return plan_leave(work, vm, seen.why ? seen.why : "can't be moved", err);
    struct node *to = work->count < work->move_max ? plan_target(work, vm, why, sizeof why) : NULL;
    if (!to)
        return plan_leave(work, vm, why[0] ? why : "the plan is as long as it may be", err);
    (void)snprintf(why, sizeof why, dead ? "starts again" : "leaves %s", vm->node->name);
    if (plan_move(work, vm, to, &seen, why, err) < 0)
        return -1;
    if (dead) /* nothing is copied: it boots */
        work->plan->moves[work->plan->count - 1].cost = (struct plan_cost){0};
    work->plan->placed++;
    return 0;
}

static int empty_node(struct scheduler *pool, const struct plan_config *config, const char *name,
                      enum plan_kind kind, struct plan *plan, struct error *err)
{
    struct plan_work work;
    const struct node *node = pool_find_node(pool, name);
    *plan = (struct plan){0};
    if (!node)
        return error_set(err, ERROR_NOT_FOUND, "there is no node %.80s", name);
    int status = plan_begin(&work, pool, config, kind, plan, err);
    size_t count = node->vm_count;
    struct vm **vms = status == 0 ? plan_vms_of(node) : NULL;
    if (status == 0 && !vms)
        status = error_set(err, ERROR_FAILED, "out of memory for a plan");
    for (size_t i = 0; status == 0 && i < count; i++)
        status = leave_node(&work, vms[i], err);
    free((void *)vms);
    return plan_end(&work, status);
}

int plan_drain(struct scheduler *pool, const struct plan_config *config, const char *node,
               struct plan *plan, struct error *err)
{
    if (empty_node(pool, config, node, PLAN_DRAIN, plan, err) < 0)
        return -1;
    (void)snprintf(plan->summary, sizeof plan->summary, "%zu of %zu VMs can move away from %.60s",
                   plan->placed, plan->wanted, node);
    return 0;
}

int plan_lose(struct scheduler *pool, const struct plan_config *config, const char *node,
              struct plan *plan, struct error *err)
{
    if (empty_node(pool, config, node, PLAN_LOSE, plan, err) < 0)
        return -1;
    (void)snprintf(plan->summary, sizeof plan->summary,
                   "if %.60s were lost, %zu of its %zu VMs could start again elsewhere", node,
                   plan->placed, plan->wanted);
    return 0;
}

/* ---- add ---- */

/* Carries out what scheduler_make_room() proposes, where all of it may move. */
static int make_room(struct plan_work *work, const struct sched_request *request, struct error *err)
{
    struct sched_plan room;
    struct error none = ERROR_INIT;
    size_t before = work->count;
    size_t most = work->move_max - work->count;
    int status = 0;
    bool possible = true;
    if (scheduler_make_room(work->pool, request, most < ROOM_MOVES_MAX ? most : ROOM_MOVES_MAX,
                            &room, &none) < 0)
        return 0;
    for (size_t i = 0; status == 0 && possible && i < room.count; i++) {
        struct vm *vm = pool_find_vm(work->pool, room.moves[i].vm);
        struct node *to = pool_find_node(work->pool, room.moves[i].to);
        possible = vm && to && vm->name[0] != '?'; /* not the new ones */
        if (!possible)
            break;
        struct plan_vm seen = plan_look(work, vm);
        possible = seen.freedom == PLAN_FREE;
        if (possible)
            status = plan_move(work, vm, to, &seen, "makes room", err);
    }
    sched_plan_free(&room);
    if (!possible)
        plan_undo(work, before);
    return status;
}

/* One VM more, under a name of its own; *placed says whether it has a place. */
static int add_one(struct plan_work *work, const struct sched_request *request, bool *placed,
                   struct error *err)
{
    struct sched_decision decision;
    struct error refused = ERROR_INIT;
    *placed = true;
    if (scheduler_choose(work->pool, request, &decision, &refused) < 0) {
        if (refused.kind != ERROR_NO_CAPACITY)
            return error_set(err, refused.kind, "%s", refused.text);
        if (make_room(work, request, err) < 0)
            return -1;
        *placed = scheduler_choose(work->pool, request, &decision, &refused) == 0;
    }
    if (!*placed) {
        (void)snprintf(work->plan->summary, sizeof work->plan->summary, "%.200s", refused.text);
        return 0;
    }
    return scheduler_place(work->pool, request, decision.node, err);
}

/* '?' begins no VM's name. */
static const char *new_name(char out[32], size_t number)
{
    (void)snprintf(out, 32, "?%zu", number);
    return out;
}

int plan_add(struct scheduler *pool, const struct plan_config *config,
             const struct sched_request *request, size_t count, struct plan *plan,
             struct error *err)
{
    struct plan_work work;
    struct sched_request one = *request;
    char name[32], why[200];
    bool placed = true;
    int status = plan_begin(&work, pool, config, PLAN_ADD, plan, err);
    for (size_t i = 0; status == 0 && placed && i < count; i++) {
        one.vm = new_name(name, i);
        status = add_one(&work, &one, &placed, err);
        plan->placed += status == 0 && placed;
    }
    size_t added = plan->placed;
    /* Not the moves: those are still to be counted in the balance after. */
    for (size_t i = added; i > 0; i--)
        scheduler_remove_vm(pool, new_name(name, i - 1));
    plan->wanted = count;
    (void)snprintf(why, sizeof why, "%.190s", plan->summary);
    status = plan_end(&work, status);
    if (status == 0)
        (void)snprintf(plan->summary, sizeof plan->summary, "%zu of %zu fit%s%.180s", added, count,
                       why[0]        ? ": "
                       : plan->count ? " once the moves are made"
                                     : "",
                       why);
    return status;
}
