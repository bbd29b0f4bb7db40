#include "controller/metric_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_FIRST 16384
/* Of a number, its sign, point and exponent included. */
#define NUMBER_SIZE 40
/* Up to here each whole number is a double. */
#define WHOLE_MAX 9007199254740992.0

void metric_text_free(struct metric_text *text)
{
    free(text->data);
    text->data = NULL;
    text->size = text->capacity = 0;
}

/* ---- bytes ---- */

static bool reserve(struct metric_text *text, size_t size)
{
    if (text->failed)
        return false;
    bool too_long = text->limit > 0 && size > text->limit - text->size;
    if (!too_long && text->capacity - text->size >= size)
        return true;
    size_t capacity = text->capacity ? text->capacity : CAPACITY_FIRST;
    while (capacity - text->size < size && capacity <= SIZE_MAX / 2)
        capacity *= 2;
    char *data = too_long ? NULL : realloc(text->data, capacity);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

static void put(struct metric_text *text, const char *bytes, size_t size)
{
    if (!reserve(text, size))
        return;
    memcpy(text->data + text->size, bytes, size);
    text->size += size;
}

static void put_text(struct metric_text *text, const char *words)
{
    put(text, words, strlen(words));
}

/* ---- escaping ---- */

/* What stands for a byte; NULL: itself. HELP escapes \ and line feeds, a label's value also the
 * quote. */
static const char *escape_of(char byte, bool quoted)
{
    switch (byte) {
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '"':
        return quoted ? "\\\"" : NULL;
    default:
        return (unsigned char)byte < 0x80 ? NULL : "?";
    }
}

static void put_escaped(struct metric_text *text, const char *words, bool quoted)
{
    const char *from = words, *at = words;
    for (; *at; at++) {
        const char *instead = escape_of(*at, quoted);
        if (!instead)
            continue;
        put(text, from, (size_t)(at - from));
        put_text(text, instead);
        from = at + 1;
    }
    put(text, from, (size_t)(at - from));
}

/* ---- lines ---- */

/* Reads back as the same number. */
static size_t format_number(double value, char out[NUMBER_SIZE])
{
    if (isinf(value))
        return (size_t)snprintf(out, NUMBER_SIZE, value > 0 ? "+Inf" : "-Inf");
    if (fabs(value) < WHOLE_MAX && value == floor(value))
        return (size_t)snprintf(out, NUMBER_SIZE, "%lld", (long long)value);
    int length = snprintf(out, NUMBER_SIZE, "%.15g", value);
    if (strtod(out, NULL) != value)
        length = snprintf(out, NUMBER_SIZE, "%.17g", value);
    return (size_t)length;
}

void metric_family(struct metric_text *text, const char *name, enum metric_type type,
                   const char *help)
{
    static const char *const types[] = {"gauge", "counter", "histogram"};
    text->name = name;
    put_text(text, "# HELP ");
    put_text(text, name);
    put_text(text, " ");
    put_escaped(text, help, false);
    put_text(text, "\n# TYPE ");
    put_text(text, name);
    put_text(text, " ");
    put_text(text, types[type]);
    put_text(text, "\n");
}

/* @bound: a bucket's, the last label; NULL: none. */
static void put_line(struct metric_text *text, const char *suffix,
                     const struct metric_label *labels, size_t label_count, const char *bound,
                     double value)
{
    char number[NUMBER_SIZE];
    bool any = label_count > 0 || bound;
    put_text(text, text->name);
    put_text(text, suffix);
    for (size_t i = 0; i < label_count; i++) {
        put_text(text, i ? "," : "{");
        put_text(text, labels[i].name);
        put_text(text, "=\"");
        put_escaped(text, labels[i].value, true);
        put_text(text, "\"");
    }
    if (bound) {
        put_text(text, label_count ? ",le=\"" : "{le=\"");
        put_text(text, bound);
        put_text(text, "\"");
    }
    put_text(text, any ? "} " : " ");
    put(text, number, format_number(value, number));
    put_text(text, "\n");
}

void metric_sample(struct metric_text *text, const struct metric_label *labels, size_t label_count,
                   double value)
{
    if (!isnan(value))
        put_line(text, "", labels, label_count, NULL, value);
}

void metric_histogram(struct metric_text *text, const struct metric_label *labels,
                      size_t label_count, const struct histogram *histogram)
{
    uint64_t count = 0;
    for (unsigned i = 0; i <= histogram->bound_count; i++) {
        char bound[NUMBER_SIZE] = "+Inf";
        if (i < histogram->bound_count)
            (void)format_number(histogram->bounds[i], bound);
        count += histogram->counts[i];
        put_line(text, "_bucket", labels, label_count, bound, (double)count);
    }
    put_line(text, "_sum", labels, label_count, NULL, histogram->sum);
    put_line(text, "_count", labels, label_count, NULL, (double)count);
}

void metric_columns(struct metric_text *text, const struct metric_rows *rows,
                    const struct metric_column *columns, size_t column_count)
{
    for (size_t i = 0; i < column_count; i++) {
        metric_family(text, columns[i].name, columns[i].type, columns[i].help);
        for (size_t at = 0; at < rows->count; at++) {
            const void *row = (const char *)rows->first + at * rows->size;
            struct metric_label label = {rows->label, *(const char *const *)row};
            metric_sample(text, &label, 1, columns[i].value(row));
        }
    }
}
