#include "node-agent/vmm/gate.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/cleanup.h"

/* One call on its way; on the stack of who waits for it. */
struct passage {
    gate_call call;
    void *argument;
    struct error *err;
    int status;
    bool done;
    struct passage *next;
};

struct gate {
    void *context;
    int wake_fd;
    struct loop_source *source;
    pthread_mutex_t lock; /* guards what follows; not held during a call */
    pthread_cond_t changed;
    struct passage *waiting;
    bool closed;
};

static struct passage *take_next(struct gate *gate)
{
    (void)pthread_mutex_lock(&gate->lock);
    struct passage *next = gate->closed ? NULL : gate->waiting;
    if (next)
        gate->waiting = next->next;
    (void)pthread_mutex_unlock(&gate->lock);
    return next;
}

static void on_wake(void *context, int fd, uint32_t events)
{
    (void)events;
    struct gate *gate = context;
    uint64_t count = 0;
    (void)!read(fd, &count, sizeof count);
    struct passage *passage = NULL;
    while ((passage = take_next(gate)) != NULL) {
        int status = passage->call(gate->context, passage->argument, passage->err);
        (void)pthread_mutex_lock(&gate->lock);
        passage->status = status;
        passage->done = true;
        (void)pthread_cond_broadcast(&gate->changed);
        (void)pthread_mutex_unlock(&gate->lock);
    }
}

int gate_pass(struct gate *gate, gate_call call, void *argument, struct error *err)
{
    struct passage passage = {.call = call, .argument = argument, .err = err};
    (void)pthread_mutex_lock(&gate->lock);
    if (!gate->closed) {
        struct passage **end = &gate->waiting;
        while (*end)
            end = &(*end)->next;
        *end = &passage;
        (void)!write(gate->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    } else {
        passage.status = error_set(err, ERROR_CONFLICT, "the VM is being ended");
        passage.done = true;
    }
    while (!passage.done)
        (void)pthread_cond_wait(&gate->changed, &gate->lock);
    (void)pthread_mutex_unlock(&gate->lock);
    return passage.status;
}

void gate_close(struct gate *gate)
{
    if (!gate)
        return;
    (void)pthread_mutex_lock(&gate->lock);
    gate->closed = true;
    for (struct passage *passage = gate->waiting; passage; passage = passage->next) {
        passage->status = error_set(passage->err, ERROR_CONFLICT, "the VM is being ended");
        passage->done = true;
    }
    gate->waiting = NULL;
    (void)pthread_cond_broadcast(&gate->changed);
    (void)pthread_mutex_unlock(&gate->lock);
}

struct gate *gate_new(struct loop *loop, void *context, struct error *err)
{
    struct gate *gate = calloc(1, sizeof *gate);
    if (!gate) {
        (void)error_errno(err, ENOMEM, "gate");
        return NULL;
    }
    gate->context = context;
    (void)pthread_mutex_init(&gate->lock, NULL);
    (void)pthread_cond_init(&gate->changed, NULL);
    gate->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (gate->wake_fd < 0)
        (void)error_errno(err, errno, "eventfd");
    else
        gate->source = loop_add_fd(loop, gate->wake_fd, EPOLLIN, on_wake, gate, err);
    if (!gate->source) {
        gate_free(gate);
        return NULL;
    }
    return gate;
}

void gate_free(struct gate *gate)
{
    if (!gate)
        return;
    gate_close(gate);
    loop_remove(gate->source);
    close_fd(&gate->wake_fd);
    (void)pthread_cond_destroy(&gate->changed);
    (void)pthread_mutex_destroy(&gate->lock);
    free(gate);
}
