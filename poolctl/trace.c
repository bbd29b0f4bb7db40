/* trace.c: see trace.h. */
#include "poolctl/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "common/units.h"

#define LINE_MAX_BYTES 4096
#define COLUMNS_MAX    64
#define TENANT_MAX     128
#define ARRIVALS_MAX   (SIZE_MAX / sizeof(struct sim_arrival))

enum column { ARRIVAL, LIFETIME, VCPUS, MEMORY, NETWORK, COLUMNS };

struct column_rule {
    const char *name;
    uint64_t min, max;
    bool may_be_empty;
};

/* What no machine or clock reaches is a mistake in the file. */
static const struct column_rule rules[COLUMNS] = {
    [ARRIVAL] = {"arrival_s", 0, UINT64_C(100000000000), false},
    [LIFETIME] = {"lifetime_s", 0, UINT64_C(100000000000), true},
    [VCPUS] = {"vcpus", 1, 65536, false},
    [MEMORY] = {"memory_mib", 1, UINT64_C(1) << 32, false},
    [NETWORK] = {"network_mbps", 0, 10000000, false},
};

struct reader {
    gzFile file;
    size_t line;
    size_t place[COLUMNS]; /* of each column in a line */
    size_t tenant_place;   /* width: there is none */
    size_t width;          /* columns of the header */
    struct trace *trace;
    size_t space;
};

/* The next line without its end; 1, 0 at the end of the file, or -1. */
static int read_line(struct reader *reader, char line[LINE_MAX_BYTES], struct error *err)
{
    int number = Z_OK;
    if (!gzgets(reader->file, line, LINE_MAX_BYTES)) {
        const char *text = gzerror(reader->file, &number);
        if (number == Z_OK || number == Z_STREAM_END)
            return 0;
        return error_set(err, ERROR_USAGE, "line %zu: the file cannot be read on: %s",
                         reader->line + 1, text);
    }
    reader->line++;
    size_t length = strlen(line);
    if (length == LINE_MAX_BYTES - 1 && line[length - 1] != '\n')
        return error_set(err, ERROR_USAGE, "line %zu is longer than %d bytes: expected CSV",
                         reader->line, LINE_MAX_BYTES - 2);
    line[strcspn(line, "\r\n")] = '\0';
    return 1;
}

/* Cuts a line at its commas; returns the number of fields, at most COLUMNS_MAX + 1. */
static size_t cut(char *line, const char *fields[COLUMNS_MAX])
{
    size_t count = 0;
    for (char *at = line; at; count++) {
        char *comma = strchr(at, ',');
        if (count == COLUMNS_MAX)
            return COLUMNS_MAX + 1;
        if (comma)
            *comma = '\0';
        fields[count] = at;
        at = comma ? comma + 1 : NULL;
    }
    return count;
}

static int read_header(struct reader *reader, struct error *err)
{
    char line[LINE_MAX_BYTES];
    const char *fields[COLUMNS_MAX];
    int got = read_line(reader, line, err);
    if (got <= 0)
        return got < 0 ? -1 : error_set(err, ERROR_USAGE, "the file is empty: expected a header");
    reader->width = cut(line, fields);
    if (reader->width > COLUMNS_MAX)
        return error_set(err, ERROR_USAGE, "line 1 has more than %d columns", COLUMNS_MAX);
    for (int column = 0; column < COLUMNS; column++) {
        size_t at = 0;
        while (at < reader->width && strcmp(fields[at], rules[column].name) != 0)
            at++;
        if (at == reader->width)
            return error_set(err, ERROR_USAGE,
                             "line 1: column %s is missing: expected "
                             "arrival_s,lifetime_s,vcpus,memory_mib,network_mbps",
                             rules[column].name);
        reader->place[column] = at;
    }
    while (reader->tenant_place < reader->width &&
           strcmp(fields[reader->tenant_place], "tenant") != 0)
        reader->tenant_place++;
    return 0;
}

static int read_field(const struct reader *reader, const char *const *fields, enum column column,
                      uint64_t *value, struct error *err)
{
    const struct column_rule *rule = &rules[column];
    const char *text = fields[reader->place[column]];
    *value = SIM_STAYS;
    if (!*text && rule->may_be_empty)
        return 0;
    if (units_parse_number(text, rule->name, rule->min, rule->max, value, err) < 0) {
        err->kind = ERROR_USAGE;
        return error_wrap(err, "line %zu", reader->line);
    }
    return 0;
}

