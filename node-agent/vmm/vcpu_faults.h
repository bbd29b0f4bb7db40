/* vcpu_faults.h: how many page faults of each vCPU KVM has mended, from its binary statistics. */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "node-agent/vmm/vcpu.h"

struct vcpu_faults;

/* Before any of @vcpus runs: a vCPU in the guest keeps KVM from answering. Where KVM has no such
 * statistics every count is 0; NULL only without memory. */
struct vcpu_faults *vcpu_faults_new(const struct vcpus *vcpus, struct error *err);
void vcpu_faults_free(struct vcpu_faults *faults);
uint64_t vcpu_faults_read(const struct vcpu_faults *faults, unsigned vcpu);
