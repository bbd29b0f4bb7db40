/*
 * error.h: the one way errors travel through vmpool.
 *
 * A function that can fail takes a `struct error *` as its last parameter (never NULL) and returns
 * 0 or -1, or a pointer or NULL. Where it fails it calls error_set() or error_errno(); each caller
 * that knows more adds a line of context with error_wrap(); main, or whoever answers the operator,
 * prints it once and turns the kind into an exit code. A text says what is wrong and the way out.
 *
 *     if (image_open(path, &image, err) < 0)
 *         return error_wrap(err, "cannot start VM %s", name);
 */
#pragma once

#include <stdbool.h>

/* What a caller can act on. The values are the exit codes of every program of the project. */
enum error_kind {
    ERROR_NONE = 0,
    ERROR_FAILED = 1,      /* anything that has no kind of its own */
    ERROR_NO_CAPACITY = 2, /* no host fits */
    ERROR_USAGE = 3,       /* the request itself is wrong */
    ERROR_NOT_FOUND = 4,
    ERROR_CONFLICT = 5, /* exists already, wrong state, or a stale plan or epoch */
    ERROR_TIMEOUT = 6,
    ERROR_UNREACHABLE = 7, /* the controller, a node or a peer does not answer */
};

#define ERROR_TEXT_MAX 1024

struct error {
    enum error_kind kind;
    char text[ERROR_TEXT_MAX]; /* always terminated; cut with "..." where it was too long */
};

#define ERROR_INIT                                                                                 \
    {                                                                                              \
        .kind = ERROR_NONE                                                                         \
    }

/* Sets kind and text, replacing what was there. Always returns -1. */
int error_set(struct error *err, enum error_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* error_set() with ": " and the text of errno value @number behind the message. The kind is
 * NOT_FOUND for ENOENT, CONFLICT for EEXIST and EADDRINUSE, TIMEOUT for ETIMEDOUT, UNREACHABLE for
 * ECONNREFUSED and EHOSTUNREACH, and FAILED for the rest. Always returns -1. */
int error_errno(struct error *err, int number, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the text and keeps the kind. Always returns -1. */
int error_wrap(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Back to ERROR_NONE, so that the struct can be used again. */
void error_clear(struct error *err);

/* The lower-case word for a kind ("no-capacity"), for JSON and logs. */
const char *error_kind_name(enum error_kind kind);
