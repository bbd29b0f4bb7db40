/* Migrations that wait for their turn, through a whole pool of simulated agents. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "pool.h"

static struct pool pool;

static void start(void)
{
    pool_open(&pool, 3);
    pool_import_image(&pool);
}

static void finish(void)
{
    pool_close(&pool);
}

TestSuite(queue, .init = start, .fini = finish, .timeout = 60);

static struct sim_agent *agent(const char *name)
{
    return pool_agent(&pool, name);
}

static void create(const char *names, const char *on)
{
    for (const char *at = names; *at; at++) {
        const char name[] = {*at, '\0'};
        (void)pool_create(&pool, name, on);
        cr_assert_eq(pool_vm(&pool, name)->stored->phase, VMPOOL__VM_PHASE__PHASE_RUNNING);
    }
}

/* What an operator reads of a job. */
static const Vmpool__Job *show(uint64_t id)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__JobList list = VMPOOL__JOB_LIST__INIT;
    list.id = id;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_JOB_LIST;
    request.job_list = &list;
    const Vmpool__AdminReply *reply = pool_ask(&pool, &request);
    cr_assert(reply->jobs && reply->jobs->n_jobs == 1);
    return reply->jobs->jobs[0];
}

struct at {
    uint64_t job;
    const char *step;
};

static bool is_at(struct pool *p, const void *what)
{
    const struct at *at = what;
    const struct job *job = job_by_id(p->controller, at->job);
    return job && strcmp(job->stored->step, at->step) == 0;
}

static void await(uint64_t id, const char *step)
{
    struct at at = {id, step};
    cr_assert(pool_until(&pool, is_at, &at), "never came to %s: %s at %s", step, show(id)->text,
              show(id)->step);
}

static void assert_waits(uint64_t id, const char *step, const char *text)
{
    await(id, step);
    pool_run(&pool, 100);
    cr_assert_str_eq(show(id)->step, step);
    cr_assert_str_eq(show(id)->text, text);
}

static void assert_ends(uint64_t id, Vmpool__JobPhase phase)
{
    const struct job *job = pool_job_end(&pool, id);
    cr_assert_eq(job->stored->phase, phase, "%s", job->stored->text);
}

static void assert_runs_on(const char *vm, const char *node)
{
    cr_assert_eq(pool_vm(&pool, vm)->stored->phase, VMPOOL__VM_PHASE__PHASE_RUNNING);
    cr_assert_str_eq(node_name_of(pool.controller, pool_vm(&pool, vm)->stored->node_id), node);
    cr_assert_eq(sim_net_running(&pool.net, vm), 1);
}

/* All reservations are of VMs, 512 MiB each. */
static void assert_reserved(unsigned vms)
{
    uint64_t memory_mib = 0;
    for (struct node *node = pool.controller->nodes; node; node = node->next) {
        struct sched_resources reserved = {0};
        struct error err = ERROR_INIT;
        cr_assert_eq(
            scheduler_reserved(pool.controller->scheduler, node->stored->name, &reserved, &err), 0);
        memory_mib += reserved.memory_mib;
    }
    cr_assert_eq(memory_mib, vms * 512);
}

static const Vmpool__AdminReply *cancel(uint64_t id)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__JobCancel body = VMPOOL__JOB_CANCEL__INIT;
    body.id = id;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_JOB_CANCEL;
    request.job_cancel = &body;
    return pool_ask(&pool, &request);
}

static uint64_t drain(const char *name)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__NodeChange change = VMPOOL__NODE_CHANGE__INIT;
    char copy[64];
    (void)snprintf(copy, sizeof copy, "%s", name);
    change.name = copy;
    change.action = VMPOOL__NODE_CHANGE__ACTION__DRAIN;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_NODE_CHANGE;
    request.node_change = &change;
    const Vmpool__AdminReply *reply = pool_ask(&pool, &request);
    cr_assert_null(reply->failure, "%s", reply->failure ? reply->failure->text : "");
    return reply->job->id;
}

/* Lets a source that streams for ever come to its end. */
static void let_go(const char *name)
{
    agent(name)->stop_at = SIM_NOWHERE;
}

