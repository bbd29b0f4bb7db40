/*
 * progress.h: how far a job is, on stderr: one line that is redrawn on a terminal, one line a
 * change elsewhere, nothing with --quiet.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "poolctl/invocation.h"
#include "proto/admin.pb-c.h"

struct progress {
    struct terminal terminal;
    bool quiet;
    bool drawn;     /* a line stands on the terminal that must be cleared */
    char last[512]; /* what was printed last where it is no terminal */
};

void progress_begin(struct progress *progress, const struct invocation *call);
void progress_job(struct progress *progress, const Vmpool__Job *job);
/* Bytes done of @total, for hashing and uploading; @what is "hashing vmlinuz". */
void progress_bytes(struct progress *progress, const char *what, uint64_t done, uint64_t total);
/* @done of @total @things ("VMs"); nothing where it is no terminal. */
void progress_count(struct progress *progress, const char *what, uint64_t done, uint64_t total,
                    const char *things);
/* A line that stays, above the progress. */
void progress_note(struct progress *progress, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Takes the line away; call before anything else is printed. */
void progress_clear(struct progress *progress);
