/*
 * vms.h: the VMs: what the store knows of each, and what nodes claim about it.
 *
 * A claim is one node's newest word on one VM. Several nodes may claim a VM: both ends of a
 * migration, or one that was cut off while the VM went on elsewhere.
 */
#pragma once

#include "controller/controller.h"
#include "controller/nodes.h"
#include "controller/states.h"
#include "proto/store.pb-c.h"
#include "scheduler/forecast.h"

struct claim {
    struct claim *next_of_vm, *next_of_node;
    struct vm *vm;
    struct node *node;
    Vmpool__NodeVm *said; /* NULL: it says that it holds no copy */
    int64_t at_ms;
    uint64_t mark;   /* node->marks of the list that named it last */
    int64_t told_ms; /* when its node was last told to discard it or to run; 0: never */
};

struct vm {
    struct vm *next;
    Vmpool__Store__Vm *stored;
    struct job *job; /* that works on it now; NULL: none */
    struct claim *claims;
    struct forecast forecast; /* of its use; of this controller's life */
    int64_t moved_ms;         /* monotonic; when it last changed its node; 0: not since we run */
    struct node *counted_on;  /* whose node->vms counts it */
    struct vm *next_counted, *previous_counted;
};

struct vm *vm_add(struct controller *controller, Vmpool__Store__Vm *stored);
void vm_save(struct controller *controller, const struct vm *vm);
void vm_delete(struct controller *controller, struct vm *vm);
void vms_free(struct controller *controller);

struct vm *vm_by_name(const struct controller *controller, const char *name);
struct vm *vm_by_id(const struct controller *controller, const char *id);
/* The node it runs on or last ran on; NULL: none. */
struct node *vm_node(const struct controller *controller, const struct vm *vm);

/* Its phase changes by @event, is saved, and its reservation follows. False, and nothing changed,
 * where the phase does not know the event. @text says why, for vm show; NULL keeps what is there.
 */
bool vm_happens(struct controller *controller, struct vm *vm, enum vm_event event,
                const char *text);
/* Takes the next epoch from the store. Saved with the VM by this turn. */
uint64_t vm_grant_epoch(struct controller *controller, struct vm *vm);
/* Makes @node the owner at @epoch. */
void vm_set_owner(struct controller *controller, struct vm *vm, const struct node *node,
                  uint64_t epoch);
/* Its disks live on one node only. */
bool vm_has_local_disks(const struct vm *vm);

/* Notes what @node says of @vm; @said NULL: no copy. */
struct claim *vm_note_claim(struct vm *vm, struct node *node, const Vmpool__NodeVm *said);
const struct claim *vm_claim_of(const struct vm *vm, const char *node_id);
/* What the node that it runs on said of it last; NULL: nothing, or it runs nowhere. */
const Vmpool__NodeVm *vm_said(const struct vm *vm);
void claims_forget_node(struct node *node);
/* The node goes away; no VM counts on it any more. */
void vms_forget_node(struct node *node);
void vms_of_lost_node(struct controller *controller, const struct node *node);

/* For poolctl; free with pb_free(). */
Vmpool__Vm *vm_describe(const struct controller *controller, const struct vm *vm);
