/*
 * summary.h: how a job ended, for people.
 */
#pragma once

#include "poolctl/invocation.h"
#include "proto/admin.pb-c.h"

/* Prints the end of a job that succeeded. @from: the node a VM came from, where the job itself does
 * not say it; NULL where not known. */
void summary_print(const struct invocation *call, const Vmpool__Job *job, const char *from);

/* Prints what a migration did: rounds, bytes, time, the pause itemised, verified; and, where
 * @review is not NULL and it succeeded, what had been predicted of it. */
void summary_migration(const struct invocation *call, const Vmpool__MigrationProgress *migration,
                       const Vmpool__MigrationReview *review);
