#include "controller/tallies.h"

#include <math.h>
#include <stdlib.h>

#include "controller/migrate_review.h"
#include "controller/pb.h"

static struct histogram empty(const double *bounds, size_t size)
{
    return (struct histogram){.bounds = bounds, .bound_count = (unsigned)(size / sizeof *bounds)};
}

struct tallies *tallies_new(void)
{
    static const double durations_s[] = {0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600};
    static const double pauses_s[] = {0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10};
    static const double errors[] = {0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10};
    struct tallies *tallies = mem_new(sizeof *tallies);
    tallies->duration_s = empty(durations_s, sizeof durations_s);
    tallies->pause_s = empty(pauses_s, sizeof pauses_s);
    for (unsigned side = 0; side < TALLY_SIDES; side++)
        tallies->duration_error[side] = tallies->pause_error[side] = empty(errors, sizeof errors);
    return tallies;
}

void tallies_free(struct tallies *tallies)
{
    free(tallies);
}

static unsigned kind_of(const struct job *job)
{
    unsigned i = 0;
    while (job_kinds[i] != job->kind)
        i++;
    return i;
}

static enum tally_outcome outcome_of(const struct job *job)
{
    switch (job->stored->phase) {
    case VMPOOL__JOB_PHASE__JOB_DONE:
        return TALLY_DONE;
    case VMPOOL__JOB_PHASE__JOB_CANCELLED:
        return TALLY_CANCELLED;
    default:
        return TALLY_FAILED;
    }
}

static void add_error(struct histogram sides[TALLY_SIDES], bool known, int32_t permille)
{
    if (known)
        histogram_add(&sides[permille < 0 ? TALLY_LESS : TALLY_MORE], fabs(permille / 1000.0));
}

static void add_migration(struct tallies *tallies, const struct job *job)
{
    const Vmpool__MigrationProgress *migration = job->stored->migration;
    const Vmpool__MigrationReview *review = job->stored->review;
    enum tally_outcome outcome = outcome_of(job);
    bool postcopy = migration && migration->postcopy;
    tallies->migrations[postcopy ? TALLY_POSTCOPY : TALLY_PRECOPY][outcome]++;
    if (outcome != TALLY_DONE)
        return;
    if (migration && migration->pause)
        histogram_add(&tallies->pause_s, (double)migration->pause->total_us / 1e6);
    if (!review || review->duration_us == 0)
        return;
    histogram_add(&tallies->duration_s, (double)review->duration_us / 1e6);
    add_error(tallies->duration_error, migrate_review_has_duration(review),
              review->duration_error_permille);
    add_error(tallies->pause_error, migrate_review_has_pause(review), review->pause_error_permille);
}

void tallies_job_started(struct tallies *tallies, const struct job *job)
{
    tallies->jobs_started[kind_of(job)]++;
}

void tallies_job_ended(struct tallies *tallies, const struct job *job)
{
    tallies->jobs_ended[kind_of(job)][outcome_of(job)]++;
    if (job->kind == &job_vm_migrate)
        add_migration(tallies, job);
}

void tallies_decided(struct tallies *tallies, bool fits)
{
    tallies->decisions++;
    tallies->refusals += !fits;
}
