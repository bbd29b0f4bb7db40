/* Plans through the controller: made, refused, carried out; N+1; and rebalancing by itself. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "controller/pb.h"
#include "controller/plans.h"
#include "controller/rebalance.h"
#include "pool.h"

static struct pool pool;

static void set_mode(enum rebalance_mode mode)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(rebalance_set(pool.controller, rebalance_mode_name(mode), "test", &err), 0, "%s",
                 err.text);
}

static void fill_n1(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "v%u", i);
        (void)pool_create(&pool, name, "n1");
        cr_assert(pool_await_phase(&pool, name, VMPOOL__VM_PHASE__PHASE_RUNNING));
    }
}

/* Three nodes; n1 has six VMs, the others none. */
static void start(void)
{
    pool_open(&pool, 3);
    set_mode(REBALANCE_OFF);
    pool_import_image(&pool);
    fill_n1(6);
}

static void finish(void)
{
    pool_close(&pool);
}

TestSuite(plans, .init = start, .fini = finish, .timeout = 60);

static const Vmpool__AdminReply *ask_plan(const char *kind, const char *node)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__PlanGet get = VMPOOL__PLAN_GET__INIT;
    char kind_copy[32], node_copy[32];
    (void)snprintf(kind_copy, sizeof kind_copy, "%s", kind);
    (void)snprintf(node_copy, sizeof node_copy, "%s", node);
    get.kind = kind_copy;
    get.node = node_copy;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_PLAN_GET;
    request.plan_get = &get;
    return pool_ask(&pool, &request);
}

static Vmpool__Plan *plan_of(const char *kind, const char *node)
{
    const Vmpool__AdminReply *reply = ask_plan(kind, node);
    cr_assert_null(reply->failure, "%s", reply->failure ? reply->failure->text : "");
    return reply->plan;
}

static const Vmpool__AdminReply *apply(Vmpool__Plan *plan)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__PlanApply body = VMPOOL__PLAN_APPLY__INIT;
    body.plan = plan;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_PLAN_APPLY;
    request.plan_apply = &body;
    return pool_ask(&pool, &request);
}

static struct job *apply_and_wait(Vmpool__Plan *plan)
{
    const Vmpool__AdminReply *reply = apply(plan);
    cr_assert_null(reply->failure, "%s", reply->failure ? reply->failure->text : "");
    return pool_job_end(&pool, reply->job->id);
}

static unsigned vms_on(const char *name)
{
    return (unsigned)node_by_name(pool.controller, name)->vms;
}

static void assert_refused(Vmpool__Plan *plan, enum error_kind kind, const char *why)
{
    uint64_t jobs = pool.controller->next_job;
    const Vmpool__AdminReply *reply = apply(plan);
    cr_assert(reply->failure, "a plan was taken that should say: %s", why);
    cr_expect_eq(reply->failure->kind, kind, "%s", reply->failure->text);
    cr_expect(strstr(reply->failure->text, why), "%s", reply->failure->text);
    cr_expect_eq(pool.controller->next_job, jobs, "no job was begun");
    cr_expect_eq(vms_on("n1"), 6, "nothing has moved");
}

Test(plans, a_rebalance_is_planned_carried_out_and_then_rests)
{
    Vmpool__Plan *plan = plan_of("rebalance", "");
    cr_assert_gt(plan->n_moves, 0);
    cr_expect_str_eq(plan->moves[0]->from, "n1");
    cr_expect_gt(plan->moves[0]->duration_us, 0);
    cr_expect_gt(plan->moves[0]->pause_us, 0);
    cr_expect_lt(plan->after->imbalance_permille, plan->before->imbalance_permille);
    cr_expect_eq(vms_on("n1"), 6, "planning moves nothing");
    struct job *job = apply_and_wait(plan);
    cr_assert_eq(job->stored->phase, VMPOOL__JOB_PHASE__JOB_DONE, "%s", job->stored->text);
    cr_expect_eq(job->stored->moved, plan->n_moves);
    for (size_t i = 0; i < plan->n_moves; i++)
        cr_expect_str_eq(
            node_name_of(pool.controller, pool_vm(&pool, plan->moves[i]->vm)->stored->node_id),
            plan->moves[i]->to);
    cr_expect_eq(plan_of("rebalance", "")->n_moves, 0);
}