/* One copy of each name; NULL with the error unset for none. */
static const char *read_tenant(struct reader *reader, const char *const *fields, struct error *err)
{
    struct name_map *tenants = &reader->trace->tenants;
    if (reader->tenant_place == reader->width || !*fields[reader->tenant_place])
        return NULL;
    const char *name = fields[reader->tenant_place];
    char *known = name_map_get(tenants, name);
    if (known)
        return known;
    if (strlen(name) > TENANT_MAX) {
        (void)error_set(err, ERROR_USAGE, "line %zu: tenant has %zu letters: expected at most %d",
                        reader->line, strlen(name), TENANT_MAX);
        return NULL;
    }
    char *copy = strdup(name);
    if (!copy)
        (void)error_set(err, ERROR_FAILED, "out of memory for a tenant");
    else if (name_map_add(tenants, copy, copy, err) == 0)
        return copy;
    free(copy);
    return NULL;
}

static int append(struct reader *reader, const struct sim_arrival *arrival, struct error *err)
{
    struct trace *trace = reader->trace;
    if (trace->count == reader->space) {
        size_t space = reader->space ? reader->space * 2 : 4096;
        struct sim_arrival *larger =
            space > ARRIVALS_MAX ? NULL : realloc(trace->arrivals, space * sizeof *larger);
        if (!larger)
            return error_set(err, ERROR_FAILED, "out of memory after %zu VMs", trace->count);
        trace->arrivals = larger;
        reader->space = space;
    }
    trace->arrivals[trace->count++] = *arrival;
    return 0;
}

static int read_arrival(struct reader *reader, char *line, struct error *err)
{
    const char *fields[COLUMNS_MAX];
    uint64_t values[COLUMNS];
    const struct trace *trace = reader->trace;
    size_t width = cut(line, fields);
    if (width != reader->width)
        return error_set(err, ERROR_USAGE, "line %zu has %zu columns: expected %zu as in line 1",
                         reader->line, width, reader->width);
    for (int column = 0; column < COLUMNS; column++)
        if (read_field(reader, fields, (enum column)column, &values[column], err) < 0)
            return -1;
    uint64_t last = trace->count ? trace->arrivals[trace->count - 1].arrival_s : 0;
    if (values[ARRIVAL] < last)
        return error_set(err, ERROR_USAGE,
                         "line %zu: arrival_s %llu is before the %llu of the line above: expected "
                         "lines in order of time",
                         reader->line, (unsigned long long)values[ARRIVAL],
                         (unsigned long long)last);
    const struct sim_arrival arrival = {
        .arrival_s = values[ARRIVAL],
        .lifetime_s = values[LIFETIME],
        .need = {values[VCPUS] * 1000, values[MEMORY], values[NETWORK] * 1000000},
        .tenant = read_tenant(reader, fields, err),
    };
    if (err->kind != ERROR_NONE)
        return -1;
    return append(reader, &arrival, err);
}

static int read_all(struct reader *reader, struct error *err)
{
    char line[LINE_MAX_BYTES];
    int got = 0;
    if (read_header(reader, err) < 0)
        return -1;
    while ((got = read_line(reader, line, err)) > 0)
        if (line[0] && read_arrival(reader, line, err) < 0)
            return -1;
    if (got == 0 && reader->trace->count == 0)
        return error_set(err, ERROR_USAGE, "no line with a VM follows the header");
    return got;
}

int trace_read(const char *path, struct trace *trace, struct error *err)
{
    struct reader reader = {.file = gzopen(path, "rb"), .trace = trace};
    *trace = (struct trace){0};
    if (!reader.file)
        return error_errno(err, errno ? errno : ENOMEM, "open %s", path);
    (void)gzbuffer(reader.file, 1u << 17);
    int status = read_all(&reader, err);
    (void)gzclose(reader.file);
    if (status < 0) {
        trace_free(trace);
        return error_wrap(err, "%s", path);
    }
    return 0;
}

void trace_free(struct trace *trace)
{
    for (size_t i = 0; i < trace->tenants.capacity; i++)
        if (trace->tenants.slots[i].name)
            free(trace->tenants.slots[i].object);
    name_map_free(&trace->tenants);
    free(trace->arrivals);
    *trace = (struct trace){0};
}
