/* cmd_simulate.c: poolctl simulate: the scheduler itself on a recorded stream of VMs. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/units.h"
#include "poolctl/commands.h"
#include "poolctl/hosts.h"
#include "poolctl/invocation.h"
#include "poolctl/progress.h"
#include "poolctl/report.h"
#include "poolctl/scenario.h"
#include "poolctl/trace.h"
#include "poolctl/view.h"

#define HOSTS_MAX 1000000

struct simulation {
    struct trace trace;
    struct hosts hosts;
    struct sim_config config;
    struct progress progress;
    char label[32];
};

static const struct field columns[] = {
    {"POLICY", "policy", NULL, FIELD_TEXT, 0},
    {"PEAK HOSTS", "peak_hosts", NULL, FIELD_NUMBER, 0},
    {"BOUND", "lower_bound", NULL, FIELD_NUMBER, FIELD_DASH},
    {"ABOVE IT", "above_bound_permille", NULL, FIELD_PERMILLE, 0},
    {"REFUSED", "refused", NULL, FIELD_NUMBER, 0},
    {"MOVES", "moves", NULL, FIELD_NUMBER, FIELD_DASH},
    {"EMPTY", "empty_permille", NULL, FIELD_PERMILLE, 0},
    {"STRANDED CPU", "stranded_cpu_permille", NULL, FIELD_PERMILLE, 0},
    {"STRANDED MEM", "stranded_memory_permille", NULL, FIELD_PERMILLE, 0},
    {"DECISIONS/S", "decisions_per_s", NULL, FIELD_NUMBER, 0},
    {"P50 NS", "decision_p50_ns", NULL, FIELD_NUMBER, 0},
    {"P99 NS", "decision_p99_ns", NULL, FIELD_NUMBER, 0},
    {"P99.9 NS", "decision_p999_ns", NULL, FIELD_NUMBER, FIELD_WIDE},
    {0}};

static const struct field lines[] = {
    {"Policy", "policy", NULL, FIELD_TEXT, 0},
    {"VMs placed", "placed", "vms", FIELD_NUMBER, 0},
    {"VMs refused", "refused", NULL, FIELD_NUMBER, 0},
    {"  by their lifetimes", "placed_by_lifetime", NULL, FIELD_NUMBER, FIELD_OPTIONAL},
    {"VMs moved", "moves", NULL, FIELD_NUMBER, FIELD_OPTIONAL},
    {"  their memory", "moved_mib", NULL, FIELD_MIB, FIELD_OPTIONAL},
    {"Peak hosts in use", "peak_hosts", NULL, FIELD_NUMBER, 0},
    {"  at second", "peak_at_s", NULL, FIELD_NUMBER, 0},
    {"Lower bound", "lower_bound", NULL, FIELD_NUMBER, FIELD_OPTIONAL},
    {"  peak above it", "above_bound_permille", NULL, FIELD_PERMILLE, FIELD_OPTIONAL},
    {"Lifetimes foreseen", "lifetimes_explained_permille", NULL, FIELD_PERMILLE, FIELD_OPTIONAL},
    {"Empty hosts, mean", "empty_permille", NULL, FIELD_PERMILLE, 0},
    {"Stranded CPU, mean", "stranded_cpu_permille", NULL, FIELD_PERMILLE, 0},
    {"Stranded memory, mean", "stranded_memory_permille", NULL, FIELD_PERMILLE, 0},
    {"Stranded bandwidth, mean", "stranded_bandwidth_permille", NULL, FIELD_PERMILLE, 0},
    {"Decisions a second", "decisions_per_s", NULL, FIELD_NUMBER, 0},
    {"Decision, median ns", "decision_p50_ns", NULL, FIELD_NUMBER, 0},
    {"Decision, p99 ns", "decision_p99_ns", NULL, FIELD_NUMBER, 0},
    {"Decision, p99.9 ns", "decision_p999_ns", NULL, FIELD_NUMBER, 0},
    {0}};

static const struct view view_simulation = {"simulations", "simulation", "policy", "no simulations",
                                            columns};

static const struct field event_columns[] = {
    {"SECOND", "second", NULL, FIELD_NUMBER, 0}, {"WHAT", "what", NULL, FIELD_TEXT, 0},
    {"ACTION", "action", NULL, FIELD_TEXT, 0},   {"VM", "vm", NULL, FIELD_TEXT, 0},
    {"FROM", "from", NULL, FIELD_TEXT, 0},       {"HOST", "host", NULL, FIELD_TEXT, 0},
    {"WHY", "why", NULL, FIELD_TEXT, 0},         {0}};

static const struct view view_log = {"log", "event", "what", "nothing happens", event_columns};

static uint64_t now_ns(void)
{
    return (uint64_t)clock_monotonic_ns();
}

static void on_progress(void *context, size_t done, size_t total)
{
    struct simulation *simulation = context;
    progress_count(&simulation->progress, simulation->label, done, total, "VMs");
}

static json_int_t permille(double share)
{
    return (json_int_t)(share * 1000 + 0.5);
}

static json_t *samples_to_json(const struct sim_result *result)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < result->sample_count; i++) {
        const struct sim_sample *s = &result->samples[i];
        const double hosts = (double)(s->hosts_used + s->hosts_empty);
        json_t *sample =
            json_pack("{s:I, s:I, s:I, s:I, s:f, s:{s:f, s:f, s:f}, s:{s:f, s:f, s:f}}", "time_s",
                      (json_int_t)s->time_s, "vms", (json_int_t)s->vms, "hosts_used",
                      (json_int_t)s->hosts_used, "hosts_empty", (json_int_t)s->hosts_empty,
                      "empty_share", hosts > 0 ? (double)s->hosts_empty / hosts : 0.0, "reserved",
                      "cpu", s->load[0], "memory", s->load[1], "bandwidth", s->load[2], "stranded",
                      "cpu", s->stranded[0], "memory", s->stranded[1], "bandwidth", s->stranded[2]);
        (void)json_array_append_new(list, sample);
    }
    return list;
}

/* A figure of the result under its name; json_object_set_new() frees what it cannot take. */
static void put(json_t *json, const char *name, size_t value)
{
    (void)json_object_set_new(json, name, json_integer((json_int_t)value));
}

