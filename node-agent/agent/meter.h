/*
 * meter.h: what this host uses now: CPU split in guest, user and system, memory, the uplink's
 * traffic, storage, load. Rates are over the time since the sample before.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "node-agent/agent/netlink.h"
#include "proto/node.pb-c.h"

struct meter_cpu { /* in the kernel's clock ticks, all CPUs together */
    uint64_t user, system, guest, total;
};

struct meter {
    struct netlink *netlink; /* not owned */
    char uplink[16];
    const char *storage;
    struct meter_cpu cpu;
    uint64_t rx_bytes, tx_bytes;
    int64_t sampled_ms; /* 0: never */
};

/* Finds the uplink: @wanted, else a port of @bridge that is not a guest's, else the default route's
 * interface, else @bridge itself. */
void meter_init(struct meter *meter, struct netlink *netlink, const char *wanted,
                const char *bridge, const char *storage);

/* The uplink's speed in bit/s as its driver tells; 0: unknown. */
uint64_t meter_uplink_bps(const struct meter *meter);

/* Fills the host's part of @report. */
void meter_sample(struct meter *meter, Vmpool__NodeReport *report);

/* Splits a "cpu " line of /proc/stat. The kernel counts guest time inside user time; here they are
 * apart. -1 where the line is not one. */
int meter_parse_cpu(const char *line, struct meter_cpu *cpu);

/* Growth of a counter per second over @elapsed_ms; 0 where it went back. */
uint64_t meter_rate(uint64_t before, uint64_t now, int64_t elapsed_ms);
