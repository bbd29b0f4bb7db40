/*
 * hosts.h: the hosts of a simulated pool, as people write them: "64c,128G,25Gbps", or a file with
 * one "NAME 64c,128G,25Gbps" a line, where # begins a comment.
 */
#pragma once

#include "scheduler/simulate.h"

/* Reads vCPUs, memory and bandwidth into @capacity; anything else is ERROR_USAGE. */
int host_parse(const char *text, struct sched_resources *capacity, struct error *err);

struct hosts {
    struct sim_host *hosts;
    size_t *lines; /* where each stands in the file */
    size_t count;
};

/* Reads the file; what is wrong in it is ERROR_USAGE with the line, what stands there and what was
 * expected. */
int hosts_read(const char *path, struct hosts *hosts, struct error *err);
void hosts_free(struct hosts *hosts);
