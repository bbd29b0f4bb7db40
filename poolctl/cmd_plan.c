/* cmd_plan.c: poolctl plan rebalance|drain|lose|consolidate|add, and poolctl apply. */
#include <stdlib.h>
#include <string.h>

#include "common/units.h"
#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/job.h"
#include "poolctl/message.h"
#include "poolctl/plan_file.h"
#include "poolctl/plan_view.h"
#include "poolctl/spec.h"

#define MOVES_MAX 2000
#define COUNT_MAX 100000

/* ---- plan ----------------------------------------------------------------------------------- */

/* What is printed goes into a file as JSON, unless -o says otherwise; people see it all the same.
 */
static int print_plan(struct invocation *call, const Vmpool__Plan *plan, struct error *err)
{
    struct view_style style = view_style_of(call);
    bool to_file = !call->terminal.out_is_terminal && !invocation_has(call, "output");
    json_t *json = message_to_json(&plan->base, err);
    if (!json)
        return -1;
    if (to_file) {
        struct view_style people = style;
        people.terminal.out = style.terminal.err;
        people.terminal.colour = false;
        if (!style.quiet)
            plan_view_print(&people, json);
        style.format = OUTPUT_JSON;
    }
    switch (style.format) {
    case OUTPUT_JSON:
    case OUTPUT_YAML:
        return view_document(&style, message_document("plan", json, err), err);
    case OUTPUT_CSV:
    case OUTPUT_NAME: {
        json_t *moves = json_incref(json_object_get(json, "moves"));
        json_decref(json);
        return view_list(&style, &view_plan_moves, moves, err);
    }
    case OUTPUT_TABLE:
        plan_view_print(&style, json);
        break;
    }
    json_decref(json);
    return 0;
}

static int make(struct invocation *call, Vmpool__PlanGet *body, struct error *err)
{
    Vmpool__AdminReply *reply = NULL;
    uint64_t move_max = 0;
    body->kind = ask_text(call->command->name);
    if (invocation_number(call, "max-moves", 1, MOVES_MAX, &move_max, err) < 0)
        return -1;
    body->move_max = (uint32_t)move_max;
    ADMIN_REQUEST(request, PLAN_GET, plan_get, body);
    if (ask(call, &request, VMPOOL__ADMIN_REPLY__BODY_PLAN, &reply, err) < 0)
        return -1;
    const Vmpool__Plan *plan = reply->plan;
    int result = print_plan(call, plan, err);
    bool rebalance = call->command->name[0] == 'r';
    if (result == 0 && !rebalance && plan->placed < plan->wanted)
        result = error_set(err, ERROR_NO_CAPACITY, "%s", plan->summary);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return result;
}

static int run_rebalance(struct invocation *call, struct error *err)
{
    Vmpool__PlanGet body = VMPOOL__PLAN_GET__INIT;
    uint64_t percent = 0;
    if (invocation_number(call, "threshold", 1, 100, &percent, err) < 0)
        return -1;
    body.threshold_permille = (uint32_t)percent * 10;
    return make(call, &body, err);
}

static int run_node(struct invocation *call, struct error *err)
{
    Vmpool__PlanGet body = VMPOOL__PLAN_GET__INIT;
    body.node = ask_text(invocation_argument(call, 0));
    return make(call, &body, err);
}

static int run_consolidate(struct invocation *call, struct error *err)
{
    Vmpool__PlanGet body = VMPOOL__PLAN_GET__INIT;
    return make(call, &body, err);
}

static int run_add(struct invocation *call, struct error *err)
{
    Vmpool__PlanGet body = VMPOOL__PLAN_GET__INIT;
    struct spec spec;
    uint64_t count = 1;
    const char *times = invocation_argument(call, 1);
    if (spec_parse(invocation_argument(call, 0), &spec, err) < 0)
        return error_wrap(err, "SPEC");
    if (times && units_parse_number(times + (times[0] == 'x'), "xN", 1, COUNT_MAX, &count, err) < 0)
        return -1;
    body.vcpus = spec.vcpus;
    body.memory_mib = spec.memory_mib;
    body.bandwidth_bps = spec.bandwidth_bps;
    body.count = (uint32_t)count;
    return make(call, &body, err);
}

