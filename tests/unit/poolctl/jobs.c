/* Commands that start a job: what they ask for, how they wait, what they say at the end. */
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "fake_controller.h"

#define TEXT(literal) ((char *)(uintptr_t)(literal))

static void send_job(struct fake *fake, Vmpool__Job *job)
{
    Vmpool__AdminReply reply = VMPOOL__ADMIN_REPLY__INIT;
    reply.body_case = VMPOOL__ADMIN_REPLY__BODY_JOB;
    reply.job = job;
    fake_send(fake, &reply);
}

/* A job that runs, is watched, makes two rounds and ends well. */
static bool migration(struct fake *fake, const Vmpool__AdminRequest *request,
                      Vmpool__AdminReply *reply)
{
    static Vmpool__Job started = VMPOOL__JOB__INIT;
    static Vmpool__MigrationProgress progress = VMPOOL__MIGRATION_PROGRESS__INIT;
    if (request->body_case != VMPOOL__ADMIN_REQUEST__BODY_VM_MIGRATE &&
        request->body_case != VMPOOL__ADMIN_REQUEST__BODY_JOB_WATCH)
        return false;
    started.id = 42;
    started.kind = TEXT("vm-migrate");
    started.subject = TEXT("web");
    started.step = TEXT("prepare");
    started.text = TEXT("preparing n1");
    started.phase = VMPOOL__JOB_PHASE__JOB_RUNNING;
    started.migration = NULL;
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_JOB;
    reply->job = &started;
    if (request->body_case == VMPOOL__ADMIN_REQUEST__BODY_VM_MIGRATE)
        return true;
    send_job(fake, &started);
    started.step = TEXT("stream");
    started.migration = &progress;
    progress.phase = VMPOOL__MIGRATION_PHASE__MIGRATION_PRECOPY;
    progress.round = 1;
    progress.ram_bytes = 256 << 20;
    progress.remaining_bytes = 200 << 20;
    progress.dirty_bps = 34000000;
    progress.bandwidth_bps = 940000000;
    progress.eta_ms = 3200;
    send_job(fake, &started);
    progress.remaining_bytes = 100 << 20; /* no change worth a line in a log */
    send_job(fake, &started);
    progress.round = 2;
    progress.remaining_bytes = 3 << 20;
    progress.eta_ms = 0;
    send_job(fake, &started);
    progress.phase = VMPOOL__MIGRATION_PHASE__MIGRATION_PAUSED;
    send_job(fake, &started);
    reply->job = fake_job();
    return true;
}

Test(jobs, a_migration_is_followed_and_summed_up)
{
    struct fake *fake = fake_start(migration);
    struct run run = run_poolctl("vm migrate web --to n1 --downtime-limit 50ms --bandwidth 1G "
                                 "--streams 4 --verify --timeout 2m");
    cr_expect_eq(run.status, 0, "%s", run.err);
    expect_golden("migrate.txt", run.out);
    expect_golden("migrate-progress.txt", run.err);
    const Vmpool__VmMigrate *asked =
        fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_VM_MIGRATE)->vm_migrate;
    cr_expect_str_eq(asked->name, "web");
    cr_expect_str_eq(asked->to_node, "n1");
    cr_expect_eq(asked->limits->downtime_limit_ms, 50);
    cr_expect_eq(asked->limits->bandwidth_bps, 1000000000);
    cr_expect_eq(asked->limits->streams, 4);
    cr_expect_eq(asked->limits->timeout_ms, 120000);
    cr_expect(asked->limits->verify);
    run_free(&run);
    fake_stop(fake);
}

