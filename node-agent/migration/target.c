/* target.c: a migration's target as its caller sees it: options, start, orders, end. */
#include "node-agent/migration/target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "node-agent/migration/event.h"
#include "node-agent/migration/limits.h"
#include "node-agent/migration/pages.h"

static void *run_target(void *argument)
{
    target_run(argument);
    return NULL;
}

static void destroy(struct migration_target *target)
{
    target_close_greetings(target);
    demand_stop(&target->demand);
    page_receiver_stop(&target->receiver);
    demand_destroy(&target->demand);
    channel_close(&target->control);
    report_destroy(&target->report);
    (void)pthread_cond_destroy(&target->changed);
    (void)pthread_mutex_destroy(&target->lock);
    close_fd(&target->wake_fd);
    close_fd(&target->stop_fd);
    free(target->machine);
    explicit_bzero(target->options.key, sizeof(target->options.key));
    free(target);
}

static int check_options(const struct migration_guest *guest, int listen_fd,
                         const struct migration_target_options *options, struct error *err)
{
    if (guest->ram_bytes == 0 || guest->ram_bytes % PAGE_BYTES)
        return error_set(err, ERROR_USAGE, "RAM of %llu bytes is not a number of pages",
                         (unsigned long long)guest->ram_bytes);
    if (options->limits.streams > MIGRATION_STREAMS_MAX)
        return error_set(err, ERROR_USAGE, "at most %d streams", MIGRATION_STREAMS_MAX);
    int flags = fcntl(listen_fd, F_GETFL);
    if (flags < 0 || fcntl(listen_fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return error_errno(err, errno, "cannot listen for the source");
    return 0;
}

struct migration_target *migration_target_start(const struct migration_guest *guest, int listen_fd,
                                                const struct migration_target_options *options,
                                                struct error *err)
{
    if (check_options(guest, listen_fd, options, err) < 0)
        return NULL;
    struct migration_target *target = calloc(1, sizeof(*target));
    if (!target) {
        error_set(err, ERROR_FAILED, "out of memory for a migration");
        return NULL;
    }
    target->guest = *guest;
    target->options = *options;
    target->options.limits = limits_resolve(options->limits);
    target->listen_fd = listen_fd;
    target->control.fd = target->wake_fd = target->stop_fd = target->report.event_fd = -1;
    for (unsigned i = 0; i < TARGET_GREETINGS_MAX; i++)
        target->greetings[i].fd = -1;
    (void)pthread_mutex_init(&target->lock, NULL);
    (void)pthread_cond_init(&target->changed, NULL);
    target->demand.quit_fd = -1;
    int number = 0;
    if (page_receiver_init(&target->receiver, &target->guest, -1, -1, err) < 0 ||
        report_init(&target->report, options->migration_id, guest->ram_bytes, err) < 0 ||
        (target->wake_fd = event_new(err)) < 0 || (target->stop_fd = event_new(err)) < 0 ||
        (!options->limits.unencrypted && seal_ready(err) < 0))
        goto failed;
    demand_init(&target->demand, &target->guest, target->wake_fd);
    target->receiver.demand = &target->demand;
    target->receiver.wake_fd = target->wake_fd;
    target->receiver.stop_fd = target->stop_fd;
    target->report.progress.phase = MIGRATION_PHASE_CONNECTING;
    target->report.progress.encrypted = !options->limits.unencrypted;
    number = event_thread(&target->thread, run_target, target);
    if (number == 0)
        return target;
    error_errno(err, number, "cannot start a migration");
failed:
    destroy(target);
    return NULL;
}

int migration_target_event_fd(const struct migration_target *target)
{
    return target->report.event_fd;
}

enum migration_target_state migration_target_progress(struct migration_target *target,
                                                      struct migration_progress *out,
                                                      uint64_t *run_epoch)
{
    report_read(&target->report, out);
    (void)pthread_mutex_lock(&target->lock);
    enum migration_target_state state = target->state;
    if (run_epoch)
        *run_epoch = target->run_epoch;
    (void)pthread_mutex_unlock(&target->lock);
    return state;
}

/* Where the engine thread has ended, its last state answers. */
static int answer_ended(const struct migration_target *target, enum target_order order,
                        uint64_t epoch, struct error *err)
{
    bool runs =
        target->state == MIGRATION_TARGET_RUNNING || target->state == MIGRATION_TARGET_POSTCOPY;
    if (order == ORDER_RUN)
        return runs && target->run_epoch == epoch
                   ? 0
                   : error_set(err, ERROR_CONFLICT,
                               runs ? "the guest runs here at another epoch"
                                    : "the guest was thrown away here");
    return runs ? error_set(err, ERROR_CONFLICT, "the guest runs here") : 0;
}

static int give_order(struct migration_target *target, enum target_order order, uint64_t epoch,
                      struct error *err)
{
    (void)pthread_mutex_lock(&target->lock);
    while (target->order != ORDER_NONE && !target->ended)
        (void)pthread_cond_wait(&target->changed, &target->lock);
    int result = 0;
    if (!target->ended) {
        target->order = order;
        target->order_epoch = epoch;
        target->order_error = (struct error)ERROR_INIT;
        event_raise(target->wake_fd);
        while (target->order != ORDER_NONE && !target->ended)
            (void)pthread_cond_wait(&target->changed, &target->lock);
    }
    if (target->order == ORDER_NONE && target->order_error.kind != ERROR_NONE) {
        *err = target->order_error;
        result = -1;
    } else if (target->ended) {
        target->order = ORDER_NONE;
        result = answer_ended(target, order, epoch, err);
    }
    (void)pthread_mutex_unlock(&target->lock);
    return result;
}

int migration_target_run(struct migration_target *target, uint64_t epoch, struct error *err)
{
    return give_order(target, ORDER_RUN, epoch, err);
}

int migration_target_discard(struct migration_target *target, struct error *err)
{
    return give_order(target, ORDER_DISCARD, 0, err);
}

void migration_target_free(struct migration_target *target)
{
    if (!target)
        return;
    struct error ignored = ERROR_INIT;
    (void)migration_target_discard(target, &ignored); /* refused where the guest runs: it stays */
    (void)give_order(target, ORDER_LEAVE, 0, &ignored);
    (void)pthread_join(target->thread, NULL);
    destroy(target);
}
