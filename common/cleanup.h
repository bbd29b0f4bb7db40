/*
 * cleanup.h: resources that free themselves when their variable leaves scope.
 *
 *     auto_fd int fd = open(...);       closed
 *     auto_free char *text = strdup();  freed
 *     auto_file FILE *f = fopen(...);   fclose()d
 *     return take_fd(&fd);              handed on instead
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_fd(const int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}

static inline void cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}

static inline void cleanup_file(FILE **file)
{
    if (*file)
        (void)fclose(*file);
}

/* Gives the descriptor to the caller; the variable is -1 afterwards. */
static inline int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* Closes a descriptor that lives in a struct and marks it closed. */
static inline void close_fd(int *fd)
{
    cleanup_fd(fd);
    *fd = -1;
}

#define auto_fd   __attribute__((cleanup(cleanup_fd)))
#define auto_free __attribute__((cleanup(cleanup_free)))
#define auto_file __attribute__((cleanup(cleanup_file)))
