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
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "node-agent/migration/event.h"
#include "node-agent/migration/faults.h"
#include "node-agent/migration/memory_hash.h"
#include "node-agent/migration/pages.h"
#include "node-agent/migration/target.h"
#include "node-agent/migration/target_postcopy.h"

#define TICK_MS      100
#define GOODBYE_NS   1000000000
#define HASH_THREADS 2u

/* ---------------------------------------------------------------- states and reporting */

static const struct {
    enum migration_phase phase;
    enum migration_outcome outcome;
} meanings[] = {
    [MIGRATION_TARGET_WAITING] = {MIGRATION_PHASE_CONNECTING, MIGRATION_OUTCOME_PENDING},
    [MIGRATION_TARGET_INCOMING] = {MIGRATION_PHASE_PRECOPY, MIGRATION_OUTCOME_PENDING},
    [MIGRATION_TARGET_READY] = {MIGRATION_PHASE_HANDOVER, MIGRATION_OUTCOME_PENDING},
    [MIGRATION_TARGET_POSTCOPY] = {MIGRATION_PHASE_POSTCOPY, MIGRATION_OUTCOME_PENDING},
    [MIGRATION_TARGET_RUNNING] = {MIGRATION_PHASE_COMPLETED, MIGRATION_OUTCOME_TARGET_RUNS},
    [MIGRATION_TARGET_FAILED] = {MIGRATION_PHASE_FAILED, MIGRATION_OUTCOME_SOURCE_RUNS},
    [MIGRATION_TARGET_DISCARDED] = {MIGRATION_PHASE_CANCELLED, MIGRATION_OUTCOME_SOURCE_RUNS},
};

static void enter_as(struct migration_target *target, enum migration_target_state state,
                     enum migration_phase phase, enum migration_outcome outcome, const char *text)
{
    struct migration_progress *progress = report_edit(&target->report);
    progress->phase = phase;
    progress->outcome = outcome;
    progress->streams = target->streams;
    if (state == MIGRATION_TARGET_FAILED)
        progress->error = ERROR_FAILED;
    (void)snprintf(progress->text, sizeof(progress->text), "%s", text);
    (void)pthread_mutex_lock(&target->lock);
    target->state = state;
    (void)pthread_mutex_unlock(&target->lock);
    report_done(&target->report);
}

static void enter(struct migration_target *target, enum migration_target_state state,
                  const char *text)
{
    enter_as(target, state, meanings[state].phase, meanings[state].outcome, text);
}

/* The guest ran here, and part of its memory will never come: nobody has all of it. The phase stays
 * post-copy, which tells it from a target that never ran. */
static void enter_lost(struct migration_target *target, const char *text)
{
    enter_as(target, MIGRATION_TARGET_FAILED, MIGRATION_PHASE_POSTCOPY, MIGRATION_OUTCOME_LOST,
             text);
}

static bool is_final(const struct migration_target *target)
{
    return target->state >= MIGRATION_TARGET_RUNNING;
}

static void tell_progress(struct migration_target *target)
{
    struct migration_progress *progress = report_edit(&target->report);
    progress->wire_bytes = page_receiver_bytes(&target->receiver);
    progress->pages_sent = atomic_load(&target->receiver.pages_received);
    progress->pages_zero = atomic_load(&target->receiver.pages_zero);
    progress->round = target->round_done + 1;
    report_done(&target->report);
}

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

/* ---------------------------------------------------------------- loading and running */

static int verify(struct migration_target *target, struct error *err)
{
    uint8_t own[STREAM_HASH_BYTES];
    if (!target->verify)
        return 0;
    if (memory_hash_ram(&target->guest, HASH_THREADS, own, err) < 0)
        return -1;
    memory_hash_block(target->machine, target->machine_size, own + MEMORY_HASH_BYTES);
    target->times.verify_us = (uint64_t)(clock_monotonic_ns() - target->complete_ns) / 1000;
    if (memcmp(own, target->hashes, MEMORY_HASH_BYTES) != 0)
        return error_set(err, ERROR_FAILED, "verify: the guest's RAM differs from the source's");
    if (memcmp(own, target->hashes, sizeof(own)) != 0)
        return error_set(err, ERROR_FAILED, "verify: the machine state differs from the source's");
    return 0;
}

static bool is_complete(struct migration_target *target, int64_t round)
{
    bool machine = target->machine && target->machine_have == target->machine_size &&
                   round >= target->last_round;
    if (machine && target->complete_ns == 0)
        target->complete_ns = clock_monotonic_ns();
    return machine && (!target->verify || target->have_hashes);
}

