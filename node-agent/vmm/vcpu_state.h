/*
 * vcpu_state.h: everything of one stopped vCPU, as message Vcpu of proto/state.proto.
 *
 * The orders of saving and loading are KVM's own constraints and are given beside each step. The
 * time stamp counter is clock_state.c's affair.
 */
#pragma once

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"
#include "proto/state.pb-c.h"

/* What does not change while a machine lives: asked once, outside any pause. */
struct vcpu_state_format {
    size_t xsave_size;
    bool scales_tsc;           /* the processor can give a guest another TSC rate than its own */
    struct kvm_msr_list *msrs; /* those worth saving */
};

int vcpu_state_format_init(struct vcpu_state_format *format, int kvm_fd, int vm_fd,
                           struct error *err);
void vcpu_state_format_free(struct vcpu_state_format *format);

/* Fills @state; free it with vcpu_state_free(). @shown: the CPUID it was given, because not every
 * KVM gives it back as it was. */
int vcpu_state_save(int vcpu_fd, const struct vcpu_state_format *format,
                    const struct kvm_cpuid2 *shown, Vmpool__State__Vcpu *state, struct error *err);
void vcpu_state_free(Vmpool__State__Vcpu *state);

/* Checks sizes and that @supported (cpuid.h) offers what the guest was shown, then loads all but
 * the TSC, its deadline and the events. @shown, with room for CPUID_ENTRIES_MAX, gets its CPUID. */
int vcpu_state_load(int vcpu_fd, const struct vcpu_state_format *format,
                    const struct kvm_cpuid2 *supported, struct kvm_cpuid2 *shown,
                    const Vmpool__State__Vcpu *state, struct error *err);
/* The rest, once the TSC is right. */
int vcpu_state_load_late(int vcpu_fd, const Vmpool__State__Vcpu *state, struct error *err);

/* One MSR; -1 where KVM does not know it. */
int vcpu_state_get_msr(int vcpu_fd, uint32_t index, uint64_t *value);
int vcpu_state_set_msr(int vcpu_fd, uint32_t index, uint64_t value);
