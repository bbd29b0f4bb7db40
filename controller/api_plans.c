/* Plans: made by the planner, checked and carried out; and how many more VMs fit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controller/api.h"
#include "controller/jobs.h"
#include "controller/outbox.h"
#include "controller/pb.h"
#include "controller/planner.h"
#include "controller/plans.h"
#include "controller/validate.h"
#include "controller/vms.h"

#define COUNT_MAX      100000
#define THRESHOLD_MAX  1000
#define VCPUS_MAX      65536
#define MEMORY_MIB_MAX (UINT64_C(1) << 40)
#define RATE_BPS_MAX   UINT64_C(1000000000000000)

static int check_size(uint32_t vcpus, uint64_t memory_mib, uint64_t bandwidth_bps,
                      struct sched_request *request, struct error *err)
{
    if (vcpus < 1 || vcpus > VCPUS_MAX || memory_mib < 1 || memory_mib > MEMORY_MIB_MAX ||
        bandwidth_bps > RATE_BPS_MAX)
        return error_set(err, ERROR_USAGE,
                         "a VM of %u vCPUs and %llu MiB: expected 1 to %d vCPUs and at least 1 "
                         "MiB, as in 4c,8G,1Gbps",
                         vcpus, (unsigned long long)memory_mib, VCPUS_MAX);
    *request = (struct sched_request){.vm = "?",
                                      .need = {(uint64_t)vcpus * 1000, memory_mib, bandwidth_bps}};
    return 0;
}

static int check_get(const struct controller *controller, const Vmpool__PlanGet *want,
                     enum plan_kind *kind, struct error *err)
{
    if (plan_kind_parse(want->kind, kind, err) < 0)
        return -1;
    bool of_node = *kind == PLAN_DRAIN || *kind == PLAN_LOSE;
    if (of_node && !api_find_node(controller, want->node, err))
        return -1;
    if (!of_node && want->node[0])
        return error_set(err, ERROR_USAGE, "a %s is not of one node", want->kind);
    if (want->threshold_permille > THRESHOLD_MAX)
        return error_set(err, ERROR_USAGE, "a threshold is 1%% to 100%%");
    if (want->move_max > PLAN_MOVE_MAX)
        return error_set(err, ERROR_USAGE, "a plan has at most %d moves: apply it and make another",
                         PLAN_MOVE_MAX);
    if (*kind == PLAN_ADD && (want->count < 1 || want->count > COUNT_MAX))
        return error_set(err, ERROR_USAGE, "%u VMs to add: expected 1 to %d", want->count,
                         COUNT_MAX);
    return 0;
}

/* What is asked of the planner, and by whom. */
struct errand {
    struct link_peer peer;
    Vmpool__AdminRequest *request;
    struct sched_request size; /* of each VM to add, or to count */
    enum plan_kind kind;
    struct plan plan;
    struct plan_capacity capacity;
};

static struct errand *errand_new(const struct api_call *call)
{
    struct errand *errand = mem_new(sizeof *errand);
    errand->peer = *call->peer;
    errand->request = pb_copy(&call->request->base);
    return errand;
}

static void free_errand(void *context)
{
    struct errand *errand = context;
    plan_free(&errand->plan);
    pb_free(errand->request);
    free(errand);
}

/* Answers as serve() in api.c would have. @reply has what it is about. */
static void answer(struct controller *controller, const struct errand *errand,
                   Vmpool__AdminReply *reply, const struct error *err)
{
    reply->request_id = errand->request->request_id;
    reply->done = true;
    if (err->kind != ERROR_NONE)
        reply->failure = pb_failure(err);
    outbox_admin(controller, &errand->peer, reply);
    pb_free(reply->failure);
}

static int make_plan(void *context, const struct snapshot *snapshot, struct error *err)
{
    struct errand *errand = context;
    const struct plan_config *config = &snapshot->config;
    const Vmpool__PlanGet *want = errand->request->plan_get;
    struct scheduler *pool = snapshot->pool;
    switch (errand->kind) {
    case PLAN_REBALANCE:
        return plan_rebalance(pool, config, &errand->plan, err);
    case PLAN_DRAIN:
        return plan_drain(pool, config, want->node, &errand->plan, err);
    case PLAN_LOSE:
        return plan_lose(pool, config, want->node, &errand->plan, err);
    case PLAN_CONSOLIDATE:
        return plan_consolidate(pool, config, &errand->plan, err);
    case PLAN_ADD:
        return plan_add(pool, config, &errand->size, want->count, &errand->plan, err);
    }
    return -1;
}

