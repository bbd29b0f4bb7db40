/*
 * view.h: how things are shown: the columns of a list, the lines of a page, and the formats for
 * programs, all from one table of fields a kind of thing.
 *
 * Tables are for people: units are scaled, times are ages, nothing is promised about their layout.
 * CSV (RFC 4180, with a header) has the same fields with the values as JSON has them, so the header
 * carries the units.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "poolctl/invocation.h"

enum field_format {
    FIELD_TEXT,
    FIELD_NUMBER,
    FIELD_SCORE, /* a real number, two digits */
    FIELD_MIB,   /* 512M */
    FIELD_BYTES,
    FIELD_BPS,      /* 200 Mbit/s */
    FIELD_PERMILLE, /* 12.5% */
    FIELD_PHASE,    /* text, coloured by how good it is */
    FIELD_AGE,      /* of a wall_ms: 3m 05s */
    FIELD_TIME,     /* of a wall_ms: 2026-01-31 12:00:00 local time */
    FIELD_US,       /* microseconds as 1.2 ms */
    FIELD_YES_NO,
    FIELD_LABELS, /* a=b,c=d */
    FIELD_LIST,   /* strings, joined with "; " */
};

enum field_flag {
    FIELD_WIDE = 1,     /* in a table only with --wide; always in CSV */
    FIELD_FLEXIBLE = 2, /* cut to the terminal's width where it does not fit */
    FIELD_OPTIONAL = 4, /* left out of a page where empty or 0 */
    FIELD_NO_CSV = 8,
    FIELD_DASH = 16, /* 0 is shown as "-": there is none */
};

struct field {
    const char *title; /* "MEMORY" in a table, "Memory" on a page; NULL ends the list */
    const char *path;  /* in the JSON of the thing; see message_at() */
    const char *of;    /* shown as "path/of"; NULL: none */
    enum field_format format;
    unsigned flags;
};

struct view {
    const char *list_key; /* of the JSON list: "vms" */
    const char *key;      /* of a single one: "vm" */
    const char *name;     /* path of what -o name prints: "name" or "id" */
    const char *none;     /* said on stderr where a list is empty: "no VMs" */
    const struct field *fields;
};

extern const struct view view_nodes;
extern const struct view view_vms;
extern const struct view view_jobs;
extern const struct view view_images;
extern const struct view view_events;
extern const struct view view_verdicts;
extern const struct view view_moves; /* verdicts of a drain: one a VM */
extern const struct view view_rounds;
extern const struct view view_contexts;

struct view_style {
    struct terminal terminal;
    enum output_format format;
    bool wide;
    bool quiet;
    bool no_header; /* rows that continue a list already begun */
    int64_t now_ms; /* wall clock */
};

struct view_style view_style_of(const struct invocation *call);

/* Prints @list, a JSON array of things, in the style's format. Takes over @list. */
int view_list(const struct view_style *style, const struct view *view, json_t *list,
              struct error *err);

/* Prints one thing: as a page of @lines (or one table row where NULL) for people. Takes over
 * @thing.
 */
int view_one(const struct view_style *style, const struct view *view, const struct field *lines,
             json_t *thing, struct error *err);

/* Only the table for people, of a borrowed list; @title is printed before it unless NULL. */
void view_table(const struct view_style *style, const struct view *view, const char *title,
                const json_t *list);
/* Only the "Label: value" lines. */
void view_page(const struct view_style *style, const struct field *lines, const json_t *thing);

/* Prints @document (see message_document()) as JSON or YAML; takes it over, NULL gives -1. */
int view_document(const struct view_style *style, json_t *document, struct error *err);

/* One field's value as people read it, into @out; returns it. */
const char *view_field(const struct view_style *style, const struct field *field,
                       const json_t *thing, char *out, size_t size);
