/* departures.h: who leaves next: a binary heap by time; of equal times the VM that came first.
 * Private to scheduler/. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct departure {
    uint64_t time_s;
    size_t vm;
};

struct departures {
    struct departure *heap;
    size_t count, space;
};

int departures_add(struct departures *departures, const struct departure *departure,
                   struct error *err);
/* The next one, left where it is; false: nobody leaves any more. */
bool departures_first(const struct departures *departures, struct departure *first);
/* Takes the next one out; there must be one. */
void departures_drop(struct departures *departures);
void departures_free(struct departures *departures);
