/* cmd_vm_console.c: poolctl vm console|log. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <termios.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/units.h"
#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/text.h"

#define DETACH_KEY  0x1d /* Ctrl-] */
#define INPUT_BYTES 4096
#define UNTIL_MAX   255
#define QUIET_MS    1000 /* after the end of piped input: detach once nothing came for so long */
#define WAIT_MAX_MS 60000
#define REOPEN_MS   500 /* after a console closed, because its VM moved */
#define REOPEN_MAX  120 /* in a row, without output */

struct console {
    struct invocation *call;
    struct session *session;
    struct session_request *opened;
    struct loop_source *input;
    const char *until;
    int64_t deadline_ms;
    int64_t quiet_since_ms; /* of the output, or of the input's end */
    size_t tail_size;
    char tail[UNTIL_MAX + 1]; /* the end of what came, for --until across messages */
    unsigned reopened;        /* since output came last */
    char why_closed[256];
    bool input_ended;
    bool detached;
    bool found;
};

/* ---- input ---------------------------------------------------------------------------------- */

static void send_input(struct console *console, uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    Vmpool__ConsoleInput body = VMPOOL__CONSOLE_INPUT__INIT;
    ADMIN_REQUEST(request, CONSOLE_INPUT, console_input, &body);
    if (!console->opened)
        return;
    body.console = ask_text(session_request_id(console->opened));
    body.input.data = data;
    body.input.len = size;
    body.close = size == 0;
    /* A key pressed while the connection is lost is lost too: a bell says so. */
    if (session_post(console->session, &request, &err) < 0 && size > 0)
        (void)fputc('\a', console->call->terminal.err);
}

