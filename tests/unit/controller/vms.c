/* VMs through a whole pool of simulated agents: create, stop, start, remove, refusals, lost nodes.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "controller/pb.h"
#include "controller/store.h"
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

TestSuite(vms, .init = start, .fini = finish, .timeout = 60);

#define assert_done(reply)                                                                         \
    do {                                                                                           \
        const Vmpool__AdminReply *r_ = (reply);                                                    \
        cr_assert_null(r_->failure, "%s", r_->failure ? r_->failure->text : "");                   \
        const struct job *j_ = job_by_id(pool.controller, r_->job->id);                            \
        cr_assert_eq(j_->stored->phase, VMPOOL__JOB_PHASE__JOB_DONE, "%s", j_->stored->text);      \
    } while (0)

static unsigned starts(void)
{
    unsigned count = 0;
    for (struct sim_agent *agent = pool.net.agents; agent; agent = agent->next)
        count += agent->starts;
    return count;
}

Test(vms, one_is_created_and_runs_once_where_the_scheduler_says)
{
    assert_done(pool_create(&pool, "a", ""));
    const struct vm *vm = pool_vm(&pool, "a");
    cr_assert_eq(vm->stored->phase, VMPOOL__VM_PHASE__PHASE_RUNNING);
    cr_assert_eq(vm->stored->epoch, 1);
    const char *node = node_name_of(pool.controller, vm->stored->node_id);
    cr_assert_str_eq(vm->stored->placement->node, node);
    cr_assert_eq(vm->stored->placement->n_verdicts, 3);
    cr_assert_eq(sim_net_running(&pool.net, "a"), 1);
    cr_assert(sim_agent_vm(pool_agent(&pool, node), "a"));
    cr_assert_eq(starts(), 1);
}

Test(vms, on_a_chosen_node)
{
    assert_done(pool_create(&pool, "a", "n3"));
    cr_assert(sim_agent_vm(pool_agent(&pool, "n3"), "a"));
}

Test(vms, a_host_that_refuses_is_followed_by_the_next)
{
    for (struct sim_agent *agent = pool.net.agents; agent; agent = agent->next)
        agent->refuse_start = strcmp(agent->name, "n2") == 0 ? 0 : ERROR_FAILED;
    assert_done(pool_create(&pool, "a", ""));
    cr_assert(sim_agent_vm(pool_agent(&pool, "n2"), "a"));
    cr_assert_eq(sim_net_running(&pool.net, "a"), 1);
}

Test(vms, where_all_refuse_nothing_is_left)
{
    for (struct sim_agent *agent = pool.net.agents; agent; agent = agent->next)
        agent->refuse_start = ERROR_FAILED;
    const Vmpool__AdminReply *reply = pool_create(&pool, "a", "");
    const struct job *job = job_by_id(pool.controller, reply->job->id);
    cr_assert_eq(job->stored->phase, VMPOOL__JOB_PHASE__JOB_FAILED);
    cr_assert(strstr(job->stored->text, "this host does not want to"), "%s", job->stored->text);
    cr_assert_null(vm_by_name(pool.controller, "a"));
    for (struct sim_agent *agent = pool.net.agents; agent; agent = agent->next) {
        struct sched_resources reserved;
        struct error err = ERROR_INIT;
        cr_assert_null(agent->vms);
        cr_assert_eq(scheduler_reserved(pool.controller->scheduler, agent->name, &reserved, &err),
                     0);
        cr_assert_eq(reserved.memory_mib, 0);
    }
}

Test(vms, a_wrong_image_is_not_tried_on_every_host)
{
    for (struct sim_agent *agent = pool.net.agents; agent; agent = agent->next)
        agent->refuse_start = ERROR_USAGE;
    const Vmpool__AdminReply *reply = pool_create(&pool, "a", "");
    const struct job *job = job_by_id(pool.controller, reply->job->id);
    cr_assert_eq(job->stored->phase, VMPOOL__JOB_PHASE__JOB_FAILED);
    cr_assert_eq(job->stored->failure->kind, ERROR_USAGE);
    cr_assert_eq(job->stored->n_tried_nodes, 0);
}

Test(vms, one_stops_by_its_button_and_starts_again_at_a_higher_epoch)
{
    assert_done(pool_create(&pool, "a", ""));
    assert_done(pool_change(&pool, "a", VMPOOL__VM_CHANGE__ACTION__STOP, false));
    cr_assert_eq(pool_vm(&pool, "a")->stored->phase, VMPOOL__VM_PHASE__PHASE_STOPPED);
    cr_assert_eq(sim_net_running(&pool.net, "a"), 0);
    assert_done(pool_change(&pool, "a", VMPOOL__VM_CHANGE__ACTION__START, false));
    cr_assert_eq(pool_vm(&pool, "a")->stored->phase, VMPOOL__VM_PHASE__PHASE_RUNNING);
    cr_assert_eq(pool_vm(&pool, "a")->stored->epoch, 2);
    cr_assert_eq(sim_net_running(&pool.net, "a"), 1);
}

Test(vms, a_guest_deaf_to_its_button_runs_on_or_is_killed_with_force)
{
    assert_done(pool_create(&pool, "a", "n1"));
    pool_agent(&pool, "n1")->ignore_button = true;
    const Vmpool__AdminReply *reply =
        pool_change(&pool, "a", VMPOOL__VM_CHANGE__ACTION__STOP, false);
    const struct job *job = job_by_id(pool.controller, reply->job->id);
    cr_assert_eq(job->stored->phase, VMPOOL__JOB_PHASE__JOB_FAILED);
    cr_assert_eq(job->stored->failure->kind, ERROR_TIMEOUT);
    cr_assert_eq(pool_vm(&pool, "a")->stored->phase, VMPOOL__VM_PHASE__PHASE_RUNNING);
    assert_done(pool_change(&pool, "a", VMPOOL__VM_CHANGE__ACTION__STOP, true));
    cr_assert_eq(pool_vm(&pool, "a")->stored->phase, VMPOOL__VM_PHASE__PHASE_STOPPED);
    cr_assert_eq(pool_agent(&pool, "n1")->kills, 1);
}

Test(vms, a_running_one_is_removed_only_with_force)
{
    assert_done(pool_create(&pool, "a", "n1"));
    const Vmpool__AdminReply *reply =
        pool_change(&pool, "a", VMPOOL__VM_CHANGE__ACTION__REMOVE, false);
    cr_assert(reply->failure);
    cr_assert_eq(reply->failure->kind, ERROR_CONFLICT);
    assert_done(pool_change(&pool, "a", VMPOOL__VM_CHANGE__ACTION__REMOVE, true));
    cr_assert_null(vm_by_name(pool.controller, "a"));
    cr_assert_null(pool_agent(&pool, "n1")->vms);
}

Test(vms, a_guest_that_powers_off_or_panics_is_noted)
{
    assert_done(pool_create(&pool, "a", "n1"));
    assert_done(pool_create(&pool, "b", "n1"));
    struct sim_agent *n1 = pool_agent(&pool, "n1");
    sim_vm_becomes(n1, sim_agent_vm(n1, "a"), VMPOOL__VM_STATE__VM_STOPPED);
    sim_vm_becomes(n1, sim_agent_vm(n1, "b"), VMPOOL__VM_STATE__VM_PANICKED);
    cr_assert(pool_await_phase(&pool, "a", VMPOOL__VM_PHASE__PHASE_STOPPED));
    cr_assert(pool_await_phase(&pool, "b", VMPOOL__VM_PHASE__PHASE_FAILED));
    cr_assert(strstr(pool_vm(&pool, "b")->stored->text, "panicked"));
}

Test(vms, one_on_a_lost_node_is_unknown_and_seen_again)
{
    assert_done(pool_create(&pool, "a", "n1"));
    sim_agent_stop(pool_agent(&pool, "n1"));
    cr_assert(pool_await_node_phase(&pool, "n1", VMPOOL__NODE_PHASE__NODE_LOST));
    cr_assert(pool_await_phase(&pool, "a", VMPOOL__VM_PHASE__PHASE_UNKNOWN));
    const Vmpool__AdminReply *reply =
        pool_change(&pool, "a", VMPOOL__VM_CHANGE__ACTION__START, false);
    cr_assert(reply->failure); /* it may still run there */
    sim_agent_start(pool_agent(&pool, "n1"));
    cr_assert(pool_await_phase(&pool, "a", VMPOOL__VM_PHASE__PHASE_RUNNING));
    cr_assert_eq(starts(), 1);
}

