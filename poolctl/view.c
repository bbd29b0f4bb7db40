#include "poolctl/view.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "poolctl/message.h"
#include "poolctl/text.h"
#include "poolctl/yaml.h"

#define CELL_MAX     1024
#define COLUMNS_MAX  32
#define GAP          2 /* spaces between columns */
#define FLEXIBLE_MIN 12

struct view_style view_style_of(const struct invocation *call)
{
    return (struct view_style){.terminal = call->terminal,
                               .format = invocation_format(call),
                               .wide = invocation_has(call, "wide"),
                               .quiet = invocation_has(call, "quiet"),
                               .now_ms =
                                   call->terminal.now_ms ? call->terminal.now_ms : clock_wall_ms()};
}

/* ---- tables --------------------------------------------------------------------------------- */

static const char *colour_of_phase(const char *phase)
{
    static const char *const green[] = {"up", "running", "done", "completed", "info", NULL};
    static const char *const red[] = {"lost", "failed", "unknown", "error", NULL};
    static const char *const dim[] = {"stopped", "cancelled", "drained", NULL};
    for (int i = 0; green[i]; i++)
        if (strcmp(phase, green[i]) == 0)
            return "\033[32m";
    for (int i = 0; red[i]; i++)
        if (strcmp(phase, red[i]) == 0)
            return "\033[31m";
    for (int i = 0; dim[i]; i++)
        if (strcmp(phase, dim[i]) == 0)
            return "\033[2m";
    return "\033[33m"; /* on its way from one to another */
}

/* Numbers stand on the right of their column, so that digits line up. */
static bool is_right_aligned(const struct field *field)
{
    return field->format == FIELD_NUMBER || field->format == FIELD_SCORE ||
           field->format == FIELD_MIB || field->format == FIELD_BYTES ||
           field->format == FIELD_BPS || field->format == FIELD_PERMILLE ||
           field->format == FIELD_US;
}

static bool is_shown(const struct view_style *style, const struct field *field)
{
    return style->wide || !(field->flags & FIELD_WIDE);
}

/* Prints one cell; only what follows another column needs its padding. */
static void print_cell(const struct view_style *style, const struct field *field, const char *text,
                       int width, bool last, bool header)
{
    FILE *out = style->terminal.out;
    const char *colour = NULL;
    int own = text_width(text);
    int pad = own < width ? width - own : 0;
    if (style->terminal.colour)
        colour = header ? "\033[1m" : field->format == FIELD_PHASE ? colour_of_phase(text) : NULL;
    if (is_right_aligned(field))
        (void)fprintf(out, "%*s", pad, "");
    if (colour)
        (void)fputs(colour, out);
    if (own > width) {
        (void)fwrite(text, 1, text_fit(text, width - 1), out);
        (void)fputs(style->terminal.utf8 ? "…" : "~", out);
    } else {
        text_print_safe(out, text, false);
    }
    if (colour)
        (void)fputs("\033[0m", out);
    if (!last && !is_right_aligned(field))
        (void)fprintf(out, "%*s", pad, "");
    if (!last)
        (void)fprintf(out, "%*s", GAP, "");
}

/* A cell's text with what is not fit to print replaced, so that widths count what is printed. */
static void cell_text(const struct view_style *style, const struct field *field,
                      const json_t *thing, char *out, size_t size)
{
    char raw[CELL_MAX];
    view_field(style, field, thing, raw, sizeof raw);
    FILE *memory = fmemopen(out, size, "w");
    if (!memory) {
        (void)snprintf(out, size, "?");
        return;
    }
    text_print_safe(memory, raw, false);
    (void)fclose(memory);
    out[size - 1] = '\0';
}

