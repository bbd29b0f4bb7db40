/*
 * poolctl.h: the whole program but for main(), so that tests can call it.
 */
#pragma once

#include "poolctl/invocation.h"

/* Runs one command line; output goes to @terminal. Returns the exit status: an enum error_kind, or
 * 130 after Ctrl-C. */
int poolctl_run(int argc, char *const *argv, const struct terminal *terminal);
