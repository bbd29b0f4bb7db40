/*
 * trace.h: VM arrivals from a CSV file, plain or gzip, for the simulator.
 *
 *   arrival_s,lifetime_s,vcpus,memory_mib,network_mbps[,tenant][,...]
 *
 * The header names the columns, in any order; others are skipped. Times are whole seconds and do
 * not run backwards from line to line; an empty lifetime_s means that the VM stays,
 * an empty tenant that nobody knows who asked.
 */
#pragma once

#include "common/name_map.h"
#include "scheduler/simulate.h"

struct trace {
    struct sim_arrival *arrivals;
    size_t count;
    struct name_map tenants; /* their names, which arrivals point to */
};

/* Reads the whole file. What is wrong in it is ERROR_USAGE with the line, what stands there and
 * what was expected; @trace is empty then. */
int trace_read(const char *path, struct trace *trace, struct error *err);
void trace_free(struct trace *trace);