#define MAX_MOVES_OPTION                                                                           \
    {                                                                                              \
        .name = "max-moves", .value = "N", .help = "at most so many moves (default 2000)"          \
    }

static const struct command plan_rebalance = {
    .name = "rebalance",
    .summary = "which VMs to move so that no node is hot and no room stranded",
    .details =
        "VMs that break a rule of their own come first, as far as that can be mended; then nodes "
        "whose fullest dimension, reserved or measured, is above the mean by more than the "
        "threshold; then room that is stranded: CPU that is free beside full memory, or memory "
        "beside full CPU. Under the policies pack and best, which fill nodes on purpose, only "
        "measured use makes a node hot.\n\n"
        "A move must pay: what the hotter of both nodes loses in load, over an hour, is more than "
        "the share of both links that the migration takes times its seconds. No move makes a node "
        "hot, so the next plan does not undo this one.",
    .options = (const struct option[]){{.name = "threshold",
                                        .value = "PERCENT",
                                        .help = "above the mean load a node is hot (default: the "
                                                "controller's, 10)"},
                                       MAX_MOVES_OPTION,
                                       {0}},
    .examples = (const struct example[]){{"poolctl plan rebalance", "See what would move, and why"},
                                         {"poolctl plan rebalance > p.json && poolctl apply p.json",
                                          "Look, then do it"},
                                         {0}},
    .run = run_rebalance,
};

static const struct command plan_drain = {
    .name = "drain",
    .summary = "where the VMs of a node would go, and what that takes",
    .details =
        "Exit status 2 where a VM has no other place. Applied, the node takes no new VM from "
        "then on, as with 'poolctl node drain'.",
    .arguments = ONE_ARGUMENT("NODE", "the node's name", COMPLETE_NODE),
    .options = (const struct option[]){MAX_MOVES_OPTION, {0}},
    .examples =
        (const struct example[]){{"poolctl plan drain n2", "Before a host is serviced"}, {0}},
    .run = run_node,
};

static const struct command plan_lose = {
    .name = "lose",
    .summary = "whether the VMs of a node could start again elsewhere if it died",
    .details = "Exit status 2 where not all could: those with disks on that node only, and those "
               "that fit nowhere else, each with the reason. There is nothing to apply.",
    .arguments = ONE_ARGUMENT("NODE", "the node's name", COMPLETE_NODE),
    .examples = (const struct example[]){{"poolctl plan lose n2", "Can the pool lose n2?"}, {0}},
    .run = run_node,
};

static const struct command plan_consolidate = {
    .name = "consolidate",
    .summary = "how many nodes could sleep, and what must move for it",
    .details = "A node is emptied whole or not at all, the emptiest first.",
    .options = (const struct option[]){MAX_MOVES_OPTION, {0}},
    .examples =
        (const struct example[]){{"poolctl plan consolidate", "How many hosts are too many?"}, {0}},
    .run = run_consolidate,
};

static const struct command plan_add = {
    .name = "add",
    .summary = "whether so many more VMs fit, and what must move for them",
    .details = "Exit status 2 where not all fit. Applied, only the moves that make room are made; "
               "the VMs are created with 'poolctl vm create'.",
    .arguments =
        (const struct argument[]){
            {.name = "SPEC", .help = "size of each, as 4c,8G or 4c,8G,1Gbps"},
            {.name = "xN", .help = "how many, as x10 (default x1)", .optional = true},
            {0}},
    .options = (const struct option[]){MAX_MOVES_OPTION, {0}},
    .examples =
        (const struct example[]){{"poolctl plan add 4c,8G,1Gbps x10", "Do ten more such VMs fit?"},
                                 {0}},
    .run = run_add,
};

