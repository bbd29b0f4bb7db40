/* report.h: the progress of one migration, as its threads tell it and the caller reads it. */
#pragma once

#include <pthread.h>

#include "node-agent/migration/migration.h"

struct report {
    pthread_mutex_t lock;
    struct migration_progress progress; /* under @lock */
    int event_fd;
    int64_t start_ns;
};

int report_init(struct report *report, const char *migration_id, uint64_t ram_bytes,
                struct error *err);
void report_destroy(struct report *report);

/* report_edit() locks and gives the progress to change; report_done() unlocks and tells the reader
 * there is something new. */
struct migration_progress *report_edit(struct report *report);
void report_done(struct report *report);

void report_read(struct report *report, struct migration_progress *out);
void report_phase(struct report *report, enum migration_phase phase);
void report_add_round(struct report *report, const struct migration_round *round);
/* Sets the text of a warning; NULL takes it away. */
void report_warn(struct report *report, const char *text);
