/*
 * fault.h: points in the code where a test may make things go wrong.
 *
 * The environment variable VMPOOL_FAULTS holds "point=action" pairs separated by commas, such as
 * "source.gave-up=kill,target.ready=delay:500"; or "@FILE": then the pairs are in that file, which
 * is read at each point, so that faults can come and go while processes run. Where it is unset, and
 * outside the named points, a fault point does nothing. Actions:
 *
 *   kill      the process ends at once (SIGKILL)
 *   stop      the process freezes (SIGSTOP), as a host that hangs
 *   delay:MS  this thread waits
 *   hold      this thread waits until the file names the point no more, at most 10 s: the moment
 *             for a test to do something elsewhere
 *   drop      the caller loses the message it was about to handle
 *   repeat    the caller handles the message twice
 *
 * Where VMPOOL_FAULTS_LOG names a file that exists, each fault that acts adds "POINT PID" there as
 * a line, so that a test can tell a fault survived from one that never came.
 *
 * Each part documents its own points in a header (migration/faults.h, agent/faults.h,
 * controller/faults.h). They stand on rare steps, never in a loop over pages.
 */
#pragma once

#include <stdbool.h>

/* Acts as the environment says. True: the caller must lose the message. */
bool fault_point(const char *point);

/* The same before a message that may also be repeated: how often to handle it, 0 to 2. */
unsigned fault_message(const char *point);
