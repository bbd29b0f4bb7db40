/*
 * link_model.h: what sending so many bytes will take, from what the rounds before took: a latency,
 * paid once a round whatever its size, plus bytes over a rate. Pure: no clock, no I/O.
 *
 * A rate alone would be wrong at both ends: a round of ten pages is all latency and says nothing of
 * the link, yet its "rate" of a few Mbit/s would forbid a pause that takes a few milliseconds.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct link_model {
    uint64_t rate;       /* bytes a second; 0: not known */
    uint64_t latency_us; /* of a round, its bytes left out; the newest counts half */
    uint32_t latencies;  /* rounds that told it */
    bool rough;          /* the rate is of memory that was new to the target: the next one counts */
};

/* A round of @bytes on the wire took @us (> 0) until the target had it. */
void link_model_note(struct link_model *model, uint64_t bytes, uint64_t us);
