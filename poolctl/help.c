#include "poolctl/help.h"

#include <string.h>

#include "poolctl/text.h"

#define TERM_WIDTH 30 /* columns of the left side of a list */

const char *const help_exit_statuses[HELP_EXIT_STATUSES] = {
    "done",
    "failed",
    "no host has room",
    "the command line or a value in it is wrong",
    "not found",
    "conflict: it exists already, is in the wrong state, or a plan is stale",
    "not done in time",
    "the controller does not answer",
};

const char *help_usage(const struct command *const *path, size_t depth, char *out, size_t size)
{
    const struct command *command = path[depth - 1];
    command_path_text(path, depth, out, size);
    size_t used = strlen(out);
    if (command->children) {
        (void)snprintf(out + used, size - used, " COMMAND [options]");
        return out;
    }
    for (const struct argument *argument = command->arguments; argument && argument->name;
         argument++, used = strlen(out))
        (void)snprintf(out + used, size - used, argument->optional ? " [%s]" : " %s",
                       argument->name);
    for (const struct option *option = command->options; option && option->name;
         option++, used = strlen(out))
        if (option->required)
            (void)snprintf(out + used, size - used, " --%s %s", option->name, option->value);
    (void)snprintf(out + used, size - used, " [options]");
    return out;
}

/* One line of a list: the term, and its text beside it, or below where the term is too long. */
static void print_term(FILE *out, const char *term, const char *text, int columns)
{
    int width = fprintf(out, "  %s", term);
    if (width >= TERM_WIDTH - 1)
        (void)fprintf(out, "\n%*s", TERM_WIDTH, "");
    else
        (void)fprintf(out, "%*s", TERM_WIDTH - width, "");
    text_print_wrapped(out, text, TERM_WIDTH, columns);
}

static const char *option_term(const struct option *option, char *out, size_t size)
{
    char letter[8] = "    ";
    if (option->letter)
        (void)snprintf(letter, sizeof letter, "-%c, ", option->letter);
    (void)snprintf(out, size, "%s--%s%s%s", letter, option->name, option->value ? " " : "",
                   option->value ? option->value : "");
    return out;
}

static void print_options(FILE *out, const char *title, const struct option *options, int columns)
{
    if (!options || !options->name)
        return;
    (void)fprintf(out, "\n%s:\n", title);
    for (const struct option *option = options; option->name; option++) {
        char term[96];
        print_term(out, option_term(option, term, sizeof term), option->help, columns);
    }
}

static void print_children(FILE *out, const struct command *command, int columns)
{
    (void)fprintf(out, "\nCommands:\n");
    for (const struct command *const *child = command->children; *child; child++)
        if (!(*child)->hidden)
            print_term(out, (*child)->name, (*child)->summary, columns);
}

void help_print(FILE *out, const struct command *const *path, size_t depth, int columns)
{
    const struct command *command = path[depth - 1];
    char text[512];
    if (columns <= 0 || columns > 100)
        columns = 100;
    (void)fprintf(out, "%s: %s\n", command_path_text(path, depth, text, sizeof text),
                  command->summary);
    (void)fprintf(out, "\nUsage: ");
    text_print_wrapped(out, help_usage(path, depth, text, sizeof text), 7, columns);
    if (command->details) {
        (void)fputc('\n', out);
        text_print_wrapped(out, command->details, 0, columns);
    }
    if (command->children)
        print_children(out, command, columns);
    if (command->arguments)
        (void)fprintf(out, "\nArguments:\n");
    for (const struct argument *argument = command->arguments; argument && argument->name;
         argument++)
        print_term(out, argument->name, argument->help, columns);
    print_options(out, "Options", command->options, columns);
    if (command->examples)
        (void)fprintf(out, "\nExamples:\n");
    for (const struct example *example = command->examples; example && example->line; example++)
        (void)fprintf(out, "  # %s\n  %s\n", example->text, example->line);
    if (!command->raw)
        print_options(out, "Options of every command", command_global_options, columns);
    if (depth == 1)
        (void)fprintf(out, "\nExit status:\n");
    for (int i = 0; depth == 1 && i < HELP_EXIT_STATUSES; i++)
        (void)fprintf(out, "  %d  %s\n", i, help_exit_statuses[i]);
}