Test(jobs, quiet_and_no_wait)
{
    struct fake *fake = fake_start(migration);
    struct run run = run_poolctl("vm migrate web -q");
    cr_expect_eq(run.status, 0);
    cr_expect_str_empty(run.out);
    cr_expect_str_empty(run.err);
    run_free(&run);
    run = run_poolctl("vm migrate web --no-wait");
    cr_expect_str_eq(run.out, "42\n");
    cr_expect_str_empty(run.err);
    run_free(&run);
    run = run_poolctl("vm migrate web --no-wait -o name");
    cr_expect_str_eq(run.out, "42\n");
    run_free(&run);
    run = run_poolctl("vm migrate web -q -o json");
    cr_expect_not_null(strstr(run.out, "\"total_us\": 23100"), "%s", run.out);
    run_free(&run);
    cr_expect_eq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY_JOB_WATCH), 2);
    fake_stop(fake);
}

/* A job that never ends. */
static bool endless(struct fake *fake, const Vmpool__AdminRequest *request,
                    Vmpool__AdminReply *reply)
{
    static Vmpool__Job running = VMPOOL__JOB__INIT;
    (void)fake;
    running.id = 7;
    running.kind = TEXT("vm-stop");
    running.subject = TEXT("web");
    running.phase = VMPOOL__JOB_PHASE__JOB_RUNNING;
    running.text = TEXT("waiting for the guest");
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_JOB;
    reply->job = &running;
    reply->done = request->body_case != VMPOOL__ADMIN_REQUEST__BODY_JOB_WATCH;
    return true;
}

static bool endless_and_interrupted(struct fake *fake, const Vmpool__AdminRequest *request,
                                    Vmpool__AdminReply *reply)
{
    if (request->body_case == VMPOOL__ADMIN_REQUEST__BODY_JOB_WATCH)
        (void)kill(getpid(), SIGINT);
    return endless(fake, request, reply);
}

Test(jobs, waiting_can_be_bounded)
{
    struct fake *fake = fake_start(endless);
    struct run run = run_poolctl("vm start web --timeout 200ms");
    cr_expect_eq(run.status, ERROR_TIMEOUT);
    cr_expect_not_null(strstr(run.err, "job 7 has not ended within 200 ms and goes on"), "%s",
                       run.err);
    run_free(&run);
    fake_stop(fake);
}

Test(jobs, ctrl_c_leaves_the_job_running)
{
    struct fake *fake = fake_start(endless_and_interrupted);
    struct run run = run_poolctl("vm start web");
    cr_expect_eq(run.status, 130);
    cr_expect_not_null(strstr(run.err, "Job 7 goes on. Watch it with 'poolctl job watch 7', stop "
                                       "it with 'poolctl job cancel 7'."),
                       "%s", run.err);
    cr_expect_eq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY_JOB_CANCEL), 0);
    run_free(&run);
    fake_stop(fake);
}

static bool failing(struct fake *fake, const Vmpool__AdminRequest *request,
                    Vmpool__AdminReply *reply)
{
    static Vmpool__Job failed = VMPOOL__JOB__INIT;
    static Vmpool__Failure failure = VMPOOL__FAILURE__INIT;
    (void)fake;
    (void)request;
    failure.kind = ERROR_TIMEOUT;
    failure.text = TEXT("no page was sent for 60 s; web runs on at n1");
    failed.id = 8;
    failed.kind = TEXT("vm-migrate");
    failed.subject = TEXT("web");
    failed.phase = VMPOOL__JOB_PHASE__JOB_FAILED;
    failed.failure = &failure;
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_JOB;
    reply->job = &failed;
    return true;
}

Test(jobs, a_job_that_fails_gives_its_reason_and_status)
{
    struct fake *fake = fake_start(failing);
    struct run run = run_poolctl("job watch 8");
    cr_expect_eq(run.status, ERROR_TIMEOUT);
    cr_expect_str_eq(run.err, "poolctl: vm-migrate web failed: no page was sent for 60 s; web runs "
                              "on at n1\n");
    run_free(&run);
    run = run_poolctl("job watch 8 -o json");
    cr_expect_eq(run.status, ERROR_TIMEOUT);
    cr_expect_not_null(strstr(run.out, "\"phase\": \"failed\""), "%s", run.out);
    run_free(&run);
    fake_stop(fake);
}

