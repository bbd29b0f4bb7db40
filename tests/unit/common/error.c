#include "common/error.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(error, wrap_puts_context_in_front_and_keeps_the_kind)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(error_set(&err, ERROR_NOT_FOUND, "no VM '%s'", "web"), -1);
    cr_assert_eq(error_wrap(&err, "cannot stop %s", "web"), -1);
    cr_assert_str_eq(err.text, "cannot stop web: no VM 'web'");
    cr_assert_eq(err.kind, ERROR_NOT_FOUND);
}

Test(error, errno_chooses_the_kind)
{
    struct error err = ERROR_INIT;
    (void)error_errno(&err, ENOENT, "open %s", "/x");
    cr_assert_eq(err.kind, ERROR_NOT_FOUND);
    cr_assert_str_eq(err.text, "open /x: No such file or directory");
    (void)error_errno(&err, EADDRINUSE, "bind");
    cr_assert_eq(err.kind, ERROR_CONFLICT);
}

Test(error, long_texts_are_cut_and_say_so)
{
    struct error err = ERROR_INIT;
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    (void)error_set(&err, ERROR_FAILED, "%s", text);
    cr_assert_eq(strlen(err.text), ERROR_TEXT_MAX - 1);
    cr_assert_str_eq(err.text + ERROR_TEXT_MAX - 4, "...");
    (void)error_wrap(&err, "context");
    cr_assert_eq(strncmp(err.text, "context: xxx", 12), 0);
    cr_assert_eq(strlen(err.text), ERROR_TEXT_MAX - 1);
}
