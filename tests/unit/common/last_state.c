#include "common/last_state.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fd = -1;

static void setup(void)
{
    char path[] = "/tmp/vmpool-last-XXXXXX";
    fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    (void)unlink(path);
}

TestSuite(last_state, .init = setup);

Test(last_state, what_was_written_is_read)
{
    struct last_state state = {
        .state = 9, .epoch = 18446744073709551615u, .text = "guest panicked"};
    struct last_state read = {0};
    cr_assert_eq(last_state_write(fd, &state), 0);
    cr_assert_eq(last_state_read(fd, &read), 0);
    cr_assert_eq(read.state, 9);
    cr_assert_eq(read.epoch, 18446744073709551615u);
    cr_assert_str_eq(read.text, "guest panicked");
}

Test(last_state, the_last_of_several_counts_and_leaves_nothing_of_those_before)
{
    struct last_state state = {
        .state = 9, .epoch = 1234567, .text = "a long text that is replaced"};
    struct last_state read = {0};
    cr_assert_eq(last_state_write(fd, &state), 0);
    state = (struct last_state){.state = 2, .epoch = 3};
    cr_assert_eq(last_state_write(fd, &state), 0);
    cr_assert_eq(last_state_read(fd, &read), 0);
    cr_assert_eq(read.state, 2);
    cr_assert_eq(read.epoch, 3);
    cr_assert_str_eq(read.text, "");
}

Test(last_state, the_longest_text_fits_and_has_one_line)
{
    struct last_state state = {.state = 10, .epoch = 18446744073709551615u}, read = {0};
    memset(state.text, 'x', sizeof state.text - 1);
    state.text[5] = '\n';
    cr_assert_eq(last_state_write(fd, &state), 0);
    cr_assert_eq(last_state_read(fd, &read), 0);
    cr_assert_eq(read.text[5], ' ');
    cr_assert_eq(strlen(read.text), sizeof state.text - 1);
}

Test(last_state, an_empty_or_damaged_file_holds_none)
{
    struct last_state read = {0};
    char garbage[LAST_STATE_BYTES];
    cr_assert_eq(last_state_read(fd, &read), -1);
    memset(garbage, 'g', sizeof garbage);
    cr_assert_eq(pwrite(fd, garbage, sizeof garbage, 0), (ssize_t)sizeof garbage);
    cr_assert_eq(last_state_read(fd, &read), -1);
    garbage[sizeof garbage - 1] = '\n';
    cr_assert_eq(pwrite(fd, garbage, sizeof garbage, 0), (ssize_t)sizeof garbage);
    cr_assert_eq(last_state_read(fd, &read), -1);
    memcpy(garbage, "-3 4 ", 5);
    cr_assert_eq(pwrite(fd, garbage, sizeof garbage, 0), (ssize_t)sizeof garbage);
    cr_assert_eq(last_state_read(fd, &read), -1);
}