Test(plans, a_stale_plan_is_refused_and_nothing_changes)
{
    Vmpool__Plan *plan = plan_of("rebalance", "");
    (void)pool_create(&pool, "newcomer", "n2");
    assert_refused(plan, ERROR_CONFLICT, "the pool has changed since the plan was made");
    plan = plan_of("rebalance", "");
    uint64_t job = pool_migrate(&pool, "newcomer", "n3");
    (void)pool_job_end(&pool, job);
    assert_refused(plan, ERROR_CONFLICT, "the pool has changed since the plan was made");
}

Test(plans, a_plan_for_another_pool_is_refused_by_name)
{
    Vmpool__Plan *plan = plan_of("rebalance", "");
    plan->pool_id[0] = plan->pool_id[0] == '0' ? '1' : '0';
    pb_set(&plan->pool_name, "elsewhere");
    assert_refused(plan, ERROR_CONFLICT, "the plan was made for another pool (\"elsewhere\"");
}

Test(plans, what_is_wrong_with_a_plan_is_said)
{
    Vmpool__Plan *plan = plan_of("rebalance", "");
    plan->format = 7;
    assert_refused(plan, ERROR_USAGE, "format 7, expected 1");
    plan->format = 1;
    pb_set(&plan->kind, "shuffle");
    assert_refused(plan, ERROR_USAGE, "\"shuffle\" is no kind of plan: expected rebalance");
    pb_set(&plan->kind, "rebalance");
    char *vm = plan->moves[1]->vm;
    plan->moves[1]->vm = plan->moves[0]->vm;
    assert_refused(plan, ERROR_USAGE, "move 2 of the plan: VM ");
    plan->moves[1]->vm = vm;
    pb_set(&plan->moves[0]->vm, "nobody");
    assert_refused(plan, ERROR_NOT_FOUND, "move 1 of the plan: there is no VM nobody");
    plan = plan_of("rebalance", "");
    pb_set(&plan->moves[0]->to, "n1");
    assert_refused(plan, ERROR_USAGE, "would move to where it is");
    pb_set(&plan->moves[0]->to, "n9");
    assert_refused(plan, ERROR_NOT_FOUND, "there is no node n9");
    plan = plan_of("rebalance", "");
    pb_set(&plan->moves[0]->from, "n3");
    assert_refused(plan, ERROR_CONFLICT, "expected it to run on n3");
    assert_refused(plan_of("lose", "n1"), ERROR_USAGE, "there is nothing to carry out");
    assert_refused(NULL, ERROR_USAGE, "there is no plan");
}

Test(plans, questions_that_make_no_sense_are_refused)
{
    const Vmpool__AdminReply *reply = ask_plan("drain", "n9");
    cr_assert(reply->failure);
    cr_expect_eq(reply->failure->kind, ERROR_NOT_FOUND);
    reply = ask_plan("rebalance", "n1");
    cr_assert(reply->failure);
    cr_expect_eq(reply->failure->kind, ERROR_USAGE);
    cr_expect(strstr(reply->failure->text, "not of one node"));
    reply = ask_plan("add", "");
    cr_assert(reply->failure);
    cr_expect(strstr(reply->failure->text, "0 VMs to add: expected 1 to"), "%s",
              reply->failure->text);
}

Test(plans, a_drain_plan_empties_the_node_and_keeps_it_empty)
{
    Vmpool__Plan *plan = plan_of("drain", "n1");
    cr_expect_eq(plan->n_moves, 6);
    cr_expect_str_eq(plan->summary, "6 of 6 VMs can move away from n1");
    struct job *job = apply_and_wait(plan);
    cr_assert_eq(job->stored->phase, VMPOOL__JOB_PHASE__JOB_DONE, "%s", job->stored->text);
    cr_expect_eq(vms_on("n1"), 0);
    cr_assert(pool_await_node_phase(&pool, "n1", VMPOOL__NODE_PHASE__NODE_DRAINED));
}

Test(plans, a_plan_goes_on_after_a_crash)
{
    const Vmpool__AdminReply *reply = apply(plan_of("drain", "n1"));
    cr_assert_null(reply->failure);
    uint64_t id = reply->job->id;
    while (vms_on("n1") > 4)
        pool_run(&pool, 1);
    pool_kill_controller(&pool);
    pool_start_controller(&pool);
    const struct job *job = pool_job_end(&pool, id);
    cr_assert_eq(job->stored->phase, VMPOOL__JOB_PHASE__JOB_DONE, "%s", job->stored->text);
    cr_expect_eq(job->stored->moved, 6);
    cr_expect_eq(vms_on("n1"), 0);
}

