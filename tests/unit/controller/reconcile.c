/* What is done about a node's word on a VM that no job works on. */
#include "controller/reconcile.h"

#include <criterion/criterion.h>

#define P(name) VMPOOL__VM_PHASE__PHASE_##name
#define S(name) VMPOOL__VM_STATE__VM_##name

/* The VM's owner at epoch 5 of 6 given out says @state at @epoch. */
static enum reconcile_action owner_says(Vmpool__VmPhase phase, Vmpool__VmState state,
                                        uint64_t epoch)
{
    struct reconcile_view view = {.phase = phase,
                                  .owner = true,
                                  .epoch = 5,
                                  .last_epoch = 6,
                                  .present = true,
                                  .said_epoch = epoch,
                                  .said_state = state};
    return reconcile_decide(&view);
}

static enum reconcile_action other_says(Vmpool__VmState state, uint64_t epoch)
{
    struct reconcile_view view = {.phase = P(RUNNING),
                                  .epoch = 5,
                                  .last_epoch = 6,
                                  .present = true,
                                  .said_epoch = epoch,
                                  .said_state = state};
    return reconcile_decide(&view);
}

Test(reconcile, the_owner_as_it_should_be_is_left_alone)
{
    cr_assert_eq(owner_says(P(RUNNING), S(RUNNING), 5), RECONCILE_NOTHING);
    cr_assert_eq(owner_says(P(RUNNING), S(PAUSED), 5), RECONCILE_NOTHING);
    cr_assert_eq(owner_says(P(STOPPED), S(STOPPED), 5), RECONCILE_NOTHING);
    cr_assert_eq(owner_says(P(FAILED), S(FAILED), 5), RECONCILE_NOTHING);
}

Test(reconcile, a_source_that_serves_pages_is_left_alone_while_the_guest_may_run)
{
    struct reconcile_view view = {.phase = P(RUNNING),
                                  .epoch = 5,
                                  .last_epoch = 6,
                                  .present = true,
                                  .said_epoch = 4,
                                  .said_state = S(GAVE_UP),
                                  .serves = true};
    cr_assert_eq(reconcile_decide(&view), RECONCILE_NOTHING);
    view.phase = P(UNKNOWN);
    cr_assert_eq(reconcile_decide(&view), RECONCILE_NOTHING);
    view.phase = P(FAILED);
    cr_assert_eq(reconcile_decide(&view), RECONCILE_DISCARD);
    view.phase = P(RUNNING);
    view.serves = false;
    cr_assert_eq(reconcile_decide(&view), RECONCILE_DISCARD);
}

Test(reconcile, a_target_whose_missing_pages_are_lost_is_thrown_away)
{
    struct reconcile_view view = {.phase = P(FAILED),
                                  .owner = true,
                                  .epoch = 5,
                                  .last_epoch = 6,
                                  .present = true,
                                  .said_epoch = 5,
                                  .said_state = S(PAUSED),
                                  .lacks = true};
    cr_assert_eq(reconcile_decide(&view), RECONCILE_DISCARD);
    view.phase = P(UNKNOWN);
    cr_assert_eq(reconcile_decide(&view), RECONCILE_RUNNING);
    view.phase = P(FAILED);
    view.lacks = false;
    cr_assert_eq(reconcile_decide(&view), RECONCILE_RUNNING);
}

Test(reconcile, what_a_guest_did_by_itself_is_noted)
{
    cr_assert_eq(owner_says(P(RUNNING), S(STOPPED), 5), RECONCILE_STOPPED);
    cr_assert_eq(owner_says(P(RUNNING), S(PANICKED), 5), RECONCILE_FAILED);
    cr_assert_eq(owner_says(P(RUNNING), S(FAILED), 5), RECONCILE_FAILED);
    cr_assert_eq(owner_says(P(UNKNOWN), S(RUNNING), 5), RECONCILE_RUNNING);
    cr_assert_eq(owner_says(P(UNKNOWN), S(STOPPED), 5), RECONCILE_STOPPED);
    cr_assert_eq(owner_says(P(STOPPED), S(RUNNING), 5), RECONCILE_RUNNING);
}

