#include "controller/rebalance.h"

#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/units.h"
#include "controller/events.h"
#include "controller/jobs.h"
#include "controller/nodes.h"
#include "controller/pb.h"
#include "controller/plans.h"

/* The same recommendation is repeated after so long. */
#define REPEAT_MS   (60ll * 60 * 1000)
#define NAMED_MOVES 3

struct rebalance {
    int64_t looked_ms; /* monotonic: when we looked last; 0: not yet */
    int64_t rested_ms; /* since when no batch is under way */
    uint64_t said;     /* what was recommended last; 0: nothing */
    int64_t said_ms;
};

struct rebalance *rebalance_new(void)
{
    struct rebalance *rebalance = mem_new(sizeof *rebalance);
    rebalance->rested_ms = clock_monotonic_ms();
    return rebalance;
}

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

void rebalance_check(struct controller *controller)
{
    struct rebalance *rebalance = controller->rebalance;
    const struct config *config = &controller->config;
    struct error err = ERROR_INIT;
    struct plan plan;
    int64_t now_ms = clock_monotonic_ms();
    if (config->rebalance == REBALANCE_OFF ||
        (rebalance->looked_ms != 0 &&
         now_ms - rebalance->looked_ms < (int64_t)config->rebalance_interval_ms))
        return;
    rebalance->looked_ms = now_ms;
    watch_heat(controller, now_ms);
    if (job_plan_running(controller))
        rebalance->rested_ms = now_ms;
    if (nodes_settling(controller) ||
        (config->rebalance == REBALANCE_ON &&
         now_ms - rebalance->rested_ms < (int64_t)config->rebalance_cooldown_ms))
        return;
    struct plan_config own = plans_own_config(controller);
    if (plan_rebalance(controller->scheduler, &own, &plan, &err) < 0) {
        log_error("cannot look whether VMs should move: %s", err.text);
        return;
    }
    if (plan.count == 0)
        rebalance->said = 0;
    else if (config->rebalance == REBALANCE_ON)
        carry_out(controller, &plan);
    else
        recommend(controller, &plan, now_ms);
    if (plan.count > 0 && config->rebalance == REBALANCE_ON)
        rebalance->rested_ms = now_ms;
    plan_free(&plan);
}
