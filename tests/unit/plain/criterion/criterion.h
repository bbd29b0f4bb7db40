/*
 * The part of Criterion our tests use, for builds under ThreadSanitizer: the real one puts its
 * arena where that sanitizer keeps its shadow, and cannot start. Each test runs in a child process.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct criterion_test_params {
    size_t size;
    void *params;
    size_t length;
};

struct plain_test {
    const char *suite;
    const char *name; /* NULL: the suite's own fixtures */
    void (*run)(void);
    void (*init)(void);
    void (*fini)(void);
    unsigned timeout;                             /* seconds; 0: the default */
    int signal;                                   /* that must end it; 0: none */
    struct criterion_test_params (*params)(void); /* NULL: once, by run() */
    void (*run_param)(void *param);
    struct plain_test *next;
};

void plain_add(struct plain_test *test);
void plain_check(bool holds, const char *what, const char *file, int line);
void plain_expect(bool holds, const char *what, const char *file, int line);
_Noreturn void plain_skip(const char *why);

#define Test(s, n, ...)                                                                            \
    static void s##_##n##_run(void);                                                               \
    static struct plain_test s##_##n##_test = {                                                    \
        .suite = #s, .name = #n, .run = s##_##n##_run, ##__VA_ARGS__};                             \
    __attribute__((constructor)) static void s##_##n##_add(void)                                   \
    {                                                                                              \
        plain_add(&s##_##n##_test);                                                                \
    }                                                                                              \
    static void s##_##n##_run(void)

#define cr_make_param_array(type, array, count, ...)                                               \
    ((struct criterion_test_params){sizeof(type), (array), (size_t)(count)})

#define ParameterizedTestParameters(s, n) static struct criterion_test_params s##_##n##_params(void)

#define ParameterizedTest(param, s, n, ...)                                                        \
    static void s##_##n##_run(param);                                                              \
    static void s##_##n##_call(void *argument)                                                     \
    {                                                                                              \
        s##_##n##_run(argument);                                                                   \
    }                                                                                              \
    static struct plain_test s##_##n##_test = {.suite = #s,                                        \
                                               .name = #n,                                         \
                                               .run_param = s##_##n##_call,                        \
                                               .params = s##_##n##_params,                         \
                                               ##__VA_ARGS__};                                     \
    __attribute__((constructor)) static void s##_##n##_add(void)                                   \
    {                                                                                              \
        plain_add(&s##_##n##_test);                                                                \
    }                                                                                              \
    static void s##_##n##_run(param)

#define TestSuite(s, ...)                                                                          \
    static struct plain_test s##_suite = {.suite = #s, ##__VA_ARGS__};                             \
    __attribute__((constructor)) static void s##_suite_add(void)                                   \
    {                                                                                              \
        plain_add(&s##_suite);                                                                     \
    }

/* The message behind is left out: file and line say enough. */
#define plain_a(holds, what) plain_check((holds), what, __FILE__, __LINE__)
#define plain_e(holds, what) plain_expect((holds), what, __FILE__, __LINE__)

#define cr_skip_test(...)              plain_skip("" __VA_ARGS__)
#define cr_assert(e, ...)              plain_a((e), #e)
#define cr_assert_not(e, ...)          plain_a(!(e), "not " #e)
#define cr_assert_eq(a, b, ...)        plain_a((a) == (b), #a " == " #b)
#define cr_assert_neq(a, b, ...)       plain_a((a) != (b), #a " != " #b)
#define cr_assert_lt(a, b, ...)        plain_a((a) < (b), #a " < " #b)
#define cr_assert_leq(a, b, ...)       plain_a((a) <= (b), #a " <= " #b)
#define cr_assert_gt(a, b, ...)        plain_a((a) > (b), #a " > " #b)
#define cr_assert_geq(a, b, ...)       plain_a((a) >= (b), #a " >= " #b)
#define cr_assert_null(p, ...)         plain_a(!(p), #p " is NULL")
#define cr_assert_not_null(p, ...)     plain_a((p) != NULL, #p " is not NULL")
#define cr_assert_str_eq(a, b, ...)    plain_a(strcmp((a), (b)) == 0, #a " equals " #b)
#define cr_assert_str_neq(a, b, ...)   plain_a(strcmp((a), (b)) != 0, #a " differs from " #b)
#define cr_assert_str_empty(a, ...)    plain_a(*(a) == '\0', #a " is empty")
#define cr_assert_arr_eq(a, b, n, ...) plain_a(memcmp((a), (b), (n)) == 0, #a " equals " #b)
#define cr_assert_fail(...)            plain_a(false, "not reached")
#define cr_expect(e, ...)              plain_e((e), #e)
#define cr_expect_not(e, ...)          plain_e(!(e), "not " #e)
#define cr_expect_eq(a, b, ...)        plain_e((a) == (b), #a " == " #b)
#define cr_expect_neq(a, b, ...)       plain_e((a) != (b), #a " != " #b)
#define cr_expect_lt(a, b, ...)        plain_e((a) < (b), #a " < " #b)
#define cr_expect_leq(a, b, ...)       plain_e((a) <= (b), #a " <= " #b)
#define cr_expect_gt(a, b, ...)        plain_e((a) > (b), #a " > " #b)
#define cr_expect_geq(a, b, ...)       plain_e((a) >= (b), #a " >= " #b)
#define cr_expect_null(p, ...)         plain_e(!(p), #p " is NULL")
#define cr_expect_not_null(p, ...)     plain_e((p) != NULL, #p " is not NULL")
#define cr_expect_str_eq(a, b, ...)    plain_e(strcmp((a), (b)) == 0, #a " equals " #b)
#define cr_expect_str_neq(a, b, ...)   plain_e(strcmp((a), (b)) != 0, #a " differs from " #b)
#define cr_expect_arr_eq(a, b, n, ...) plain_e(memcmp((a), (b), (n)) == 0, #a " equals " #b)
