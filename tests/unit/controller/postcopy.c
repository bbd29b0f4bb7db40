/* Post-copy through a whole pool of simulated agents: the source stays as long as it is needed. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "pool.h"

static struct pool pool;
static uint64_t job_id;

static struct sim_agent *agent(const char *name)
{
    return pool_agent(&pool, name);
}

static struct sim_vm *copy_on(const char *name)
{
    return sim_agent_vm(agent(name), "a");
}

static const struct job *job(void)
{
    return job_by_id(pool.controller, job_id);
}

static bool is_accepted(struct pool *p, const void *what)
{
    (void)what;
    return p->controller && strcmp(job_by_id(p->controller, job_id)->stored->step, "accept") == 0;
}

static bool says(struct pool *p, const void *what)
{
    return p->controller && strstr(job_by_id(p->controller, job_id)->stored->text, what);
}

/* The guest of "a" runs on n2, and n1 has pages of it. */
static void start(void)
{
    pool_open(&pool, 3);
    pool_import_image(&pool);
    (void)pool_create(&pool, "a", "n1");
    agent("n1")->stop_at = SIM_POSTCOPY;
    job_id = pool_migrate(&pool, "a", "n2");
    cr_assert(pool_until(&pool, is_accepted, NULL));
    pool_run(&pool, 100);
    cr_assert(job_running(job()));
    cr_assert(copy_on("n1"), "the source is gone, and with it the pages");
    cr_assert_eq(agent("n1")->discards, 0);
    cr_assert_eq(pool_vm(&pool, "a")->stored->epoch, 2);
    cr_assert_str_eq(node_name_of(pool.controller, pool_vm(&pool, "a")->stored->node_id), "n2");
}

static void finish(void)
{
    cr_assert_eq(pool.net.twice, 0);
    pool_close(&pool);
}

TestSuite(postcopy, .init = start, .fini = finish, .timeout = 60);

static void assert_done(void)
{
    const struct job *ended = pool_job_end(&pool, job_id);
    cr_assert_eq(ended->stored->phase, VMPOOL__JOB_PHASE__JOB_DONE, "%s", ended->stored->text);
    cr_assert_null(copy_on("n1"));
    cr_assert(sim_runs(copy_on("n2")));
    cr_assert_eq(pool_vm(&pool, "a")->stored->phase, VMPOOL__VM_PHASE__PHASE_RUNNING);
}

static void assert_lost(const char *why)
{
    const struct job *ended = pool_job_end(&pool, job_id);
    const struct vm *vm = pool_vm(&pool, "a");
    cr_assert_eq(ended->stored->phase, VMPOOL__JOB_PHASE__JOB_FAILED, "%s", ended->stored->text);
    cr_assert_eq(vm->stored->phase, VMPOOL__VM_PHASE__PHASE_FAILED);
    cr_assert(strstr(vm->stored->text, why), "%s", vm->stored->text);
    cr_assert_eq(sim_net_running(&pool.net, "a"), 0);
    pool_run(&pool, 500);
    cr_assert_eq(sim_net_running(&pool.net, "a"), 0, "an old copy was brought back");
}

Test(postcopy, the_source_goes_when_all_pages_have_come)
{
    cr_assert(strstr(job()->stored->text, "fetching"), "%s", job()->stored->text);
    sim_pages_come(agent("n1"), copy_on("n1"));
    assert_done();
    cr_assert_eq(pool_vm(&pool, "a")->stored->last_migration->postcopy->faults, 3);
}

Test(postcopy, a_controller_that_restarts_in_it_loses_nothing)
{
    pool_kill_controller(&pool);
    pool_run(&pool, 100);
    pool_start_controller(&pool);
    pool_run(&pool, 300);
    cr_assert(job_running(job()));
    cr_assert(copy_on("n1"));
    sim_pages_come(agent("n1"), copy_on("n1"));
    assert_done();
}

Test(postcopy, agents_that_restart_in_it_lose_nothing)
{
    sim_agent_stop(agent("n1"));
    sim_agent_stop(agent("n2"));
    cr_assert(pool_await_node_phase(&pool, "n1", VMPOOL__NODE_PHASE__NODE_LOST));
    pool_run(&pool, 200);
    cr_assert(job_running(job()));
    sim_agent_start(agent("n1"));
    sim_agent_start(agent("n2"));
    pool_run(&pool, 200);
    cr_assert(job_running(job()));
    cr_assert(copy_on("n1"));
    sim_pages_come(agent("n1"), copy_on("n1"));
    assert_done();
}

Test(postcopy, a_source_vmm_that_dies_ends_the_guest_and_that_is_said)
{
    sim_vm_vanishes(agent("n1"), copy_on("n1"));
    assert_lost("its memory was lost with host n1 in post-copy: 300 MiB of it were missing");
    cr_assert_null(copy_on("n2"));
}

Test(postcopy, a_source_host_that_is_lost_is_waited_for)
{
    sim_agent_power_off(agent("n1"));
    cr_assert(pool_await_node_phase(&pool, "n1", VMPOOL__NODE_PHASE__NODE_LOST));
    pool_run(&pool, 300);
    cr_assert(job_running(job()));
    cr_assert(pool_until(&pool, says, "n1 is lost and has pages of the VM"), "%s",
              job()->stored->text);
    sim_agent_start(agent("n1")); /* without its VMs */
    assert_lost("its memory was lost with host n1 in post-copy");
}

Test(postcopy, a_source_host_that_is_gone_for_good_ends_the_guest)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__NodeChange change = VMPOOL__NODE_CHANGE__INIT;
    char n1[] = "n1";
    sim_agent_power_off(agent("n1"));
    cr_assert(pool_await_node_phase(&pool, "n1", VMPOOL__NODE_PHASE__NODE_LOST));
    change.name = n1;
    change.action = VMPOOL__NODE_CHANGE__ACTION__REMOVE;
    change.force = true;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_NODE_CHANGE;
    request.node_change = &change;
    cr_assert_null(pool_ask(&pool, &request)->failure);
    assert_lost("its memory was lost with host n1 in post-copy");
}

Test(postcopy, a_target_vmm_that_dies_ends_the_guest_and_that_is_said)
{
    sim_vm_vanishes(agent("n2"), copy_on("n2"));
    assert_lost("it was lost on host n2 in post-copy");
    cr_assert(pool_until(&pool, says, "lost"));
}

Test(postcopy, a_source_that_ends_after_the_last_page_harms_nobody)
{
    struct sim_vm *source = copy_on("n1");
    agent("n1")->no_events = true;
    sim_pages_come(agent("n1"), source);
    sim_vm_vanishes(agent("n1"), source);
    assert_done();
}
