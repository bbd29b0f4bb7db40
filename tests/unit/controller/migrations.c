/* Migrations through a whole pool of simulated agents, with words lost and ends that die. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "pool.h"

static struct pool pool;

static void start(void)
{
    pool_open(&pool, 3);
    pool_import_image(&pool);
    (void)pool_create(&pool, "a", "n1");
    cr_assert_eq(pool_vm(&pool, "a")->stored->phase, VMPOOL__VM_PHASE__PHASE_RUNNING);
}

static void finish(void)
{
    pool_close(&pool);
}

TestSuite(migrations, .init = start, .fini = finish, .timeout = 60);

static struct sim_agent *agent(const char *name)
{
    return pool_agent(&pool, name);
}

/* One copy, on @name, which the controller knows for the owner. */
static void assert_runs_on(const char *name)
{
    const struct vm *vm = pool_vm(&pool, "a");
    cr_assert_eq(vm->stored->phase, VMPOOL__VM_PHASE__PHASE_RUNNING, "%s: %s",
                 vm_phase_name(vm->stored->phase), vm->stored->text);
    cr_assert_str_eq(node_name_of(pool.controller, vm->stored->node_id), name);
    cr_assert_eq(sim_net_running(&pool.net, "a"), 1);
    const struct sim_vm *copy = sim_agent_vm(agent(name), "a");
    cr_assert(copy && sim_runs(copy));
    cr_assert_eq(copy->epoch, vm->stored->epoch);
    for (struct sim_agent *other = pool.net.agents; other; other = other->next)
        if (strcmp(other->name, name) != 0 && other->connected)
            cr_assert_null(sim_agent_vm(other, "a"), "a copy is left on %s", other->name);
}

static void assert_reserved_once(void)
{
    uint64_t memory_mib = 0;
    for (struct node *node = pool.controller->nodes; node; node = node->next) {
        struct error err = ERROR_INIT;
        struct sched_resources reserved;
        cr_assert_eq(
            scheduler_reserved(pool.controller->scheduler, node->stored->name, &reserved, &err), 0);
        memory_mib += reserved.memory_mib;
    }
    cr_assert_eq(memory_mib, 512);
}

struct at {
    uint64_t job;
    const char *step;
};

static bool is_at(struct pool *p, const void *what)
{
    const struct at *at = what;
    const struct job *job = p->controller ? job_by_id(p->controller, at->job) : NULL;
    return job && strcmp(job->stored->step, at->step) == 0;
}

static void await_step(uint64_t job, const char *step)
{
    struct at at = {job, step};
    cr_assert(pool_until(&pool, is_at, &at), "never came to %s: %s at %s", step,
              job_by_id(pool.controller, job)->stored->text,
              job_by_id(pool.controller, job)->stored->step);
}

static bool source_gave_up(struct pool *p, const void *what)
{
    (void)what;
    const struct sim_vm *vm = sim_agent_vm(pool_agent(p, "n1"), "a");
    return vm && vm->state == VMPOOL__VM_STATE__VM_GAVE_UP;
}

static bool target_ready(struct pool *p, const void *what)
{
    (void)what;
    const struct sim_vm *vm = sim_agent_vm(pool_agent(p, "n2"), "a");
    return vm && vm->state == VMPOOL__VM_STATE__VM_READY;
}

static const struct job *assert_ends(uint64_t id, Vmpool__JobPhase phase)
{
    const struct job *job = pool_job_end(&pool, id);
    cr_assert_eq(job->stored->phase, phase, "phase %d: %s", (int)job->stored->phase,
                 job->stored->text);
    return job;
}

Test(migrations, one_moves_where_the_scheduler_says)
{
    const struct job *job = assert_ends(pool_migrate(&pool, "a", ""), VMPOOL__JOB_PHASE__JOB_DONE);
    cr_assert_str_eq(job->stored->from_name, "n1");
    assert_runs_on(job->stored->to_name);
    cr_assert_eq(pool_vm(&pool, "a")->stored->epoch, 2);
    cr_assert(pool_vm(&pool, "a")->stored->last_migration);
    cr_assert_eq(pool_vm(&pool, "a")->stored->last_migration->pause->total_us, 12000);
    assert_reserved_once();
}

