/* plan_view.h: a plan as people read it. */
#pragma once

#include "poolctl/view.h"
#include "proto/admin.pb-c.h"

extern const struct view view_plan_moves;

/* Moves, VMs left behind, what it brings and costs; to @style's out. @plan is the message's JSON.
 */
void plan_view_print(const struct view_style *style, const json_t *plan);
