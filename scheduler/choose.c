/* choose.c: filter, score, take the best; the node added first among equals. */
#include <stdlib.h>
#include <string.h>

#include "scheduler/explain.h"
#include "scheduler/search.h"

/* More than any two scores differ by. */
#define AVOIDED_COST 4.0

/* Puts the outcome into @decision and, where nothing fits, into @err. */
static int conclude(const struct scheduler *pool, const struct query *query,
                    const struct node *best, struct sched_decision *decision, struct error *err)
{
    if (!best) {
        explain_refusal(pool, query, decision->summary, sizeof decision->summary);
        return error_set(err, ERROR_NO_CAPACITY, "%s", decision->summary);
    }
    memcpy(decision->node, best->name, sizeof decision->node);
    explain_choice(pool, query, best, decision->summary, sizeof decision->summary);
    return 0;
}

int scheduler_choose(const struct scheduler *pool, const struct sched_request *request,
                     struct sched_decision *decision, struct error *err)
{
    struct query query;
    *decision = (struct sched_decision){0};
    if (query_init(&query, pool, request, err) < 0)
        return -1;
    return conclude(pool, &query, search_best(pool, &query), decision, err);
}

int scheduler_explain(const struct scheduler *pool, const struct sched_request *request,
                      struct sched_decision *decision, struct error *err)
{
    struct query query;
    *decision = (struct sched_decision){0};
    if (query_init(&query, pool, request, err) < 0)
        return -1;
    decision->verdicts = calloc(pool->node_count + 1, sizeof *decision->verdicts);
    if (!decision->verdicts)
        return error_set(err, ERROR_FAILED, "out of memory for %zu verdicts", pool->node_count);
    decision->verdict_count = pool->node_count;
    for (size_t i = 0; i < pool->node_count; i++) {
        const struct node *node = pool->nodes[i];
        struct sched_verdict *verdict = &decision->verdicts[i];
        memcpy(verdict->node, node->name, sizeof verdict->node);
        unsigned failed = filter_node(&query, node);
        verdict->fits = failed == 0;
        if (failed)
            explain_failure(&query, node, failed, verdict);
        else
            verdict->score = search_score(pool, &query, node) -
                             AVOIDED_COST * (double)search_avoided(&query, node);
    }
    return conclude(pool, &query, search_best(pool, &query), decision, err);
}

void sched_decision_free(struct sched_decision *decision)
{
    free(decision->verdicts);
    decision->verdicts = NULL;
    decision->verdict_count = 0;
}
