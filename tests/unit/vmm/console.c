#include "node-agent/vmm/console.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A console on a socket of its own, and what the "guest" took of its input. */
struct desk {
    struct loop *loop;
    struct console *console;
    struct sockaddr_un address;
    size_t room; /* what the guest takes at a time */
    size_t used;
    char input[16384];
};

static size_t on_input(void *context, const uint8_t *data, size_t size)
{
    struct desk *desk = context;
    size_t taken = size < desk->room ? size : desk->room;
    memcpy(desk->input + desk->used, data, taken);
    desk->used += taken;
    desk->room -= taken;
    return taken;
}

static void open_desk(struct desk *desk)
{
    struct error err = ERROR_INIT;
    char folder[] = "/tmp/vmpool-console-XXXXXX";
    *desk = (struct desk){.loop = loop_new(&err), .address.sun_family = AF_UNIX};
    cr_assert_not_null(mkdtemp(folder));
    snprintf(desk->address.sun_path, sizeof desk->address.sun_path, "%s/s", folder);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&desk->address, sizeof desk->address), 0);
    cr_assert_eq(listen(fd, 32), 0);
    const struct console_events events = {.input = on_input, .context = desk};
    desk->console = console_new(desk->loop, fd, false, &events, &err);
    cr_assert_not_null(desk->console, "%s", err.text);
}

static void close_desk(struct desk *desk)
{
    console_free(desk->console);
    loop_free(desk->loop);
    unlink(desk->address.sun_path);
    *strrchr(desk->address.sun_path, '/') = '\0';
    rmdir(desk->address.sun_path);
}

static void turn(struct desk *desk)
{
    struct error err = ERROR_INIT;
    for (int i = 0; i < 4; i++)
        cr_assert_eq(loop_run_once(desk->loop, 0, &err), 0);
}

static int attach(struct desk *desk)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&desk->address, sizeof desk->address), 0);
    turn(desk);
    return fd;
}

static void guest_writes(struct desk *desk, char letter, size_t count)
{
    uint8_t piece[1024];
    memset(piece, letter, sizeof piece);
    for (; count > 0; count -= count < sizeof piece ? count : sizeof piece)
        console_write(desk->console, piece, count < sizeof piece ? count : sizeof piece);
}

/* Everything that is there for @fd, the loop turning meanwhile; -1 in *@end where it was closed. */
static size_t drain(struct desk *desk, int fd, char *out, size_t capacity, bool *closed)
{
    size_t used = 0;
    *closed = false;
    for (int idle = 0; idle < 3;) {
        turn(desk);
        ssize_t got = recv(fd, out + used, capacity - used, MSG_DONTWAIT);
        *closed = got == 0;
        if (got == 0)
            return used;
        idle = got > 0 ? 0 : idle + 1;
        used += got > 0 ? (size_t)got : 0;
    }
    return used;
}

static char seen[CONSOLE_RING * 2];

Test(console, who_attaches_late_gets_the_last_64_kib)
{
    struct desk desk;
    bool closed;
    open_desk(&desk);
    guest_writes(&desk, 'a', 100000);
    guest_writes(&desk, 'b', 5);
    int fd = attach(&desk);
    cr_expect_eq(drain(&desk, fd, seen, sizeof seen, &closed), CONSOLE_SCROLLBACK);
    cr_expect_eq(seen[0], 'a');
    cr_expect_arr_eq(seen + CONSOLE_SCROLLBACK - 5, "bbbbb", 5);
    guest_writes(&desk, 'c', 3);
    cr_expect_eq(drain(&desk, fd, seen, sizeof seen, &closed), 3);
    cr_expect_arr_eq(seen, "ccc", 3);
    cr_expect_not(closed);
    close(fd);
    close_desk(&desk);
}

Test(console, slow_readers_are_dropped_and_others_go_on)
{
    struct desk desk;
    bool closed;
    open_desk(&desk);
    int slow = attach(&desk);
    int good = attach(&desk);
    size_t total = 0;
    for (int i = 0; i < 40; i++) {
        guest_writes(&desk, 'x', 60000);
        total += drain(&desk, good, seen, sizeof seen, &closed);
    }
    cr_expect_eq(total, 40 * 60000);
    cr_expect_not(closed);
    (void)drain(&desk, slow, seen, sizeof seen, &closed);
    while (!closed && drain(&desk, slow, seen, sizeof seen, &closed) > 0)
        ;
    cr_expect(closed, "the slow one is still attached");
    close(slow);
    close(good);
    close_desk(&desk);
}

Test(console, input_waits_for_room_and_stays_in_order)
{
    struct desk desk;
    open_desk(&desk);
    int fd = attach(&desk);
    char typed[10000];
    for (size_t i = 0; i < sizeof typed; i++)
        typed[i] = (char)('a' + i % 26);
    cr_assert_eq(send(fd, typed, sizeof typed, MSG_DONTWAIT), (ssize_t)sizeof typed);
    turn(&desk);
    cr_expect_eq(desk.used, 0, "the guest had no room");
    for (int i = 0; desk.used < sizeof typed && i < 1000; i++) {
        desk.room = 16;
        console_room(desk.console);
        turn(&desk);
    }
    cr_expect_eq(desk.used, sizeof typed);
    cr_expect_arr_eq(desk.input, typed, sizeof typed);
    close(fd);
    turn(&desk);
    close_desk(&desk);
}