/* Takes what the terminal lacks from the flexible column, if there is one. */
static void fit_columns(const struct view_style *style, const struct field *fields, int *widths)
{
    int total = 0;
    int flexible = -1;
    for (int i = 0; fields[i].title; i++) {
        if (!is_shown(style, &fields[i]))
            continue;
        total += widths[i] + (total ? GAP : 0);
        if (fields[i].flags & FIELD_FLEXIBLE)
            flexible = i;
    }
    int columns = style->terminal.columns;
    if (columns > 0 && total > columns && flexible >= 0 && !style->wide) {
        int left = widths[flexible] - (total - columns);
        widths[flexible] = left > FLEXIBLE_MIN ? left : FLEXIBLE_MIN;
    }
}

void view_table(const struct view_style *style, const struct view *view, const char *title,
                const json_t *list)
{
    int widths[COLUMNS_MAX] = {0};
    char cell[CELL_MAX];
    int last = 0;
    for (int i = 0; view->fields[i].title && i < COLUMNS_MAX; i++) {
        if (!is_shown(style, &view->fields[i]))
            continue;
        last = i;
        widths[i] = style->no_header ? 0 : text_width(view->fields[i].title);
        for (size_t row = 0; row < json_array_size(list); row++) {
            cell_text(style, &view->fields[i], json_array_get(list, row), cell, sizeof cell);
            int width = text_width(cell);
            widths[i] = width > widths[i] ? width : widths[i];
        }
    }
    fit_columns(style, view->fields, widths);
    if (title)
        (void)fprintf(style->terminal.out, "%s\n", title);
    for (size_t row = style->no_header ? 1 : 0; row <= json_array_size(list); row++) {
        for (int i = 0; i <= last; i++) {
            const struct field *field = &view->fields[i];
            if (!is_shown(style, field))
                continue;
            if (row == 0)
                (void)snprintf(cell, sizeof cell, "%s", field->title);
            else
                cell_text(style, field, json_array_get(list, row - 1), cell, sizeof cell);
            print_cell(style, field, cell, widths[i], i == last, row == 0);
        }
        (void)fputc('\n', style->terminal.out);
    }
}

