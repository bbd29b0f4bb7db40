/* poolctl plan, apply and capacity: what they ask for and show, and what they refuse to read. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_controller.h"
#include "poolctl/spec.h"

#define TEXT(literal) ((char *)(uintptr_t)(literal))

static bool answer(struct fake *fake, const Vmpool__AdminRequest *request,
                   Vmpool__AdminReply *reply)
{
    static Vmpool__Plan plan = VMPOOL__PLAN__INIT;
    static Vmpool__PlanMove move = VMPOOL__PLAN_MOVE__INIT;
    static Vmpool__PlanMove *moves[] = {&move};
    static Vmpool__PlanLeft left = VMPOOL__PLAN_LEFT__INIT;
    static Vmpool__PlanLeft *lefts[] = {&left};
    static Vmpool__PlanBalance before = VMPOOL__PLAN_BALANCE__INIT,
                               after = VMPOOL__PLAN_BALANCE__INIT;
    static Vmpool__Capacity capacity = VMPOOL__CAPACITY__INIT;
    (void)fake;
    move.vm = TEXT("web");
    move.from = TEXT("n1");
    move.to = TEXT("n2");
    move.memory_mib = 2048;
    move.bytes = 2400000000;
    move.duration_us = 20000000;
    move.pause_us = 81000;
    move.why = TEXT("n1 is at 60%, the mean is 20%");
    left.vm = TEXT("db");
    left.why = TEXT("has disks that are on this node only");
    before.imbalance_permille = 283;
    before.highest_permille = 600;
    after.imbalance_permille = 80;
    after.highest_permille = 300;
    before.nodes = after.nodes = 3;
    plan.format = 1;
    plan.pool_name = TEXT("pool");
    plan.pool_id = TEXT("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    plan.fingerprint = TEXT("00c0ffee00c0ffee");
    plan.summary = TEXT("1 moves: hot nodes 1 to 0");
    plan.moves = moves;
    plan.n_moves = 1;
    plan.bytes = 2400000000;
    plan.duration_us = 20000000;
    plan.pause_us = 81000;
    plan.before = &before;
    plan.after = &after;
    plan.n_left = 0;
    plan.wanted = plan.placed = 1;
    switch (request->body_case) {
    case VMPOOL__ADMIN_REQUEST__BODY_PLAN_GET:
        plan.kind = TEXT("rebalance");
        if (strcmp(request->plan_get->kind, "lose") == 0) {
            plan.kind = TEXT("lose");
            plan.left = lefts;
            plan.n_left = 1;
            plan.wanted = 2;
            plan.summary = TEXT("if n1 were lost, 1 of its 2 VMs could start again elsewhere");
        }
        reply->body_case = VMPOOL__ADMIN_REPLY__BODY_PLAN;
        reply->plan = &plan;
        return true;
    case VMPOOL__ADMIN_REQUEST__BODY_PLAN_APPLY:
        plan.kind = TEXT("rebalance");
        if (request->plan_apply->dry_run) {
            reply->body_case = VMPOOL__ADMIN_REPLY__BODY_PLAN;
            reply->plan = &plan;
        } else {
            reply->body_case = VMPOOL__ADMIN_REPLY__BODY_JOB;
            reply->job = fake_job();
        }
        return true;
    case VMPOOL__ADMIN_REQUEST__BODY_CAPACITY_GET:
        capacity.count = 12;
        capacity.count_n1 = 7;
        capacity.n1 = request->capacity_get->n1;
        capacity.vcpus = request->capacity_get->vcpus;
        capacity.memory_mib = request->capacity_get->memory_mib;
        capacity.bandwidth_bps = request->capacity_get->bandwidth_bps;
        capacity.why = TEXT("3 nodes lack memory");
        capacity.why_n1 = TEXT("with one more, if node n1 were lost, VM web would have no place");
        reply->body_case = VMPOOL__ADMIN_REPLY__BODY_CAPACITY;
        reply->capacity = &capacity;
        return true;
    default:
        return false;
    }
}

static struct fake *fake;

static void start(void)
{
    fake = fake_start(answer);
}

static void finish(void)
{
    fake_stop(fake);
}

TestSuite(plan, .init = start, .fini = finish, .timeout = 30);

static struct run expect(const char *line, int status)
{
    struct run run = run_poolctl(line);
    cr_assert_eq(run.status, status, "%s: %d: %s%s", line, run.status, run.out, run.err);
    return run;
}

/* A file of its own with @text; its path lives until the next one. */
static const char *file_of(const char *text)
{
    static char path[64];
    (void)snprintf(path, sizeof path, "/tmp/vmpool-plan-XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
    return path;
}

Test(plan, a_table_shows_moves_their_cost_and_why)
{
    struct run run = expect("plan rebalance --threshold 15 -o table", 0);
    expect_golden("plan-rebalance.txt", run.out);
    cr_expect_eq(
        fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_PLAN_GET)->plan_get->threshold_permille, 150);
    run_free(&run);
    run = expect("plan lose n1 -o table", 2);
    expect_golden("plan-lose.txt", run.out);
    cr_expect(strstr(run.err, "1 of its 2 VMs could start again"), "%s", run.err);
    run_free(&run);
}

