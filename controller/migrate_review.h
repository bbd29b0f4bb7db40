/*
 * migrate_review.h: what was predicted of a migration, beside what it took: kept with the VM's last
 * migration, so that an operator knows what a prediction is worth.
 *
 * Predicted is what --dry-run would have said at that moment. The time runs while the migration
 * works: from preparing until it is ready, and from the stream until the source is cleaned up; not
 * while it waits for its turn (migrate_queue.h). A pause counts without hashing (--verify), which
 * is asked for and predicted by nobody.
 */
#pragma once

#include "controller/jobs.h"

/* It begins to prepare: the prediction goes into the journal, which the caller saves. */
void migrate_review_begin(const struct controller *controller, struct job *job);
/* It is ready, and its clock stands; it streams, and its clock goes on. */
void migrate_review_ready(struct job *job);
void migrate_review_stream(struct job *job);
/* It has succeeded: what it took goes into the journal. */
void migrate_review_end(struct job *job);
/* Predicted less real, in thousandths of real; 0 where one of both is not known. */
int32_t migrate_review_error(uint64_t predicted, uint64_t real);
/* Whether an error of one that succeeded is known, so that 0 means that there was none. */
bool migrate_review_has_duration(const Vmpool__MigrationReview *review);
bool migrate_review_has_pause(const Vmpool__MigrationReview *review);
