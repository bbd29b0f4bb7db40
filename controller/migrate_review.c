#include "controller/migrate_review.h"

#include "common/clock.h"
#include "controller/pb.h"
#include "controller/plans.h"

/* A prediction that is wrong by more is just that wrong. */
#define ERROR_MAX_PERMILLE 1000000

int32_t migrate_review_error(uint64_t predicted, uint64_t real)
{
    if (predicted == 0 || real == 0)
        return 0;
    double error = ((double)predicted - (double)real) / (double)real * 1000;
    return error > ERROR_MAX_PERMILLE ? ERROR_MAX_PERMILLE
                                      : (int32_t)(error < 0 ? error - 0.5 : error + 0.5);
}

/* On the wall, as the journal has to outlive a restart; a clock that was set back counts for
 * nothing. */
static uint64_t since_ms(uint64_t wall_ms)
{
    uint64_t now_ms = (uint64_t)clock_wall_ms();
    return now_ms > wall_ms ? now_ms - wall_ms : 0;
}

void migrate_review_begin(const struct controller *controller, struct job *job)
{
    Vmpool__Store__Job *stored = job->stored;
    pb_free(stored->review);
    stored->review = mem_new(sizeof *stored->review);
    vmpool__migration_review__init(stored->review);
    stored->review->predicted = plans_forecast(controller, job->vm, stored->to_name);
    stored->clock_wall_ms = (uint64_t)clock_wall_ms();
    stored->prepared_ms = 0;
}

void migrate_review_ready(struct job *job)
{
    job->stored->prepared_ms = since_ms(job->stored->clock_wall_ms);
}

void migrate_review_stream(struct job *job)
{
    job->stored->clock_wall_ms = (uint64_t)clock_wall_ms();
}

static void compare_pause(Vmpool__MigrationReview *review,
                          const Vmpool__MigrationProgress *migration)
{
    const Vmpool__MigrationPause *pause = migration->pause;
    if (!pause || pause->total_us <= pause->verify_us)
        return;
    review->pause_us = pause->total_us - pause->verify_us;
    review->pause_error_permille =
        migrate_review_error(review->predicted->pause_us, review->pause_us);
    if (migration->postcopy || migration->predicted_pause_us == UINT64_MAX)
        return; /* it predicts only a pause that waits for the last pages */
    review->engine_pause_us = migration->predicted_pause_us;
    review->engine_pause_error_permille =
        migrate_review_error(review->engine_pause_us, review->pause_us);
}

void migrate_review_end(struct job *job)
{
    const Vmpool__MigrationProgress *migration = job->stored->migration;
    Vmpool__MigrationReview *review = job->stored->review;
    if (!review || !review->predicted || !migration)
        return; /* begun by an older version, or neither end ever reported */
    uint64_t took_ms = job->stored->prepared_ms + since_ms(job->stored->clock_wall_ms);
    review->duration_us = took_ms ? took_ms * 1000 : 1; /* 0 stands for one that failed */
    review->duration_error_permille =
        migrate_review_error(review->predicted->duration_us, review->duration_us);
    review->bytes = migration->wire_bytes;
    review->bytes_error_permille = migrate_review_error(review->predicted->bytes, review->bytes);
    compare_pause(review, migration);
}

bool migrate_review_has_duration(const Vmpool__MigrationReview *review)
{
    return review->predicted && review->predicted->duration_us > 0 && review->duration_us > 0;
}

bool migrate_review_has_pause(const Vmpool__MigrationReview *review)
{
    return review->predicted && review->predicted->pause_us > 0 && review->pause_us > 0;
}