Test(migrations, there_and_back_ten_times)
{
    for (int i = 0; i < 10; i++) {
        const char *to = i % 2 ? "n1" : "n2";
        (void)assert_ends(pool_migrate(&pool, "a", to), VMPOOL__JOB_PHASE__JOB_DONE);
        assert_runs_on(to);
    }
    cr_assert_eq(pool_vm(&pool, "a")->stored->epoch, 11);
    assert_reserved_once();
}

Test(migrations, a_target_that_refuses_is_followed_by_the_next)
{
    agent("n2")->refuse_prepare = ERROR_FAILED;
    (void)assert_ends(pool_migrate(&pool, "a", ""), VMPOOL__JOB_PHASE__JOB_DONE);
    assert_runs_on("n3");
    assert_reserved_once();
}

Test(migrations, a_chosen_target_that_refuses_ends_it)
{
    agent("n2")->refuse_prepare = ERROR_FAILED;
    const struct job *job =
        assert_ends(pool_migrate(&pool, "a", "n2"), VMPOOL__JOB_PHASE__JOB_FAILED);
    cr_assert(strstr(job->stored->text, "does not want to"), "%s", job->stored->text);
    assert_runs_on("n1");
    assert_reserved_once();
}

Test(migrations, it_goes_by_reports_alone_where_events_are_lost)
{
    agent("n1")->no_events = agent("n2")->no_events = true;
    (void)assert_ends(pool_migrate(&pool, "a", "n2"), VMPOOL__JOB_PHASE__JOB_DONE);
    assert_runs_on("n2");
}

Test(migrations, cancelled_in_precopy_it_stays)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__JobCancel cancel = VMPOOL__JOB_CANCEL__INIT;
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t id = pool_migrate(&pool, "a", "n2");
    await_step(id, "stream");
    pool_run(&pool, 50);
    cancel.id = id;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_JOB_CANCEL;
    request.job_cancel = &cancel;
    cr_assert_null(pool_ask(&pool, &request)->failure);
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_CANCELLED);
    assert_runs_on("n1");
    cr_assert_eq(agent("n1")->cancels, 1);
    assert_reserved_once();
}

Test(migrations, a_go_that_is_lost_is_said_by_the_controller)
{
    agent("n1")->stop_at = SIM_GAVE_UP;
    (void)assert_ends(pool_migrate(&pool, "a", "n2"), VMPOOL__JOB_PHASE__JOB_DONE);
    assert_runs_on("n2");
    cr_assert_eq(agent("n2")->runs, 1);
}

Test(migrations, a_target_that_dies_after_the_source_gave_up_gives_it_back)
{
    agent("n1")->stop_at = SIM_GAVE_UP;
    uint64_t id = pool_migrate(&pool, "a", "n2");
    cr_assert(pool_until(&pool, source_gave_up, NULL));
    sim_vm_vanishes(agent("n2"), sim_agent_vm(agent("n2"), "a"));
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_FAILED);
    assert_runs_on("n1");
    cr_assert_eq(pool_vm(&pool, "a")->stored->epoch, 3); /* above the one given to the target */
    assert_reserved_once();
}

Test(migrations, a_target_host_that_loses_power_after_that_does_so_when_it_is_back)
{
    agent("n1")->stop_at = SIM_GAVE_UP;
    uint64_t id = pool_migrate(&pool, "a", "n2");
    cr_assert(pool_until(&pool, source_gave_up, NULL));
    sim_agent_power_off(agent("n2"));
    cr_assert(pool_await_node_phase(&pool, "n2", VMPOOL__NODE_PHASE__NODE_LOST));
    pool_run(&pool, 300);
    cr_assert(job_running(job_by_id(pool.controller, id))); /* the target may be running */
    cr_assert_eq(sim_net_running(&pool.net, "a"), 0);
    cr_assert_eq(pool_vm(&pool, "a")->stored->phase, VMPOOL__VM_PHASE__PHASE_HANDOVER);
    sim_agent_start(agent("n2"));
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_FAILED);
    assert_runs_on("n1");
}

