/* plan_cost.c: the words of plans, and what a migration takes; the formula is in plan.h. */
#include <string.h>

#include "scheduler/plan.h"

#define DOWNTIME_S     0.1
#define ROUNDS_MAX     30
#define STALL_RATIO    0.9
#define OVERHEAD_MS    1000
#define HANDOVER_US    20000
#define ASSUMED_BPS    1000000000u
#define LINK_BPS_MAX   10000000000000u /* more than any link: stands for "not known" */
#define BITS_OF_MIB    (8.0 * 1024 * 1024)
#define DURATION_S_MAX 1e9

static const char *const names[PLAN_KINDS] = {"rebalance", "drain", "lose", "consolidate", "add"};

const char *plan_kind_name(enum plan_kind kind)
{
    return kind < PLAN_KINDS ? names[kind] : "?";
}

int plan_kind_parse(const char *word, enum plan_kind *kind, struct error *err)
{
    for (int i = 0; i < PLAN_KINDS; i++)
        if (strcmp(word, names[i]) == 0) {
            *kind = (enum plan_kind)i;
            return 0;
        }
    return error_set(err, ERROR_USAGE,
                     "\"%.40s\" is no kind of plan: expected rebalance, drain, lose, consolidate "
                     "or add",
                     word);
}

struct plan_cost plan_cost_of(uint64_t copy_mib, uint64_t dirty_bps, uint64_t link_bps)
{
    double link = link_bps && link_bps < LINK_BPS_MAX ? (double)link_bps : (double)ASSUMED_BPS;
    double ratio = dirty_bps ? (double)dirty_bps / link : 0.1;
    double left = (double)copy_mib * BITS_OF_MIB, sent = 0;
    if (ratio > 1)
        ratio = 1; /* it can't dirty more than it has */
    for (int round = 0; round < ROUNDS_MAX; round++) {
        sent += left;
        left *= ratio;
        if (left <= link * DOWNTIME_S || ratio >= STALL_RATIO)
            break;
    }
    sent += left;
    double seconds = sent / link;
    if (seconds > DURATION_S_MAX)
        seconds = DURATION_S_MAX;
    return (struct plan_cost){
        .bytes = (uint64_t)(sent / 8),
        .duration_ms = (uint64_t)(seconds * 1000) + OVERHEAD_MS,
        .pause_us = (uint64_t)(left / link * 1e6) + HANDOVER_US,
        .dirty_known = dirty_bps > 0,
    };
}
