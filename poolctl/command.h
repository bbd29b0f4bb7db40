/*
 * command.h: the tree of commands, one struct a command.
 *
 * Everything a person can read or type comes from these structs: parsing, --help, "did you mean",
 * completion, the pages under docs/commands and the man pages. A command is added by writing its
 * struct beside its run function and naming it among its parent's children.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "common/error.h"

/* What completion offers for a value. */
enum complete {
    COMPLETE_NOTHING,
    COMPLETE_FILE,
    COMPLETE_NODE,
    COMPLETE_VM,
    COMPLETE_IMAGE,
    COMPLETE_JOB,
    COMPLETE_CONTEXT,
};

struct option {
    const char *name;  /* without its dashes; NULL ends a list */
    const char *value; /* what help calls the value; NULL: a switch */
    const char *help;
    const char *words; /* "table|json": the values allowed; NULL: any */
    enum complete complete;
    char letter; /* the short form, 0: none */
    bool repeated;
    bool required;
    bool may_be_empty; /* --name '' says something */
};

struct argument {
    const char *name; /* NULL ends a list */
    const char *help;
    const char *words;
    enum complete complete;
    bool optional;
};

struct example {
    const char *line; /* NULL ends a list */
    const char *text;
};

struct invocation;

struct command {
    const char *name;
    const char *summary;                   /* one line without full stop */
    const char *details;                   /* paragraphs; NULL: none */
    const struct argument *arguments;      /* NULL: takes none */
    const struct option *options;          /* its own; NULL: none. Global ones come on top. */
    const struct example *examples;        /* NULL: none */
    const struct command *const *children; /* ended by NULL; NULL: not a group */
    /* Returns 0, or -1 with @err set, whose kind is the exit status. */
    int (*run)(struct invocation *call, struct error *err);
    bool hidden; /* left out of help and completion */
    bool raw;    /* what follows its name is passed on unread */
};

#define COMMAND_DEPTH_MAX 4

/* The root, "poolctl". */
extern const struct command command_root;

/* Options every command has. */
extern const struct option command_global_options[];

/* Writes "poolctl vm create" for the @depth commands of @path into @out, and returns it. */
const char *command_path_text(const struct command *const *path, size_t depth, char *out,
                              size_t size);

/* The child of @command with this name, or NULL. */
const struct command *command_child(const struct command *command, const char *name);

/* The option of @command, or the global one, with this name (or one-letter form where @name has
 * length 1 and @letter is set); NULL where there is none. */
const struct option *command_option(const struct command *command, const char *name, bool letter);

/* Whether "a|b|c" has the word; NULL @words allows all. */
bool command_word_allowed(const char *words, const char *word);

/* The nearest name to @typed among the children or the options, or NULL where none is near. */
const char *command_suggest_child(const struct command *command, const char *typed);
const char *command_suggest_option(const struct command *command, const char *typed);