Test(migrations, or_when_the_operator_says_that_it_never_will_be)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__NodeChange change = VMPOOL__NODE_CHANGE__INIT;
    char n2[] = "n2";
    agent("n1")->stop_at = SIM_GAVE_UP;
    uint64_t id = pool_migrate(&pool, "a", "n2");
    cr_assert(pool_until(&pool, source_gave_up, NULL));
    sim_agent_power_off(agent("n2"));
    cr_assert(pool_await_node_phase(&pool, "n2", VMPOOL__NODE_PHASE__NODE_LOST));
    change.name = n2;
    change.action = VMPOOL__NODE_CHANGE__ACTION__REMOVE;
    change.force = true;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_NODE_CHANGE;
    request.node_change = &change;
    cr_assert_null(pool_ask(&pool, &request)->failure);
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_FAILED);
    assert_runs_on("n1");
}

Test(migrations, a_source_host_that_loses_power_in_precopy_takes_the_vm_with_it)
{
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t id = pool_migrate(&pool, "a", "n2");
    await_step(id, "stream");
    sim_agent_power_off(agent("n1"));
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_FAILED);
    cr_assert_eq(pool_vm(&pool, "a")->stored->phase, VMPOOL__VM_PHASE__PHASE_UNKNOWN);
    cr_assert_null(agent("n2")->vms);
    sim_agent_start(agent("n1"));
    cr_assert(pool_await_phase(&pool, "a", VMPOOL__VM_PHASE__PHASE_FAILED));
    cr_assert_eq(sim_net_running(&pool.net, "a"), 0);
}

Test(migrations, a_source_agent_that_restarts_in_precopy_changes_nothing)
{
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t id = pool_migrate(&pool, "a", "n2");
    await_step(id, "stream");
    sim_agent_stop(agent("n1"));
    agent("n1")->stop_at = SIM_NOWHERE;
    pool_run(&pool, 200);
    sim_agent_start(agent("n1"));
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_DONE);
    assert_runs_on("n2");
}

Test(migrations, a_source_vmm_killed_before_it_gave_up_leaves_no_copy)
{
    agent("n1")->stop_at = SIM_READY;
    uint64_t id = pool_migrate(&pool, "a", "n2");
    cr_assert(pool_until(&pool, target_ready, NULL));
    sim_vm_vanishes(agent("n1"), sim_agent_vm(agent("n1"), "a"));
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_FAILED);
    cr_assert_eq(pool_vm(&pool, "a")->stored->phase, VMPOOL__VM_PHASE__PHASE_FAILED);
    cr_assert_eq(sim_net_running(&pool.net, "a"), 0);
    cr_assert_null(agent("n2")->vms);
}

/* The source may have sent GO before it died: that the VM runs nowhere is the target's to say. */
Test(migrations, nothing_is_declared_failed_without_the_targets_word)
{
    agent("n1")->stop_at = SIM_READY;
    uint64_t id = pool_migrate(&pool, "a", "n2");
    cr_assert(pool_until(&pool, target_ready, NULL));
    agent("n2")->no_answers = true;
    sim_vm_vanishes(agent("n1"), sim_agent_vm(agent("n1"), "a"));
    await_step(id, "gone");
    pool_run(&pool, 2 * (int)pool.config.command_timeout_ms);
    cr_assert(job_running(job_by_id(pool.controller, id)));
    cr_assert_neq(pool_vm(&pool, "a")->stored->phase, VMPOOL__VM_PHASE__PHASE_FAILED);
    agent("n2")->no_answers = false;
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_FAILED);
    cr_assert_eq(pool_vm(&pool, "a")->stored->phase, VMPOOL__VM_PHASE__PHASE_FAILED);
    cr_assert_null(agent("n2")->vms);
}

Test(migrations, a_source_vmm_killed_after_it_gave_up_does_not_matter)
{
    agent("n1")->stop_at = SIM_GAVE_UP;
    pool.config.handover_grace_ms = 100;
    uint64_t id = pool_migrate(&pool, "a", "n2");
    cr_assert(pool_until(&pool, source_gave_up, NULL));
    pool_run(&pool, 20); /* the controller has heard of it */
    sim_vm_vanishes(agent("n1"), sim_agent_vm(agent("n1"), "a"));
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_DONE);
    assert_runs_on("n2");
}

Test(migrations, a_target_vmm_killed_in_precopy_changes_nothing_for_the_guest)
{
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t id = pool_migrate(&pool, "a", "n2");
    await_step(id, "stream");
    pool_run(&pool, 30);
    sim_vm_vanishes(agent("n2"), sim_agent_vm(agent("n2"), "a"));
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_FAILED);
    assert_runs_on("n1");
    cr_assert_eq(pool_vm(&pool, "a")->stored->epoch, 1);
}