static json_t *result_to_json(const char *policy, const struct sim_result *result)
{
    json_t *json = json_pack("{s:s}", "policy", policy);
    double ratio =
        result->lower_bound ? (double)result->peak_hosts / (double)result->lower_bound : 0;
    put(json, "vms", result->arrivals);
    put(json, "placed", result->placed);
    put(json, "refused", result->refused);
    put(json, "placed_by_lifetime", result->placed_by_lifetime);
    put(json, "lifetimes_explained_permille", (size_t)permille(result->lifetimes_explained));
    put(json, "moves", result->moves);
    put(json, "moved_mib", (size_t)result->moved_mib);
    put(json, "hosts", result->hosts);
    put(json, "peak_hosts", result->peak_hosts);
    put(json, "peak_at_s", (size_t)result->peak_at_s);
    put(json, "lower_bound", result->lower_bound);
    (void)json_object_set_new(json, "ratio", json_real(ratio));
    put(json, "above_bound_permille", ratio > 1 ? (size_t)permille(ratio - 1) : 0);
    put(json, "empty_permille", (size_t)permille(result->empty_share));
    put(json, "stranded_cpu_permille", (size_t)permille(result->stranded_share[0]));
    put(json, "stranded_memory_permille", (size_t)permille(result->stranded_share[1]));
    put(json, "stranded_bandwidth_permille", (size_t)permille(result->stranded_share[2]));
    put(json, "decisions_per_s",
        result->decision_total_ns
            ? (size_t)(1e9 * (double)result->decisions / (double)result->decision_total_ns)
            : 0);
    put(json, "decision_p50_ns", (size_t)sim_decision_ns(result, 500));
    put(json, "decision_p99_ns", (size_t)sim_decision_ns(result, 990));
    put(json, "decision_p999_ns", (size_t)sim_decision_ns(result, 999));
    (void)json_object_set_new(json, "samples", samples_to_json(result));
    return json;
}

static json_t *simulate_policy(struct simulation *simulation, enum sched_policy policy,
                               struct error *err)
{
    struct sim_result result;
    simulation->config.scheduler.policy = policy;
    (void)snprintf(simulation->label, sizeof simulation->label, "simulating %s",
                   sched_policy_name(policy));
    int status = simulate(&simulation->config, simulation->trace.arrivals, simulation->trace.count,
                          &result, err);
    progress_clear(&simulation->progress);
    if (status < 0)
        return NULL;
    json_t *json = result_to_json(sched_policy_name(policy), &result);
    sim_result_free(&result);
    return json;
}