Test(queue, one_streams_one_is_ready_and_one_has_not_begun)
{
    create("abc", "n1");
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t a = pool_migrate(&pool, "a", "n2"), b = pool_migrate(&pool, "b", "n3"),
             c = pool_migrate(&pool, "c", "n2");
    await(a, "stream");
    assert_waits(b, "ready", "waiting: n1 already sends 1 of 1");
    assert_waits(c, "queue", "waiting: n1 already sends 1 of 1");
    cr_assert_eq(agent("n2")->prepares + agent("n3")->prepares, 2);
    cr_assert_eq(agent("n1")->outs, 1);
    cr_assert_eq(pool_vm(&pool, "c")->stored->phase, VMPOOL__VM_PHASE__PHASE_RUNNING);
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__StatusGet get = VMPOOL__STATUS_GET__INIT;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_STATUS;
    request.status = &get;
    const Vmpool__PoolStatus *status = pool_ask(&pool, &request)->status;
    cr_assert_eq(status->migrations_streaming, 1);
    cr_assert_eq(status->migrations_waiting, 2);
    cr_assert_eq(status->migrations_pool_max, 16);
    cr_assert_eq(status->migrations_out_max, 1);
    cr_assert_eq(status->migrations_in_max, 1);
    let_go("n1");
    assert_ends(c, VMPOOL__JOB_PHASE__JOB_DONE);
    assert_ends(a, VMPOOL__JOB_PHASE__JOB_DONE);
    assert_ends(b, VMPOOL__JOB_PHASE__JOB_DONE);
    cr_assert_leq(show(a)->ended_wall_ms, show(b)->ended_wall_ms);
    cr_assert_leq(show(b)->ended_wall_ms, show(c)->ended_wall_ms);
    assert_runs_on("a", "n2");
    assert_runs_on("b", "n3");
    assert_runs_on("c", "n2");
    assert_reserved(3);
}

Test(queue, a_host_that_receives_is_waited_for_too)
{
    create("a", "n1");
    create("b", "n3");
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t a = pool_migrate(&pool, "a", "n2"), b = pool_migrate(&pool, "b", "n2");
    await(a, "stream");
    assert_waits(b, "ready", "waiting: n2 already receives 1 of 1");
    let_go("n1");
    assert_ends(b, VMPOOL__JOB_PHASE__JOB_DONE);
}

/* b waits for n2; what it needs of n1 is not given to c, which is younger. What d needs is not in
 * its way. */
Test(queue, the_oldest_that_waits_is_not_overtaken)
{
    create("x", "n3");
    create("bc", "n1");
    create("d", "n2");
    agent("n3")->stop_at = SIM_PRECOPY;
    uint64_t x = pool_migrate(&pool, "x", "n2");
    await(x, "stream");
    uint64_t b = pool_migrate(&pool, "b", "n2");
    assert_waits(b, "ready", "waiting: n2 already receives 1 of 1");
    uint64_t c = pool_migrate(&pool, "c", "n3");
    char text[64];
    (void)snprintf(text, sizeof text, "waiting: job %llu is next for n1", (unsigned long long)b);
    assert_waits(c, "ready", text);
    assert_ends(pool_migrate(&pool, "d", "n3"), VMPOOL__JOB_PHASE__JOB_DONE);
    assert_waits(c, "ready", text);
    let_go("n3");
    assert_ends(c, VMPOOL__JOB_PHASE__JOB_DONE);
    cr_assert_eq(show(b)->phase, VMPOOL__JOB_PHASE__JOB_DONE);
    cr_assert_leq(show(b)->ended_wall_ms, show(c)->ended_wall_ms);
}

Test(queue, the_pool_has_a_limit_of_its_own)
{
    pool.controller->config.migrations_pool = 1;
    create("a", "n1");
    create("b", "n2");
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t a = pool_migrate(&pool, "a", "n3"), b = pool_migrate(&pool, "b", "n1");
    await(a, "stream");
    assert_waits(b, "ready", "waiting: the pool already migrates 1 of 1");
    let_go("n1");
    assert_ends(b, VMPOOL__JOB_PHASE__JOB_DONE);
}

Test(queue, higher_limits_let_more_stream)
{
    pool.controller->config.migrations_out = 2;
    create("abcd", "n1");
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t a = pool_migrate(&pool, "a", "n2"), b = pool_migrate(&pool, "b", "n3"),
             c = pool_migrate(&pool, "c", "n2"), d = pool_migrate(&pool, "d", "n3");
    await(a, "stream");
    await(b, "stream");
    assert_waits(c, "ready", "waiting: n1 already sends 2 of 2");
    assert_waits(d, "queue", "waiting: n1 already sends 2 of 2");
    let_go("n1");
    assert_ends(d, VMPOOL__JOB_PHASE__JOB_DONE);
}

