#include "node-agent/vmm/state.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "node-agent/vmm/clock_state.h"
#include "node-agent/vmm/layout.h"
#include "node-agent/vmm/machine_internal.h"
#include "node-agent/vmm/vcpu_state.h"
#include "proto/state.pb-c.h"

#define STATE_VERSION 1u
#define DEVICES_MAX   64u

/* The message under construction, with everything its pointers need. */
struct draft {
    Vmpool__State__Machine message;
    Vmpool__State__Vcpu vcpus[LAYOUT_VCPUS_MAX];
    Vmpool__State__Vcpu *vcpu_list[LAYOUT_VCPUS_MAX];
    Vmpool__State__Device devices[DEVICES_MAX];
    Vmpool__State__Device *device_list[DEVICES_MAX];
    char names[DEVICES_MAX][48];
    struct kvm_irqchip chips[3];
    struct kvm_pit_state2 pit;
    int vcpu_fds[LAYOUT_VCPUS_MAX];
};

static void list_fds(const struct machine *machine, int *fds)
{
    for (unsigned i = 0; i < vcpus_count(machine->vcpus); i++)
        fds[i] = vcpus_fd(machine->vcpus, i);
}

static int save_vcpus(struct machine *machine, struct draft *draft, struct error *err)
{
    draft->message.vcpus = draft->vcpu_list;
    for (unsigned i = 0; i < vcpus_count(machine->vcpus); i++) {
        vmpool__state__vcpu__init(&draft->vcpus[i]);
        draft->vcpu_list[i] = &draft->vcpus[i];
        draft->message.n_vcpus = i + 1;
        draft->vcpus[i].index = i;
        if (vcpu_state_save(draft->vcpu_fds[i], &machine->vcpu_format, machine->shown[i],
                            &draft->vcpus[i], err) < 0)
            return error_wrap(err, "vCPU %u", i);
    }
    return 0;
}

static int save_chips(struct machine *machine, struct draft *draft, struct error *err)
{
    ProtobufCBinaryData *fields[3] = {&draft->message.pic_master, &draft->message.pic_slave,
                                      &draft->message.ioapic};
    for (uint32_t i = 0; i < 3; i++) {
        draft->chips[i].chip_id = i; /* KVM_IRQCHIP_PIC_MASTER, PIC_SLAVE, IOAPIC */
        if (ioctl(machine->vm_fd, KVM_GET_IRQCHIP, &draft->chips[i]) < 0)
            return error_errno(err, errno, "KVM_GET_IRQCHIP %u", i);
        *fields[i] = (ProtobufCBinaryData){sizeof draft->chips[i], (uint8_t *)&draft->chips[i]};
    }
    if (ioctl(machine->vm_fd, KVM_GET_PIT2, &draft->pit) < 0)
        return error_errno(err, errno, "KVM_GET_PIT2");
    draft->message.pit = (ProtobufCBinaryData){sizeof draft->pit, (uint8_t *)&draft->pit};
    return 0;
}

static int save_devices(struct machine *machine, struct draft *draft, struct error *err)
{
    const struct device *device = NULL;
    draft->message.devices = draft->device_list;
    for (unsigned i = 0; machine_device(machine, i, &device); i++) {
        if (i == DEVICES_MAX)
            return error_set(err, ERROR_FAILED, "more than %u devices", DEVICES_MAX);
        struct device_state state = {0};
        if (device->ops->save(device->self, &state, err) < 0)
            return error_wrap(err, "%s", device->name);
        Vmpool__State__Device *entry = &draft->devices[i];
        vmpool__state__device__init(entry);
        (void)snprintf(draft->names[i], sizeof draft->names[i], "%s", device->name);
        entry->name = draft->names[i];
        entry->version = state.version;
        entry->data = (ProtobufCBinaryData){state.size, state.data};
        draft->device_list[i] = entry;
        draft->message.n_devices = i + 1;
    }
    return 0;
}

static void free_draft(struct draft *draft)
{
    for (size_t i = 0; i < draft->message.n_vcpus; i++)
        vcpu_state_free(&draft->vcpus[i]);
    for (size_t i = 0; i < draft->message.n_devices; i++)
        free(draft->devices[i].data.data);
    clock_state_free(&draft->message);
    free(draft);
}

int state_save(struct machine *machine, uint8_t **data, size_t *size, struct error *err)
{
    struct draft *draft = calloc(1, sizeof *draft);
    if (!draft)
        return error_errno(err, ENOMEM, "machine state");
    vmpool__state__machine__init(&draft->message);
    draft->message.version = STATE_VERSION;
    list_fds(machine, draft->vcpu_fds);
    /* Interrupts still on their way in an irqfd must be in the LAPICs before those are read. */
    int status = irq_chip_drain(machine->irqs, err);
    if (status == 0)
        status = save_vcpus(machine, draft, err);
    if (status == 0)
        status = save_chips(machine, draft, err);
    if (status == 0)
        status = save_devices(machine, draft, err);
    /* Last, so that as little as possible passes between this moment and the target's. */
    if (status == 0)
        status = clock_state_save(machine->vm_fd, draft->vcpu_fds, &draft->message, err);
    if (status == 0) {
        *size = vmpool__state__machine__get_packed_size(&draft->message);
        *data = malloc(*size);
        if (*data)
            (void)vmpool__state__machine__pack(&draft->message, *data);
        else
            status = error_errno(err, ENOMEM, "machine state");
    }
    free_draft(draft);
    return status < 0 ? error_wrap(err, "cannot save the machine's state") : 0;
}

