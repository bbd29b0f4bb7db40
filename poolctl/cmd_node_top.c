/* cmd_node_top.c: poolctl node top, a view of the nodes that renews itself. */
#include <sys/epoll.h>
#include <termios.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/units.h"
#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/message.h"

#define INTERVAL_MS     2000
#define INTERVAL_MIN_MS 200

static const struct field fields[] = {
    {"NODE", "name", NULL, FIELD_TEXT, 0},
    {"PHASE", "phase", NULL, FIELD_PHASE, 0},
    {"VMS", "vms", NULL, FIELD_NUMBER, 0},
    {"CPU", "cpu_permille", NULL, FIELD_PERMILLE, 0},
    {"GUEST", "cpu_guest_permille", NULL, FIELD_PERMILLE, 0},
    {"USER", "cpu_user_permille", NULL, FIELD_PERMILLE, 0},
    {"SYSTEM", "cpu_system_permille", NULL, FIELD_PERMILLE, 0},
    {"MEMORY USED", "memory_used_mib", "memory_mib", FIELD_MIB, 0},
    {"IN", "net_rx_bps", NULL, FIELD_BPS, 0},
    {"OUT", "net_tx_bps", NULL, FIELD_BPS, 0},
    {"LINK", "bandwidth_bps", NULL, FIELD_BPS, FIELD_WIDE},
    {"STORAGE FREE", "storage_free_mib", "storage_total_mib", FIELD_MIB, FIELD_WIDE},
    {"REPORT", "last_report_wall_ms", NULL, FIELD_AGE, FIELD_WIDE},
    {0}};
static const struct view view_top = {"nodes", "node", "name", "no nodes yet", fields};

struct top {
    struct session *session;
    bool quit;
};

static void on_key(void *context, int fd, uint32_t events)
{
    struct top *top = context;
    char key = 0;
    (void)events;
    ssize_t length = read(fd, &key, 1);
    if (length <= 0 || key == 'q' || key == 'Q')
        top->quit = true;
}

static json_t *get_nodes(struct session *session, struct error *err)
{
    Vmpool__NodeList body = VMPOOL__NODE_LIST__INIT;
    ADMIN_REQUEST(request, NODE_LIST, node_list, &body);
    return ask_list(session, &request, VMPOOL__ADMIN_REPLY__BODY_NODES, &view_top, err);
}

/* Waits for the interval, a key or a signal. */
static int pause_for(struct top *top, uint64_t interval_ms, struct error *err)
{
    int64_t until_ms = clock_monotonic_ms() + (int64_t)interval_ms;
    while (!top->quit && !session_interrupted(top->session)) {
        int64_t left_ms = until_ms - clock_monotonic_ms();
        if (left_ms <= 0)
            return 0;
        if (loop_run_once(session_loop(top->session), (int)left_ms, err) < 0)
            return -1;
    }
    return 0;
}

/* Draws once an interval until q or Ctrl-C. */
static int redraw(const struct invocation *call, struct top *top, uint64_t interval_ms,
                  struct error *err)
{
    FILE *out = call->terminal.out;
    char time[32];
    while (!top->quit && !session_interrupted(top->session)) {
        struct terminal terminal;
        struct view_style style = view_style_of(call);
        terminal_detect(&terminal); /* it may have been resized */
        style.terminal.columns = terminal.columns;
        json_t *nodes = get_nodes(top->session, err);
        if (!nodes)
            return -1;
        (void)fprintf(out, "\033[H\033[2J%zu nodes, every %s; q ends\n\n", json_array_size(nodes),
                      units_format_ms(interval_ms, time, sizeof time));
        int result = view_list(&style, &view_top, nodes, err);
        (void)fflush(out);
        if (result < 0 || pause_for(top, interval_ms, err) < 0)
            return -1;
    }
    return 0;
}

static int run_live(const struct invocation *call, struct session *session, uint64_t interval_ms,
                    struct error *err)
{
    struct top top = {.session = session};
    struct termios before;
    FILE *out = call->terminal.out;
    bool keys = call->terminal.in_is_terminal && tcgetattr(call->terminal.in_fd, &before) == 0;
    if (session_catch_interrupts(session, err) < 0)
        return -1;
    if (keys) {
        struct termios raw = before;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        (void)tcsetattr(call->terminal.in_fd, TCSANOW, &raw);
        if (!loop_add_fd(session_loop(session), call->terminal.in_fd, EPOLLIN, on_key, &top, err))
            keys = false;
    }
    (void)fprintf(out, "\033[?1049h\033[?25l"); /* the other screen, without its cursor */
    int result = redraw(call, &top, interval_ms, err);
    (void)fprintf(out, "\033[?25h\033[?1049l");
    (void)fflush(out);
    if (keys)
        (void)tcsetattr(call->terminal.in_fd, TCSANOW, &before);
    return result;
}

static int run(struct invocation *call, struct error *err)
{
    struct view_style style = view_style_of(call);
    uint64_t interval_ms = INTERVAL_MS;
    if (invocation_ms(call, "interval", &interval_ms, err) < 0)
        return -1;
    if (interval_ms < INTERVAL_MIN_MS)
        return error_set(err, ERROR_USAGE, "--interval: at least 200ms");
    struct session *session = session_open(call, err);
    if (!session)
        return -1;
    int result = -1;
    if (style.format == OUTPUT_TABLE && style.terminal.out_is_terminal &&
        !invocation_has(call, "once")) {
        result = run_live(call, session, interval_ms, err);
    } else {
        json_t *nodes = get_nodes(session, err);
        result = nodes ? view_list(&style, &view_top, nodes, err) : -1;
    }
    session_close(session);
    return result;
}

const struct command command_node_top = {
    .name = "top",
    .summary = "what each node uses now, renewed until q is pressed",
    .details = "CPU is the whole host's; GUEST, USER and SYSTEM are its parts. Without a terminal, "
               "with --once or with another format than a table it prints once.",
    .options =
        (const struct option[]){
            {.name = "interval", .value = "TIME", .help = "time between two views (default 2s)"},
            {.name = "once", .help = "print once and end"},
            {0}},
    .run = run,
};
