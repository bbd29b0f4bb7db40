#include "common/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 3, 0))) static void format_text(char *out, size_t size,
                                                              const char *format, va_list args)
{
    int length = vsnprintf(out, size, format, args);
    if (length < 0)
        out[0] = '\0';
    else if ((size_t)length >= size)
        memcpy(out + size - 4, "...", 4);
}

static enum error_kind kind_of_errno(int number)
{
    switch (number) {
    case ENOENT:
        return ERROR_NOT_FOUND;
    case EEXIST:
    case EADDRINUSE:
        return ERROR_CONFLICT;
    case ETIMEDOUT:
        return ERROR_TIMEOUT;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return ERROR_UNREACHABLE;
    default:
        return ERROR_FAILED;
    }
}

/* Appends ": " and @tail to @text, cutting the end with "..." where it does not fit. */
static void append_tail(char *text, const char *tail)
{
    size_t used = strlen(text);
    int length = snprintf(text + used, ERROR_TEXT_MAX - used, ": %s", tail);
    if (length < 0 || (size_t)length >= ERROR_TEXT_MAX - used)
        memcpy(text + ERROR_TEXT_MAX - 4, "...", 4);
}

int error_set(struct error *err, enum error_kind kind, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    err->kind = kind;
    format_text(err->text, sizeof err->text, format, args);
    va_end(args);
    return -1;
}

int error_errno(struct error *err, int number, const char *format, ...)
{
    char reason[128];
    va_list args;
    va_start(args, format);
    err->kind = kind_of_errno(number);
    format_text(err->text, sizeof err->text, format, args);
    va_end(args);
    append_tail(err->text, strerror_r(number, reason, sizeof reason));
    return -1;
}

int error_wrap(struct error *err, const char *format, ...)
{
    char inner[ERROR_TEXT_MAX];
    va_list args;
    memcpy(inner, err->text, sizeof inner);
    va_start(args, format);
    format_text(err->text, sizeof err->text, format, args);
    va_end(args);
    append_tail(err->text, inner);
    if (err->kind == ERROR_NONE)
        err->kind = ERROR_FAILED;
    return -1;
}

void error_clear(struct error *err)
{
    err->kind = ERROR_NONE;
    err->text[0] = '\0';
}

const char *error_kind_name(enum error_kind kind)
{
    switch (kind) {
    case ERROR_NONE:
        return "none";
    case ERROR_FAILED:
        return "failed";
    case ERROR_NO_CAPACITY:
        return "no-capacity";
    case ERROR_USAGE:
        return "usage";
    case ERROR_NOT_FOUND:
        return "not-found";
    case ERROR_CONFLICT:
        return "conflict";
    case ERROR_TIMEOUT:
        return "timeout";
    case ERROR_UNREACHABLE:
        return "unreachable";
    }
    return "failed";
}
