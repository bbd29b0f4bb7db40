/*
 * throttle.h: slows vCPUs so that a migration can keep up with what they write. Only those that
 * write: an innocent vCPU of the same guest keeps its full speed.
 *
 * A slowed vCPU naps for a share of each cycle of THROTTLE_CYCLE_MS, outside KVM_RUN, so that its
 * guest sees no more than a short steal of its time. Who writes is asked of KVM: each first write
 * to a page of a cleared dirty log is a page fault, and KVM counts faults by vCPU
 * (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD). Where it doesn't count (before Linux 5.14,
 * or with hardware that logs by itself), all vCPUs count as writers.
 */
#pragma once

#include "common/error.h"
#include "node-agent/vmm/vcpu.h"

#define THROTTLE_CYCLE_MS    20u
#define THROTTLE_PERCENT_MAX 99u

struct throttle;

/* @vcpus must outlive it, and must not run yet: KVM would not answer until they stop. */
struct throttle *throttle_new(struct vcpus *vcpus, struct error *err);
/* All vCPUs run at full speed again. NULL is fine. */
void throttle_free(struct throttle *throttle);

/* The vCPUs that wrote most since the last call nap for @percent of the time, the others not at
 * all; 0: none does. From any one thread. ERROR_FAILED where its thread cannot be started. */
int throttle_set(struct throttle *throttle, unsigned percent, struct error *err);
