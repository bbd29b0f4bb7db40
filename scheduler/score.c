/*
 * score.c: the policies, each a number from the loads a node would have with the VM on it.
 *
 *     pack     the mean load: fill what is filled, so that whole hosts stay free
 *     spread   1 - the highest load: keep the fullest dimension of any host low
 *     balance  1 - (highest - lowest load): use up CPU, memory and bandwidth together, so that
 *              none is stranded beside another that is full
 *     best     the memory load: a host whose memory is full is done, whatever CPU is left on it,
 *              and the mean of pack wrongly takes such CPU for room worth keeping free. Needed
 *              fewest hosts of all scores tried on real arrivals (`poolctl simulate`)
 *
 * Reservations decide what fits. Measured use comes in where it says more than they do: spread and
 * balance take the larger of both, and pack and best avoid hosts that measure hot whatever is
 * reserved.
 *
 * A score is computed from a box; a point is the box whose faces coincide. Each term takes the face
 * that flatters it, so the score of a box is never below that of a point inside that fits
 * (point.h).
 */
#include "scheduler/score.h"

#include "scheduler/exits.h"

/* What fits leaves no load above 1; a little more, so that rounding is on the safe side. */
#define FULL_LOAD (1 + 1e-9)
/* A host measured above this share of its capacity is hot: pack takes any other first. */
#define HOT_LOAD 0.9
/* Memory load that a VM gives up to be with others that leave when it does, half of it to be so
 * many slots nearer. Measured flat from a half to twice of either (docs/scheduler.md). */
#define PARTING_COST       0.5
#define PARTING_HALF_SLOTS (12 * 3600 / EXIT_SLOT_S)

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

static double highest(const double load[DIMENSIONS])
{
    return larger(load[CPU], larger(load[MEMORY], load[BANDWIDTH]));
}

static double lowest(const double load[DIMENSIONS])
{
    return smaller(load[CPU], smaller(load[MEMORY], load[BANDWIDTH]));
}

void load_with(const struct sched_resources *need, const struct point *point,
               double load[DIMENSIONS])
{
    for (int d = 0; d < DIMENSIONS; d++)
        load[d] = point->load[d] + (double)resource(need, d) * point->per_unit[d];
}

/* load_with() of nodes in a box that ends at @high and on which the VM fits. */
static void load_fitting(const struct sched_resources *need, const struct point *high,
                         double load[DIMENSIONS])
{
    load_with(need, high, load);
    for (int d = 0; d < DIMENSIONS; d++)
        load[d] = smaller(load[d], FULL_LOAD);
}

/* The load that counts for spread and balance: reserved or measured, whichever is more. */
static void load_either(const struct sched_resources *need, const struct point *point,
                        double load[DIMENSIONS])
{
    load_with(need, point, load);
    for (int d = 0; d < DIMENSIONS; d++)
        load[d] = larger(load[d], point->measured[d]);
}

/* What it costs to put a VM with others that leave earlier or later than it. Slots are whole
 * numbers, so the quotient keeps their order. */
static double parting(uint64_t exit_slot, uint64_t low_slot, uint64_t high_slot)
{
    uint64_t apart = 0;
    if (exit_slot == 0)
        return 0;
    if (exit_slot < low_slot)
        apart = low_slot - exit_slot;
    else if (exit_slot > high_slot)
        apart = exit_slot - high_slot;
    return PARTING_COST * ((double)apart / (double)(apart + PARTING_HALF_SLOTS));
}

static double score(enum sched_policy policy, const struct query *query, const struct point *low,
                    const struct point *high)
{
    const struct sched_resources *need = &query->need;
    double least[DIMENSIONS], most[DIMENSIONS];
    switch (policy) {
    case SCHED_PACK:
        load_fitting(need, high, most);
        return (most[CPU] + most[MEMORY] + most[BANDWIDTH]) / 3 -
               (highest(low->measured) > HOT_LOAD ? 1 : 0);
    case SCHED_BEST:
        load_fitting(need, high, most);
        return most[MEMORY] - (highest(low->measured) > HOT_LOAD ? 1 : 0) -
               parting(query->exit_slot, low->exit_slot, high->exit_slot);
    case SCHED_SPREAD:
        load_either(need, low, least);
        return 1 - highest(least);
    case SCHED_BALANCE:
        load_either(need, low, least);
        load_either(need, high, most);
        return 1 - larger(0, highest(least) - lowest(most));
    }
    return 0;
}

double score_point(enum sched_policy policy, const struct query *query, const struct point *point)
{
    return score(policy, query, point, point);
}

double score_bound(enum sched_policy policy, const struct query *query, const struct box *box)
{
    return score(policy, query, &box->low, &box->high);
}
