/* migration_words.h: what both ends of a migration say, read from their claims for handover.h. */
#pragma once

#include "controller/handover.h"
#include "controller/jobs.h"

enum source_word migration_source_word(const struct controller *controller, const struct job *job);
enum target_word migration_target_word(const struct controller *controller, const struct job *job);

/* Takes over what a claim says of this job's progress; false where it says nothing of it. */
bool migration_note_progress(struct job *job, const Vmpool__NodeVm *said);
