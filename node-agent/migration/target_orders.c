/* target_orders.c: what the target is ordered from outside. */
#include "common/clock.h"
#include "node-agent/migration/target_steps.h"

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
    if (target_run_guest(target, epoch, err) < 0) {
        target_enter(target, MIGRATION_TARGET_FAILED, err->text);
        return -1;
    }
    return 0;
}

/* Carries out what was ordered from outside. */
void target_obey(struct migration_target *target)
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
        target_enter_lost(target, "the VMM ends in post-copy");
    else if (runs && !(order == ORDER_RUN && epoch == target->run_epoch))
        (void)error_set(&err, ERROR_CONFLICT, "the guest runs here");
    else if (order == ORDER_DISCARD)
        target_enter(target, MIGRATION_TARGET_DISCARDED, "discarded");
    else if (order == ORDER_RUN && !runs)
        (void)obey_run(target, epoch, &err);
    (void)pthread_mutex_lock(&target->lock);
    target->order = ORDER_NONE;
    target->order_error = err;
    (void)pthread_cond_broadcast(&target->changed);
    (void)pthread_mutex_unlock(&target->lock);
}
