#include "controller/planner.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/log.h"
#include "controller/pb.h"

struct waiting {
    struct waiting *next;
    struct planner_work work;
};

struct planner {
    struct controller *controller;
    int done_fd; /* readable: the thread has ended */
    struct loop_source *source;
    struct waiting *first, **last;
    unsigned count;

    /* The one that is being made; @snapshot NULL: none. The thread's until it has ended. */
    pthread_t thread;
    struct planner_work work;
    struct snapshot *snapshot;
    struct error err;
};

static void *run(void *context)
{
    struct planner *planner = context;
    const uint64_t one = 1;
    if (planner->work.make(planner->work.context, planner->snapshot, &planner->err) < 0 &&
        planner->err.kind == ERROR_NONE)
        (void)error_set(&planner->err, ERROR_FAILED, "the plan could not be made");
    if (write(planner->done_fd, &one, sizeof one) < 0)
        abort(); /* an eventfd takes it, or nothing would ever hear of us */
    return NULL;
}

static void finish(struct planner *planner, const struct planner_work *work,
                   const struct error *err)
{
    work->done(planner->controller, work->context, err);
    work->free(work->context);
    controller_touch(planner->controller);
}

/* Starts the next one that waits, unless one is being made. */
static void start_next(struct planner *planner)
{
    while (planner->first && !planner->snapshot) {
        struct waiting *next = planner->first;
        planner->work = next->work;
        planner->first = next->next;
        if (!planner->first)
            planner->last = &planner->first;
        planner->count--;
        free(next);
        planner->err = (struct error)ERROR_INIT;
        planner->snapshot =
            snapshot_take(planner->controller->scheduler, &planner->work.config, &planner->err);
        int code = planner->snapshot ? pthread_create(&planner->thread, NULL, run, planner) : 0;
        if (code != 0) {
            (void)error_errno(&planner->err, code, "no thread to plan in");
            snapshot_free(planner->snapshot);
            planner->snapshot = NULL;
        }
        if (!planner->snapshot)
            finish(planner, &planner->work, &planner->err);
    }
}

static void on_done(void *context, int fd, uint32_t events)
{
    struct planner *planner = context;
    uint64_t count = 0;
    (void)events;
    if (read(fd, &count, sizeof count) < 0 || !planner->snapshot)
        return;
    (void)pthread_join(planner->thread, NULL);
    struct snapshot *snapshot = planner->snapshot;
    finish(planner, &planner->work, &planner->err);
    planner->snapshot = NULL;
    snapshot_free(snapshot);
    start_next(planner);
}

struct planner *planner_open(struct controller *controller, struct error *err)
{
    struct planner *planner = mem_new(sizeof *planner);
    planner->controller = controller;
    planner->last = &planner->first;
    planner->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (planner->done_fd < 0)
        (void)error_errno(err, errno, "no eventfd for plans");
    else
        planner->source =
            loop_add_fd(controller->loop, planner->done_fd, EPOLLIN, on_done, planner, err);
    if (planner->source)
        return planner;
    planner_close(planner);
    return NULL;
}

void planner_close(struct planner *planner)
{
    if (!planner)
        return;
    if (planner->snapshot) {
        (void)pthread_join(planner->thread, NULL);
        planner->work.free(planner->work.context);
        snapshot_free(planner->snapshot);
    }
    while (planner->first) {
        struct waiting *waiting = planner->first;
        planner->first = waiting->next;
        waiting->work.free(waiting->work.context);
        free(waiting);
    }
    loop_remove(planner->source);
    if (planner->done_fd >= 0)
        (void)close(planner->done_fd);
    free(planner);
}

int planner_begin(struct controller *controller, const struct planner_work *work, struct error *err)
{
    struct planner *planner = controller->planner;
    if (planner->count >= PLANNER_WAITING_MAX) {
        work->free(work->context);
        return error_set(err, ERROR_CONFLICT, "%d plans wait to be made: try again",
                         PLANNER_WAITING_MAX);
    }
    struct waiting *waiting = mem_new(sizeof *waiting);
    waiting->work = *work;
    *planner->last = waiting;
    planner->last = &waiting->next;
    planner->count++;
    start_next(planner);
    return 0;
}
