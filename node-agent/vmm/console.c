#include "node-agent/vmm/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

#define PIECE_SIZE 4096u /* a pipe takes this much whole once it is writable */
#define INPUT_SIZE 4096u
#define CTRL_A     0x01u

struct attached {
    struct console *console;
    int in_fd; /* -1: free place */
    int out_fd;
    bool stdio;
    bool escape;  /* Ctrl-A was typed */
    bool is_file; /* always writable, epoll does not know it */
    bool input_ended;
    uint64_t sent; /* place in the ring, counted from the guest's first byte */
    struct loop_source *in_source;
    struct loop_source *out_source; /* stdio only: its output is another descriptor */
};

struct console {
    struct loop *loop;
    struct console_events events;
    int listen_fd;
    struct loop_source *listen_source;
    int wake_fd; /* eventfd: there is output, or room for input */
    struct loop_source *wake_source;
    _Atomic bool woken;
    pthread_mutex_t lock; /* guards ring and written */
    uint64_t written;
    uint8_t *ring;
    struct attached attached[CONSOLE_ATTACHED];
    size_t input_used;
    uint8_t input[INPUT_SIZE];
    bool has_terminal;
    struct termios terminal; /* as it was */
};

static void wake(struct console *console)
{
    if (!atomic_exchange(&console->woken, true))
        (void)!write(console->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

void console_room(struct console *console)
{
    wake(console);
}

void console_write(struct console *console, const uint8_t *data, size_t size)
{
    (void)pthread_mutex_lock(&console->lock);
    for (size_t i = 0; i < size; i++)
        console->ring[console->written++ % CONSOLE_RING] = data[i];
    (void)pthread_mutex_unlock(&console->lock);
    wake(console);
}

static void detach(struct attached *who)
{
    if (who->in_fd < 0)
        return;
    loop_remove(who->in_source);
    loop_remove(who->out_source);
    if (!who->stdio)
        close_fd(&who->in_fd);
    *who = (struct attached){.console = who->console, .in_fd = -1, .out_fd = -1};
}

static void listen_for(struct attached *who, bool input, bool output)
{
    uint32_t in = input && !who->input_ended ? EPOLLIN : 0;
    if (who->in_source)
        loop_set_events(who->in_source, in | (output && !who->stdio ? (uint32_t)EPOLLOUT : 0));
    if (who->out_source)
        loop_set_events(who->out_source, output ? EPOLLOUT : 0);
}

static bool input_full(const struct console *console)
{
    return console->input_used == INPUT_SIZE;
}

/* Copies what comes next for @who; 0 where it has everything. */
static size_t next_piece(struct attached *who, uint8_t *piece, bool *lost)
{
    struct console *console = who->console;
    (void)pthread_mutex_lock(&console->lock);
    uint64_t behind = console->written - who->sent;
    *lost = behind > CONSOLE_RING;
    if (*lost) {
        who->sent = console->written - CONSOLE_SCROLLBACK;
        behind = CONSOLE_SCROLLBACK;
    }
    size_t size = behind < PIECE_SIZE ? (size_t)behind : PIECE_SIZE;
    for (size_t i = 0; i < size; i++)
        piece[i] = console->ring[(who->sent + i) % CONSOLE_RING];
    (void)pthread_mutex_unlock(&console->lock);
    return size;
}

/* write() that never blocks: -1 with EAGAIN instead. */
static ssize_t write_now(struct attached *who, const uint8_t *data, size_t size)
{
    if (!who->stdio)
        return send(who->out_fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    struct pollfd ready = {.fd = who->out_fd, .events = POLLOUT};
    if (!who->is_file && poll(&ready, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(who->out_fd, data, size);
}

static void flush(struct attached *who)
{
    static const char note[] = "\r\n[some of the console's output is lost]\r\n";
    uint8_t piece[PIECE_SIZE];
    bool lost = false;
    size_t size = 0;
    while (who->in_fd >= 0 && (size = next_piece(who, piece, &lost)) > 0) {
        if (lost && !who->stdio) {
            log_warn("console: someone attached reads too slowly and was dropped");
            detach(who);
            return;
        }
        if (lost)
            (void)write_now(who, (const uint8_t *)note, sizeof note - 1);
        ssize_t done = write_now(who, piece, size);
        if (done < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (done < 0) {
            detach(who);
            return;
        }
        who->sent += (uint64_t)done;
    }
    if (who->in_fd >= 0)
        listen_for(who, !input_full(who->console), size > 0);
}

/* Hands the guest what was typed, and reads on where that made room. */
static void pass_input(struct console *console)
{
    bool was_full = input_full(console);
    if (console->input_used > 0) {
        size_t taken =
            console->events.input(console->events.context, console->input, console->input_used);
        memmove(console->input, console->input + taken, console->input_used - taken);
        console->input_used -= taken;
    }
    if (was_full && !input_full(console))
        for (unsigned i = 0; i < CONSOLE_ATTACHED; i++)
            if (console->attached[i].in_fd >= 0)
                listen_for(&console->attached[i], true, false);
}

static void on_wake(void *context, int fd, uint32_t events)
{
    (void)events;
    struct console *console = context;
    uint64_t count = 0;
    /* In this order, and before looking: who writes from the store on wakes us again, and what was
     * written before it is seen below. */
    (void)!read(fd, &count, sizeof count);
    atomic_store(&console->woken, false);
    pass_input(console);
    for (unsigned i = 0; i < CONSOLE_ATTACHED; i++)
        flush(&console->attached[i]);
}

/* Takes Ctrl-A sequences out of what was typed at the terminal: x leaves, a second Ctrl-A is sent.
 * Returns the bytes left, -1 for leaving. */
static ssize_t filter_escape(struct attached *who, uint8_t *data, size_t size)
{
    size_t kept = 0;
    for (size_t i = 0; i < size; i++) {
        if (!who->escape && data[i] == CTRL_A) {
            who->escape = true;
            continue;
        }
        if (who->escape && (data[i] == 'x' || data[i] == 'X'))
            return -1;
        who->escape = false;
        data[kept++] = data[i];
    }
    return (ssize_t)kept;
}

static void end_input(struct attached *who)
{
    if (!who->stdio) {
        detach(who);
        return;
    }
    /* Standard input ended, as from a script; its output goes on. */
    who->input_ended = true;
    loop_remove(who->in_source);
    who->in_source = NULL;
}

static void on_attached(void *context, int fd, uint32_t events)
{
    struct attached *who = context;
    struct console *console = who->console;
    if (events & EPOLLOUT) {
        flush(who);
        if (who->in_fd < 0)
            return;
    }
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || fd != who->in_fd || input_full(console))
        return;
    uint8_t *to = console->input + console->input_used;
    ssize_t got = read(fd, to, INPUT_SIZE - console->input_used);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        end_input(who);
        return;
    }
    if (who->stdio && console->has_terminal)
        got = filter_escape(who, to, (size_t)got);
    if (got < 0) {
        console->events.leave(console->events.context);
        return;
    }
    console->input_used += (size_t)got;
    pass_input(console);
    if (input_full(console))
        for (unsigned i = 0; i < CONSOLE_ATTACHED; i++)
            if (console->attached[i].in_fd >= 0)
                listen_for(&console->attached[i], false, false);
}

static struct attached *free_place(struct console *console)
{
    for (unsigned i = 0; i < CONSOLE_ATTACHED; i++)
        if (console->attached[i].in_fd < 0)
            return &console->attached[i];
    return NULL;
}

/* Where someone who attaches now begins to read. */
static uint64_t scrollback_start(struct console *console)
{
    (void)pthread_mutex_lock(&console->lock);
    uint64_t written = console->written;
    (void)pthread_mutex_unlock(&console->lock);
    return written > CONSOLE_SCROLLBACK ? written - CONSOLE_SCROLLBACK : 0;
}

static void on_connect(void *context, int fd, uint32_t events)
{
    (void)events;
    struct console *console = context;
    struct error err = ERROR_INIT;
    int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection < 0)
        return;
    struct attached *who = free_place(console);
    if (!who) {
        static const char full[] = "too many are attached to this console\r\n";
        (void)send(connection, full, sizeof full - 1, MSG_NOSIGNAL);
        (void)close(connection);
        return;
    }
    *who = (struct attached){.console = console,
                             .in_fd = connection,
                             .out_fd = connection,
                             .sent = scrollback_start(console)};
    who->in_source = loop_add_fd(console->loop, connection, EPOLLIN, on_attached, who, &err);
    if (!who->in_source) {
        log_warn("console: %s", err.text);
        detach(who);
        return;
    }
    flush(who);
}

static void make_raw(struct console *console)
{
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &console->terminal) < 0)
        return;
    struct termios raw = console->terminal;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST; /* our own log lines go there too */
    console->has_terminal = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

static int attach_stdio(struct console *console, struct error *err)
{
    struct attached *who = &console->attached[0];
    *who = (struct attached){
        .console = console, .in_fd = STDIN_FILENO, .out_fd = STDOUT_FILENO, .stdio = true};
    make_raw(console);
    /* A regular file or /dev/null cannot be watched: as input it has ended, as output it is always
     * ready. */
    who->in_source = loop_add_fd(console->loop, STDIN_FILENO, EPOLLIN, on_attached, who, err);
    who->input_ended = !who->in_source;
    who->out_source = loop_add_fd(console->loop, STDOUT_FILENO, 0, on_attached, who, err);
    who->is_file = !who->out_source;
    error_clear(err);
    return 0;
}

struct console *console_new(struct loop *loop, int listen_fd, bool stdio,
                            const struct console_events *events, struct error *err)
{
    struct console *console = calloc(1, sizeof *console);
    if (!console) {
        (void)error_errno(err, ENOMEM, "console");
        return NULL;
    }
    console->loop = loop;
    console->events = *events;
    console->listen_fd = listen_fd;
    (void)pthread_mutex_init(&console->lock, NULL);
    for (unsigned i = 0; i < CONSOLE_ATTACHED; i++)
        console->attached[i] = (struct attached){.console = console, .in_fd = -1, .out_fd = -1};
    console->ring = malloc(CONSOLE_RING);
    console->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!console->ring || console->wake_fd < 0) {
        (void)error_errno(err, errno, "console");
        goto fail;
    }
    console->wake_source = loop_add_fd(loop, console->wake_fd, EPOLLIN, on_wake, console, err);
    if (!console->wake_source)
        goto fail;
    if (listen_fd >= 0) {
        console->listen_source = loop_add_fd(loop, listen_fd, EPOLLIN, on_connect, console, err);
        if (!console->listen_source)
            goto fail;
    }
    if (stdio && attach_stdio(console, err) < 0)
        goto fail;
    return console;
fail:
    console_free(console);
    return NULL;
}

void console_free(struct console *console)
{
    if (!console)
        return;
    for (unsigned i = 0; i < CONSOLE_ATTACHED; i++) {
        flush(&console->attached[i]);
        detach(&console->attached[i]);
    }
    if (console->has_terminal)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &console->terminal);
    loop_remove(console->listen_source);
    loop_remove(console->wake_source);
    close_fd(&console->listen_fd);
    close_fd(&console->wake_fd);
    (void)pthread_mutex_destroy(&console->lock);
    free(console->ring);
    free(console);
}
