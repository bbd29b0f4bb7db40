/* event.h: eventfds, which wake a poll() and stay readable until they are read, and threads. */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/error.h"

static inline int event_new(struct error *err)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fd >= 0 ? fd : error_errno(err, errno, "cannot make an eventfd");
}

static inline void event_raise(int fd)
{
    uint64_t one = 1;
    ssize_t done = write(fd, &one, sizeof(one));
    (void)done; /* one that is full is readable, too */
}

static inline void event_clear(int fd)
{
    uint64_t count;
    ssize_t done = read(fd, &count, sizeof(count));
    (void)done; /* nothing was raised */
}

/* A thread that gets no signals: they are the event loop's. Returns an errno value. */
static inline int event_thread(pthread_t *thread, void *(*run)(void *), void *argument)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    int number = pthread_create(thread, NULL, run, argument);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return number;
}
