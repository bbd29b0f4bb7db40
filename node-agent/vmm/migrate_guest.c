#include "node-agent/vmm/migrate_guest.h"

#include <stdio.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "node-agent/vmm/dirty.h"
#include "node-agent/vmm/machine_internal.h"
#include "node-agent/vmm/state.h"
#include "node-agent/vmm/throttle.h"

/* ---- on the engine's threads: these only talk to KVM ---- */

static int check_alive(const struct migrate_guest *self, struct error *err)
{
    if (atomic_load(&self->ended))
        return error_set(err, ERROR_CONFLICT, "the guest has ended");
    return 0;
}

static int guest_dirty_start(void *guest, struct error *err)
{
    struct migrate_guest *self = guest;
    return check_alive(self, err) < 0 ? -1 : dirty_start(self->vmm->machine, err);
}

static void guest_dirty_stop(void *guest)
{
    struct migrate_guest *self = guest;
    struct error ignored = ERROR_INIT; /* full speed needs no thread, so it cannot fail */
    (void)throttle_set(self->vmm->machine->throttle, 0, &ignored);
    dirty_stop(self->vmm->machine);
}

static int guest_throttle(void *guest, unsigned percent, struct error *err)
{
    struct migrate_guest *self = guest;
    return throttle_set(self->vmm->machine->throttle, percent, err);
}

static int guest_dirty_sync(void *guest, uint64_t *bitmap, struct error *err)
{
    struct migrate_guest *self = guest;
    if (check_alive(self, err) < 0)
        return -1;
    machine_settle(self->vmm->machine); /* once a round: the pause comes after one of them */
    return dirty_sync(self->vmm->machine, bitmap, err);
}

static int guest_dirty_clear(void *guest, const uint64_t *bitmap, uint64_t first, uint64_t count,
                             struct error *err)
{
    struct migrate_guest *self = guest;
    return dirty_clear(self->vmm->machine, bitmap, first, count, err);
}

/* ---- on the loop's thread, by the gate ---- */

static int pause_there(void *context, void *argument, struct error *err)
{
    (void)argument;
    struct migrate_guest *self = context;
    if (machine_pause(self->vmm->machine, err) < 0)
        return -1;
    if (machine_ended(self->vmm->machine))
        return error_set(err, ERROR_CONFLICT, "the guest has ended");
    return 0;
}

static int resume_there(void *context, void *argument, struct error *err)
{
    (void)argument;
    struct migrate_guest *self = context;
    if (self->vmm->life.state == VMPOOL__VM_STATE__VM_GAVE_UP)
        return error_set(err, ERROR_CONFLICT, "the VM was given up");
    if (machine_ended(self->vmm->machine))
        return 0; /* nothing to resume; vmm.c deals with the end */
    return machine_resume(self->vmm->machine, false, err);
}

struct bytes {
    uint8_t **data;
    size_t *size;
    const uint8_t *from;
    size_t from_size;
};

static int save_there(void *context, void *argument, struct error *err)
{
    struct migrate_guest *self = context;
    struct bytes *bytes = argument;
    return state_save(self->vmm->machine, bytes->data, bytes->size, err);
}

static int give_up_there(void *context, void *argument, struct error *err)
{
    (void)argument, (void)err;
    struct migrate_guest *self = context;
    lifecycle_give_up(&self->vmm->life, self->next_epoch);
    vmm_keep_state(self->vmm);
    return 0;
}

static int load_there(void *context, void *argument, struct error *err)
{
    struct migrate_guest *self = context;
    const struct bytes *bytes = argument;
    return state_load(self->vmm->machine, bytes->from, bytes->from_size, self->peer_ahead_ns, err);
}

static int rehearse_there(void *context, void *argument, struct error *err)
{
    (void)argument;
    struct migrate_guest *self = context;
    auto_free uint8_t *state = NULL;
    size_t size = 0;
    if (state_save(self->vmm->machine, &state, &size, err) < 0)
        return -1;
    return state_load(self->vmm->machine, state, size, 0, err);
}

