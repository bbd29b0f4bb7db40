/*
 * simulate.h: what a stream of VMs would do to a pool: arrivals and departures in order, each
 * placed by the same scheduler the controller uses. Pure like the rest: the caller reads the trace
 * and lends the clock that times decisions.
 */
#pragma once

#include "scheduler/scheduler.h"

#define SIM_STAYS UINT64_MAX

struct sim_arrival {
    uint64_t arrival_s;  /* never less than the one before it */
    uint64_t lifetime_s; /* SIM_STAYS: still there when the trace ends */
    struct sched_resources need;
    const char *tenant; /* NULL: not known */
};

struct sim_host {
    char name[SCHED_NAME_MAX];
    struct sched_resources capacity;
};

struct sim_config {
    struct sched_config scheduler;
    struct sched_resources host;  /* capacity of each host, unless @hosts says otherwise */
    const struct sim_host *hosts; /* NULL: @host_count alike */
    size_t host_count;            /* 0: the pool starts empty and grows by a host where none fits */
    /* VMs that may move in any hour, of those that run; they move only where a VM would fit no
     * host otherwise. 0: none move. */
    uint32_t moves_permille;
    uint64_t sample_s;        /* how often the pool is looked at; 0: every hour */
    uint64_t (*now_ns)(void); /* NULL: decisions are not timed */
    void (*progress)(void *context, size_t done, size_t total); /* NULL: none */
    void *progress_context;
};

/* The pool at one moment. */
struct sim_sample {
    uint64_t time_s;
    size_t vms;
    size_t hosts_used;
    size_t hosts_empty; /* of those there are by then */
    double load[3];     /* reserved CPU, memory, bandwidth of the hosts in use */
    double stranded[3]; /* of the hosts in use: free, but beside another dimension that is
                           fuller, so that it cannot be used with it */
};

struct sim_result {
    size_t arrivals, placed, refused;
    size_t placed_by_lifetime;  /* forecasts were good enough to place by them */
    double lifetimes_explained; /* how good at the end: scheduler_lifetimes_explained() */
    size_t moves;
    uint64_t moved_mib;
    size_t peak_hosts; /* most hosts in use at once */
    uint64_t peak_at_s;
    size_t hosts;       /* there are at the end */
    double bound[3];    /* largest total demand of a dimension, in hosts */
    size_t lower_bound; /* no placement does with fewer hosts at the peak; 0 where the pool does not
                           grow */
    double empty_share; /* means over time, of the samples */
    double stranded_share[3];
    struct sim_sample *samples;
    size_t sample_count;
    uint64_t *decision_ns; /* sorted; NULL where not timed */
    size_t decisions;
    uint64_t decision_total_ns;
};

/* Runs the whole trace. A VM larger than a host is refused where the pool may grow, too. */
int simulate(const struct sim_config *config, const struct sim_arrival *arrivals, size_t count,
             struct sim_result *result, struct error *err);
void sim_result_free(struct sim_result *result);

/* The time that @permille of the decisions did not exceed. */
uint64_t sim_decision_ns(const struct sim_result *result, unsigned permille);
