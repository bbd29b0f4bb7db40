#include "common/loop.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

struct record {
    struct loop *loop;
    struct loop_source *self, *other;
    char order[16];
    unsigned count;
};

static void note(struct record *record, char letter)
{
    record->order[record->count++] = letter;
}

static void timer_a(void *context)
{
    note(context, 'a');
}

static void timer_b_stops(void *context)
{
    struct record *record = context;
    note(record, 'b');
    loop_stop(record->loop);
}

Test(loop, timers_run_in_order_of_their_time)
{
    struct error err = ERROR_INIT;
    struct record record = {.loop = loop_new(&err)};
    cr_assert(loop_add_timer(record.loop, 20, 0, timer_b_stops, &record));
    cr_assert(loop_add_timer(record.loop, 1, 0, timer_a, &record));
    cr_assert_eq(loop_run(record.loop, &err), 0);
    cr_assert_str_eq(record.order, "ab");
    loop_free(record.loop);
}

static void third_time_removes_itself(void *context)
{
    struct record *record = context;
    note(record, 'c');
    if (record->count == 3) {
        loop_remove(record->self);
        loop_stop(record->loop);
    }
}

Test(loop, an_interval_timer_repeats_until_removed)
{
    struct error err = ERROR_INIT;
    struct record record = {.loop = loop_new(&err)};
    record.self = loop_add_timer(record.loop, 1, 1, third_time_removes_itself, &record);
    cr_assert_eq(loop_run(record.loop, &err), 0);
    cr_assert_eq(loop_run_once(record.loop, 5, &err), 0);
    cr_assert_str_eq(record.order, "ccc");
    loop_free(record.loop);
}

static void reader_removes_both(void *context, int fd, uint32_t events)
{
    struct record *record = context;
    (void)fd;
    cr_assert(events & EPOLLIN);
    note(record, 'r');
    loop_remove(record->self);
    loop_remove(record->other);
}

Test(loop, a_source_removed_in_the_same_round_is_not_called)
{
    struct error err = ERROR_INIT;
    struct record record = {.loop = loop_new(&err)};
    int one[2], two[2];
    cr_assert_eq(pipe(one), 0);
    cr_assert_eq(pipe(two), 0);
    cr_assert_eq(write(one[1], "x", 1), 1);
    cr_assert_eq(write(two[1], "x", 1), 1);
    record.self = loop_add_fd(record.loop, one[0], EPOLLIN, reader_removes_both, &record, &err);
    record.other = loop_add_fd(record.loop, two[0], EPOLLIN, reader_removes_both, &record, &err);
    cr_assert_eq(loop_run_once(record.loop, 100, &err), 0);
    cr_assert_eq(loop_run_once(record.loop, 0, &err), 0);
    cr_assert_str_eq(record.order, "r");
    loop_free(record.loop);
}

static void on_signal(void *context, int number)
{
    cr_assert_eq(number, SIGUSR1);
    note(context, 's');
}

Test(loop, signals_arrive_as_calls)
{
    struct error err = ERROR_INIT;
    struct record record = {.loop = loop_new(&err)};
    cr_assert_eq(loop_add_signal(record.loop, SIGUSR1, on_signal, &record, &err), 0);
    cr_assert_eq(kill(getpid(), SIGUSR1), 0);
    cr_assert_eq(loop_run_once(record.loop, 1000, &err), 0);
    cr_assert_str_eq(record.order, "s");
    loop_free(record.loop);
}
