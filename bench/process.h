/* process.h: what a process of this machine used, and asking it for its metrics. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "common/error.h"

/* CPU of all its threads so far; finer than the clock ticks of /proc/PID/stat. */
double process_cpu_s(pid_t pid);
/* @field of /proc/PID/status, such as "VmHWM:". */
double process_memory_mib(pid_t pid, const char *field);
/* Waits for the answer of "GET /metrics" at "127.0.0.1:PORT", and gives the bytes it has. */
int process_scrape(const char *address, size_t *bytes, struct error *err);
