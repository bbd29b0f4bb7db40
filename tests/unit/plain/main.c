#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/plain/criterion/criterion.h"

#define TIMEOUT_SECONDS 100u
#define EXIT_SKIPPED    77

static struct plain_test *tests;
static bool expectation_failed;

void plain_add(struct plain_test *test)
{
    test->next = tests;
    tests = test;
}

void plain_expect(bool holds, const char *what, const char *file, int line)
{
    if (holds)
        return;
    (void)fprintf(stderr, "[----] %s:%d: %s: does not hold\n", file, line, what);
    expectation_failed = true;
}

void plain_check(bool holds, const char *what, const char *file, int line)
{
    plain_expect(holds, what, file, line);
    if (!holds)
        _exit(1);
}

void plain_skip(const char *why)
{
    (void)fprintf(stderr, "[SKIP] %s\n", why);
    _exit(EXIT_SKIPPED);
}

static const struct plain_test *suite_of(const struct plain_test *test)
{
    const struct plain_test *suite = tests;
    while (suite && (suite->name || strcmp(suite->suite, test->suite) != 0))
        suite = suite->next;
    return suite;
}

static void run_in_child(const struct plain_test *test)
{
    const struct plain_test *suite = suite_of(test);
    (void)alarm(test->timeout ? test->timeout : TIMEOUT_SECONDS);
    if (suite && suite->init)
        suite->init();
    if (test->init)
        test->init();
    test->run();
    if (test->fini)
        test->fini();
    if (suite && suite->fini)
        suite->fini();
    exit(expectation_failed ? 1 : 0);
}

int main(void)
{
    unsigned passed = 0;
    unsigned skipped = 0;
    unsigned failed = 0;
    for (const struct plain_test *test = tests; test; test = test->next) {
        if (!test->name)
            continue;
        pid_t child = fork();
        if (child == 0)
            run_in_child(test);
        int status = 1;
        bool ended = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status);
        if (ended && WEXITSTATUS(status) == 0) {
            passed++;
        } else if (ended && WEXITSTATUS(status) == EXIT_SKIPPED) {
            skipped++;
        } else {
            failed++;
            (void)fprintf(stderr, "[FAIL] %s::%s (status 0x%x)\n", test->suite, test->name,
                          (unsigned)status);
        }
    }
    (void)fprintf(stderr, "[====] Passing: %u | Skipped: %u | Failing: %u\n", passed, skipped,
                  failed);
    return failed ? 1 : 0;
}
