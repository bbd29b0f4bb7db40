#include "controller/states.h"

#include <stddef.h>

#define STOPPED   VMPOOL__VM_PHASE__PHASE_STOPPED
#define STARTING  VMPOOL__VM_PHASE__PHASE_STARTING
#define RUNNING   VMPOOL__VM_PHASE__PHASE_RUNNING
#define STOPPING  VMPOOL__VM_PHASE__PHASE_STOPPING
#define MIGRATING VMPOOL__VM_PHASE__PHASE_MIGRATING
#define REMOVING  VMPOOL__VM_PHASE__PHASE_REMOVING
#define FAILED    VMPOOL__VM_PHASE__PHASE_FAILED
#define UNKNOWN   VMPOOL__VM_PHASE__PHASE_UNKNOWN
#define HANDOVER  VMPOOL__VM_PHASE__PHASE_HANDOVER
#define VM_PHASES (HANDOVER + 1)

/* Left out: the event is not known there. */
static const Vmpool__VmPhase vm_table[VM_PHASES][VM_EVENTS] = {
    [STOPPED] =
        {
            [VM_EVENT_START] = STARTING,
            [VM_EVENT_STOPPED] = STOPPED,
            [VM_EVENT_REMOVE] = REMOVING,
        },
    [STARTING] =
        {
            [VM_EVENT_START] = STARTING, /* on the next host */
            [VM_EVENT_STARTED] = RUNNING,
            [VM_EVENT_START_UNDONE] = STOPPED,
            [VM_EVENT_STOPPED] = STOPPED,
            [VM_EVENT_CRASHED] = FAILED,
            [VM_EVENT_NODE_LOST] = UNKNOWN,
        },
    [RUNNING] =
        {
            [VM_EVENT_STOP] = STOPPING,
            [VM_EVENT_STOPPED] = STOPPED,
            [VM_EVENT_CRASHED] = FAILED,
            [VM_EVENT_MIGRATE] = MIGRATING,
            [VM_EVENT_NODE_LOST] = UNKNOWN,
            [VM_EVENT_SEEN] = RUNNING,
            [VM_EVENT_REMOVE] = REMOVING,
        },
    [STOPPING] =
        {
            [VM_EVENT_STOP] = STOPPING,
            [VM_EVENT_STOP_REFUSED] = RUNNING,
            [VM_EVENT_STOPPED] = STOPPED,
            [VM_EVENT_CRASHED] = FAILED,
            [VM_EVENT_NODE_LOST] = UNKNOWN,
        },
    [MIGRATING] =
        {
            [VM_EVENT_GAVE_UP] = HANDOVER,
            [VM_EVENT_MIGRATED] = RUNNING,
            [VM_EVENT_STOPPED] = STOPPED,
            [VM_EVENT_CRASHED] = FAILED,
            [VM_EVENT_NODE_LOST] = UNKNOWN,
        },
    [HANDOVER] =
        {
            [VM_EVENT_GAVE_UP] = HANDOVER,
            [VM_EVENT_MIGRATED] = RUNNING,
            [VM_EVENT_STOPPED] = STOPPED,
            [VM_EVENT_CRASHED] = FAILED,
        },
    [REMOVING] =
        {
            [VM_EVENT_REMOVE] = REMOVING,
            [VM_EVENT_REMOVE_REFUSED] = FAILED,
        },
    [FAILED] =
        {
            [VM_EVENT_START] = STARTING,
            [VM_EVENT_STOP] = STOPPING,
            [VM_EVENT_STOPPED] = STOPPED,
            [VM_EVENT_CRASHED] = FAILED,
            [VM_EVENT_REMOVE] = REMOVING,
        },
    [UNKNOWN] =
        {
            [VM_EVENT_NODE_LOST] = UNKNOWN,
            [VM_EVENT_SEEN] = RUNNING,
            [VM_EVENT_STOPPED] = STOPPED,
            [VM_EVENT_CRASHED] = FAILED,
            [VM_EVENT_MIGRATED] = RUNNING,
            [VM_EVENT_REMOVE] = REMOVING,
        },
};

Vmpool__VmPhase vm_phase_after(Vmpool__VmPhase phase, enum vm_event event)
{
    if (phase >= VM_PHASES || event >= VM_EVENTS)
        return VMPOOL__VM_PHASE__PHASE_NONE;
    return vm_table[phase][event];
}

const char *vm_phase_name(Vmpool__VmPhase phase)
{
    static const char *const names[VM_PHASES] = {
        [STOPPED] = "stopped",   [STARTING] = "starting",   [RUNNING] = "running",
        [STOPPING] = "stopping", [MIGRATING] = "migrating", [REMOVING] = "removing",
        [FAILED] = "failed",     [UNKNOWN] = "unknown",     [HANDOVER] = "handover",
    };
    return phase < VM_PHASES && names[phase] ? names[phase] : "none";
}

