/* departures.c: see departures.h. */
#include "scheduler/departures.h"

#include <stdlib.h>

static bool before(const struct departure *a, const struct departure *b)
{
    return a->time_s != b->time_s ? a->time_s < b->time_s : a->vm < b->vm;
}

int departures_add(struct departures *departures, const struct departure *departure,
                   struct error *err)
{
    if (departures->count == departures->space) {
        size_t space = departures->space ? departures->space * 2 : 256;
        struct departure *heap = reallocarray(departures->heap, space, sizeof *heap);
        if (!heap)
            return error_set(err, ERROR_FAILED, "out of memory for %zu departures", space);
        departures->heap = heap;
        departures->space = space;
    }
    size_t at = departures->count++;
    for (; at > 0 && before(departure, &departures->heap[(at - 1) / 2]); at = (at - 1) / 2)
        departures->heap[at] = departures->heap[(at - 1) / 2];
    departures->heap[at] = *departure;
    return 0;
}

bool departures_first(const struct departures *departures, struct departure *first)
{
    if (departures->count == 0)
        return false;
    *first = departures->heap[0];
    return true;
}

void departures_drop(struct departures *departures)
{
    struct departure *heap = departures->heap;
    const struct departure last = heap[--departures->count];
    size_t at = 0;
    for (size_t child = 1; child < departures->count; child = 2 * at + 1) {
        if (child + 1 < departures->count && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &last))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
}

void departures_free(struct departures *departures)
{
    free(departures->heap);
    *departures = (struct departures){0};
}