static bool nowhere(struct fake *fake, const Vmpool__AdminRequest *request,
                    Vmpool__AdminReply *reply)
{
    static Vmpool__Placement placement = VMPOOL__PLACEMENT__INIT;
    (void)fake;
    (void)request;
    placement.summary = TEXT("no host fits: 2 lack memory (closest: n1, 1.5G short)");
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_PLACEMENT;
    reply->placement = &placement;
    return true;
}

Test(jobs, a_dry_run_that_finds_no_host_has_the_same_status)
{
    struct fake *fake = fake_start(nowhere);
    struct run run = run_poolctl("vm create big --image debian --memory 64G --dry-run");
    cr_expect_eq(run.status, ERROR_NO_CAPACITY);
    cr_expect_not_null(strstr(run.err, "closest: n1, 1.5G short"));
    cr_expect(fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_VM_CREATE)->vm_create->dry_run);
    run_free(&run);
    fake_stop(fake);
}

/* As the controller refuses: a failure with the reasons beside it. */
static bool refused_with_reasons(struct fake *fake, const Vmpool__AdminRequest *request,
                                 Vmpool__AdminReply *reply)
{
    static Vmpool__Failure failure = VMPOOL__FAILURE__INIT;
    static Vmpool__HostVerdict verdict = VMPOOL__HOST_VERDICT__INIT;
    static Vmpool__HostVerdict *verdicts[] = {&verdict};
    static Vmpool__Placement placement = VMPOOL__PLACEMENT__INIT;
    (void)fake;
    (void)request;
    verdict.node = TEXT("n1");
    verdict.reason = TEXT("lacks memory: needs 64G, 62.5G free");
    placement.n_verdicts = 1;
    placement.verdicts = verdicts;
    failure.kind = ERROR_NO_CAPACITY;
    failure.text = TEXT("no host fits: 1 lacks memory");
    reply->failure = &failure;
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_PLACEMENT;
    reply->placement = &placement;
    return true;
}

Test(jobs, a_refused_dry_run_shows_each_nodes_reason)
{
    struct fake *fake = fake_start(refused_with_reasons);
    struct run run = run_poolctl("vm create big --image debian --memory 64G --dry-run");
    cr_expect_eq(run.status, ERROR_NO_CAPACITY);
    cr_expect_not_null(strstr(run.out, "lacks memory: needs 64G, 62.5G free"), "%s", run.out);
    cr_expect_str_eq(run.err, "poolctl: no host fits: 1 lacks memory\n");
    run_free(&run);
    fake_stop(fake);
}

static bool drain_plan(struct fake *fake, const Vmpool__AdminRequest *request,
                       Vmpool__AdminReply *reply)
{
    static Vmpool__HostVerdict list[2] = {VMPOOL__HOST_VERDICT__INIT, VMPOOL__HOST_VERDICT__INIT};
    static Vmpool__HostVerdict *verdicts[] = {&list[0], &list[1]};
    static Vmpool__Placement placement = VMPOOL__PLACEMENT__INIT;
    (void)fake;
    if (request->body_case != VMPOOL__ADMIN_REQUEST__BODY_NODE_CHANGE)
        return false;
    list[0].node = TEXT("n2");
    list[0].fits = true;
    list[0].vm = TEXT("web");
    list[1].node = TEXT("");
    list[1].vm = TEXT("db");
    list[1].reason = TEXT("has local disks");
    placement.verdicts = verdicts;
    placement.n_verdicts = strcmp(request->node_change->name, "n1") == 0 ? 2 : 1;
    placement.summary = TEXT("1 of 2 running VMs can move away from n1");
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_PLACEMENT;
    reply->placement = &placement;
    return true;
}

Test(jobs, a_plan_to_drain_names_each_vm)
{
    struct fake *fake = fake_start(drain_plan);
    struct run run = run_poolctl("node drain n1 --dry-run");
    cr_expect_eq(run.status, ERROR_NO_CAPACITY);
    expect_golden("drain-plan.txt", run.out);
    cr_expect_str_eq(run.err, "poolctl: 1 of 2 running VMs can move away from n1\n");
    run_free(&run);
    run = run_poolctl("node drain n2 --dry-run");
    cr_expect_eq(run.status, 0, "%s", run.err);
    run_free(&run);
    fake_stop(fake);
}

