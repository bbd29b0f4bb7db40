#include "node-agent/vmm/dirty.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/vmm/layout.h"
#include "node-agent/vmm/machine_internal.h"

/* A slot as a range of RAM pages. Both begin at a multiple of 64. */
struct slot {
    uint32_t number;
    uint64_t first;
    uint64_t count;
};

static unsigned list_slots(const struct machine *machine, struct slot slots[2])
{
    uint64_t low = guest_memory_low_size(&machine->memory) / LAYOUT_PAGE_SIZE;
    uint64_t high = guest_memory_high_size(&machine->memory) / LAYOUT_PAGE_SIZE;
    slots[0] = (struct slot){0, 0, low};
    slots[1] = (struct slot){1, low, high};
    return high > 0 ? 2 : 1;
}

int dirty_start(struct machine *machine, struct error *err)
{
    /* What was written before is in RAM, which is read from now on: it would only go twice. (A
     * guest that has reported its free pages has had most of RAM written, to zeros.) */
    guest_memory_forget_own_dirty(&machine->memory);
    return machine_set_slots(machine, true, err);
}

void dirty_stop(struct machine *machine)
{
    struct error err = ERROR_INIT;
    if (machine_set_slots(machine, false, &err) < 0)
        log_warn("the dirty log stays on: %s", err.text);
}

static int sync_slot(struct machine *machine, const struct slot *slot, uint64_t *bitmap,
                     struct error *err)
{
    size_t words = (size_t)((slot->count + 63) / 64);
    auto_free uint64_t *log = calloc(words, sizeof *log);
    if (!log)
        return error_errno(err, ENOMEM, "dirty bitmap");
    struct kvm_dirty_log request = {.slot = slot->number, .dirty_bitmap = log};
    if (ioctl(machine->vm_fd, KVM_GET_DIRTY_LOG, &request) < 0)
        return error_errno(err, errno, "KVM_GET_DIRTY_LOG %u", slot->number);
    for (size_t i = 0; i < words; i++)
        bitmap[slot->first / 64 + i] |= log[i];
    return 0;
}

int dirty_sync(struct machine *machine, uint64_t *bitmap, struct error *err)
{
    struct slot slots[2];
    unsigned count = list_slots(machine, slots);
    for (unsigned i = 0; i < count; i++)
        if (sync_slot(machine, &slots[i], bitmap, err) < 0)
            return -1;
    guest_memory_take_own_dirty(&machine->memory, bitmap);
    return 0;
}

int dirty_clear(struct machine *machine, const uint64_t *bitmap, uint64_t first, uint64_t count,
                struct error *err)
{
    struct slot slots[2];
    unsigned slot_count = machine->manual_protect ? list_slots(machine, slots) : 0;
    for (unsigned i = 0; i < slot_count; i++) {
        const struct slot *slot = &slots[i];
        uint64_t start = first > slot->first ? first : slot->first;
        uint64_t end = first + count;
        if (end > slot->first + slot->count)
            end = slot->first + slot->count;
        if (start >= end)
            continue;
        union {
            const uint64_t *given;
            void *field; /* KVM only reads it */
        } bits = {.given = bitmap + start / 64};
        struct kvm_clear_dirty_log request = {.slot = slot->number,
                                              .first_page = start - slot->first,
                                              .num_pages = (uint32_t)(end - start),
                                              .dirty_bitmap = bits.field};
        if (ioctl(machine->vm_fd, KVM_CLEAR_DIRTY_LOG, &request) < 0)
            return error_errno(err, errno, "KVM_CLEAR_DIRTY_LOG %u", slot->number);
    }
    return 0;
}
