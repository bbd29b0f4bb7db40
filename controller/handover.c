#include "controller/handover.h"

#define WAIT HANDOVER_WAIT
#define ACPT HANDOVER_ACCEPT
#define RUNT HANDOVER_RUN_TARGET
#define BACK HANDOVER_TAKE_BACK
#define ABDN HANDOVER_ABANDON
#define LEAV HANDOVER_LEAVE
#define GONE HANDOVER_GONE

/* clang-format off */
/*
 * Lines that need a reason:
 *   STREAMING x NONE: the source will notice by itself and say so; until then it may be giving up.
 *   LOST x PREPARING, LOST x NONE: nobody can hand over any more, once the target has thrown away
 *     what it holds (which an agent refuses for a copy that is ready). If the source did give up, it
 *     says so when it is back and gets the VM again then (reconcile.h); until then its VM is as unknown
 *     as its node.
 *   LOST x READY: the source may have resumed after its pause ran out. Its node's return or removal
 *     by the operator decides.
 *   DIED x PREPARING: it waits for a connection that will never come; or GO is on its way to it and
 *     its word is old: then the agent refuses to throw it away.
 *   DIED x READY, FENCED x READY: the source may have run on, and written to disks, before it died:
 *     the RAM that the target holds is older than those disks.
 *   GAVE_UP x BROKE: the guest ran on at the target: the source's copy is older than its disks.
 *   DIED_LATE x NONE: nobody holds it.
 */
static const unsigned char decisions[SOURCE_WORDS][TARGET_WORDS] = {
    /* target:            SILENT LOST  PREP  READY RAN   BROKE NONE  FENCED */
    [SOURCE_SILENT]    = {WAIT,  WAIT, WAIT, WAIT, ACPT, GONE, WAIT, WAIT},
    [SOURCE_LOST]      = {WAIT,  WAIT, LEAV, WAIT, ACPT, GONE, LEAV, LEAV},
    [SOURCE_STREAMING] = {WAIT,  WAIT, WAIT, WAIT, ACPT, GONE, WAIT, WAIT},
    [SOURCE_RUNS_ON]   = {ABDN,  ABDN, ABDN, ABDN, ACPT, GONE, ABDN, ABDN},
    [SOURCE_GAVE_UP]   = {WAIT,  WAIT, WAIT, RUNT, ACPT, GONE, BACK, BACK},
    [SOURCE_DIED]      = {WAIT,  WAIT, LEAV, GONE, ACPT, GONE, GONE, GONE},
    [SOURCE_DIED_LATE] = {WAIT,  WAIT, WAIT, RUNT, ACPT, GONE, GONE, GONE},
    [SOURCE_FENCED]    = {WAIT,  WAIT, GONE, GONE, ACPT, GONE, GONE, GONE},
};
/* clang-format on */

enum handover_decision handover_decide(enum source_word source, enum target_word target)
{
    if (source >= SOURCE_WORDS || target >= TARGET_WORDS)
        return HANDOVER_WAIT;
    return (enum handover_decision)decisions[source][target];
}

const char *handover_source_name(enum source_word word)
{
    static const char *const names[SOURCE_WORDS] = {
        "has not answered yet",
        "is lost",
        "is streaming",
        "runs on",
        "gave the VM up",
        "lost the VM",
        "lost the VM after giving it up",
        "was removed for good",
    };
    return word < SOURCE_WORDS ? names[word] : "?";
}

const char *handover_target_name(enum target_word word)
{
    static const char *const names[TARGET_WORDS] = {
        "has not answered yet", "is lost",
        "is receiving",         "is ready",
        "runs the VM",          "failed after it ran the VM",
        "holds no copy",        "was removed for good",
    };
    return word < TARGET_WORDS ? names[word] : "?";
}

const char *handover_decision_name(enum handover_decision decision)
{
    static const char *const names[] = {"wait",    "accept", "run target", "take back",
                                        "abandon", "leave",  "gone"};
    return names[decision];
}
