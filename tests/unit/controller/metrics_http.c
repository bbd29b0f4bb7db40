/* Metrics over HTTP: what is answered, and that no client makes the controller wait. */
#include "controller/metrics_http.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "metric_page.h"
#include "pool.h"

static struct pool pool;

static void start(void)
{
    pool_open(&pool, 1);
    pool_kill_controller(&pool);
    pool.config.metrics = "127.0.0.1:0";
    pool_start_controller(&pool);
    cr_assert(pool_await_node_phase(&pool, "n1", VMPOOL__NODE_PHASE__NODE_UP));
}

static void finish(void)
{
    pool_close(&pool);
}

TestSuite(metrics_http, .init = start, .fini = finish, .timeout = 60);

struct caller {
    int fd;
    char answer[262144];
    size_t size;
    bool ended;
};

static void call(struct caller *caller, const char *request)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port =
                                      htons((uint16_t)metrics_http_port(pool.controller->metrics))};
    caller->size = 0;
    caller->ended = false;
    caller->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* The kernel answers for the listener; only reading must not wait. */
    cr_assert_eq(connect(caller->fd, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(send(caller->fd, request, strlen(request), MSG_NOSIGNAL),
                 (ssize_t)strlen(request));
}

static bool has_ended(struct pool *p, const void *what)
{
    struct caller *caller = (struct caller *)(uintptr_t)what;
    (void)p;
    while (!caller->ended && caller->size < sizeof caller->answer - 1) {
        ssize_t got = recv(caller->fd, caller->answer + caller->size,
                           sizeof caller->answer - 1 - caller->size, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN)
            break;
        caller->ended = got <= 0;
        caller->size += got > 0 ? (size_t)got : 0;
    }
    caller->answer[caller->size] = '\0';
    return caller->ended;
}

static void await(struct caller *caller)
{
    cr_assert(pool_until(&pool, has_ended, caller), "no answer");
    (void)close(caller->fd);
}

static void ask(struct caller *caller, const char *request)
{
    call(caller, request);
    await(caller);
}

static const char get[] = "GET /metrics HTTP/1.1\r\nHost: pool\r\n\r\n";
static struct caller callers[50];

static struct page *body_of(const struct caller *caller)
{
    const char *body = strstr(caller->answer, "\r\n\r\n");
    cr_assert_eq(strncmp(caller->answer, "HTTP/1.1 200 ", 13), 0, "%.100s", caller->answer);
    cr_assert(body);
    return page_read(body + 4, caller->size - (size_t)(body + 4 - caller->answer));
}

Test(metrics_http, it_answers_with_what_is_measured)
{
    ask(&callers[0], get);
    cr_expect(strstr(callers[0].answer, "Content-Type: " METRIC_CONTENT_TYPE "\r\n"));
    struct page *page = body_of(&callers[0]);
    cr_expect_eq(page_value(page, "vmpool_node_phase", "node=\"n1\",phase=\"up\""), 1);
    free(page);
}

Test(metrics_http, there_is_nothing_but_metrics_and_nothing_but_get)
{
    static const char *const requests[][2] = {
        {"GET / HTTP/1.1\r\nHost: pool\r\n\r\n", "HTTP/1.1 404 "},
        {"GET /metrics/x HTTP/1.1\r\nHost: pool\r\n\r\n", "HTTP/1.1 404 "},
        {"POST /metrics HTTP/1.1\r\nHost: pool\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 405 "},
        {"POST /metrics HTTP/1.1\r\nHost: pool\r\nContent-Length: 999999999\r\n\r\n",
         "HTTP/1.1 405 "},
        {"DELETE /metrics HTTP/1.1\r\nHost: pool\r\n\r\n", "HTTP/1.1 405 "},
        {"no HTTP at all\r\n\r\n", "HTTP/1."},
    };
    for (unsigned i = 0; i < sizeof requests / sizeof *requests; i++) {
        ask(&callers[0], requests[i][0]);
        cr_expect_eq(strncmp(callers[0].answer, requests[i][1], strlen(requests[i][1])), 0,
                     "%s: %.200s", requests[i][0], callers[0].answer);
        cr_expect_null(strstr(callers[0].answer, "vmpool_"));
        cr_expect_eq(!strstr(callers[0].answer, "Allow: GET"), i < 2 || i > 4);
    }
}

Test(metrics_http, a_head_without_an_end_is_refused)
{
    static char request[20000];
    memset(request, 'a', sizeof request - 1);
    memcpy(request, "GET /metrics HTTP/1.1\r\nX: ", 26);
    ask(&callers[0], request);
    cr_expect(callers[0].size == 0 || strncmp(callers[0].answer, "HTTP/1.1 4", 10) == 0, "%.100s",
              callers[0].answer);
}

Test(metrics_http, fifty_at_once_all_get_their_answer)
{
    for (unsigned i = 0; i < 50; i++)
        call(&callers[i], get);
    for (unsigned i = 0; i < 50; i++) {
        await(&callers[i]);
        free(body_of(&callers[i]));
    }
}

/* Sixteen that say nothing have all places. Admins and agents are served as ever, and after ten
 * seconds so is the seventeenth. */
Test(metrics_http, clients_that_say_nothing_hold_nobody_up_and_end)
{
    int64_t start_ms = clock_monotonic_ms();
    for (unsigned i = 0; i < 16; i++)
        call(&callers[i], i % 2 ? "GET /met" : "");
    pool_run(&pool, 50);
    call(&callers[16], get);
    pool_import_image(&pool);
    (void)pool_create(&pool, "a", "n1");
    cr_expect(pool_await_phase(&pool, "a", VMPOOL__VM_PHASE__PHASE_RUNNING));
    cr_expect_lt(clock_monotonic_ms() - start_ms, 5000);
    for (unsigned i = 0; i < 17; i++)
        await(&callers[i]);
    free(body_of(&callers[16]));
    cr_expect_geq(clock_monotonic_ms() - start_ms, 9000);
    cr_expect_lt(clock_monotonic_ms() - start_ms, 15000);
}

Test(metrics_http, closing_ends_what_is_open)
{
    call(&callers[0], "GET /met");
    pool_run(&pool, 50);
    pool_kill_controller(&pool);
    pool_start_controller(&pool);
    await(&callers[0]);
    ask(&callers[1], get);
    free(body_of(&callers[1]));
}

Test(metrics_http, an_address_in_use_is_said_in_one_sentence)
{
    struct error err = ERROR_INIT;
    char address[32];
    (void)snprintf(address, sizeof address, "127.0.0.1:%u",
                   metrics_http_port(pool.controller->metrics));
    cr_assert_null(metrics_http_open(pool.loop, address, NULL, NULL, &err));
    cr_expect_eq(err.kind, ERROR_CONFLICT);
    cr_expect(strstr(err.text, "is in use by another program: choose another port"), "%s",
              err.text);
}

Test(metrics_http, an_address_is_numbers)
{
    static const char *const good[] = {"127.0.0.1:7401", "0.0.0.0:0", "[::1]:7401", "[::]:65535"};
    static const char *const bad[] = {"",       "7401",        "127.0.0.1", "127.0.0.1:", ":7401",
                                      "host:1", "127.0.0.1:x", "::1:7401",  "[::1]",      "[]:1"};
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
        struct error err = ERROR_INIT;
        cr_expect_eq(metrics_http_check(good[i], &err), 0, "%s", good[i]);
    }
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = ERROR_INIT;
        cr_expect_eq(metrics_http_check(bad[i], &err), -1, "%s", bad[i]);
        cr_expect_eq(err.kind, ERROR_USAGE);
    }
}
