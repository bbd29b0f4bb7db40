/*
 * metrics.h: what is measured of the pool, as docs/metrics.md lists it.
 *
 * Read from the tables and from tallies.h when somebody asks, and nothing kept beside them. Units
 * are base units: seconds, bytes, and shares of one. What is not known has no sample, and neither
 * has what a lost node once measured. No secrets, and no labels that grow but the names of nodes
 * and VMs.
 */
#pragma once

#include "controller/controller.h"
#include "controller/metric_text.h"

/* All of them. Changes nothing. */
void metrics_write(const struct controller *controller, struct metric_text *text);

/* Its parts. */
void metrics_write_pool(const struct controller *controller, struct metric_text *text);
void metrics_write_nodes(const struct controller *controller, struct metric_text *text);
void metrics_write_vms(const struct controller *controller, struct metric_text *text);
void metrics_write_migrations(const struct controller *controller, struct metric_text *text);

/* "done", "failed", "cancelled"; @outcome is an enum tally_outcome. */
const char *metrics_outcome_name(unsigned outcome);

/* ---- units ---- */

static inline double metrics_mib(uint64_t mib)
{
    return (double)mib * 1048576;
}

static inline double metrics_kib(uint64_t kib)
{
    return (double)kib * 1024;
}

/* Bits per second, in bytes per second. */
static inline double metrics_bps(uint64_t bps)
{
    return (double)bps / 8;
}

static inline double metrics_us(uint64_t us)
{
    return (double)us / 1e6;
}

static inline double metrics_ms(uint64_t ms)
{
    return (double)ms / 1e3;
}

static inline double metrics_permille(int64_t permille)
{
    return (double)permille / 1e3;
}
