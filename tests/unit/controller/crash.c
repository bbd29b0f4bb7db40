/*
 * kill -9 of a real pool-controller at each step of each job (controller/faults.h), and a new one
 * on the same state folder: nothing is lost, and the agents count that nothing is done twice.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "pool.h"

static struct pool pool;
static pid_t child;

static void spawn(const char *faults)
{
    pid_t parent = getpid();
    child = fork();
    cr_assert_geq(child, 0);
    if (child > 0)
        return;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    if (faults)
        (void)setenv("VMPOOL_FAULTS", faults, 1);
    (void)execl(POOL_CONTROLLER, "pool-controller", "--state-dir", pool.state_dir, "--listen",
                pool.listen, "--report-interval", "100ms", "--lost-after", "2s", "--log-level",
                "error", (char *)NULL);
    _exit(127);
}

static bool has_ended(struct pool *p, const void *what)
{
    int status = 0;
    (void)what;
    (void)p;
    if (child > 0 && waitpid(child, &status, WNOHANG) == child) {
        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "it ended by itself");
        child = -1;
    }
    return child < 0;
}

static bool is_connected(struct pool *p, const void *what)
{
    (void)what;
    if (!p->admin_connected)
        return false;
    for (struct sim_agent *agent = p->net.agents; agent; agent = agent->next)
        if (!agent->connected)
            return false;
    return true;
}

static bool is_disconnected(struct pool *p, const void *what)
{
    (void)what;
    bool any = p->admin_connected;
    for (struct sim_agent *agent = p->net.agents; agent; agent = agent->next)
        any = any || agent->connected;
    return !any;
}

/* The next controller, once all have noticed that the last one is gone. */
static void start_next(void)
{
    cr_assert(pool_until(&pool, is_disconnected, NULL));
    spawn(NULL);
    cr_assert(pool_until(&pool, is_connected, NULL), "the second one did not come up");
}

/* From the controller inside the test, which made pool and image, to one of its own. */
static void leave_to(const char *faults)
{
    pool_kill_controller(&pool);
    cr_assert(pool_until(&pool, is_disconnected, NULL));
    spawn(faults);
    cr_assert(pool_until(&pool, is_connected, NULL), "the controller did not come up");
    /* The agents said hello: their first reports are in after this. */
    pool_run(&pool, 250);
}

static void start(void)
{
    pool_open(&pool, 2);
    pool_import_image(&pool);
}

static void finish(void)
{
    if (child > 0) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
    }
    pool_close(&pool);
}

struct story {
    char title[24];
    char point[64];
    enum sim_stage stop_at; /* of the source, in a migration */
    bool target_dies;       /* when the source has given up */
};

static void send_body(Vmpool__AdminRequest *request, const char *id)
{
    char copy[64];
    (void)snprintf(copy, sizeof copy, "%s", id);
    request->request_id = copy;
    (void)pool_send(&pool, request);
}

/* Asks for the change under @id, as poolctl would again after a lost connection. */
static void ask(const char *what, const char *id)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__VmCreate create = VMPOOL__VM_CREATE__INIT;
    Vmpool__VmChange change = VMPOOL__VM_CHANGE__INIT;
    Vmpool__VmMigrate migrate = VMPOOL__VM_MIGRATE__INIT;
    Vmpool__NodeChange drain = VMPOOL__NODE_CHANGE__INIT;
    char a[] = "a", image[] = "debian", n1[] = "n1", n2[] = "n2";
    if (strcmp(what, "create") == 0) {
        create.name = a;
        create.image = image;
        create.on_node = n1;
        create.vcpus = 1;
        create.memory_mib = 256;
        request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_CREATE;
        request.vm_create = &create;
    } else if (strcmp(what, "migrate") == 0) {
        migrate.name = a;
        migrate.to_node = n2;
        request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_MIGRATE;
        request.vm_migrate = &migrate;
    } else if (strcmp(what, "drain") == 0) {
        drain.name = n1;
        drain.action = VMPOOL__NODE_CHANGE__ACTION__DRAIN;
        request.body_case = VMPOOL__ADMIN_REQUEST__BODY_NODE_CHANGE;
        request.node_change = &drain;
    } else {
        change.name = a;
        change.timeout_ms = 500;
        change.force = true;
        change.action = strcmp(what, "stop") == 0     ? VMPOOL__VM_CHANGE__ACTION__STOP
                        : strcmp(what, "kill") == 0   ? VMPOOL__VM_CHANGE__ACTION__KILL
                        : strcmp(what, "remove") == 0 ? VMPOOL__VM_CHANGE__ACTION__REMOVE
                                                      : VMPOOL__VM_CHANGE__ACTION__START;
        request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_CHANGE;
        request.vm_change = &change;
    }
    send_body(&request, id);
}

