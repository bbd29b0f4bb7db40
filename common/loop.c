#include "common/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

enum source_kind { SOURCE_FD, SOURCE_TIMER, SOURCE_SIGNAL };

struct loop_source {
    struct loop *loop;
    struct loop_source *next; /* in loop->fds, loop->timers (by due_ms) or loop->dead */
    enum source_kind kind;
    bool removed; /* freed at the end of the round, as an event may still name it */
    int fd;
    int signal_number;
    int64_t due_ms;
    int64_t interval_ms;
    union {
        loop_fd_fn fd;
        loop_timer_fn timer;
        loop_signal_fn signal;
    } call;
    void *context;
};

struct loop {
    int epoll_fd;
    bool stopped;
    struct loop_source *fds;
    struct loop_source *timers;
    struct loop_source *dead;
};

struct loop *loop_new(struct error *err)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (!loop) {
        (void)error_errno(err, ENOMEM, "event loop");
        return NULL;
    }
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        (void)error_errno(err, errno, "epoll_create1");
        free(loop);
        return NULL;
    }
    return loop;
}

static void free_list(struct loop_source **list)
{
    while (*list) {
        struct loop_source *source = *list;
        *list = source->next;
        if (source->kind == SOURCE_SIGNAL)
            close_fd(&source->fd);
        free(source);
    }
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    free_list(&loop->fds);
    free_list(&loop->timers);
    free_list(&loop->dead);
    close_fd(&loop->epoll_fd);
    free(loop);
}

static struct loop_source *watch(struct loop *loop, enum source_kind kind, int fd, uint32_t events,
                                 struct error *err)
{
    struct loop_source *source = calloc(1, sizeof *source);
    if (!source) {
        (void)error_errno(err, ENOMEM, "event loop");
        return NULL;
    }
    source->loop = loop;
    source->kind = kind;
    source->fd = fd;
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        (void)error_errno(err, errno, "cannot watch descriptor %d", fd);
        free(source);
        return NULL;
    }
    source->next = loop->fds;
    loop->fds = source;
    return source;
}

struct loop_source *loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn call,
                                void *context, struct error *err)
{
    struct loop_source *source = watch(loop, SOURCE_FD, fd, events, err);
    if (source) {
        source->call.fd = call;
        source->context = context;
    }
    return source;
}

void loop_set_events(struct loop_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    /* Fails only for a descriptor that was closed while watched, which the header forbids. */
    (void)epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
}

static void insert_timer(struct loop *loop, struct loop_source *timer)
{
    struct loop_source **place = &loop->timers;
    while (*place && (*place)->due_ms <= timer->due_ms)
        place = &(*place)->next;
    timer->next = *place;
    *place = timer;
}

struct loop_source *loop_add_timer(struct loop *loop, uint64_t delay_ms, uint64_t interval_ms,
                                   loop_timer_fn call, void *context)
{
    struct loop_source *source = calloc(1, sizeof *source);
    if (!source)
        return NULL;
    source->loop = loop;
    source->kind = SOURCE_TIMER;
    source->fd = -1;
    source->due_ms = clock_monotonic_ms() + (int64_t)delay_ms;
    source->interval_ms = (int64_t)interval_ms;
    source->call.timer = call;
    source->context = context;
    insert_timer(loop, source);
    return source;
}

int loop_add_signal(struct loop *loop, int signal_number, loop_signal_fn call, void *context,
                    struct error *err)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, signal_number);
    int status = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (status != 0)
        return error_errno(err, status, "cannot block signal %d", signal_number);
    auto_fd int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return error_errno(err, errno, "signalfd");
    struct loop_source *source = watch(loop, SOURCE_SIGNAL, fd, EPOLLIN, err);
    if (!source)
        return -1;
    (void)take_fd(&fd); /* the loop closes it */
    source->signal_number = signal_number;
    source->call.signal = call;
    source->context = context;
    return 0;
}

static void unlink_source(struct loop_source **list, struct loop_source *source)
{
    while (*list && *list != source)
        list = &(*list)->next;
    if (*list)
        *list = source->next;
}

void loop_remove(struct loop_source *source)
{
    if (!source || source->removed)
        return;
    struct loop *loop = source->loop;
    if (source->kind == SOURCE_TIMER) {
        unlink_source(&loop->timers, source);
    } else {
        (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
        unlink_source(&loop->fds, source);
    }
    source->removed = true;
    source->next = loop->dead;
    loop->dead = source;
}

static void run_timers(struct loop *loop)
{
    int64_t now_ms = clock_monotonic_ms();
    while (loop->timers && loop->timers->due_ms <= now_ms && !loop->stopped) {
        struct loop_source *timer = loop->timers;
        loop->timers = timer->next;
        if (timer->interval_ms > 0) {
            timer->due_ms = now_ms + timer->interval_ms;
            insert_timer(loop, timer);
            timer->call.timer(timer->context);
        } else {
            /* Out of the list and marked, so that a loop_remove() inside the call does nothing. */
            timer->removed = true;
            timer->next = loop->dead;
            loop->dead = timer;
            timer->call.timer(timer->context);
        }
    }
}

static void handle_event(struct loop_source *source, uint32_t events)
{
    if (source->removed)
        return;
    if (source->kind == SOURCE_FD) {
        source->call.fd(source->context, source->fd, events);
        return;
    }
    struct signalfd_siginfo info;
    while (!source->removed && read(source->fd, &info, sizeof info) == (ssize_t)sizeof info)
        source->call.signal(source->context, source->signal_number);
}

int loop_run_once(struct loop *loop, int timeout_ms, struct error *err)
{
    struct epoll_event events[64];
    if (loop->timers) {
        int64_t wait_ms = loop->timers->due_ms - clock_monotonic_ms();
        if (wait_ms < 0)
            wait_ms = 0;
        if (timeout_ms < 0 || wait_ms < timeout_ms)
            timeout_ms = (int)(wait_ms > 3600000 ? 3600000 : wait_ms);
    }
    int count = epoll_wait(loop->epoll_fd, events, 64, timeout_ms);
    if (count < 0 && errno != EINTR)
        return error_errno(err, errno, "epoll_wait");
    for (int i = 0; i < count && !loop->stopped; i++)
        handle_event(events[i].data.ptr, events[i].events);
    run_timers(loop);
    free_list(&loop->dead);
    return 0;
}

int loop_run(struct loop *loop, struct error *err)
{
    loop->stopped = false;
    while (!loop->stopped)
        if (loop_run_once(loop, -1, err) < 0)
            return -1;
    return 0;
}

void loop_stop(struct loop *loop)
{
    loop->stopped = true;
}