/* ---- scenarios ---- */

static void put_text(json_t *json, const char *name, const char *text)
{
    if (text)
        (void)json_object_set_new(json, name, json_string(text));
}

static void keep_event(void *context, const struct scenario_event *event)
{
    json_t *list = context, *json = json_object();
    put(json, "second", (size_t)event->second);
    put_text(json, "what", scenario_what_name(event->what));
    put_text(json, "action", event->action);
    put_text(json, "vm", event->vm);
    put_text(json, "from", event->from);
    put_text(json, "host", event->host);
    put_text(json, "why", event->why);
    (void)json_array_append_new(list, json);
}

static int run_scenario(struct invocation *call, const char *path, struct error *err)
{
    struct view_style style = view_style_of(call);
    if (style.format == OUTPUT_TABLE)
        return scenario_run(path, scenario_print, style.terminal.out, err);
    json_t *list = json_array();
    if (scenario_run(path, keep_event, list, err) < 0) {
        json_decref(list);
        return -1;
    }
    return view_list(&style, &view_log, list, err);
}

/* ---- the command line ---- */

static int read_hosts(struct invocation *call, struct simulation *simulation, struct error *err)
{
    const char *host = invocation_option(call, "host");
    const char *file = invocation_option(call, "hosts-file");
    uint64_t count = 0;
    if (!host == !file)
        return error_set(err, ERROR_USAGE,
                         "give the hosts either as --host 64c,128G,25Gbps or as --hosts-file F");
    if (file && invocation_has(call, "hosts"))
        return error_set(err, ERROR_USAGE, "--hosts goes with --host: a file says how many it has");
    if (host && host_parse(host, &simulation->config.host, err) < 0)
        return error_wrap(err, "--host");
    if (invocation_number(call, "hosts", 1, HOSTS_MAX, &count, err) < 0)
        return -1;
    simulation->config.host_count = (size_t)count;
    if (!file)
        return 0;
    if (hosts_read(file, &simulation->hosts, err) < 0)
        return error_wrap(err, "--hosts-file");
    simulation->config.hosts = simulation->hosts.hosts;
    simulation->config.host_count = simulation->hosts.count;
    return 0;
}

/* "2%" or "0.5%" in permille. */
static int read_moves(const struct invocation *call, uint32_t *permille_out, struct error *err)
{
    const char *text = invocation_option(call, "migrate");
    unsigned whole = 0, tenth = 0;
    int end = 0;
    if (!text)
        return 0;
    bool read = (sscanf(text, "%3u%%%n", &whole, &end) == 1 && end && !text[end]) ||
                (sscanf(text, "%3u.%1u%%%n", &whole, &tenth, &end) == 2 && end && !text[end]);
    if (!read || whole > 100)
        return error_set(err, ERROR_USAGE,
                         "--migrate \"%s\": expected the share of running VMs that may move in an "
                         "hour, as 2%% or 0.5%%",
                         text);
    *permille_out = whole * 10 + tenth;
    return 0;
}

/* Sets @first and @last policy to run: one, or all of them. */
static int read_policies(const struct invocation *call, enum sched_policy *first,
                         enum sched_policy *last, struct error *err)
{
    const char *word = invocation_option(call, "policy");
    *first = SCHED_PACK;
    *last = (enum sched_policy)(SCHED_POLICIES - 1);
    if (word && strcmp(word, "all") == 0)
        return 0;
    if (sched_policy_parse(word ? word : "best", first, err) < 0)
        return error_wrap(err, "--policy");
    *last = *first;
    return 0;
}

static int run_policies(struct invocation *call, struct simulation *simulation, struct error *err)
{
    struct view_style style = view_style_of(call);
    enum sched_policy first, last;
    if (read_policies(call, &first, &last, err) < 0)
        return -1;
    json_t *list = json_array();
    for (int policy = (int)first; policy <= (int)last; policy++) {
        json_t *json = simulate_policy(simulation, (enum sched_policy)policy, err);
        if (!json) {
            json_decref(list);
            return -1;
        }
        (void)json_array_append_new(list, json);
    }
    const char *report = invocation_option(call, "report");
    if (report && report_write(report, list, err) < 0) {
        json_decref(list);
        return error_wrap(err, "--report");
    }
    if (first == last) {
        json_t *json = json_incref(json_array_get(list, 0));
        json_decref(list);
        return view_one(&style, &view_simulation, lines, json, err);
    }
    return view_list(&style, &view_simulation, list, err);
}

