/* terminal.c: what the three standard descriptors are, for invocation.h. */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "poolctl/invocation.h"

#define COLUMNS_DEFAULT 80
#define COLUMNS_MIN     40

static bool is_set(const char *variable)
{
    const char *value = getenv(variable);
    return value && value[0];
}

static bool locale_is_utf8(void)
{
    static const char *const variables[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (unsigned i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        const char *value = getenv(variables[i]);
        if (value && value[0])
            return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
    }
    return false;
}

void terminal_detect(struct terminal *terminal)
{
    struct winsize size = {0};
    const char *term = getenv("TERM");
    bool dumb = !term || strcmp(term, "dumb") == 0;
    *terminal = (struct terminal){.out = stdout, .err = stderr, .in_fd = STDIN_FILENO};
    terminal->in_is_terminal = isatty(STDIN_FILENO) == 1;
    terminal->out_is_terminal = isatty(STDOUT_FILENO) == 1;
    terminal->err_is_terminal = isatty(STDERR_FILENO) == 1 && !dumb;
    terminal->colour = terminal->out_is_terminal && !dumb && !is_set("NO_COLOR");
    terminal->utf8 = locale_is_utf8();
    if (terminal->out_is_terminal) {
        bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= COLUMNS_MIN;
        terminal->columns = known ? size.ws_col : COLUMNS_DEFAULT;
    }
}
