/*
 * target_postcopy.c
 *
 *      STALE, POSTCOPY, state                    GO
 *     INCOMING ------------> READY --------------------> POSTCOPY ---- nothing lacks ---> RUNNING
 *         ^                    |                         ^      |
 *         +------ RETRACT -----+       all connected     |      | link lost or silent:
 *                                       again; LACKS     +-- (held) the guest is held
 *                                                               |
 *                                                               +-- recovery timeout --> FAILED
 *
 * While the link is lost no vCPU runs: what they would wait for does not come, and a guest whose
 * vCPUs stop one after the other does not know that it is stopped. Its clocks are told as after any
 * pause. By default it is waited for ever: only the source has these pages, and while its process
 * lives they are not lost. Who knows that it is dead must end this VMM.
 */
#include "node-agent/migration/target_postcopy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "node-agent/migration/faults.h"
#include "node-agent/migration/pages.h"

#define SILENCE_NS 5000000000  /* with pages lacking: then the link counts as lost */
#define GREET_NS   10000000000 /* for all connections of an attempt to resume to be made */

/* ---------------------------------------------------------------- before the guest runs */

bool target_wants_postcopy(const struct migration_target *target)
{
    const struct migration_limits *limits = &target->options.limits;
    return demand_is_possible(&target->guest) && limits->mode != MIGRATION_MODE_PRECOPY &&
           !limits->verify && !limits->no_postcopy;
}

int target_hear_stale(struct migration_target *target, const struct frame *frame,
                      const uint8_t *payload, struct error *err)
{
    struct run run;
    uint32_t at = 0;
    int got = 0;
    if (!target->can_postcopy || target->demanding)
        return error_set(err, ERROR_FAILED, "pages are said to be stale out of turn");
    uint64_t pages = target->guest.ram_bytes / PAGE_BYTES;
    while ((got = stream_get_list(payload, frame->length, &at, pages, &run, err)) > 0)
        if (demand_stale(&target->demand, run, err) < 0)
            return -1;
    if (got < 0 || target->machine)
        return got; /* nobody waits for an answer within the pause */
    return target_queue(target, FRAME_DROPPED, demand_left(&target->demand), NULL, 0, err);
}

int target_hear_postcopy(struct migration_target *target, const struct frame *frame,
                         struct error *err)
{
    if (!target->can_postcopy || !target->machine || target->verify || target->demanding)
        return error_set(err, ERROR_FAILED, "post-copy out of turn");
    if (frame->argument != demand_left(&target->demand))
        return error_set(err, ERROR_FAILED, "%llu pages are lacking, the source says %llu",
                         (unsigned long long)demand_left(&target->demand),
                         (unsigned long long)frame->argument);
    target->postcopy = true;
    return 0;
}

void target_forget_postcopy(struct migration_target *target)
{
    demand_forget(&target->demand);
    target->postcopy = target->demanding = false;
}

int target_begin_postcopy(struct migration_target *target, struct error *err)
{
    if (!target->postcopy)
        return 0;
    if (demand_start(&target->demand, &target->receiver.inlets[0].channel, err) < 0)
        return -1;
    target->demanding = true;
    return 0;
}

int target_check_postcopy(struct migration_target *target, struct error *err)
{
    if (atomic_load(&target->demand.broken)) {
        *err = target->demand.failure;
        return -1;
    }
    demand_loaded(&target->demand);
    return 0;
}

/* ---------------------------------------------------------------- the link */

bool target_may_resume(const struct migration_target *target)
{
    return target->state == MIGRATION_TARGET_POSTCOPY ||
           (target->state == MIGRATION_TARGET_READY && target->postcopy);
}

const char *target_object_to_resume(const struct migration_target *target,
                                    const struct hello *hello)
{
    bool first = hello->index == 0;
    if (!target_may_resume(target) || hello->resume == 0)
        return "there is nothing to go on with";
    if (hello->streams != target->streams)
        return "the number of streams changed";
    if (first ? hello->resume <= target->resume : hello->resume != target->resume)
        return "this attempt to go on is over";
    if (!first && target->control.fd < 0)
        return "the control connection comes first";
    return !first && target->receiver.inlets[hello->index - 1].connected
               ? "this stream is connected already"
               : NULL;
}

/* The text comes with the word that the guest is held. */
static void hold(struct migration_target *target, bool held, const char *text)
{
    if (target->held != held && target->guest.ops->hold)
        target->guest.ops->hold(target->guest.self, held);
    target->held = held;
    struct migration_progress *progress = report_edit(&target->report);
    progress->postcopy.held = held;
    (void)snprintf(progress->text, sizeof(progress->text), "%s", text);
    report_done(&target->report);
}

/* The guest is held first: no vCPU shall find out by itself. */
void target_lose_link(struct migration_target *target, const char *why)
{
    char text[MIGRATION_TEXT_MAX];
    (void)snprintf(
        text, sizeof(text),
        "paused: the link to the source is lost with %llu MiB of memory still there (%s)",
        (unsigned long long)(demand_left(&target->demand) * PAGE_BYTES >> 20), why);
    hold(target, true, text);
    demand_link(&target->demand, NULL);
    page_receiver_hang_up(&target->receiver);
    channel_close(&target->control);
    if (target->lost_ns == 0) {
        target->lost_ns = clock_monotonic_ns();
        report_edit(&target->report)->postcopy.links_lost++;
        report_done(&target->report);
    }
    target->link_lost = true;
    log_warn("migration %s: %s", target->options.migration_id, text);
}

void target_begin_resume(struct migration_target *target, uint64_t number)
{
    if (!target->link_lost || target->control.fd >= 0)
        target_lose_link(target, "the source connects anew");
    target->resume = number;
    target->resume_ns = clock_monotonic_ns();
}