static bool is_empty(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_integer(value) && json_integer_value(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

void view_page(const struct view_style *style, const struct field *lines, const json_t *thing)
{
    FILE *out = style->terminal.out;
    char cell[CELL_MAX];
    int width = 0;
    for (const struct field *line = lines; line->title; line++)
        if (text_width(line->title) > width)
            width = text_width(line->title);
    for (const struct field *line = lines; line->title; line++) {
        if ((line->flags & FIELD_OPTIONAL) && is_empty(message_at(thing, line->path)))
            continue;
        cell_text(style, line, thing, cell, sizeof cell);
        const char *colour =
            style->terminal.colour && line->format == FIELD_PHASE ? colour_of_phase(cell) : NULL;
        (void)fprintf(out, "%s:%*s%s%s%s\n", line->title, width - text_width(line->title) + 2, "",
                      colour ? colour : "", cell, colour ? "\033[0m" : "");
    }
}

/* ---- for programs --------------------------------------------------------------------------- */

/* RFC 4180, 2.5 to 2.7: quotes where the text has a quote, a comma or a line break. */
static void csv_cell(FILE *out, const char *text)
{
    if (!text[strcspn(text, "\",\r\n")]) {
        (void)fputs(text, out);
        return;
    }
    (void)fputc('"', out);
    for (; *text; text++)
        (void)fprintf(out, *text == '"' ? "\"\"" : "%c", *text);
    (void)fputc('"', out);
}

static void csv_value(FILE *out, const json_t *value)
{
    char text[CELL_MAX];
    const struct view_style plain = {0};
    const struct field field = {.path = "value", .format = FIELD_LIST};
    if (json_is_string(value)) {
        csv_cell(out, json_string_value(value));
    } else if (json_is_object(value) || json_is_array(value)) {
        json_t *holder = json_pack("{s:O}", "value", value);
        view_field(&plain, &field, holder, text, sizeof text);
        csv_cell(out, is_empty(value) ? "" : text);
        json_decref(holder);
    } else if (value && !json_is_null(value)) {
        auto_free char *dump = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
        csv_cell(out, dump ? dump : "");
    }
}

static void csv_header(FILE *out, const char *path, bool first)
{
    if (!first)
        (void)fputc(',', out);
    for (; *path; path++)
        (void)fputc(*path == '.' ? '_' : *path, out);
}

/* A total that several pairs are of is one column: a name that comes twice is lost on a reader. */
static bool csv_has(const struct view *view, const struct field *end, const char *path)
{
    for (const struct field *field = view->fields; field < end; field++)
        if (strcmp(field->path, path) == 0 || (field->of && strcmp(field->of, path) == 0))
            return true;
    return false;
}

static void print_csv(const struct view_style *style, const struct view *view, const json_t *list)
{
    FILE *out = style->terminal.out;
    for (size_t row = style->no_header ? 1 : 0; row <= json_array_size(list); row++) {
        const json_t *thing = row ? json_array_get(list, row - 1) : NULL;
        bool first = true;
        for (const struct field *field = view->fields; field->title; field++) {
            const char *paths[] = {field->path, field->of};
            for (int i = 0; i < 2; i++) {
                if (!paths[i] || (field->flags & FIELD_NO_CSV) || csv_has(view, field, paths[i]))
                    continue;
                if (row == 0) {
                    csv_header(out, paths[i], first);
                } else {
                    (void)fputs(first ? "" : ",", out);
                    csv_value(out, message_at(thing, paths[i]));
                }
                first = false;
            }
        }
        (void)fputs("\r\n", out);
    }
}

static void print_names(const struct view_style *style, const struct view *view, const json_t *list)
{
    FILE *out = style->terminal.out;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *name = message_at(json_array_get(list, i), view->name);
        if (json_is_integer(name))
            (void)fprintf(out, "%" JSON_INTEGER_FORMAT "\n", json_integer_value(name));
        else if (json_is_string(name))
            (void)fprintf(out, "%s\n", json_string_value(name));
    }
}

int view_document(const struct view_style *style, json_t *document, struct error *err)
{
    FILE *out = style->terminal.out;
    int result = -1;
    if (!document)
        return -1;
    if (style->format == OUTPUT_YAML) {
        (void)fputs("---\n", out);
        result = yaml_print(out, document);
    } else {
        size_t flags = style->no_header ? JSON_COMPACT : JSON_INDENT(2);
        result = json_dumpf(document, out, flags | JSON_REAL_PRECISION(15));
        (void)fputc('\n', out);
    }
    json_decref(document);
    return result < 0 ? error_set(err, ERROR_FAILED, "cannot write the output") : 0;
}

int view_list(const struct view_style *style, const struct view *view, json_t *list,
              struct error *err)
{
    if (!list)
        return err->kind == ERROR_NONE ? error_set(err, ERROR_FAILED, "out of memory") : -1;
    if (style->format == OUTPUT_JSON || style->format == OUTPUT_YAML)
        return view_document(style, message_document(view->list_key, list, err), err);
    if (style->format == OUTPUT_CSV)
        print_csv(style, view, list);
    else if (style->format == OUTPUT_NAME)
        print_names(style, view, list);
    else if (json_array_size(list) > 0)
        view_table(style, view, NULL, list);
    else if (!style->quiet && view->none)
        (void)fprintf(style->terminal.err, "%s\n", view->none);
    json_decref(list);
    return 0;
}

int view_one(const struct view_style *style, const struct view *view, const struct field *lines,
             json_t *thing, struct error *err)
{
    if (!thing)
        return err->kind == ERROR_NONE ? error_set(err, ERROR_FAILED, "out of memory") : -1;
    if (style->format == OUTPUT_JSON || style->format == OUTPUT_YAML)
        return view_document(style, message_document(view->key, thing, err), err);
    if (style->format == OUTPUT_TABLE && lines) {
        view_page(style, lines, thing);
        json_decref(thing);
        return 0;
    }
    json_t *list = json_pack("[o]", thing);
    return view_list(style, view, list, err);
}
