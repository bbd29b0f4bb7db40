/*
 * pages.c: the command tree as pages: Markdown for docs/commands, man(7) for /usr/share/man.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "common/cleanup.h"
#include "poolctl/help.h"

/* "poolctl-vm-create" */
static const char *page_name(const struct command *const *path, size_t depth, char *out,
                             size_t size)
{
    command_path_text(path, depth, out, size);
    for (char *space = strchr(out, ' '); space; space = strchr(space, ' '))
        *space = '-';
    return out;
}

/* ---- Markdown ------------------------------------------------------------------------------- */

static void markdown_options(FILE *out, const char *title, const struct option *options)
{
    if (!options || !options->name)
        return;
    (void)fprintf(out, "\n## %s\n\n", title);
    for (const struct option *option = options; option->name; option++) {
        (void)fprintf(out, "- `");
        if (option->letter)
            (void)fprintf(out, "-%c`, `", option->letter);
        (void)fprintf(out, "--%s%s%s`", option->name, option->value ? " " : "",
                      option->value ? option->value : "");
        (void)fprintf(out, "%s: %s\n", option->required ? " (required)" : "", option->help);
    }
}

static void markdown_page(FILE *out, const struct command *const *path, size_t depth)
{
    const struct command *command = path[depth - 1];
    char text[512];
    (void)fprintf(out, "# %s\n\n%c%s.\n\n", command_path_text(path, depth, text, sizeof text),
                  toupper((unsigned char)command->summary[0]), command->summary + 1);
    (void)fprintf(out, "    %s\n", help_usage(path, depth, text, sizeof text));
    if (command->details)
        (void)fprintf(out, "\n%s\n", command->details);
    if (command->children)
        (void)fprintf(out, "\n## Commands\n\n");
    for (const struct command *const *child = command->children; child && *child; child++)
        if (!(*child)->hidden)
            (void)fprintf(out, "- [%s](%s-%s.md): %s\n", (*child)->name,
                          page_name(path, depth, text, sizeof text), (*child)->name,
                          (*child)->summary);
    if (command->arguments)
        (void)fprintf(out, "\n## Arguments\n\n");
    for (const struct argument *argument = command->arguments; argument && argument->name;
         argument++)
        (void)fprintf(out, "- `%s`: %s\n", argument->name, argument->help);
    markdown_options(out, "Options", command->options);
    if (command->examples)
        (void)fprintf(out, "\n## Examples\n");
    for (const struct example *example = command->examples; example && example->line; example++)
        (void)fprintf(out, "\n%s%s\n\n    %s\n", example->text,
                      strchr(example->text, '?') ? "" : ":", example->line);
    if (depth > 1) {
        (void)fprintf(out, "\nOptions of every command and exit statuses: [poolctl](README.md).\n");
        return;
    }
    markdown_options(out, "Options of every command", command_global_options);
    (void)fprintf(out, "\n## Exit status\n\n");
    for (int i = 0; i < HELP_EXIT_STATUSES; i++)
        (void)fprintf(out, "- `%d`: %s\n", i, help_exit_statuses[i]);
}

/* ---- man ------------------------------------------------------------------------------------ */

/* Text for troff: backslashes and dashes escaped, no line that begins with a control character. */
static void man_text(FILE *out, const char *text)
{
    bool line_start = true;
    for (; *text; text++) {
        if (line_start && (*text == '.' || *text == '\''))
            (void)fputs("\\&", out);
        if (*text == '\\')
            (void)fputs("\\e", out);
        else if (*text == '-')
            (void)fputs("\\-", out);
        else if (text[0] == '\n' && text[1] == '\n')
            (void)fputs("\n.PP", out);
        else
            (void)fputc(*text, out);
        line_start = *text == '\n';
    }
}

static void man_term(FILE *out, const char *term, const char *value, const char *text)
{
    (void)fprintf(out, ".TP\n\\fB");
    man_text(out, term);
    (void)fprintf(out, "\\fR");
    if (value) {
        (void)fprintf(out, " \\fI");
        man_text(out, value);
        (void)fprintf(out, "\\fR");
    }
    (void)fputc('\n', out);
    man_text(out, text);
    (void)fputc('\n', out);
}