/* ---------------------------------------------------------------- what is lacking, as a list */

struct list {
    struct migration_target *target;
    uint64_t left;
    uint32_t runs;
    uint8_t bytes[STREAM_CHUNK_MAX];
};

static int send_list(struct list *list, struct error *err)
{
    uint32_t runs = list->runs;
    list->runs = 0;
    return target_queue(list->target, FRAME_LACKS, list->left, list->bytes,
                        (size_t)runs * STREAM_RUN_BYTES, err);
}

static int add_to_list(void *context, struct run run, struct error *err)
{
    struct list *list = context;
    stream_put_run(list->bytes + (size_t)list->runs * STREAM_RUN_BYTES, run);
    list->left -= run.count;
    return ++list->runs == STREAM_LIST_MAX ? send_list(list, err) : 0;
}

static int send_lacks(struct migration_target *target, struct error *err)
{
    struct list *list = malloc(sizeof(*list));
    if (!list)
        return error_set(err, ERROR_FAILED, "out of memory for a list of pages");
    /* No page stream runs yet: the set stands still. */
    *list = (struct list){.target = target, .left = demand_left(&target->demand)};
    int result = demand_list(&target->demand, add_to_list, list, err);
    if (result == 0 && (list->runs > 0 || demand_left(&target->demand) == 0))
        result = send_list(list, err);
    free(list);
    return result;
}

/* Its word may have been lost with the link. */
static int tell_running(struct migration_target *target, struct error *err)
{
    uint8_t times[STREAM_TIMES_BYTES];
    if (target->state != MIGRATION_TARGET_POSTCOPY)
        return 0;
    stream_put_times(times, &target->times);
    return target_queue(target, FRAME_RUNNING, target->run_epoch, times, sizeof(times), err);
}

/* All connections are there: what is lacking is told, then pages come and the guest goes on. */
static int relink(struct migration_target *target, struct error *err)
{
    target->link_lost = false;
    if (tell_running(target, err) < 0 || send_lacks(target, err) < 0 ||
        page_receiver_start(&target->receiver, err) < 0)
        return -1;
    demand_link(&target->demand, &target->receiver.inlets[0].channel);
    target->lost_ns = 0;
    target->last_progress_ns = clock_monotonic_ns();
    log_info("migration %s: the source is there again, the guest goes on",
             target->options.migration_id);
    hold(target, false, "");
    return 0;
}

int target_await_link(struct migration_target *target, struct error *err)
{
    int64_t now_ns = clock_monotonic_ns();
    uint64_t limit_ms = target->options.limits.recovery_timeout_ms;
    target_accept(target);
    if (target_is_connected(target)) {
        if (relink(target, err) < 0)
            target_lose_link(target, err->text);
        error_clear(err);
        return 0;
    }
    if (target->control.fd >= 0 && now_ns - target->resume_ns > GREET_NS)
        target_lose_link(target, "the source did not make all connections");
    if (limit_ms == 0 || (uint64_t)(now_ns - target->lost_ns) / 1000000 < limit_ms)
        return 0;
    return error_set(err, ERROR_UNREACHABLE,
                     "the guest's memory was lost with its source in post-copy: %llu MiB were "
                     "still there, and it has not come back for %llu s",
                     (unsigned long long)(demand_left(&target->demand) * PAGE_BYTES >> 20),
                     (unsigned long long)limit_ms / 1000);
}

/* ---------------------------------------------------------------- the guest runs */

static void tell(struct migration_target *target)
{
    struct demand *demand = &target->demand;
    struct migration_progress *progress = report_edit(&target->report);
    (void)pthread_mutex_lock(&demand->lock);
    uint64_t served = demand->faults - demand->waiting_count;
    progress->postcopy.used = true;
    progress->postcopy.faults = demand->faults;
    progress->postcopy.fault_mean_us = served ? demand->latency_sum_us / served : 0;
    progress->postcopy.fault_max_us = demand->latency_max_us;
    (void)pthread_mutex_unlock(&demand->lock);
    progress->remaining_bytes = demand_left(demand) * PAGE_BYTES;
    progress->wire_bytes = page_receiver_bytes(&target->receiver);
    report_done(&target->report);
}

static bool is_silent(struct migration_target *target)
{
    uint64_t bytes =
        page_receiver_bytes(&target->receiver) + atomic_load(&target->control.received);
    int64_t now_ns = clock_monotonic_ns();
    if (bytes != target->last_bytes) {
        target->last_bytes = bytes;
        target->last_progress_ns = now_ns;
    }
    return now_ns - target->last_progress_ns > SILENCE_NS;
}

static int complete(struct migration_target *target)
{
    struct error ignored = ERROR_INIT;
    demand_stop(&target->demand);
    tell(target);
    for (unsigned copies = fault_message("target.complete"); copies > 0; copies--)
        (void)target_queue(target, FRAME_COMPLETE, 0, NULL, 0, &ignored);
    return 1;
}

int target_step_postcopy(struct migration_target *target, int heard, struct error *err)
{
    tell(target);
    if (target_check_postcopy(target, err) < 0) {
        hold(target, true, err->text);
        return error_wrap(err, "the guest's memory cannot be completed");
    }
    if (target->link_lost)
        return target_await_link(target, err);
    if (demand_left(&target->demand) == 0)
        return complete(target);
    target_accept(target);
    if (target->link_lost) /* the source was the first to notice */
        return 0;
    if (heard < 0 || page_receiver_round(&target->receiver, err) < 0)
        target_lose_link(target, err->text);
    else if (is_silent(target))
        target_lose_link(target, "nothing came for 5 s");
    error_clear(err);
    return 0;
}