struct start {
    uint64_t epoch;
    int64_t running_ns;
};

static int run_there(void *context, void *argument, struct error *err)
{
    struct migrate_guest *self = context;
    struct start *start = argument;
    lifecycle_run_at(&self->vmm->life, start->epoch);
    vmm_keep_state(self->vmm);
    int status = machine_resume(self->vmm->machine, true, err);
    start->running_ns = clock_monotonic_ns();
    return status;
}

/* ---- on the engine's threads, through the gate ---- */

static int guest_pause(void *guest, struct error *err)
{
    struct migrate_guest *self = guest;
    return gate_pass(self->gate, pause_there, NULL, err);
}

static int guest_resume(void *guest, struct error *err)
{
    struct migrate_guest *self = guest;
    return gate_pass(self->gate, resume_there, NULL, err);
}

static int guest_save(void *guest, uint8_t **state, size_t *size, struct error *err)
{
    struct migrate_guest *self = guest;
    struct bytes bytes = {.data = state, .size = size};
    return gate_pass(self->gate, save_there, &bytes, err);
}

static void guest_give_up(void *guest)
{
    struct migrate_guest *self = guest;
    struct error err = ERROR_INIT; /* a closed gate: the process ends, the guest never runs again */
    (void)gate_pass(self->gate, give_up_there, NULL, &err);
}

static void guest_peer_clock(void *guest, int64_t ahead_ns)
{
    struct migrate_guest *self = guest;
    if (!self->has_peer_clock || ahead_ns > self->peer_ahead_ns)
        self->peer_ahead_ns = ahead_ns;
    self->has_peer_clock = true;
}

static int guest_rehearse(void *guest, struct error *err)
{
    struct migrate_guest *self = guest;
    return gate_pass(self->gate, rehearse_there, NULL, err);
}

static int guest_load(void *guest, const uint8_t *state, size_t size, struct error *err)
{
    struct migrate_guest *self = guest;
    struct bytes bytes = {.from = state, .from_size = size};
    return gate_pass(self->gate, load_there, &bytes, err);
}

static int guest_run(void *guest, uint64_t epoch, int64_t *running_ns, struct error *err)
{
    struct migrate_guest *self = guest;
    struct start start = {.epoch = epoch};
    int status = gate_pass(self->gate, run_there, &start, err);
    *running_ns = start.running_ns;
    return status;
}

/* Not through the gate: the loop may itself be waiting for a page. */
static void guest_hold(void *guest, bool held)
{
    struct migrate_guest *self = guest;
    machine_hold(self->vmm->machine, held);
}

static const struct migration_guest_ops guest_ops = {
    .dirty_start = guest_dirty_start,
    .dirty_stop = guest_dirty_stop,
    .dirty_sync = guest_dirty_sync,
    .dirty_clear = guest_dirty_clear,
    .throttle = guest_throttle,
    .pause = guest_pause,
    .resume = guest_resume,
    .save = guest_save,
    .give_up = guest_give_up,
    .peer_clock = guest_peer_clock,
    .rehearse = guest_rehearse,
    .load = guest_load,
    .run = guest_run,
    .hold = guest_hold,
    .announce = NULL, /* virtio-net announces itself when it is resumed */
};

void migrate_guest_init(struct migration_guest *guest, struct migrate_guest *self)
{
    const struct guest_memory *memory = machine_memory(self->vmm->machine);
    *guest = (struct migration_guest){.ops = &guest_ops,
                                      .self = self,
                                      .ram = memory->base,
                                      .ram_bytes = memory->size,
                                      .pagemap_fd = memory->pagemap_fd,
                                      .uffd = self->vmm->uffd};
    (void)snprintf(guest->vm_id, sizeof guest->vm_id, "%s", self->vmm->options->id);
}
