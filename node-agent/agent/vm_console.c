#include "node-agent/agent/vm_console.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "node-agent/agent/unix_socket.h"

struct vm_console {
    struct loop *loop;
    int fd; /* -1: the VMM closed it */
    struct loop_source *watch, *pace;
    bool paused; /* until the pace timer */
    vm_console_output_fn output;
    void *context;
    uint64_t written; /* bytes of output so far; the ring holds the last of them */
    uint8_t ring[CONSOLE_TAIL_BYTES];
    size_t input_size;
    uint8_t input[CONSOLE_INPUT_MAX];
};

static void disconnect(struct vm_console *console)
{
    loop_remove(console->watch);
    console->watch = NULL;
    close_fd(&console->fd);
}

static void set_interest(struct vm_console *console)
{
    if (console->watch)
        loop_set_events(console->watch, (console->paused ? 0u : (uint32_t)EPOLLIN) |
                                            (console->input_size ? (uint32_t)EPOLLOUT : 0u));
}

static void flush_input(struct vm_console *console)
{
    while (console->input_size > 0) {
        ssize_t count =
            send(console->fd, console->input, console->input_size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count < 0) {
            if (errno != EAGAIN && errno != EINTR)
                console->input_size = 0; /* gone: the next read says so */
            break;
        }
        console->input_size -= (size_t)count;
        memmove(console->input, console->input + count, console->input_size);
    }
    set_interest(console);
}

static void keep(struct vm_console *console, const uint8_t *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        size_t at = console->written % CONSOLE_TAIL_BYTES;
        size_t part = CONSOLE_TAIL_BYTES - at;
        if (part > size - done)
            part = size - done;
        memcpy(console->ring + at, data + done, part);
        console->written += part;
        done += part;
    }
}

/* One portion; whether there was any. */
static bool read_portion(struct vm_console *console)
{
    uint8_t portion[CONSOLE_PORTION_BYTES];
    if (console->fd < 0)
        return false;
    ssize_t count = recv(console->fd, portion, sizeof portion, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (count <= 0) {
        disconnect(console);
        return false;
    }
    keep(console, portion, (size_t)count);
    console->output(console->context, portion, (size_t)count);
    return true;
}

static void on_pace(void *context)
{
    struct vm_console *console = context;
    console->pace = NULL;
    console->paused = false;
    set_interest(console);
}

static void on_ready(void *context, int fd, uint32_t events)
{
    struct vm_console *console = context;
    (void)fd;
    if (events & EPOLLOUT)
        flush_input(console);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || !read_portion(console) || !console->watch)
        return;
    console->pace = loop_add_timer(console->loop, CONSOLE_PACE_MS, 0, on_pace, console);
    console->paused = console->pace != NULL;
    set_interest(console);
}

struct vm_console *vm_console_open(struct loop *loop, int dir_fd, vm_console_output_fn output,
                                   void *context, struct error *err)
{
    struct vm_console *console = calloc(1, sizeof *console);
    if (!console) {
        (void)error_errno(err, ENOMEM, "console");
        return NULL;
    }
    console->loop = loop;
    console->output = output;
    console->context = context;
    console->fd = unix_socket_connect(dir_fd, "console.sock", SOCK_STREAM, err);
    if (console->fd >= 0)
        console->watch = loop_add_fd(loop, console->fd, EPOLLIN, on_ready, console, err);
    if (!console->watch) {
        close_fd(&console->fd);
        free(console);
        return NULL;
    }
    return console;
}

void vm_console_close(struct vm_console *console)
{
    if (!console)
        return;
    loop_remove(console->pace);
    disconnect(console);
    free(console);
}

int vm_console_input(struct vm_console *console, const uint8_t *data, size_t size,
                     struct error *err)
{
    if (console->fd < 0)
        return error_set(err, ERROR_FAILED, "the VM's console is gone");
    if (size > CONSOLE_INPUT_MAX - console->input_size)
        return error_set(err, ERROR_FAILED, "the guest does not read its console");
    memcpy(console->input + console->input_size, data, size);
    console->input_size += size;
    flush_input(console);
    return 0;
}

size_t vm_console_tail(struct vm_console *console, uint8_t out[CONSOLE_TAIL_BYTES])
{
    for (unsigned i = 0; i < CONSOLE_TAIL_BYTES / CONSOLE_PORTION_BYTES && read_portion(console);
         i++)
        ;
    size_t size =
        console->written < CONSOLE_TAIL_BYTES ? (size_t)console->written : CONSOLE_TAIL_BYTES;
    uint64_t start = console->written - size;
    for (size_t i = 0; i < size; i++)
        out[i] = console->ring[(start + i) % CONSOLE_TAIL_BYTES];
    return size;
}
