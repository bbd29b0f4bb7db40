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

static void run_in_child(const struct plain_test *test, void *param)
{
    const struct plain_test *suite = suite_of(test);
    (void)alarm(test->timeout ? test->timeout : TIMEOUT_SECONDS);
    if (suite && suite->init)
        suite->init();
    if (test->init)
        test->init();
    if (test->params)
        test->run_param(param);
    else
        test->run();
    if (test->fini)
        test->fini();
    if (suite && suite->fini)
        suite->fini();
    exit(expectation_failed ? 1 : 0);
}

enum outcome { PASSED, SKIPPED, FAILED, OUTCOMES };

static enum outcome run_one(const struct plain_test *test, void *param)
{
    pid_t child = fork();
    if (child == 0)
        run_in_child(test, param);
    int status = 1;
    if (child > 0 && waitpid(child, &status, 0) == child) {
        if (test->signal && WIFSIGNALED(status) && WTERMSIG(status) == test->signal)
            return PASSED;
        if (!test->signal && WIFEXITED(status) && WEXITSTATUS(status) == 0)
            return PASSED;
        if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED)
            return SKIPPED;
    }
    (void)fprintf(stderr, "[FAIL] %s::%s (status 0x%x)\n", test->suite, test->name,
                  (unsigned)status);
    return FAILED;
}

int main(void)
{
    unsigned count[OUTCOMES] = {0};
    for (const struct plain_test *test = tests; test; test = test->next) {
        if (!test->name)
            continue;
        struct criterion_test_params params = {.length = 1};
        if (test->params)
            params = test->params();
        for (size_t i = 0; i < params.length; i++)
            count[run_one(test, params.params ? (char *)params.params + i * params.size : NULL)]++;
    }
    (void)fprintf(stderr, "[====] Passing: %u | Skipped: %u | Failing: %u\n", count[PASSED],
                  count[SKIPPED], count[FAILED]);
    return count[FAILED] ? 1 : 0;
}
