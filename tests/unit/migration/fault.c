#include "common/fault.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

Test(fault, does_nothing_unless_named)
{
    unsetenv("VMPOOL_FAULTS");
    cr_assert(!fault_point("a.b"));
    setenv("VMPOOL_FAULTS", "a.bc=drop,xa.b=kill", 1);
    cr_assert(!fault_point("a.b"));
}

Test(fault, drops_and_delays)
{
    setenv("VMPOOL_FAULTS", "one=delay:30,two=drop,three=drop", 1);
    int64_t begin_ms = clock_monotonic_ms();
    cr_assert(!fault_point("one"));
    cr_assert_geq(clock_monotonic_ms() - begin_ms, 29);
    cr_assert(fault_point("two"));
    cr_assert(fault_point("three"));
}

Test(fault, kills, .signal = SIGKILL)
{
    setenv("VMPOOL_FAULTS", "one=kill", 1);
    (void)fault_point("one");
}

static void *idle(void *context)
{
    (void)pause();
    return context;
}

static void *cross(void *pipe_end)
{
    (void)fault_point("one");
    (void)!write(*(int *)pipe_end, "x", 1); /* only once it was woken again */
    return NULL;
}

static _Noreturn void be_frozen(int pipe_end)
{
    pthread_t others[4], crossing;
    for (unsigned i = 0; i < 4; i++)
        (void)pthread_create(&others[i], NULL, idle, NULL);
    (void)pthread_create(&crossing, NULL, cross, &pipe_end);
    (void)pthread_join(crossing, NULL);
    _exit(0);
}

/* A signal to the whole process may be taken by another thread while this one runs on. */
Test(fault, stops_at_the_point_and_not_behind_it)
{
    setenv("VMPOOL_FAULTS", "one=stop", 1);
    for (unsigned i = 0; i < 100; i++) {
        int ends[2], status = 0;
        char byte;
        cr_assert_eq(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0)
            be_frozen(ends[1]);
        close(ends[1]);
        cr_assert_eq(waitpid(child, &status, WUNTRACED), child);
        cr_assert(WIFSTOPPED(status));
        (void)kill(child, SIGKILL);
        (void)waitpid(child, &status, 0);
        cr_assert_eq(read(ends[0], &byte, 1), 0, "it ran past the point (try %u)", i);
        close(ends[0]);
    }
}