static void on_input(void *context, int fd, uint32_t events)
{
    struct console *console = context;
    uint8_t data[INPUT_BYTES];
    ssize_t length = read(fd, data, sizeof data);
    (void)events;
    if (length < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (length <= 0) {
        loop_remove(console->input);
        console->input = NULL;
        console->input_ended = true;
        console->quiet_since_ms = clock_monotonic_ms();
        return;
    }
    size_t size = (size_t)length;
    const uint8_t *key =
        console->call->terminal.in_is_terminal ? memchr(data, DETACH_KEY, size) : NULL;
    if (key) {
        size = (size_t)(key - data);
        console->detached = true;
    }
    if (size > 0)
        send_input(console, data, size);
}

/* A plain file cannot be watched by epoll: it is sent at once. */
static int watch_input(struct console *console, struct error *err)
{
    const int fd = console->call->terminal.in_fd;
    console->input =
        loop_add_fd(session_loop(console->session), fd, EPOLLIN, on_input, console, err);
    if (console->input)
        return 0;
    error_clear(err);
    uint8_t data[INPUT_BYTES];
    ssize_t length = 0;
    while ((length = read(fd, data, sizeof data)) > 0)
        send_input(console, data, (size_t)length);
    console->input_ended = true;
    console->quiet_since_ms = clock_monotonic_ms();
    return 0;
}

/* ---- output --------------------------------------------------------------------------------- */

/* Whether --until's text stands in what came so far and @data. */
static bool saw_text(struct console *console, const uint8_t *data, size_t size)
{
    size_t wanted = strlen(console->until);
    for (size_t i = 0; i < size; i++) {
        if (console->tail_size == wanted) {
            memmove(console->tail, console->tail + 1, wanted - 1);
            console->tail_size--;
        }
        console->tail[console->tail_size++] = (char)data[i];
        if (console->tail_size == wanted && memcmp(console->tail, console->until, wanted) == 0)
            return true;
    }
    return false;
}

static void remark(const struct console *console, const char *text)
{
    FILE *err = console->call->terminal.err;
    if (!text[0] || invocation_has(console->call, "quiet"))
        return;
    (void)fprintf(err, "\r\n[");
    text_print_safe(err, text, false);
    (void)fprintf(err, "]\r\n");
}

static void show(struct console *console, const Vmpool__ConsoleOutput *output, bool closed)
{
    FILE *out = console->call->terminal.out;
    if (output->output.len > 0)
        (void)fwrite(output->output.data, 1, output->output.len, out);
    (void)fflush(out);
    console->quiet_since_ms = clock_monotonic_ms();
    console->reopened = output->output.len > 0 ? 0 : console->reopened;
    if (console->until && saw_text(console, output->output.data, output->output.len))
        console->found = true;
    /* Why it closed is said once it is known that it does not open again. */
    if (closed)
        (void)snprintf(console->why_closed, sizeof console->why_closed, "%s", output->text);
    else
        remark(console, output->text);
}

/* The time until something ends by itself. */
static int time_left(const struct console *console)
{
    int64_t until_ms = console->deadline_ms;
    if (console->input_ended && !console->until && console->deadline_ms == INT64_MAX)
        until_ms = console->quiet_since_ms + QUIET_MS;
    int64_t left_ms = until_ms - clock_monotonic_ms();
    return left_ms > WAIT_MAX_MS ? WAIT_MAX_MS : left_ms > 0 ? (int)left_ms : 0;
}

/* Sends the request that opens the console. */
static int open_console(struct console *console, struct error *err)
{
    Vmpool__ConsoleOpen body = VMPOOL__CONSOLE_OPEN__INIT;
    body.name = ask_text(invocation_argument(console->call, 0));
    ADMIN_REQUEST(request, CONSOLE_OPEN, console_open, &body);
    console->opened = session_begin(console->session, &request, err);
    return console->opened ? 0 : -1;
}

/* Whether the VM has, or will have, a console somewhere: -1 where that cannot be told. */
static int still_there(struct console *console, struct error *err)
{
    Vmpool__VmList body = VMPOOL__VM_LIST__INIT;
    body.name = ask_text(invocation_argument(console->call, 0));
    ADMIN_REQUEST(request, VM_LIST, vm_list, &body);
    Vmpool__AdminReply *reply = NULL;
    if (ask_session(console->session, &request, VMPOOL__ADMIN_REPLY__BODY_VMS, &reply, err) < 0)
        return err->kind == ERROR_NOT_FOUND ? 0 : -1;
    Vmpool__VmPhase phase =
        reply->vms->n_vms > 0 ? reply->vms->vms[0]->phase : VMPOOL__VM_PHASE__PHASE_NONE;
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return phase == VMPOOL__VM_PHASE__PHASE_RUNNING || phase == VMPOOL__VM_PHASE__PHASE_MIGRATING ||
           phase == VMPOOL__VM_PHASE__PHASE_HANDOVER || phase == VMPOOL__VM_PHASE__PHASE_UNKNOWN;
}

/* The console closed: the VM ended, or it moved and has its console elsewhere now. Returns 1 where
 * it was opened again. */
static int open_again(struct console *console, struct error *err)
{
    int64_t again_ms = clock_monotonic_ms() + REOPEN_MS;
    session_end(console->session, console->opened);
    console->opened = NULL;
    while (clock_monotonic_ms() < again_ms && !session_interrupted(console->session))
        if (loop_run_once(session_loop(console->session), REOPEN_MS, err) < 0)
            return -1;
    if (session_interrupted(console->session) || console->detached ||
        ++console->reopened > REOPEN_MAX)
        return 0;
    int there = still_there(console, err);
    if (there <= 0) {
        remark(console, console->why_closed);
        return there;
    }
    if (console->reopened == 1)
        remark(console, "the console closed; attaching again");
    return open_console(console, err) < 0 ? -1 : 1;
}

/* Whether nothing more is waited for. */
static bool is_over(const struct console *console)
{
    return console->detached || console->found || session_interrupted(console->session) ||
           time_left(console) == 0;
}

static int follow(struct console *console, struct error *err)
{
    while (!is_over(console)) {
        Vmpool__AdminReply *reply = NULL;
        int got = session_next(console->session, console->opened, time_left(console), &reply, err);
        /* Refused while it was on its way: looked at again like one that closed. */
        bool moving = got < 0 && console->reopened > 0 && err->kind == ERROR_CONFLICT;
        if (got < 0 && !moving)
            return -1;
        if (got > 0 && reply->body_case == VMPOOL__ADMIN_REPLY__BODY_CONSOLE)
            show(console, reply->console, reply->done);
        bool closed = moving || (got > 0 && reply->done);
        vmpool__admin_reply__free_unpacked(reply, NULL);
        if (!closed || is_over(console))
            continue;
        error_clear(err);
        int again = open_again(console, err);
        if (again <= 0)
            return again;
    }
    return 0;
}

/* ---- the command ---------------------------------------------------------------------------- */

static int attach(struct console *console, struct error *err)
{
    session_set_patience(console->session, SESSION_RETRY_MS);
    if (open_console(console, err) < 0 || session_catch_interrupts(console->session, err) < 0)
        return -1;
    return invocation_has(console->call, "no-input") ? 0 : watch_input(console, err);
}

/* Runs with the terminal passing every key on, which is undone on every path. */
static int run_attached(struct console *console, struct error *err)
{
    const struct terminal *terminal = &console->call->terminal;
    bool no_input = invocation_has(console->call, "no-input");
    bool quiet = invocation_has(console->call, "quiet");
    struct termios before;
    bool raw = !no_input && terminal->in_is_terminal && tcgetattr(terminal->in_fd, &before) == 0;
    if (raw && !quiet)
        (void)fprintf(terminal->err, "Attached to %s; Ctrl-] detaches.\n",
                      invocation_argument(console->call, 0));
    if (raw) {
        struct termios mode = before;
        cfmakeraw(&mode);
        (void)tcsetattr(terminal->in_fd, TCSADRAIN, &mode);
    }
    int result = attach(console, err);
    if (result == 0)
        result = follow(console, err);
    if (result == 0 && console->until && !console->found)
        result =
            error_set(err, ERROR_TIMEOUT, "'%s' did not appear on the console", console->until);
    if (console->opened)
        send_input(console, NULL, 0);
    if (raw)
        (void)tcsetattr(terminal->in_fd, TCSADRAIN, &before);
    if (raw && !quiet)
        (void)fprintf(terminal->err, "\nDetached from %s.\n",
                      invocation_argument(console->call, 0));
    return result;
}

static int run_console(struct invocation *call, struct error *err)
{
    uint64_t timeout_ms = 0;
    struct console console = {
        .call = call, .until = invocation_option(call, "until"), .deadline_ms = INT64_MAX};
    if (invocation_ms(call, "timeout", &timeout_ms, err) < 0)
        return -1;
    if (console.until && (!console.until[0] || strlen(console.until) > UNTIL_MAX))
        return error_set(err, ERROR_USAGE, "--until: give 1 to %d bytes", UNTIL_MAX);
    if (timeout_ms > 0 && timeout_ms < INT64_MAX / 2)
        console.deadline_ms = clock_monotonic_ms() + (int64_t)timeout_ms;
    console.session = session_open(call, err);
    if (!console.session)
        return -1;
    int result = run_attached(&console, err);
    session_close(console.session);
    return result;
}

const struct command command_vm_console = {
    .name = "console",
    .summary = "attach to a VM's console; Ctrl-] detaches",
    .details =
        "What the console showed before is shown first. The console stays attached while the VM "
        "migrates.\n\n"
        "Input may be a pipe: it is typed into the console, and after its end poolctl detaches "
        "once nothing came back for a second. With --until it waits for a text instead, as a "
        "script needs it.",
    .arguments = ONE_ARGUMENT("VM", "the VM's name", COMPLETE_VM),
    .options =
        (const struct option[]){
            {.name = "no-input", .help = "only show; stdin is not read"},
            {.name = "until",
             .value = "TEXT",
             .help = "detach as soon as the console shows this text"},
            {.name = "timeout",
             .value = "TIME",
             .help = "detach after this time; with --until that is exit status 6"},
            {0}},
    .examples =
        (const struct example[]){
            {"poolctl vm console web1", "Log in at the VM's console"},
            {"poolctl vm console web1 --no-input --until 'login:' --timeout 1m",
             "Wait until a VM has booted"},
            {0}},
    .run = run_console,
};

static int run_log(struct invocation *call, struct error *err)
{
    Vmpool__VmLog body = VMPOOL__VM_LOG__INIT;
    body.name = ask_text(invocation_argument(call, 0));
    ADMIN_REQUEST(request, VM_LOG, vm_log, &body);
    Vmpool__AdminReply *reply = NULL;
    if (ask(call, &request, VMPOOL__ADMIN_REPLY__BODY_TEXT, &reply, err) < 0)
        return -1;
    const char *text = reply->text->text;
    (void)fputs(text, call->terminal.out);
    if (text[0] && text[strlen(text) - 1] != '\n')
        (void)fputc('\n', call->terminal.out);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return 0;
}

const struct command command_vm_log = {
    .name = "log",
    .summary = "what a VM's console showed last, without attaching",
    .arguments = ONE_ARGUMENT("VM", "the VM's name", COMPLETE_VM),
    .run = run_log,
};
