/*
 * placement.h: the scheduler, fed with what the tables know, and asked.
 *
 * A VM's reservation stays on its node as long as a guest may run there; a migration holds the same
 * on its target beside it.
 */
#pragma once

#include "controller/controller.h"
#include "controller/nodes.h"
#include "controller/vms.h"

/* Verdicts on single hosts are made and kept for pools of up to so many; of larger ones, the
 * summary. */
#define PLACEMENT_VERDICTS_MAX 64

void placement_set_node(struct controller *controller, const struct node *node);
/* Notes what the owner's node says that @vm used, for the forecast of its node. */
void placement_note_use(struct controller *controller, struct vm *vm, const Vmpool__NodeVm *said);
void placement_remove_node(struct controller *controller, const struct node *node);
void placement_hold(struct controller *controller, const struct vm *vm, const struct node *node);
void placement_release(struct controller *controller, const struct vm *vm);
void placement_hold_target(struct controller *controller, const struct vm *vm,
                           const struct node *target);
void placement_release_target(struct controller *controller, const struct vm *vm);
void placement_reserved(const struct controller *controller, const struct node *node,
                        struct sched_resources *reserved);

struct placement_question {
    const Vmpool__VmSpec *spec;
    Vmpool__Label **selector;
    size_t selector_count;
    const char *only_node; /* name; NULL: any */
    const char *not_node;  /* name of a migration's source; NULL: none */
    char **tried;          /* ids of nodes that refused already */
    size_t tried_count;
    bool adds; /* a VM the pool did not carry before: --keep-n1 holds for it */
};

/* Whether the rules can be kept at all: ones that contradict each other are ERROR_USAGE. */
int placement_check(const struct placement_question *question, struct error *err);

/* Chooses a node. Fills @answer, free with pb_free(), also where none fits; the kind of error is
 * then ERROR_NO_CAPACITY and its text the summary. */
struct node *placement_choose(struct controller *controller,
                              const struct placement_question *question, Vmpool__Placement **answer,
                              struct error *err);
