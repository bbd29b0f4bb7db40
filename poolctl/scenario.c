/* scenario.c: see scenario.h. */
#include "poolctl/scenario.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "poolctl/hosts.h"
#include "scheduler/plan.h"

#define WORDS_MAX  32
#define LABELS_MAX 8
#define TIME_MAX_S UINT64_C(100000000000)

struct host {
    struct host *next;
    struct sched_node node;
    struct sched_label labels[LABELS_MAX];
};

struct guest {
    struct guest *next;
    struct sched_request request;
    struct sched_label selector[LABELS_MAX];
    const char *host; /* NULL: waits for one */
};

struct line {
    struct line *next;
    char *text; /* names point into it until the end */
};

struct scenario {
    scenario_fn say;
    void *context;
    struct scheduler *pool;
    struct sched_config config;
    struct line *lines;
    struct host *hosts;
    struct guest *guests, **last_guest;
    uint64_t now_s;
    char *words[WORDS_MAX];
    size_t count;
};

static void tell(const struct scenario *scenario, struct scenario_event event)
{
    event.second = scenario->now_s;
    scenario->say(scenario->context, &event);
}

/* tell(scenario, (struct scenario_event){...}) with less ink. */
#define SAY(scenario, what_, ...)                                                                  \
    tell((scenario), (struct scenario_event){.what = SCENARIO_##what_, __VA_ARGS__})

static struct host *find_host(const struct scenario *scenario, const char *name)
{
    struct host *host = scenario->hosts;
    while (host && strcmp(host->node.name, name) != 0)
        host = host->next;
    return host;
}

static struct guest *find_guest(const struct scenario *scenario, const char *name)
{
    struct guest *guest = scenario->guests;
    while (guest && strcmp(guest->request.vm, name) != 0)
        guest = guest->next;
    return guest;
}

/* "KEY=VALUE" cut in two; NULL: it is no such word. */
static char *cut(char *word, char at)
{
    char *value = strchr(word, at);
    if (!value || value == word || !value[1])
        return NULL;
    *value = '\0';
    return value + 1;
}

/* ---- VMs ---- */

static int put(struct scenario *scenario, struct guest *guest, const char *host, struct error *err)
{
    const struct host *known = find_host(scenario, host);
    guest->host = known ? known->node.name : NULL;
    return scheduler_place(scenario->pool, &guest->request, host, err);
}

/* 1: it has a place; 0: none, @why says it. */
static int try_place(struct scenario *scenario, struct guest *guest, struct sched_decision *why,
                     struct error *err)
{
    if (scheduler_choose(scenario->pool, &guest->request, why, err) == 0)
        return put(scenario, guest, why->node, err) < 0 ? -1 : 1;
    if (err->kind != ERROR_NO_CAPACITY)
        return -1;
    *err = (struct error)ERROR_INIT;
    return 0;
}

static int place_waiting(struct scenario *scenario, struct error *err)
{
    for (struct guest *guest = scenario->guests; guest; guest = guest->next) {
        struct sched_decision decision;
        int placed = guest->host ? 0 : try_place(scenario, guest, &decision, err);
        if (placed < 0)
            return -1;
        if (placed)
            SAY(scenario, RESTARTS, .vm = guest->request.vm, .host = guest->host);
    }
    return 0;
}

static int read_rule(struct guest *guest, char *word, struct error *err)
{
    struct sched_request *request = &guest->request;
    uint64_t apart = 1;
    char *value = cut(word, '='), *second = NULL;
    if (!value)
        return error_set(err, ERROR_USAGE, "\"%s\": expected a rule as apart=GROUP", word);
    if (strcmp(word, "apart") == 0 || strcmp(word, "avoid") == 0) {
        request->anti_affinity_group = value;
        request->anti_affinity_soft = strcmp(word, "avoid") == 0;
    } else if (strcmp(word, "with") == 0) {
        request->affinity_group = value;
    } else if (strcmp(word, "tenant") == 0) {
        request->tenant = value;
    } else if (strcmp(word, "on") == 0) {
        request->only_node = value;
    } else if (strcmp(word, "spread") == 0 && (second = cut(value, ':'))) {
        char *third = strchr(second, ':') ? cut(second, ':') : NULL;
        if (third && units_parse_number(third, "spread", 1, 1000, &apart, err) < 0)
            return -1;
        request->spread_group = value;
        request->spread_label = second;
        request->spread_skew = (uint32_t)apart;
    } else if (strcmp(word, "select") == 0 && (second = cut(value, ':')) &&
               request->selector_count < LABELS_MAX) {
        guest->selector[request->selector_count++] = (struct sched_label){value, second};
    } else {
        return error_set(err, ERROR_USAGE,
                         "rule %s: expected apart, avoid, with, tenant or on=NAME, "
                         "spread=GROUP:LABEL[:APART] or select=KEY:VALUE",
                         word);
    }
    return 0;
}

static int do_vm(struct scenario *scenario, struct error *err)
{
    struct sched_decision decision;
    if (scenario->count < 4 || find_guest(scenario, scenario->words[2]))
        return error_set(err, ERROR_USAGE, "expected a new VM as: 5 vm web1 4c,8G,1Gbps");
    struct guest *guest = calloc(1, sizeof *guest);
    if (!guest)
        return error_set(err, ERROR_FAILED, "out of memory for a VM");
    guest->request.vm = scenario->words[2];
    guest->request.selector = guest->selector;
    int status = host_parse(scenario->words[3], &guest->request.need, err);
    for (size_t i = 4; status == 0 && i < scenario->count; i++)
        status = read_rule(guest, scenario->words[i], err);
    if (status == 0)
        status = try_place(scenario, guest, &decision, err);
    if (status > 0) {
        guest->request.only_node = NULL; /* that was for its first place */
        *scenario->last_guest = guest;
        scenario->last_guest = &guest->next;
        SAY(scenario, PLACED, .vm = guest->request.vm, .host = guest->host);
        return 0;
    }
    if (status == 0)
        SAY(scenario, REFUSED, .vm = guest->request.vm, .why = decision.summary);
    free(guest);
    return status;
}

static int do_rm(struct scenario *scenario, struct error *err)
{
    struct guest **at = &scenario->guests;
    while (scenario->count == 3 && *at && strcmp((*at)->request.vm, scenario->words[2]) != 0)
        at = &(*at)->next;
    if (scenario->count != 3 || !*at)
        return error_set(err, ERROR_USAGE, "expected a VM that is placed as: 9 rm web1");
    struct guest *guest = *at;
    *at = guest->next;
    if (!*at)
        scenario->last_guest = at;
    scheduler_remove_vm(scenario->pool, guest->request.vm);
    SAY(scenario, REMOVED, .vm = guest->request.vm);
    free(guest);
    return place_waiting(scenario, err);
}

/* ---- hosts ---- */

static int do_host(struct scenario *scenario, struct error *err)
{
    if (scenario->count < 4)
        return error_set(err, ERROR_USAGE, "expected: 0 host n1 64c,128G,25Gbps zone=a");
    if (!scenario->pool && !(scenario->pool = scheduler_new(&scenario->config, err)))
        return -1;
    struct host *host = find_host(scenario, scenario->words[2]);
    if (!host) {
        host = calloc(1, sizeof *host);
        if (!host)
            return error_set(err, ERROR_FAILED, "out of memory for a host");
        host->next = scenario->hosts;
        scenario->hosts = host;
    }
    host->node.name = scenario->words[2];
    host->node.labels = host->labels;
    host->node.label_count = 0;
    for (size_t i = 4; i < scenario->count; i++) {
        char *value = cut(scenario->words[i], '=');
        if (!value || host->node.label_count == LABELS_MAX)
            return error_set(err, ERROR_USAGE, "\"%s\": expected up to %d labels as zone=a",
                             scenario->words[i], LABELS_MAX);
        host->labels[host->node.label_count++] = (struct sched_label){scenario->words[i], value};
    }
    if (host_parse(scenario->words[3], &host->node.capacity, err) < 0 ||
        scheduler_set_node(scenario->pool, &host->node, err) < 0)
        return -1;
    return place_waiting(scenario, err);
}

/* Carries out what was planned. */
static int follow(struct scenario *scenario, const struct plan *plan, bool fails, struct error *err)
{
    for (size_t i = 0; i < plan->count; i++) {
        const struct plan_move *move = &plan->moves[i];
        struct guest *guest = find_guest(scenario, move->vm);
        if (!guest || put(scenario, guest, move->to, err) < 0)
            return -1;
        if (fails)
            SAY(scenario, RESTARTS, .vm = move->vm, .host = move->to);
        else
            SAY(scenario, MOVES, .vm = move->vm, .from = move->from, .host = move->to);
    }
    return 0;
}

static int plan_and_follow(struct scenario *scenario, const char *host, struct error *err)
{
    const char *what = scenario->words[1];
    const struct plan_config config = {0};
    struct plan plan;
    bool fails = strcmp(what, "fail") == 0;
    int status =
        fails                              ? plan_lose(scenario->pool, &config, host, &plan, err)
        : strcmp(what, "drain") == 0       ? plan_drain(scenario->pool, &config, host, &plan, err)
        : strcmp(what, "consolidate") == 0 ? plan_consolidate(scenario->pool, &config, &plan, err)
                                           : plan_rebalance(scenario->pool, &config, &plan, err);
    if (status < 0)
        return -1;
    status = follow(scenario, &plan, fails, err);
    for (size_t i = 0; status == 0 && i < plan.left_count; i++) {
        struct guest *guest = find_guest(scenario, plan.left[i].vm);
        if (fails)
            SAY(scenario, WAITS, .vm = plan.left[i].vm, .why = plan.left[i].why);
        else
            SAY(scenario, STAYS, .vm = plan.left[i].vm, .why = plan.left[i].why);
        if (fails && guest) {
            scheduler_remove_vm(scenario->pool, guest->request.vm);
            guest->host = NULL;
        }
    }
    if (status == 0 && !host)
        SAY(scenario, PLAN, .action = what, .why = plan.summary);
    plan_free(&plan);
    return status;
}

static int do_node(struct scenario *scenario, struct error *err)
{
    const char *what = scenario->words[1];
    struct host *host = scenario->count == 3 ? find_host(scenario, scenario->words[2]) : NULL;
    if (!host)
        return error_set(err, ERROR_USAGE, "expected a host that there is as: 20 %s n1", what);
    bool leaves = strcmp(what, "drain") == 0 || strcmp(what, "fail") == 0;
    if (strcmp(what, "drain") == 0 || strcmp(what, "undrain") == 0)
        host->node.drained = leaves;
    else
        host->node.lost = leaves;
    SAY(scenario, HOST, .host = host->node.name, .action = what);
    if (scheduler_set_node(scenario->pool, &host->node, err) < 0)
        return -1;
    return leaves ? plan_and_follow(scenario, host->node.name, err) : place_waiting(scenario, err);
}

static int do_policy(struct scenario *scenario, struct error *err)
{
    if (scenario->pool || scenario->count != 3)
        return error_set(err, ERROR_USAGE, "expected before the first host: 0 policy pack");
    return sched_policy_parse(scenario->words[2], &scenario->config.policy, err);
}

/* ---- lines ---- */

static int do_event(struct scenario *scenario, struct error *err)
{
    const char *verb = scenario->words[1];
    if (strcmp(verb, "policy") == 0)
        return do_policy(scenario, err);
    if (strcmp(verb, "host") == 0)
        return do_host(scenario, err);
    if (!scenario->pool)
        return error_set(err, ERROR_USAGE, "expected a host first: 0 host n1 64c,128G,25Gbps");
    if (strcmp(verb, "vm") == 0)
        return do_vm(scenario, err);
    if (strcmp(verb, "rm") == 0)
        return do_rm(scenario, err);
    if (strcmp(verb, "rebalance") == 0 || strcmp(verb, "consolidate") == 0)
        return plan_and_follow(scenario, NULL, err);
    if (strcmp(verb, "drain") == 0 || strcmp(verb, "undrain") == 0 || strcmp(verb, "fail") == 0 ||
        strcmp(verb, "back") == 0)
        return do_node(scenario, err);
    return error_set(err, ERROR_USAGE,
                     "\"%s\": expected policy, host, vm, rm, drain, undrain, fail, back, rebalance "
                     "or consolidate",
                     verb);
}

static int read_line(struct scenario *scenario, const char *text, struct error *err)
{
    uint64_t now_s = 0;
    char *rest = NULL;
    struct line *line = calloc(1, sizeof *line);
    if (line)
        line->text = strdup(text);
    if (!line || !line->text) {
        free(line);
        return error_set(err, ERROR_FAILED, "out of memory for a line");
    }
    line->next = scenario->lines;
    scenario->lines = line;
    line->text[strcspn(line->text, "#\r\n")] = '\0';
    scenario->count = 0;
    for (char *word = strtok_r(line->text, " \t", &rest); word;
         word = strtok_r(NULL, " \t", &rest)) {
        if (scenario->count == WORDS_MAX)
            return error_set(err, ERROR_USAGE, "more than %d words", WORDS_MAX);
        scenario->words[scenario->count++] = word;
    }
    if (scenario->count == 0)
        return 0;
    if (units_parse_number(scenario->words[0], "the second", 0, TIME_MAX_S, &now_s, err) < 0)
        return -1;
    if (now_s < scenario->now_s || scenario->count < 2)
        return error_set(err, ERROR_USAGE,
                         "expected a second not before %" PRIu64 " and what happens then",
                         scenario->now_s);
    scenario->now_s = now_s;
    return do_event(scenario, err);
}

static void scenario_free(struct scenario *scenario)
{
    scheduler_free(scenario->pool);
    for (struct guest *at = scenario->guests, *next; at; at = next) {
        next = at->next;
        free(at);
    }
    for (struct host *at = scenario->hosts, *next; at; at = next) {
        next = at->next;
        free(at);
    }
    for (struct line *at = scenario->lines, *next; at; at = next) {
        next = at->next;
        free(at->text);
        free(at);
    }
}

/* A folder has its scenario in a file of that name. */
static FILE *open_scenario(const char *path, struct error *err)
{
    char inside[PATH_MAX];
    struct stat stat_of;
    bool folder = stat(path, &stat_of) == 0 && S_ISDIR(stat_of.st_mode);
    int length = snprintf(inside, sizeof inside, "%s%s", path, folder ? "/scenario" : "");
    if (length < 0 || (size_t)length >= sizeof inside) {
        (void)error_set(err, ERROR_USAGE, "the path %.100s... is too long", path);
        return NULL;
    }
    FILE *file = fopen(inside, "re");
    if (!file)
        (void)error_errno(err, errno, "open %s", inside);
    return file;
}

int scenario_run(const char *path, scenario_fn say, void *context, struct error *err)
{
    struct scenario scenario = {.say = say, .context = context, .config = {.policy = SCHED_BEST}};
    auto_file FILE *file = open_scenario(path, err);
    auto_free char *text = NULL;
    size_t size = 0, number = 0;
    int status = 0;
    if (!file)
        return -1;
    scenario.last_guest = &scenario.guests;
    while (status == 0 && getline(&text, &size, file) >= 0) {
        number++;
        status = read_line(&scenario, text, err);
        if (status < 0 && err->kind != ERROR_FAILED)
            err->kind = ERROR_USAGE;
    }
    scenario_free(&scenario);
    return status < 0 ? error_wrap(err, "%s: line %zu", path, number) : 0;
}

/* ---- for people ---- */

const char *scenario_what_name(enum scenario_what what)
{
    static const char *const names[] = {
        [SCENARIO_PLACED] = "placed",   [SCENARIO_REFUSED] = "refused",
        [SCENARIO_REMOVED] = "removed", [SCENARIO_RESTARTS] = "restarts",
        [SCENARIO_MOVES] = "moves",     [SCENARIO_WAITS] = "waits",
        [SCENARIO_STAYS] = "stays",     [SCENARIO_HOST] = "host",
        [SCENARIO_PLAN] = "plan",
    };
    return what < sizeof names / sizeof *names ? names[what] : "?";
}

void scenario_print(void *context, const struct scenario_event *event)
{
    FILE *log = context;
    (void)fprintf(log, "%6" PRIu64 "  ", event->second);
    switch (event->what) {
    case SCENARIO_PLACED:
        (void)fprintf(log, "vm %s on %s\n", event->vm, event->host);
        break;
    case SCENARIO_RESTARTS:
        (void)fprintf(log, "vm %s starts again on %s\n", event->vm, event->host);
        break;
    case SCENARIO_MOVES:
        (void)fprintf(log, "vm %s moves from %s to %s\n", event->vm, event->from, event->host);
        break;
    case SCENARIO_REMOVED:
        (void)fprintf(log, "vm %s removed\n", event->vm);
        break;
    case SCENARIO_REFUSED:
    case SCENARIO_WAITS:
    case SCENARIO_STAYS:
        (void)fprintf(log, "vm %s %s: %s\n", event->vm, scenario_what_name(event->what),
                      event->why);
        break;
    case SCENARIO_HOST:
        (void)fprintf(log, "host %s: %s\n", event->host, event->action);
        break;
    case SCENARIO_PLAN:
        (void)fprintf(log, "%s: %s\n", event->action, event->why);
        break;
    }
}
