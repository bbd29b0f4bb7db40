#include "controller/rebalance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/units.h"
#include "controller/events.h"
#include "controller/jobs.h"
#include "controller/nodes.h"
#include "controller/pb.h"
#include "controller/planner.h"
#include "controller/plans.h"

/* The same recommendation is repeated after so long. */
#define REPEAT_MS   (60ll * 60 * 1000)
#define NAMED_MOVES 3

/* Of STORE_SETTING. */
#define SETTING "rebalance"

struct rebalance {
    enum rebalance_mode mode;
    Vmpool__Store__Setting *set; /* by an operator; NULL: the mode is the command line's */
    int64_t looked_ms;           /* monotonic: when we looked last; 0: not yet */
    bool planning;               /* the planner works on it */
    int64_t rested_ms;           /* since when no batch is under way */
    uint64_t said;               /* what was recommended last; 0: nothing */
    int64_t said_ms;
};

/* ---- the mode ---- */

static const char *const words[] = {"off", "recommend", "on"};
#define WORDS (sizeof words / sizeof *words)

const char *rebalance_mode_name(enum rebalance_mode mode)
{
    return mode < WORDS ? words[mode] : "?";
}

int rebalance_mode_parse(const char *word, enum rebalance_mode *mode, struct error *err)
{
    for (unsigned i = 0; i < WORDS; i++)
        if (strcmp(word, words[i]) == 0) {
            *mode = (enum rebalance_mode)i;
            return 0;
        }
    return error_set(err, ERROR_USAGE, "rebalancing is off, recommend or on, not \"%.40s\"", word);
}

struct rebalance *rebalance_new(const struct config *config)
{
    struct rebalance *rebalance = mem_new(sizeof *rebalance);
    rebalance->mode = config->rebalance;
    rebalance->rested_ms = clock_monotonic_ms();
    return rebalance;
}

void rebalance_free(struct rebalance *rebalance)
{
    if (rebalance)
        pb_free(rebalance->set);
    free(rebalance);
}

enum rebalance_mode rebalance_mode(const struct controller *controller)
{
    return controller->rebalance->mode;
}

static int load_setting(void *context, const char *key, const uint8_t *data, size_t size,
                        struct error *err)
{
    struct rebalance *rebalance = context;
    struct error unknown = ERROR_INIT;
    Vmpool__Store__Setting *set = pb_unpack(&vmpool__store__setting__descriptor, data, size, err);
    if (!set)
        return -1;
    if (strcmp(key, SETTING) == 0 &&
        rebalance_mode_parse(set->value, &rebalance->mode, &unknown) == 0) {
        rebalance->set = set;
        return 0;
    }
    log_warn("setting %s = %s of another version is left out", key, set->value);
    pb_free(set);
    return 0;
}

int rebalance_load(struct controller *controller, struct error *err)
{
    return store_read(controller->store, STORE_SETTING, "", 0, load_setting, controller->rebalance,
                      err);
}

static void keep_setting(struct controller *controller, const char *word, const char *admin)
{
    Vmpool__Store__Setting *set = mem_new(sizeof *set);
    vmpool__store__setting__init(set);
    pb_set(&set->value, word);
    pb_set(&set->admin, admin);
    set->wall_ms = (uint64_t)clock_wall_ms();
    store_put(controller->store, STORE_SETTING, SETTING, &set->base);
    controller->rebalance->set = set;
}

int rebalance_set(struct controller *controller, const char *word, const char *admin,
                  struct error *err)
{
    struct rebalance *rebalance = controller->rebalance;
    enum rebalance_mode mode = controller->config.rebalance, before = rebalance->mode;
    bool unset = strcmp(word, "default") == 0;
    if (!unset && rebalance_mode_parse(word, &mode, err) < 0)
        return -1;
    pb_free(rebalance->set);
    rebalance->set = NULL;
    if (unset)
        store_delete(controller->store, STORE_SETTING, SETTING);
    else
        keep_setting(controller, word, admin);
    controller_touch(controller);
    rebalance->mode = mode;
    rebalance->looked_ms = 0;
    rebalance->said = 0;
    if (mode != before)
        event_add(controller, "info", "rebalance.mode", controller->config.pool_name, 0,
                  "%s, was %s; set by %s", words[mode], words[before], admin);
    return 0;
}

Vmpool__RebalanceMode *rebalance_describe(const struct controller *controller)
{
    const struct rebalance *rebalance = controller->rebalance;
    const struct job *job = job_plan_running(controller);
    Vmpool__RebalanceMode *out = mem_new(sizeof *out);
    vmpool__rebalance_mode__init(out);
    pb_set(&out->mode, words[rebalance->mode]);
    pb_set(&out->started_with, words[controller->config.rebalance]);
    if (rebalance->set) {
        pb_set(&out->set_by, rebalance->set->admin);
        out->set_wall_ms = rebalance->set->wall_ms;
    }
    out->job = job ? job->stored->id : 0;
    return out;
}

/* ---- looking ---- */

/* Since when each node is hot. */
struct heat {
    struct controller *controller;
    int64_t now_ms;
};

