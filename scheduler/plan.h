/*
 * plan.h: what moving VMs would cost and bring, before any is moved. Pure like the rest: a plan is
 * made on the scheduler's own view of the pool, which is at the end what it was.
 *
 * A plan is a list of moves; made in their order, each fits where it goes. Each carries what it is
 * predicted to take (plan_cost_of()), and the whole carries the fingerprint of the pool it was made
 * for: on a pool with another one it is stale.
 */
#pragma once

#include "scheduler/scheduler.h"

enum plan_kind {
    PLAN_REBALANCE,   /* away from broken rules, hot spots and stranded room */
    PLAN_DRAIN,       /* all away from one node */
    PLAN_LOSE,        /* where the VMs of a dead node would start again: nothing to carry out */
    PLAN_CONSOLIDATE, /* onto as few nodes as will do */
    PLAN_ADD,         /* where so many more VMs would go, and what must move for them */
};
#define PLAN_KINDS 5

/* "rebalance", "drain", "lose", "consolidate", "add" */
const char *plan_kind_name(enum plan_kind kind);
/* Reads such a word; anything else is ERROR_USAGE and names the words there are. */
int plan_kind_parse(const char *word, enum plan_kind *kind, struct error *err);

/* What the caller knows of a VM beside its reservation. */
enum plan_freedom {
    PLAN_FREE,
    PLAN_FIXED, /* can't be migrated now, such as one that is being stopped */
    PLAN_LOCAL, /* its data lives on this node only: not moved, and lost with it */
    PLAN_GHOST, /* no VM but a reservation, such as the target of a migration */
};

struct plan_vm {
    enum plan_freedom freedom;
    const char *why; /* it isn't free: "has local disks"; lives as long as the plan is made */
    struct sched_resources used; /* measured; 0: not known */
    uint64_t copy_mib;           /* RAM that is really backed; 0: take the reservation */
    uint64_t dirty_bps;          /* bits a second the guest dirties; 0: never measured */
};

struct plan_config {
    void *context;
    /* Fills @out, which is zeroed, for a VM. NULL: all are free and nothing was measured. */
    void (*look)(void *context, const char *vm, struct plan_vm *out);
    /* For how long a node has been hot; NULL: long enough. Only rebalance asks. */
    uint64_t (*hot_ms)(void *context, const char *node);
    uint64_t hold_ms;            /* a node that is hot for less is left alone */
    uint32_t threshold_permille; /* a node this far above the mean is hot; 0: the default */
    uint64_t payback_s;          /* for how long the better balance counts; 0: the default */
    size_t move_max;             /* 0: the default */
};
#define PLAN_THRESHOLD_PERMILLE 100
#define PLAN_PAYBACK_S          3600
#define PLAN_MOVE_MAX           2000

/* What a migration is predicted to take. */
struct plan_cost {
    uint64_t bytes; /* over the link */
    uint64_t duration_ms;
    uint64_t pause_us;
    bool dirty_known; /* false: the guest's dirty rate was assumed */
};

/*
 * With M the bits to copy, B the slower link of both nodes and D the guest's dirty rate (never
 * measured: B / 10), r = D / B, at most 1: round i sends M r^i, from i = 0 until what is left
 * passes the link in the downtime limit of 100 ms, or no longer shrinks (r >= 0.9), or 30 rounds
 * are over; the n-th and last is sent in the pause. Then
 *
 *     seconds = M (1 + r + ... + r^n) / B + 1     one second to prepare and to end
 *     pause   = M r^n / B + 20 ms                 device state and handover
 *
 * A link whose speed is not known counts as 1 Gbit/s.
 */
struct plan_cost plan_cost_of(uint64_t copy_mib, uint64_t dirty_bps, uint64_t link_bps);

struct plan_move {
    const char *vm; /* these names live as long as the VM and the nodes do */
    const char *from;
    const char *to;
    uint64_t memory_mib;
    struct plan_cost cost;
    char why[112];
};

/* A VM that can't go where the plan would have it. */
struct plan_left {
    const char *vm;
    char why[256];
};