static int get_ready(struct migration_target *target, struct error *err)
{
    uint8_t times[STREAM_TIMES_BYTES];
    target->times = (struct stream_times){0};
    if (verify(target, err) < 0)
        return -1;
    fault_point("target.load");
    if (target_begin_postcopy(target, err) < 0)
        return -1;
    int64_t begin_ns = clock_monotonic_ns();
    if (target->guest.ops->load(target->guest.self, target->machine, target->machine_size, err) < 0)
        return error_wrap(err, "cannot load the machine state");
    if (target_check_postcopy(target, err) < 0)
        return -1;
    target->times.load_us = (uint64_t)(clock_monotonic_ns() - begin_ns) / 1000;
    report_edit(&target->report)->verified = target->verify;
    report_done(&target->report);
    enter(target, MIGRATION_TARGET_READY, "");
    if (fault_point("target.ready"))
        return 0;
    stream_put_times(times, &target->times);
    return target_queue(target, FRAME_READY, target->attempt, times, sizeof(times), err);
}

/* The guest runs, or @err says why it never will. */
static int run_guest(struct migration_target *target, uint64_t epoch, struct error *err)
{
    const struct migration_guest_ops *ops = target->guest.ops;
    int64_t running_ns = 0;
    fault_point("target.run");
    if (ops->run(target->guest.self, epoch, &running_ns, err) < 0)
        return error_wrap(err, "the guest cannot run here");
    target->times.activate_us = (uint64_t)(running_ns - target->go_ns) / 1000;
    (void)pthread_mutex_lock(&target->lock);
    target->run_epoch = epoch;
    (void)pthread_mutex_unlock(&target->lock);
    enter(target, target->postcopy ? MIGRATION_TARGET_POSTCOPY : MIGRATION_TARGET_RUNNING, "");
    uint8_t times[STREAM_TIMES_BYTES];
    struct error ignored = ERROR_INIT; /* the guest runs, whether or not the source hears of it */
    stream_put_times(times, &target->times);
    if (!fault_point("target.running"))
        (void)target_queue(target, FRAME_RUNNING, epoch, times, sizeof(times), &ignored);
    if (ops->announce)
        ops->announce(target->guest.self);
    uint64_t announce_us = ops->announce ? (uint64_t)(clock_monotonic_ns() - running_ns) / 1000 : 0;
    (void)target_queue(target, FRAME_ANNOUNCED, announce_us, NULL, 0, &ignored);
    return 0;
}

/* ---------------------------------------------------------------- messages */

static void forget_machine(struct migration_target *target)
{
    free(target->machine);
    target->machine = NULL;
    target->machine_size = target->machine_have = 0;
    target->have_hashes = false;
    target->complete_ns = 0;
}

static int hear_state_begin(struct migration_target *target, const struct frame *frame,
                            const uint8_t *payload, struct error *err)
{
    uint32_t numbers[2];
    memcpy(numbers, payload, sizeof(numbers));
    uint32_t attempt = le32toh(numbers[0]), round = le32toh(numbers[1]);
    if (target->machine || attempt != target->attempt + 1)
        return error_set(err, ERROR_FAILED, "pause %u follows pause %u", attempt, target->attempt);
    if (frame->argument == 0 || frame->argument > STREAM_STATE_MAX)
        return error_set(err, ERROR_FAILED, "a machine state of %llu bytes is impossible",
                         (unsigned long long)frame->argument);
    target->machine = malloc(frame->argument);
    if (!target->machine)
        return error_set(err, ERROR_FAILED, "out of memory for the machine state");
    target->machine_size = frame->argument;
    target->attempt = attempt;
    target->last_round = round;
    report_phase(&target->report, MIGRATION_PHASE_PAUSED);
    return 0;
}

static int hear_state(struct migration_target *target, const struct frame *frame,
                      const uint8_t *payload, struct error *err)
{
    if (!target->machine || frame->argument != target->machine_have ||
        frame->length > target->machine_size - target->machine_have)
        return error_set(err, ERROR_FAILED, "a piece of machine state is out of place");
    memcpy(target->machine + target->machine_have, payload, frame->length);
    target->machine_have += frame->length;
    return 0;
}