Test(vms, one_whose_host_lost_power_has_failed_and_can_be_started_again)
{
    assert_done(pool_create(&pool, "a", "n1"));
    sim_agent_power_off(pool_agent(&pool, "n1"));
    cr_assert(pool_await_phase(&pool, "a", VMPOOL__VM_PHASE__PHASE_UNKNOWN));
    sim_agent_start(pool_agent(&pool, "n1"));
    cr_assert(pool_await_phase(&pool, "a", VMPOOL__VM_PHASE__PHASE_FAILED));
    assert_done(pool_change(&pool, "a", VMPOOL__VM_CHANGE__ACTION__START, false));
    cr_assert_eq(sim_net_running(&pool.net, "a"), 1);
}

Test(vms, one_removed_by_force_while_its_node_is_lost_is_cleaned_when_the_node_is_back)
{
    assert_done(pool_create(&pool, "a", "n1"));
    sim_agent_stop(pool_agent(&pool, "n1"));
    cr_assert(pool_await_phase(&pool, "a", VMPOOL__VM_PHASE__PHASE_UNKNOWN));
    assert_done(pool_change(&pool, "a", VMPOOL__VM_CHANGE__ACTION__REMOVE, true));
    cr_assert_eq(sim_net_running(&pool.net, "a"), 1); /* still */
    sim_agent_start(pool_agent(&pool, "n1"));
    for (int i = 0; i < 100 && sim_agent_vm(pool_agent(&pool, "n1"), "a"); i++)
        pool_run(&pool, 20);
    cr_assert_null(pool_agent(&pool, "n1")->vms);
}

