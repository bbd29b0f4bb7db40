/*
 * metric_page.h: a page of measurements, read as strictly as Prometheus reads it, for tests.
 *
 * Whatever breaks the format fails the test: a family without HELP and TYPE or begun twice, a
 * sample outside of its family or twice, a counter that is not called _total, buckets that are not
 * cumulative.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct page_family {
    char name[128], help[256], type[16];
};
struct page_sample {
    char name[128], labels[256]; /* as written, without braces: vm="a",phase="running" */
    double value;
    const struct page_family *family;
};
struct page {
    struct page_family families[128];
    size_t family_count;
    struct page_sample samples[4096];
    size_t sample_count;
};

/* Reads @size bytes at @data; free() it. */
struct page *page_read(const char *data, size_t size);
/* What a sample is; fails the test where it is not there. */
double page_value(const struct page *page, const char *name, const char *labels);
bool page_has(const struct page *page, const char *name, const char *labels);
