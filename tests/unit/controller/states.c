#include "controller/states.h"

#include <criterion/criterion.h>
#include <string.h>

#define P(name) VMPOOL__VM_PHASE__PHASE_##name
#define N(name) VMPOOL__NODE_PHASE__NODE_##name

Test(states, a_vm_lives_its_usual_life)
{
    static const struct {
        enum vm_event event;
        Vmpool__VmPhase after;
    } life[] = {
        {VM_EVENT_START, P(STARTING)},    {VM_EVENT_STARTED, P(RUNNING)},
        {VM_EVENT_MIGRATE, P(MIGRATING)}, {VM_EVENT_GAVE_UP, P(HANDOVER)},
        {VM_EVENT_MIGRATED, P(RUNNING)},  {VM_EVENT_NODE_LOST, P(UNKNOWN)},
        {VM_EVENT_SEEN, P(RUNNING)},      {VM_EVENT_STOP, P(STOPPING)},
        {VM_EVENT_STOPPED, P(STOPPED)},   {VM_EVENT_REMOVE, P(REMOVING)},
    };
    Vmpool__VmPhase phase = P(STOPPED);
    for (unsigned i = 0; i < sizeof life / sizeof *life; i++) {
        phase = vm_phase_after(phase, life[i].event);
        cr_assert_eq(phase, life[i].after, "%s", vm_event_name(life[i].event));
    }
}

Test(states, what_a_vm_must_never_do)
{
    /* Started while it may run somewhere. */
    static const Vmpool__VmPhase may_run[] = {P(RUNNING),  P(STOPPING), P(MIGRATING),
                                              P(HANDOVER), P(UNKNOWN),  P(REMOVING)};
    for (unsigned i = 0; i < sizeof may_run / sizeof *may_run; i++)
        cr_assert_eq(vm_phase_after(may_run[i], VM_EVENT_START), P(NONE), "%s",
                     vm_phase_name(may_run[i]));
    /* A handover that is being decided ends by its decision alone. */
    cr_assert_eq(vm_phase_after(P(HANDOVER), VM_EVENT_NODE_LOST), P(NONE));
    cr_assert_eq(vm_phase_after(P(HANDOVER), VM_EVENT_REMOVE), P(NONE));
    cr_assert_eq(vm_phase_after(P(HANDOVER), VM_EVENT_STOP), P(NONE));
    cr_assert_eq(vm_phase_after(P(STOPPED), VM_EVENT_SEEN), P(NONE));
    cr_assert_eq(vm_phase_after(P(NONE), VM_EVENT_START), P(NONE));
    cr_assert_eq(vm_phase_after((Vmpool__VmPhase)99, VM_EVENT_START), P(NONE));
    cr_assert_eq(vm_phase_after(P(RUNNING), VM_EVENTS), P(NONE));
}

Test(states, every_phase_has_a_name_and_a_way_out)
{
    for (unsigned phase = P(STOPPED); phase <= P(HANDOVER); phase++) {
        unsigned ways = 0;
        cr_assert_str_neq(vm_phase_name((Vmpool__VmPhase)phase), "none");
        for (unsigned event = 0; event < VM_EVENTS; event++) {
            Vmpool__VmPhase after = vm_phase_after((Vmpool__VmPhase)phase, (enum vm_event)event);
            ways += after != P(NONE) && after != phase;
        }
        cr_assert_gt(ways, 0, "%s", vm_phase_name((Vmpool__VmPhase)phase));
    }
}

Test(states, a_reservation_is_held_while_a_guest_may_run)
{
    cr_assert(vm_phase_holds_host(P(UNKNOWN)));
    cr_assert(vm_phase_holds_host(P(HANDOVER)));
    cr_assert_not(vm_phase_holds_host(P(STOPPED)));
    cr_assert_not(vm_phase_holds_host(P(FAILED)));
}

Test(states, a_node_comes_goes_and_comes_back_as_what_it_was)
{
    cr_assert_eq(node_phase_after(N(JOINED), NODE_EVENT_REPORT, false, false), N(UP));
    cr_assert_eq(node_phase_after(N(UP), NODE_EVENT_SILENT, false, false), N(LOST));
    cr_assert_eq(node_phase_after(N(LOST), NODE_EVENT_REPORT, false, false), N(UP));
    cr_assert_eq(node_phase_after(N(LOST), NODE_EVENT_REPORT, true, false), N(DRAINING));
    cr_assert_eq(node_phase_after(N(LOST), NODE_EVENT_REPORT, true, true), N(DRAINED));
    cr_assert_eq(node_phase_after(N(UP), NODE_EVENT_DRAIN, true, false), N(DRAINING));
    cr_assert_eq(node_phase_after(N(DRAINING), NODE_EVENT_EMPTIED, true, true), N(DRAINED));
    cr_assert_eq(node_phase_after(N(DRAINED), NODE_EVENT_UNDRAIN, false, false), N(UP));
    cr_assert_eq(node_phase_after(N(LOST), NODE_EVENT_DRAIN, true, false), N(LOST));
    cr_assert_eq(node_phase_after((Vmpool__NodePhase)77, NODE_EVENT_REPORT, false, false), N(NONE));
}
