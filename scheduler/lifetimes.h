/*
 * lifetimes.h: how long VMs of a kind stay, learned from those that left, and how much that tells.
 * Private to scheduler/; no clock and no VM in here.
 *
 * A kind is a size, or a size and the tenant who asked. The logarithm of lifetimes is what is
 * learned: they spread over five orders of magnitude. A kind that few have been seen of is drawn
 * towards the next wider one (size and tenant -> size -> all).
 *
 * A forecast that tells little does harm (docs/scheduler.md), so each one is judged when its VM has
 * left, against what the mean of all would have said: the share of the variance it explains, of the
 * VMs of late, weighted by their memory. Only a share that is high makes it worth acting on. In the
 * manner of NILAS and LAVA (MLSys 2025), whose models are trusted beforehand.
 */
#pragma once

#include "scheduler/scheduler.h"

struct lifetimes;

/* Logarithms of seconds. */
struct guess {
    double kind; /* what is known of VMs like it says */
    double all;  /* the mean of all says */
    bool known;  /* false: nobody has left yet */
};

struct lifetimes *lifetimes_new(struct error *err);
/* NULL where memory is short. */
struct lifetimes *lifetimes_copy(const struct lifetimes *lifetimes);
void lifetimes_free(struct lifetimes *lifetimes);

/* For a VM that comes now. @tenant may be NULL or "". */
struct guess lifetimes_guess(const struct lifetimes *lifetimes, const struct sched_resources *need,
                             const char *tenant);

/* A VM of which @guess was said when it came left after @lifetime_s, or has stayed so long that
 * this is the least to be expected now. */
void lifetimes_note(struct lifetimes *lifetimes, const struct sched_resources *need,
                    const char *tenant, const struct guess *guess, uint64_t lifetime_s);

/* The share of the variance that guesses of late explained, at most 1; 0 where they told less than
 * the mean, or too few VMs have left to say. */
double lifetimes_explained(const struct lifetimes *lifetimes);
/* Whether to act on guesses, which is not given up at the first doubt: @before is what was
 * answered last. */
bool lifetimes_worth_using(const struct lifetimes *lifetimes, bool before);