Test(queue, cancelled_while_it_waits_it_leaves_nothing)
{
    create("abc", "n1");
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t a = pool_migrate(&pool, "a", "n2"), b = pool_migrate(&pool, "b", "n3"),
             c = pool_migrate(&pool, "c", "n2");
    await(a, "stream");
    await(b, "ready");
    await(c, "queue");
    cr_assert_null(cancel(b)->failure);
    assert_ends(b, VMPOOL__JOB_PHASE__JOB_CANCELLED);
    await(c, "ready"); /* it moves up */
    cr_assert_null(cancel(c)->failure);
    assert_ends(c, VMPOOL__JOB_PHASE__JOB_CANCELLED);
    uint64_t again = pool_migrate(&pool, "b", "n3"), last = pool_migrate(&pool, "c", "n3");
    await(again, "ready");
    await(last, "queue");
    cr_assert_null(cancel(last)->failure);
    assert_ends(last, VMPOOL__JOB_PHASE__JOB_CANCELLED);
    assert_runs_on("c", "n1");
    cr_assert_null(sim_agent_vm(agent("n2"), "c"));
    cr_assert_eq(agent("n1")->outs, 1);
    let_go("n1");
    assert_ends(again, VMPOOL__JOB_PHASE__JOB_DONE);
    assert_runs_on("b", "n3");
    assert_reserved(3);
}

Test(queue, a_restart_keeps_the_line)
{
    create("abcd", "n1");
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t a = pool_migrate(&pool, "a", "n2"), b = pool_migrate(&pool, "b", "n3"),
             c = pool_migrate(&pool, "c", "n2"), d = pool_migrate(&pool, "d", "n3");
    await(a, "stream");
    await(b, "ready");
    await(d, "queue");
    pool_kill_controller(&pool);
    pool_run(&pool, 100);
    pool_start_controller(&pool);
    for (unsigned i = 1; i <= 3; i++) {
        char node[8];
        (void)snprintf(node, sizeof node, "n%u", i);
        cr_assert(pool_await_node_phase(&pool, node, VMPOOL__NODE_PHASE__NODE_UP));
    }
    assert_waits(b, "ready", "waiting: n1 already sends 1 of 1");
    assert_waits(c, "queue", "waiting: n1 already sends 1 of 1");
    assert_reserved(8); /* four here, four held there */
    let_go("n1");
    assert_ends(d, VMPOOL__JOB_PHASE__JOB_DONE);
    cr_assert_leq(show(a)->ended_wall_ms, show(b)->ended_wall_ms);
    cr_assert_leq(show(b)->ended_wall_ms, show(c)->ended_wall_ms);
    cr_assert_leq(show(c)->ended_wall_ms, show(d)->ended_wall_ms);
    cr_assert_eq(agent("n1")->outs, 4);
    cr_assert_eq(agent("n2")->prepares + agent("n3")->prepares, 4);
    assert_reserved(4);
}

Test(queue, a_vm_that_ends_while_it_waits_ends_its_migration)
{
    create("abc", "n1");
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t a = pool_migrate(&pool, "a", "n2"), b = pool_migrate(&pool, "b", "n3"),
             c = pool_migrate(&pool, "c", "n2");
    await(a, "stream");
    await(b, "ready");
    await(c, "queue");
    sim_vm_becomes(agent("n1"), sim_agent_vm(agent("n1"), "b"), VMPOOL__VM_STATE__VM_STOPPED);
    sim_vm_becomes(agent("n1"), sim_agent_vm(agent("n1"), "c"), VMPOOL__VM_STATE__VM_PANICKED);
    assert_ends(b, VMPOOL__JOB_PHASE__JOB_FAILED);
    assert_ends(c, VMPOOL__JOB_PHASE__JOB_FAILED);
    cr_assert_eq(pool_vm(&pool, "b")->stored->phase, VMPOOL__VM_PHASE__PHASE_STOPPED);
    cr_assert_eq(pool_vm(&pool, "c")->stored->phase, VMPOOL__VM_PHASE__PHASE_FAILED);
    cr_assert_null(sim_agent_vm(agent("n3"), "b"));
    let_go("n1");
    assert_ends(a, VMPOOL__JOB_PHASE__JOB_DONE);
}

Test(queue, a_target_that_goes_out_of_service_is_replaced)
{
    create("abc", "n1");
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t a = pool_migrate(&pool, "a", "n2"), b = pool_migrate(&pool, "b", "n2"),
             c = pool_migrate(&pool, "c", "");
    await(a, "stream");
    await(b, "ready");
    await(c, "queue");
    char first[64];
    (void)snprintf(first, sizeof first, "%s", show(c)->to_node);
    assert_ends(drain(first), VMPOOL__JOB_PHASE__JOB_DONE);
    await(c, "queue");
    cr_assert_str_neq(show(c)->to_node, first);
    cr_assert_str_neq(show(c)->to_node, "n1");
    let_go("n1");
    assert_ends(c, VMPOOL__JOB_PHASE__JOB_DONE);
}

