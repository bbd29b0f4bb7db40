#include "node-agent/vmm/clock_state.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/clock.h"
#include "common/log.h"
#include "node-agent/vmm/vcpu_state.h"

#define MSR_TSC        0x10u
#define ELAPSED_MAX_NS 3600000000000ll /* an hour: more is a host whose clock is wrong */

static int64_t ticks_of(int64_t ns, uint32_t khz)
{
    return (int64_t)((__int128)ns * khz / 1000000);
}

/* The guest's TSC less the host's, in the guest's ticks. -1 where KVM can't say. */
static int get_offset(int vcpu_fd, uint64_t *offset)
{
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};
    return ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attribute) < 0 ? -1 : 0;
}

static int set_offset(int vcpu_fd, uint64_t offset)
{
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};
    return ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &attribute) < 0 ? -1 : 0;
}

int clock_state_save(int vm_fd, const int *vcpu_fds, Vmpool__State__Machine *state,
                     struct error *err)
{
    struct kvm_clock_data *clock = calloc(1, sizeof *clock);
    if (!clock)
        return error_errno(err, ENOMEM, "clock");
    state->clock = (ProtobufCBinaryData){sizeof *clock, (uint8_t *)clock};
    if (ioctl(vm_fd, KVM_GET_CLOCK, clock) < 0)
        return error_errno(err, errno, "KVM_GET_CLOCK");
    int64_t clock_at_ns = clock_monotonic_ns();
    state->realtime_ns =
        clock->flags & KVM_CLOCK_REALTIME ? clock->realtime : (uint64_t)clock_wall_ns();
    state->host_tsc = clock->flags & KVM_CLOCK_HOST_TSC ? clock->host_tsc : 0;
    if (state->n_vcpus == 0)
        return 0;
    uint64_t tsc = 0;
    if (vcpu_state_get_msr(vcpu_fds[0], MSR_TSC, &tsc) < 0)
        return error_set(err, ERROR_FAILED, "KVM does not tell a vCPU's TSC");
    int64_t late_ns = clock_monotonic_ns() - clock_at_ns;
    uint64_t first = tsc - (uint64_t)ticks_of(late_ns, state->vcpus[0]->tsc_khz);
    uint64_t first_offset = 0;
    bool has_offsets = get_offset(vcpu_fds[0], &first_offset) == 0;
    for (size_t i = 0; i < state->n_vcpus; i++) {
        uint64_t offset = first_offset;
        if (has_offsets && get_offset(vcpu_fds[i], &offset) < 0)
            return error_set(err, ERROR_FAILED, "KVM does not tell a vCPU's TSC offset");
        state->vcpus[i]->tsc = first + (offset - first_offset);
    }
    return 0;
}

void clock_state_free(Vmpool__State__Machine *state)
{
    free(state->clock.data);
}

int clock_state_load(int vm_fd, const Vmpool__State__Machine *state, int64_t peer_ahead_ns,
                     struct error *err)
{
    struct kvm_clock_data saved;
    if (state->clock.len != sizeof saved)
        return error_set(err, ERROR_USAGE, "the state's clock has the wrong size");
    memcpy(&saved, state->clock.data, sizeof saved);
    int64_t elapsed_ns = clock_wall_ns() + peer_ahead_ns - (int64_t)state->realtime_ns;
    if (elapsed_ns < 0 || elapsed_ns > ELAPSED_MAX_NS) {
        log_warn("the two hosts' clocks disagree by %lld ms: the guest's clock goes on from where "
                 "it stopped",
                 (long long)(elapsed_ns / 1000000));
        elapsed_ns = 0;
    }
    struct kvm_clock_data clock = {.clock = saved.clock + (uint64_t)elapsed_ns};
    if (ioctl(vm_fd, KVM_SET_CLOCK, &clock) < 0)
        return error_errno(err, errno, "KVM_SET_CLOCK");
    return 0;
}

int clock_state_load_tscs(int vm_fd, const int *vcpu_fds, const Vmpool__State__Machine *state,
                          struct error *err)
{
    struct kvm_clock_data saved;
    struct kvm_clock_data now = {0};
    uint64_t tsc = 0;
    uint64_t offset = 0;
    if (state->n_vcpus == 0 || state->clock.len != sizeof saved)
        return error_set(err, ERROR_USAGE, "the state has no clock");
    memcpy(&saved, state->clock.data, sizeof saved);
    if (ioctl(vm_fd, KVM_GET_CLOCK, &now) < 0)
        return error_errno(err, errno, "KVM_GET_CLOCK");
    int64_t clock_at_ns = clock_monotonic_ns();
    if (vcpu_state_get_msr(vcpu_fds[0], MSR_TSC, &tsc) < 0)
        return error_set(err, ERROR_FAILED, "KVM does not tell a vCPU's TSC");
    int64_t late_ns = clock_monotonic_ns() - clock_at_ns;
    int64_t elapsed_ns = (int64_t)(now.clock - saved.clock) + late_ns;
    uint64_t wanted =
        state->vcpus[0]->tsc + (uint64_t)ticks_of(elapsed_ns, state->vcpus[0]->tsc_khz);
    bool has_offsets = get_offset(vcpu_fds[0], &offset) == 0;
    for (size_t i = 0; i < state->n_vcpus; i++) {
        uint64_t apart = state->vcpus[i]->tsc - state->vcpus[0]->tsc;
        int status = has_offsets ? set_offset(vcpu_fds[i], offset + (wanted - tsc) + apart)
                                 : vcpu_state_set_msr(vcpu_fds[i], MSR_TSC, wanted + apart);
        if (status < 0)
            return error_set(err, ERROR_FAILED, "KVM does not take the TSC of vCPU %zu", i);
    }
    return 0;
}