static bool done_at_once(struct fake *fake, const Vmpool__AdminRequest *request,
                         Vmpool__AdminReply *reply)
{
    static Vmpool__Node node = VMPOOL__NODE__INIT;
    static Vmpool__Node *nodes[] = {&node};
    static Vmpool__NodeTable table = VMPOOL__NODE_TABLE__INIT;
    (void)fake;
    (void)request;
    node.name = TEXT("n2");
    table.n_nodes = 1;
    table.nodes = nodes;
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_NODES;
    reply->nodes = &table;
    return true;
}

Test(jobs, a_change_done_at_once_needs_no_job)
{
    struct fake *fake = fake_start(done_at_once);
    struct run run = run_poolctl("node undrain n2");
    cr_expect_eq(run.status, 0, "%s", run.err);
    cr_expect_str_eq(run.out, "n2 takes VMs again.\n");
    run_free(&run);
    run = run_poolctl("node rm n2 --yes -o name");
    cr_expect_str_eq(run.out, "n2\n");
    run_free(&run);
    fake_stop(fake);
}

Test(jobs, create_asks_for_what_was_said)
{
    struct fake *fake = fake_start(NULL);
    struct run run = run_poolctl(
        "vm create web --cpus 2 --memory 1.5G --bandwidth 200M --image debian --disk /srv/a.img,ro "
        "--disk 10G --label app=web --label tier= --anti-affinity front:soft --on n1 --stopped "
        "--affinity cache --spread db:zone:2 --tenant acme "
        "--selector rack=a --cmdline 'quiet panic=1'");
    cr_expect_eq(run.status, 0, "%s", run.err);
    run_free(&run);
    const Vmpool__VmCreate *asked =
        fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_VM_CREATE)->vm_create;
    cr_expect_str_eq(asked->name, "web");
    cr_expect_eq(asked->vcpus, 2);
    cr_expect_eq(asked->memory_mib, 1536);
    cr_expect_eq(asked->bandwidth_bps, 200000000);
    cr_expect_str_eq(asked->image, "debian");
    cr_assert_eq(asked->n_disks, 2);
    cr_expect_str_eq(asked->disks[0]->path, "/srv/a.img");
    cr_expect(asked->disks[0]->read_only);
    cr_expect_eq(asked->disks[1]->size_mib, 10240);
    cr_assert_eq(asked->n_labels, 2);
    cr_expect_str_eq(asked->labels[0]->key, "app");
    cr_expect_str_eq(asked->labels[0]->value, "web");
    cr_expect_str_eq(asked->labels[1]->value, "");
    cr_expect_str_eq(asked->anti_affinity_group, "front");
    cr_assert(asked->rules);
    cr_expect(asked->rules->anti_affinity_soft);
    cr_expect_str_eq(asked->rules->affinity_group, "cache");
    cr_expect_str_eq(asked->rules->spread_group, "db");
    cr_expect_str_eq(asked->rules->spread_label, "zone");
    cr_expect_eq(asked->rules->spread_skew, 2);
    cr_expect_str_eq(asked->rules->tenant, "acme");
    cr_expect_str_eq(asked->on_node, "n1");
    cr_expect_str_eq(asked->cmdline_extra, "quiet panic=1");
    cr_expect(asked->stopped);
    cr_assert_eq(asked->n_node_selector, 1);
    cr_expect_str_eq(asked->node_selector[0]->key, "rack");
    fake_stop(fake);
}

