/*
 * process.h: a process named so that another one with the same number is never taken for it.
 *
 * A pid alone is reused; a pid and its start time (field 22 of /proc/PID/stat, proc(5)) is not, as
 * long as the host has not been restarted.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

struct process_stat {
    uint64_t start_ticks; /* since boot */
    uint64_t cpu_ticks;   /* user, system and guest time of all its threads */
};

/* ERROR_NOT_FOUND where there is no such process. A zombie counts as gone. */
int process_stat(pid_t pid, struct process_stat *stat, struct error *err);

/* A pidfd of the process with that pid and start time: readable once it has ended (pidfd_open(2)).
 * ERROR_NOT_FOUND where it has. */
int process_open(pid_t pid, uint64_t start_ticks, struct error *err);

/* SIGKILL to the process behind @pidfd; gone already is fine. */
void process_kill(int pidfd);

/* Takes a child's exit status once its pidfd is readable: its code, or 128 + the signal that ended
 * it; -1 where it is no child of ours. */
int process_reap(int pidfd);