static int run(struct invocation *call, struct error *err)
{
    struct simulation simulation = {
        .config = {.now_ns = now_ns, .progress = on_progress, .progress_context = &simulation}};
    const char *scenario = invocation_option(call, "scenario");
    if (!scenario == !invocation_option(call, "trace"))
        return error_set(err, ERROR_USAGE,
                         "give what happens either as --trace FILE or as --scenario PATH");
    if (scenario)
        return run_scenario(call, scenario, err);
    progress_begin(&simulation.progress, call);
    int status = -1;
    if (read_hosts(call, &simulation, err) == 0 &&
        read_moves(call, &simulation.config.moves_permille, err) == 0 &&
        trace_read(invocation_option(call, "trace"), &simulation.trace, err) == 0)
        status = run_policies(call, &simulation, err);
    trace_free(&simulation.trace);
    hosts_free(&simulation.hosts);
    return status;
}

const struct command command_simulate = {
    .name = "simulate",
    .summary = "what a recorded stream of VMs would do to a pool",
    .details =
        "Places each VM of the trace with the scheduler the controller runs, in order and without "
        "knowing what comes; needs no controller. Without --hosts the pool grows by a host where "
        "no host fits, and the answer says how many were in use at the peak, and the lower bound: "
        "the largest total demand of any dimension, in hosts.\n\n"
        "The trace is CSV, plain or gzip, with a header and at least the columns arrival_s, "
        "lifetime_s (empty: stays), vcpus, memory_mib and network_mbps, in order of arrival; and, "
        "where it is known who asked, tenant.\n\n"
        "Policy best learns from VMs that left how long those of a size and a tenant stay, and "
        "places by that while its forecasts explain most of what lifetimes differ by.\n\n"
        "A scenario is a file with one event a line: its second, and host NAME SIZE [LABEL=VALUE], "
        "vm NAME SIZE [RULE], rm VM, drain, undrain, fail or back HOST, rebalance, consolidate. A "
        "rule is apart, avoid, with, tenant or on=NAME, spread=GROUP:LABEL[:APART] or "
        "select=KEY:VALUE. What happened is written down by the second, in the other formats as "
        "one list; tests/scenarios has examples, each in a folder.\n\n"
        "Stranded is what hosts in use have free of a dimension beyond the share that is free of "
        "their fullest one. JSON has it, and the hosts in use, over time.",
    .options =
        (const struct option[]){
            {.name = "trace",
             .value = "FILE",
             .complete = COMPLETE_FILE,
             .help = "the VMs, as CSV or gzip of it"},
            {.name = "scenario",
             .value = "PATH",
             .complete = COMPLETE_FILE,
             .help = "hosts, VMs, failures, drains and rebalancing, an event a line: a file, or a "
                     "folder with one named scenario"},
            {.name = "host", .value = "SIZE", .help = "each host, as 64c,128G,25Gbps"},
            {.name = "hosts",
             .value = "N",
             .help = "so many hosts and no more; VMs that fit none are refused and counted"},
            {.name = "hosts-file",
             .value = "FILE",
             .complete = COMPLETE_FILE,
             .help = "hosts of several sizes: a name and a size a line"},
            {.name = "policy",
             .value = "POLICY",
             .words = "pack|spread|balance|best|all",
             .help = "where VMs go: pack, spread, balance, best (default), or all side by side"},
            {.name = "report",
             .value = "FILE",
             .complete = COMPLETE_FILE,
             .help = "write plots of hosts and utilisation over time into this HTML file"},
            {.name = "migrate",
             .value = "SHARE",
             .help = "let VMs move where one would fit no host otherwise: at most this share of "
                     "those that run in any hour, as 2%"},
            {0}},
    .examples =
        (const struct example[]){
            {"poolctl simulate --trace vms.csv.gz --host 64c,128G,25Gbps",
             "How many such hosts these VMs need"},
            {"poolctl simulate --trace vms.csv.gz --host 64c,128G,25Gbps --policy all",
             "All policies side by side"},
            {"poolctl simulate --trace vms.csv --hosts-file hosts.txt -o json | jq "
             ".simulation.refused",
             "How many VMs these hosts would refuse"},
            {"poolctl simulate --scenario night/ -o json | jq '.log[] | select(.what == "
             "\"refused\")'",
             "What did not fit in a scenario"},
            {0}},
    .run = run,
};