Test(vms, a_node_gone_for_good_frees_its_vms)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__NodeChange change = VMPOOL__NODE_CHANGE__INIT;
    char n1[] = "n1", no_id[] = "";
    assert_done(pool_create(&pool, "a", "n1"));
    change.name = n1;
    change.action = VMPOOL__NODE_CHANGE__ACTION__REMOVE;
    change.force = true;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_NODE_CHANGE;
    request.node_change = &change;
    const Vmpool__AdminReply *reply = pool_ask(&pool, &request);
    cr_assert(reply->failure); /* it reports: no force against that */
    sim_agent_power_off(pool_agent(&pool, "n1"));
    cr_assert(pool_await_phase(&pool, "a", VMPOOL__VM_PHASE__PHASE_UNKNOWN));
    request.request_id = no_id;
    reply = pool_ask(&pool, &request);
    cr_assert_null(reply->failure);
    cr_assert_eq(pool_vm(&pool, "a")->stored->phase, VMPOOL__VM_PHASE__PHASE_FAILED);
    assert_done(pool_change(&pool, "a", VMPOOL__VM_CHANGE__ACTION__START, false));
    cr_assert_eq(sim_net_running(&pool.net, "a"), 1);
    /* And if it comes back after all, its key is no longer known. */
    sim_agent_start(pool_agent(&pool, "n1"));
    for (int i = 0; i < 100 && !pool_agent(&pool, "n1")->refused[0]; i++)
        pool_run(&pool, 20);
    cr_assert(strstr(pool_agent(&pool, "n1")->refused, "does not know our key"));
}

/* ---- departures ---- */

static int read_departure(void *context, const char *key, const uint8_t *data, size_t size,
                          struct error *err)
{
    Vmpool__Store__Departure *left =
        pb_unpack(&vmpool__store__departure__descriptor, data, size, err);
    unsigned *count = context;
    cr_assert(left);
    cr_assert_eq(left->vcpus, pool_vm(&pool, "a")->stored->spec->vcpus);
    cr_assert_eq(left->memory_mib, pool_vm(&pool, "a")->stored->spec->memory_mib);
    cr_assert_lt(left->lifetime_s, 60);
    (void)key;
    pb_free(left);
    ++*count;
    return 0;
}

