/*
 * handover.h: who may run a VM whose migration did not simply succeed. A pure function.
 *
 * The words are what the two ends are known to have said, the newest of each. The rules behind the
 * table (docs/architecture.md, "Handover"):
 *   - a target that ran at the new epoch owns the VM, whatever else is said;
 *   - the source owns it until it gave up, and only its own word or its removal by the operator
 *     tells that it did or can't run any more;
 *   - after that the target runs if it can, and the source gets the VM back only on the target's
 *     explicit word that it holds nothing;
 *   - who is silent may be running: wait.
 */
#pragma once

enum source_word {
    SOURCE_SILENT,    /* has not said anything new yet */
    SOURCE_LOST,      /* its node is not heard of */
    SOURCE_STREAMING, /* runs or is paused, the migration is under way */
    SOURCE_RUNS_ON,   /* the migration ended or never began, the VM runs there */
    SOURCE_GAVE_UP,   /* never runs again by itself */
    SOURCE_DIED,      /* the VM ended there and is not known to have given up before */
    SOURCE_DIED_LATE, /* gave up, and its process has ended or its node was removed since */
    SOURCE_FENCED, /* the operator removed the node as gone for good; not known to have given up */
    SOURCE_WORDS,
};

enum target_word {
    TARGET_SILENT,
    TARGET_LOST,
    TARGET_PREPARING, /* receives; has not said ready */
    TARGET_READY,     /* loaded and verified, not running */
    TARGET_RAN,       /* runs, or ended by itself after having run, at the new epoch */
    TARGET_BROKE,     /* its VMM failed after having run */
    TARGET_NONE,      /* holds no copy, or one that failed before it ever ran */
    TARGET_FENCED,
    TARGET_WORDS,
};

enum handover_decision {
    HANDOVER_WAIT,
    HANDOVER_ACCEPT,     /* the target owns the VM; discard the source */
    HANDOVER_RUN_TARGET, /* let the target run at the new epoch */
    HANDOVER_TAKE_BACK,  /* discard the target; on its word that it is done, let the source run
                            at an epoch above */
    HANDOVER_ABANDON,    /* the source keeps the VM; discard the target */
    HANDOVER_LEAVE, /* discard the target unless it got ready meanwhile; then the VM is what its
                       source is: unknown, or ended */
    HANDOVER_GONE,  /* no copy can go on: discard what is left and say so */
};

enum handover_decision handover_decide(enum source_word source, enum target_word target);
const char *handover_source_name(enum source_word word);
const char *handover_target_name(enum target_word word);
const char *handover_decision_name(enum handover_decision decision);
