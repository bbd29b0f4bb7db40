/* histogram.h: how often a measurement was how large. */
#pragma once

#include <stdint.h>

#define HISTOGRAM_BOUNDS_MAX 14

/* @bounds ascend and outlive it; counts[i] is of what was above bound i - 1 and not above bound i,
 * the last one of all the rest. With counts and sum zero it is empty. */
struct histogram {
    const double *bounds;
    unsigned bound_count;
    uint64_t counts[HISTOGRAM_BOUNDS_MAX + 1];
    double sum;
};

/* @value must not be negative, so that the sum only grows. */
void histogram_add(struct histogram *histogram, double value);
