/* Plans are made beside the loop: others are served meanwhile, in a pool that goes on changing. */
#include "controller/planner.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "controller/plans.h"
#include "pool.h"

static struct pool pool;

static void start(void)
{
    pool_open(&pool, 2);
    pool_import_image(&pool);
    (void)pool_create(&pool, "a", "n1");
}

static void finish(void)
{
    pool_close(&pool);
}

TestSuite(planner, .init = start, .fini = finish, .timeout = 60);

/* A plan that takes until somebody writes into its pipe. */
struct slow {
    int gate[2];
    bool made, failed, freed;
    bool fails;
    uint64_t fingerprint; /* of the snapshot */
    unsigned order;       /* in which it was done */
};

static unsigned done_count;

static int make(void *context, const struct snapshot *snapshot, struct error *err)
{
    struct slow *slow = context;
    char byte = 0;
    if (read(slow->gate[0], &byte, 1) != 1)
        return error_set(err, ERROR_FAILED, "no gate");
    slow->fingerprint = scheduler_fingerprint(snapshot->pool);
    return slow->fails ? error_set(err, ERROR_NOT_FOUND, "the test wants it so") : 0;
}

static void done(struct controller *controller, void *context, const struct error *err)
{
    struct slow *slow = context;
    (void)controller;
    slow->made = err->kind == ERROR_NONE;
    slow->failed = err->kind == ERROR_NOT_FOUND;
    slow->order = ++done_count;
}

static void release(void *context)
{
    struct slow *slow = context;
    slow->freed = true;
    (void)close(slow->gate[0]);
    (void)close(slow->gate[1]);
}

static void begin(struct slow *slow)
{
    struct error err = ERROR_INIT;
    *slow = (struct slow){.fails = slow->fails};
    cr_assert_eq(pipe(slow->gate), 0);
    const struct planner_work work = {plans_config(pool.controller), slow, make, done, release};
    cr_assert_eq(planner_begin(pool.controller, &work, &err), 0, "%s", err.text);
}

static void let(struct slow *slow)
{
    cr_assert_eq(write(slow->gate[1], "x", 1), 1);
}

static bool is_freed(struct pool *p, const void *what)
{
    (void)p;
    return ((const struct slow *)what)->freed;
}

Test(planner, others_are_served_while_a_plan_is_made_on_the_pool_as_it_was)
{
    struct slow slow = {0};
    uint64_t before = scheduler_fingerprint(pool.controller->scheduler);
    begin(&slow);
    (void)pool_create(&pool, "b", "n2"); /* a job of several turns, and answers */
    cr_assert_eq(pool_vm(&pool, "b")->stored->phase, VMPOOL__VM_PHASE__PHASE_RUNNING);
    cr_assert_not(slow.freed);
    let(&slow);
    cr_assert(pool_until(&pool, is_freed, &slow));
    cr_expect(slow.made);
    cr_expect_eq(slow.fingerprint, before);
    cr_expect_neq(scheduler_fingerprint(pool.controller->scheduler), before);
}

Test(planner, others_wait_in_their_order_and_one_that_fails_is_no_matter)
{
    struct slow first = {.fails = true}, second = {0}, third = {0};
    begin(&first);
    begin(&second);
    begin(&third);
    let(&third);
    let(&second);
    pool_run(&pool, 50);
    cr_expect_not(second.freed || third.freed, "the first one is not done yet");
    let(&first);
    cr_assert(pool_until(&pool, is_freed, &third));
    cr_expect(first.failed && second.made && third.made);
    cr_expect_lt(first.order, second.order);
    cr_expect_lt(second.order, third.order);
}

Test(planner, a_controller_that_closes_waits_for_the_one_and_forgets_the_others)
{
    struct slow first = {0}, second = {0};
    begin(&first);
    begin(&second);
    let(&first);
    pool_kill_controller(&pool);
    cr_expect(first.freed && second.freed);
    cr_expect_not(first.made || second.made);
    pool_run(&pool, 100);
    pool_start_controller(&pool);
}

Test(planner, too_many_are_refused)
{
    struct slow slow = {0}, many[PLANNER_WAITING_MAX], late = {0};
    struct error err = ERROR_INIT;
    begin(&slow);
    for (unsigned i = 0; i < PLANNER_WAITING_MAX; i++) {
        many[i].fails = false;
        begin(&many[i]);
        let(&many[i]);
    }
    cr_assert_eq(pipe(late.gate), 0);
    const struct planner_work work = {plans_config(pool.controller), &late, make, done, release};
    cr_expect_eq(planner_begin(pool.controller, &work, &err), -1);
    cr_expect_eq(err.kind, ERROR_CONFLICT);
    cr_expect(late.freed);
    let(&slow);
    cr_assert(pool_until(&pool, is_freed, &many[PLANNER_WAITING_MAX - 1]));
}