Test(vms, how_long_removed_ones_stayed_is_kept_and_a_failed_creation_is_not)
{
    struct error err = ERROR_INIT;
    unsigned count = 0;
    assert_done(pool_create(&pool, "a", "n1"));
    assert_done(pool_create(&pool, "b", "n1"));
    assert_done(pool_change(&pool, "b", VMPOOL__VM_CHANGE__ACTION__REMOVE, true));
    assert_done(pool_create(&pool, "b", "n2"));
    pool_kill_controller(&pool);
    pool_run(&pool, 50);
    pool_start_controller(&pool);
    cr_assert(pool_await_phase(&pool, "b", VMPOOL__VM_PHASE__PHASE_RUNNING));
    assert_done(pool_change(&pool, "b", VMPOOL__VM_CHANGE__ACTION__REMOVE, true));
    for (struct sim_agent *agent = pool.net.agents; agent; agent = agent->next)
        agent->refuse_start = ERROR_FAILED;
    const struct job *job = job_by_id(pool.controller, pool_create(&pool, "b", "n1")->job->id);
    cr_assert_eq(job->stored->phase, VMPOOL__JOB_PHASE__JOB_FAILED);
    cr_assert_eq(
        store_read(pool.controller->store, STORE_DEPARTURE, "", 0, read_departure, &count, &err), 0,
        "%s", err.text);
    cr_assert_eq(count, 2, "%u", count);
}

/* ---- rules ---- */

/* Creates a VM with @rules; the reply to it. */
static const Vmpool__AdminReply *create_with(const char *name, Vmpool__PlacementRules *rules,
                                             bool dry_run)
{
    Vmpool__VmCreate create = VMPOOL__VM_CREATE__INIT;
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    create.name = (char *)(uintptr_t)name;
    create.vcpus = 1;
    create.memory_mib = 128;
    create.image = (char *)(uintptr_t) "debian";
    create.rules = rules;
    create.dry_run = dry_run;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_CREATE;
    request.vm_create = &create;
    const Vmpool__AdminReply *reply = pool_ask(&pool, &request);
    if (reply->body_case == VMPOOL__ADMIN_REPLY__BODY_JOB)
        (void)pool_job_end(&pool, reply->job->id);
    return reply;
}

Test(vms, rules_of_placed_vms_hold_after_a_restart)
{
    Vmpool__PlacementRules rules = VMPOOL__PLACEMENT_RULES__INIT;
    rules.affinity_group = (char *)(uintptr_t) "cache";
    assert_done(pool_create(&pool, "other", "n1"));
    assert_done(create_with("a", &rules, false));
    const char *home = node_name_of(pool.controller, pool_vm(&pool, "a")->stored->node_id);
    cr_assert_str_neq(home, "n1", "the policy spreads");
    char first[64];
    (void)snprintf(first, sizeof first, "%s", home);
    pool_kill_controller(&pool);
    pool_run(&pool, 50);
    pool_start_controller(&pool);
    for (unsigned i = 1; i <= 3; i++) {
        char node[8];
        (void)snprintf(node, sizeof node, "n%u", i);
        cr_assert(pool_await_node_phase(&pool, node, VMPOOL__NODE_PHASE__NODE_UP));
    }
    pool_run(&pool, 500);
    cr_assert_str_eq(pool_vm(&pool, "a")->stored->spec->rules->affinity_group, "cache");
    const Vmpool__AdminReply *reply = create_with("b", &rules, true);
    cr_assert_null(reply->failure, "%s", reply->failure ? reply->failure->text : "");
    cr_assert_str_eq(reply->placement->node, first);
    for (size_t i = 0; i < reply->placement->n_verdicts; i++) {
        const Vmpool__HostVerdict *verdict = reply->placement->verdicts[i];
        if (strcmp(verdict->node, first) == 0)
            continue;
        cr_assert_str_eq(verdict->filter, "affinity");
        cr_assert_str_eq(verdict->change, "without affinity to group cache");
    }
}

Test(vms, rules_that_no_pool_can_keep_are_refused)
{
    Vmpool__PlacementRules rules = VMPOOL__PLACEMENT_RULES__INIT;
    rules.spread_group = (char *)(uintptr_t) "db";
    const Vmpool__AdminReply *reply = create_with("a", &rules, false);
    cr_assert(reply->failure);
    cr_assert_eq(reply->failure->kind, ERROR_USAGE);
    cr_assert_str_eq(reply->failure->text,
                     "a spread needs both a group and the node label to spread it over");
    rules.spread_label = (char *)(uintptr_t) "not a label";
    reply = create_with("a", &rules, false);
    cr_assert_eq(reply->failure->kind, ERROR_USAGE);
    rules.spread_label = (char *)(uintptr_t) "zone";
    reply = create_with("a", &rules, false);
    cr_assert_eq(reply->failure->kind, ERROR_NO_CAPACITY, "no node has a zone");
    cr_assert_null(vm_by_name(pool.controller, "a"));
}
