/* config.h: what can be set about a controller, with the defaults that --help states. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "scheduler/scheduler.h"

enum rebalance_mode { REBALANCE_OFF, REBALANCE_RECOMMEND, REBALANCE_ON };

struct config {
    const char *state_dir;
    const char *listen;
    const char *advertise; /* host:port put into tokens and admin.context; "": made from @listen */
    const char *pool_name;
    const char *metrics; /* numeric address:port they are served at; NULL: nowhere */
    struct sched_config scheduler;
    uint64_t report_interval_ms;
    uint64_t lost_after_ms;      /* a node not heard of for so long is lost */
    uint64_t start_timeout_ms;   /* of a VM's start, fetching its image included */
    uint64_t command_timeout_ms; /* of any other command to an agent */
    uint64_t stop_timeout_ms;    /* from the power button until the guest is off */
    uint64_t migrate_timeout_ms; /* of a whole migration; then it is cancelled */
    uint64_t handover_grace_ms;  /* how long a handover may take by itself before we decide it */
    unsigned migrations_out;     /* at a time, that a host sends */
    unsigned migrations_in;      /* that a host receives */
    unsigned migrations_pool;    /* of all hosts */
    bool keep_n1;                /* refuse a VM after which not any one node could be lost */
    enum rebalance_mode rebalance;
    uint64_t rebalance_interval_ms;        /* between two looks at the pool */
    uint64_t rebalance_hold_ms;            /* a node that is hot for less is left alone */
    uint64_t rebalance_cooldown_ms;        /* between two batches, and two moves of one VM */
    unsigned rebalance_batch;              /* moves at a time */
    uint32_t rebalance_threshold_permille; /* above the mean, a node is hot */
};

#define CONFIG_DEFAULTS                                                                            \
    {                                                                                              \
        .state_dir = "/var/lib/vmpool/controller", .listen = "0.0.0.0:7400", .advertise = "",      \
        .pool_name = "pool",                                                                       \
        .scheduler = {.policy = SCHED_BALANCE, .cpu_overcommit_percent = 400},                     \
        .report_interval_ms = 5000, .lost_after_ms = 15000, .start_timeout_ms = 600000,            \
        .command_timeout_ms = 30000, .stop_timeout_ms = 60000, .migrate_timeout_ms = 3600000,      \
        .handover_grace_ms = 2000, .migrations_out = 1, .migrations_in = 1, .migrations_pool = 16, \
        .rebalance = REBALANCE_RECOMMEND, .rebalance_interval_ms = 60000,                          \
        .rebalance_hold_ms = 300000, .rebalance_cooldown_ms = 600000, .rebalance_batch = 4,        \
        .rebalance_threshold_permille = 100,                                                       \
    }