Test(plan, what_goes_to_a_file_is_json_that_apply_takes)
{
    char line[128];
    struct run run = expect("plan rebalance", 0);
    cr_expect(strstr(run.err, "n1 is at 60%"), "people see it too: %s", run.err);
    (void)snprintf(line, sizeof line, "apply %s", file_of(run.out));
    run_free(&run);
    run = expect(line, 0);
    cr_expect(strstr(run.err, "n1 is at 60%"), "shown before it is done: %s", run.err);
    const Vmpool__Plan *sent =
        fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_PLAN_APPLY)->plan_apply->plan;
    cr_assert_eq(sent->n_moves, 1);
    cr_expect_eq(sent->format, 1);
    cr_expect_str_eq(sent->fingerprint, "00c0ffee00c0ffee");
    cr_expect_str_eq(sent->kind, "rebalance");
    cr_expect_eq(strlen(sent->pool_id), 64);
    cr_expect_str_eq(sent->moves[0]->vm, "web");
    cr_expect_str_eq(sent->moves[0]->from, "n1");
    cr_expect_str_eq(sent->moves[0]->to, "n2");
    run_free(&run);
    (void)strcat(line, " --dry-run");
    run = expect(line, 0);
    cr_expect(strstr(run.out, "The plan holds: 1 moves. Nothing was done."), "%s", run.out);
    run_free(&run);
    (void)strcat(line, " --no-wait");
    run = expect(line, 3);
    cr_expect(strstr(run.err, "--dry-run starts no job"), "%s", run.err);
    run_free(&run);
    (void)unlink(line + strlen("apply "));
}

/* Each is refused before anything is asked of the controller. */
static void bad_plan(const char *text, const char *why)
{
    char line[128];
    const char *path = file_of(text);
    (void)snprintf(line, sizeof line, "apply %s", path);
    struct run run = run_poolctl(line);
    cr_expect_eq(run.status, 3, "%d for %s", run.status, text);
    cr_expect(strstr(run.err, why), "%s instead of: %s", run.err, why);
    cr_expect(strstr(run.err, path), "the file is named: %s", run.err);
    run_free(&run);
    (void)unlink(path);
}

#define HEAD                                                                                       \
    "{\"schema_version\":1,\"plan\":{\"format\":1,\"kind\":\"drain\",\"node\":\"n1\","             \
    "\"pool_name\":\"p\",\"pool_id\":\"aa\",\"summary\":\"\","