static int hear_hash(struct migration_target *target, const uint8_t *payload, struct error *err)
{
    if (!target->verify || !target->machine || target->have_hashes)
        return error_set(err, ERROR_FAILED, "a hash nobody asked for");
    memcpy(target->hashes, payload, sizeof(target->hashes));
    target->have_hashes = true;
    return 0;
}

static int hear_retract(struct migration_target *target, const struct frame *frame,
                        struct error *err)
{
    if (frame->argument != target->attempt && frame->argument != (uint64_t)target->attempt + 1)
        return error_set(err, ERROR_FAILED, "a pause that never was is taken back");
    target->attempt = (uint32_t)frame->argument; /* its state may have been lost */
    forget_machine(target);
    target_forget_postcopy(target);
    enter(target, MIGRATION_TARGET_INCOMING, "");
    return 0;
}

static int hear_go(struct migration_target *target, const struct frame *frame,
                   const uint8_t *payload, struct error *err)
{
    uint32_t attempt;
    memcpy(&attempt, payload, sizeof(attempt));
    if (fault_point("target.go"))
        return 0;
    if (target->state != MIGRATION_TARGET_READY || le32toh(attempt) != target->attempt ||
        frame->argument != target->options.next_epoch)
        return error_set(err, ERROR_FAILED, "GO for something else");
    target->go_ns = clock_monotonic_ns();
    return run_guest(target, frame->argument, err);
}

static int hear(struct migration_target *target, const struct frame *frame, const uint8_t *payload,
                struct error *err)
{
    bool ready = target->state >= MIGRATION_TARGET_READY;
    switch (frame->type) {
    case FRAME_RETRACT:
        return hear_retract(target, frame, err);
    case FRAME_GO:
        return hear_go(target, frame, payload, err);
    case FRAME_CANCEL:
        return error_set(err, ERROR_CONFLICT, "the source took the migration back");
    case FRAME_STATE_BEGIN:
        if (!ready)
            return hear_state_begin(target, frame, payload, err);
        break;
    case FRAME_STATE:
        if (!ready)
            return hear_state(target, frame, payload, err);
        break;
    case FRAME_HASH:
        if (!ready)
            return hear_hash(target, payload, err);
        break;
    case FRAME_STALE:
        if (!ready)
            return target_hear_stale(target, frame, payload, err);
        break;
    case FRAME_POSTCOPY:
        if (!ready)
            return target_hear_postcopy(target, frame, err);
        break;
    default:
        break;
    }
    return error_set(err, ERROR_FAILED, "a frame of type %u cannot come now", frame->type);
}

/* ---------------------------------------------------------------- the loop */

/* Reads the control connection. A link lost while READY is no failure: -1 with @lost set. */
static int hear_all(struct migration_target *target, bool *lost, struct error *err)
{
    const uint8_t *payload = NULL;
    struct frame frame;
    if (channel_flush(&target->control, err) < 0) {
        *lost = true;
        return -1;
    }
    int got = channel_fill(&target->control, err);
    *lost = got < 0;
    while (got > 0) {
        got = channel_next(&target->control, PATH_TO_TARGET, &frame, &payload, err);
        if (got > 0 && hear(target, &frame, payload, err) < 0)
            return -1;
        if (is_final(target))
            return 0;
    }
    return got;
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
    /* The source's own timeout comes first. */
    uint64_t limit_ms = target->options.limits.stall_timeout_ms;
    if (still_ms > limit_ms + limit_ms / 6)
        return error_set(err, ERROR_TIMEOUT, "nothing came from the source for %llu s",
                         (unsigned long long)still_ms / 1000);
    return 0;
}

/* What saving and loading a state takes here goes into the source's prediction of the pause; and
 * the first load in a process, the slowest of all, is then not the one inside it. */
static int rehearse(struct migration_target *target, struct error *err)
{
    uint64_t us = 0;
    for (unsigned i = 0; target->guest.ops->rehearse && i < 2; i++) {
        int64_t begin_ns = clock_monotonic_ns();
        if (target->guest.ops->rehearse(target->guest.self, err) < 0)
            return error_wrap(err, "cannot rehearse the loading of a machine state");
        us = (uint64_t)(clock_monotonic_ns() - begin_ns) / 1000;
    }
    return target_queue(target, FRAME_REHEARSED, us, NULL, 0, err);
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
    enter(target, MIGRATION_TARGET_INCOMING, "");
    return rehearse(target, err);
}

