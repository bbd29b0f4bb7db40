#include "node-agent/vmm/lifecycle.h"

#include <criterion/criterion.h>

#define STATE(name) VMPOOL__VM_STATE__VM_##name

static struct lifecycle running_at(uint64_t epoch)
{
    struct lifecycle life;
    lifecycle_init(&life, epoch, false);
    lifecycle_run_at(&life, epoch);
    return life;
}

Test(lifecycle, a_lower_epoch_is_refused_everywhere)
{
    struct error err = ERROR_INIT;
    struct lifecycle life = running_at(5);
    cr_expect_eq(lifecycle_run(&life, 4, &err), -1);
    cr_expect_eq(err.kind, ERROR_CONFLICT);
    cr_expect_eq(lifecycle_pause(&life, 4, &err), -1);
    cr_expect_eq(lifecycle_see(&life, 4, &err), -1);
    cr_expect_eq(lifecycle_migrate(&life, 4, 9, &err), -1);
    cr_expect_eq(life.state, STATE(RUNNING));
    cr_expect_eq(life.epoch, 5);
}

Test(lifecycle, run_and_pause_may_be_repeated)
{
    struct error err = ERROR_INIT;
    struct lifecycle life;
    lifecycle_init(&life, 1, false);
    cr_expect_eq(life.state, STATE(PREPARING));
    for (int i = 0; i < 2; i++)
        cr_expect_eq(lifecycle_run(&life, 2, &err), 0);
    cr_expect_eq(life.epoch, 2);
    for (int i = 0; i < 2; i++)
        cr_expect_eq(lifecycle_pause(&life, 2, &err), 0);
    cr_expect_eq(life.state, STATE(PAUSED));
    cr_expect_eq(lifecycle_run(&life, 1, &err), -1, "an older epoch let it run");
    cr_expect_eq(lifecycle_run(&life, 2, &err), 0);
    cr_expect_eq(life.state, STATE(RUNNING));
}

Test(lifecycle, who_gave_up_runs_only_above_the_epoch_given_up)
{
    struct error err = ERROR_INIT;
    struct lifecycle life = running_at(3);
    cr_assert_eq(lifecycle_migrate(&life, 3, 4, &err), 0);
    lifecycle_give_up(&life, 4);
    cr_expect_eq(life.state, STATE(GAVE_UP));
    const uint64_t refused[] = {0, 1, 3, 4};
    for (unsigned i = 0; i < 4; i++)
        cr_expect_eq(lifecycle_run(&life, refused[i], &err), -1, "ran at %lu", refused[i]);
    cr_expect_eq(lifecycle_pause(&life, 5, &err), -1);
    cr_expect_eq(lifecycle_migrate(&life, 5, 6, &err), -1);
    lifecycle_migrate_failed(&life);
    cr_expect_eq(life.state, STATE(GAVE_UP), "a late failure took the giving up back");
    cr_expect_eq(lifecycle_run(&life, 5, &err), 0);
    cr_expect_eq(life.state, STATE(RUNNING));
    cr_expect_eq(life.epoch, 5);
}

Test(lifecycle, a_failed_migration_changes_nothing)
{
    struct error err = ERROR_INIT;
    struct lifecycle life = running_at(3);
    cr_assert_eq(lifecycle_migrate(&life, 3, 4, &err), 0);
    cr_expect_eq(life.state, STATE(MIGRATING));
    cr_expect_eq(lifecycle_migrate(&life, 3, 5, &err), -1, "a second migration began");
    cr_expect_eq(lifecycle_run(&life, 3, &err), 0, "it runs at that epoch already");
    cr_expect_eq(lifecycle_run(&life, 4, &err), -1, "its epoch changed within a migration");
    cr_expect_eq(lifecycle_pause(&life, 3, &err), -1);
    lifecycle_migrate_failed(&life);
    cr_expect_eq(life.state, STATE(RUNNING));
    cr_expect_eq(life.epoch, 3);
    cr_expect_eq(lifecycle_migrate(&life, 3, 3, &err), -1, "the target's epoch must be higher");
    cr_expect_eq(lifecycle_migrate(&life, 3, 5, &err), 0);
}

Test(lifecycle, a_target_runs_only_once_it_is_ready)
{
    struct error err = ERROR_INIT;
    struct lifecycle life;
    lifecycle_init(&life, 0, true);
    cr_expect_eq(life.state, STATE(INCOMING));
    cr_expect_eq(lifecycle_run(&life, 4, &err), -1);
    lifecycle_ready(&life);
    cr_expect_eq(lifecycle_run(&life, 4, &err), 0);
    cr_expect_eq(life.state, STATE(READY), "only the engine knows whether it runs");
    lifecycle_unready(&life);
    cr_expect_eq(life.state, STATE(INCOMING));
    lifecycle_ready(&life);
    lifecycle_run_at(&life, 4);
    cr_expect_eq(life.epoch, 4);
    cr_expect_eq(lifecycle_run(&life, 3, &err), -1);
    lifecycle_unready(&life);
    cr_expect_eq(life.state, STATE(RUNNING));
}

Test(lifecycle, what_is_over_stays_over)
{
    struct error err = ERROR_INIT;
    const Vmpool__VmState over[] = {STATE(STOPPED), STATE(PANICKED), STATE(FAILED)};
    for (unsigned i = 0; i < 3; i++) {
        struct lifecycle life = running_at(1);
        lifecycle_end(&life, over[i], "why");
        cr_expect_eq(lifecycle_run(&life, 9, &err), -1);
        cr_expect_eq(lifecycle_pause(&life, 9, &err), -1);
        cr_expect_eq(lifecycle_migrate(&life, 9, 10, &err), -1);
        cr_expect_eq(life.state, over[i]);
        cr_expect_str_eq(life.text, "why");
    }
}