Test(plan, a_malformed_plan_is_refused_with_the_place_and_what_was_expected)
{
    bad_plan("", "is empty: expected what \"poolctl plan ... > FILE\" writes");
    bad_plan("{\n  \"plan\": {\n    oops\n", "line 3, column");
    bad_plan("[]", "holds no plan");
    bad_plan("{\"schema_version\":1}", "holds no plan: expected an object \"plan\"");
    bad_plan("{\"schema_version\":9,\"plan\":{}}", "schema_version: expected 1");
    bad_plan("{\"schema_version\":1,\"plan\":{}}", "plan.format is no version: expected 1");
    bad_plan("{\"schema_version\":1,\"plan\":{\"format\":1,\"kind\":7}}",
             "plan.kind is a number: expected a text");
    bad_plan(HEAD "\"fingerprint\":\"xyz\"}}", "plan.fingerprint: expected 16 hex digits");
    bad_plan(HEAD "\"fingerprint\":\"0123456789abcdef\"}}",
             "plan.moves is nothing: expected a list");
    bad_plan(HEAD "\"fingerprint\":\"0123456789abcdef\",\"moves\":[7]}}",
             "plan.moves[0] is a number: expected an object with vm, from and to");
    bad_plan(HEAD "\"fingerprint\":\"0123456789abcdef\",\"moves\":[{\"vm\":\"a\"}]}}",
             "plan.moves[0].from is nothing: expected a text");
    bad_plan(HEAD "\"fingerprint\":\"0123456789abcdef\",\"moves\":[{\"vm\":\"\",\"from\":\"a\","
                  "\"to\":\"b\",\"why\":\"\"}]}}",
             "plan.moves[0]: vm, from or to is empty");
    bad_plan(HEAD "\"fingerprint\":\"0123456789abcdef\",\"moves\":[{\"vm\":\"a\",\"from\":\"a\","
                  "\"to\":\"b\",\"why\":\"\",\"bytes\":-1}]}}",
             "plan.moves[0]: a figure is negative");
    cr_expect_eq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY_PLAN_APPLY), 0);
    struct run run = expect("apply /nonexistent/p.json", 4);
    cr_expect(strstr(run.err, "/nonexistent/p.json"), "%s", run.err);
    run_free(&run);
}

Test(plan, capacity_with_and_without_n_plus_1)
{
    struct run run = expect("capacity --spec 4c,8G,1Gbps --n1", 0);
    expect_golden("capacity-n1.txt", run.out);
    const Vmpool__CapacityGet *asked =
        fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_CAPACITY_GET)->capacity_get;
    cr_expect_eq(asked->vcpus, 4);
    cr_expect_eq(asked->memory_mib, 8192);
    cr_expect_eq(asked->bandwidth_bps, 1000000000);
    cr_expect(asked->n1);
    run_free(&run);
    run = expect("capacity", 0);
    cr_expect_null(strstr(run.out, "lost"), "%s", run.out);
    run_free(&run);
    run = expect("capacity -o json", 0);
    cr_expect(strstr(run.out, "\"count\": 12"), "%s", run.out);
    run_free(&run);
}

Test(plan, sizes_and_counts_that_are_none_are_refused)
{
    static const char *const lines[] = {"capacity --spec 4",
                                        "capacity --spec 4c",
                                        "capacity --spec 8G,4c",
                                        "capacity --spec 4c,8G,",
                                        "capacity --spec 0c,8G",
                                        "capacity --spec 4c,0",
                                        "plan add 4c,8G xx",
                                        "plan add 4c,8G x0",
                                        "plan add 4c,8G x1000001",
                                        "plan add",
                                        "plan drain",
                                        "plan rebalance n1",
                                        "plan rebalance --threshold 0",
                                        "plan rebalance --max-moves 5000",
                                        "plan shuffle",
                                        "apply",
                                        NULL};
    for (const char *const *line = lines; *line; line++) {
        struct run run = expect(*line, 3);
        cr_expect_gt(strlen(run.err), 0);
        run_free(&run);
    }
    cr_expect_eq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY_PLAN_GET), 0);
}
