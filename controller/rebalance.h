/*
 * rebalance.h: the controller looks by itself whether VMs should move: it says so (recommend) or
 * does it (on), a batch at a time.
 *
 * What keeps it from chasing noise: a node must be hot for the hold time; between two batches, and
 * two moves of one VM, the cooldown passes; a move must pay and makes no node hot (plan.h). What a
 * restart forgets (since when a node is hot, what moved when) only makes it wait longer.
 */
#pragma once

#include "controller/controller.h"
#include "proto/admin.pb-c.h"

/* "off", "recommend", "on" */
const char *rebalance_mode_name(enum rebalance_mode mode);
/* Reads such a word; anything else is ERROR_USAGE and names the words there are. */
int rebalance_mode_parse(const char *word, enum rebalance_mode *mode, struct error *err);

/* In the mode of the command line. */
struct rebalance *rebalance_new(const struct config *config);
void rebalance_free(struct rebalance *rebalance);
/* An operator's mode, kept in the store, counts instead. */
int rebalance_load(struct controller *controller, struct error *err);
enum rebalance_mode rebalance_mode(const struct controller *controller);
/* Sets it for good, for this and the next controllers; "default": that of the command line again.
 * What a batch under way has begun goes on. */
int rebalance_set(struct controller *controller, const char *word, const char *admin,
                  struct error *err);
/* For poolctl; free with pb_free(). */
Vmpool__RebalanceMode *rebalance_describe(const struct controller *controller);

/* Called by the tick; does something once in rebalance_interval_ms. */
void rebalance_check(struct controller *controller);