/* The one job of @kind, awaited to its end. */
static const Vmpool__Job *await_job(const char *kind)
{
    int64_t end_ms = clock_monotonic_ms() + 15000;
    for (;;) {
        Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
        Vmpool__JobList list = VMPOOL__JOB_LIST__INIT;
        request.body_case = VMPOOL__ADMIN_REQUEST__BODY_JOB_LIST;
        request.job_list = &list;
        const Vmpool__JobTable *jobs = pool_ask(&pool, &request)->jobs;
        const Vmpool__Job *found = NULL;
        for (size_t i = 0; jobs && i < jobs->n_jobs; i++)
            if (strcmp(jobs->jobs[i]->kind, kind) == 0) {
                cr_assert_null(found, "two jobs of one request");
                found = jobs->jobs[i];
            }
        if (found && found->phase != VMPOOL__JOB_PHASE__JOB_RUNNING)
            return found;
        cr_assert(clock_monotonic_ms() < end_ms, "%s: %s", found ? found->step : "no job",
                  found ? found->text : "");
        pool_run(&pool, 50);
    }
}

static const Vmpool__Vm *find_vm(void)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__VmList list = VMPOOL__VM_LIST__INIT;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_LIST;
    request.vm_list = &list;
    const Vmpool__VmTable *vms = pool_ask(&pool, &request)->vms;
    cr_assert_leq(vms->n_vms, 1);
    return vms->n_vms ? vms->vms[0] : NULL;
}

/* Asks for @what, sees the controller die at the point, starts another, and asks again under the
 * same id, as a client does that got no answer. */
static const Vmpool__Job *live_through(const char *what, const char *kind,
                                       const struct story *story)
{
    char faults[96], id[64];
    (void)snprintf(faults, sizeof faults, "%s=kill", story->point);
    (void)snprintf(id, sizeof id, "request-%s", what);
    leave_to(faults);
    ask(what, id);
    cr_assert(pool_until(&pool, has_ended, NULL), "%s was never reached", story->point);
    start_next();
    ask(what, id);
    return await_job(kind);
}

static const char *word_of(const struct story *story)
{
    return story->title;
}

#define PARAMETERS(stories)                                                                        \
    cr_make_param_array(struct story, stories, sizeof stories / sizeof *stories)

/* ---- create ---- */

ParameterizedTestParameters(crash, creating)
{
    static struct story stories[] = {
        {"create", "job.vm-create.start.entering", SIM_NOWHERE, false},
        {"create", "job.vm-create.start.journalled", SIM_NOWHERE, false},
        {"create", "job.vm-create.start.sent", SIM_NOWHERE, false},
        {"create", "job.vm-create.end.entering", SIM_NOWHERE, false},
        {"create", "job.vm-create.end.journalled", SIM_NOWHERE, false},
    };
    return PARAMETERS(stories);
}

ParameterizedTest(struct story *story, crash, creating, .init = start, .fini = finish,
                  .timeout = 60)
{
    const Vmpool__Job *job = live_through(word_of(story), "vm-create", story);
    cr_assert_eq(job->phase, VMPOOL__JOB_PHASE__JOB_DONE, "%s", job->text);
    const Vmpool__Vm *vm = find_vm();
    cr_assert(vm);
    cr_assert_eq(vm->phase, VMPOOL__VM_PHASE__PHASE_RUNNING);
    cr_assert_eq(pool_agent(&pool, "n1")->starts, 1);
    cr_assert_eq(sim_net_running(&pool.net, "a"), 1);
}