/* How even the pool is. The load of a node is its fullest dimension, reserved or measured,
 * whichever is more; under pack and best only what is measured, as they fill nodes on purpose. */
struct plan_balance {
    double mean;      /* of the loads; 1 is full */
    double highest;   /* of all nodes */
    double imbalance; /* standard deviation of the loads */
    double stranded;  /* mean over used nodes of the highest less the lowest of reserved CPU and
                         memory: what is free of one without the other */
    size_t hot;       /* nodes above mean + threshold */
    size_t empty;     /* nodes without VMs */
    size_t nodes;     /* that take VMs */
};

struct plan {
    enum plan_kind kind;
    uint64_t fingerprint;
    struct plan_move *moves;
    size_t count;
    struct plan_left *left;
    size_t left_count;
    size_t wanted; /* VMs that should move, start again or be added */
    size_t placed; /* of them have a place */
    struct plan_balance before, after;
    uint64_t bytes;       /* of all moves */
    uint64_t duration_ms; /* one after the other */
    uint64_t pause_us;    /* the longest */
    char summary[256];
};

/* Each fills @plan, free with plan_free(). Nothing to do is a plan without moves. A node that does
 * not exist is ERROR_NOT_FOUND. */

/* Broken rules first, as far as they can be mended, then hot spots, then stranded room. A move must
 * pay: what the hotter of both nodes loses in load, times @payback_s, is more than the share of two
 * links times the seconds that the move takes. No node gets hot by it and no VM moves twice, so
 * that a plan made after the moves does not undo them. */
int plan_rebalance(struct scheduler *pool, const struct plan_config *config, struct plan *plan,
                   struct error *err);
int plan_drain(struct scheduler *pool, const struct plan_config *config, const char *node,
               struct plan *plan, struct error *err);
int plan_lose(struct scheduler *pool, const struct plan_config *config, const char *node,
              struct plan *plan, struct error *err);
int plan_consolidate(struct scheduler *pool, const struct plan_config *config, struct plan *plan,
                     struct error *err);
/* @request->vm is ignored. Moves are what others must make room; the new VMs' nodes are not in the
 * plan, as placing decides them anew. */
int plan_add(struct scheduler *pool, const struct plan_config *config,
             const struct sched_request *request, size_t count, struct plan *plan,
             struct error *err);
void plan_free(struct plan *plan);

/* The same for pools with the same nodes, VMs, places, reservations and rules, in whatever order
 * they were added; measured use is left out, as it never stands still. */
uint64_t scheduler_fingerprint(const struct scheduler *pool);

/* How even the pool is now. */
struct plan_balance plan_balance_of(const struct scheduler *pool, uint32_t threshold_permille);
/* Calls @hot with the name of each node that is hot now. */
void plan_each_hot(const struct scheduler *pool, uint32_t threshold_permille,
                   void (*hot)(void *context, const char *node), void *context);

/* ---- room for more ---- */

/* Whether all VMs of any one node could start again on the others. */
struct plan_n1 {
    bool holds;
    const char *node; /* the first that can't be lost; NULL where it holds */
    const char *vm;   /* and the VM that would have no place then */
};
/* O(VMs) searches. VMs whose data dies with their node are left out of it. */
int plan_check_n1(struct scheduler *pool, const struct plan_config *config, struct plan_n1 *n1,
                  struct error *err);
/* plan_check_n1() with @request on @node beside what there is. */
int plan_check_n1_with(struct scheduler *pool, const struct plan_config *config,
                       const struct sched_request *request, const char *node, struct plan_n1 *n1,
                       struct error *err);

#define PLAN_CAPACITY_MAX 1000000
struct plan_capacity {
    size_t count;     /* more such VMs, placed one after the other as the policy does */
    size_t count_n1;  /* so many that the pool can still lose any one node */
    char why[512];    /* not one more */
    char why_n1[320]; /* "" where nothing but size ends it */
};
int plan_capacity(struct scheduler *pool, const struct plan_config *config,
                  const struct sched_request *request, bool n1, struct plan_capacity *capacity,
                  struct error *err);