static int tell_round(struct migration_target *target, int64_t round, struct error *err)
{
    if ((uint64_t)round <= target->round_done)
        return 0;
    target->round_done = (uint32_t)round;
    if (fault_point("target.round-done"))
        return 0;
    return target_queue(target, FRAME_ROUND_DONE, (uint64_t)round, NULL, 0, err);
}

static int step_incoming(struct migration_target *target, struct error *err)
{
    bool lost = false;
    if (hear_all(target, &lost, err) < 0)
        return -1;
    if (target->state != MIGRATION_TARGET_INCOMING)
        return 0;
    int64_t round = page_receiver_round(&target->receiver, err);
    if (round < 0 || tell_round(target, round, err) < 0)
        return -1;
    tell_progress(target);
    if (is_complete(target, round))
        return get_ready(target, err);
    return watch_progress(target, err);
}

static int step_ready(struct migration_target *target, struct error *err)
{
    bool lost = false;
    if (target->link_lost && target->postcopy)
        return target_await_link(target, err);
    if (target->link_lost || hear_all(target, &lost, err) == 0)
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
    int heard = target->link_lost ? 0 : hear_all(target, &lost, err);
    int done = target_step_postcopy(target, heard, err);
    if (done > 0)
        enter(target, MIGRATION_TARGET_RUNNING, "");
    return done;
}

static int (*const steps[])(struct migration_target *target, struct error *err) = {
    [MIGRATION_TARGET_WAITING] = step_waiting,
    [MIGRATION_TARGET_INCOMING] = step_incoming,
    [MIGRATION_TARGET_READY] = step_ready,
    [MIGRATION_TARGET_POSTCOPY] = step_postcopy,
};

static int obey_run(struct migration_target *target, uint64_t epoch, struct error *err)
{
    if (target->state != MIGRATION_TARGET_READY)
        return error_set(err, ERROR_CONFLICT, "the guest is not complete here");
    if (epoch < target->options.next_epoch)
        return error_set(err, ERROR_CONFLICT, "epoch %llu is lower than the migration's",
                         (unsigned long long)epoch);
    if (target->postcopy && target->link_lost)
        return error_set(err, ERROR_UNREACHABLE,
                         "the link to the source is lost, which has pages the guest needs: "
                         "try again once it is there");
    target->go_ns = clock_monotonic_ns();
    if (run_guest(target, epoch, err) < 0) {
        enter(target, MIGRATION_TARGET_FAILED, err->text);
        return -1;
    }
    return 0;
}

/* Carries out what was ordered from outside. */
static void obey(struct migration_target *target)
{
    struct error err = ERROR_INIT;
    (void)pthread_mutex_lock(&target->lock);
    enum target_order order = target->order;
    uint64_t epoch = target->order_epoch;
    (void)pthread_mutex_unlock(&target->lock);
    if (order == ORDER_NONE)
        return;
    bool runs = target->state == MIGRATION_TARGET_POSTCOPY;
    if (order == ORDER_LEAVE && runs)
        enter_lost(target, "the VMM ends in post-copy");
    else if (runs && !(order == ORDER_RUN && epoch == target->run_epoch))
        (void)error_set(&err, ERROR_CONFLICT, "the guest runs here");
    else if (order == ORDER_DISCARD)
        enter(target, MIGRATION_TARGET_DISCARDED, "discarded");
    else if (order == ORDER_RUN && !runs)
        (void)obey_run(target, epoch, &err);
    (void)pthread_mutex_lock(&target->lock);
    target->order = ORDER_NONE;
    target->order_error = err;
    (void)pthread_cond_broadcast(&target->changed);
    (void)pthread_mutex_unlock(&target->lock);
}

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
        tell_progress(target);
    event_raise(target->stop_fd);
    forget_machine(target);
    /* Page streams first: their end must not hide the reason, which the control stream carries. */
    channel_close(&target->control);
}

void target_run(struct migration_target *target)
{
    target->last_progress_ns = clock_monotonic_ns();
    while (!is_final(target)) {
        struct error err = ERROR_INIT;
        if (steps[target->state](target, &err) < 0 && !is_final(target)) {
            log_warn("migration %s: %s", target->options.migration_id, err.text);
            if (target->state == MIGRATION_TARGET_POSTCOPY)
                enter_lost(target, err.text);
            else
                enter(target, MIGRATION_TARGET_FAILED, err.text);
        }
        if (!is_final(target))
            obey(target);
        if (!is_final(target))
            sleep_until_something(target);
    }
    end(target);
}
