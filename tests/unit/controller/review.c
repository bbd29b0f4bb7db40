/* What was predicted of a migration, beside what it took. */
#include "controller/migrate_review.h"

#include <criterion/criterion.h>
#include <string.h>

#include "pool.h"

static struct pool pool;

static void start(void)
{
    pool_open(&pool, 3);
    pool_import_image(&pool);
    (void)pool_create(&pool, "a", "n1");
}

static void finish(void)
{
    pool_close(&pool);
}

TestSuite(review, .init = start, .fini = finish, .timeout = 60);

struct at {
    uint64_t job;
    const char *step;
};

static bool is_at(struct pool *p, const void *what)
{
    const struct at *at = what;
    const struct job *job = job_by_id(p->controller, at->job);
    return job && strcmp(job->stored->step, at->step) == 0;
}

static void await_step(uint64_t job, const char *step)
{
    struct at at = {job, step};
    cr_assert(pool_until(&pool, is_at, &at), "never came to %s", step);
}

static void assert_ends(uint64_t id, Vmpool__JobPhase phase)
{
    const struct job *job = pool_job_end(&pool, id);
    cr_assert_eq(job->stored->phase, phase, "%s", job->stored->text);
}

/* What was predicted stays beside what it took, also in the next controller's store. */
Test(review, a_prediction_is_kept_beside_what_it_took)
{
    uint64_t id = pool_migrate(&pool, "a", "n2");
    assert_ends(id, VMPOOL__JOB_PHASE__JOB_DONE);
    pool_kill_controller(&pool);
    pool_run(&pool, 100);
    pool_start_controller(&pool);
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__VmList list = VMPOOL__VM_LIST__INIT;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_LIST;
    request.vm_list = &list;
    const Vmpool__MigrationReview *review = pool_ask(&pool, &request)->vms->vms[0]->last_review;
    cr_assert(review && review->predicted);
    /* 512 MiB over 10 Gbit/s, a tenth of it written meanwhile, and a second beside. */
    cr_expect_eq(review->predicted->duration_us, 1472000);
    cr_expect_not(review->predicted->dirty_rate_known);
    cr_expect_eq(review->pause_us, 12000);
    cr_expect_eq(review->pause_error_permille,
                 migrate_review_error(review->predicted->pause_us, 12000));
    cr_expect_gt(review->duration_us, 10000); /* its steps take 5 ms each */
    cr_expect_lt(review->duration_us, 1000000);
    cr_expect_eq(review->duration_error_permille,
                 migrate_review_error(review->predicted->duration_us, review->duration_us));
    cr_expect_gt(review->duration_error_permille, 0);
    const struct job *job = job_by_id(pool.controller, id);
    cr_expect_eq(job->stored->review->duration_us, review->duration_us);
}

Test(review, waiting_for_its_turn_is_no_part_of_what_it_took)
{
    (void)pool_create(&pool, "b", "n1");
    pool_agent(&pool, "n1")->stop_at = SIM_PRECOPY;
    uint64_t a = pool_migrate(&pool, "a", "n2"), b = pool_migrate(&pool, "b", "n3");
    await_step(b, "ready");
    pool_run(&pool, 1000);
    pool_agent(&pool, "n1")->stop_at = SIM_NOWHERE;
    assert_ends(a, VMPOOL__JOB_PHASE__JOB_DONE);
    assert_ends(b, VMPOOL__JOB_PHASE__JOB_DONE);
    cr_expect_geq(pool_vm(&pool, "a")->stored->last_review->duration_us, 1000000);
    cr_expect_lt(pool_vm(&pool, "b")->stored->last_review->duration_us, 900000);
}

Test(review, one_that_fails_has_no_review)
{
    assert_ends(pool_migrate(&pool, "a", "n2"), VMPOOL__JOB_PHASE__JOB_DONE);
    cr_assert(pool_vm(&pool, "a")->stored->last_review);
    pool_agent(&pool, "n2")->stop_at = SIM_PRECOPY;
    uint64_t id = pool_migrate(&pool, "a", "n1");
    await_step(id, "stream");
    pool_run(&pool, 50);
    sim_vm_vanishes(pool_agent(&pool, "n1"), sim_agent_vm(pool_agent(&pool, "n1"), "a"));
    assert_ends(id, VMPOOL__JOB_PHASE__JOB_FAILED);
    cr_expect(pool_vm(&pool, "a")->stored->last_migration);
    cr_expect_null(pool_vm(&pool, "a")->stored->last_review);
}

Test(review, errors_are_of_what_was_real)
{
    cr_expect_eq(migrate_review_error(150, 100), 500);
    cr_expect_eq(migrate_review_error(75, 100), -250);
    cr_expect_eq(migrate_review_error(100, 0), 0);
    cr_expect_eq(migrate_review_error(UINT64_MAX, 1), 1000000);
}
