/* source_precopy.c: the source's steps until the pause: connect, rounds, and what to do after each.
 */
#include "common/clock.h"
#include "node-agent/migration/faults.h"
#include "node-agent/migration/pages.h"
#include "node-agent/migration/source_postcopy.h"
#include "node-agent/migration/source_steps.h"

/* Of a pause, what no round and no rehearsal tells: stopping the vCPUs, and threads woken for a
 * word. The mean of 60 pauses on a machine whose idle CPUs take 50 us to wake. */
#define FIXED_US 650u

/* A pause whose pages take so long is worth knowing better: the first round was slower than the
 * last will be, since the target touched its memory for the first time. */
#define PROBE_WORTH_US 5000u
#define PROBE_US       8000u
#define PROBE_MIN      512u /* pages */
#define PROBE_MAX      4096u
/* Rounds of few pages, or none, that tell what a round takes besides: one alone varies too much. */
#define LATENCIES 3u

enum step source_step_connect(struct migration_source *source, struct error *err)
{
    fault_point("source.connect");
    source->last_progress_ns = clock_monotonic_ns();
    if (source_greet(source, &source->control, 0, err) < 0)
        return STEP_FAIL;
    source->greeted = true;
    if (source_check_target(source, err) < 0)
        return STEP_FAIL;
    for (unsigned i = 0; i < source->options.limits.streams; i++) {
        source->sender.count = i + 1;
        if (source_greet(source, &source->sender.streams[i].channel, i + 1, err) < 0)
            return STEP_FAIL;
    }
    if (page_sender_start(&source->sender, err) < 0)
        return STEP_FAIL;
    fault_point("source.log");
    if (source->guest.ops->dirty_start(source->guest.self, err) < 0)
        return STEP_FAIL;
    source->logging = true;
    source->remaining = source->guest.ram_bytes / PAGE_BYTES;
    bitmap_fill(source->bitmap, source->remaining);
    report_phase(&source->report, MIGRATION_PHASE_PRECOPY);
    return STEP_ROUND;
}

enum step source_step_round(struct migration_source *source, struct error *err)
{
    fault_point("source.round");
    source_begin_round(source);
    if (source_wait(source, SOURCE_ROUND_DONE, 0, err) < 0 || source_end_round(source, err) < 0)
        return STEP_FAIL;
    return STEP_DECIDE;
}

static enum step give_up_text(struct migration_source *source, const struct policy_input *input,
                              const struct policy_output *output, struct error *err)
{
    if (output->reason == POLICY_REASON_TIMEOUT)
        error_set(err, ERROR_TIMEOUT, "not done within %llu s: allow it more time",
                  (unsigned long long)source->options.limits.timeout_ms / 1000);
    else
        error_set(
            err, ERROR_FAILED,
            "the guest dirties %llu Mbit/s and the link carries %llu: the pause would stay at "
            "%llu ms, the limit is %llu; raise the limit or slow the guest",
            (unsigned long long)input->dirty * 8 / 1000000,
            (unsigned long long)input->bandwidth * 8 / 1000000,
            (unsigned long long)output->predicted_pause_us / 1000,
            (unsigned long long)input->limit_us / 1000);
    return STEP_FAIL;
}

/* A pause without its pages: the latency of a round, the state saved here and loaded there
 * as the target rehearsed it, and the words READY and GO. */
static uint64_t fixed_us(const struct migration_source *source)
{
    return FIXED_US + source->link.latency_us + source->rehearsed_us + 2 * source->rtt_us;
}

static uint64_t pages_us(const struct migration_source *source)
{
    uint64_t rate = source->link.rate;
    return rate ? source->remaining * PAGE_BYTES * 1000000 / rate : 0;
}

static bool rate_is_rough(const struct migration_source *source)
{
    return source->link.rough && pages_us(source) >= PROBE_WORTH_US;
}

static bool latency_is_rough(const struct migration_source *source)
{
    return source->link.latencies < LATENCIES;
}

static uint64_t probe_pages(const struct migration_source *source)
{
    if (latency_is_rough(source))
        return 0;
    uint64_t pages = source->link.rate * PROBE_US / 1000000 / PAGE_BYTES;
    pages = pages < PROBE_MIN ? PROBE_MIN : pages;
    return pages < PROBE_MAX ? pages : PROBE_MAX;
}

enum step source_step_probe(struct migration_source *source, struct error *err)
{
    return source_limit_round(source, probe_pages(source), err) < 0 ? STEP_FAIL : STEP_ROUND;
}

static int slow_down(struct migration_source *source, uint32_t percent, struct error *err)
{
    if (percent == source->throttle_percent)
        return 0;
    if (source->guest.ops->throttle(source->guest.self, percent, err) < 0)
        return error_wrap(err, "cannot slow the guest");
    source->throttle_percent = percent;
    report_edit(&source->report)->throttle_percent = percent;
    report_done(&source->report);
    return 0;
}

enum step source_step_decide(struct migration_source *source, struct error *err)
{
    const struct migration_limits *limits = &source->options.limits;
    struct migration_progress now;
    report_read(&source->report, &now);
    struct policy_input input = {
        .round = source->round,
        .elapsed_ms = now.elapsed_us / 1000,
        .remaining_bytes = source->remaining * PAGE_BYTES,
        .bandwidth = source->link.rate ? source->link.rate : UINT64_MAX, /* all was zeros */
        .dirty = now.dirty_bps / 8,
        .fixed_us = fixed_us(source),
        .limit_us = limits->downtime_limit_ms * 1000,
        .timeout_ms = limits->timeout_ms,
        .pauses_failed = now.pauses_failed,
        .since_failed_ms = (uint64_t)(clock_monotonic_ns() - source->failed_ns) / 1000000,
        .postcopy_allowed = source->can_postcopy,
        .may_throttle = !limits->no_throttle && source->guest.ops->throttle,
    };
    if (limits->mode == MIGRATION_MODE_POSTCOPY && source->can_postcopy)
        return STEP_DROP;
    if (latency_is_rough(source))
        return STEP_PROBE;
    struct policy_output output = policy_decide(&input, &source->memory);
    struct migration_progress *progress = report_edit(&source->report);
    progress->predicted_pause_us = output.predicted_pause_us;
    progress->eta_ms = output.eta_ms;
    report_done(&source->report);
    if (slow_down(source, output.throttle_percent, err) < 0)
        return STEP_FAIL;
    switch (output.choice) {
    case POLICY_PAUSE:
        return rate_is_rough(source) ? STEP_PROBE : STEP_PAUSE;
    case POLICY_POSTCOPY:
        return STEP_DROP;
    case POLICY_CONTINUE:
        if (output.wait_ms &&
            source_wait(source, SOURCE_DEADLINE,
                        clock_monotonic_ns() + (int64_t)output.wait_ms * 1000000, err) < 0)
            return STEP_FAIL;
        return STEP_ROUND;
    case POLICY_GIVE_UP:
    default:
        return give_up_text(source, &input, &output, err);
    }
}
