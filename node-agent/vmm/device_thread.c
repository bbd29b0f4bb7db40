#include "node-agent/vmm/device_thread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

struct device_thread {
    struct loop *loop;
    int quit_fd;
    pthread_t thread;
    bool started;
};

static void on_quit(void *context, int fd, uint32_t events)
{
    (void)fd, (void)events;
    struct device_thread *thread = context;
    loop_stop(thread->loop);
}

static void *run(void *context)
{
    struct device_thread *thread = context;
    struct error err = ERROR_INIT;
    (void)pthread_setname_np(pthread_self(), "devices");
    if (loop_run(thread->loop, &err) < 0)
        log_error("the devices' loop ended: %s", err.text);
    return NULL;
}

struct device_thread *device_thread_new(struct error *err)
{
    struct device_thread *thread = calloc(1, sizeof *thread);
    if (!thread) {
        (void)error_errno(err, ENOMEM, "the devices' thread");
        return NULL;
    }
    thread->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (thread->quit_fd < 0)
        (void)error_errno(err, errno, "eventfd");
    else
        thread->loop = loop_new(err);
    if (!thread->loop ||
        !loop_add_fd(thread->loop, thread->quit_fd, EPOLLIN, on_quit, thread, err)) {
        device_thread_free(thread);
        return NULL;
    }
    return thread;
}

struct loop *device_thread_loop(struct device_thread *thread)
{
    return thread->loop;
}

/* With every signal blocked: they are the main loop's. */
int device_thread_start(struct device_thread *thread, struct error *err)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    int status = pthread_create(&thread->thread, NULL, run, thread);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status != 0)
        return error_errno(err, status, "cannot start the devices' thread");
    thread->started = true;
    return 0;
}

void device_thread_stop(struct device_thread *thread)
{
    if (!thread || !thread->started)
        return;
    (void)!write(thread->quit_fd, &(uint64_t){1}, sizeof(uint64_t));
    (void)pthread_join(thread->thread, NULL);
    thread->started = false;
}

void device_thread_free(struct device_thread *thread)
{
    if (!thread)
        return;
    device_thread_stop(thread);
    loop_free(thread->loop);
    close_fd(&thread->quit_fd);
    free(thread);
}
