#include "poolctl/yaml.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

#define INDENT 2

static int print_scalar(FILE *out, const json_t *value)
{
    auto_free char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    if (!text)
        return -1;
    (void)fputs(text, out);
    return 0;
}

/* Keys of the project's own messages need no quotes; labels may be anything ("on", "1", "a: b"). */
static bool is_plain_key(const char *key)
{
    static const char *const special[] = {"y",   "n",    "yes",   "no",  "on",
                                          "off", "true", "false", "null"};
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++)
        if (strcmp(key, special[i]) == 0)
            return false;
    return key[0] >= 'a' && key[0] <= 'z' &&
           key[strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

static bool is_block(const json_t *value)
{
    return (json_is_object(value) && json_object_size(value) > 0) ||
           (json_is_array(value) && json_array_size(value) > 0);
}

static int print_block(FILE *out, json_t *value, int indent, bool first_inline);

/* What stands behind "key:" or "-". */
static int print_value(FILE *out, json_t *value, int indent, bool in_list)
{
    if (!is_block(value)) {
        (void)fputc(' ', out);
        if (print_scalar(out, value) < 0)
            return -1;
        (void)fputc('\n', out);
        return 0;
    }
    (void)fputc(in_list ? ' ' : '\n', out);
    return print_block(out, value, indent + INDENT, in_list);
}

static int print_key(FILE *out, const char *key)
{
    if (is_plain_key(key)) {
        (void)fputs(key, out);
        return 0;
    }
    json_t *text = json_string(key);
    int result = text ? print_scalar(out, text) : -1;
    json_decref(text);
    return result;
}

/* @first_inline: the first entry stands on the line already begun. */
static int print_block(FILE *out, json_t *value, int indent, bool first_inline)
{
    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            (void)fprintf(out, "%*s-", first_inline && i == 0 ? 0 : indent, "");
            if (print_value(out, json_array_get(value, i), indent, true) < 0)
                return -1;
        }
        return 0;
    }
    const char *key = NULL;
    json_t *member = NULL;
    int result = 0;
    json_object_foreach(value, key, member)
    {
        (void)fprintf(out, "%*s", first_inline ? 0 : indent, "");
        first_inline = false;
        if (print_key(out, key) < 0)
            result = -1;
        (void)fputc(':', out);
        if (result < 0 || (result = print_value(out, member, indent, false)) < 0)
            break;
    }
    return result;
}

int yaml_print(FILE *out, json_t *value)
{
    if (is_block(value))
        return print_block(out, value, 0, false);
    int result = print_scalar(out, value);
    (void)fputc('\n', out);
    return result;
}
