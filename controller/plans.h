/* plans.h: what the scheduler's planner is told of the pool, and plans as messages and jobs. */
#pragma once

#include "controller/controller.h"
#include "proto/admin.pb-c.h"
#include "scheduler/plan.h"

#define PLAN_FORMAT 1

/* For a plan that is made now: which VMs may move, and what was measured of them. */
struct plan_config plans_config(struct controller *controller);
/* The same for the controller's own rebalancing: with hold time, cooldown and batch. */
struct plan_config plans_own_config(struct controller *controller);

/* What moving a running VM to the node @to would take; free with pb_free(). NULL: one of both nodes
 * is not known. */
Vmpool__MigrationForecast *plans_forecast(const struct controller *controller, const struct vm *vm,
                                          const char *to);
/* For poolctl; free with pb_free(). @node: of drain and lose; else "". */
Vmpool__Plan *plan_describe(const struct controller *controller, const struct plan *plan,
                            const char *node);
/* Begins the job that carries @plan out; it was checked. */
struct job *job_plan_begin(struct controller *controller, const Vmpool__Plan *plan,
                           const char *admin);
/* The job of a plan that is under way, or NULL. */
struct job *job_plan_running(const struct controller *controller);