static void man_options(FILE *out, const char *title, const struct option *options)
{
    if (options && options->name)
        (void)fprintf(out, ".SH %s\n", title);
    for (const struct option *option = options; option && option->name; option++) {
        char term[80];
        if (option->letter)
            (void)snprintf(term, sizeof term, "-%c, --%s", option->letter, option->name);
        else
            (void)snprintf(term, sizeof term, "--%s", option->name);
        man_term(out, term, option->value, option->help);
    }
}

static void man_page(FILE *out, const struct command *const *path, size_t depth)
{
    const struct command *command = path[depth - 1];
    char text[512];
    (void)fprintf(out, ".TH %s 1 \"\" \"vmpool %s\" \"vmpool\"\n.SH NAME\n",
                  page_name(path, depth, text, sizeof text), VMPOOL_VERSION);
    man_text(out, page_name(path, depth, text, sizeof text));
    (void)fprintf(out, " \\- ");
    man_text(out, command->summary);
    (void)fprintf(out, "\n.SH SYNOPSIS\n.B ");
    man_text(out, help_usage(path, depth, text, sizeof text));
    (void)fputc('\n', out);
    if (command->details) {
        (void)fprintf(out, ".SH DESCRIPTION\n");
        man_text(out, command->details);
        (void)fputc('\n', out);
    }
    if (command->children)
        (void)fprintf(out, ".SH COMMANDS\n");
    for (const struct command *const *child = command->children; child && *child; child++)
        if (!(*child)->hidden)
            man_term(out, (*child)->name, NULL, (*child)->summary);
    if (command->arguments)
        (void)fprintf(out, ".SH ARGUMENTS\n");
    for (const struct argument *argument = command->arguments; argument && argument->name;
         argument++)
        man_term(out, argument->name, NULL, argument->help);
    man_options(out, "OPTIONS", command->options);
    man_options(out, "OPTIONS OF EVERY COMMAND", command_global_options);
    if (command->examples)
        (void)fprintf(out, ".SH EXAMPLES\n");
    for (const struct example *example = command->examples; example && example->line; example++) {
        (void)fprintf(out, ".PP\n");
        man_text(out, example->text);
        (void)fprintf(out, "%s\n.PP\n.EX\n    ", strchr(example->text, '?') ? "" : ":");
        man_text(out, example->line);
        (void)fprintf(out, "\n.EE\n");
    }
    (void)fprintf(out, ".SH EXIT STATUS\n");
    for (int i = 0; i < HELP_EXIT_STATUSES; i++) {
        (void)snprintf(text, sizeof text, "%d", i);
        man_term(out, text, NULL, help_exit_statuses[i]);
    }
}

/* ---- files ---------------------------------------------------------------------------------- */

static int write_page(const char *folder, const struct command *const *path, size_t depth,
                      enum help_format format, struct error *err)
{
    char name[128];
    char file[4096];
    page_name(path, depth, name, sizeof name);
    if (format == HELP_MARKDOWN && depth == 1)
        (void)snprintf(file, sizeof file, "%s/README.md", folder);
    else
        (void)snprintf(file, sizeof file, "%s/%s.%s", folder, name,
                       format == HELP_MARKDOWN ? "md" : "1");
    auto_file FILE *out = fopen(file, "w");
    if (!out)
        return error_errno(err, errno, "cannot write %s", file);
    (format == HELP_MARKDOWN ? markdown_page : man_page)(out, path, depth);
    if (fflush(out) != 0 || ferror(out))
        return error_errno(err, errno, "cannot write %s", file);
    return 0;
}

static int write_tree(const char *folder, const struct command **path, size_t depth,
                      enum help_format format, struct error *err)
{
    if (write_page(folder, path, depth, format, err) < 0)
        return -1;
    for (const struct command *const *child = path[depth - 1]->children;
         child && *child && depth < COMMAND_DEPTH_MAX; child++) {
        path[depth] = *child;
        if (!(*child)->hidden && write_tree(folder, path, depth + 1, format, err) < 0)
            return -1;
    }
    return 0;
}

int help_write_pages(const char *folder, enum help_format format, struct error *err)
{
    const struct command *path[COMMAND_DEPTH_MAX] = {&command_root};
    return write_tree(folder, path, 1, format, err);
}
