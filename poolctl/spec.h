/* spec.h: the size of a VM as people write it in one word: "4c,8G" or "4c,8G,1Gbps". */
#pragma once

#include <stdint.h>

#include "common/error.h"

struct spec {
    uint32_t vcpus;
    uint64_t memory_mib;
    uint64_t bandwidth_bps; /* 0: none reserved */
};

/* Anything else is ERROR_USAGE that says what was expected. */
int spec_parse(const char *text, struct spec *spec, struct error *err);