Test(plans, a_move_that_fails_is_named_and_the_rest_goes_on)
{
    Vmpool__Plan *plan = plan_of("rebalance", "");
    pool_agent(&pool, plan->moves[0]->to)->refuse_prepare = ERROR_FAILED;
    struct job *job = apply_and_wait(plan);
    cr_expect_eq(job->stored->phase, VMPOOL__JOB_PHASE__JOB_FAILED);
    cr_expect(strstr(job->stored->text, plan->moves[0]->vm), "%s", job->stored->text);
    cr_expect_gt(job->stored->moved, 0);
}

Test(plans, capacity_counts_what_fits)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__CapacityGet get = VMPOOL__CAPACITY_GET__INIT;
    get.vcpus = 1;
    get.memory_mib = 8192;
    get.n1 = true;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_CAPACITY_GET;
    request.capacity_get = &get;
    const Vmpool__AdminReply *reply = pool_ask(&pool, &request);
    cr_assert_null(reply->failure);
    cr_expect_eq(reply->capacity->count, 5, "16G, 16G and 13G free");
    cr_expect_eq(reply->capacity->count_n1, 3, "one on each node");
    cr_expect(strstr(reply->capacity->why_n1, "with one more, if node "), "%s",
              reply->capacity->why_n1);
    char no_id[] = "";
    request.request_id = no_id;
    get.memory_mib = 0;
    reply = pool_ask(&pool, &request);
    cr_assert(reply->failure);
    cr_expect_eq(reply->failure->kind, ERROR_USAGE);
}

Test(plans, a_vm_that_breaks_n_plus_1_is_refused_with_the_reason)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__VmCreate create = VMPOOL__VM_CREATE__INIT;
    char name[] = "big0", image[] = "debian";
    create.name = name;
    create.vcpus = 1;
    create.memory_mib = 8192;
    create.image = image;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_CREATE;
    request.vm_create = &create;
    pool.controller->config.keep_n1 = true;
    for (unsigned i = 0;; i++) {
        char no_id[] = "";
        name[3] = (char)('0' + i);
        request.request_id = no_id;
        const Vmpool__AdminReply *reply = pool_ask(&pool, &request);
        if (reply->failure) {
            cr_expect_eq(i, 3, "as many as capacity says");
            cr_expect_eq(reply->failure->kind, ERROR_NO_CAPACITY);
            cr_expect(strstr(reply->failure->text, "could no longer lose any one node"), "%s",
                      reply->failure->text);
            break;
        }
        (void)pool_job_end(&pool, reply->job->id);
        cr_assert(pool_await_phase(&pool, name, VMPOOL__VM_PHASE__PHASE_RUNNING));
        cr_assert_lt(i, 5);
    }
    struct plan_config config = plans_config(pool.controller);
    struct plan_n1 n1;
    struct error err = ERROR_INIT;
    cr_assert_eq(plan_check_n1(pool.controller->scheduler, &config, &n1, &err), 0);
    cr_expect(n1.holds);
    cr_expect_null(vm_by_name(pool.controller, name), "what was refused is not there");
}

/* ---- by itself ---- */

static unsigned count_events(const char *kind)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__EventWatch watch = VMPOOL__EVENT_WATCH__INIT;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_EVENT_WATCH;
    request.event_watch = &watch;
    const Vmpool__AdminReply *reply = pool_ask(&pool, &request);
    unsigned count = 0;
    for (size_t i = 0; i < reply->events->n_events; i++)
        count += strcmp(reply->events->events[i]->kind, kind) == 0;
    return count;
}

static void rebalance(enum rebalance_mode mode, unsigned hold_ms, unsigned cooldown_ms)
{
    struct config *config = &pool.controller->config;
    set_mode(mode);
    config->rebalance_interval_ms = 20;
    config->rebalance_hold_ms = hold_ms;
    config->rebalance_cooldown_ms = cooldown_ms;
    config->rebalance_batch = 2;
}

static bool is_recommended(struct pool *p, const void *what)
{
    (void)p;
    (void)what;
    return count_events("rebalance.recommended") > 0;
}

Test(plans, recommending_says_it_once_and_moves_nothing)
{
    uint64_t jobs = pool.controller->next_job;
    rebalance(REBALANCE_RECOMMEND, 60000, 0);
    pool_run(&pool, 300);
    cr_expect_eq(count_events("rebalance.recommended"), 0, "the hold time is not over");
    rebalance(REBALANCE_RECOMMEND, 50, 0);
    cr_assert(pool_until(&pool, is_recommended, NULL));
    pool_run(&pool, 300);
    cr_expect_eq(count_events("rebalance.recommended"), 1);
    cr_expect_eq(pool.controller->next_job, jobs);
    cr_expect_eq(vms_on("n1"), 6);
}

