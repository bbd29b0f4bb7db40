#include "common/fault.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
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

Test(fault, says_how_often_a_message_is_to_be_handled)
{
    setenv("VMPOOL_FAULTS", "one=drop,two=repeat,three=delay:1", 1);
    cr_assert_eq(fault_message("one"), 0);
    cr_assert_eq(fault_message("two"), 2);
    cr_assert_eq(fault_message("three"), 1);
    cr_assert_eq(fault_message("four"), 1);
}

static void write_faults(int fd, const char *text)
{
    cr_assert_eq(ftruncate(fd, 0), 0);
    cr_assert_eq(pwrite(fd, text, strlen(text), 0), (ssize_t)strlen(text));
}

static void *release(void *fd)
{
    struct timespec wait = {.tv_nsec = 50000000};
    (void)nanosleep(&wait, NULL);
    write_faults(*(int *)fd, "two=drop");
    return NULL;
}

Test(fault, holds_until_the_file_names_it_no_more)
{
    char name[] = "@/tmp/vmpool-fault-XXXXXX";
    int fd = mkstemp(name + 1);
    pthread_t releasing;
    cr_assert_geq(fd, 0);
    setenv("VMPOOL_FAULTS", name, 1);
    cr_assert(!fault_point("one"), "an empty file");
    write_faults(fd, "one=hold,two=repeat\n");
    cr_assert_eq(fault_message("two"), 2);
    int64_t begin_ms = clock_monotonic_ms();
    cr_assert_eq(pthread_create(&releasing, NULL, release, &fd), 0);
    cr_assert(!fault_point("one"));
    cr_assert_geq(clock_monotonic_ms() - begin_ms, 49);
    cr_assert_eq(pthread_join(releasing, NULL), 0);
    cr_assert(fault_point("two"));
    (void)unlink(name + 1);
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