Test(jobs, bad_values_are_refused_before_anything_is_sent)
{
    static const char *const lines[][2] = {
        {"vm create w --image d --cpus 0", "--cpus: '0' is not a whole number from 1 to"},
        {"vm create w --image d --cpus two", "--cpus: 'two'"},
        {"vm create w --image d --memory 0", "--memory"},
        {"vm create w --image d --memory lots", "--memory"},
        {"vm create w --image d --memory -1G", "--memory"},
        {"vm create w --image d --bandwidth 1X", "--bandwidth"},
        {"vm create w --image d --disk web.img", "neither a path"},
        {"vm create w --image d --disk ./web.img", "must be an absolute path"},
        {"vm create w --image d --disk 10G,ro", "cannot be read-only"},
        {"vm create w --image d --label novalue", "is not KEY=VALUE"},
        {"vm create w --image d --anti-affinity db:hard", "is neither GROUP nor GROUP:soft"},
        {"vm create w --image d --spread zone", "is not GROUP:LABEL"},
        {"vm create w --image d --spread :zone", "is not GROUP:LABEL"},
        {"vm create w --image d --spread db:zone:0", "--spread: '0' is not a whole number from 1"},
        {"vm create w --image d --label =x", "is not KEY=VALUE"},
        {"vm create w --image d --on=", "--on: its value is empty"},
        {"vm create w --image d --anti-affinity=", "--anti-affinity: its value is empty"},
        {"vm migrate w --to=", "--to: its value is empty"},
        {"vm migrate w --downtime-limit 0", "--downtime-limit: '0' is no time"},
        {"job watch 1 --timeout 0s", "--timeout: '0s' is no time"},
        {"node token --valid 0", "--valid: '0' is no time"},
        {"vm migrate w --streams 0", "--streams"},
        {"job watch abc", "JOB: 'abc' is not a whole number"},
        {"job cancel 0", "JOB"},
        {"node token --valid soon", "--valid"},
        {"events --last 0", "--last"},
        {"vm rm web", "--yes"},
        {"vm kill web", "--yes"},
        {"node rm n1", "--yes"},
        {"image rm debian", "--yes"},
    };
    struct fake *fake = fake_start(NULL);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct run run = run_poolctl(lines[i][0]);
        cr_expect_eq(run.status, ERROR_USAGE, "%s: %d %s", lines[i][0], run.status, run.err);
        cr_expect_not_null(strstr(run.err, lines[i][1]), "%s: %s", lines[i][0], run.err);
        cr_expect_eq(strncmp(run.err, "poolctl: ", 9), 0);
        cr_expect_str_empty(run.out);
        run_free(&run);
    }
    cr_expect_eq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY__NOT_SET), 0);
    fake_stop(fake);
}

Test(jobs, what_destroys_is_done_with_yes)
{
    struct fake *fake = fake_start(NULL);
    struct run run = run_poolctl("vm rm web --yes --force");
    cr_expect_eq(run.status, 0, "%s", run.err);
    run_free(&run);
    const Vmpool__VmChange *asked =
        fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_VM_CHANGE)->vm_change;
    cr_expect_eq(asked->action, VMPOOL__VM_CHANGE__ACTION__REMOVE);
    cr_expect(asked->force);
    run = run_poolctl("node rm n2 -y");
    cr_expect_eq(run.status, 0, "%s", run.err);
    run_free(&run);
    cr_expect_eq(fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_NODE_CHANGE)->node_change->action,
                 VMPOOL__NODE_CHANGE__ACTION__REMOVE);
    run = run_poolctl("vm stop web --timeout 30s --force");
    run_free(&run);
    asked = fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_VM_CHANGE)->vm_change;
    cr_expect_eq(asked->timeout_ms, 30000);
    fake_stop(fake);
}

/* ---- events --------------------------------------------------------------------------------- */

Test(jobs, events_are_followed)
{
    struct fake *fake = fake_start(NULL);
    struct run run = run_poolctl("events -f -o json");
    cr_expect_eq(run.status, 0, "%s", run.err);
    expect_golden("events-follow.json", run.out);
    run_free(&run);
    run = run_poolctl("events -f");
    expect_golden("events-follow.txt", run.out);
    run_free(&run);
    const Vmpool__EventWatch *asked =
        fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_EVENT_WATCH)->event_watch;
    cr_expect(asked->follow);
    cr_expect_eq(asked->last, 50);
    fake_stop(fake);
}
