/* plan_work.h: a plan being made: moves that can be taken back. Private to scheduler/. */
#pragma once

#include "scheduler/plan.h"
#include "scheduler/search.h"

struct plan_step {
    struct vm *vm;
    struct node *from;
    struct sched_resources used; /* of the VM: goes with it */
};

struct plan_work {
    struct scheduler *pool;
    const struct plan_config *config;
    struct plan *plan;
    enum sched_policy policy; /* the pool's own */
    uint32_t threshold_permille;
    size_t move_max;
    struct plan_step *steps;
    size_t count;         /* as many as plan->count */
    struct node **hidden; /* nodes that take no VM while we plan */
    size_t hidden_count;
};

/* @plan is zeroed and gets its fingerprint and balance. Ended by plan_end() in every case. */
int plan_begin(struct plan_work *work, struct scheduler *pool, const struct plan_config *config,
               enum plan_kind kind, struct plan *plan, struct error *err);
/* Puts the pool back; @status 0 completes the plan, -1 frees it. Returns @status. */
int plan_end(struct plan_work *work, int status);

/* What the caller knows of a VM. */
struct plan_vm plan_look(const struct plan_work *work, const struct vm *vm);
/* Moves it; the move is part of the plan. */
int plan_move(struct plan_work *work, struct vm *vm, struct node *to, const struct plan_vm *seen,
              const char *why, struct error *err);
bool plan_moved(const struct vm *vm);
/* Takes back the moves beyond the first @count. */
void plan_undo(struct plan_work *work, size_t count);
int plan_leave(struct plan_work *work, const struct vm *vm, const char *why, struct error *err);
/* The best node but the VM's own; NULL: none, and @why (of @size) says so. @why NULL: not asked. */
struct node *plan_target(const struct plan_work *work, const struct vm *vm, char *why, size_t size);
/* A node takes no VM until plan_end(). */
int plan_hide(struct plan_work *work, struct node *node, struct error *err);
/* The VMs of a node, the largest first; free() it. NULL: out of memory. */
struct vm **plan_vms_of(const struct node *node);
struct plan_cost plan_cost_between(const struct vm *vm, const struct plan_vm *seen,
                                   const struct node *from, const struct node *to);

/* The load of a node as struct plan_balance has it; with @need and @used added (@sign 1), taken
 * away (-1), or as it is (0, NULL). */
double plan_load(enum sched_policy policy, const struct node *node,
                 const struct sched_resources *need, const struct sched_resources *used, int sign);
/* The load above which a node is hot. */
double plan_ceiling(enum sched_policy policy, double mean, uint32_t threshold_permille);
