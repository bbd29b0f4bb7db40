/*
 * spawn.h: starts a program with exactly the descriptors and environment it is meant to have.
 *
 * What is passed gets the numbers 3, 4, ... in the order of spawn_pass(); everything else is
 * closed. The program leads a session of its own, so no signal meant for the agent's terminal or
 * group reaches it, and it outlives the agent.
 *
 * The child waits until @registered has noted its pid and start time where the next agent will
 * look. Should the agent die before, the child sees the pipe close and ends without having run the
 * program: a program that runs is always one that was noted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

#define SPAWN_ARGS_MAX 96
#define SPAWN_FDS_MAX  40

struct spawn {
    const char *path;
    char *args[SPAWN_ARGS_MAX + 1]; /* owned */
    size_t arg_count;
    int fds[SPAWN_FDS_MAX]; /* the caller's */
    size_t fd_count;
    int stderr_fd; /* also stdout; -1: /dev/null */
    int cgroup_fd; /* cgroup.procs of the group to start in; -1: stay */
    bool overflow; /* an argument or descriptor found no place: reported by spawn_start() */
};

void spawn_init(struct spawn *spawn, const char *path);
void spawn_clear(struct spawn *spawn);
/* Adds one argument; the first becomes argv[0]. */
void spawn_arg(struct spawn *spawn, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Passes @fd, which stays the caller's; returns the number it has in the program. */
int spawn_pass(struct spawn *spawn, int fd);

/* Starts it. @pidfd becomes readable when the program ends. Where @registered fails or the program
 * cannot be run, nothing is left. */
int spawn_start(const struct spawn *spawn,
                int (*registered)(void *context, pid_t pid, uint64_t start_ticks,
                                  struct error *err),
                void *context, pid_t *pid, int *pidfd, struct error *err);
