/*
 * score.c: the policies, each a number from the loads a node would have with the VM on it.
 *
 *     pack     the mean load: fill what is filled, so that whole hosts stay free
 *     spread   1 - the highest load: keep the fullest dimension of any host low
 *     balance  1 - (highest - lowest load): use up CPU, memory and bandwidth together, so that
 *              none is stranded beside another that is full
 *
 * Reservations decide what fits. Measured use comes in where it says more than they do: spread and
 * balance take the larger of both, and pack avoids hosts that measure hot whatever is reserved.
 */
#include "scheduler/score.h"

/* A host measured above this share of its capacity is hot: pack takes any other first. */
#define HOT_LOAD 0.9

static double share(uint64_t amount, uint64_t whole)
{
    return whole ? (double)amount / (double)whole : 0.0;
}

struct load load_reserved(const struct query *query, const struct node *node)
{
    const struct sched_resources reserved = query_reserved(query, node);
    return (struct load){
        share(reserved.cpu_milli + query->need.cpu_milli, node->limit.cpu_milli),
        share(reserved.memory_mib + query->need.memory_mib, node->limit.memory_mib),
        share(reserved.bandwidth_bps + query->need.bandwidth_bps, node->limit.bandwidth_bps),
    };
}

struct load load_measured(const struct node *node)
{
    return (struct load){
        share(node->used.cpu_milli, node->capacity.cpu_milli),
        share(node->used.memory_mib, node->capacity.memory_mib),
        share(node->used.bandwidth_bps, node->capacity.bandwidth_bps),
    };
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

static double highest(const struct load *load)
{
    return larger(load->cpu, larger(load->memory, load->bandwidth));
}

static double lowest(const struct load *load)
{
    return smaller(load->cpu, smaller(load->memory, load->bandwidth));
}

double score_node(enum sched_policy policy, const struct query *query, const struct node *node)
{
    const struct load reserved = load_reserved(query, node);
    const struct load measured = load_measured(node);
    const struct load either = {
        larger(reserved.cpu, measured.cpu),
        larger(reserved.memory, measured.memory),
        larger(reserved.bandwidth, measured.bandwidth),
    };
    switch (policy) {
    case SCHED_PACK:
        return (reserved.cpu + reserved.memory + reserved.bandwidth) / 3 -
               (highest(&measured) > HOT_LOAD ? 1 : 0);
    case SCHED_SPREAD:
        return 1 - highest(&either);
    case SCHED_BALANCE:
        return 1 - (highest(&either) - lowest(&either));
    }
    return 0;
}

const char *policy_name(enum sched_policy policy)
{
    switch (policy) {
    case SCHED_PACK:
        return "pack";
    case SCHED_SPREAD:
        return "spread";
    case SCHED_BALANCE:
        return "balance";
    }
    return "?";
}