/* ---- stop, kill, remove, start ---- */

ParameterizedTestParameters(crash, ending)
{
    static struct story stories[] = {
        {"stop", "job.vm-stop.button.journalled", SIM_NOWHERE, false},
        {"stop", "job.vm-stop.button.sent", SIM_NOWHERE, false},
        {"stop", "job.vm-stop.wait.journalled", SIM_NOWHERE, false},
        {"stop", "job.vm-stop.end.journalled", SIM_NOWHERE, false},
        {"kill", "job.vm-kill.kill.journalled", SIM_NOWHERE, false},
        {"kill", "job.vm-kill.kill.sent", SIM_NOWHERE, false},
        {"remove", "job.vm-remove.remove.journalled", SIM_NOWHERE, false},
        {"remove", "job.vm-remove.remove.sent", SIM_NOWHERE, false},
        {"remove", "job.vm-remove.end.entering", SIM_NOWHERE, false},
    };
    return PARAMETERS(stories);
}

ParameterizedTest(struct story *story, crash, ending, .init = start, .fini = finish, .timeout = 60)
{
    char kind[32];
    (void)snprintf(kind, sizeof kind, "vm-%s", word_of(story));
    (void)pool_create(&pool, "a", "n1");
    const Vmpool__Job *job = live_through(word_of(story), kind, story);
    cr_assert_eq(job->phase, VMPOOL__JOB_PHASE__JOB_DONE, "%s", job->text);
    const Vmpool__Vm *vm = find_vm();
    if (strcmp(word_of(story), "remove") == 0)
        cr_assert_null(vm);
    else
        cr_assert_eq(vm->phase, VMPOOL__VM_PHASE__PHASE_STOPPED);
    const struct sim_agent *n1 = pool_agent(&pool, "n1");
    cr_assert_leq(n1->buttons, 1);
    cr_assert_leq(n1->kills, 1);
    cr_assert_leq(n1->removes, 1);
    cr_assert_eq(sim_net_running(&pool.net, "a"), 0);
}

/* ---- migrate, drain ---- */

ParameterizedTestParameters(crash, migrating)
{
    static struct story stories[] = {
        {"migrate", "job.vm-migrate.prepare.entering", SIM_NOWHERE, false},
        {"migrate", "job.vm-migrate.prepare.journalled", SIM_NOWHERE, false},
        {"migrate", "job.vm-migrate.prepare.sent", SIM_NOWHERE, false},
        {"migrate", "job.vm-migrate.stream.entering", SIM_NOWHERE, false},
        {"migrate", "job.vm-migrate.stream.journalled", SIM_NOWHERE, false},
        {"migrate", "job.vm-migrate.stream.sent", SIM_NOWHERE, false},
        {"migrate", "job.vm-migrate.run-target.journalled", SIM_GAVE_UP, false},
        {"migrate", "job.vm-migrate.run-target.sent", SIM_GAVE_UP, false},
        {"migrate", "job.vm-migrate.accept.entering", SIM_NOWHERE, false},
        {"migrate", "job.vm-migrate.accept.journalled", SIM_NOWHERE, false},
        {"migrate", "job.vm-migrate.accept.sent", SIM_NOWHERE, false},
        {"migrate", "job.vm-migrate.end.journalled", SIM_NOWHERE, false},
        {"migrate", "job.vm-migrate.take-back.journalled", SIM_GAVE_UP, true},
        {"migrate", "job.vm-migrate.take-back.sent", SIM_GAVE_UP, true},
        {"migrate", "job.vm-migrate.run-source.entering", SIM_GAVE_UP, true},
        {"migrate", "job.vm-migrate.run-source.journalled", SIM_GAVE_UP, true},
        {"migrate", "job.vm-migrate.run-source.sent", SIM_GAVE_UP, true},
        {"drain", "job.node-drain.move.journalled", SIM_NOWHERE, false},
        {"drain", "job.vm-migrate.end.entering", SIM_NOWHERE, false},
    };
    return PARAMETERS(stories);
}

