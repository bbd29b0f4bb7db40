/* departures.c: see departures.h. */
#include "controller/departures.h"

#include <stdlib.h>

#include "common/clock.h"
#include "controller/pb.h"
#include "controller/store.h"

static void teach(struct controller *controller, const Vmpool__Store__Departure *left,
                  const char *vm)
{
    const struct sched_request request = {
        .vm = vm,
        .need = {(uint64_t)left->vcpus * 1000, left->memory_mib, left->bandwidth_bps},
        .tenant = left->tenant};
    scheduler_note_lifetime(controller->scheduler, &request, left->lifetime_s);
}

static int load_departure(void *context, const char *key, const uint8_t *data, size_t size,
                          struct error *err)
{
    struct controller *controller = context;
    Vmpool__Store__Departure *left =
        pb_unpack(&vmpool__store__departure__descriptor, data, size, err);
    (void)key;
    if (!left)
        return error_set(err, ERROR_FAILED, "the store is damaged");
    teach(controller, left, NULL);
    pb_free(left);
    return 0;
}

int departures_load(struct controller *controller, struct error *err)
{
    char last[STORE_NUMBER_SIZE + 1];
    if (store_last_key(controller->store, STORE_DEPARTURE, last, sizeof last, err) < 0)
        return -1;
    controller->next_departure = strtoull(last, NULL, 10) + 1;
    return store_read(controller->store, STORE_DEPARTURE, "", 0, load_departure, controller, err);
}

void departures_note(struct controller *controller, const struct vm *vm)
{
    const Vmpool__VmSpec *spec = vm->stored->spec;
    uint64_t now_ms = (uint64_t)clock_wall_ms(), number = controller->next_departure++;
    char key[STORE_NUMBER_SIZE];
    Vmpool__Store__Departure left = VMPOOL__STORE__DEPARTURE__INIT;
    left.vcpus = spec->vcpus;
    left.memory_mib = spec->memory_mib;
    left.bandwidth_bps = spec->bandwidth_bps;
    if (spec->rules && spec->rules->tenant)
        left.tenant = spec->rules->tenant;
    if (now_ms > vm->stored->created_wall_ms)
        left.lifetime_s = (now_ms - vm->stored->created_wall_ms) / 1000;
    teach(controller, &left, spec->name);
    store_put(controller->store, STORE_DEPARTURE, store_number(number, key), &left.base);
    if (number > DEPARTURES_MAX)
        store_delete(controller->store, STORE_DEPARTURE,
                     store_number(number - DEPARTURES_MAX, key));
}
