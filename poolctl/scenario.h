/*
 * scenario.h: a simulated pool in which things happen at stated seconds, placed, drained, recovered
 * and rebalanced by the library that the controller runs. A line is one event, # begins a comment:
 *
 *     0 policy pack|spread|balance|best       before the first host
 *     0 host n1 64c,128G,25Gbps zone=a        again: what is known of it changes
 *     5 vm web1 4c,8G,1Gbps apart=web         rules: apart, avoid, with, spread=GROUP:LABEL:APART,
 *                                             select=KEY:VALUE, tenant, on
 *     9 rm web1
 *     20 drain n1 | undrain n1 | fail n1 | back n1
 *     30 rebalance | consolidate
 *
 * VMs of a host that fails start again elsewhere; those that have no place wait for one.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "common/error.h"

enum scenario_what {
    SCENARIO_PLACED,   /* a VM on a host */
    SCENARIO_REFUSED,  /* why */
    SCENARIO_REMOVED,  /* a VM */
    SCENARIO_RESTARTS, /* a VM on a host, after its own failed */
    SCENARIO_MOVES,    /* a VM from a host to another */
    SCENARIO_WAITS,    /* a VM has no place after its host failed; why */
    SCENARIO_STAYS,    /* a VM that should have moved; why */
    SCENARIO_HOST,     /* a host: @action is what happens to it */
    SCENARIO_PLAN,     /* @action was planned and carried out; why sums it up */
};

/* What does not belong to @what is NULL; texts live as long as the call. */
struct scenario_event {
    uint64_t second;
    enum scenario_what what;
    const char *vm, *host, *from, *why;
    const char *action; /* drain, undrain, fail, back; rebalance, consolidate */
};

typedef void (*scenario_fn)(void *context, const struct scenario_event *event);

/* Runs the scenario of @path, a file or a folder with one called "scenario", and tells @say what
 * happens as it does. What is wrong in it is ERROR_USAGE with the line; nothing is told after it.
 */
int scenario_run(const char *path, scenario_fn say, void *context, struct error *err);

/* A scenario_fn for people: a line an event; @context is a FILE. */
void scenario_print(void *context, const struct scenario_event *event);
/* "placed", "refused", ... */
const char *scenario_what_name(enum scenario_what what);
