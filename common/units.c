#include "common/units.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct suffix {
    const char *text;
    double factor;
};

/* Reads a decimal number such as 12 or 1.5; no sign, no exponent, no hexadecimal. */
static const char *read_decimal(const char *text, double *value)
{
    size_t digits = strspn(text, "0123456789");
    size_t length = digits;
    if (digits > 0 && text[length] == '.')
        length += 1 + strspn(text + length + 1, "0123456789");
    if (digits == 0 || length > 30)
        return NULL;
    char number[32];
    memcpy(number, text, length);
    number[length] = '\0';
    *value = strtod(number, NULL);
    return text + length;
}

static int parse_scaled(const char *text, const struct suffix *suffixes, const char *expected,
                        uint64_t *result, struct error *err)
{
    double value = 0;
    const char *rest = read_decimal(text, &value);
    for (; rest && suffixes->text; suffixes++) {
        if (strcasecmp(rest, suffixes->text) != 0)
            continue;
        double scaled = value * suffixes->factor;
        if (scaled >= 9.2e18)
            return error_set(err, ERROR_USAGE, "'%s' is too large", text);
        *result = (uint64_t)llround(scaled);
        return 0;
    }
    return error_set(err, ERROR_USAGE, "'%s' is not %s", text, expected);
}

int units_parse_bytes(const char *text, uint64_t unit_bytes, uint64_t *bytes, struct error *err)
{
    const double k = 1024, m = k * k, g = m * k, t = g * k;
    const struct suffix suffixes[] = {{"", (double)unit_bytes},
                                      {"B", 1},
                                      {"K", k},
                                      {"KiB", k},
                                      {"Ki", k},
                                      {"M", m},
                                      {"Mi", m},
                                      {"MiB", m},
                                      {"G", g},
                                      {"Gi", g},
                                      {"GiB", g},
                                      {"T", t},
                                      {"Ti", t},
                                      {"TiB", t},
                                      {NULL, 0}};
    return parse_scaled(text, suffixes, "a size such as 512M or 1.5G", bytes, err);
}

int units_parse_bps(const char *text, uint64_t *bps, struct error *err)
{
    const struct suffix suffixes[] = {{"", 1},    {"bit", 1},    {"bps", 1},    {"bit/s", 1},
                                      {"k", 1e3}, {"kbit", 1e3}, {"kbps", 1e3}, {"kbit/s", 1e3},
                                      {"M", 1e6}, {"Mbit", 1e6}, {"Mbps", 1e6}, {"Mbit/s", 1e6},
                                      {"G", 1e9}, {"Gbit", 1e9}, {"Gbps", 1e9}, {"Gbit/s", 1e9},
                                      {NULL, 0}};
    return parse_scaled(text, suffixes, "a rate such as 200M or 1Gbps", bps, err);
}

int units_parse_ms(const char *text, uint64_t *ms, struct error *err)
{
    const struct suffix suffixes[] = {{"", 1e3},     {"ms", 1},     {"s", 1e3},     {"m", 60e3},
                                      {"min", 60e3}, {"h", 3600e3}, {"d", 86400e3}, {NULL, 0}};
    return parse_scaled(text, suffixes, "a duration such as 100ms, 30s or 5m", ms, err);
}

int units_parse_number(const char *text, const char *what, uint64_t min, uint64_t max,
                       uint64_t *number, struct error *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = isdigit((unsigned char)text[0]) ? strtoull(text, &end, 10) : 0;
    if (!end || *end || errno || value < min || value > max)
        return error_set(err, ERROR_USAGE,
                         "%s: '%s' is not a whole number from %" PRIu64 " to %" PRIu64, what, text,
                         min, max);
    *number = value;
    return 0;
}

static const char *format_scaled(double value, double step, const char *const *names, char *out,
                                 size_t size)
{
    unsigned unit = 0;
    while (value >= step && names[unit + 1]) {
        value /= step;
        unit++;
    }
    /* One digit where it says something: 1.5G, but 512M and 10G. */
    int whole = value >= 100 || fabs(value - round(value)) < 0.05;
    (void)snprintf(out, size, whole ? "%.0f%s" : "%.1f%s", value, names[unit]);
    return out;
}

const char *units_format_bytes(uint64_t bytes, char *out, size_t size)
{
    static const char *const names[] = {"", "K", "M", "G", "T", "P", NULL};
    return format_scaled((double)bytes, 1024, names, out, size);
}

const char *units_format_bps(uint64_t bps, char *out, size_t size)
{
    static const char *const names[] = {" bit/s", " kbit/s", " Mbit/s", " Gbit/s", " Tbit/s", NULL};
    return format_scaled((double)bps, 1000, names, out, size);
}

const char *units_format_ms(uint64_t ms, char *out, size_t size)
{
    uint64_t s = ms / 1000;
    if (ms < 1000)
        (void)snprintf(out, size, "%" PRIu64 " ms", ms);
    else if (s < 60)
        (void)snprintf(out, size, "%.1f s", (double)ms / 1000);
    else if (s < 3600)
        (void)snprintf(out, size, "%" PRIu64 "m %02" PRIu64 "s", s / 60, s % 60);
    else if (s < 86400)
        (void)snprintf(out, size, "%" PRIu64 "h %02" PRIu64 "m", s / 3600, s / 60 % 60);
    else
        (void)snprintf(out, size, "%" PRIu64 "d %02" PRIu64 "h", s / 86400, s / 3600 % 24);
    return out;
}
