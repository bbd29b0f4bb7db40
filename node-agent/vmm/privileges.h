/* privileges.h: what the VMM gives up before the guest's first instruction. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/error.h"

/* Becomes @uid:@gid with no other groups where @drop_user, gives up every capability for good and
 * forbids gaining privileges by exec. For all threads: call before any is started. */
int privileges_drop(bool drop_user, uid_t uid, gid_t gid, struct error *err);