/* The controller is killed at each step; the next one finishes. */
static void restart_at(enum sim_stage stage, const char *step)
{
    agent("n1")->stop_at = stage;
    agent("n2")->no_answers = strcmp(step, "prepare") == 0;
    uint64_t id = pool_migrate(&pool, "a", "n2");
    await_step(id, step);
    pool_kill_controller(&pool);
    pool_run(&pool, 100);
    agent("n2")->no_answers = false;
    agent("n1")->stop_at = stage == SIM_PRECOPY ? SIM_NOWHERE : stage;
    pool_start_controller(&pool);
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_DONE);
    assert_runs_on("n2");
    cr_assert_eq(agent("n1")->outs, 1);
    cr_assert_eq(agent("n2")->prepares, 1);
    assert_reserved_once();
}

Test(migrations, a_controller_killed_while_the_target_prepares_goes_on)
{
    restart_at(SIM_NOWHERE, "prepare");
}

Test(migrations, a_controller_killed_in_precopy_goes_on)
{
    restart_at(SIM_PRECOPY, "stream");
}

Test(migrations, a_controller_killed_in_the_handover_decides_it_afterwards)
{
    restart_at(SIM_GAVE_UP, "stream");
}

Test(migrations, a_controller_killed_while_it_lets_the_target_run_goes_on)
{
    restart_at(SIM_GAVE_UP, "run-target");
}

Test(migrations, a_controller_killed_while_it_cleans_up_goes_on)
{
    restart_at(SIM_NOWHERE, "accept");
}

Test(migrations, a_controller_that_is_down_for_the_whole_of_it_finds_the_truth)
{
    agent("n1")->stop_at = SIM_PRECOPY;
    uint64_t id = pool_migrate(&pool, "a", "n2");
    await_step(id, "stream");
    pool_run(&pool, 50);
    pool_kill_controller(&pool);
    agent("n1")->stop_at = SIM_NOWHERE;
    pool_run(&pool, 300);
    cr_assert(sim_runs(sim_agent_vm(agent("n2"), "a")));
    pool_start_controller(&pool);
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_DONE);
    assert_runs_on("n2");
}

/* ---- drain ---- */

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

static void create_more(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "b%u", i);
        (void)pool_create(&pool, name, "n1");
    }
}

Test(migrations, a_drain_moves_all_and_not_onto_a_draining_node)
{
    create_more(6);
    (void)assert_ends(drain("n3"), VMPOOL__JOB_PHASE__JOB_DONE); /* nothing on it */
    uint64_t id = drain("n1");
    const struct job *job = assert_ends(id, VMPOOL__JOB_PHASE__JOB_DONE);
    cr_assert_eq(job->stored->moved, 7);
    cr_assert_null(agent("n1")->vms);
    cr_assert_null(agent("n3")->vms);
    cr_assert_eq(node_by_name(pool.controller, "n1")->phase, VMPOOL__NODE_PHASE__NODE_DRAINED);
    cr_assert_eq(count_events("node.drained"), 2); /* n3 and n1, each once */
}

Test(migrations, a_drain_goes_on_after_a_restart)
{
    create_more(4);
    uint64_t id = drain("n1");
    pool_run(&pool, 60);
    pool_kill_controller(&pool);
    pool_run(&pool, 100);
    pool_start_controller(&pool);
    (void)assert_ends(id, VMPOOL__JOB_PHASE__JOB_DONE);
    cr_assert_null(agent("n1")->vms);
    for (unsigned i = 0; i < 4; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "b%u", i);
        cr_assert_eq(sim_net_running(&pool.net, name), 1);
    }
}

Test(migrations, a_drain_with_no_room_elsewhere_says_which_stay)
{
    agent("n2")->refuse_prepare = agent("n3")->refuse_prepare = ERROR_FAILED;
    const struct job *job = assert_ends(drain("n1"), VMPOOL__JOB_PHASE__JOB_FAILED);
    cr_assert(strstr(job->stored->text, "1 still on n1: a"), "%s", job->stored->text);
    assert_runs_on("n1");
    cr_assert_eq(node_by_name(pool.controller, "n1")->phase, VMPOOL__NODE_PHASE__NODE_DRAINING);
}
