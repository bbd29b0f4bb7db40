/*
 * target_steps.c: the target's states, and what each message does in them.
 *
 *                 all connected          STATE, HASH and pages complete, loaded, verified
 *     WAITING ------------------> INCOMING ----------------------------------> READY
 *        |                           |  ^------------------------------------- / |  \
 *        |                           |                 RETRACT                |   \ GO, or an
 *        v                           v                                        |    v order to run
 *     FAILED <-- error, stall, link lost, CANCEL        CANCEL <--------------+   RUNNING
 *
 *   With pages lacking (post-copy) READY goes to POSTCOPY, where the guest runs, and from there to
 *   RUNNING; see target_postcopy.c.
 *   And from every state but RUNNING and POSTCOPY: an order to discard -> DISCARDED.
 *
 * READY outlives the link: without GO it waits for an order for ever. RUNNING, FAILED and
 * DISCARDED are final; a guest in the latter two has never run here and never will.
 */
#include <endian.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "node-agent/migration/event.h"
#include "node-agent/migration/faults.h"
#include "node-agent/migration/target_postcopy.h"
#include "node-agent/migration/target_steps.h"

#define TICK_MS    100
#define GOODBYE_NS 1000000000
#define REHEARSALS 3u

int target_queue(struct migration_target *target, enum frame_type type, uint64_t argument,
                 const void *payload, size_t length, struct error *err)
{
    struct frame frame = {.type = (uint8_t)type, .length = (uint32_t)length, .argument = argument};
    if (target->link_lost)
        return 0; /* nobody there to hear it: the controller asks */
    if (channel_queue(&target->control, &frame, payload, err) < 0)
        return -1;
    return channel_flush(&target->control, err);
}

/* Sends what is queued within a bound; nothing depends on it. */
static void say_goodbye(struct migration_target *target)
{
    struct error ignored = ERROR_INIT;
    int64_t until_ns = clock_monotonic_ns() + GOODBYE_NS;
    while (!target->link_lost && target->control.fd >= 0 &&
           channel_flush(&target->control, &ignored) == 0 && channel_has_queued(&target->control)) {
        struct pollfd control = {.fd = target->control.fd, .events = POLLOUT};
        if (clock_monotonic_ns() >= until_ns || poll(&control, 1, TICK_MS) < 0)
            return;
    }
}

static int watch_progress(struct migration_target *target, struct error *err)
{
    uint64_t bytes =
        page_receiver_bytes(&target->receiver) + atomic_load(&target->control.received);
    int64_t now_ns = clock_monotonic_ns();
    if (bytes != target->last_bytes || target->state == MIGRATION_TARGET_READY) {
        target->last_bytes = bytes;
        target->last_progress_ns = now_ns;
    }
    uint64_t still_ms = (uint64_t)(now_ns - target->last_progress_ns) / 1000000;
    const struct migration_limits *limits = &target->options.limits;
    /* Prepared ahead, it waits for its turn, which comes when another migration has ended. */
    bool waits = target->state == MIGRATION_TARGET_WAITING && target->control.fd < 0;
    uint64_t limit_ms = waits ? limits->timeout_ms : limits->stall_timeout_ms;
    /* The source's own timeout comes first. */
    if (still_ms > limit_ms + limit_ms / 6)
        return error_set(err, ERROR_TIMEOUT, "nothing came from the source for %llu s",
                         (unsigned long long)still_ms / 1000);
    return 0;
}

/* What saving and loading a state takes here goes into the source's prediction of the pause; and
 * the first load in a process, the slowest of all, is then not the one inside it. */
static int rehearse(struct migration_target *target, struct error *err)
{
    uint64_t best_us = 0;
    for (unsigned i = 0; target->guest.ops->rehearse && i < REHEARSALS; i++) {
        int64_t begin_ns = clock_monotonic_ns();
        if (target->guest.ops->rehearse(target->guest.self, err) < 0)
            return error_wrap(err, "cannot rehearse the loading of a machine state");
        uint64_t us = (uint64_t)(clock_monotonic_ns() - begin_ns) / 1000;
        best_us = best_us == 0 || us < best_us ? us : best_us;
    }
    return target_queue(target, FRAME_REHEARSED, best_us, NULL, 0, err);
}

static int step_waiting(struct migration_target *target, struct error *err)
{
    target_accept(target);
    if (!target_is_connected(target))
        return watch_progress(target, err);
    fault_point("target.accept");
    target_close_greetings(target);
    if (page_receiver_start(&target->receiver, err) < 0)
        return -1;
    target_enter(target, MIGRATION_TARGET_INCOMING, "");
    return rehearse(target, err);
}

