/*
 * facts.h: what does not change about this host while the agent runs, gathered once at start.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "proto/node.pb-c.h"

#define FACTS_WARNINGS_MAX 12
#define FACTS_LABELS_MAX   32
#define FACTS_CPUID_MAX    256 /* entries */

struct facts {
    char kernel[128];
    char cpu_model[128];
    char boot_id[40];
    uint32_t cpus;
    uint64_t memory_mib;
    uint64_t tsc_khz;
    bool kvm; /* /dev/kvm can make a VM */
    uint8_t *cpuid;
    size_t cpuid_bytes;
    char *warnings[FACTS_WARNINGS_MAX];
    size_t warning_count;
};

/* Asks the kernel and /dev/kvm. What is missing becomes a warning, not an error. */
int facts_gather(struct facts *facts, struct error *err);
void facts_clear(struct facts *facts);

/* Adds a warning for the operator and logs it; beyond the maximum it is only logged. */
void facts_warn(struct facts *facts, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Points @message's fields at @facts; the rest of @message is the caller's. */
void facts_fill(struct facts *facts, Vmpool__NodeFacts *message);
