#include "poolctl/confirm.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "poolctl/text.h"

int confirm(const struct invocation *call, struct error *err, const char *question, ...)
{
    char text[256];
    char answer[16] = "";
    va_list args;
    va_start(args, question);
    (void)vsnprintf(text, sizeof text, question, args);
    va_end(args);
    if (invocation_has(call, "yes"))
        return 0;
    if (!call->terminal.in_is_terminal || !call->terminal.err_is_terminal)
        return error_set(err, ERROR_USAGE,
                         "%s There is no terminal to answer on: say so with --yes", text);
    text_print_safe(call->terminal.err, text, false);
    (void)fprintf(call->terminal.err, " [y/N] ");
    (void)fflush(call->terminal.err);
    ssize_t length = read(call->terminal.in_fd, answer, sizeof answer - 1);
    if (length > 0 && (strcmp(answer, "y\n") == 0 || strcmp(answer, "yes\n") == 0))
        return 0;
    return error_set(err, ERROR_FAILED, "nothing was done");
}