const char *vm_event_name(enum vm_event event)
{
    static const char *const names[VM_EVENTS] = {
        [VM_EVENT_START] = "start",
        [VM_EVENT_STARTED] = "started",
        [VM_EVENT_START_UNDONE] = "start undone",
        [VM_EVENT_STOP] = "stop",
        [VM_EVENT_STOP_REFUSED] = "stop refused",
        [VM_EVENT_STOPPED] = "stopped",
        [VM_EVENT_CRASHED] = "crashed",
        [VM_EVENT_MIGRATE] = "migrate",
        [VM_EVENT_GAVE_UP] = "gave up",
        [VM_EVENT_MIGRATED] = "migrated",
        [VM_EVENT_NODE_LOST] = "node lost",
        [VM_EVENT_SEEN] = "seen",
        [VM_EVENT_REMOVE] = "remove",
        [VM_EVENT_REMOVE_REFUSED] = "remove refused",
    };
    return event < VM_EVENTS ? names[event] : "?";
}

bool vm_phase_holds_host(Vmpool__VmPhase phase)
{
    return phase == STARTING || phase == RUNNING || phase == STOPPING || phase == MIGRATING ||
           phase == UNKNOWN || phase == HANDOVER;
}

#define JOINED      VMPOOL__NODE_PHASE__NODE_JOINED
#define UP          VMPOOL__NODE_PHASE__NODE_UP
#define LOST        VMPOOL__NODE_PHASE__NODE_LOST
#define DRAINING    VMPOOL__NODE_PHASE__NODE_DRAINING
#define DRAINED     VMPOOL__NODE_PHASE__NODE_DRAINED
#define NODE_PHASES (DRAINED + 1)

/* A phase of its own for "where the store says": up, draining or drained. */
#define BY_STORE ((Vmpool__NodePhase)NODE_PHASES)

static const Vmpool__NodePhase node_table[NODE_PHASES][NODE_EVENTS] = {
    [JOINED] =
        {
            [NODE_EVENT_REPORT] = BY_STORE,
            [NODE_EVENT_SILENT] = LOST,
            [NODE_EVENT_DRAIN] = JOINED,
            [NODE_EVENT_EMPTIED] = JOINED,
            [NODE_EVENT_UNDRAIN] = JOINED,
        },
    [UP] =
        {
            [NODE_EVENT_REPORT] = UP,
            [NODE_EVENT_SILENT] = LOST,
            [NODE_EVENT_DRAIN] = DRAINING,
            [NODE_EVENT_UNDRAIN] = UP,
        },
    [LOST] =
        {
            [NODE_EVENT_REPORT] = BY_STORE,
            [NODE_EVENT_SILENT] = LOST,
            [NODE_EVENT_DRAIN] = LOST,
            [NODE_EVENT_EMPTIED] = LOST,
            [NODE_EVENT_UNDRAIN] = LOST,
        },
    [DRAINING] =
        {
            [NODE_EVENT_REPORT] = DRAINING,
            [NODE_EVENT_SILENT] = LOST,
            [NODE_EVENT_DRAIN] = DRAINING,
            [NODE_EVENT_EMPTIED] = DRAINED,
            [NODE_EVENT_UNDRAIN] = UP,
        },
    [DRAINED] =
        {
            [NODE_EVENT_REPORT] = DRAINED,
            [NODE_EVENT_SILENT] = LOST,
            [NODE_EVENT_DRAIN] = DRAINING,
            [NODE_EVENT_EMPTIED] = DRAINED,
            [NODE_EVENT_UNDRAIN] = UP,
        },
};

Vmpool__NodePhase node_phase_after(Vmpool__NodePhase phase, enum node_event event, bool draining,
                                   bool drained)
{
    if (phase >= NODE_PHASES || event >= NODE_EVENTS)
        return VMPOOL__NODE_PHASE__NODE_NONE;
    Vmpool__NodePhase next = node_table[phase][event];
    if (next != BY_STORE)
        return next;
    return drained ? DRAINED : draining ? DRAINING : UP;
}

const char *node_phase_name(Vmpool__NodePhase phase)
{
    static const char *const names[NODE_PHASES] = {[JOINED] = "joined",
                                                   [UP] = "up",
                                                   [LOST] = "lost",
                                                   [DRAINING] = "draining",
                                                   [DRAINED] = "drained"};
    return phase < NODE_PHASES && names[phase] ? names[phase] : "none";
}

const char *node_event_name(enum node_event event)
{
    static const char *const names[NODE_EVENTS] = {
        [NODE_EVENT_REPORT] = "report",   [NODE_EVENT_SILENT] = "silent",
        [NODE_EVENT_DRAIN] = "drain",     [NODE_EVENT_EMPTIED] = "emptied",
        [NODE_EVENT_UNDRAIN] = "undrain",
    };
    return event < NODE_EVENTS ? names[event] : "?";
}