static void plan_made(struct controller *controller, void *context, const struct error *err)
{
    struct errand *errand = context;
    Vmpool__AdminReply reply = VMPOOL__ADMIN_REPLY__INIT;
    Vmpool__Plan *plan = NULL;
    if (err->kind == ERROR_NONE) {
        plan = plan_describe(controller, &errand->plan, errand->request->plan_get->node);
        reply.body_case = VMPOOL__ADMIN_REPLY__BODY_PLAN;
        reply.plan = plan;
    }
    answer(controller, errand, &reply, err);
    pb_free(plan);
}

int api_plan_get(struct controller *controller, struct api_call *call, struct error *err)
{
    const Vmpool__PlanGet *want = call->request->plan_get;
    struct planner_work work = {.config = plans_config(controller),
                                .make = make_plan,
                                .done = plan_made,
                                .free = free_errand};
    struct sched_request size = {0};
    enum plan_kind kind = PLAN_REBALANCE;
    if (check_get(controller, want, &kind, err) < 0 ||
        (kind == PLAN_ADD &&
         check_size(want->vcpus, want->memory_mib, want->bandwidth_bps, &size, err) < 0))
        return -1;
    struct errand *errand = errand_new(call);
    errand->kind = kind;
    errand->size = size;
    work.context = errand;
    work.config.move_max = want->move_max;
    if (want->threshold_permille)
        work.config.threshold_permille = want->threshold_permille;
    call->later = true;
    if (kind != PLAN_DRAIN && kind != PLAN_LOSE)
        return planner_begin(controller, &work, err);
    /* One node's VMs are found places for sooner than the pool is copied. */
    struct error failure = ERROR_INIT;
    const struct snapshot live = {controller->scheduler, work.config};
    (void)make_plan(errand, &live, &failure);
    plan_made(controller, errand, &failure);
    free_errand(errand);
    return 0;
}

/* ---- apply ---- */

static int check_header(const struct controller *controller, const Vmpool__Plan *plan,
                        struct error *err)
{
    struct plan none = {0};
    enum plan_kind kind = PLAN_REBALANCE;
    if (plan->format != PLAN_FORMAT)
        return error_set(err, ERROR_USAGE,
                         "the plan has format %u, expected %d: make it again with this version",
                         plan->format, PLAN_FORMAT);
    if (plan_kind_parse(plan->kind, &kind, err) < 0)
        return -1;
    if (kind == PLAN_LOSE)
        return error_set(err, ERROR_USAGE,
                         "a lose plan says what would happen: there is nothing to carry out");
    if (plan->n_moves > PLAN_MOVE_MAX)
        return error_set(err, ERROR_USAGE, "%zu moves: a plan has at most %d", plan->n_moves,
                         PLAN_MOVE_MAX);
    Vmpool__Plan *now = plan_describe(controller, &none, "");
    int status = 0;
    if (strcmp(plan->pool_id, now->pool_id) != 0)
        status = error_set(err, ERROR_CONFLICT,
                           "the plan was made for another pool (\"%.63s\", key %.16s...), this is "
                           "\"%s\" (key %.16s...): choose that one with --context",
                           plan->pool_name, plan->pool_id, now->pool_name, now->pool_id);
    pb_free(now);
    return status;
}

static int check_fresh(const struct controller *controller, const Vmpool__Plan *plan,
                       struct error *err)
{
    char now[17];
    const struct job *job = job_plan_running(controller);
    if (job)
        return error_set(err, ERROR_CONFLICT, "job %llu carries out another plan: wait for it",
                         (unsigned long long)job->stored->id);
    (void)snprintf(now, sizeof now, "%016llx",
                   (unsigned long long)scheduler_fingerprint(controller->scheduler));
    if (strcmp(plan->fingerprint, now) != 0)
        return error_set(err, ERROR_CONFLICT,
                         "the pool has changed since the plan was made (fingerprint %.16s, now "
                         "%s): make it again with \"poolctl plan\"",
                         plan->fingerprint, now);
    return 0;
}

