/* vm console through a pipe, and completion with live names. */
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "fake_controller.h"

static void send_output(struct fake *fake, const char *text)
{
    Vmpool__AdminReply reply = VMPOOL__ADMIN_REPLY__INIT;
    Vmpool__ConsoleOutput output = VMPOOL__CONSOLE_OUTPUT__INIT;
    output.output.data = (uint8_t *)(uintptr_t)text;
    output.output.len = strlen(text);
    reply.body_case = VMPOOL__ADMIN_REPLY__BODY_CONSOLE;
    reply.console = &output;
    fake_send(fake, &reply);
}

/* Shows its scroll-back in pieces and leaves the console open. */
static bool console(struct fake *fake, const Vmpool__AdminRequest *request,
                    Vmpool__AdminReply *reply)
{
    static Vmpool__ConsoleOutput output = VMPOOL__CONSOLE_OUTPUT__INIT;
    if (request->body_case != VMPOOL__ADMIN_REQUEST__BODY_CONSOLE_OPEN)
        return false;
    send_output(fake, "Debian GNU/Linux 12\r\n");
    send_output(fake, "web lo");
    output.output.data = (uint8_t *)(uintptr_t) "gin: ";
    output.output.len = 5;
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_CONSOLE;
    reply->console = &output;
    reply->done = false;
    return true;
}

Test(console, until_finds_a_text_cut_in_two)
{
    struct fake *fake = fake_start(console);
    struct run run = run_poolctl("vm console web --no-input --until login: --timeout 10s");
    cr_expect_eq(run.status, 0, "%s", run.err);
    cr_expect_str_eq(run.out, "Debian GNU/Linux 12\r\nweb login: ");
    run_free(&run);
    fake_stop(fake);
}

Test(console, a_text_that_does_not_come_is_a_timeout)
{
    struct fake *fake = fake_start(console);
    struct run run = run_poolctl("vm console web --no-input --until nosuch --timeout 300ms");
    cr_expect_eq(run.status, 6);
    cr_expect_not_null(strstr(run.err, "'nosuch' did not appear"));
    run_free(&run);
    fake_stop(fake);
}

Test(console, piped_input_is_typed_and_then_detached)
{
    int ends[2];
    struct fake *fake = fake_start(console);
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(write(ends[1], "reboot\n", 7), 7);
    (void)close(ends[1]);
    struct run run = run_poolctl_with_input("vm console web", ends[0]);
    cr_expect_eq(run.status, 0, "%s", run.err);
    (void)close(ends[0]);
    run_free(&run);
    cr_expect_geq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY_CONSOLE_INPUT), 1);
    const Vmpool__AdminRequest *opened = fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_CONSOLE_OPEN);
    const Vmpool__ConsoleInput *input =
        fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_CONSOLE_INPUT)->console_input;
    cr_expect_str_eq(input->console, opened->request_id);
    fake_stop(fake);
}

/* Its VM moves: the first console closes, the next one is on the other node. */
static bool moving_console(struct fake *fake, const Vmpool__AdminRequest *request,
                           Vmpool__AdminReply *reply)
{
    static Vmpool__ConsoleOutput output = VMPOOL__CONSOLE_OUTPUT__INIT;
    if (request->body_case != VMPOOL__ADMIN_REQUEST__BODY_CONSOLE_OPEN)
        return false;
    bool first = fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY_CONSOLE_OPEN) == 1;
    output.output.data = (uint8_t *)(uintptr_t)(first ? "before " : "after ");
    output.output.len = first ? 7 : 6;
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_CONSOLE;
    reply->console = &output;
    reply->done = first;
    return true;
}

Test(console, it_follows_a_vm_that_moves)
{
    struct fake *fake = fake_start(moving_console);
    struct run run = run_poolctl("vm console web --no-input --until after --timeout 10s");
    cr_expect_eq(run.status, 0, "%s", run.err);
    cr_expect_str_eq(run.out, "before after ");
    run_free(&run);
    fake_stop(fake);
}

static bool ended_console(struct fake *fake, const Vmpool__AdminRequest *request,
                          Vmpool__AdminReply *reply)
{
    static Vmpool__ConsoleOutput output = VMPOOL__CONSOLE_OUTPUT__INIT;
    (void)fake;
    if (request->body_case != VMPOOL__ADMIN_REQUEST__BODY_CONSOLE_OPEN)
        return false;
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_CONSOLE;
    reply->console = &output;
    return true;
}

Test(console, it_ends_with_its_vm)
{
    struct fake *fake = fake_start(ended_console);
    struct run run = run_poolctl("vm console zürich --no-input --timeout 20s");
    cr_expect_eq(run.status, 0, "%s", run.err);
    cr_expect_eq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY_CONSOLE_OPEN), 1);
    run_free(&run);
    fake_stop(fake);
}

/* ---- completion ----------------------------------------------------------------------------- */

static void expect_offers(const char *line, const char *offered, const char *not_offered)
{
    struct run run = run_poolctl(line);
    cr_expect_eq(run.status, 0);
    cr_expect_not_null(strstr(run.out, offered), "%s: %s", line, run.out);
    if (not_offered)
        cr_expect_null(strstr(run.out, not_offered), "%s: %s", line, run.out);
    cr_expect_str_empty(run.err);
    run_free(&run);
}

Test(console, completion_knows_live_names)
{
    struct fake *fake = fake_start(NULL);
    expect_offers("__complete ''", "node\t", "__complete");
    expect_offers("__complete vm ''", "migrate\t", "drain");
    expect_offers("__complete vm show ''", "web\trunning\n", NULL);
    expect_offers("__complete vm migrate web --to ''", "n1\tup\n", "web");
    expect_offers("__complete vm migrate web --to = ''", "n1\tup\n", "web");
    expect_offers("__complete vm create x --image ''", "debian\t", NULL);
    expect_offers("__complete vm create --image debian --", "--cpus\t", NULL);
    expect_offers("__complete job watch ''", "42\tweb\n", NULL);
    expect_offers("__complete vm ls -o ''", "yaml\t", NULL);
    expect_offers("__complete completion ''", "zsh\t", NULL);
    expect_offers("__complete rebalance ''", "recommend\t", "n1");
    expect_offers("__complete image import x --kernel ''", ":files\n", NULL);
    fake_stop(fake);
}

Test(console, completion_does_not_wait_for_a_controller_that_is_away)
{
    struct fake *fake = fake_start(NULL);
    fake_go_away(fake);
    int64_t begin_ms = clock_monotonic_ms();
    struct run run = run_poolctl("__complete vm show ''");
    cr_expect_eq(run.status, 0);
    cr_expect_str_empty(run.out);
    cr_expect_str_empty(run.err);
    cr_expect_lt(clock_monotonic_ms() - begin_ms, 2000);
    run_free(&run);
    fake_come_back(fake);
    fake_stop(fake);
}
