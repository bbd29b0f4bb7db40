#include "poolctl/invocation.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/units.h"

#define MIB (1ull << 20)

/* "vm create": errors have the program's name in front already. */
static const char *path_text(const struct invocation *call, char *out, size_t size)
{
    if (call->depth > 1)
        return command_path_text(call->path + 1, call->depth - 1, out, size);
    return command_path_text(call->path, 1, out, size);
}

static int add_value(struct invocation *call, const struct option *option, const char *value,
                     struct error *err)
{
    if (strcmp(option->name, "help") == 0) {
        call->help = true;
        return 0;
    }
    /* What a script's unset variable gives: never "as if the option were not there". */
    if (value && !value[0] && !option->may_be_empty)
        return error_set(err, ERROR_USAGE, "--%s: its value is empty: give %s, or leave --%s out",
                         option->name, option->value, option->name);
    if (!command_word_allowed(option->words, value ? value : "")) {
        char list[160];
        (void)snprintf(list, sizeof list, "%s", option->words);
        for (char *bar = strchr(list, '|'); bar; bar = strchr(bar, '|'))
            *bar = ' ';
        return error_set(err, ERROR_USAGE, "--%s: '%s' is not one of: %s", option->name, value,
                         list);
    }
    call->values[call->value_count++] = (struct option_value){option, value};
    return 0;
}

static int unknown_option(const struct invocation *call, const char *typed, const char *name,
                          struct error *err)
{
    char path[128];
    path_text(call, path, sizeof path);
    const char *meant = command_suggest_option(call->command, name);
    if (meant)
        return error_set(err, ERROR_USAGE,
                         "unknown option %s: did you mean --%s? (see 'poolctl %s --help')", typed,
                         meant, path);
    return error_set(err, ERROR_USAGE, "unknown option %s: see 'poolctl %s --help'", typed, path);
}

/* Reads argv[*at], which begins with a dash, and the value behind it. */
static int parse_option(struct invocation *call, int argc, char *const *argv, int *at,
                        struct error *err)
{
    const char *word = argv[*at];
    bool is_long = word[1] == '-';
    const char *name = word + (is_long ? 2 : 1);
    const char *value = NULL;
    char buffer[64];
    if (is_long) {
        size_t length = strcspn(name, "=");
        value = name[length] ? name + length + 1 : NULL;
        (void)snprintf(buffer, sizeof buffer, "%.*s", (int)(length < 63 ? length : 63), name);
        name = buffer;
    }
    const struct option *option = command_option(call->command, name, !is_long);
    if (!option)
        return unknown_option(call, word, name, err);
    if (!option->value) {
        if (value)
            return error_set(err, ERROR_USAGE, "--%s takes no value", option->name);
        if (add_value(call, option, NULL, err) < 0)
            return -1;
        return !is_long && word[2] ? unknown_option(call, word, word + 1, err) : 0;
    }
    if (!is_long && word[2])
        value = word + 2 + (word[2] == '=');
    if (!value && *at + 1 < argc)
        value = argv[++*at];
    if (!value)
        return error_set(err, ERROR_USAGE, "--%s needs a value: --%s %s", option->name,
                         option->name, option->value);
    return add_value(call, option, value, err);
}

/* A word that is no option: the name of a command below, or an argument. */
static int parse_word(struct invocation *call, const char *word, struct error *err)
{
    char path[128];
    path_text(call, path, sizeof path);
    if (!call->command->children) {
        call->arguments[call->argument_count++] = word;
        return 0;
    }
    if (call->depth == 1 && strcmp(word, "help") == 0) {
        call->help = true;
        return 0;
    }
    const struct command *child = command_child(call->command, word);
    if (child && call->depth < COMMAND_DEPTH_MAX) {
        call->path[call->depth++] = child;
        call->command = child;
        return 0;
    }
    const char *meant = command_suggest_child(call->command, word);
    if (call->depth == 1)
        path[0] = '\0';
    const char *space = path[0] ? " " : "";
    if (meant)
        return error_set(err, ERROR_USAGE, "unknown command '%s%s%s': did you mean '%s%s%s'?", path,
                         space, word, path, space, meant);
    return error_set(err, ERROR_USAGE, "unknown command '%s%s%s': see 'poolctl %s%s--help'", path,
                     space, word, path, space);
}

/* "create, ls or rm" of a group, for the error that asks for one. */
static void child_list(const struct command *command, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (const struct command *const *child = command->children; *child; child++)
        if (!(*child)->hidden && used + 16 < size)
            used +=
                (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "", (*child)->name);
}