static bool gave_up_or_ended(struct pool *p, const void *what)
{
    const struct sim_vm *vm = sim_agent_vm(pool_agent(p, "n1"), "a");
    return has_ended(p, what) || (vm && vm->state == VMPOOL__VM_STATE__VM_GAVE_UP);
}

ParameterizedTest(struct story *story, crash, migrating, .init = start, .fini = finish,
                  .timeout = 60)
{
    char faults[96];
    struct sim_agent *n1 = pool_agent(&pool, "n1"), *n2 = pool_agent(&pool, "n2");
    (void)pool_create(&pool, "a", "n1");
    n1->stop_at = story->stop_at;
    (void)snprintf(faults, sizeof faults, "%s=kill", story->point);
    leave_to(faults);
    ask(word_of(story), "the-request");
    cr_assert(pool_until(&pool, gave_up_or_ended, NULL));
    if (story->target_dies)
        sim_vm_vanishes(n2, sim_agent_vm(n2, "a"));
    cr_assert(pool_until(&pool, has_ended, NULL), "%s was never reached", story->point);
    start_next();
    ask(word_of(story), "the-request");
    bool drain = strcmp(word_of(story), "drain") == 0;
    const Vmpool__Job *job = await_job(drain ? "node-drain" : "vm-migrate");
    cr_assert_eq(job->phase,
                 story->target_dies ? VMPOOL__JOB_PHASE__JOB_FAILED : VMPOOL__JOB_PHASE__JOB_DONE,
                 "%s", job->text);
    const Vmpool__Vm *vm = find_vm();
    cr_assert(vm);
    cr_assert_eq(vm->phase, VMPOOL__VM_PHASE__PHASE_RUNNING, "%s", vm->text);
    cr_assert_str_eq(vm->node, story->target_dies ? "n1" : "n2");
    cr_assert_eq(sim_net_running(&pool.net, "a"), 1);
    cr_assert_eq(n1->starts + n2->starts, 1);
    cr_assert_eq(n1->outs, 1);
    cr_assert_eq(n2->prepares, 1);
    cr_assert_leq(n1->runs + n2->runs, 1);
    cr_assert_null(sim_agent_vm(story->target_dies ? n2 : n1, "a"), "a copy was left over");
}

/* ---- a drain of several, of which all but one wait ---- */

ParameterizedTestParameters(crash, waiting)
{
    static struct story stories[] = {
        {"drain", "job.vm-migrate.queue.entering", SIM_NOWHERE, false},
        {"drain", "job.vm-migrate.queue.journalled", SIM_NOWHERE, false},
        {"drain", "job.vm-migrate.ready.entering", SIM_NOWHERE, false},
        {"drain", "job.vm-migrate.ready.journalled", SIM_NOWHERE, false},
        {"drain", "job.vm-migrate.ready.sent", SIM_NOWHERE, false},
        {"drain", "job.vm-migrate.stream.journalled", SIM_NOWHERE, false},
        {"drain", "job.vm-migrate.end.journalled", SIM_NOWHERE, false},
    };
    return PARAMETERS(stories);
}

ParameterizedTest(struct story *story, crash, waiting, .init = start, .fini = finish, .timeout = 60)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    const struct sim_agent *n1 = pool_agent(&pool, "n1"), *n2 = pool_agent(&pool, "n2");
    for (unsigned i = 0; i < 4; i++)
        (void)pool_create(&pool, names[i], "n1");
    const Vmpool__Job *job = live_through(word_of(story), "node-drain", story);
    cr_assert_eq(job->phase, VMPOOL__JOB_PHASE__JOB_DONE, "%s", job->text);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(sim_net_running(&pool.net, names[i]), 1);
    cr_assert_null(n1->vms);
    cr_assert_eq(n1->outs, 4);
    cr_assert_eq(n2->prepares, 4);
}
