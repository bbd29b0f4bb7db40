/* migration_words.h: what both ends of a migration say, read from their claims for handover.h. */
#pragma once

#include "controller/handover.h"
#include "controller/jobs.h"

enum source_word migration_source_word(const struct controller *controller, const struct job *job);
enum target_word migration_target_word(const struct controller *controller, const struct job *job);

/* What a claim says of this migration; NULL: nothing. */
const Vmpool__MigrationProgress *migration_progress_of(const struct job *job,
                                                       const Vmpool__NodeVm *said);
/* Whether the source's process exists, as it was last said. */
bool migration_source_lives(const struct claim *claim);
/* Takes over what a claim says of this job's progress; false where it says nothing of it. */
bool migration_note_progress(struct job *job, const Vmpool__NodeVm *said);
