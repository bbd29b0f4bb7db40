#include "node-agent/vmm/lifecycle.h"

#include <stdio.h>

const char *lifecycle_name(Vmpool__VmState state)
{
    static const char *const names[] = {"unknown",   "preparing", "running", "paused",
                                        "migrating", "incoming",  "ready",   "given up",
                                        "stopped",   "panicked",  "failed"};
    unsigned index = (unsigned)state;
    return index < sizeof names / sizeof names[0] ? names[index] : "unknown";
}

void lifecycle_init(struct lifecycle *life, uint64_t epoch, bool incoming)
{
    *life = (struct lifecycle){
        .state = incoming ? VMPOOL__VM_STATE__VM_INCOMING : VMPOOL__VM_STATE__VM_PREPARING,
        .epoch = epoch,
        .seen = epoch,
    };
}

static int check_epoch(const struct lifecycle *life, uint64_t epoch, struct error *err)
{
    if (epoch != 0 && epoch < life->seen)
        return error_set(err, ERROR_CONFLICT,
                         "stale epoch %llu: this VM has seen %llu, so someone newer decides",
                         (unsigned long long)epoch, (unsigned long long)life->seen);
    return 0;
}

int lifecycle_see(struct lifecycle *life, uint64_t epoch, struct error *err)
{
    if (check_epoch(life, epoch, err) < 0)
        return -1;
    if (epoch > life->seen)
        life->seen = epoch;
    return 0;
}

void lifecycle_run_at(struct lifecycle *life, uint64_t epoch)
{
    life->state = VMPOOL__VM_STATE__VM_RUNNING;
    life->epoch = epoch;
    if (epoch > life->seen)
        life->seen = epoch;
}

static int refuse(const struct lifecycle *life, const char *what, struct error *err)
{
    return error_set(err, ERROR_CONFLICT, "cannot %s a VM that is %s", what,
                     lifecycle_name(life->state));
}

int lifecycle_run(struct lifecycle *life, uint64_t epoch, struct error *err)
{
    if (check_epoch(life, epoch, err) < 0)
        return -1;
    if (life->held)
        return error_set(err, ERROR_CONFLICT, "this VM cannot run now: %s", life->text);
    uint64_t at = epoch ? epoch : life->seen;
    switch (life->state) {
    case VMPOOL__VM_STATE__VM_GAVE_UP:
        if (epoch <= life->seen)
            return error_set(err, ERROR_CONFLICT,
                             "this VM was given up to epoch %llu: it runs again only at a higher "
                             "one, once the target has thrown its copy away",
                             (unsigned long long)life->seen);
        break;
    case VMPOOL__VM_STATE__VM_PREPARING:
    case VMPOOL__VM_STATE__VM_PAUSED:
    case VMPOOL__VM_STATE__VM_RUNNING:
        break;
    case VMPOOL__VM_STATE__VM_MIGRATING:
        /* It runs; its epoch must stay the one the handover was agreed on. */
        return at == life->epoch ? 0 : refuse(life, "change the epoch of", err);
    case VMPOOL__VM_STATE__VM_READY:
        return 0;
    default:
        return refuse(life, "run", err);
    }
    lifecycle_run_at(life, at);
    return 0;
}

int lifecycle_pause(struct lifecycle *life, uint64_t epoch, struct error *err)
{
    if (check_epoch(life, epoch, err) < 0)
        return -1;
    if (life->state != VMPOOL__VM_STATE__VM_RUNNING && life->state != VMPOOL__VM_STATE__VM_PAUSED &&
        life->state != VMPOOL__VM_STATE__VM_PREPARING)
        return refuse(life, "pause", err);
    if (life->state == VMPOOL__VM_STATE__VM_RUNNING)
        life->state = VMPOOL__VM_STATE__VM_PAUSED;
    return lifecycle_see(life, epoch, err);
}

int lifecycle_migrate(struct lifecycle *life, uint64_t epoch, uint64_t next_epoch,
                      struct error *err)
{
    if (check_epoch(life, epoch, err) < 0)
        return -1;
    if (life->state != VMPOOL__VM_STATE__VM_RUNNING)
        return refuse(life, "migrate", err);
    if (next_epoch <= life->seen)
        return error_set(err, ERROR_USAGE,
                         "the target's epoch %llu must be higher than %llu, which this VM has seen",
                         (unsigned long long)next_epoch, (unsigned long long)life->seen);
    life->state = VMPOOL__VM_STATE__VM_MIGRATING;
    return lifecycle_see(life, epoch, err);
}

void lifecycle_migrate_failed(struct lifecycle *life)
{
    if (life->state == VMPOOL__VM_STATE__VM_MIGRATING)
        life->state = VMPOOL__VM_STATE__VM_RUNNING;
}

void lifecycle_give_up(struct lifecycle *life, uint64_t next_epoch)
{
    life->state = VMPOOL__VM_STATE__VM_GAVE_UP;
    if (next_epoch > life->seen)
        life->seen = next_epoch;
}

void lifecycle_ready(struct lifecycle *life)
{
    if (life->state == VMPOOL__VM_STATE__VM_INCOMING)
        life->state = VMPOOL__VM_STATE__VM_READY;
}

void lifecycle_unready(struct lifecycle *life)
{
    if (life->state == VMPOOL__VM_STATE__VM_READY)
        life->state = VMPOOL__VM_STATE__VM_INCOMING;
}

void lifecycle_hold(struct lifecycle *life, bool held, const char *text)
{
    bool was = life->held;
    if (held && (was || life->state == VMPOOL__VM_STATE__VM_RUNNING)) {
        life->state = VMPOOL__VM_STATE__VM_PAUSED;
        (void)snprintf(life->text, sizeof life->text, "%s", text);
    } else if (was && !held && life->state == VMPOOL__VM_STATE__VM_PAUSED) {
        life->state = VMPOOL__VM_STATE__VM_RUNNING;
        life->text[0] = '\0';
    }
    life->held = held && life->state == VMPOOL__VM_STATE__VM_PAUSED;
}

void lifecycle_end(struct lifecycle *life, Vmpool__VmState state, const char *text)
{
    life->state = state;
    (void)snprintf(life->text, sizeof life->text, "%s", text);
}
