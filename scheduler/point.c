/* point.c: see point.h. */
#include "scheduler/point.h"

#include "scheduler/pool.h"

struct point point_make(const struct node *node, const struct sched_resources *reserved)
{
    struct point point = {.exit_slot = node->exit_slot};
    for (int d = 0; d < DIMENSIONS; d++) {
        uint64_t limit = resource(&node->limit, d);
        uint64_t capacity = resource(&node->capacity, d);
        uint64_t taken = resource(reserved, d);
        point.free[d] = limit > taken ? limit - taken : 0;
        point.per_unit[d] = limit ? 1.0 / (double)limit : 0;
        point.load[d] = (double)taken * point.per_unit[d];
        if (capacity)
            point.measured[d] = (double)resource(&node->used, d) / (double)capacity;
    }
    return point;
}
