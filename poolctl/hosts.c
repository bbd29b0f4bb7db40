/* hosts.c: see hosts.h. */
#include "poolctl/hosts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/name_map.h"
#include "common/units.h"

#define SPEC_MAX_BYTES 128
#define EXPECTED       "expected vCPUs, memory and bandwidth as in 64c,128G,25Gbps"

int host_parse(const char *text, struct sched_resources *capacity, struct error *err)
{
    char copy[SPEC_MAX_BYTES];
    uint64_t cpus = 0, bytes = 0, bps = 0;
    if (strlen(text) >= sizeof copy)
        return error_set(err, ERROR_USAGE, "a host of %zu letters: " EXPECTED, strlen(text));
    (void)snprintf(copy, sizeof copy, "%s", text);
    char *memory = strchr(copy, ',');
    char *bandwidth = memory ? strchr(memory + 1, ',') : NULL;
    size_t length = memory ? (size_t)(memory - copy) : 0;
    if (!bandwidth || length < 2 || copy[length - 1] != 'c')
        return error_set(err, ERROR_USAGE, "\"%s\": " EXPECTED, text);
    copy[length - 1] = '\0';
    *memory++ = '\0';
    *bandwidth++ = '\0';
    if (units_parse_number(copy, "vCPUs", 1, 65536, &cpus, err) < 0 ||
        units_parse_bytes(memory, 1, &bytes, err) < 0 || units_parse_bps(bandwidth, &bps, err) < 0)
        return error_wrap(err, "\"%s\"", text);
    if (bytes >> 20 == 0)
        return error_set(err, ERROR_USAGE, "\"%s\": less than 1M of memory; " EXPECTED, text);
    *capacity = (struct sched_resources){cpus * 1000, bytes >> 20, bps};
    return 0;
}

static int append(struct hosts *hosts, const char *name, const char *spec, size_t line,
                  struct error *err)
{
    struct sim_host host = {0};
    if (strlen(name) >= sizeof host.name)
        return error_set(err, ERROR_USAGE, "a name has at most %zu letters", sizeof host.name - 1);
    if (host_parse(spec, &host.capacity, err) < 0)
        return -1;
    struct sim_host *larger = reallocarray(hosts->hosts, hosts->count + 1, sizeof *larger);
    if (larger)
        hosts->hosts = larger;
    size_t *lines = reallocarray(hosts->lines, hosts->count + 1, sizeof *lines);
    if (lines)
        hosts->lines = lines;
    if (!larger || !lines)
        return error_set(err, ERROR_FAILED, "out of memory for %zu hosts", hosts->count + 1);
    (void)snprintf(host.name, sizeof host.name, "%s", name);
    lines[hosts->count] = line;
    larger[hosts->count++] = host;
    return 0;
}

static int read_line(struct hosts *hosts, char *line, size_t number, struct error *err)
{
    char *rest = NULL;
    line[strcspn(line, "#\r\n")] = '\0';
    const char *name = strtok_r(line, " \t", &rest);
    if (!name)
        return 0;
    const char *spec = strtok_r(NULL, " \t", &rest);
    if (!spec || strtok_r(NULL, " \t", &rest))
        return error_set(err, ERROR_USAGE, "expected a name and a size as in: n1 64c,128G,25Gbps");
    return append(hosts, name, spec, number, err);
}

static int check_names(struct hosts *hosts, struct error *err)
{
    struct name_map names = {0};
    int status = 0;
    for (size_t i = 0; status == 0 && i < hosts->count; i++) {
        const size_t *first = name_map_get(&names, hosts->hosts[i].name);
        if (first)
            status = error_set(err, ERROR_USAGE,
                               "line %zu: host %s stands in line %zu already: expected each once",
                               hosts->lines[i], hosts->hosts[i].name, *first);
        else
            status = name_map_add(&names, hosts->hosts[i].name, &hosts->lines[i], err);
    }
    name_map_free(&names);
    return status;
}

int hosts_read(const char *path, struct hosts *hosts, struct error *err)
{
    auto_file FILE *file = fopen(path, "r");
    auto_free char *line = NULL;
    size_t size = 0, number = 0;
    *hosts = (struct hosts){0};
    if (!file)
        return error_errno(err, errno, "open %s", path);
    while (getline(&line, &size, file) >= 0) {
        number++;
        if (read_line(hosts, line, number, err) < 0) {
            hosts_free(hosts);
            return error_wrap(err, "%s: line %zu", path, number);
        }
    }
    if (hosts->count == 0)
        return error_set(err, ERROR_USAGE,
                         "%s: no host in it: expected lines as n1 64c,128G,25Gbps", path);
    if (check_names(hosts, err) < 0) {
        hosts_free(hosts);
        return error_wrap(err, "%s", path);
    }
    return 0;
}

void hosts_free(struct hosts *hosts)
{
    free(hosts->hosts);
    free(hosts->lines);
    *hosts = (struct hosts){0};
}
