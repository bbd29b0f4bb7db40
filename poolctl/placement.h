/*
 * placement.h: where a VM would go and why not elsewhere.
 */
#pragma once

#include "common/error.h"
#include "poolctl/invocation.h"
#include "proto/admin.pb-c.h"

/* Prints the placement; where no node fits, it is printed and ERROR_NO_CAPACITY is given. */
int placement_print(const struct invocation *call, const Vmpool__Placement *placement,
                    struct error *err);
