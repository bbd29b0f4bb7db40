#include "metric_page.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_name(const char *name, size_t length)
{
    if (length == 0 || isdigit((unsigned char)name[0]))
        return false;
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_')
            return false;
    return true;
}

/* "a="b",c="d"}": its length without the brace. */
static size_t labels_length(const char *text)
{
    const char *at = text;
    for (;;) {
        size_t name = strcspn(at, "=");
        cr_assert(is_name(at, name), "no label: %s", text);
        at += name;
        cr_assert(at[0] == '=' && at[1] == '"', "no value: %s", text);
        for (at += 2; *at != '"'; at++) {
            cr_assert(*at, "no end: %s", text);
            if (*at == '\\') {
                at++;
                cr_assert(*at == '\\' || *at == '"' || *at == 'n', "no escape: %s", text);
            }
        }
        at++;
        if (*at == '}')
            return (size_t)(at - text);
        cr_assert_eq(*at++, ',', "%s", text);
    }
}

static const char *suffix_of(const struct page_family *family, const char *name)
{
    size_t length = strlen(family->name);
    return strncmp(name, family->name, length) == 0 ? name + length : NULL;
}

static void read_sample(struct page *page, const char *line)
{
    struct page_sample *sample = &page->samples[page->sample_count];
    size_t name = strcspn(line, "{ "), labels = 0;
    cr_assert_lt(page->sample_count, sizeof page->samples / sizeof *page->samples);
    cr_assert(is_name(line, name), "%s", line);
    cr_assert(page->family_count, "before its family: %s", line);
    (void)snprintf(sample->name, sizeof sample->name, "%.*s", (int)name, line);
    const char *at = line + name;
    if (*at == '{') {
        labels = labels_length(++at);
        cr_assert_lt(labels, sizeof sample->labels);
        (void)snprintf(sample->labels, sizeof sample->labels, "%.*s", (int)labels, at);
        at += labels + 1;
    }
    cr_assert_eq(*at++, ' ', "%s", line);
    char *end = NULL;
    sample->value = strtod(at, &end);
    cr_assert(end != at && *end == '\0', "no number: %s", line);
    sample->family = &page->families[page->family_count - 1];
    const char *suffix = suffix_of(sample->family, sample->name);
    bool histogram = strcmp(sample->family->type, "histogram") == 0;
    cr_assert(suffix &&
                  (histogram ? strcmp(suffix, "_bucket") == 0 || strcmp(suffix, "_sum") == 0 ||
                                   strcmp(suffix, "_count") == 0
                             : *suffix == '\0'),
              "outside of its family: %s", line);
    cr_assert_not(page_has(page, sample->name, sample->labels), "twice: %s", line);
    page->sample_count++;
}

static void read_type(struct page *page, const char *line)
{
    struct page_family *family = &page->families[page->family_count - 1];
    char name[128];
    cr_assert_eq(sscanf(line, "# TYPE %127s %15s", name, family->type), 2, "%s", line);
    cr_assert_str_eq(name, family->name);
    bool counter = strcmp(family->type, "counter") == 0;
    cr_assert(counter || strcmp(family->type, "gauge") == 0 ||
                  strcmp(family->type, "histogram") == 0,
              "%s", line);
    size_t length = strlen(name);
    cr_assert_eq(counter, length > 6 && strcmp(name + length - 6, "_total") == 0, "%s", line);
}

static void read_help(struct page *page, const char *line)
{
    struct page_family *family = &page->families[page->family_count];
    cr_assert_lt(page->family_count, sizeof page->families / sizeof *page->families);
    cr_assert_eq(sscanf(line, "# HELP %127s %255[^\n]", family->name, family->help), 2, "%s", line);
    cr_assert(is_name(family->name, strlen(family->name)), "%s", line);
    for (size_t i = 0; i < page->family_count; i++)
        cr_assert_str_neq(page->families[i].name, family->name);
    page->family_count++;
}

/* A histogram's series follow each other: buckets by bound, sum, count. */
static void check_histograms(const struct page *page)
{
    double bucket = 0;
    for (size_t i = 0; i < page->sample_count; i++) {
        const struct page_sample *sample = &page->samples[i];
        const char *suffix = suffix_of(sample->family, sample->name);
        if (strcmp(suffix, "_bucket") == 0) {
            cr_assert(strstr(sample->labels, "le=\""));
            cr_assert_geq(sample->value, bucket, "%s{%s}", sample->name, sample->labels);
            bucket = sample->value;
        } else if (strcmp(suffix, "_count") == 0) {
            cr_assert(strstr(page->samples[i - 2].labels, "le=\"+Inf\""));
            cr_assert_eq(sample->value, bucket);
            bucket = 0;
        }
    }
}

struct page *page_read(const char *data, size_t size)
{
    struct page *page = calloc(1, sizeof *page);
    char *text = calloc(1, size + 1);
    cr_assert(page && text);
    memcpy(text, data, size);
    cr_assert_eq(strlen(text), size);
    cr_assert(size > 0 && text[size - 1] == '\n');
    bool typed = true;
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        bool help = strncmp(line, "# HELP ", 7) == 0, type = strncmp(line, "# TYPE ", 7) == 0;
        cr_assert_eq(typed, !type, "%s", line);
        if (help)
            read_help(page, line);
        else if (type)
            read_type(page, line);
        else
            read_sample(page, line);
        typed = !help;
    }
    free(text);
    check_histograms(page);
    return page;
}

static const struct page_sample *find(const struct page *page, const char *name, const char *labels)
{
    for (size_t i = 0; i < page->sample_count; i++)
        if (strcmp(page->samples[i].name, name) == 0 &&
            strcmp(page->samples[i].labels, labels) == 0)
            return &page->samples[i];
    return NULL;
}

bool page_has(const struct page *page, const char *name, const char *labels)
{
    return find(page, name, labels) != NULL;
}

double page_value(const struct page *page, const char *name, const char *labels)
{
    const struct page_sample *sample = find(page, name, labels);
    cr_assert(sample, "no %s{%s}", name, labels);
    return sample->value;
}
