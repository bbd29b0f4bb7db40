/* validate.h: each field of what admins and agents send, checked before it is used; the error says
 * in one sentence what is wrong and what would be right. */
#pragma once

#include "common/error.h"
#include "proto/admin.pb-c.h"
#include "proto/node.pb-c.h"

#define VM_VCPUS_MAX      16
#define VM_MEMORY_MIN_MIB 64
#define VM_MEMORY_MAX_MIB (16u << 20)
#define VM_DISKS_MAX      16
#define VM_LABELS_MAX     32
#define CMDLINE_MAX       2048

/* [a-z0-9][a-z0-9-]{0,62} */
int validate_name(const char *name, const char *what, struct error *err);
int validate_create(const Vmpool__VmCreate *create, struct error *err);
int validate_image(const Vmpool__ImageSpec *spec, struct error *err);
int validate_limits(const Vmpool__MigrationLimits *limits, struct error *err);
int validate_facts(const Vmpool__NodeFacts *facts, struct error *err);