static bool is_at_rest(struct pool *p, const void *what)
{
    (void)what;
    struct plan_balance balance = plan_balance_of(p->controller->scheduler, 0);
    return balance.hot == 0 && !job_plan_running(p->controller);
}

Test(plans, rebalancing_moves_in_batches_and_does_not_flip_back)
{
    uint64_t jobs = pool.controller->next_job;
    rebalance(REBALANCE_ON, 100, 300);
    cr_assert(pool_until(&pool, is_at_rest, NULL));
    cr_expect_geq(count_events("rebalance.started"), 1);
    for (const struct job *job = pool.controller->jobs; job; job = job->next)
        if (job->kind == &job_plan)
            cr_expect_leq(job->stored->total, 2, "no batch is larger");
    uint64_t settled = pool.controller->next_job;
    cr_expect_gt(settled, jobs);
    pool_run(&pool, 1500);
    cr_expect_eq(pool.controller->next_job, settled, "what is balanced is left alone");
}

static const Vmpool__AdminReply *ask_mode(const char *mode)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__RebalanceSet set = VMPOOL__REBALANCE_SET__INIT;
    char word[32];
    (void)snprintf(word, sizeof word, "%s", mode);
    set.mode = word;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_REBALANCE_SET;
    request.rebalance_set = &set;
    return pool_ask(&pool, &request);
}

static void assert_mode(const char *mode, const char *set_by)
{
    const Vmpool__RebalanceMode *is = ask_mode("")->rebalance;
    cr_assert(is);
    cr_expect_str_eq(is->mode, mode);
    cr_expect_str_eq(is->set_by, set_by);
    cr_expect_str_eq(is->started_with, "recommend");
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__StatusGet get = VMPOOL__STATUS_GET__INIT;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_STATUS;
    request.status = &get;
    cr_expect_str_eq(pool_ask(&pool, &request)->status->rebalance, mode);
}

static void restart(void)
{
    pool_kill_controller(&pool);
    pool_run(&pool, 100);
    pool_start_controller(&pool);
}

Test(plans, the_mode_is_set_by_an_operator_and_kept)
{
    unsigned events = count_events("rebalance.mode");
    cr_expect_null(ask_mode("on")->failure);
    assert_mode("on", "admin");
    cr_expect_eq(count_events("rebalance.mode"), events + 1);
    restart();
    assert_mode("on", "admin");
    cr_expect_eq(rebalance_mode(pool.controller), REBALANCE_ON);
    cr_expect_null(ask_mode("default")->failure);
    assert_mode("recommend", "");
    restart();
    assert_mode("recommend", "");
}

Test(plans, a_mode_that_is_none_changes_nothing)
{
    cr_expect_null(ask_mode("on")->failure);
    const Vmpool__AdminReply *reply = ask_mode("sometimes");
    cr_assert(reply->failure);
    cr_expect_eq(reply->failure->kind, ERROR_USAGE);
    assert_mode("on", "admin");
}

Test(plans, a_mode_set_at_run_time_works_at_once)
{
    rebalance(REBALANCE_OFF, 50, 0);
    uint64_t jobs = pool.controller->next_job;
    pool_run(&pool, 300);
    cr_expect_eq(pool.controller->next_job, jobs);
    cr_expect_null(ask_mode("on")->failure);
    cr_assert(pool_until(&pool, is_at_rest, NULL));
    cr_expect_gt(pool.controller->next_job, jobs);
}

Test(plans, a_vm_that_was_moved_rests_for_the_cooldown)
{
    uint64_t job = pool_migrate(&pool, "v0", "n2");
    (void)pool_job_end(&pool, job);
    struct plan_config own = plans_own_config(pool.controller);
    struct plan_vm seen = {0};
    own.look(own.context, "v0", &seen);
    cr_expect_eq(seen.freedom, PLAN_FIXED);
    cr_expect_str_eq(seen.why, "was moved a short while ago");
    seen = (struct plan_vm){0};
    own.look(own.context, "v1", &seen);
    cr_expect_eq(seen.freedom, PLAN_FREE);
    seen = (struct plan_vm){0};
    struct plan_config asked = plans_config(pool.controller);
    asked.look(asked.context, "v0", &seen);
    cr_expect_eq(seen.freedom, PLAN_FREE, "an operator's plan may move it at once");
}