static int check_move(const struct controller *controller, const Vmpool__PlanMove *move,
                      struct error *err)
{
    const struct vm *vm = api_find_vm(controller, move->vm, err);
    const struct node *to = api_find_node(controller, move->to, err);
    if (!vm || !to)
        return -1;
    const struct node *from = vm_node(controller, vm);
    if (!from || strcmp(from->stored->name, move->from) != 0 ||
        vm->stored->phase != VMPOOL__VM_PHASE__PHASE_RUNNING || vm->job)
        return error_set(
            err, ERROR_CONFLICT, "VM %s is %s on %s%s: expected it to run on %.63s with no job",
            vm->stored->spec->name, vm_phase_name(vm->stored->phase),
            from ? from->stored->name : "no node", vm->job ? " and has a job" : "", move->from);
    if (to == from)
        return error_set(err, ERROR_USAGE, "VM %s would move to where it is", move->vm);
    if (vm_has_local_disks(vm))
        return error_set(err, ERROR_CONFLICT, "VM %s has disks that are on %s only", move->vm,
                         move->from);
    return 0;
}

static int check_moves(const struct controller *controller, const Vmpool__Plan *plan,
                       struct error *err)
{
    struct name_map seen = {0};
    int status = 0;
    for (size_t i = 0; status == 0 && i < plan->n_moves; i++) {
        const Vmpool__PlanMove *move = plan->moves[i];
        status = check_move(controller, move, err);
        if (status == 0 && name_map_get(&seen, move->vm))
            status = error_set(err, ERROR_USAGE, "VM %s moves twice", move->vm);
        if (status == 0)
            status = name_map_add(&seen, move->vm, plan->moves[i], err);
        if (status < 0)
            (void)error_wrap(err, "move %zu of the plan", i + 1);
    }
    name_map_free(&seen);
    return status;
}

int api_plan_apply(struct controller *controller, struct api_call *call, struct error *err)
{
    const Vmpool__Plan *plan = call->request->plan_apply->plan;
    struct node *node = NULL;
    if (!plan)
        return error_set(err, ERROR_USAGE, "there is no plan in the request");
    if (check_header(controller, plan, err) < 0 || check_fresh(controller, plan, err) < 0 ||
        check_moves(controller, plan, err) < 0)
        return -1;
    if (strcmp(plan->kind, plan_kind_name(PLAN_DRAIN)) == 0) {
        node = api_find_node(controller, plan->node, err);
        if (!node)
            return -1;
    }
    if (call->request->plan_apply->dry_run) {
        call->reply.body_case = VMPOOL__ADMIN_REPLY__BODY_PLAN;
        call->reply.plan = pb_copy(&plan->base);
        return 0;
    }
    if (node)
        node_set_draining(controller, node, true, false);
    api_reply_job(call, job_plan_begin(controller, plan, call->admin));
    return 0;
}

/* ---- capacity ---- */

static int count_room(void *context, const struct snapshot *snapshot, struct error *err)
{
    struct errand *errand = context;
    return plan_capacity(snapshot->pool, &snapshot->config, &errand->size,
                         errand->request->capacity_get->n1, &errand->capacity, err);
}

static void room_counted(struct controller *controller, void *context, const struct error *err)
{
    struct errand *errand = context;
    const Vmpool__CapacityGet *want = errand->request->capacity_get;
    Vmpool__AdminReply reply = VMPOOL__ADMIN_REPLY__INIT;
    Vmpool__Capacity body = VMPOOL__CAPACITY__INIT;
    if (err->kind == ERROR_NONE) {
        body.count = errand->capacity.count;
        body.n1 = want->n1;
        body.count_n1 = errand->capacity.count_n1;
        body.why = errand->capacity.why;
        body.why_n1 = errand->capacity.why_n1;
        body.vcpus = want->vcpus;
        body.memory_mib = want->memory_mib;
        body.bandwidth_bps = want->bandwidth_bps;
        reply.body_case = VMPOOL__ADMIN_REPLY__BODY_CAPACITY;
        reply.capacity = &body;
    }
    answer(controller, errand, &reply, err);
}

int api_capacity_get(struct controller *controller, struct api_call *call, struct error *err)
{
    const Vmpool__CapacityGet *want = call->request->capacity_get;
    struct planner_work work = {.config = plans_config(controller),
                                .make = count_room,
                                .done = room_counted,
                                .free = free_errand};
    struct sched_request size;
    if (check_size(want->vcpus, want->memory_mib, want->bandwidth_bps, &size, err) < 0)
        return -1;
    struct errand *errand = errand_new(call);
    errand->size = size;
    work.context = errand;
    call->later = true;
    return planner_begin(controller, &work, err);
}
