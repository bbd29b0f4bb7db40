/*
 * forecast.h: what a VM will use, from its own history, in constant memory. Pure: the caller says
 * what time it is.
 *
 * Of each dimension is kept the mean and a histogram, over shares of the most the VM may use, of
 * how long it used how much. What is older counts less: half after FORECAST_HALF_LIFE_MS. Expected
 * is the mean; the peak is what it stays below for 95 % of the time.
 *
 * VMs of one node rarely peak together, so peaks do not simply add up: a node is expected to reach
 * the sum of the means and the root of the sum of the squared distances between mean and peak.
 */
#pragma once

#include <stdbool.h>

#include "scheduler/scheduler.h"

#define FORECAST_HALF_LIFE_MS (UINT64_C(6) * 3600 * 1000)
#define FORECAST_BUCKETS      20

struct forecast {
    float weight[3][FORECAST_BUCKETS]; /* recent time, in ms, by share */
    float mean[3];                     /* share */
    uint64_t at_ms;                    /* of the newest sample */
    bool begun;
};

/* Notes that the VM used @used since the sample before, of at most @most; more counts as @most, and
 * a dimension whose most is 0 counts as unused. Time that goes back counts as none. A gap counts as
 * at most @interval_ms: what was not seen is not made up. */
void forecast_add(struct forecast *forecast, const struct sched_resources *most,
                  const struct sched_resources *used, uint64_t now_ms, uint64_t interval_ms);
/* What is to be expected of it, at most @most. Nothing is known before the first sample: both are
 * 0. */
void forecast_expect(const struct forecast *forecast, const struct sched_resources *most,
                     struct sched_resources *mean, struct sched_resources *peak);

/* Of the VMs of a node; begins as zeroes. */
struct forecast_sum {
    double mean[3];
    double squares[3];
};

void forecast_sum_add(struct forecast_sum *sum, const struct sched_resources *mean,
                      const struct sched_resources *peak);
void forecast_sum_total(const struct forecast_sum *sum, struct sched_resources *total);
