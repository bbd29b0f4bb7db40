#include "poolctl/poolctl.h"

#include <errno.h>
#include <string.h>

#include "poolctl/help.h"
#include "poolctl/text.h"

static int print_error(const struct terminal *terminal, const struct error *err)
{
    (void)fflush(terminal->out);
    (void)fprintf(terminal->err, "poolctl: ");
    text_print_safe(terminal->err, err->text, false);
    (void)fputc('\n', terminal->err);
    return err->kind == ERROR_NONE ? ERROR_FAILED : (int)err->kind;
}

static void apply_colour(struct terminal *terminal, const char *when)
{
    if (when && strcmp(when, "always") == 0)
        terminal->colour = true;
    else if (when && strcmp(when, "never") == 0)
        terminal->colour = false;
}

/* A full disk or a closed pipe behind our output is a failure like any other. */
static int check_output(const struct terminal *terminal)
{
    struct error err = ERROR_INIT;
    if (fflush(terminal->out) == 0 && !ferror(terminal->out))
        return 0;
    (void)error_errno(&err, errno, "cannot write the output");
    return print_error(terminal, &err);
}

int poolctl_run(int argc, char *const *argv, const struct terminal *terminal)
{
    struct invocation call = {.terminal = *terminal};
    struct error err = ERROR_INIT;
    int status = 0;
    if (invocation_parse(&call, argc, argv, &err) < 0) {
        status = print_error(terminal, &err);
    } else {
        apply_colour(&call.terminal, invocation_option(&call, "color"));
        if (call.help || call.command == &command_root)
            help_print(terminal->out, call.path, call.depth, terminal->columns);
        else if (call.command->run(&call, &err) < 0)
            status = print_error(terminal, &err);
        int written = check_output(terminal);
        status = status ? status : written;
    }
    if (call.interrupted)
        status = 130;
    invocation_free(&call);
    return status;
}
