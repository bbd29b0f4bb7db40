/*
 * pool_cpu.h: the CPU that guests of the pool see (baseline.h), kept from one hello to the next: a
 * thousand nodes that connect at once must not cost a look at a thousand nodes each.
 */
#pragma once

#include "controller/controller.h"
#include "proto/node.pb-c.h"

struct node;

/* free() with pool_cpu_free(). */
struct pool_cpu *pool_cpu_new(void);
void pool_cpu_free(struct pool_cpu *cpu);

/* What all nodes have in common; *data is valid until the next call of this module. */
int pool_cpu_get(const struct controller *controller, const uint8_t **data, size_t *size,
                 struct error *err);
/* Whether a node with @facts can be in the pool; @known is the node it is already, or NULL.
 * ERROR_CONFLICT where guests could not move between it and the others. */
int pool_cpu_check(const struct controller *controller, const struct node *known,
                   const Vmpool__NodeFacts *facts, struct error *err);
/* A node with @facts came in. */
void pool_cpu_added(const struct controller *controller, const Vmpool__NodeFacts *facts);
/* A node went, or its CPU changed. */
void pool_cpu_forget(const struct controller *controller);