static int load_chip(int vm_fd, const ProtobufCBinaryData *bytes, uint32_t id, struct error *err)
{
    struct kvm_irqchip chip;
    if (bytes->len != sizeof chip)
        return error_set(err, ERROR_USAGE, "interrupt controller %u has the wrong size", id);
    memcpy(&chip, bytes->data, sizeof chip);
    if (chip.chip_id != id)
        return error_set(err, ERROR_USAGE, "interrupt controller %u is another", id);
    if (ioctl(vm_fd, KVM_SET_IRQCHIP, &chip) < 0)
        return error_errno(err, errno, "KVM_SET_IRQCHIP %u", id);
    return 0;
}

/* Before the LAPICs: setting the I/O APIC delivers what is pending there, and the LAPICs' own
 * state, which has all that was delivered, then takes its place. */
static int load_chips(struct machine *machine, const Vmpool__State__Machine *state,
                      struct error *err)
{
    struct kvm_pit_state2 pit;
    if (load_chip(machine->vm_fd, &state->pic_master, KVM_IRQCHIP_PIC_MASTER, err) < 0 ||
        load_chip(machine->vm_fd, &state->pic_slave, KVM_IRQCHIP_PIC_SLAVE, err) < 0 ||
        load_chip(machine->vm_fd, &state->ioapic, KVM_IRQCHIP_IOAPIC, err) < 0)
        return -1;
    if (state->pit.len != sizeof pit)
        return error_set(err, ERROR_USAGE, "the PIT has the wrong size");
    memcpy(&pit, state->pit.data, sizeof pit);
    if (ioctl(machine->vm_fd, KVM_SET_PIT2, &pit) < 0)
        return error_errno(err, errno, "KVM_SET_PIT2");
    return 0;
}

static int load_vcpus(struct machine *machine, const Vmpool__State__Machine *state,
                      struct error *err)
{
    int fds[LAYOUT_VCPUS_MAX];
    list_fds(machine, fds);
    for (size_t i = 0; i < state->n_vcpus; i++)
        if (vcpu_state_load(fds[i], &machine->vcpu_format, machine->cpuid, machine->shown[i],
                            state->vcpus[i], err) < 0)
            return -1;
    if (clock_state_load_tscs(machine->vm_fd, fds, state, err) < 0)
        return -1;
    for (size_t i = 0; i < state->n_vcpus; i++)
        if (vcpu_state_load_late(fds[i], state->vcpus[i], err) < 0)
            return -1;
    return 0;
}

static int load_devices(struct machine *machine, const Vmpool__State__Machine *state,
                        struct error *err)
{
    const struct device *device = NULL;
    unsigned index = 0;
    for (; machine_device(machine, index, &device); index++) {
        const Vmpool__State__Device *entry =
            index < state->n_devices ? state->devices[index] : NULL;
        if (!entry || strcmp(entry->name, device->name) != 0)
            return error_set(err, ERROR_CONFLICT,
                             "the state has %s where this machine has %s: both ends must be "
                             "started with the same devices",
                             entry ? "another device" : "nothing", device->name);
        const struct device_state bytes = {
            .version = entry->version, .data = entry->data.data, .size = entry->data.len};
        if (device->ops->load(device->self, &bytes, err) < 0)
            return error_wrap(err, "%s", device->name);
    }
    if (index != state->n_devices)
        return error_set(err, ERROR_CONFLICT,
                         "the state has %zu devices, this machine %u: both ends must be started "
                         "with the same devices",
                         state->n_devices, index);
    return 0;
}

static int check_whole(const struct machine *machine, const Vmpool__State__Machine *state,
                       struct error *err)
{
    if (state->version != STATE_VERSION)
        return error_set(err, ERROR_CONFLICT, "machine state of version %u, this pool-vmm reads %u",
                         state->version, STATE_VERSION);
    if (state->n_vcpus != vcpus_count(machine->vcpus))
        return error_set(err, ERROR_CONFLICT, "the state has %zu vCPUs, this machine %u",
                         state->n_vcpus, vcpus_count(machine->vcpus));
    for (size_t i = 0; i < state->n_vcpus; i++)
        if (state->vcpus[i]->index != i)
            return error_set(err, ERROR_USAGE, "the state's vCPUs are out of order");
    return 0;
}

int state_load(struct machine *machine, const uint8_t *data, size_t size, int64_t peer_ahead_ns,
               struct error *err)
{
    Vmpool__State__Machine *state = vmpool__state__machine__unpack(NULL, size, data);
    if (!state)
        return error_set(err, ERROR_USAGE, "the machine state is damaged");
    int status = check_whole(machine, state, err);
    if (status == 0)
        status = load_chips(machine, state, err);
    if (status == 0)
        status = clock_state_load(machine->vm_fd, state, peer_ahead_ns, err);
    if (status == 0)
        status = load_vcpus(machine, state, err);
    if (status == 0)
        status = load_devices(machine, state, err);
    vmpool__state__machine__free_unpacked(state, NULL);
    return status < 0 ? error_wrap(err, "cannot load the machine's state") : 0;
}
