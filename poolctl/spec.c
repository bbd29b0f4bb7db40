/* spec.c: see spec.h. */
#include "poolctl/spec.h"

#include <stdio.h>
#include <string.h>

#include "common/units.h"

#define SPEC_MAX_BYTES 128
#define VCPUS_MAX      65536
#define EXPECTED       "expected vCPUs, memory and, if it is reserved, bandwidth as in 4c,8G,1Gbps"

int spec_parse(const char *text, struct spec *spec, struct error *err)
{
    char copy[SPEC_MAX_BYTES];
    uint64_t cpus = 0, bytes = 0;
    *spec = (struct spec){0};
    if (strlen(text) >= sizeof copy)
        return error_set(err, ERROR_USAGE, "a size of %zu letters: " EXPECTED, strlen(text));
    (void)snprintf(copy, sizeof copy, "%s", text);
    char *memory = strchr(copy, ',');
    size_t length = memory ? (size_t)(memory - copy) : 0;
    if (length < 2 || copy[length - 1] != 'c')
        return error_set(err, ERROR_USAGE, "\"%s\": " EXPECTED, text);
    copy[length - 1] = '\0';
    *memory++ = '\0';
    char *bandwidth = strchr(memory, ',');
    if (bandwidth)
        *bandwidth++ = '\0';
    if (units_parse_number(copy, "vCPUs", 1, VCPUS_MAX, &cpus, err) < 0 ||
        units_parse_bytes(memory, 1, &bytes, err) < 0 ||
        (bandwidth && units_parse_bps(bandwidth, &spec->bandwidth_bps, err) < 0))
        return error_wrap(err, "\"%s\"", text);
    if (bytes >> 20 == 0)
        return error_set(err, ERROR_USAGE, "\"%s\": less than 1M of memory; " EXPECTED, text);
    spec->vcpus = (uint32_t)cpus;
    spec->memory_mib = bytes >> 20;
    return 0;
}