Test(reconcile, one_missing_where_it_should_run_is_noticed)
{
    struct reconcile_view view = {.phase = P(RUNNING), .owner = true, .epoch = 5, .last_epoch = 5};
    cr_assert_eq(reconcile_decide(&view), RECONCILE_MISSING);
    view.phase = P(UNKNOWN);
    cr_assert_eq(reconcile_decide(&view), RECONCILE_MISSING);
    view.phase = P(STOPPED);
    cr_assert_eq(reconcile_decide(&view), RECONCILE_NOTHING);
    view.phase = P(RUNNING);
    view.owner = false;
    cr_assert_eq(reconcile_decide(&view), RECONCILE_NOTHING);
}

Test(reconcile, of_two_claims_the_lower_is_discarded)
{
    cr_assert_eq(other_says(S(RUNNING), 4), RECONCILE_DISCARD);
    cr_assert_eq(other_says(S(RUNNING), 5), RECONCILE_DISCARD);
    cr_assert_eq(other_says(S(RUNNING), 6), RECONCILE_OWNER);
    cr_assert_eq(owner_says(P(RUNNING), S(RUNNING), 4), RECONCILE_DISCARD);
}

Test(reconcile, copies_left_over_by_a_migration_are_discarded_whatever_their_epoch)
{
    cr_assert_eq(other_says(S(INCOMING), 6), RECONCILE_DISCARD);
    cr_assert_eq(other_says(S(READY), 6), RECONCILE_DISCARD);
    cr_assert_eq(other_says(S(GAVE_UP), 4), RECONCILE_DISCARD);
    cr_assert_eq(other_says(S(STOPPED), 3), RECONCILE_DISCARD);
}

Test(reconcile, an_owner_that_gave_up_for_nothing_gets_it_back)
{
    cr_assert_eq(owner_says(P(UNKNOWN), S(GAVE_UP), 5), RECONCILE_TAKE_BACK);
    cr_assert_eq(owner_says(P(RUNNING), S(GAVE_UP), 5), RECONCILE_TAKE_BACK);
}

/* It ran at the target until it failed there: what the source holds is older than its disks. */
Test(reconcile, an_owner_that_gave_up_a_vm_which_has_ended_since_is_discarded)
{
    cr_assert_eq(owner_says(P(FAILED), S(GAVE_UP), 5), RECONCILE_DISCARD);
    cr_assert_eq(owner_says(P(STOPPED), S(GAVE_UP), 5), RECONCILE_DISCARD);
}

Test(reconcile, an_epoch_never_given_out_says_that_the_store_is_old)
{
    cr_assert_eq(other_says(S(RUNNING), 7), RECONCILE_AHEAD);
    cr_assert_eq(owner_says(P(RUNNING), S(RUNNING), 7), RECONCILE_AHEAD);
}

Test(reconcile, what_a_job_works_on_is_the_jobs)
{
    for (unsigned phase = 0; phase <= P(HANDOVER); phase++)
        for (unsigned state = 0; state <= S(FAILED); state++)
            for (uint64_t epoch = 3; epoch < 9; epoch++) {
                struct reconcile_view view = {.phase = (Vmpool__VmPhase)phase,
                                              .job = true,
                                              .owner = epoch % 2,
                                              .epoch = 5,
                                              .last_epoch = 6,
                                              .present = true,
                                              .said_epoch = epoch,
                                              .said_state = (Vmpool__VmState)state};
                cr_assert_eq(reconcile_decide(&view), RECONCILE_NOTHING);
            }
}

/* A running guest of the VM's own epoch on its own node is never thrown away. */
Test(reconcile, the_owners_running_guest_is_never_discarded)
{
    for (unsigned phase = 0; phase <= P(HANDOVER); phase++)
        for (uint64_t epoch = 5; epoch < 9; epoch++)
            cr_assert_neq(owner_says((Vmpool__VmPhase)phase, S(RUNNING), epoch), RECONCILE_DISCARD);
}