const struct command command_plan = {
    .name = "plan",
    .summary = "what moving VMs would bring and cost, before any is moved",
    .details =
        "Each plan is a list of moves with the seconds and the pause each is predicted to take. "
        "Nothing is done. Written to a file it is JSON, which 'poolctl apply' carries out; what it "
        "says is shown on stderr then.\n\n"
        "The prediction: M bits of memory really in use, B the slower link of both nodes (not "
        "known: 1 Gbit/s), D the rate the guest dirtied memory at in its last migration (never "
        "measured: B / 10), r = D / B. Round i sends M r^i until the rest passes in 100 ms or does "
        "not shrink; seconds = M (1 + r + ... + r^n) / B + 1; pause = M r^n / B + 20 ms.",
    .children = (const struct command *const[]){&plan_rebalance, &plan_drain, &plan_lose,
                                                &plan_consolidate, &plan_add, NULL},
};

/* ---- apply ---------------------------------------------------------------------------------- */

static void show_moves(struct invocation *call, const Vmpool__Plan *plan)
{
    struct view_style style = view_style_of(call);
    struct error ignored = ERROR_INIT;
    json_t *json = style.quiet ? NULL : message_to_json(&plan->base, &ignored);
    style.terminal.out = style.terminal.err;
    style.terminal.colour = false;
    if (json)
        plan_view_print(&style, json);
    json_decref(json);
}

static int carry_out(struct invocation *call, Vmpool__Plan *plan, struct error *err)
{
    struct job_wait wait;
    Vmpool__PlanApply body = VMPOOL__PLAN_APPLY__INIT;
    body.plan = plan;
    body.dry_run = invocation_has(call, "dry-run");
    ADMIN_REQUEST(request, PLAN_APPLY, plan_apply, &body);
    if (job_wait_options(call, &wait, err) < 0)
        return -1;
    if (body.dry_run && (wait.no_wait || wait.timeout_ms))
        return error_set(err, ERROR_USAGE,
                         "--dry-run starts no job: leave out --no-wait and --timeout");
    if (!body.dry_run) {
        struct session *session = session_open(call, err);
        int result = session ? job_run(call, session, &request, &wait, err) : -1;
        session_close(session);
        return result;
    }
    Vmpool__AdminReply *reply = NULL;
    if (ask(call, &request, VMPOOL__ADMIN_REPLY__BODY_PLAN, &reply, err) < 0)
        return -1;
    vmpool__admin_reply__free_unpacked(reply, NULL);
    if (!invocation_has(call, "quiet"))
        (void)fprintf(call->terminal.out, "The plan holds: %zu moves. Nothing was done.\n",
                      plan->n_moves);
    return 0;
}

static int run_apply(struct invocation *call, struct error *err)
{
    Vmpool__Plan *plan = plan_file_read(invocation_argument(call, 0), err);
    if (!plan)
        return -1;
    show_moves(call, plan);
    int result = carry_out(call, plan, err);
    vmpool__plan__free_unpacked(plan, NULL);
    return result;
}

const struct command command_apply = {
    .name = "apply",
    .summary = "carry out a plan that 'poolctl plan' wrote",
    .details =
        "The moves are shown, then made in their order, a few at a time, as one job that survives "
        "a restart of the controller. A plan for another pool, and one made before the pool "
        "changed (a VM or a node came, went, moved or was resized), is refused with exit status 5 "
        "and nothing is done: make it again.\n\n"
        "A move that has become impossible while the plan is carried out is left out, and the job "
        "says so at the end.",
    .arguments = ONE_ARGUMENT("FILE", "the plan; - reads it from stdin", COMPLETE_FILE),
    .options = (const struct option[]){{.name = "dry-run",
                                        .help = "only say whether the plan still holds"},
                                       JOB_WAIT_OPTIONS,
                                       {0}},
    .examples =
        (const struct example[]){
            {"poolctl plan drain n2 > p.json && poolctl apply p.json", "Look, then do it"}, {0}},
    .run = run_apply,
};
