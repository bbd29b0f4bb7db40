/*
 * point.h: a node as numbers: what filters of size and scores need of it, kept up to date with each
 * change. Private to scheduler/.
 *
 * The index (tree.h) encloses points in boxes and asks the same score functions for bounds, so what
 * a score reads must stand here, and scores must only use operations that keep the order of their
 * arguments when rounding: then a bound is a bound to the last bit.
 */
#pragma once

#include "scheduler/scheduler.h"

enum { CPU, MEMORY, BANDWIDTH, DIMENSIONS };

struct point {
    double load[DIMENSIONS];     /* reserved, of what may be reserved */
    double measured[DIMENSIONS]; /* of the capacity */
    double per_unit[DIMENSIONS]; /* the load one unit (milli-CPU, MiB, bit/s) adds */
    uint64_t free[DIMENSIONS];   /* may still be reserved */
    uint64_t exit_slot;          /* when its VMs leave (exits.h); 0: not known */
};

/* A resource by its dimension. */
static inline uint64_t resource(const struct sched_resources *r, int dimension)
{
    return dimension == CPU ? r->cpu_milli : dimension == MEMORY ? r->memory_mib : r->bandwidth_bps;
}

struct node;

/* The point of @node where @reserved is taken on it. */
struct point point_make(const struct node *node, const struct sched_resources *reserved);
