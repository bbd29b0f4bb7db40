/*
 * invocation.h: one command line, parsed: which command, its options and arguments, and where
 * its output goes.
 *
 * Options may stand anywhere, as --name VALUE, --name=VALUE, -n VALUE or -nVALUE; "--" ends them.
 * Where an option that cannot be repeated is given twice, the last one counts.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/error.h"
#include "poolctl/command.h"

enum output_format { OUTPUT_TABLE, OUTPUT_JSON, OUTPUT_YAML, OUTPUT_CSV, OUTPUT_NAME };

/* Where output goes and what it may look like; filled by terminal_detect() or by a test. */
struct terminal {
    FILE *out;
    FILE *err;
    int in_fd;
    bool in_is_terminal;
    bool out_is_terminal;
    bool err_is_terminal;
    bool colour;    /* on out */
    bool utf8;      /* the terminal shows more than ASCII */
    int columns;    /* of the terminal; 0: not a terminal, as long as it takes */
    int64_t now_ms; /* wall clock that ages are counted from; 0: the real one */
};

struct option_value {
    const struct option *option;
    const char *value; /* NULL for a switch */
};

struct invocation {
    const struct command *path[COMMAND_DEPTH_MAX];
    size_t depth;
    const struct command *command; /* the last of path */
    struct option_value *values;
    size_t value_count;
    const char **arguments; /* point into argv */
    size_t argument_count;
    bool help;        /* --help was among them */
    bool interrupted; /* set by a command that Ctrl-C ended: exit status 130 */
    struct terminal terminal;
};

/* Reads @argv (argv[0] is skipped), whose strings must outlive @call. Fails with ERROR_USAGE and
 * the way out; @call must be freed in either case. @call->terminal is not touched. */
int invocation_parse(struct invocation *call, int argc, char *const *argv, struct error *err);
void invocation_free(struct invocation *call);

/* The option's value, or NULL where it was not given. */
const char *invocation_option(const struct invocation *call, const char *name);
/* Whether the option was given. */
bool invocation_has(const struct invocation *call, const char *name);
/* The next value of a repeated option after position *@at (begin with 0), or NULL. */
const char *invocation_next(const struct invocation *call, const char *name, size_t *at);
/* The argument of that position, or NULL. */
const char *invocation_argument(const struct invocation *call, size_t position);

/* Typed values: @value keeps its default where the option was not given. */
/* 0 is refused: it would read as "not given". */
int invocation_ms(const struct invocation *call, const char *name, uint64_t *value,
                  struct error *err);
int invocation_bps(const struct invocation *call, const char *name, uint64_t *value,
                   struct error *err);
/* In MiB, rounded up; 0 and less than 1 MiB are refused. */
int invocation_mib(const struct invocation *call, const char *name, uint64_t *value,
                   struct error *err);
int invocation_number(const struct invocation *call, const char *name, uint64_t min, uint64_t max,
                      uint64_t *value, struct error *err);

enum output_format invocation_format(const struct invocation *call);

/* Looks at the three standard descriptors, NO_COLOR, TERM, COLUMNS and the locale. */
void terminal_detect(struct terminal *terminal);
