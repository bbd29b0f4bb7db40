/*
 * tallies.h: what happened since this controller started, counted for the metrics (metrics.h). All
 * of it only grows, and a restart begins anew, as those who read counters expect.
 */
#pragma once

#include "controller/histogram.h"
#include "controller/jobs.h"

enum tally_outcome { TALLY_DONE, TALLY_FAILED, TALLY_CANCELLED, TALLY_OUTCOMES };
/* How a migration went, whatever was asked for. */
enum tally_mode { TALLY_PRECOPY, TALLY_POSTCOPY, TALLY_MODES };
/* A prediction was of less than it took, or not. */
enum tally_side { TALLY_LESS, TALLY_MORE, TALLY_SIDES };

struct tallies {
    uint64_t jobs_started[JOB_KINDS];
    uint64_t jobs_ended[JOB_KINDS][TALLY_OUTCOMES];
    uint64_t decisions; /* times that the scheduler was asked where a VM should go */
    uint64_t refusals;  /* of them those that no node fitted */
    uint64_t migrations[TALLY_MODES][TALLY_OUTCOMES];
    struct histogram duration_s, pause_s;         /* of migrations that succeeded */
    struct histogram duration_error[TALLY_SIDES]; /* shares of what it took, without sign */
    struct histogram pause_error[TALLY_SIDES];
};

struct tallies *tallies_new(void);
void tallies_free(struct tallies *tallies);

void tallies_job_started(struct tallies *tallies, const struct job *job);
/* Also what its migration took and what was predicted of it, where it was one. */
void tallies_job_ended(struct tallies *tallies, const struct job *job);
void tallies_decided(struct tallies *tallies, bool fits);