static void note_hot(void *context, const char *name)
{
    const struct heat *heat = context;
    struct node *node = node_by_name(heat->controller, name);
    if (node)
        node->hot_ms = node->hot_ms < 0 ? -node->hot_ms : heat->now_ms;
}

static void watch_heat(struct controller *controller, int64_t now_ms)
{
    struct heat heat = {controller, now_ms};
    /* Negative: hot until now; what is not confirmed is over. */
    for (struct node *node = controller->nodes; node; node = node->next)
        node->hot_ms = -node->hot_ms;
    plan_each_hot(controller->scheduler, controller->config.rebalance_threshold_permille, note_hot,
                  &heat);
    for (struct node *node = controller->nodes; node; node = node->next)
        if (node->hot_ms < 0)
            node->hot_ms = 0;
}

static void describe_moves(const struct plan *plan, char *out, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < plan->count && i < NAMED_MOVES; i++) {
        const struct plan_move *move = &plan->moves[i];
        char time[32];
        int length =
            snprintf(out + used, size - used, "%s%.63s from %.63s to %.63s in %s (%s)",
                     i ? "; " : "", move->vm, move->from, move->to,
                     units_format_ms(move->cost.duration_ms, time, sizeof time), move->why);
        if (length > 0 && (size_t)length < size - used)
            used += (size_t)length;
    }
    if (plan->count > NAMED_MOVES)
        (void)snprintf(out + used, size - used, "; and %zu more", plan->count - NAMED_MOVES);
}

static uint64_t hash_of(const char *text)
{
    return name_map_hash(text) | 1;
}

static void recommend(struct controller *controller, const struct plan *plan, int64_t now_ms)
{
    struct rebalance *rebalance = controller->rebalance;
    char moves[768];
    uint64_t hash = UINT64_C(0);
    describe_moves(plan, moves, sizeof moves);
    for (size_t i = 0; i < plan->count; i++)
        hash = hash * 31 + hash_of(plan->moves[i].vm) + 7 * hash_of(plan->moves[i].to);
    if (hash == rebalance->said && now_ms - rebalance->said_ms < REPEAT_MS)
        return;
    rebalance->said = hash;
    rebalance->said_ms = now_ms;
    event_add(controller, "warning", "rebalance.recommended", controller->config.pool_name, 0,
              "%s. Move %s. \"poolctl plan rebalance\" makes a plan to apply", plan->summary,
              moves);
}

static void carry_out(struct controller *controller, const struct plan *plan)
{
    char moves[768];
    describe_moves(plan, moves, sizeof moves);
    Vmpool__Plan *message = plan_describe(controller, plan, "");
    const struct job *job = job_plan_begin(controller, message, "rebalance");
    pb_free(message);
    event_add(controller, "info", "rebalance.started", controller->config.pool_name,
              job->stored->id, "%s. Moving %s", plan->summary, moves);
}

static int make(void *context, const struct snapshot *snapshot, struct error *err)
{
    return plan_rebalance(snapshot->pool, &snapshot->config, context, err);
}

/* The pool may have changed since, and the mode: each move is looked at again before it is made. */
static void made(struct controller *controller, void *context, const struct error *err)
{
    struct rebalance *rebalance = controller->rebalance;
    const struct plan *plan = context;
    int64_t now_ms = clock_monotonic_ms();
    rebalance->planning = false;
    if (err->kind != ERROR_NONE) {
        log_error("cannot look whether VMs should move: %s", err->text);
    } else if (plan->count == 0) {
        rebalance->said = 0;
    } else if (rebalance->mode == REBALANCE_ON && !job_plan_running(controller)) {
        carry_out(controller, plan);
        rebalance->rested_ms = now_ms;
    } else if (rebalance->mode == REBALANCE_RECOMMEND) {
        recommend(controller, plan, now_ms);
    }
}

static void free_plan(void *context)
{
    plan_free(context);
    free(context);
}

void rebalance_check(struct controller *controller)
{
    struct rebalance *rebalance = controller->rebalance;
    const struct config *config = &controller->config;
    struct error err = ERROR_INIT;
    int64_t now_ms = clock_monotonic_ms();
    if (rebalance->mode == REBALANCE_OFF || rebalance->planning ||
        (rebalance->looked_ms != 0 &&
         now_ms - rebalance->looked_ms < (int64_t)config->rebalance_interval_ms))
        return;
    rebalance->looked_ms = now_ms;
    watch_heat(controller, now_ms);
    if (job_plan_running(controller))
        rebalance->rested_ms = now_ms;
    if (nodes_settling(controller) ||
        (rebalance->mode == REBALANCE_ON &&
         now_ms - rebalance->rested_ms < (int64_t)config->rebalance_cooldown_ms))
        return;
    const struct planner_work work = {.config = plans_own_config(controller),
                                      .context = mem_new(sizeof(struct plan)),
                                      .make = make,
                                      .done = made,
                                      .free = free_plan};
    rebalance->planning = true;
    if (planner_begin(controller, &work, &err) < 0) {
        rebalance->planning = false;
        log_error("cannot look whether VMs should move: %s", err.text);
    }
}
