/*
 * memory_hash.h: one number for all RAM, the same at both ends if and only if (but for luck of one
 * in 2^64) the contents are: XXH3-128 over the hashes of 4 MiB pieces, each over the number and
 * contents of its pages that are not all zeros. Holes are skipped without touching
 * them.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "node-agent/migration/guest.h"

#define MEMORY_HASH_BYTES 16

/* Hashes with @threads threads (1 to 16). Nothing may write to RAM meanwhile. */
int memory_hash_ram(const struct migration_guest *guest, unsigned threads,
                    uint8_t hash[MEMORY_HASH_BYTES], struct error *err);
void memory_hash_block(const void *data, size_t size, uint8_t hash[MEMORY_HASH_BYTES]);
