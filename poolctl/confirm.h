/*
 * confirm.h: the question before something is destroyed.
 */
#pragma once

#include "common/error.h"
#include "poolctl/invocation.h"

/* Returns 0 where --yes was given or the person at the terminal agrees to @question. Without a
 * terminal to ask on it is ERROR_USAGE that names --yes; a no is ERROR_FAILED. */
int confirm(const struct invocation *call, struct error *err, const char *question, ...)
    __attribute__((format(printf, 3, 4)));