static bool gave_up(struct pool *p, const void *what)
{
    const struct vm *vm = vm_by_name(p->controller, what);
    return vm->stored->phase == VMPOOL__VM_PHASE__PHASE_HANDOVER;
}

/* Its target's word is awaited for as long as that host is away: no other waits for that. */
Test(queue, a_migration_that_waits_for_a_dead_host_does_not_hold_the_link)
{
    create("ab", "n1");
    agent("n1")->stop_at = SIM_GAVE_UP;
    uint64_t a = pool_migrate(&pool, "a", "n2");
    cr_assert(pool_until(&pool, gave_up, "a"));
    sim_agent_power_off(agent("n2"));
    cr_assert(pool_await_node_phase(&pool, "n2", VMPOOL__NODE_PHASE__NODE_LOST));
    let_go("n1");
    assert_ends(pool_migrate(&pool, "b", "n3"), VMPOOL__JOB_PHASE__JOB_DONE);
    cr_assert_eq(show(a)->phase, VMPOOL__JOB_PHASE__JOB_RUNNING);
    sim_agent_start(agent("n2"));
    (void)pool_job_end(&pool, a);
}

/* Room for so many VMs of 2 vCPUs. */
static void enlarge(const char *name, unsigned vms)
{
    agent(name)->cpus = vms / 2;
    sim_agent_stop(agent(name));
    sim_agent_start(agent(name));
    pool_run(&pool, 300);
}

static unsigned streams_of(const struct sim_agent *from)
{
    unsigned count = 0;
    for (const struct sim_vm *vm = from->vms; vm; vm = vm->next)
        count +=
            vm->state == VMPOOL__VM_STATE__VM_MIGRATING || vm->state == VMPOOL__VM_STATE__VM_PAUSED;
    return count;
}

Test(queue, a_drain_of_twenty_sends_one_at_a_time_and_has_the_next_one_ready)
{
    enlarge("n1", 20);
    create("abcdefghijklmnopqrst", "n1");
    uint64_t id = drain("n1");
    struct job *job = job_by_id(pool.controller, id);
    unsigned most = 0, alone = 0;
    while (job_running(job)) {
        struct error err = ERROR_INIT;
        cr_assert_eq(loop_run_once(pool.loop, 10, &err), 0);
        unsigned now = streams_of(agent("n1"));
        most = now > most ? now : most;
        unsigned prepared = agent("n2")->prepares + agent("n3")->prepares;
        alone += now == 1 && prepared == agent("n1")->outs && prepared < 20;
        cr_assert_leq(job->children, pool.config.migrations_pool + 3);
    }
    cr_assert_eq(job->stored->phase, VMPOOL__JOB_PHASE__JOB_DONE, "%s", job->stored->text);
    cr_assert_eq(most, 1);
    cr_assert_eq(job->stored->moved, 20);
    cr_assert_eq(agent("n1")->outs, 20);
    cr_assert_lt(alone, 60, "%u turns with a stream and none ready behind it", alone);
    assert_reserved(20);
}

Test(queue, two_drains_at_once_both_end)
{
    (void)pool_join(&pool, "n4");
    create("abcdef", "n1");
    create("ghijkl", "n2");
    uint64_t one = drain("n1"), two = drain("n2");
    assert_ends(one, VMPOOL__JOB_PHASE__JOB_DONE);
    assert_ends(two, VMPOOL__JOB_PHASE__JOB_DONE);
    cr_assert_eq(agent("n1")->outs + agent("n2")->outs, 12);
    assert_reserved(12);
}

Test(queue, a_drain_that_is_cancelled_ends_those_that_wait)
{
    create("abcde", "n1");
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t id = drain("n1");
    pool_run(&pool, 1300); /* it looks again each second */
    cr_assert_str_eq(show(id)->text, "0 of 5 moved, 2 moving, 3 waiting");
    cr_assert_null(cancel(id)->failure);
    assert_ends(id, VMPOOL__JOB_PHASE__JOB_CANCELLED);
    cr_assert_eq(sim_net_running(&pool.net, "e"), 1);
    cr_assert_eq(agent("n1")->outs, 1);
    cr_assert_null(agent("n2")->vms);
    cr_assert_null(agent("n3")->vms);
    assert_reserved(5);
}