/* That the command line is complete: a command, all its arguments, no more, what is required. */
static int check_complete(const struct invocation *call, struct error *err)
{
    char path[128];
    path_text(call, path, sizeof path);
    if (call->command == &command_root) /* "poolctl" alone shows its help */
        return 0;
    if (!call->command->run) {
        char list[256];
        child_list(call->command, list, sizeof list);
        return error_set(err, ERROR_USAGE, "%s: say which command: %s", path, list);
    }
    size_t position = 0;
    for (const struct argument *argument = call->command->arguments; argument && argument->name;
         argument++, position++) {
        const char *given = invocation_argument(call, position);
        if (!given && !argument->optional)
            return error_set(err, ERROR_USAGE, "%s needs %s: %s (see 'poolctl %s --help')", path,
                             argument->name, argument->help, path);
        if (given && !given[0])
            return error_set(err, ERROR_USAGE, "%s: %s is empty", path, argument->name);
        if (given && !command_word_allowed(argument->words, given))
            return error_set(err, ERROR_USAGE, "%s: '%s' is not one of %s", path, given,
                             argument->words);
    }
    if (call->argument_count > position)
        return error_set(err, ERROR_USAGE,
                         "%s: '%s' is one argument too many (see 'poolctl %s --help')", path,
                         call->arguments[position], path);
    for (const struct option *option = call->command->options; option && option->name; option++)
        if (option->required && !invocation_has(call, option->name))
            return error_set(err, ERROR_USAGE, "%s needs --%s %s (see 'poolctl %s --help')", path,
                             option->name, option->value, path);
    return 0;
}

int invocation_parse(struct invocation *call, int argc, char *const *argv, struct error *err)
{
    bool options_ended = false;
    call->path[0] = &command_root;
    call->depth = 1;
    call->command = &command_root;
    call->values = calloc((size_t)argc + 1, sizeof *call->values);
    call->arguments = calloc((size_t)argc + 1, sizeof *call->arguments);
    if (!call->values || !call->arguments)
        return error_set(err, ERROR_FAILED, "out of memory");
    for (int i = 1; i < argc; i++) {
        int result = 0;
        if (call->command->raw)
            call->arguments[call->argument_count++] = argv[i];
        else if (!options_ended && strcmp(argv[i], "--") == 0)
            options_ended = true;
        else if (!options_ended && argv[i][0] == '-' && argv[i][1])
            result = parse_option(call, argc, argv, &i, err);
        else
            result = parse_word(call, argv[i], err);
        if (result < 0)
            return -1;
    }
    if (call->help || call->command->raw)
        return 0;
    return check_complete(call, err);
}

void invocation_free(struct invocation *call)
{
    free(call->values);
    free(call->arguments);
    call->values = NULL;
    call->arguments = NULL;
    call->value_count = 0;
    call->argument_count = 0;
}

static const struct option_value *last_value(const struct invocation *call, const char *name)
{
    for (size_t i = call->value_count; i > 0; i--)
        if (strcmp(call->values[i - 1].option->name, name) == 0)
            return &call->values[i - 1];
    return NULL;
}

const char *invocation_option(const struct invocation *call, const char *name)
{
    const struct option_value *found = last_value(call, name);
    return found ? found->value : NULL;
}

bool invocation_has(const struct invocation *call, const char *name)
{
    return last_value(call, name) != NULL;
}

const char *invocation_next(const struct invocation *call, const char *name, size_t *at)
{
    for (; *at < call->value_count; ++*at)
        if (strcmp(call->values[*at].option->name, name) == 0)
            return call->values[(*at)++].value;
    return NULL;
}

const char *invocation_argument(const struct invocation *call, size_t position)
{
    return position < call->argument_count ? call->arguments[position] : NULL;
}

int invocation_ms(const struct invocation *call, const char *name, uint64_t *value,
                  struct error *err)
{
    const char *text = invocation_option(call, name);
    if (!text)
        return 0;
    if (units_parse_ms(text, value, err) < 0)
        return error_wrap(err, "--%s", name);
    if (*value == 0)
        return error_set(err, ERROR_USAGE, "--%s: '%s' is no time: give at least 1ms", name, text);
    return 0;
}

int invocation_bps(const struct invocation *call, const char *name, uint64_t *value,
                   struct error *err)
{
    const char *text = invocation_option(call, name);
    if (text && units_parse_bps(text, value, err) < 0)
        return error_wrap(err, "--%s", name);
    return 0;
}

int invocation_mib(const struct invocation *call, const char *name, uint64_t *value,
                   struct error *err)
{
    uint64_t bytes = 0;
    const char *text = invocation_option(call, name);
    if (!text)
        return 0;
    if (units_parse_bytes(text, MIB, &bytes, err) < 0)
        return error_wrap(err, "--%s", name);
    if (bytes < MIB)
        return error_set(err, ERROR_USAGE, "--%s: '%s' is less than 1M", name, text);
    *value = bytes / MIB + (bytes % MIB != 0);
    return 0;
}

int invocation_number(const struct invocation *call, const char *name, uint64_t min, uint64_t max,
                      uint64_t *value, struct error *err)
{
    char what[64];
    const char *text = invocation_option(call, name);
    (void)snprintf(what, sizeof what, "--%s", name);
    return text ? units_parse_number(text, what, min, max, value, err) : 0;
}

enum output_format invocation_format(const struct invocation *call)
{
    static const char *const names[] = {"table", "json", "yaml", "csv", "name"};
    const char *text = invocation_option(call, "output");
    for (unsigned i = 0; text && i < sizeof names / sizeof names[0]; i++)
        if (strcmp(text, names[i]) == 0)
            return (enum output_format)i;
    return OUTPUT_TABLE;
}
