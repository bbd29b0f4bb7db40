/*
 * fault.h: points in the code where a test may make things go wrong.
 *
 * The environment variable VMPOOL_FAULTS holds "point=action" pairs separated by commas, such as
 * "source.gave-up=kill,target.ready=delay:500". Where it is unset, and outside the named points, a
 * fault point does nothing. Actions:
 *
 *   kill      the process ends at once (SIGKILL)
 *   stop      the process freezes (SIGSTOP), as a host that hangs
 *   delay:MS  this thread waits
 *   drop      fault_point() returns true: the caller loses the message it was about to handle
 *
 * Where VMPOOL_FAULTS_LOG names a file that exists, each fault that acts adds its point there as a
 * line, so that a test can tell a fault survived from one that never came.
 *
 * Each part documents its own points in a header (node-agent/migration/faults.h). They stand on
 * rare steps, never in a loop over pages.
 */
#pragma once

#include <stdbool.h>

/* Acts as the environment says. True: the caller must lose the message. */
bool fault_point(const char *point);
