/*
 * reconcile.h: what agents report against what should be.
 *
 * While a job works on a VM its steps decide; what is decided here is everything else: guests that
 * ended by themselves, VMs that are missing where they should run, copies left over where they
 * should not be, and a VM whose node was lost and came back.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "controller/controller.h"
#include "controller/nodes.h"
#include "controller/vms.h"

/* One node's word on one VM, beside what the store says. */
struct reconcile_view {
    Vmpool__VmPhase phase;
    bool job;            /* one works on the VM and involves this node */
    bool owner;          /* this node is the VM's */
    uint64_t epoch;      /* the owner's */
    uint64_t last_epoch; /* the highest given out */
    bool present;
    uint64_t said_epoch;
    Vmpool__VmState said_state;
    bool lacks;  /* a target of post-copy that has not got all pages */
    bool serves; /* in post-copy: it gave the VM up, and its owner still lacks pages it has */
};

enum reconcile_action {
    RECONCILE_NOTHING,
    RECONCILE_RUNNING,   /* it runs where it should: note it */
    RECONCILE_STOPPED,   /* the guest powered off */
    RECONCILE_FAILED,    /* panicked or its VMM failed */
    RECONCILE_MISSING,   /* should run there and does not */
    RECONCILE_TAKE_BACK, /* its owner gave it up in a migration that came to nothing: let it run */
    RECONCILE_OWNER,     /* runs at a newer epoch than the owner's: it is the owner */
    RECONCILE_AHEAD,   /* at an epoch that was never given out: the store is older than the pool */
    RECONCILE_DISCARD, /* a copy left over */
};

/* Pure. */
enum reconcile_action reconcile_decide(const struct reconcile_view *view);

/* Notes and acts on a whole list of a node's VMs: those it does not name it does not hold. */
void reconcile_list(struct controller *controller, struct node *node, Vmpool__NodeVm *const *vms,
                    size_t count);
/* Notes and acts on one VM's change. */
void reconcile_one(struct controller *controller, struct node *node, const Vmpool__NodeVm *said);