static int tell_round(struct migration_target *target, int64_t round, struct error *err)
{
    if ((uint64_t)round <= target->round_done)
        return 0;
    target->round_done = (uint32_t)round;
    for (unsigned copies = fault_message("target.round-done"); copies > 0; copies--)
        if (target_queue(target, FRAME_ROUND_DONE, (uint64_t)round, NULL, 0, err) < 0)
            return -1;
    return 0;
}

static int step_incoming(struct migration_target *target, struct error *err)
{
    bool lost = false;
    if (target_hear_all(target, &lost, err) < 0)
        return -1;
    if (target->state != MIGRATION_TARGET_INCOMING)
        return 0;
    int64_t round = page_receiver_round(&target->receiver, err);
    if (round < 0 || tell_round(target, round, err) < 0)
        return -1;
    target_tell_progress(target);
    if (target_is_complete(target, round))
        return target_get_ready(target, err);
    return watch_progress(target, err);
}

static int step_ready(struct migration_target *target, struct error *err)
{
    bool lost = false;
    if (target->link_lost && target->postcopy)
        return target_await_link(target, err);
    if (target->link_lost || target_hear_all(target, &lost, err) == 0)
        return 0;
    if (!lost)
        return -1;
    if (target->postcopy) {
        target_lose_link(target, err->text);
        error_clear(err);
        return 0;
    }
    target->link_lost = true;
    channel_close(&target->control);
    error_clear(err);
    report_warn(&target->report,
                "the link to the source is lost: waiting for the controller's word");
    return 0;
}

static int step_postcopy(struct migration_target *target, struct error *err)
{
    bool lost = false;
    int heard = target->link_lost ? 0 : target_hear_all(target, &lost, err);
    int done = target_step_postcopy(target, heard, err);
    if (done > 0)
        target_enter(target, MIGRATION_TARGET_RUNNING, "");
    return done;
}

static int (*const steps[])(struct migration_target *target, struct error *err) = {
    [MIGRATION_TARGET_WAITING] = step_waiting,
    [MIGRATION_TARGET_INCOMING] = step_incoming,
    [MIGRATION_TARGET_READY] = step_ready,
    [MIGRATION_TARGET_POSTCOPY] = step_postcopy,
};

static void sleep_until_something(struct migration_target *target)
{
    struct pollfd polls[3 + TARGET_GREETINGS_MAX];
    nfds_t count = 0;
    polls[count++] = (struct pollfd){.fd = target->wake_fd, .events = POLLIN};
    if (target->control.fd >= 0 && target->state != MIGRATION_TARGET_WAITING)
        polls[count++] = (struct pollfd){
            .fd = target->control.fd,
            .events = channel_has_queued(&target->control) ? POLLIN | POLLOUT : POLLIN};
    if (target->state == MIGRATION_TARGET_WAITING || target_may_resume(target)) {
        polls[count++] = (struct pollfd){.fd = target->listen_fd, .events = POLLIN};
        for (unsigned i = 0; i < TARGET_GREETINGS_MAX; i++)
            if (target->greetings[i].fd >= 0)
                polls[count++] = (struct pollfd){.fd = target->greetings[i].fd, .events = POLLIN};
    }
    (void)poll(polls, count, TICK_MS); /* whatever the reason: look again */
    event_clear(target->wake_fd);
}

static void end(struct migration_target *target)
{
    struct error ignored = ERROR_INIT;
    if (target->state != MIGRATION_TARGET_RUNNING && target->control.fd >= 0) {
        char text[MIGRATION_TEXT_MAX];
        struct migration_progress *progress = report_edit(&target->report);
        (void)snprintf(text, sizeof(text), "%s", progress->text);
        report_done(&target->report);
        (void)target_queue(target, FRAME_FAILED, 0, text, strnlen(text, STREAM_TEXT_MAX), &ignored);
    }
    (void)pthread_mutex_lock(&target->lock);
    target->ended = true;
    (void)pthread_cond_broadcast(&target->changed);
    (void)pthread_mutex_unlock(&target->lock);
    say_goodbye(target);
    if (!target->postcopy)
        target_tell_progress(target);
    event_raise(target->stop_fd);
    target_forget_machine(target);
    /* Page streams first: their end must not hide the reason, which the control stream carries. */
    channel_close(&target->control);
}

void target_run(struct migration_target *target)
{
    target->last_progress_ns = clock_monotonic_ns();
    while (!target_is_final(target)) {
        struct error err = ERROR_INIT;
        if (steps[target->state](target, &err) < 0 && !target_is_final(target)) {
            log_warn("migration %s: %s", target->options.migration_id, err.text);
            if (target->state == MIGRATION_TARGET_POSTCOPY)
                target_enter_lost(target, err.text);
            else
                target_enter(target, MIGRATION_TARGET_FAILED, err.text);
        }
        if (!target_is_final(target))
            target_obey(target);
        if (!target_is_final(target))
            sleep_until_something(target);
    }
    end(target);
}
