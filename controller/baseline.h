/*
 * baseline.h: the CPU that guests see: what all nodes of the pool have in common.
 *
 * A guest that only ever saw the common features can move to each node. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* struct kvm_cpuid_entry2[] as bytes, as NodeFacts.cpuid carries it. */
struct baseline_cpu {
    const uint8_t *data;
    size_t size;
};

#define BASELINE_ENTRIES_MAX 512

/* -1 where @cpu is no such array: a wrong size, no leaf 0, or too many entries. */
int baseline_check(const struct baseline_cpu *cpu, struct error *err);

/* The intersection of @count CPUs that passed baseline_check(): independent of their order. Fills
 * @out (at most BASELINE_ENTRIES_MAX entries) and @out_size. CPUs of different vendors have none:
 * ERROR_CONFLICT. @count of 0 gives an empty one. */
int baseline_intersect(const struct baseline_cpu *cpus, size_t count, uint8_t *out,
                       size_t *out_size, struct error *err);
#define BASELINE_BYTES_MAX (BASELINE_ENTRIES_MAX * (size_t)40)
