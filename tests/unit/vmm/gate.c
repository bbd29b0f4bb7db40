#include "node-agent/vmm/gate.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>

struct visitor {
    struct gate *gate;
    struct error err;
    int status;
    _Atomic bool back;
};

static int add_one(void *context, void *argument, struct error *err)
{
    (void)err;
    int *sum = context;
    *sum += *(int *)argument;
    return *sum;
}

static void *visit(void *context)
{
    struct visitor *visitor = context;
    int one = 1;
    visitor->status = gate_pass(visitor->gate, add_one, &one, &visitor->err);
    atomic_store(&visitor->back, true);
    return NULL;
}

Test(gate, calls_are_made_by_the_loop_s_thread)
{
    struct error err = ERROR_INIT;
    int sum = 0;
    struct loop *loop = loop_new(&err);
    struct visitor visitor = {.gate = gate_new(loop, &sum, &err)};
    pthread_t thread;
    pthread_create(&thread, NULL, visit, &visitor);
    while (!atomic_load(&visitor.back))
        cr_assert_eq(loop_run_once(loop, 100, &err), 0);
    pthread_join(thread, NULL);
    cr_expect_eq(visitor.status, 1);
    cr_expect_eq(sum, 1);
    gate_free(visitor.gate);
    loop_free(loop);
}

Test(gate, a_closed_gate_lets_nobody_pass)
{
    struct error err = ERROR_INIT;
    int sum = 0;
    struct loop *loop = loop_new(&err);
    struct visitor waiting = {.gate = gate_new(loop, &sum, &err)};
    struct visitor late = {.gate = waiting.gate};
    pthread_t thread;
    pthread_create(&thread, NULL, visit, &waiting); /* the loop does not run: it waits, or will */
    gate_close(waiting.gate);
    pthread_join(thread, NULL);
    cr_expect_eq(waiting.status, -1);
    cr_expect_eq(waiting.err.kind, ERROR_CONFLICT);
    visit(&late);
    cr_expect_eq(late.status, -1);
    cr_assert_eq(loop_run_once(loop, 0, &err), 0);
    cr_expect_eq(sum, 0, "a call was made behind a closed gate");
    gate_free(waiting.gate);
    loop_free(loop);
}
