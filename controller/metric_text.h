/*
 * metric_text.h: writes measurements in the text format of Prometheus, version 0.0.4, into memory.
 * Pure: no I/O, no clock, and nothing known of what is measured.
 *
 *     # HELP vmpool_vms VMs by phase
 *     # TYPE vmpool_vms gauge
 *     vmpool_vms{phase="running"} 3
 *
 * A family is begun once and all its samples follow it. Source: "Exposition formats" of the
 * Prometheus documentation.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controller/histogram.h"

#define METRIC_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum metric_type { METRIC_GAUGE, METRIC_COUNTER, METRIC_HISTOGRAM };

/* The text so far. All zero but @limit is an empty one. */
struct metric_text {
    char *data; /* not terminated */
    size_t size, capacity;
    size_t limit;     /* bytes it may become; 0: any */
    bool failed;      /* the limit was reached, or memory ran out: @data is not whole */
    const char *name; /* of the family begun last */
};

/* @value may be any bytes; what is not ASCII is written as "?", so that all is UTF-8. */
struct metric_label {
    const char *name;
    const char *value;
};

void metric_text_free(struct metric_text *text);

/* Begins a family. @name and @help must live as long as the text is written. */
void metric_family(struct metric_text *text, const char *name, enum metric_type type,
                   const char *help);
/* A sample of the family begun last. NAN is written as nothing: it is not known. */
void metric_sample(struct metric_text *text, const struct metric_label *labels, size_t label_count,
                   double value);
/* Its buckets, sum and count. */
void metric_histogram(struct metric_text *text, const struct metric_label *labels,
                      size_t label_count, const struct histogram *histogram);

/* Families of one label, a sample for each row. A row is a structure that begins with the label's
 * value (a const char *). */
struct metric_column {
    const char *name;
    enum metric_type type;
    const char *help;
    double (*value)(const void *row); /* NAN: not known of this one */
};
struct metric_rows {
    const char *label;
    const void *first;
    size_t count, size; /* of a row, in bytes */
};
void metric_columns(struct metric_text *text, const struct metric_rows *rows,
                    const struct metric_column *columns, size_t column_count);
