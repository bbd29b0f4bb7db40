/*
 * cpuid.h: the processor a guest sees.
 *
 * What KVM offers here, cut down to the pool's baseline where one is given, with the machine's own
 * topology (one package, a core a vCPU, APIC id = vCPU index) put in. A VM that sees only the
 * baseline can be moved to every node.
 */
#pragma once

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

#define CPUID_ENTRIES_MAX 256u

/* KVM_GET_SUPPORTED_CPUID; free() it. */
struct kvm_cpuid2 *cpuid_supported(int kvm_fd, struct error *err);

/* Reads a baseline file: struct kvm_cpuid_entry2[], nothing else; free() it. */
struct kvm_cpuid2 *cpuid_read(int fd, struct error *err);

/* A copy with room for CPUID_ENTRIES_MAX entries; free() it. */
struct kvm_cpuid2 *cpuid_copy(const struct kvm_cpuid2 *cpuid, struct error *err);

/* Takes from @supported every feature that @baseline lacks. ERROR_CONFLICT where the baseline is
 * of another vendor's processor. */
int cpuid_apply_baseline(struct kvm_cpuid2 *supported, const struct kvm_cpuid2 *baseline,
                         struct error *err);

/* Puts in what does not depend on the vCPU: hypervisor bit and leaves, TSC deadline timer where
 * @tsc_deadline, no performance counters. */
void cpuid_set_machine(struct kvm_cpuid2 *cpuid, bool tsc_deadline);

/* Puts in vCPU @index of @count. @cpuid must have room for CPUID_ENTRIES_MAX entries. */
void cpuid_set_topology(struct kvm_cpuid2 *cpuid, unsigned index, unsigned count);

/* Whether everything a guest was shown in @wanted is offered by @supported; else ERROR_CONFLICT
 * that names the first leaf. */
int cpuid_check_offered(const struct kvm_cpuid2 *supported, const struct kvm_cpuid2 *wanted,
                        struct error *err);
