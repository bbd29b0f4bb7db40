/*
 * clock_state.h: the guest's clocks across a move: kvmclock and the time stamp counters.
 *
 * Both must have gone on by the time that really passed, the same for both, or a guest that uses
 * the one stands still while a guest that uses the other does not. The source notes kvmclock, each
 * vCPU's TSC and its own real time at one moment. The target takes the real time that has passed
 * since, sets kvmclock to it, and gives the TSCs offsets that make the same of them; between vCPUs
 * the difference of the source stays exact to the tick, because KVM gives guests a stable clock
 * only then. See Documentation/virt/kvm/devices/vcpu.rst, 4.1.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "proto/state.pb-c.h"

/* Notes the clock in @state and the TSC in each of its vCPUs, which are filled but for that. */
int clock_state_save(int vm_fd, const int *vcpu_fds, Vmpool__State__Machine *state,
                     struct error *err);
void clock_state_free(Vmpool__State__Machine *state);

/* Sets kvmclock. @peer_ahead_ns: how far the source's CLOCK_REALTIME is ahead of
 * ours; hosts need not agree on the time. */
int clock_state_load(int vm_fd, const Vmpool__State__Machine *state, int64_t peer_ahead_ns,
                     struct error *err);

/* After that, and after the vCPUs' MSRs: sets all TSCs. */
int clock_state_load_tscs(int vm_fd, const int *vcpu_fds, const Vmpool__State__Machine *state,
                          struct error *err);
