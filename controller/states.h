/*
 * states.h: the lives of a VM and of a node, as tables. Drawn in docs/state-machines.md.
 *
 * Whoever wants to change a phase names what happened; an event that the phase does not know is a
 * mistake of the caller or a late message, and changes nothing.
 */
#pragma once

#include <stdbool.h>

#include "proto/admin.pb-c.h"

enum vm_event {
    VM_EVENT_START,          /* a job begins to start it */
    VM_EVENT_STARTED,        /* its node says that it runs */
    VM_EVENT_START_UNDONE,   /* the start failed and nothing is left of it */
    VM_EVENT_STOP,           /* a job begins to stop it */
    VM_EVENT_STOP_REFUSED,   /* it goes on running */
    VM_EVENT_STOPPED,        /* powered off or killed */
    VM_EVENT_CRASHED,        /* panicked, its VMM failed, or it is missing where it should run */
    VM_EVENT_MIGRATE,        /* a job begins to move it */
    VM_EVENT_GAVE_UP,        /* the source gave it up, the target has the word */
    VM_EVENT_MIGRATED,       /* it runs, at the source or the target: the migration is over */
    VM_EVENT_NODE_LOST,      /* its node is not heard of */
    VM_EVENT_SEEN,           /* its node is back and it runs there */
    VM_EVENT_REMOVE,         /* a job begins to remove it */
    VM_EVENT_REMOVE_REFUSED, /* its node could not */
    VM_EVENTS,
};

/* The phase after @event, or PHASE_NONE where @phase does not know it. */
Vmpool__VmPhase vm_phase_after(Vmpool__VmPhase phase, enum vm_event event);
const char *vm_phase_name(Vmpool__VmPhase phase);
const char *vm_event_name(enum vm_event event);
/* True where a guest may be running, so that its reservation counts. */
bool vm_phase_holds_host(Vmpool__VmPhase phase);

enum node_event {
    NODE_EVENT_REPORT,  /* heard of */
    NODE_EVENT_SILENT,  /* not heard of for longer than the limit */
    NODE_EVENT_DRAIN,   /* takes no new VM from now on */
    NODE_EVENT_EMPTIED, /* the drain has moved everything away */
    NODE_EVENT_UNDRAIN,
    NODE_EVENTS,
};

/* @draining and @drained are what the store knows of the node: where a lost one comes back to. */
Vmpool__NodePhase node_phase_after(Vmpool__NodePhase phase, enum node_event event, bool draining,
                                   bool drained);
const char *node_phase_name(Vmpool__NodePhase phase);
const char *node_event_name(enum node_event event);
