/* probe.h: can this host's KVM boot Linux? Found out by running what Linux runs, not by guessing.
 */
#pragma once

/* Prints one line; returns the exit status: 0 it can, 1 it can't. */
int probe_run(void);
