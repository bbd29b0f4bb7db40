/*
 * help.h: what the command tree tells people: --help, the pages of docs/commands and man pages.
 */
#pragma once

#include <stddef.h>
#include <stdio.h>

#include "common/error.h"
#include "poolctl/command.h"

/* Prints the help of the last of the @depth commands of @path, @columns wide. */
void help_print(FILE *out, const struct command *const *path, size_t depth, int columns);

/* "poolctl vm create NAME --image IMAGE [options]" into @out; returns it. */
const char *help_usage(const struct command *const *path, size_t depth, char *out, size_t size);

enum help_format { HELP_MARKDOWN, HELP_MAN };

/* Writes one page a command into @folder, which must exist: "poolctl-vm-create.md" and so on, and
 * README.md as their list; or "poolctl-vm-create.1". */
int help_write_pages(const char *folder, enum help_format format, struct error *err);

/* Exit statuses as all pages explain them: index is enum error_kind. */
extern const char *const help_exit_statuses[];
#define HELP_EXIT_STATUSES 8
