/* target_load.c: the machine state at the target: verified, loaded, run, or thrown away. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "node-agent/migration/faults.h"
#include "node-agent/migration/memory_hash.h"
#include "node-agent/migration/target_postcopy.h"
#include "node-agent/migration/target_steps.h"

#define HASH_THREADS 2u

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

bool target_is_complete(struct migration_target *target, int64_t round)
{
    bool machine = target->machine && target->machine_have == target->machine_size &&
                   round >= target->last_round;
    if (machine && target->complete_ns == 0)
        target->complete_ns = clock_monotonic_ns();
    return machine && (!target->verify || target->have_hashes);
}

int target_get_ready(struct migration_target *target, struct error *err)
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
    target_enter(target, MIGRATION_TARGET_READY, "");
    if (fault_point("target.ready"))
        return 0;
    stream_put_times(times, &target->times);
    return target_queue(target, FRAME_READY, target->attempt, times, sizeof(times), err);
}

/* The guest runs, or @err says why it never will. */
int target_run_guest(struct migration_target *target, uint64_t epoch, struct error *err)
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
    target_enter(target, target->postcopy ? MIGRATION_TARGET_POSTCOPY : MIGRATION_TARGET_RUNNING,
                 "");
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

void target_forget_machine(struct migration_target *target)
{
    free(target->machine);
    target->machine = NULL;
    target->machine_size = target->machine_have = 0;
    target->have_hashes = false;
    target->complete_ns = 0;
}
